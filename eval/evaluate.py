"""Retrieval, zero-shot classification and probes of a model on a dataset, in every language."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from datasets import Dataset

from rsmclip.core.errors import UserError
from rsmclip.eval.embed import Embedder
from rsmclip.eval.outcomes import Classification, Outcomes, Retrieval, chance_of, statistics
from rsmclip.eval.probes import few_shot_probe, knn_probe, linear_probe
from rsmclip.eval.protocol import Benchmark
from rsmclip.eval.retrieval import retrieval_ranks
from rsmclip.eval.zero_shot import (
    class_embeddings,
    label_ranks,
    neighbor_affinities,
    score_ranks,
    transductive_assignments,
)

SHOTS = (1, 2, 4, 8, 16)
MAX_SENTENCES = 5000  # for text-to-text retrieval between languages


@dataclass
class Captions:
    """The captions of a dataset in one language."""

    texts: list[str]
    rows: np.ndarray  # (texts,), row of the image of each caption
    numbers: np.ndarray  # (texts,), index among the captions of the image; translations have equal indices
    embeds: torch.Tensor  # (texts, dim)


@dataclass
class Embedded:
    """The embeddings of a corpus."""

    image_embeds: torch.Tensor  # (images, dim)
    captions: dict[str, Captions]  # by language


def evaluate_corpus(
    embedder: Embedder, corpus: Dataset, languages: Sequence[str], benchmark: Benchmark | None = None
) -> dict[str, dict[str, float]]:
    """Embed and measure a corpus, and return [`metrics_by_language`]. [`embed_corpus`] has the arguments."""
    return metrics_by_language(measure_corpus(embedder, corpus, embed_corpus(embedder, corpus, languages), benchmark))


def embed_corpus(embedder: Embedder, corpus: Dataset, languages: Sequence[str], capitalize: bool = False) -> Embedded:
    """
    Embed the images and captions of a corpus: a split in the schema of this project, with encoded images.

    With `capitalize` each caption begins with a capital letter, as RemoteCLIP does (Liu et al. 2024).

    Raises:
        [`UserError`]: A language has no captions, or an image cannot be decoded.
    """
    columns = corpus["captions"]
    captions = {
        language: embed_captions(embedder, [row.get(language) for row in columns], language, capitalize)
        for language in languages
    }
    return Embedded(embedder.images(corpus), captions)


def measure_corpus(
    embedder: Embedder, corpus: Dataset, embedded: Embedded, benchmark: Benchmark | None = None, thorough: bool = False
) -> Outcomes:
    """
    Measure retrieval and zero-shot classification in each language.

    Retrieval uses the rows with captions in the language. Zero-shot classification needs a benchmark, and uses the
    rows with a label. With `thorough` the gap to English is measured too, and retrieval with equal captions counted as
    right.
    """
    image_embeds, labels = embedded.image_embeds, list(corpus["label"])
    outcomes = Outcomes(list(corpus["image_id"]))
    for language, captions in embedded.captions.items():
        retrieval = image_embeds, captions.embeds, captions.rows
        outcomes.retrieval[language] = measure_retrieval(*retrieval)
        if thorough and shared_texts(captions):
            sentences = np.unique(captions.texts, return_inverse=True)[1]
            outcomes.duplicates_right[language] = measure_retrieval(*retrieval, sentences)
        if benchmark is not None and language in benchmark.templates and any(labels):
            outcomes.zero_shot[language] = measure_zero_shot(embedder, image_embeds, labels, benchmark, language)
    if thorough:
        outcomes.english = measure_english(outcomes, image_embeds, embedded.captions)
    return outcomes


def embed_captions(
    embedder: Embedder, captions: list[list[str | None] | None], language: str, capitalize: bool = False
) -> Captions:
    # `captions` has an entry for each row. Rows without captions are left out.
    found = [
        (row, number, text[:1].upper() + text[1:] if capitalize else text)
        for row, texts in enumerate(captions)
        for number, text in enumerate(texts or [])
        if text
    ]
    if not found:
        raise UserError(f"no row has a caption in {language!r}")
    rows, numbers, texts = zip(*found, strict=True)
    return Captions(list(texts), np.array(rows), np.array(numbers), embedder.texts(list(texts)))


def measure_retrieval(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, text_rows: np.ndarray, sentences: np.ndarray | None = None
) -> Retrieval:
    # Among the images that have texts. `sentences`: see `retrieval_ranks`.
    rows, owner = np.unique(text_rows, return_inverse=True)
    image_ranks, text_ranks = retrieval_ranks(image_embeds[rows], text_embeds, owner, sentences)
    return Retrieval(rows, image_ranks, text_rows, text_ranks)


def shared_texts(captions: Captions) -> bool:
    # Whether two images have the same caption.
    return len(set(captions.texts)) < len(set(zip(captions.rows.tolist(), captions.texts, strict=True)))


def measure_english(
    outcomes: Outcomes, image_embeds: torch.Tensor, captions: dict[str, Captions]
) -> dict[str, Retrieval]:
    # For each other language, measure English on the captions that have a translation.
    if "en" not in captions:
        return {}
    english = captions["en"]
    pairs = list(zip(english.rows.tolist(), english.numbers.tolist(), strict=True))
    measured = {}
    for language in sorted(captions.keys() - {"en"}):
        translated = set(zip(captions[language].rows.tolist(), captions[language].numbers.tolist(), strict=True))
        kept = np.array([pair in translated for pair in pairs])
        if kept.sum() != len(translated):  # a caption has no English original: the galleries would differ
            continue
        if kept.all():
            measured[language] = outcomes.retrieval["en"]
        else:
            measured[language] = measure_retrieval(image_embeds, english.embeds[kept], english.rows[kept])
    return measured


def measure_agreement(embedder: Embedder, corpus: Dataset, languages: Sequence[str]) -> Outcomes | None:
    """
    Measure whether a sentence finds its translation, for each pair of languages.

    Up to 5,000 sentences are used: those that exist in every language, without duplicates. Returns `None` for fewer
    than two languages or sentences.
    """
    sentences = shared_sentences(corpus, languages)
    if len(languages) < 2 or len(sentences) < 2:
        return None
    texts = zip(languages, zip(*sentences, strict=True), strict=True)
    embeds = {language: embedder.texts(list(translations)) for language, translations in texts}
    outcomes = Outcomes([sentence[0] for sentence in sentences])
    for one, other in combinations(languages, 2):
        there, back = retrieval_ranks(embeds[one], embeds[other], np.arange(len(sentences)))
        outcomes.agreement |= {f"{one}>{other}": there, f"{other}>{one}": back}
    return outcomes


def shared_sentences(corpus: Dataset, languages: Sequence[str]) -> list[tuple[str, ...]]:
    # A sentence is a tuple of its translations. No text occurs twice in a language.
    seen: set[tuple[str, str]] = set()
    sentences = []
    for captions in corpus["captions"]:
        for sentence in zip(*(captions.get(language) or [] for language in languages), strict=False):
            texts = set(zip(languages, sentence, strict=True))
            if all(sentence) and not texts & seen and len(sentences) < MAX_SENTENCES:
                sentences.append(sentence)
                seen |= texts
    return sentences


def measure_zero_shot(
    embedder: Embedder, image_embeds: torch.Tensor, labels: list[str | None], benchmark: Benchmark, language: str
) -> Classification:
    """Measure zero-shot classification in one language. Rows without a label are left out."""
    rows, targets = labeled_rows(labels, benchmark)
    ranks, predicted = label_ranks(image_embeds[rows], embed_classes(embedder, benchmark, language), targets)
    return Classification(rows, targets, np.array(benchmark.labels), ranks == 0, ranks < 5, predicted)


def measure_transductive(
    embedder: Embedder,
    image_embeds: torch.Tensor,
    labels: list[str | None],
    benchmark: Benchmark,
    languages: Iterable[str],
) -> dict[str, Classification]:
    """Classify all rows with a label together, see [`transductive_assignments`]. Returns outcomes by language."""
    rows, targets = labeled_rows(labels, benchmark)
    images, found = image_embeds[rows], {}
    affinities = neighbor_affinities(images)
    for language in languages:
        classes = embed_classes(embedder, benchmark, language)
        assignments = transductive_assignments(images, classes, affinities=affinities)
        ranks, predicted = score_ranks(assignments, targets)
        found[language] = Classification(
            rows, targets, np.array(benchmark.labels), hits=ranks == 0, predicted=predicted
        )
    return found


def labeled_rows(labels: list[str | None], benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    # The rows with a label, and their classes as indices into `benchmark.labels`.
    check_labels(labels, benchmark)
    rows = np.array([row for row, label in enumerate(labels) if label is not None])
    return rows, np.array([benchmark.labels.index(labels[row]) for row in rows])


def embed_classes(embedder: Embedder, benchmark: Benchmark, language: str) -> torch.Tensor:
    names = [benchmark.class_names[language][label] for label in benchmark.labels]
    return class_embeddings(embedder.texts, names, benchmark.templates[language])


def measure_probes(
    train_embeds: torch.Tensor,
    train_labels: Sequence[str],
    test_embeds: torch.Tensor,
    test_labels: Sequence[str],
    test_rows: np.ndarray,
) -> dict[str, Classification]:
    """
    Train classifiers on frozen image embeddings, `(images, dim)`, and return outcomes of the test images by probe.

    `test_rows` are the rows of the test images in their dataset. A few-shot probe is left out if a class has too few
    images; its hits are the share of draws in which the image was classified right.
    """
    data = (train_embeds, train_labels, test_embeds, test_labels)
    classes, labels = np.unique(np.array(test_labels), return_inverse=True)
    smallest = np.unique(np.array(train_labels), return_counts=True)[1].min()
    hits = {"linear_probe": linear_probe(*data)["hits"]}
    hits["knn_probe"] = knn_probe(*data, k=min(20, len(train_labels)))["hits"]
    if shots := [number for number in SHOTS if number <= smallest]:
        few = few_shot_probe(*data, shots=shots)
        hits |= {f"{number}_shot_probe": few[number]["hits"].mean(axis=0) for number in shots}
    return {name: Classification(test_rows, labels, classes, values) for name, values in hits.items()}


def check_labels(labels: Iterable[str | None], benchmark: Benchmark) -> None:
    """Raise [`UserError`] if a label is not a class of the benchmark."""
    if unknown := sorted(set(labels) - {None} - set(benchmark.labels)):
        raise UserError(
            f"label {unknown[0]!r} is not a class of benchmark {benchmark.name!r}; choose another benchmark, or none"
        )


def metrics_by_language(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """
    Return for each language the metrics of [`~rsmclip.eval.outcomes.statistics`], the numbers of `images` and `texts`,
    and the expected values of a random ranking: `chance_mean_recall`, `chance_zero_shot_accuracy`.
    """
    results: dict[str, dict[str, float]] = {}
    for (language, metric), value in statistics(outcomes, np.ones((1, len(outcomes.ids)))).items():
        if language != "mean":
            results.setdefault(language, {})[metric] = float(value[0])
    for language, retrieval in outcomes.retrieval.items():
        results[language] |= {"images": len(retrieval.rows), "texts": len(retrieval.text_rows)}
        results[language]["chance_mean_recall"] = chance_of(retrieval)["mean_recall"]
    for language, classification in outcomes.zero_shot.items():
        results[language]["chance_zero_shot_accuracy"] = 100 / len(classification.classes)
    return results
