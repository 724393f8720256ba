"""
Probes: what a classifier learns from frozen image embeddings. Linear, k-nearest-neighbour and few-shot.

Labels are class names or numbers. Embeddings are normalised here. Figures are in percent, and every probe also gives
which test images it got right, so that intervals can be drawn from the same images.
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

from rsmclip.eval.retrieval import unit_rows
from rsmclip.eval.zero_shot import hit_metrics

VALIDATION_SHARE = 0.2  # of the train images, on which C is chosen
COARSE_EXPONENTS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # of C, as powers of ten
STEPS_PER_DECADE = 8  # resolution of the search
FEW_SHOT_C = 31.6  # the C = 0.316 of CLIP's published example, whose embeddings have a norm near 10, for unit rows
CHUNK_ENTRIES = 2**24  # similarities held at once, 128 MB


@dataclass(frozen=True)
class ProbeData:
    """
    What a probe learns from and is tested on.

    Args:
        names (`list[str]`): Names of the classes, sorted.
        train (`np.ndarray` of shape `(train images, dim)`): Unit rows, float64.
        train_classes (`np.ndarray` of shape `(train images,)`): For each row its class, as an index into `names`.
        test (`np.ndarray` of shape `(test images, dim)`): Likewise.
        test_classes (`np.ndarray` of shape `(test images,)`): Likewise.
    """

    names: list[str]
    train: np.ndarray
    train_classes: np.ndarray
    test: np.ndarray
    test_classes: np.ndarray


def linear_probe(
    train_embeds: torch.Tensor | np.ndarray,
    train_labels: Sequence[str | int],
    test_embeds: torch.Tensor | np.ndarray,
    test_labels: Sequence[str | int],
    seed: int = 0,
) -> dict:
    """
    Logistic regression on unit embeddings, its L2 penalty chosen on a fifth of the train images, then fitted on all
    of them.

    The choice is the parametric binary search of Radford et al. 2021 (appendix A.3): C = 10^-6, 10^-4, …, 10^6, then
    twice as fine around the best until there are 8 steps a decade; 15 fits instead of 96. Of equally good ones the
    smallest C, the strongest penalty, is taken.

    Args:
        train_embeds (`torch.Tensor` of shape `(train images, dim)`):
            Image embeddings.
        train_labels (`Sequence[str | int]`):
            The class of each.
        test_embeds (`torch.Tensor` of shape `(test images, dim)`):
            Image embeddings.
        test_labels (`Sequence[str | int]`):
            The class of each.
        seed (`int`, *optional*, defaults to 0):
            Draws the validation part.

    Returns:
        `dict`: `accuracy` and `mean_per_class_recall` (over the classes that occur in test) in percent; `C`; `hits`,
        a bool array of shape `(test images,)`.

    Raises:
        `ValueError`: fewer than two classes, a class with one train image, a test class without train images, labels
        that don't fit the embeddings, embeddings that are zero or not finite.
    """
    data = probe_data(train_embeds, train_labels, test_embeds, test_labels)
    best = choose_c(data, seed)
    hits = logistic_hits(data.train, data.train_classes, data.test, data.test_classes, best)
    return hit_metrics(hits, data.test_classes) | {"C": best, "hits": hits}


def choose_c(data: ProbeData, seed: int) -> float:
    """The best C of [`linear_probe`] on the validation part of train."""
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
    train_embeds: torch.Tensor | np.ndarray,
    train_labels: Sequence[str | int],
    test_embeds: torch.Tensor | np.ndarray,
    test_labels: Sequence[str | int],
    k: int = 20,
    temperature: float = 0.07,
) -> dict:
    """
    Weighted k-nearest neighbours by cosine similarity (Wu et al. 2018; k and temperature of DINO, Caron et al. 2021):
    each of the k nearest train images votes for its class with exp(similarity / temperature).

    The order of the rows never matters: train images as near as the k-th vote too, and a test image whose class ties
    with another counts as an error. Similarities are exact ([`~rsmclip.eval.retrieval`]), the same for any chunk.

    Args:
        train_embeds (`torch.Tensor` of shape `(train images, dim)`):
            Image embeddings.
        train_labels (`Sequence[str | int]`):
            The class of each.
        test_embeds (`torch.Tensor` of shape `(test images, dim)`):
            Image embeddings.
        test_labels (`Sequence[str | int]`):
            The class of each.
        k (`int`, *optional*, defaults to 20):
            Number of neighbours.
        temperature (`float`, *optional*, defaults to 0.07):
            The smaller, the more the nearest count; `inf` gives every neighbour one vote.

    Returns:
        `dict`: `accuracy` and `mean_per_class_recall` in percent; `hits`, a bool array of shape `(test images,)`.

    Raises:
        `ValueError`: as [`linear_probe`], except that one train image a class is enough; k or temperature out of
        range.
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
        # Exact: unit rows are multiples of 2^-26, and float64 holds every partial sum of their products.
        similarity = test[start : start + chunk] @ train.t()
        votes = neighbour_votes(similarity, data.train_classes, len(data.names), k, temperature)
        own = data.test_classes[start : start + chunk, None]
        right = np.take_along_axis(votes, own, axis=1)
        hits.append((votes >= right).sum(axis=1) == 1)  # only the right class itself has so many
    hits = np.concatenate(hits)
    return hit_metrics(hits, data.test_classes) | {"hits": hits}


