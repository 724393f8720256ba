"""Corpora too large for a disk: a table over parquet shards, each of which is fetched when the order comes to it.

The corpus stays a table that is asked for one row or another, so workers, processes and resumption are those of a
local corpus. Only the order is another one: shards are permuted, successive rows of the permuted shards form blocks,
and rows are permuted within a block. So a step needs the shards of one block, and the order is a function of seed and
epoch alone, whatever the number of workers and processes (as in MosaicML's StreamingDataset).
"""

import math
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import numpy as np
from datasets import DatasetDict, Features, load_dataset, load_dataset_builder
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from rsmclip.data.schema import SchemaError, keep_encoded, one_line_errors
from rsmclip.training.batches import StepSampler
from rsmclip.training.interruption import start_workers
from rsmclip.training.shards import ShardCache, ShardError


class ShardOrder:
    """
    The order of the rows in every epoch; called, it gives the rows at some positions of an epoch.

    Args:
        num_rows (`Sequence[int]`): Rows of each shard. Rows are numbered through all shards.
        shuffle_buffer (`int`): Rows of a block, among which rows are permuted.
        seed (`int`): Seed of the permutations.
    """

    def __init__(self, num_rows: Sequence[int], shuffle_buffer: int, seed: int):
        self.num_rows, self.shuffle_buffer, self.seed = np.array(num_rows, np.int64), shuffle_buffer, seed
        self.starts = np.cumsum(self.num_rows) - self.num_rows
        self.total = int(self.num_rows.sum())
        self.epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.blocks: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Rows at the positions from `start` to before `stop`, of shape `(stop - start,)`, int64."""
        first, last = start // self.shuffle_buffer, (stop - 1) // self.shuffle_buffer
        rows = np.concatenate([self.block(epoch, block) for block in range(first, last + 1)])
        return rows[start - first * self.shuffle_buffer :][: stop - start]

    def shards(self, epoch: int, start: int, stop: int) -> list[int]:
        """Shards of the blocks that these positions are in, in the epoch's order."""
        order, ends = self.permuted_shards(epoch)
        first = start // self.shuffle_buffer * self.shuffle_buffer
        last = min(math.ceil(stop / self.shuffle_buffer) * self.shuffle_buffer, self.total) - 1
        begin, end = np.searchsorted(ends, [first, last], side="right")
        return [int(shard) for shard in order[begin : end + 1] if self.num_rows[shard]]

    def permuted_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards in the order of an epoch, and the position after the last row of each."""
        if epoch not in self.epochs:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.num_rows))
            self.epochs = {**dict(list(self.epochs.items())[-1:]), epoch: (order, np.cumsum(self.num_rows[order]))}
        return self.epochs[epoch]

    def block(self, epoch: int, block: int) -> np.ndarray:
        """Rows of a block in their order; the last two blocks that were asked for are kept."""
        if (epoch, block) not in self.blocks:
            order, ends = self.permuted_shards(epoch)
            start = block * self.shuffle_buffer
            size = min(self.shuffle_buffer, self.total - start)
            positions = start + np.random.default_rng([self.seed, epoch, block, 1]).permutation(size)
            places = np.searchsorted(ends, positions, side="right")
            rows = positions + (self.starts[order] + self.num_rows[order] - ends)[places]
            self.blocks = {**dict(list(self.blocks.items())[-1:]), (epoch, block): rows}
        return self.blocks[epoch, block]


class StreamedCorpus(TorchDataset):
    """
    Rows in the project's schema, images not decoded, of the parquet shards of a split.

    Args:
        files (`Sequence[str]`): Parquet files, paths or `hf://` addresses.
        folder (`Path`): Where the cache is; of this run and node alone.
        shuffle_buffer (`int`): Rows of a block, among which rows are permuted.
        seed (`int`): Seed of the order.
        declared (`Features`, *optional*): Columns by the dataset's card.

    Raises:
        [`SchemaError`]: A file is no parquet, is cut, or lacks a column.
        [`ShardError`]: A file cannot be reached.
    """

    def __init__(
        self, files: Sequence[str], folder: Path, shuffle_buffer: int, seed: int, declared: Features | None = None
    ):
        self.cache = ShardCache(files, folder, declared)
        self.order = ShardOrder(self.cache.num_rows, shuffle_buffer, seed)

    def __len__(self) -> int:
        return self.order.total

    def __getitem__(self, row: int) -> dict:
        shard = self.shard(row)
        return self.cache.open(shard)[row - int(self.order.starts[shard])]

    def shard(self, row: int) -> int:
        """Which shard a row is in."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return int(np.searchsorted(self.order.starts, row, side="right")) - 1

    def replacement(self, row: int, rng: np.random.Generator) -> int:
        """Another row of the same shard, which is there, in place of one that cannot be used."""
        shard = self.shard(row)
        start, length = int(self.order.starts[shard]), int(self.order.num_rows[shard])
        return start + (row - start + int(rng.integers(min(1, length - 1), length))) % length

    def state_dict(self) -> dict:
        """What the order depends on beside the configuration, for a checkpoint."""
        return {"num_rows": list(self.cache.num_rows)}

    def load_state_dict(self, state: dict) -> None:
        """Raises `ValueError` if a checkpoint is of other shards, since a position means another row then."""
        if state != self.state_dict():
            raise ValueError("the shards of the corpus changed since the checkpoint, so its order cannot continue")


