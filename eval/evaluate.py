"""Evaluates a model on a corpus: retrieval and zero-shot classification in every language, beside chance."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from datasets import Dataset

from rsmclip.eval.embed import Embedder
from rsmclip.eval.protocol import Benchmark
from rsmclip.eval.retrieval import chance_metrics, retrieval_metrics
from rsmclip.eval.zero_shot import class_embeddings, zero_shot_metrics


def evaluate_corpus(
    embedder: Embedder, corpus: Dataset, languages: Sequence[str], benchmark: Benchmark | None = None
) -> dict[str, dict[str, float]]:
    """
    Retrieval in each language over the rows that have captions in it, and zero-shot accuracy with that language's
    class names and templates over the rows that have a label.

    Args:
        embedder ([`Embedder`]):
            The model.
        corpus (`datasets.Dataset`):
            A split in the project's schema, images not decoded.
        languages (`Sequence[str]`):
            Language codes.
        benchmark ([`Benchmark`], *optional*):
            Class names; without it there is no zero-shot figure.

    Returns:
        `dict[str, dict[str, float]]`: For each language what [`retrieval_metrics`] gives, with `images` and `texts`,
        the numbers compared, and `chance_mean_recall`; with a benchmark also `zero_shot_accuracy`,
        `zero_shot_mean_per_class_recall` and `chance_zero_shot_accuracy`.
    """
    image_embeds = embedder.images(corpus)
    captions, labels = corpus["captions"], list(corpus["label"])
    results = {}
    for language in languages:
        results[language] = evaluate_retrieval(embedder, image_embeds, [row.get(language) for row in captions])
        if benchmark is not None and language in benchmark.templates and any(labels):
            results[language] |= evaluate_zero_shot(embedder, image_embeds, labels, benchmark, language)
    return results


def evaluate_retrieval(
    embedder: Embedder, image_embeds: torch.Tensor, captions: list[list[str | None] | None]
) -> dict[str, float]:
    """Retrieval in one language; a row without any caption in it takes no part."""
    captions = [[caption for caption in row or [] if caption] for row in captions]
    rows = [row for row, texts in enumerate(captions) if texts]
    if not rows:
        raise ValueError("no row has a caption in this language")
    texts = [text for row in rows for text in captions[row]]
    owner = np.repeat(np.arange(len(rows)), [len(captions[row]) for row in rows])
    metrics = retrieval_metrics(image_embeds[rows], embedder.texts(texts), owner)
    chance = chance_metrics(owner, len(rows))["mean_recall"]
    return metrics | {"images": len(rows), "texts": len(texts), "chance_mean_recall": chance}


def evaluate_zero_shot(
    embedder: Embedder, image_embeds: torch.Tensor, labels: list[str | None], benchmark: Benchmark, language: str
) -> dict[str, float]:
    """Zero-shot classification in one language over the rows that have a label."""
    check_labels(labels, benchmark)
    rows = [row for row, label in enumerate(labels) if label is not None]
    names = [benchmark.class_names[language][label] for label in benchmark.labels]
    classes = class_embeddings(embedder.texts, names, benchmark.templates[language])
    targets = [benchmark.labels.index(labels[row]) for row in rows]
    metrics = zero_shot_metrics(image_embeds[rows], classes, targets)
    chance = 100 / len(benchmark.labels)
    return {f"zero_shot_{name}": value for name, value in metrics.items()} | {"chance_zero_shot_accuracy": chance}


def check_labels(labels: Iterable[str | None], benchmark: Benchmark) -> None:
    """Raises `ValueError` if a label is not a class of the benchmark."""
    if unknown := sorted(set(labels) - {None} - set(benchmark.labels)):
        raise ValueError(
            f"label {unknown[0]!r} is not a class of benchmark {benchmark.name!r}; name another benchmark or none"
        )
