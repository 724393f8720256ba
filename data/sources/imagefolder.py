"""Your own images: a folder with `metadata.jsonl` or `metadata.csv`, as the `imagefolder` of `datasets` has it.

`file_name` is the path of the image. `captions` is a list (in CSV, as JSON) or `text` is one caption. In CSV,
consecutive lines with one file name are captions of one image. `label` and `split` are optional. Metadata may also be
in folders `train`, `val` (or `validation`) and `test`; a row without a split is in `train`.
"""

import csv
import io
import json
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
    with user_errors(OSError, UnicodeDecodeError, csv.Error, prefix=f"{path} is not a CSV file in UTF-8"):
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        lines = [(f"{path}, line {reader.line_num}", line) for line in reader]
    for _, group in groupby(lines, key=lambda line: line[1].get("file_name")):
        (place, first), *more = group
        captions = [caption for line in [(place, first), *more] for caption in captions_of_line(*line)]
        yield place, first | {"captions": captions}


def captions_of_line(place: str, line: dict) -> list[str]:
    if not line.get("captions"):
        return [read_field(line, "text", str | None, place)]
    with user_errors(ValueError, prefix=f"{place} is malformed: 'captions' is not JSON"):
        captions = json.loads(line["captions"])
    return read_field({"captions": captions}, "captions", list, place)
