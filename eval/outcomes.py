"""What a model did with each image of a dataset: ranks, hits, predictions.

Every figure, its bootstrap interval and the comparison of two models are computed from these, so they are kept beside
the results. A figure is a function of weights of the images: all ones give its value, the counts of a resample of the
images one draw of the bootstrap (`statistics`).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rsmclip.eval.retrieval import chance_metrics

KS = (1, 5, 10)
DUPLICATES = "duplicates_right"  # names the figures in which every image with an equal caption is right


@dataclass
class Retrieval:
    """
    Retrieval in one language.

    Args:
        rows (`np.ndarray` of shape `(images,)`): Rows of the dataset that have captions in the language.
        image_ranks (`np.ndarray` of shape `(images,)`): Rank, from 0, of each image's best caption.
        text_rows (`np.ndarray` of shape `(texts,)`): Row of the image of each caption.
        text_ranks (`np.ndarray` of shape `(texts,)`): Rank, from 0, of the image for each caption.
    """

    rows: np.ndarray
    image_ranks: np.ndarray
    text_rows: np.ndarray
    text_ranks: np.ndarray


@dataclass
class Classification:
    """
    Classification of the rows that have a label.

    Args:
        rows (`np.ndarray` of shape `(images,)`): Rows of the dataset.
        labels (`np.ndarray` of shape `(images,)`): Numbers of their classes.
        classes (`np.ndarray` of shape `(classes,)`): Labels of the classes.
        hits (`np.ndarray` of shape `(images,)`): Whether, or how often of several runs, an image was classified right.
        hits_in_5 (`np.ndarray` of shape `(images,)`, *optional*): Whether its class was among the first five.
        predicted (`np.ndarray` of shape `(images,)`, *optional*): Numbers of the predicted classes.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    hits: np.ndarray
    hits_in_5: np.ndarray | None = None
    predicted: np.ndarray | None = None


@dataclass
class Outcomes:
    """
    What a model did with a dataset.

    Args:
        ids (`list[str]`):
            What the bootstrap draws: images by their ids, or sentences.
        retrieval (`dict[str, Retrieval]`):
            By language.
        duplicates_right (`dict[str, Retrieval]`):
            The same where an image with an equal caption is right as well.
        english (`dict[str, Retrieval]`):
            English over just the captions that have a translation in the language, to tell the gap.
        zero_shot (`dict[str, Classification]`):
            By language.
        probes (`dict[str, Classification]`):
            By kind of probe.
        agreement (`dict[str, np.ndarray]`):
            Of two languages, as `"pt>de"`, the rank of each sentence's translation.
    """

    ids: list[str]
    retrieval: dict[str, Retrieval] = field(default_factory=dict)
    duplicates_right: dict[str, Retrieval] = field(default_factory=dict)
    english: dict[str, Retrieval] = field(default_factory=dict)
    zero_shot: dict[str, Classification] = field(default_factory=dict)
    probes: dict[str, Classification] = field(default_factory=dict)
    agreement: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes all of it to a `.npz` file."""
        arrays = {"ids": np.array(self.ids)}
        for kind in ("retrieval", "duplicates_right", "english", "zero_shot", "probes"):
            for name, outcome in getattr(self, kind).items():
                arrays |= {f"{kind}/{name}/{key}": value for key, value in vars(outcome).items() if value is not None}
        arrays |= {f"agreement/{name}/": ranks for name, ranks in self.agreement.items()}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Outcomes":
        """Reads what [`save`] wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            outcomes = cls(arrays["ids"].tolist())
            nested: dict[tuple[str, str], dict[str, np.ndarray]] = {}
            for entry in arrays.files[1:]:
                kind, name, key = entry.split("/")
                nested.setdefault((kind, name), {})[key] = arrays[entry]
        for (kind, name), values in nested.items():
            sort = {"zero_shot": Classification, "probes": Classification}.get(kind, Retrieval)
            getattr(outcomes, kind)[name] = values[""] if kind == "agreement" else sort(**values)
        return outcomes


