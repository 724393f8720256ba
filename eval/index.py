"""Read an index of images and rank its entries. This file needs NumPy alone, because it travels with the Space.

`rsmclip index` and `rsmclip eval … --index` write an index, a folder with these files:

index.json            the source of the images, the model of the embeddings, and N, the name of the other files
N.npy                 unit embeddings, float32 of shape (entries, dim)
N.jsonl               one line per entry: its image and, of a tile, its box and coordinates
N.offsets.npy         the first byte of each line, and the end of the last, int64 of shape (entries + 1,)

An entry is an image or a tile of an image. No file is read whole: an index may be larger than the memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

RECORD = "index.json"
AGAIN = "delete it and run rsmclip index again"
FIELDS = {  # of index.json, with their types
    **dict.fromkeys(("source", "kind", "model", "dtype", "model_hash"), str),
    **dict.fromkeys(("split", "source_revision", "revision", "files"), str | None),
    **dict.fromkeys(("tile", "stride", "images"), int | None),
}
ENTRY = {  # of a line of N.jsonl, with their types; the last ones may be missing
    **dict.fromkeys(("path", "version"), str),
    **{"split": str, "row": int, "tiles": int, "box": list, "coordinates": list},
}
UNFINISHED = "unfinished"  # folder in an index, of a run that has not ended
DECIMALS = 6  # cosines that are equal in these decimals are a tie: float32 sums differ in the seventh


class BadIndex(ValueError):
    """A folder that is not an index, or a damaged index. The message is one line."""


@dataclass(frozen=True)
class Index:
    """An open index."""

    folder: Path
    record: dict[str, Any]  # content of index.json
    embeds: np.ndarray  # (entries, dim) float32, unit rows, on disk
    lines: np.ndarray  # bytes of N.jsonl, on disk
    offsets: np.ndarray  # (entries + 1,) int64, on disk

    def __len__(self) -> int:
        return len(self.embeds)

    def entry(self, place: int) -> dict[str, Any]:
        """
        Return an entry.

        `path` is the path of the image in its folder. In a corpus it is the `image_id`, and `split` and `row` name the
        row. A tile has its `box`, `[left, top, right, bottom]` in pixels. If the image is georeferenced, a tile has
        `coordinates`: longitude and latitude of its center in degrees.

        Raises:
            [`BadIndex`]: The entry is damaged.
        """
        begin, end = self.offsets[place : place + 2]
        try:
            entry = json.loads(self.lines[begin:end].tobytes())
        except (ValueError, RecursionError):
            entry = None
        if not is_entry(entry):
            raise BadIndex(f"entry {place} of the index {self.folder} is damaged, {AGAIN}")
        return entry


def is_entry(entry: object) -> bool:
    """Return whether a value has the fields of an entry, with their types."""
    if not isinstance(entry, dict) or not {"path", "version"} <= entry.keys():
        return False
    if not all(isinstance(entry.get(name, kind()), kind) for name, kind in ENTRY.items()):
        return False
    numbers = {"box": (4, int), "coordinates": (2, int | float)}
    return all(
        len(entry[name]) == length and all(isinstance(number, kind) for number in entry[name])
        for name, (length, kind) in numbers.items()
        if name in entry
    )


def open_index(folder: Path) -> Index:
    """
    Open an index.

    Raises:
        [`BadIndex`]: The folder is not an index, or the index is damaged.
    """
    record = read_record(folder)
    if record is None and (folder / UNFINISHED / RECORD).is_file():
        raise BadIndex(f"{folder} is unfinished: run the same rsmclip index command again, which continues it")
    if record is None:
        raise BadIndex(f"{folder} is not an index: it has no {RECORD}; make one with rsmclip index")
    try:
        name = record["files"]
        embeds = np.load(folder / f"{name}.npy", mmap_mode="r")
        offsets = np.load(folder / f"{name}.offsets.npy", mmap_mode="r")
        lines = np.memmap(folder / f"{name}.jsonl", mode="r")
    except (OSError, EOFError, ValueError, OverflowError, TokenError) as error:  # a damaged header is read as Python
        raise BadIndex(f"the index {folder} is damaged, {AGAIN}: {error}") from error
    if (
        (embeds.dtype, offsets.dtype) != (np.float32, np.int64)
        or embeds.ndim != 2
        or offsets.shape != (len(embeds) + 1,)
        or offsets[-1] != len(lines)
    ):
        raise BadIndex(f"the index {folder} is damaged, {AGAIN}: its files do not fit each other")
    return Index(folder, record, embeds, lines, offsets)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the content of index.json, or `None` if there is no such file. Raises [`BadIndex`] if it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadIndex(f"{folder / RECORD} cannot be read: {error}") from error
    for name, kind in FIELDS.items():
        if not isinstance(record, dict) or name not in record or not isinstance(record[name], kind):
            wrong = f"{folder / RECORD} is not the record of an index: field {name!r} is missing or wrong"
            raise BadIndex(f"{wrong}; choose another folder")
    return record


def nearest(
    embeds: np.ndarray, query: np.ndarray, top: int, without: int | None = None
) -> tuple[list[int], list[float]]:
    """
    Return the rows with the highest cosines to a query, best first. The first of two equal rows is before the other.

    Args:
        embeds (`np.ndarray` of shape `(entries, dim)`): Unit rows, float32.
        query (`np.ndarray` of shape `(dim,)`): A unit vector, float32.
        top (`int`): Number of rows to return.
        without (`int`, *optional*): A row to leave out.

    Returns:
        `tuple[list[int], list[float]]`: Rows and cosines.
    """
    cosines = np.asarray(embeds @ query).round(DECIMALS)
    if without is not None:
        cosines[without] = -np.inf
    top = min(top, len(cosines) - (without is not None))
    if top < 1:
        return [], []
    lowest = np.partition(cosines, -top)[-top]
    candidates = np.flatnonzero(cosines >= lowest)
    rows = candidates[np.lexsort((candidates, -cosines[candidates]))][:top]
    return rows.tolist(), cosines[rows].tolist()