def neighbour_votes(
    similarity: torch.Tensor, train_classes: np.ndarray, classes: int, k: int, temperature: float
) -> np.ndarray:
    """Votes of shape `(queries, classes)` of the train images that are at least as similar as the k-th of a query."""
    nearest = similarity.topk(k).values
    query, row = (index.numpy() for index in (similarity >= nearest[:, -1:]).nonzero(as_tuple=True))
    distance = (nearest[:, :1] - similarity).numpy()[query, row]  # from the nearest, so that one is 1
    order = np.lexsort((distance, query))  # equal neighbours of two classes then sum to equal votes, bit for bit
    query, row, distance = query[order], row[order], distance[order]
    cells = query * classes + train_classes[row]
    votes = np.bincount(cells, np.exp(-distance / temperature), minlength=len(similarity) * classes)
    return votes.reshape(len(similarity), classes)


def few_shot_probe(
    train_embeds: torch.Tensor | np.ndarray,
    train_labels: Sequence[str | int],
    test_embeds: torch.Tensor | np.ndarray,
    test_labels: Sequence[str | int],
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    seeds: int = 5,
) -> dict[int, dict]:
    """
    Logistic regression on a few images a class, drawn anew with each seed; the draw of n images holds that of fewer.

    C is fixed (`FEW_SHOT_C`): choosing it on further labelled images would be more than n shots.

    Args:
        train_embeds (`torch.Tensor` of shape `(train images, dim)`):
            Image embeddings from which is drawn.
        train_labels (`Sequence[str | int]`):
            The class of each.
        test_embeds (`torch.Tensor` of shape `(test images, dim)`):
            Image embeddings.
        test_labels (`Sequence[str | int]`):
            The class of each.
        shots (`Sequence[int]`, *optional*, defaults to `(1, 2, 4, 8, 16)`):
            Numbers of images a class.
        seeds (`int`, *optional*, defaults to 5):
            Number of draws, at least 2; their seeds are 0, 1, ….

    Returns:
        `dict[int, dict]`: for each number of shots `accuracy` and `mean_per_class_recall`, means over the draws in
        percent; `accuracy_std` and `mean_per_class_recall_std`, standard deviations over the draws (of a sample, so
        divided by `seeds - 1`); `C`; `hits`, a bool array of shape `(seeds, test images)`.

    Raises:
        `ValueError`: as [`linear_probe`], except that one train image a class is enough; a class with fewer train
        images than shots; fewer than two seeds.
    """
    data = probe_data(train_embeds, train_labels, test_embeds, test_labels)
    if seeds < 2:
        raise ValueError(f"few-shot figures need at least 2 seeds for their standard deviation, not {seeds}")
    if not len(shots) or min(shots) < 1:
        raise ValueError(f"shots must be whole numbers from 1 on, not {list(shots)}")
    counts = np.bincount(data.train_classes)
    if counts.min() < max(shots):
        name, count = data.names[counts.argmin()], counts.min()
        raise ValueError(f"{max(shots)} shots need as many train images of each class; {name!r} has {count}")

    labels = [data.names[index] for index in data.train_classes]
    draws = [list(shuffled_rows(labels, seed, "few-shot").values()) for seed in range(seeds)]
    results = {}
    for number in shots:
        drawn = [np.concatenate([rows[:number] for rows in draw]) for draw in draws]
        hits = [
            logistic_hits(data.train[rows], data.train_classes[rows], data.test, data.test_classes, FEW_SHOT_C)
            for rows in drawn
        ]
        runs = [hit_metrics(run, data.test_classes) for run in hits]
        means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
        deviations = {f"{name}_std": float(np.std([run[name] for run in runs], ddof=1)) for name in runs[0]}
        results[number] = means | deviations | {"C": FEW_SHOT_C, "hits": np.stack(hits)}
    return results


