"""The order of the rows if the corpora of a training split (its column `source`) are drawn by weights."""

from collections.abc import Sequence

import numpy as np

from rsmclip.core.errors import UserError
from rsmclip.training.batches import parse_weights


class SourceOrder:
    """
    Order of the rows of an epoch in which every corpus has a fixed number of draws, shuffled together.

    Each corpus has a sequence of permutations of its rows. An epoch continues it where the epoch before ended. So no
    row repeats before all rows of its corpus were drawn. A row of permutation n (from 0) is the number
    `row + n * number of rows`, which tells [`~rsmclip.training.batches.StepSampler`] that a row repeats.

    Args:
        sources (`Sequence[str]`): Corpus of each row.
        sampling (`str`): The option `source_sampling`.
        length (`int`): Number of rows of an epoch: its steps times the batch size.
        seed (`int`): Seed of the permutations.
    """

    def __init__(self, sources: Sequence[str], sampling: str, length: int, seed: int):
        self.num_rows, self.seed = len(sources), seed
        self.names, corpora = np.unique(np.asarray(sources), return_inverse=True)
        self.rows = [np.flatnonzero(corpora == number) for number in range(len(self.names))]
        shares = source_shares(sampling, {str(n): len(rows) for n, rows in zip(self.names, self.rows, strict=True)})
        self.draws = np.diff(np.rint(np.cumsum(shares) * length).astype(int), prepend=0)  # of each corpus in an epoch
        self.epoch, self.numbers = -1, np.empty(0, np.int64)

    def __call__(self, epoch: int, start: int, stop: int) -> np.ndarray:
        if epoch != self.epoch:
            corpora = np.repeat(np.arange(len(self.names)), self.draws)
            corpora = np.random.default_rng([self.seed, epoch, 0, 2]).permutation(corpora)
            self.epoch, self.numbers = epoch, np.empty(len(corpora), np.int64)
            for corpus in np.flatnonzero(self.draws):
                self.numbers[corpora == corpus] = self.drawn(corpus, epoch)
        return self.numbers[start:stop]

    def drawn(self, corpus: int, epoch: int) -> np.ndarray:
        # Draws of a corpus in an epoch, in their order: a part of its successive permutations.
        rows, count = self.rows[corpus], self.draws[corpus]
        first = epoch * count // len(rows)
        last = ((epoch + 1) * count - 1) // len(rows)
        permutations = [
            np.random.default_rng([self.seed, number, corpus, 3]).permutation(rows) + number * self.num_rows
            for number in range(first, last + 1)
        ]
        start = epoch * count - first * len(rows)
        return np.concatenate(permutations)[start : start + count]


def source_shares(sampling: str, sizes: dict[str, int]) -> np.ndarray:
    """
    Return the share of each corpus in the draws. They sum to 1.

    Args:
        sampling (`str`):
            A temperature T (`"2"`): a share is proportional to rows ** (1 / T), as languages in XLM-R (Conneau et al.
            2020). Or weights like `"rsicd=1,ucm=2"` (corpora without a weight have weight 1).
        sizes (`dict[str, int]`): Number of rows of each corpus.

    Raises:
        [`UserError`]: The option has another form, an unknown corpus, or a bad weight or temperature.
    """
    try:
        temperature = float(sampling)
    except ValueError:
        weights = np.array(list(parse_weights("source_sampling", sampling, sizes).values()))
        return weights / weights.sum()
    if not temperature > 0:
        raise UserError(f"source_sampling is {sampling}: a temperature must be above 0")
    logarithms = np.log(list(sizes.values()))
    with np.errstate(over="ignore"):  # a share of 0
        weights = np.exp((logarithms - logarithms.max()) / temperature)  # a power could overflow
    return weights / weights.sum()
