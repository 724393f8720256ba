"""The files of an index while it is written: shards that grow, and the complete index.

Each process that embeds appends to a shard in `INDEX/unfinished`. The files of a complete index have a new name each
time, so that index.json names either the old files or the new ones.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import LOCK, write_whole
from rsmclip.eval.image_sources import Picture
from rsmclip.eval.index import RECORD, UNFINISHED, BadIndex, Index

# Of an index, and what `write_whole` leaves if it is killed.
INDEX_FILE = re.compile(r"[0-9a-f]{32}\.(npy|jsonl|offsets\.npy)|\.index\.json\.[0-9a-f]{32}")


@dataclass
class Rows:
    """Where the embeddings of each image are: rows `first` to `first + count` of an older index or of a shard."""

    indexes: list[Index]
    index: np.ndarray  # (images,) place in `indexes`; -1 for an image that is not embedded
    first: np.ndarray  # (images,)
    count: np.ndarray  # (images,)

    @classmethod
    def none(cls, images: int) -> Self:
        """Return rows of images of which none is embedded."""
        return cls([], np.full(images, -1, np.int32), np.zeros(images, np.int64), np.zeros(images, np.int64))


def writing(output: Path) -> AbstractContextManager[None]:
    return user_errors(OSError, prefix=f"the index {output} cannot be written")


def check_place(folder: Path) -> None:
    """Raise [`UserError`] unless a folder is new, empty, or an index, complete or not."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another folder for the index")
    with writing(folder):
        found = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set()
    if found and RECORD not in found and not (folder / UNFINISHED / RECORD).is_file():
        raise UserError(f"{folder} is not empty and not an index: choose another folder for the index")


def take_folder(folder: Path, lock: FileLock) -> None:
    """Create the folder of an index and lock it. Raises [`UserError`] if it has other content or is locked."""
    check_place(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise UserError(f"another process writes the index {folder}: wait until it ends") from error


def read_entry(index: Index, row: int) -> dict[str, Any]:
    """Return an entry of an index. Raises [`UserError`] if it is damaged."""
    with user_errors(BadIndex):
        return index.entry(row)


def images_of(index: Index) -> Iterator[tuple[str, str, int, int]]:
    """Yield path, version, first row and number of rows of each image. An image that lacks some tiles is left out."""
    entries = ((row, read_entry(index, row)) for row in range(len(index)))
    for path, rows in groupby(entries, key=lambda numbered: numbered[1]["path"]):
        (first, entry), *others = rows
        if 1 + len(others) == entry.get("tiles", 1):
            yield path, entry["version"], first, 1 + len(others)


def open_shards(folder: Path) -> Iterator[Index]:
    """Open the shards of a folder. A row counts if its embedding and its line are complete."""
    for path in sorted(folder.glob("*.f32")):
        lines, size = path.with_suffix(".jsonl"), path.stat().st_size
        if not size or not lines.is_file() or not lines.stat().st_size:
            continue
        text = np.memmap(lines, mode="r")
        ends = np.flatnonzero(text == ord("\n")) + 1
        dim = int(path.stem.partition("-")[0])
        values = np.memmap(path, np.float32, mode="r", shape=(size // 4,))
        count = min(len(values) // dim, len(ends))
        offsets = np.concatenate([[0], ends[:count]])
        yield Index(folder, {}, values[: count * dim].reshape(count, dim), text, offsets)


class Shard:
    """Two files that a process appends embeddings and entries to. The first call of `append` creates them."""

    def __init__(self, folder: Path):
        self.folder, self.files = folder, None

    def append(self, embeds: np.ndarray, entries: list[dict[str, Any]]) -> None:
        """Append rows. After a crash, an embedding may be without its line, but no line without its embedding."""
        if self.files is None:
            path = self.folder / f"{embeds.shape[1]}-{uuid4().hex}.f32"  # the dimension of the embeddings is the name
            self.files = path.open("xb"), path.with_suffix(".jsonl").open("xb")
        for file, content in zip(self.files, (embeds.tobytes(), b"".join(map(as_line, entries))), strict=True):
            file.write(content)
            file.flush()

    def close(self) -> None:
        for file in self.files or ():
            file.close()


def as_line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def write_index(folder: Path, record: dict[str, Any], pictures: Sequence[Picture], rows: Rows) -> None:
    """Write the files of an index of all images that have rows, then index.json; then delete the older files."""
    name, written = uuid4().hex, np.flatnonzero(rows.index >= 0)
    count, dim = int(rows.count[written].sum()), rows.indexes[0].embeds.shape[1]
    offsets = np.zeros(count + 1, np.int64)
    with (folder / f"{name}.npy").open("xb") as embeds, (folder / f"{name}.jsonl").open("xb") as lines:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
        np.lib.format.write_array_header_2_0(embeds, header)
        place = 0
        for number in written.tolist():
            picture, index, first = pictures[number], rows.indexes[rows.index[number]], int(rows.first[number])
            row_of = {} if picture.row is None else {"split": picture.split, "row": picture.row}
            embeds.write(index.embeds[first : first + rows.count[number]].tobytes())
            for row in range(first, first + int(rows.count[number])):
                place += 1
                offsets[place] = offsets[place - 1] + lines.write(as_line(read_entry(index, row) | row_of))
    np.save(folder / f"{name}.offsets.npy", offsets)
    record = record | {"images": len(written), "files": name}
    write_whole(folder / RECORD, json.dumps(record, indent=1) + "\n")
    for path in folder.iterdir():
        if INDEX_FILE.fullmatch(path.name) and not path.name.startswith(name):
            path.unlink()