def split_rows(labels: Sequence[str | int], seed: int = 0, test_share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """
    Train and test rows of a dataset that has no official split, the same share of every class.

    The split depends on the seed, the share, and for each class on its name and its number of rows: its images, in the
    order in which they come, get the same places whatever lies between them and whatever other classes there are. So
    give the rows in an order that does not change, as sorted by file name.

    Args:
        labels (`Sequence[str | int]`):
            The class of each row.
        seed (`int`, *optional*, defaults to 0):
            Of the generator.
        test_share (`float`, *optional*, defaults to 0.5):
            Share of each class that goes to test, rounded, but at least one row and not all.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: rows of train and of test, ascending.

    Raises:
        `ValueError`: a class with one row, which cannot be on both sides; a share that is not between 0 and 1.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie between 0 and 1, not {test_share}")
    train, test = [], []
    for name, rows in shuffled_rows(labels, seed, "split").items():
        if len(rows) < 2:
            raise ValueError(f"class {name!r} has one image and cannot be split in two; leave it out or add images")
        number = min(max(round(test_share * len(rows)), 1), len(rows) - 1)
        test.append(rows[:number])
        train.append(rows[number:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def shuffled_rows(labels: Sequence[str | int], seed: int, purpose: str) -> dict[str, np.ndarray]:
    """The rows of each class in an order drawn by a generator of its own, named by purpose, class and seed."""
    names = class_names(labels, "a")
    rows = {}
    for name in np.unique(names).tolist():
        rng = np.random.default_rng([seed, zlib.crc32(f"{purpose}/{name}".encode())])
        rows[name] = rng.permutation(np.flatnonzero(names == name))
    return rows


def probe_data(
    train_embeds: torch.Tensor | np.ndarray,
    train_labels: Sequence[str | int],
    test_embeds: torch.Tensor | np.ndarray,
    test_labels: Sequence[str | int],
) -> ProbeData:
    """Unit rows and numbered classes; a `ValueError` in one line if they don't fit together."""
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
        raise ValueError(f"a probe needs at least two classes; train has only {str(names[0])!r}")
    if len(unknown := np.setdiff1d(test_names, names)):
        raise ValueError(f"class {str(unknown[0])!r} of test has no train images")
    return ProbeData(names.tolist(), train, train_classes, test, np.searchsorted(names, test_names))


def class_names(labels: Sequence[str | int], what: str) -> np.ndarray:
    """Labels as strings; `ValueError` if an image has none."""
    labels = labels.tolist() if isinstance(labels, torch.Tensor | np.ndarray) else list(labels)
    if None in labels:
        raise ValueError(f"{what} image in row {labels.index(None)} has no label; leave images without one out")
    return np.array([str(label) for label in labels], dtype=str)


def logistic_hits(
    train: np.ndarray, train_classes: np.ndarray, test: np.ndarray, test_classes: np.ndarray, c: float
) -> np.ndarray:
    """Which test rows a logistic regression fitted on the train rows gets right."""
    # The gradient of unit rows is small from the start: the default tolerance of 1e-4 would stop far from the optimum.
    model = LogisticRegression(C=c, tol=1e-6, max_iter=1000)
    # One thread: several wait for each other at thousands of small products, for minutes where cores are shared.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        # One image a class looks like regression to scikit-learn, which says so.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # CLIP's limit of iterations, reached where C is large
        model.fit(train, train_classes)
    return model.predict(test) == test_classes
