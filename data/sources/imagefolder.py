"""Your own images: a folder with `metadata.jsonl` or `metadata.csv`, the layout of `imagefolder` in `datasets`.

Fields are `file_name` (path of the image), `text` (one caption) or in JSON `captions` (a list), and optionally `label`
and `split` (default: `train`). In CSV, consecutive lines with an equal file name are captions of one image. Metadata
files may also be in the folders `train`, `val` (or `validation`) and `test`.
"""

import csv
import io
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rsmclip.core.errors import UserError, user_errors
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
        """Yield all rows in the order of the metadata."""
        files = [(path, folder) for folder in SPLIT_FOLDERS if (path := first_metadata(self.root / folder))]
        if not files:
            raise UserError(f"{self.name}: no annotation file metadata.jsonl or metadata.csv in {self.root}")
        for path, folder in files:
            for place, entry in read_json_lines(path) if path.suffix == ".jsonl" else read_csv(path):
                yield self.row(place, entry, folder)

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
    for _, group in groupby(lines, key=lambda line: line[1].get("file_name")):
        entries = list(group)
        place, first = entries[0]
        yield place, first | {"captions": [read_field(line, "text", str | None, place) for place, line in entries]}