def statistics(outcomes: Outcomes, weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """
    Every figure of a dataset.

    Args:
        outcomes ([`Outcomes`]):
            What the model did.
        weights (`np.ndarray` of shape `(samples, ids)`):
            How often each image counts.

    Returns:
        `dict[tuple[str, str], np.ndarray]`: For each language (`"mean"` over them, `"pt>de"` of two, or `""` where
        there is none) and metric its values, `(samples,)`; ranks from 1, all else in percent. NaN where no image that
        it is about counts.
    """
    found: dict[tuple[str, str], np.ndarray] = {}
    for language, retrieval in outcomes.retrieval.items():
        found |= named(language, retrieval_statistics(retrieval, weights))
    for language, retrieval in outcomes.duplicates_right.items():
        values = retrieval_statistics(retrieval, weights)
        found |= named(language, {f"{metric}_{DUPLICATES}": value for metric, value in values.items()})
    for language, retrieval in outcomes.english.items():
        gap = retrieval_statistics(retrieval, weights)["mean_recall"] - found[language, "mean_recall"]
        found[language, "mean_recall_gap_to_english"] = gap
    for language, classification in outcomes.zero_shot.items():
        values = classification_statistics(classification, weights)
        found |= named(language, {f"zero_shot_{metric}": value for metric, value in values.items()})
    for probe, classification in outcomes.probes.items():
        values = classification_statistics(classification, weights)
        found |= named("", {f"{probe}_{metric}": value for metric, value in values.items()})
    for languages, ranks in outcomes.agreement.items():
        found[languages, "text_to_text_recall@1"] = share(ranks < 1, weights)
    return found | means(found)


def named(name: str, values: dict[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """Values of a language by language and metric."""
    return {(name, metric): value for metric, value in values.items()}


def means(found: dict[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """The mean over languages of each metric that several have."""
    by_metric: dict[str, list[np.ndarray]] = {}
    for (_, metric), value in found.items():
        by_metric.setdefault(metric, []).append(value)
    return {("mean", metric): np.mean(values, axis=0) for metric, values in by_metric.items() if len(values) > 1}


def share(hits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted share of hits in percent, `(samples,)`; NaN where all weights are 0."""
    return 100 * ratio(weights @ hits.astype(np.float64), weights.sum(axis=1))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the divisor is 0."""
    return np.divide(part, whole, where=whole > 0, out=np.full(whole.shape, np.nan))


def retrieval_statistics(retrieval: Retrieval, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Recalls and median ranks of one language; a text counts as often as its image."""
    directions = {
        "image_to_text": (retrieval.image_ranks, weights[:, retrieval.rows]),
        "text_to_image": (retrieval.text_ranks, weights[:, retrieval.text_rows]),
    }
    recalls = {
        f"{direction}_recall@{k}": share(ranks < k, drawn)
        for direction, (ranks, drawn) in directions.items()
        for k in KS
    }
    medians = {
        f"{direction}_median_rank": weighted_median(ranks + 1, drawn)
        for direction, (ranks, drawn) in directions.items()
    }
    return recalls | {"mean_recall": np.mean(list(recalls.values()), axis=0)} | medians


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The lower median of values that count as often as their weights say, `(samples,)`; NaN where none counts."""
    order = np.argsort(values, kind="stable")
    below = weights[:, order].cumsum(axis=1)
    medians = values[order][(below * 2 < below[:, -1:]).sum(axis=1)]
    return np.where(below[:, -1] > 0, medians, np.nan)


def classification_statistics(classification: Classification, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracies, and the mean recall of the classes that were drawn."""
    drawn = weights[:, classification.rows]
    values = {"accuracy": share(classification.hits, drawn)}
    if classification.hits_in_5 is not None:
        values["top5_accuracy"] = share(classification.hits_in_5, drawn)
    _, classes = np.unique(classification.labels, return_inverse=True)
    is_class = np.eye(classes.max() + 1)[classes]  # (images, classes)
    members = drawn @ is_class
    recalls = ratio(drawn @ (is_class * classification.hits[:, None]), members)
    mean = ratio(np.nansum(recalls, axis=1), (members > 0).sum(axis=1))  # of the classes that were drawn
    return values | {"mean_per_class_recall": 100 * mean}


def chance_of(retrieval: Retrieval) -> dict[str, float]:
    """What a random ranking would give."""
    return chance_metrics(np.searchsorted(retrieval.rows, retrieval.text_rows), len(retrieval.rows), KS)


def confusion(classification: Classification) -> np.ndarray:
    """Images by true class (row) and predicted class (column), `(classes, classes)`."""
    size = len(classification.classes)
    cells = classification.labels * size + classification.predicted
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def class_recalls(classifications: dict[str, Classification]) -> dict[str, dict]:
    """
    How well each class that occurs is recognised.

    Args:
        classifications (`dict[str, Classification]`): By language, of the same images.

    Returns:
        `dict[str, dict]`: For each label `images`, their number; `recall`, in percent by language; and `taken_for`,
        the label that its images most often got instead over all languages, `None` if they never got another.
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
