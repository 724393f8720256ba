"""Probes: linear, k-nearest-neighbor and few-shot classifiers that learn from frozen image embeddings.

Labels are class names or numbers. Embeddings may have any length. Every probe returns figures in percent, and `hits`
(whether each test image was classified right), from which bootstrap intervals are computed.
"""

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from rsmclip.core.errors import UserError
from rsmclip.eval.retrieval import Embeds, unit_rows
from rsmclip.eval.zero_shot import hit_metrics

VALIDATION_SHARE = 0.2  # share of the train images that chooses C
COARSE_EXPONENTS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # of ten: the first values of C
STEPS_PER_DECADE = 8  # resolution of the search for C
FEW_SHOT_C = 31.6  # CLIP's published example has C = 0.316 for embeddings of norm near 10; this is C for norm 1
CHUNK_ENTRIES = 2**24  # similarities in memory at once, 128 MB
Labels = Sequence[str | int]


@dataclass(frozen=True)
class ProbeData:
    names: list[str]  # of the classes, sorted
    train: np.ndarray  # (train images, dim), unit rows in float64
    train_classes: np.ndarray  # (train images,), indices into names
    test: np.ndarray  # (test images, dim), unit rows in float64
    test_classes: np.ndarray  # (test images,), indices into names


def linear_probe(
    train_embeds: Embeds, train_labels: Labels, test_embeds: Embeds, test_labels: Labels, seed: int = 0
) -> dict:
    """
    Fit a logistic regression on all train images. A fifth of the train images chooses its L2 penalty.

    The search is the parametric binary search of Radford et al. 2021 (appendix A.3): C = 10^-6, 10^-4, …, 10^6, then
    half the step around the best value until there are 8 steps per decade. This takes 15 fits instead of 96. If
    several values of C are equally good, the smallest one (the strongest penalty) is chosen.

    Args:
        train_embeds (`torch.Tensor` of shape `(train images, dim)`): Image embeddings.
        train_labels (`Sequence[str | int]`): Class of each train image, at least two images of each class.
        test_embeds (`torch.Tensor` of shape `(test images, dim)`): Image embeddings.
        test_labels (`Sequence[str | int]`): Class of each test image.
        seed (`int`, *optional*, defaults to 0): Seed that draws the fifth.

    Returns:
        `dict`: `accuracy` and `mean_per_class_recall` (over the classes that occur in test) in percent; `C`; `hits`,
            a bool array of shape `(test images,)`.

    Raises:
        [`UserError`]: There is only one class, a class has too few train images, or an embedding is not finite.
    """
    data = probe_data(train_embeds, train_labels, test_embeds, test_labels)
    best = choose_c(data, seed)
    hits = logistic_hits(data.train, data.train_classes, data.test, data.test_classes, best)
    return hit_metrics(hits, data.test_classes) | {"C": best, "hits": hits}


def choose_c(data: ProbeData, seed: int) -> float:
    fit, validation = split_rows([data.names[index] for index in data.train_classes], seed, VALIDATION_SHARE)
    parts = data.train[fit], data.train_classes[fit], data.train[validation], data.train_classes[validation]
    accuracy = {}

    def measure(exponents: Sequence[float]) -> float:
        for exponent in exponents:
            accuracy[exponent] = logistic_hits(*parts, 10.0**exponent).mean()
        return max(sorted(accuracy), key=accuracy.get)

    best, step = measure(COARSE_EXPONENTS), COARSE_EXPONENTS[1] - COARSE_EXPONENTS[0]
    while step > 1 / STEPS_PER_DECADE:
        step /= 2
        best = measure([best - step, best + step])
    return 10.0**best


