"""Outcomes of a model on each image of a dataset: ranks, hits, predictions.

Figures, bootstrap intervals and comparisons of two models are computed from outcomes, so an evaluation saves its
outcomes. A figure is a function of image weights ([`statistics`]). Weights of 1 give its value; the counts of a
resample give one draw of the bootstrap.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from rsmclip.core.errors import user_errors
from rsmclip.eval.retrieval import chance_metrics

KS = (1, 5, 10)
CLASSIFICATIONS = ("zero_shot", "transductive", "probes")  # fields of `Outcomes`


@dataclass
class Retrieval:
    """Ranks, counted from 0, of retrieval in one language."""

    rows: np.ndarray  # (images,), rows of the dataset that have captions in the language
    image_ranks: np.ndarray  # (images,), of the best right caption of each image
    text_rows: np.ndarray  # (texts,), row of the image of each caption
    text_ranks: np.ndarray  # (texts,), of the best right image of each caption


@dataclass
class Classification:
    """Results of a classifier on the rows that have a label."""

    rows: np.ndarray  # (images,), rows of the dataset
    labels: np.ndarray  # (images,), class of each image, as an index into `classes`
    classes: np.ndarray  # (classes,), labels of the classes
    hits: np.ndarray  # (images,), whether the prediction is right, or the share of runs where it is
    hits_in_5: np.ndarray | None = None  # (images,), whether the class is among the first five
    predicted: np.ndarray | None = None  # (images,), predicted class, as an index into `classes`


@dataclass
class Outcomes:
    """Outcomes of a model on a dataset. The bootstrap draws from `ids`."""

    ids: list[str]  # of the rows of the dataset, or the sentences of text-to-text retrieval
    retrieval: dict[str, Retrieval] = field(default_factory=dict)  # by language
    duplicates_right: dict[str, Retrieval] = field(default_factory=dict)  # images with an equal caption count as right
    english: dict[str, Retrieval] = field(default_factory=dict)  # of English, on the captions translated to a language
    zero_shot: dict[str, Classification] = field(default_factory=dict)  # by language
    transductive: dict[str, Classification] = field(default_factory=dict)  # all images jointly, by language
    probes: dict[str, Classification] = field(default_factory=dict)  # by name of the probe
    agreement: dict[str, np.ndarray] = field(default_factory=dict)  # "pt>de": rank of each sentence's translation

    def save(self, path: Path) -> None:
        """Write the outcomes to a `.npz` file, without `agreement`."""
        arrays = {"ids": np.array(self.ids)}
        for kind in ("retrieval", "duplicates_right", "english", *CLASSIFICATIONS):
            for name, outcome in getattr(self, kind).items():
                arrays |= {f"{kind}/{name}/{key}": value for key, value in vars(outcome).items() if value is not None}
        with user_errors(OSError, prefix=f"{path} could not be written"):
            np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Outcomes":
        """Read a file that [`save`] wrote."""
        unreadable = user_errors(OSError, ValueError, BadZipFile, zlib.error, prefix=f"{path} could not be read")
        with unreadable, np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        outcomes = cls(arrays.pop("ids").tolist())
        nested: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        for entry, array in arrays.items():
            kind, name, key = entry.split("/")
            nested.setdefault((kind, name), {})[key] = array
        for (kind, name), values in nested.items():
            record = Classification if kind in CLASSIFICATIONS else Retrieval
            getattr(outcomes, kind)[name] = record(**values)
        return outcomes


def statistics(outcomes: Outcomes, weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """
    Compute every figure of a dataset for weighted images. `weights` has shape `(samples, ids)`.

    Returns:
        `dict[tuple[str, str], np.ndarray]`: Values of shape `(samples,)` by language and metric. The language is a
        code, `"mean"` over the languages, a pair such as `"pt>de"`, or `""` for probes. Median ranks count from 1,
        other figures are in percent. A value is NaN if all images of the figure have weight 0.
    """
    found: dict[tuple[str, str], np.ndarray] = {}
    for language, retrieval in outcomes.retrieval.items():
        found |= named(language, "{}", retrieval_statistics(retrieval, weights))
    for language, retrieval in outcomes.duplicates_right.items():
        found |= named(language, "{}_duplicates_right", retrieval_statistics(retrieval, weights))
    for language, retrieval in outcomes.english.items():
        gap = retrieval_statistics(retrieval, weights)["mean_recall"] - found[language, "mean_recall"]
        found[language, "mean_recall_gap_to_english"] = gap
    for language, classification in outcomes.zero_shot.items():
        found |= named(language, "zero_shot_{}", classification_statistics(classification, weights))
    for language, classification in outcomes.transductive.items():
        found |= named(language, "transductive_{}", classification_statistics(classification, weights))
    for probe, classification in outcomes.probes.items():
        found |= named("", f"{probe}_{{}}", classification_statistics(classification, weights))
    for languages, ranks in outcomes.agreement.items():
        found[languages, "text_to_text_recall@1"] = share(ranks < 1, weights)
    return found | means(found)


def named(language: str, pattern: str, values: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    return {(language, pattern.format(metric)): value for metric, value in values.items()}


def means(found: dict[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    by_metric: dict[str, list[np.ndarray]] = {}
    for (_, metric), value in found.items():
        by_metric.setdefault(metric, []).append(value)
    return {("mean", metric): np.mean(values, axis=0) for metric, values in by_metric.items() if len(values) > 1}


def share(hits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return 100 * ratio(weights @ hits.astype(np.float64), weights.sum(axis=1))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, where=whole > 0, out=np.full(whole.shape, np.nan))


def retrieval_statistics(retrieval: Retrieval, weights: np.ndarray) -> dict[str, np.ndarray]:
    recalls, medians = {}, {}
    for direction, ranks, rows in (
        ("image_to_text", retrieval.image_ranks, retrieval.rows),
        ("text_to_image", retrieval.text_ranks, retrieval.text_rows),
    ):
        drawn = weights[:, rows]  # the weight of a text is the weight of its image
        recalls |= {f"{direction}_recall@{k}": share(ranks < k, drawn) for k in KS}
        medians[f"{direction}_median_rank"] = weighted_median(ranks + 1, drawn)
    return recalls | {"mean_recall": np.mean(list(recalls.values()), axis=0)} | medians


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the lower median of weighted values, `(samples,)`; NaN where all weights are 0."""
    order = np.argsort(values, kind="stable")
    below = weights[:, order].cumsum(axis=1)
    medians = values[order][(below * 2 < below[:, -1:]).sum(axis=1)]
    return np.where(below[:, -1] > 0, medians, np.nan)