def open_splits(
    name: str, train_split: str, other_splits: Sequence[str], languages: Sequence[str], **stream
) -> tuple[StreamedCorpus, DatasetDict]:
    """
    A split to train on as a stream, and others, which are small, as usual.

    Args:
        name (`str`): Folder with parquet files, or id of a dataset on the Hub.
        train_split (`str`): Split to train on.
        other_splits (`Sequence[str]`): Splits to evaluate on.
        languages (`Sequence[str]`): Languages to train on, for each of which `captions` must have a field.
        stream: Further arguments of [`StreamedCorpus`].

    Raises:
        [`SchemaError`]: There is no such dataset or split, or it is not of parquet files in the schema.
        [`ShardError`]: A file cannot be reached.
    """
    with one_line_errors(name):
        builder = load_dataset_builder(name)
    files = {split: list(found) for split, found in (builder.config.data_files or {}).items()}
    for split in (train_split, *other_splits):
        if split not in files:
            raise SchemaError(f"the dataset has no split {split!r}; it has {', '.join(files) or 'no data files'}")
        if others := [file for file in files[split] if not file.endswith(".parquet")]:
            raise SchemaError(f"a stream reads parquet files, but split {split!r} of {name} has {others[0]}")
    declared = builder.info.features
    corpus = StreamedCorpus(files[train_split], declared=declared, **stream)
    having = corpus.cache.features["captions"]
    if without := [language for language in languages if language not in having]:
        what = f"no captions in {', '.join(without)}; it has captions in {', '.join(having)}"
        raise SchemaError(f"split {train_split!r} has {what}")
    with one_line_errors(name):  # by their files: under the dataset's name, all splits would be downloaded
        small = {split: files[split] for split in other_splits}
        loaded = load_dataset("parquet", data_files=small, features=declared)
    return corpus, DatasetDict({split: keep_encoded(rows) for split, rows in loaded.items()})


def follow(loader: DataLoader, corpus: StreamedCorpus) -> Iterator:
    """
    Batches of a loader, while a thread fetches the shards that its workers will come to, and the shards that the
    order has passed are deleted. One process of each node does this.

    A batch holds embeddings of all processes, so when one process has a batch, all have used those before: no worker
    needs what is deleted here.

    Args:
        loader (`DataLoader`): Its dataset reads the corpus, its `batch_sampler` is a [`StepSampler`].
        corpus ([`StreamedCorpus`]): The corpus.
    """
    sampler = loader.batch_sampler
    batches = start_workers(
        loader
    )  # before there is a thread: what is forked beside one may wait for its locks forever
    ahead = steps_ahead(loader, corpus)
    wanted: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    fetcher = Thread(target=fetch_wanted, args=(corpus.cache, wanted), daemon=True)
    fetcher.start()
    window: list[int] = []
    for step in range(sampler.first_step, sampler.max_steps):
        done = max(sampler.first_step, step - 1)  # the trainer may ask for a batch before it has done with the last
        if (needed := shards_of_steps(corpus.order, sampler, done, step + ahead)) != window:
            window = needed
            corpus.cache.keep(window)
            wanted.put(window)
        yield next(batches)
    wanted.put([])
    fetcher.join()
    corpus.cache.remove()


def steps_ahead(loader: DataLoader, corpus: StreamedCorpus) -> int:
    """Steps whose shards are kept ready: of two blocks at most, or as many as the workers are ahead."""
    sampler = loader.batch_sampler
    block = corpus.order.shuffle_buffer // (sampler.batch_size * sampler.world_size)
    return max(block - 1, loader.num_workers * (loader.prefetch_factor or 0) + 1)


def shards_of_steps(order: ShardOrder, sampler: StepSampler, step: int, stop: int) -> list[int]:
    """Shards of the blocks that the steps from `step` to before `stop` are in, in the order of use."""
    rows_per_step = sampler.batch_size * sampler.world_size
    shards: list[int] = []
    stop = min(stop, sampler.max_steps)
    while step < stop:
        epoch, position = divmod(step, sampler.steps_per_epoch)
        steps = min(stop - step, sampler.steps_per_epoch - position)
        shards += order.shards(epoch, position * rows_per_step, (position + steps) * rows_per_step)
        step += steps
    return list(dict.fromkeys(shards))


def fetch_wanted(cache: ShardCache, wanted: queue.SimpleQueue) -> None:
    """Fetches shards until an empty list is wanted; a longer list replaces the one before."""
    while shards := wanted.get():
        for shard in shards:
            if not wanted.empty():
                break
            try:
                cache.fetch_if_kept(shard)
            except ShardError:  # whoever needs it will meet the error too, and tell it
                break
