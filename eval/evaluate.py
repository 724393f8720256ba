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
from rsmclip.eval.zero_shot import class_embeddings, label_ranks

SHOTS = (1, 2, 4, 8, 16)
MAX_SENTENCES = 5000  # for text-to-text retrieval between languages


@dataclass
class Captions:
    """The captions of a dataset in one language."""

    texts: list[str]
    rows: np.ndarray  # (texts,), row of each caption's image
    numbers: np.ndarray  # (texts,), index among the captions of the image; translations share it
    embeds: torch.Tensor  # (texts, dim)

    def select(self, kept: np.ndarray) -> "Captions":
        """Return the captions of a mask of shape `(texts,)`."""
        texts = [text for text, keep in zip(self.texts, kept, strict=True) if keep]
        return Captions(texts, self.rows[kept], self.numbers[kept], self.embeds[torch.from_numpy(kept)])


@dataclass
class Embedded:
    """The embeddings of a corpus."""

    image_embeds: torch.Tensor  # (images, dim)
    captions: dict[str, Captions]  # by language


def evaluate_corpus(
    embedder: Embedder, corpus: Dataset, languages: Sequence[str], benchmark: Benchmark | None = None
) -> dict[str, dict[str, float]]:
    """Embed a corpus, measure it, and return [`metrics_by_language`]. See [`embed_corpus`] for the arguments."""
    return metrics_by_language(measure_corpus(embedder, corpus, embed_corpus(embedder, corpus, languages), benchmark))


def embed_corpus(embedder: Embedder, corpus: Dataset, languages: Sequence[str], capitalize: bool = False) -> Embedded:
    """
    Embed images and captions.

    Args:
        embedder ([`Embedder`]): The model.
        corpus (`datasets.Dataset`): A split in the schema of this project, images not decoded.
        languages (`Sequence[str]`): Language codes.
        capitalize (`bool`, *optional*, defaults to `False`): Whether to begin each caption with a capital letter, as
            RemoteCLIP does (Liu et al. 2024).

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
    Measure retrieval and zero-shot classification in each language. Retrieval uses the rows with captions in the
    language; zero-shot classification uses the rows with a label, and the class names and templates of the language.

    Args:
        embedder ([`Embedder`]): The model.
        corpus (`datasets.Dataset`): A split in the schema of this project.
        embedded ([`Embedded`]): The result of [`embed_corpus`].
        benchmark ([`Benchmark`], *optional*): Class names; without them there is no zero-shot classification.
        thorough (`bool`, *optional*, defaults to `False`): Whether to measure as well retrieval with equal captions
            counted as right, and the gap to English.
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
    """Embed the captions of a language, one list per row. Rows without captions are left out."""
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


def measure_retrieval(image_embeds: torch.Tensor, captions: Captions, equal_are_right: bool = False) -> Retrieval:
    """Measure retrieval in one language among the images that have captions in it."""
    rows, owner = np.unique(captions.rows, return_inverse=True)
    sentences = np.unique(captions.texts, return_inverse=True)[1] if equal_are_right else None
    image_ranks, text_ranks = retrieval_ranks(image_embeds[rows], captions.embeds, owner, sentences)
    return Retrieval(rows, image_ranks, captions.rows, text_ranks)


def shared_texts(captions: Captions) -> bool:
    """Return whether several images have the same caption."""
    return len(set(captions.texts)) < len(set(zip(captions.rows.tolist(), captions.texts, strict=True)))


def measure_english(
    outcomes: Outcomes, image_embeds: torch.Tensor, captions: dict[str, Captions]
) -> dict[str, Retrieval]:
    """Measure English retrieval for each other language, with only the captions that have a translation in it."""
    if "en" not in captions:
        return {}
    english = captions["en"]
    pairs = list(zip(english.rows.tolist(), english.numbers.tolist(), strict=True))
    measured = {}
    for language in sorted(captions.keys() - {"en"}):
        translated = set(zip(captions[language].rows.tolist(), captions[language].numbers.tolist(), strict=True))
        kept = np.array([pair in translated for pair in pairs])
        if kept.all():
            measured[language] = outcomes.retrieval["en"]
        elif kept.sum() == len(translated):  # else a caption has no English original, and galleries would differ
            measured[language] = measure_retrieval(image_embeds, english.select(kept))
    return measured


def measure_agreement(embedder: Embedder, corpus: Dataset, languages: Sequence[str]) -> Outcomes | None:
    """
    Measure whether a sentence finds its translation, for each pair of languages.

    Uses up to 5,000 sentences that exist in every language, without duplicates. Returns `None` for fewer than two
    languages or sentences.
    """
    sentences = shared_sentences(corpus, languages)
    if len(languages) < 2 or len(sentences) < 2:
        return None
    embeds = {
        language: embedder.texts(list(texts))
        for language, texts in zip(languages, zip(*sentences, strict=True), strict=True)
    }
    outcomes = Outcomes([sentence[0] for sentence in sentences])
    for one, other in combinations(languages, 2):
        there, back = retrieval_ranks(embeds[one], embeds[other], np.arange(len(sentences)))
        outcomes.agreement |= {f"{one}>{other}": there, f"{other}>{one}": back}
    return outcomes


def shared_sentences(corpus: Dataset, languages: Sequence[str]) -> list[tuple[str, ...]]:
    """Return sentences as tuples of their translations; no text occurs twice in a language."""
    seen: list[set[str]] = [set() for _ in languages]
    sentences = []
    for captions in corpus["captions"]:
        for sentence in zip(*(captions.get(language) or [] for language in languages), strict=False):
            is_new = not any(text in known for text, known in zip(sentence, seen, strict=True))
            if all(sentence) and is_new and len(sentences) < MAX_SENTENCES:
                sentences.append(sentence)
                for text, known in zip(sentence, seen, strict=True):
                    known.add(text)
    return sentences


def measure_zero_shot(
    embedder: Embedder, image_embeds: torch.Tensor, labels: list[str | None], benchmark: Benchmark, language: str
) -> Classification:
    """Measure zero-shot classification in one language on the rows that have a label."""
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
    Train classifiers on frozen image embeddings, `(images, dim)`, and return the outcomes of the test images by probe.

    `test_rows` are the rows of the test images in their dataset. A few-shot probe has the share of hits over its
    draws, and is left out if a class has too few images.
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
            f"label {unknown[0]!r} is not a class of benchmark {benchmark.name!r}; choose another benchmark or none"
        )


def metrics_by_language(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """
    Return by language the metrics of [`~rsmclip.eval.outcomes.statistics`] in percent, `images` and `texts` (numbers
    compared), and the values of a random ranking: `chance_mean_recall`, `chance_zero_shot_accuracy`.
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
