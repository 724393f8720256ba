"""Write a corpus as Parquet shards and a dataset card, in a folder that is either complete or absent.

Rows are written as they arrive. Each split holds one row group in memory, so memory does not grow with the corpus.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetInfo, Features, SplitInfo
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from huggingface_hub import DatasetCard

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import delete_left, new_folder, recover
from rsmclip.data.faults import SPLITS

OURS = re.compile(r"README\.md|data/\w+-\d{5}-of-\d{5}\.parquet")
ROWS_PER_GROUP = 100  # rows that are written and read at once
ROWS_PER_SHARD = 50 * ROWS_PER_GROUP
NOT_WRITTEN = "the corpus cannot be written"


def write_corpus(
    examples: Iterable[tuple[str, dict]],
    features: Features,
    output: Path,
    overwrite: bool,
    make_card: Callable[[], DatasetCard],
) -> None:
    """
    Write rows as `data/<split>-<shard>-of-<shards>.parquet`, and a dataset card.

    Args:
        examples (`Iterable[tuple[str, dict]]`): Split and row.
        features (`Features`): Columns.
        output (`Path`): Folder to write.
        overwrite (`bool`): Whether to replace a corpus in `output`.
        make_card (`Callable[[], DatasetCard]`):
            Called after all rows are written. The metadata that `load_dataset` needs is added to the card.

    Raises:
        [`UserError`]: There are no rows, `output` may not be overwritten, or a file cannot be written.
    """
    with new_folder(output, lambda folder: check_output(folder, overwrite)) as unfinished:
        with user_errors(OSError, prefix=NOT_WRITTEN):
            (unfinished / "data").mkdir()
        splits = write_shards(examples, features, unfinished / "data")
        card = make_card()
        describe_files(card, features, splits)
        with user_errors(OSError, prefix=NOT_WRITTEN):
            card.save(unfinished / "README.md")


def check_output(output: Path, overwrite: bool) -> None:
    """Raise [`UserError`] unless a corpus may be written to `output`."""
    recover(output)
    with user_errors(OSError, prefix=f"{output} cannot be read"):
        delete_left(output.resolve())
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is a file, not a folder")
        if not output.exists() or not any(output.iterdir()):
            return
        if not overwrite:
            raise UserError(f"{output} exists and is not empty; choose another folder or give --overwrite_output_dir")
        files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())
        if others := [name for name in files if not OURS.fullmatch(name)]:
            raise UserError(f"{output} is not overwritten, because {others[0]} is not a file of a corpus")


def write_shards(examples: Iterable[tuple[str, dict]], features: Features, folder: Path) -> list[SplitInfo]:
    writers: dict[str, SplitWriter] = {}
    for split, row in examples:
        if split not in writers:
            writers[split] = SplitWriter(folder, split, features)
        writers[split].write(row)
    if not writers:
        raise UserError("no usable rows: nothing to write")
    order = [*SPLITS, *(split for split in writers if split not in SPLITS)]
    return [writers[split].finish() for split in order if split in writers]


class SplitWriter:
    """Writer of one split in shards of `ROWS_PER_SHARD` rows."""

    def __init__(self, folder: Path, split: str, features: Features):
        self.folder, self.split, self.schema = folder, split, features.arrow_schema
        self.waiting: list[dict] = []
        self.shards: list[pq.ParquetWriter] = []
        self.num_rows, self.num_bytes = 0, 0

    def write(self, row: dict) -> None:
        self.waiting.append(row)
        if len(self.waiting) == ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        table = pa.Table.from_pylist(self.waiting, schema=self.schema)
        with user_errors(OSError, prefix=NOT_WRITTEN):
            if self.num_rows % ROWS_PER_SHARD == 0:
                if self.shards:
                    self.shards[-1].close()
                self.shards.append(pq.ParquetWriter(self.shard_path(len(self.shards)), self.schema))
            self.shards[-1].write_table(table)
        self.num_rows, self.num_bytes = self.num_rows + table.num_rows, self.num_bytes + table.nbytes
        self.waiting.clear()

    def shard_path(self, number: int) -> Path:
        return self.folder / f"{self.split}-{number:05d}"

    def finish(self) -> SplitInfo:
        """Write the last rows and put the number of shards, now known, into the file names."""
        if self.waiting:
            self.flush()
        with user_errors(OSError, prefix=NOT_WRITTEN):
            self.shards[-1].close()
            for number in range(len(self.shards)):
                path = self.shard_path(number)
                path.rename(f"{path}-of-{len(self.shards):05d}.parquet")
        return SplitInfo(self.split, num_bytes=self.num_bytes, num_examples=self.num_rows)


def describe_files(card: DatasetCard, features: Features, splits: Sequence[SplitInfo]) -> None:
    # `load_dataset` reads this metadata: files and size of each split, and the columns.
    files = [{"split": split.name, "path": f"data/{split.name}-*.parquet"} for split in splits]
    card.data["configs"] = [{"config_name": "default", "data_files": files}]
    size = sum(split.num_bytes for split in splits)
    info = DatasetInfo(features=features, splits=SplitDict({split.name: split for split in splits}), dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(card.data)
