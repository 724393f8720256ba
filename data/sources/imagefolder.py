"""Your own images: a folder with `metadata.jsonl` or `metadata.csv`, the layout of `imagefolder` in `datasets`.

Fields are `file_name` (path of the image), `text` (one caption) or in JSON `captions` (a list), and optionally `label`
and `split` (default: `train`). In CSV, consecutive lines with an equal file name are captions of one image. Metadata
files may also be in the folders `train`, `val` (or `validation`) and `test`.
"""

import csv
import io
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.images import IMAGE_SUFFIXES
from rsmclip.data.sources.protocol import SourceRow, existing_folder, make_row, read_field, read_json_lines

SPLIT_FOLDERS = {".": "train", "train": "train", "val": "val", "validation": "val", "test": "test"}


class ImageFolder:
    """A folder of images. The name of the folder is the name of the corpus."""

    license = None
    citation = None

    def __init__(self, place: str):
        self.root = existing_folder("imagefolder", place)
        self.name = self.root.resolve().name

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows in the order of the metadata. Print a note about files that are not used."""
        files = [(path, folder) for folder in SPLIT_FOLDERS if (path := first_metadata(self.root / folder))]
        if not files:
            raise UserError(f"{self.name}: no annotation file metadata.jsonl or metadata.csv in {self.root}")
        listed = set()
        for path, folder in files:
            for place, entry in read_json_lines(path) if path.suffix == ".jsonl" else read_csv(path):
                yield self.row(place, entry, folder)
                listed.add(self.root / folder / entry["file_name"])
        if unused := [*self.ignored_metadata(), *self.images_except(listed)]:
            tqdm.write(f"note: {self.name}: {'; '.join(unused)}", file=sys.stderr)

    def ignored_metadata(self) -> Iterator[str]:
        for folder in (self.root / name for name in SPLIT_FOLDERS):
            if (folder / "metadata.jsonl").is_file() and (folder / "metadata.csv").is_file():
                yield f"{folder / 'metadata.csv'} is not read, because metadata.jsonl is beside it"

    def images_except(self, listed: set[Path]) -> Iterator[str]:
        with user_errors(OSError, prefix=f"{self.root} cannot be read"):
            paths = [path for path in self.root.rglob("[!.]*") if path.suffix.lower() in IMAGE_SUFFIXES]
        if others := sorted(set(paths) - listed):
            yield f"images left out, because they have no metadata: {len(others):,} (first: {others[0]})"

    def row(self, place: str, entry: dict, folder: str) -> SourceRow:
        captions = read_field(entry, "captions" if "captions" in entry else "text", str | list | None, place)
        captions = [captions] if isinstance(captions, str) else captions or []
        label = None if entry.get("label") in (None, "") else str(entry["label"])
        file_name = (Path(folder) / read_field(entry, "file_name", str, place)).as_posix()
        split = entry.get("split") or SPLIT_FOLDERS[folder]
        return make_row(self.name, self.root, file_name, split, captions, label, place)


def first_metadata(folder: Path) -> Path | None:
    return next((path for path in (folder / "metadata.jsonl", folder / "metadata.csv") if path.is_file()), None)


def read_csv(path: Path) -> Iterator[tuple[str, dict]]:
    with user_errors(OSError, UnicodeDecodeError, csv.Error, prefix=f"{path} cannot be read as CSV in UTF-8"):
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        lines = [(f"{path}, line {reader.line_num}", line) for line in reader]
    for place, line in lines:
        if None in line or None in line.values():
            number = "many" if None in line else "few"
            raise UserError(f"{place} has too {number} fields; write a text with a comma in double quotes")
    for _, group in groupby(lines, key=lambda line: line[1].get("file_name")):
        entries = list(group)
        place, first = entries[0]
        yield place, first | {"captions": [read_field(line, "text", str, place) for place, line in entries]}