def classification_statistics(classification: Classification, weights: np.ndarray) -> dict[str, np.ndarray]:
    drawn = weights[:, classification.rows]
    values = {"accuracy": share(classification.hits, drawn)}
    if classification.hits_in_5 is not None:
        values["top5_accuracy"] = share(classification.hits_in_5, drawn)
    _, classes = np.unique(classification.labels, return_inverse=True)
    is_class = np.eye(classes.max() + 1)[classes]  # (images, classes)
    members = drawn @ is_class
    recalls = ratio(drawn @ (is_class * classification.hits[:, None]), members)
    mean = ratio(np.nansum(recalls, axis=1), (members > 0).sum(axis=1))  # over the classes that were drawn
    return values | {"mean_per_class_recall": 100 * mean}


def chance_of(retrieval: Retrieval) -> dict[str, float]:
    """Return the expected recalls of a random ranking, see [`~rsmclip.eval.retrieval.chance_metrics`]."""
    return chance_metrics(np.searchsorted(retrieval.rows, retrieval.text_rows), len(retrieval.rows), KS)


def confusion(classification: Classification) -> np.ndarray:
    """Count images by true class (row) and predicted class (column), `(classes, classes)`."""
    size = len(classification.classes)
    cells = classification.labels * size + classification.predicted
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def class_recalls(classifications: dict[str, Classification]) -> dict[str, dict]:
    """
    Compute the recall of each class that occurs. `classifications` are of the same images, by language.

    Returns:
        `dict[str, dict]`: For each label `images` (a number), `recall` (by language, in percent), and `taken_for` (the
        most frequent wrong label over all languages, or `None`).
    """
    if not classifications:
        return {}
    tables = {language: confusion(classification) for language, classification in classifications.items()}
    classes = next(iter(classifications.values())).classes.tolist()
    errors = sum(tables.values()) * ~np.eye(len(classes), dtype=bool)
    found = {}
    for number, label in enumerate(classes):
        if images := int(next(iter(tables.values()))[number].sum()):
            recall = {language: 100 * float(table[number, number]) / images for language, table in tables.items()}
            taken_for = classes[errors[number].argmax()] if errors[number].any() else None
            found[label] = {"images": images, "recall": recall, "taken_for": taken_for}
    return found
