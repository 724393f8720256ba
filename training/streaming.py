"""Streaming: train on corpora that are too large for the disk.

The corpus is a table over parquet shards. A shard is fetched when the order of the rows reaches it. Workers, processes
and resumption work as with a local corpus. Only the order of the rows differs: shards are permuted, successive rows of
the permuted shards form blocks, and rows are permuted within a block. So a step needs the shards of one block, and the
order depends on the seed and the epoch only (as in MosaicML's StreamingDataset).
"""

import glob
import math
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import numpy as np
from datasets import DatasetDict, Features, load_dataset
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from rsmclip.core.errors import UserError
from rsmclip.data.own_files import check_rows
from rsmclip.data.schema import check_split, keep_encoded, one_line_errors, open_builder
from rsmclip.training.batches import StepSampler
from rsmclip.training.interruption import start_workers
from rsmclip.training.shards import ShardCache


class ShardOrder:
    """
    Order of the rows in every epoch. `order(epoch, start, stop)` returns row indices, int64, `(stop - start,)`.

    Args:
        num_rows (`Sequence[int]`): Number of rows of each shard. Row indices count through all shards.
        shuffle_buffer (`int`): Number of rows of a block.
        seed (`int`): Seed of the permutations.
    """

    def __init__(self, num_rows: Sequence[int], shuffle_buffer: int, seed: int):
        self.num_rows, self.shuffle_buffer, self.seed = np.array(num_rows, np.int64), shuffle_buffer, seed
        self.starts = np.cumsum(self.num_rows) - self.num_rows
        self.total = int(self.num_rows.sum())
        self.epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.blocks: dict[tuple[int, int], np.ndarray] = {}

    def __call__(self, epoch: int, start: int, stop: int) -> np.ndarray:
        first, last = start // self.shuffle_buffer, (stop - 1) // self.shuffle_buffer
        rows = np.concatenate([self.block(epoch, block) for block in range(first, last + 1)])
        return rows[start - first * self.shuffle_buffer :][: stop - start]

    def shards(self, epoch: int, start: int, stop: int) -> list[int]:
        """Return the shards of the blocks that contain the positions `start` to `stop - 1`, in the epoch's order."""
        order, ends = self.permuted_shards(epoch)
        first = start // self.shuffle_buffer * self.shuffle_buffer
        last = min(math.ceil(stop / self.shuffle_buffer) * self.shuffle_buffer, self.total) - 1
        begin, end = np.searchsorted(ends, [first, last], side="right")
        return [int(shard) for shard in order[begin : end + 1] if self.num_rows[shard]]

    def permuted_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        # Shards in the order of the epoch, and the position after the last row of each. Two epochs are cached.
        if epoch not in self.epochs:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.num_rows))
            self.epochs = {**dict(list(self.epochs.items())[-1:]), epoch: (order, np.cumsum(self.num_rows[order]))}
        return self.epochs[epoch]

    def block(self, epoch: int, block: int) -> np.ndarray:
        # Rows of a block in the order of the epoch. Two blocks are cached.
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
    Rows of the parquet shards of a split, in the project's schema, with encoded images.

    [`~rsmclip.training.shards.ShardCache`] and [`ShardOrder`] explain the arguments.
    """

    def __init__(
        self,
        files: Sequence[str],
        folder: Path,
        shuffle_buffer: int,
        seed: int,
        declared: Features | None = None,
        name: str = "unnamed",
    ):
        self.cache = ShardCache(files, folder, declared, name)
        self.order = ShardOrder(self.cache.num_rows, shuffle_buffer, seed)

    def __len__(self) -> int:
        return self.order.total

    def __getitem__(self, row: int) -> dict:
        shard = self.shard(row)
        return self.cache.open(shard)[row - int(self.order.starts[shard])]

    def shard(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return int(np.searchsorted(self.order.starts, row, side="right")) - 1

    def replacement(self, row: int, rng: np.random.Generator) -> int:
        """Return another row of the shard, which is in the cache, in place of a row that cannot be used."""
        shard = self.shard(row)
        start, length = int(self.order.starts[shard]), int(self.order.num_rows[shard])
        return start + (row - start + int(rng.integers(min(1, length - 1), length))) % length

    def state_dict(self) -> dict:
        """Return the numbers of rows of the shards for a checkpoint. They and the settings define the order."""
        return {"num_rows": list(self.cache.num_rows)}

    def load_state_dict(self, state: dict) -> None:
        """Raise [`UserError`] if the checkpoint has other shards, because its position would then be another row."""
        if state != self.state_dict():
            raise UserError(
                "the shards of the corpus changed since the checkpoint: the run cannot continue; start a new one"
            )


def open_splits(
    name: str, train_split: str, other_splits: Sequence[str], languages: Sequence[str], **stream
) -> tuple[StreamedCorpus, DatasetDict]:
    """
    Open the training split as a stream, and load the other splits, which are small.

    Args:
        name (`str`): Folder with parquet files, or id of a dataset on the Hub.
        train_split (`str`): Split for training.
        other_splits (`Sequence[str]`): Splits for evaluation.
        languages (`Sequence[str]`): Languages for training. `captions` must have a field for each language.
        stream: Arguments `folder`, `shuffle_buffer` and `seed` of [`StreamedCorpus`].

    Raises:
        [`UserError`]: The dataset or a split does not exist, or is not in the schema, or a file cannot be read.
    """
    builder = open_builder(name)
    files = {split: list(found) for split, found in (builder.config.data_files or {}).items()}
    for split in (train_split, *other_splits):
        check_split(split, files)
        if others := [file for file in files[split] if not file.endswith(".parquet")]:
            raise UserError(f"streaming reads parquet files, but split {split!r} of {name} has {others[0]}")
    declared = builder.info.features
    corpus = StreamedCorpus(files[train_split], declared=declared, name=name, **stream)
    having = corpus.cache.features["captions"]
    if without := [language for language in languages if language not in having]:
        what = f"no captions in {', '.join(without)}; it has captions in {', '.join(having)}"
        raise UserError(f"split {train_split!r} has {what}: give --languages {' '.join(having)}")
    with one_line_errors(name):  # file names, because `load_dataset(name)` would download all splits
        small = {
            split: [file if "://" in file else glob.escape(file) for file in files[split]] for split in other_splits
        }
        loaded = load_dataset("parquet", data_files=small, features=declared)
    for rows in loaded.values():
        check_rows(name, rows)
    return corpus, DatasetDict({split: keep_encoded(rows) for split, rows in loaded.items()})


def follow(loader: DataLoader, corpus: StreamedCorpus) -> Iterator[dict | UserError]:
    """
    Yield the batches of a loader with a [`StepSampler`]. Fetch the next shards in a thread, and delete used shards.

    One process of each node calls it. Deletion is safe for the other processes: all processes exchange embeddings in
    every step, so no process is more than one step behind.
    """
    sampler = loader.batch_sampler
    # Workers start before the thread: a process forked while a thread has a lock could wait for that lock forever.
    batches = start_workers(loader)
    ahead = steps_ahead(loader, corpus)
    wanted: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    fetcher = Thread(target=fetch_wanted, args=(corpus.cache, wanted), daemon=True)
    fetcher.start()
    window: list[int] = []
    try:
        for step in range(sampler.first_step, sampler.max_steps):
            done = max(sampler.first_step, step - 1)  # another process may still read the batch of the step before
            if (needed := shards_of_steps(corpus.order, sampler, done, step + ahead)) != window:
                window = needed
                corpus.cache.keep(window)
                wanted.put(window)
            yield next(batches)
    finally:
        wanted.put([])  # ends the thread, also of a run that stops early
    fetcher.join()


def steps_ahead(loader: DataLoader, corpus: StreamedCorpus) -> int:
    # Steps ahead for which shards are fetched: one block more, or as many as the workers prefetch if that is more.
    sampler = loader.batch_sampler
    block = corpus.order.shuffle_buffer // (sampler.batch_size * sampler.world_size)
    return max(block - 1, loader.num_workers * (loader.prefetch_factor or 0) + 1)


def shards_of_steps(order: ShardOrder, sampler: StepSampler, step: int, stop: int) -> list[int]:
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
    # Runs until it gets an empty list. A new list replaces the current one.
    while shards := wanted.get():
        for shard in shards:
            if not wanted.empty():
                break
            try:
                cache.fetch_if_kept(shard)
            except UserError:  # the worker that needs the shard reports it
                break
