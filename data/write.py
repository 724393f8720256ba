"""Writes a corpus: parquet shards for `load_dataset` and a dataset card, in a folder that is complete or absent.

The folder is written beside its final place and renamed. Rows stream through writers that hold one row group for each
split, so memory does not grow with the corpus.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetInfo, Features, SplitInfo
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from huggingface_hub import DatasetCard

from rsmclip.data.faults import SPLITS
from rsmclip.data.sources import SourceError

OURS = re.compile(r"README\.md|data/\w+-\d{5}-of-\d{5}\.parquet")
ROWS_PER_GROUP = 100  # encoded images held in memory while writing, and read at once
ROWS_PER_SHARD = 50 * ROWS_PER_GROUP


def write_corpus(
    examples: Iterable[tuple[str, dict]],
    features: Features,
    output: Path,
    overwrite: bool,
    make_card: Callable[[], DatasetCard],
) -> None:
    """
    Writes rows as `data/<split>-<shard>-of-<shards>.parquet` and a dataset card, aside first and then renamed.

    Args:
        examples (`Iterable[tuple[str, dict]]`): Split and row.
        features (`Features`): Columns.
        output (`Path`): Folder to make.
        overwrite (`bool`): Replace a dataset that is there.
        make_card (`Callable[[], DatasetCard]`):
            Called when all rows are written; what `load_dataset` needs is added to the card.

    Raises:
        [`SourceError`]: There are no rows.
        `FileExistsError`: `output` is not empty and not to be overwritten.
    """
    output = output.resolve()
    check_output(output, overwrite)
    aside = output.with_name(f".{output.name}.{uuid4().hex}")  # its own, should two runs write at once
    try:
        (aside / "data").mkdir(parents=True)
        splits = write_shards(examples, features, aside / "data")
        card = make_card()
        describe_files(card, features, splits)
        card.save(aside / "README.md")
        check_output(output, overwrite)  # again: something may have come there meanwhile
        put_in_place(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_output(output: Path, overwrite: bool) -> None:
    """Raises `FileExistsError` unless a dataset may be put at `output`."""
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file, not a folder")
    if not output.exists() or not any(output.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{output} exists and is not empty; choose another or give --overwrite_output_dir")
    files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())
    if others := [name for name in files if not OURS.fullmatch(name)]:  # a folder of corpora, say, or a home directory
        raise FileExistsError(f"{output} holds more than a dataset, {others[0]} for one, so it is not overwritten")


def put_in_place(aside: Path, output: Path) -> None:
    """Renames a finished folder to its place; a dataset that is there goes only once the new one is in place."""
    if not output.exists() or not any(output.iterdir()):
        aside.rename(output)
        return
    old = aside.with_name(f"{aside.name}.old")
    output.rename(old)
    aside.rename(output)
    shutil.rmtree(old)


def write_shards(examples: Iterable[tuple[str, dict]], features: Features, folder: Path) -> list[SplitInfo]:
    """Writes rows into a folder, every split into its own shards, and tells how large the splits are."""
    writers: dict[str, SplitWriter] = {}
    for split, row in examples:
        if split not in writers:
            writers[split] = SplitWriter(folder, split, features)
        writers[split].write(row)
    if not writers:
        raise SourceError("no usable rows: nothing to write")
    # The usual splits in their order, then what a corpus made elsewhere calls its own.
    order = [*SPLITS, *(split for split in writers if split not in SPLITS)]
    return [writers[split].finish() for split in order if split in writers]


class SplitWriter:
    """
    Writer of one split in shards of `ROWS_PER_SHARD` rows.

    Args:
        folder (`Path`): Where the shards go.
        split (`str`): Name of the split.
        features (`Features`): Columns.
    """

    def __init__(self, folder: Path, split: str, features: Features):
        self.folder, self.split, self.schema = folder, split, features.arrow_schema
        self.waiting: list[dict] = []
        self.shards: list[pq.ParquetWriter] = []
        self.num_rows, self.num_bytes = 0, 0

    def write(self, row: dict) -> None:
        """Appends a row."""
        self.waiting.append(row)
        if len(self.waiting) == ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Writes the waiting rows as one row group."""
        if self.num_rows % ROWS_PER_SHARD == 0:
            self.close_shard()
            self.shards.append(pq.ParquetWriter(self.folder / f"{self.split}-{len(self.shards):05d}", self.schema))
        table = pa.Table.from_pylist(self.waiting, schema=self.schema)
        self.shards[-1].write_table(table)
        self.num_rows, self.num_bytes = self.num_rows + table.num_rows, self.num_bytes + table.nbytes
        self.waiting.clear()

    def close_shard(self) -> None:
        """Finishes the shard that is being written, if there is one."""
        if self.shards:
            self.shards[-1].close()

    def finish(self) -> SplitInfo:
        """Writes what waits and names the shards, now that their number is known."""
        if self.waiting:
            self.flush()
        self.close_shard()
        for number in range(len(self.shards)):
            path = self.folder / f"{self.split}-{number:05d}"
            path.rename(f"{path}-of-{len(self.shards):05d}.parquet")
        return SplitInfo(self.split, num_bytes=self.num_bytes, num_examples=self.num_rows)


def describe_files(card: DatasetCard, features: Features, splits: Sequence[SplitInfo]) -> None:
    """Adds to a card's metadata which files are which split, how large they are, and their columns."""
    files = [{"split": split.name, "path": f"data/{split.name}-*.parquet"} for split in splits]
    card.data["configs"] = [{"config_name": "default", "data_files": files}]
    size = sum(split.num_bytes for split in splits)
    info = DatasetInfo(features=features, splits=SplitDict({split.name: split for split in splits}), dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(card.data)
