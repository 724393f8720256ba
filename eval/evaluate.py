"""Measures a model on a dataset: cross-modal retrieval and zero-shot classification in every language."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from datasets import Dataset

from rsmclip.eval.embed import Embedder
from rsmclip.eval.outcomes import Classification, Outcomes, Retrieval, chance_of, statistics
from rsmclip.eval.probes import few_shot_probe, knn_probe, linear_probe
from rsmclip.eval.protocol import Benchmark
from rsmclip.eval.retrieval import retrieval_ranks
from rsmclip.eval.zero_shot import class_embeddings, label_ranks

SHOTS = (1, 2, 4, 8, 16)
MOST_SENTENCES = 5000  # that are compared between languages


@dataclass
class Captions:
    """
    The captions of a dataset in one language.

    Args:
        texts (`list[str]`): All of them.
        rows (`np.ndarray` of shape `(texts,)`): Row of the image of each.
        numbers (`np.ndarray` of shape `(texts,)`): Its place among the image's captions, the same in each language.
        embeds (`torch.Tensor` of shape `(texts, dim)`): Embeddings.
    """

    texts: list[str]
    rows: np.ndarray
    numbers: np.ndarray
    embeds: torch.Tensor

    def select(self, kept: np.ndarray) -> "Captions":
        """Those of a mask `(texts,)`."""
        texts = [text for text, keep in zip(self.texts, kept, strict=True) if keep]
        return Captions(texts, self.rows[kept], self.numbers[kept], self.embeds[torch.from_numpy(kept)])


@dataclass
class Embedded:
    """
    A corpus as a model sees it.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`): Embeddings of its images.
        captions (`dict[str, Captions]`): Captions by language.
    """

    image_embeds: torch.Tensor
    captions: dict[str, Captions]


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
        `dict[str, dict[str, float]]`: What [`metrics_by_language`] gives.
    """
    return metrics_by_language(measure_corpus(embedder, corpus, embed_corpus(embedder, corpus, languages), benchmark))


def embed_corpus(embedder: Embedder, corpus: Dataset, languages: Sequence[str], capitalize: bool = False) -> Embedded:
    """
    Embeds images and captions.

    Args:
        embedder ([`Embedder`]):
            The model.
        corpus (`datasets.Dataset`):
            A split in the project's schema, images not decoded.
        languages (`Sequence[str]`):
            Language codes.
        capitalize (`bool`, *optional*, defaults to `False`):
            Whether captions begin with a capital letter, as RemoteCLIP has them (Liu et al. 2024).
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
    What a model does with each image of a corpus.

    Args:
        embedder ([`Embedder`]):
            The model.
        corpus (`datasets.Dataset`):
            A split in the project's schema.
        embedded ([`Embedded`]):
            What [`embed_corpus`] made of it.
        benchmark ([`Benchmark`], *optional*):
            Class names; without it there is no zero-shot figure.
        thorough (`bool`, *optional*, defaults to `False`):
            Whether to measure retrieval with equal captions as right answers as well, and the gap to English.
    """
    image_embeds, labels = embedded.image_embeds, list(corpus["label"])
    outcomes = Outcomes(list(corpus["image_id"]))
    for language, captions in embedded.captions.items():
        outcomes.retrieval[language] = measure_retrieval(image_embeds, captions)
        if thorough and shared_texts(captions):
            outcomes.duplicates_right[language] = measure_retrieval(image_embeds, captions, equal_are_right=True)
        if benchmark is not None and language in benchmark.templates and any(labels):
            outcomes.zero_shot[language] = measure_zero_shot(embedder, image_embeds, labels, benchmark, language)
    if thorough:
        outcomes.english = measure_english(outcomes, image_embeds, embedded.captions)
    return outcomes


def embed_captions(
    embedder: Embedder, captions: list[list[str | None] | None], language: str, capitalize: bool = False
) -> Captions:
    """Captions in one language, with their embeddings; a row without any takes no part."""
    found = [
        (row, number, text[:1].upper() + text[1:] if capitalize else text)
        for row, texts in enumerate(captions)
        for number, text in enumerate(texts or [])
        if text
    ]
    if not found:
        raise ValueError(f"no row has a caption in {language!r}")
    rows, numbers, texts = zip(*found, strict=True)
    return Captions(list(texts), np.array(rows), np.array(numbers), embedder.texts(list(texts)))


def measure_retrieval(image_embeds: torch.Tensor, captions: Captions, equal_are_right: bool = False) -> Retrieval:
    """Retrieval in one language, of the images that have captions in it."""
    rows, owner = np.unique(captions.rows, return_inverse=True)
    sentences = np.unique(captions.texts, return_inverse=True)[1] if equal_are_right else None
    image_ranks, text_ranks = retrieval_ranks(image_embeds[rows], captions.embeds, owner, sentences)
    return Retrieval(rows, image_ranks, captions.rows, text_ranks)


def shared_texts(captions: Captions) -> bool:
    """Whether several images have the same caption."""
    return len(set(captions.texts)) < len(set(zip(captions.rows.tolist(), captions.texts, strict=True)))


def measure_english(
    outcomes: Outcomes, image_embeds: torch.Tensor, captions: dict[str, Captions]
) -> dict[str, Retrieval]:
    """For each other language, retrieval in English over just the captions whose translations it has."""
    if "en" not in captions:
        return {}
    english = captions["en"]
    measured = {np.ones(len(english.texts), dtype=bool).tobytes(): outcomes.retrieval["en"]}
    by_language = {}
    for language in captions.keys() - {"en"}:
        theirs = set(zip(captions[language].rows.tolist(), captions[language].numbers.tolist(), strict=True))
        pairs = zip(english.rows.tolist(), english.numbers.tolist(), strict=True)
        kept = np.array([pair in theirs for pair in pairs])
        if kept.sum() != len(theirs):  # captions that translate none
            continue
        if kept.tobytes() not in measured:
            measured[kept.tobytes()] = measure_retrieval(image_embeds, english.select(kept))
        by_language[language] = measured[kept.tobytes()]
    return dict(sorted(by_language.items()))


def measure_agreement(embedder: Embedder, corpus: Dataset, languages: Sequence[str]) -> Outcomes | None:
    """
    Whether a sentence in one language finds its translation in another, for each two languages. Sentences that have
    all languages take part, of those that are equal in a language the first, and at most 5,000; `None` if there are
    fewer than two.
    """
    seen: dict[str, set[str]] = {language: set() for language in languages}
    sentences = []
    for captions in corpus["captions"]:
        for number in range(max(len(captions.get(language) or []) for language in languages)):
            texts = [(captions.get(language) or [])[number : number + 1] for language in languages]
            if all(text and text[0] for text in texts) and len(sentences) < MOST_SENTENCES:
                sentence = dict(zip(languages, (text[0] for text in texts), strict=True))
                if not any(text in seen[language] for language, text in sentence.items()):
                    sentences.append(sentence)
                    for language, text in sentence.items():
                        seen[language].add(text)
    if len(languages) < 2 or len(sentences) < 2:
        return None
    embeds = {language: embedder.texts([sentence[language] for sentence in sentences]) for language in languages}
    outcomes = Outcomes([sentence[languages[0]] for sentence in sentences])
    for one, other in combinations(languages, 2):
        there, back = retrieval_ranks(embeds[one], embeds[other], np.arange(len(sentences)))
        outcomes.agreement |= {f"{one}>{other}": there, f"{other}>{one}": back}
    return outcomes


def measure_zero_shot(
    embedder: Embedder, image_embeds: torch.Tensor, labels: list[str | None], benchmark: Benchmark, language: str
) -> Classification:
    """Zero-shot classification in one language over the rows that have a label."""
    check_labels(labels, benchmark)
    rows = np.array([row for row, label in enumerate(labels) if label is not None])
    names = [benchmark.class_names[language][label] for label in benchmark.labels]
    classes = class_embeddings(embedder.texts, names, benchmark.templates[language])
    targets = np.array([benchmark.labels.index(labels[row]) for row in rows])
    ranks, predicted = label_ranks(image_embeds[rows], classes, targets)
    return Classification(rows, targets, np.array(benchmark.labels), ranks == 0, ranks < 5, predicted)


def measure_probes(
    train_embeds: torch.Tensor,
    train_labels: Sequence[str],
    test_embeds: torch.Tensor,
    test_labels: Sequence[str],
    test_rows: np.ndarray,
) -> dict[str, Classification]:
    """
    What classifiers on frozen embeddings do with each test image.

    Args:
        train_embeds (`torch.Tensor` of shape `(train images, dim)`): Image embeddings.
        train_labels (`Sequence[str]`): Their classes.
        test_embeds (`torch.Tensor` of shape `(test images, dim)`): Image embeddings.
        test_labels (`Sequence[str]`): Their classes.
        test_rows (`np.ndarray` of shape `(test images,)`): Rows of the dataset that they are.

    Returns:
        `dict[str, Classification]`: By probe; of several draws the share of hits. Few-shot probes are left out where a
        class has fewer images.
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
    """Raises `ValueError` if a label is not a class of the benchmark."""
    if unknown := sorted(set(labels) - {None} - set(benchmark.labels)):
        raise ValueError(
            f"label {unknown[0]!r} is not a class of benchmark {benchmark.name!r}; name another benchmark or none"
        )


def metrics_by_language(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """
    The figures of each language beside what a random ranking would give.

    Returns:
        `dict[str, dict[str, float]]`: For each language what [`~rsmclip.eval.outcomes.statistics`] gives, with
        `images` and `texts`, the numbers compared, and `chance_mean_recall`; with zero-shot figures also
        `chance_zero_shot_accuracy`.
    """
    results: dict[str, dict[str, float]] = {}
    for (language, metric), value in statistics(outcomes, np.ones((1, len(outcomes.ids)))).items():
        if language != "mean":
            results.setdefault(language, {})[metric] = float(value[0])
    for language, retrieval in outcomes.retrieval.items():
        chance = chance_of(retrieval)["mean_recall"]
        numbers = {"images": len(retrieval.rows), "texts": len(retrieval.text_rows)}
        results[language] |= numbers | {"chance_mean_recall": chance}
    for language, classification in outcomes.zero_shot.items():
        results[language]["chance_zero_shot_accuracy"] = 100 / len(classification.classes)
    return results