def knn_probe(
    train_embeds: Embeds,
    train_labels: Labels,
    test_embeds: Embeds,
    test_labels: Labels,
    k: int = 20,
    temperature: float = 0.07,
) -> dict:
    """
    Classify by weighted k-nearest neighbors (Wu et al. 2018; k and temperature of DINO, Caron et al. 2021).

    Each of the k nearest train images by cosine similarity votes for its class with exp(similarity / temperature).
    Train images that are as near as the k-th one vote too. A tie of the right class with another one is an error.
    Therefore the order of the rows does not matter.

    Args:
        train_embeds, train_labels, test_embeds, test_labels: See [`linear_probe`].
        k (`int`, *optional*, defaults to 20): Number of neighbors.
        temperature (`float`, *optional*, defaults to 0.07): A small value gives the nearest images more weight. `inf`
            gives every neighbor one vote.

    Returns:
        `dict`: Like [`linear_probe`], without `C`.

    Raises:
        [`UserError`]: There is only one class, a test class has no train images, or an embedding is not finite.
        `ValueError`: `k` or `temperature` is out of range.
    """
    data = probe_data(train_embeds, train_labels, test_embeds, test_labels)
    if not 1 <= k <= len(data.train):
        raise ValueError(f"k must be from 1 to {len(data.train)}, the number of train images, not {k}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    train, test = torch.from_numpy(data.train), torch.from_numpy(data.test)
    chunk = max(1, CHUNK_ENTRIES // len(train))
    hits = []
    for start in range(0, len(test), chunk):
        # Unit rows are multiples of 2^-26, so these products are exact in float64.
        similarity = test[start : start + chunk] @ train.t()
        votes = neighbor_votes(similarity, data.train_classes, len(data.names), k, temperature)
        own = data.test_classes[start : start + chunk, None]
        right = np.take_along_axis(votes, own, axis=1)
        hits.append((votes >= right).sum(axis=1) == 1)  # 1: the right class itself
    hits = np.concatenate(hits)
    return hit_metrics(hits, data.test_classes) | {"hits": hits}


def neighbor_votes(
    similarity: torch.Tensor, train_classes: np.ndarray, classes: int, k: int, temperature: float
) -> np.ndarray:
    # `similarity` is (queries, train images); the result is (queries, classes).
    nearest = similarity.topk(k).values
    query, row = (index.numpy() for index in (similarity >= nearest[:, -1:]).nonzero(as_tuple=True))
    distance = (nearest[:, :1] - similarity).numpy()[query, row]  # the nearest votes with 1 at any temperature
    order = np.lexsort((distance, query))  # classes with equal neighbors then get bitwise equal sums of votes
    query, row, distance = query[order], row[order], distance[order]
    cells = query * classes + train_classes[row]
    votes = np.bincount(cells, np.exp(-distance / temperature), minlength=len(similarity) * classes)
    return votes.reshape(len(similarity), classes)


def few_shot_probe(
    train_embeds: Embeds,
    train_labels: Labels,
    test_embeds: Embeds,
    test_labels: Labels,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    seeds: int = 5,
) -> dict[int, dict]:
    """
    Fit logistic regressions on a few train images of each class.

    Images are drawn with several seeds. A draw of n images includes the smaller draws of its seed. C is fixed
    (`FEW_SHOT_C`), because a search for C would need more labeled images than n.

    Args:
        train_embeds, train_labels, test_embeds, test_labels: See [`linear_probe`].
        shots (`Sequence[int]`, *optional*, defaults to `(1, 2, 4, 8, 16)`): Numbers of images for each class.
        seeds (`int`, *optional*, defaults to 5): Number of draws; their seeds are 0, 1, ….

    Returns:
        `dict[int, dict]`: For each number of shots a dictionary like that of [`linear_probe`]. The figures are means
            over the draws; `hits` has shape `(seeds, test images)`.

    Raises:
        [`UserError`]: There is only one class, a class has too few train images, or an embedding is not finite.
        `ValueError`: `shots` or `seeds` is below 1.
    """
    data = probe_data(train_embeds, train_labels, test_embeds, test_labels)
    if not len(shots) or min(*shots, seeds) < 1:
        raise ValueError(f"shots and seeds must be whole numbers from 1 on, not {list(shots)} and {seeds}")
    counts = np.bincount(data.train_classes)
    if counts.min() < max(shots):
        name, count = data.names[counts.argmin()], counts.min()
        raise UserError(f"{max(shots)} shots need {max(shots)} train images of each class, but {name!r} has {count}")

    labels = [data.names[index] for index in data.train_classes]
    draws = [list(shuffled_rows(labels, seed, "few-shot").values()) for seed in range(seeds)]
    results = {}
    for number in shots:  # the first rows of the draws
        hits = []
        for draw in draws:
            drawn = np.concatenate([rows[:number] for rows in draw])
            train = data.train[drawn], data.train_classes[drawn]
            hits.append(logistic_hits(*train, data.test, data.test_classes, FEW_SHOT_C))
        runs = [hit_metrics(run, data.test_classes) for run in hits]
        means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
        results[number] = means | {"C": FEW_SHOT_C, "hits": np.stack(hits)}
    return results


def split_rows(labels: Labels, seed: int = 0, test_share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """
    Split a dataset that has no official split. Every class is split in the same proportion.

    The split of a class depends only on the seed, the share, the name of the class, and the number and order of its
    rows. Give the rows in a fixed order, for example sorted by file name.

    Args:
        labels (`Sequence[str | int]`): Class of each row.
        seed (`int`, *optional*, defaults to 0): Seed of the random generator.
        test_share (`float`, *optional*, defaults to 0.5): Share of the test rows in each class, between 0 and 1. Train
            and test get at least one row of each class.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Row numbers of train and of test, ascending.

    Raises:
        [`UserError`]: A class has only one row, or a row has no label.
        `ValueError`: `test_share` is out of range.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be between 0 and 1, not {test_share}")
    train, test = [], []
    for name, rows in shuffled_rows(labels, seed, "split").items():
        if len(rows) < 2:
            raise UserError(f"class {name!r} has one image and cannot be split in two; leave it out or add images")
        number = min(max(round(test_share * len(rows)), 1), len(rows) - 1)
        test.append(rows[:number])
        train.append(rows[number:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def shuffled_rows(labels: Labels, seed: int, purpose: str) -> dict[str, np.ndarray]:
    # The rows of each class in random order. Each purpose, class and seed has its own generator.
    names = class_names(labels, "a")
    rows = {}
    for name in np.unique(names).tolist():
        rng = np.random.default_rng([seed, zlib.crc32(f"{purpose}/{name}".encode())])
        rows[name] = rng.permutation(np.flatnonzero(names == name))
    return rows


def probe_data(train_embeds: Embeds, train_labels: Labels, test_embeds: Embeds, test_labels: Labels) -> ProbeData:
    train = unit_rows(train_embeds, "train").cpu().double().numpy()
    test = unit_rows(test_embeds, "test").cpu().double().numpy()
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"train embeddings have {train.shape[1]} dimensions, test embeddings {test.shape[1]}")
    train_names, test_names = class_names(train_labels, "train"), class_names(test_labels, "test")
    for what, rows, labels in (("train", train, train_names), ("test", test, test_names)):
        if len(rows) != len(labels):
            raise ValueError(f"{len(labels)} labels for {len(rows)} {what} images")
    names, train_classes = np.unique(train_names, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"a probe needs at least two classes, but all train images have the class {str(names[0])!r}")
    if len(unknown := np.setdiff1d(test_names, names)):
        raise UserError(f"class {str(unknown[0])!r} has test images but no train images")
    return ProbeData(names.tolist(), train, train_classes, test, np.searchsorted(names, test_names))


def class_names(labels: Labels, what: str) -> np.ndarray:
    labels = labels.tolist() if isinstance(labels, torch.Tensor | np.ndarray) else list(labels)
    if None in labels:
        raise UserError(f"{what} image in row {labels.index(None)} has no label; leave out images without a label")
    return np.array([str(label) for label in labels], dtype=str)


def logistic_hits(
    train: np.ndarray, train_classes: np.ndarray, test: np.ndarray, test_classes: np.ndarray, c: float
) -> np.ndarray:
    # The gradient of unit rows is small from the start. The default tolerance of 1e-4 would stop far from the optimum.
    model = LogisticRegression(C=c, tol=1e-6, max_iter=1000)
    # One thread: with several, thousands of small products take minutes on shared cores.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        # With one image for each class scikit-learn warns that this looks like a regression.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # CLIP has this limit of iterations; a large C reaches it
        model.fit(train, train_classes)
    return model.predict(test) == test_classes
