"""Images of your own: a folder with `metadata.jsonl` or `metadata.csv`, as `datasets` knows it.

`file_name` is the path of the image; `captions` holds a list (in CSV as JSON) or `text` one caption. In CSV, lines
of one file that follow each other are that image's captions. `label` and `split` are optional. Metadata may also lie
in folders `train`, `val` (or `validation`) and `test`; what is nowhere said to be another split is `train`.
"""

import csv
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rsmclip.data.sources.protocol import SourceError, SourceRow, describe, existing_folder, make_row, read_json_lines

SPLIT_FOLDERS = {".": "train", "train": "train", "val": "val", "validation": "val", "test": "test"}


class ImageFolder:
    """
    A folder of images, which is a corpus by the folder's name.

    Args:
        place (`str`): The folder.
    """

    licence = None
    citation = None

    def __init__(self, place: str):
        self.root = existing_folder("imagefolder", place)
        self.name = self.root.resolve().name

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the metadata."""
        parts = [(folder, split, find_metadata(self.root / folder)) for folder, split in SPLIT_FOLDERS.items()]
        if not any(path for _, _, path in parts):
            raise SourceError(f"{self.name}: no annotation file metadata.jsonl or metadata.csv in {self.root}")
        for folder, split, path in parts:
            for place, entry in read_metadata(path) if path else ():
                try:
                    yield self.row(entry, folder, split)
                except (KeyError, TypeError, ValueError) as error:
                    raise SourceError(f"{place} is malformed ({describe(error)})") from None

    def row(self, entry: dict, folder: str, split: str) -> SourceRow:
        """The row that a line of metadata describes."""
        captions = entry["captions"] if "captions" in entry else entry["text"]
        if not isinstance(captions, str | list | None):
            raise TypeError(f"captions {captions!r} are no list")
        captions = [captions] if isinstance(captions, str) else captions or []
        label = None if entry.get("label") in (None, "") else str(entry["label"])
        file_name = (Path(folder) / entry["file_name"]).as_posix()
        return make_row(self.name, self.root, file_name, entry.get("split") or split, captions, label)


def find_metadata(folder: Path) -> Path | None:
    """The file of metadata in a folder, if there is one."""
    return next((path for path in (folder / "metadata.jsonl", folder / "metadata.csv") if path.is_file()), None)


def read_metadata(path: Path) -> Iterator[tuple[str, dict]]:
    """Entries of a file of metadata, each with its place for messages."""
    return read_json_lines(path) if path.suffix == ".jsonl" else read_csv(path)


def captions_of_line(line: dict) -> list[str]:
    """Captions of a line of a CSV file: a list in JSON, or one text."""
    if not line.get("captions"):
        return [line["text"]]
    captions = json.loads(line["captions"])
    if not isinstance(captions, list):
        raise csv.Error(f"captions {line['captions']!r} are no list")
    return captions


def read_csv(path: Path) -> Iterator[tuple[str, dict]]:
    """Images of a CSV file; lines of one file that follow each other are one image with several captions."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            numbered = ((reader.line_num, entry) for entry in reader)
            for _, group in groupby(numbered, key=lambda line: line[1].get("file_name")):
                (number, entry), *more = group
                captions = [caption for _, line in [(number, entry), *more] for caption in captions_of_line(line)]
                yield f"{path}, line {number}", entry | {"captions": captions}
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError, KeyError) as error:
        raise SourceError(f"{path} is no CSV file with file_name, and text or captions ({describe(error)})") from None


READER = ImageFolder
