"""The command `rsmclip eval MODEL`: evaluate a model on a corpus, on folders of images by class, or on both."""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset, disable_progress_bars
from transformers.utils import logging as transformers_logging

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.schema import check_schema, count_captions, hub_revision, load_corpus
from rsmclip.eval import evaluate, search
from rsmclip.eval.cache import EmbeddingCache, corpus_fingerprint, fingerprint
from rsmclip.eval.embed import Embedder, processes
from rsmclip.eval.image_folder import benchmark_for, read_image_folder
from rsmclip.eval.models import load_embedder
from rsmclip.eval.outcomes import Classification, Outcomes
from rsmclip.eval.probes import split_rows
from rsmclip.eval.protocol import Benchmark, load_benchmark
from rsmclip.eval.results import DatasetFacts, Measured, make_results, write_results
from rsmclip.eval.sheet import Query, retrieved_examples
from rsmclip.models.folder import is_model_folder


@dataclass
class Task:
    """A dataset to evaluate on."""

    name: str  # "corpus", or the name of a folder of images
    dataset: str  # folder or Hub id
    split: str | None  # None for a folder of images
    rows: Dataset
    languages: list[str]
    benchmark: Benchmark | None  # classes of the zero-shot figures
    train: Dataset | None = None  # rows of a corpus that probes learn from
    notes: list[str] = field(default_factory=list)  # remarks for readers of the figures


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, print the tables and write all results."""
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    folders = check_arguments(arguments)

    # Read the datasets before the model, because that finds most errors and is fast.
    tasks = [read_corpus(arguments)] if arguments.dataset else []
    tasks += [read_folder(name, folder, arguments) for name, folder in folders.items()]
    for note in [note for task in tasks for note in task.notes] if processes().is_main_process else []:
        print(f"note: {note}", file=sys.stderr)
    cache = EmbeddingCache(arguments.cache_dir) if arguments.cache_dir else EmbeddingCache()
    embedder = load_embedder(
        arguments.model,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        revision=arguments.revision,
        cache=None if arguments.no_cache else cache,
        shared=True,
    )

    # All processes embed and measure. The main process writes.
    measured = []
    for task in tasks:
        measure = measure_folder if task.split is None else measure_split
        measured.append(measure(embedder, task, arguments))
    if processes().is_main_process:
        results = make_results(arguments.model, embedder.hash, arguments.command, measured, arguments.samples)
        write_results(arguments.output, results, measured)
        print(f"\nfigures, tables and pictures: {arguments.output}")


def check_arguments(arguments: argparse.Namespace) -> dict[str, str]:
    # Returns the folders of `--zero_shot` by name.
    if not arguments.dataset and not arguments.zero_shot:
        raise UserError("nothing to evaluate on: give --dataset, --zero_shot or both")
    if arguments.index and not arguments.dataset:
        raise UserError("--index needs --dataset")
    if arguments.probes and arguments.dataset and arguments.split == arguments.train_split:
        raise UserError(f"--probes: --split and --train_split are both {arguments.split!r}; choose different splits")
    if arguments.index:
        search.import_faiss()
        search.check_place(arguments.index)
    if is_model_folder(arguments.output):
        raise UserError(f"{arguments.output} is a model folder with results of its own; choose another --output")
    if arguments.output.exists() and not arguments.output.is_dir():
        raise UserError(f"--output {arguments.output} is a file; choose a folder")

    # The names of datasets become names of files.
    folders = {}
    for entry in arguments.zero_shot:
        name, _, folder = entry.partition("=")
        if not name or not folder:
            raise UserError(f"--zero_shot takes NAME=DIR, not {entry!r}")
        if name == "corpus" or name in folders:
            raise UserError(f"--zero_shot: the name {name!r} is already used; choose another")
        if Path(name).name != name:
            raise UserError(f"--zero_shot: the name {name!r} cannot be part of a file name; choose another")
        folders[name] = folder
    return folders


def read_corpus(arguments: argparse.Namespace) -> Task:
    corpus = load_corpus(arguments.dataset)
    place = f"split {arguments.split!r} of {arguments.dataset}"

    # Every requested language must have captions.
    rows = check_schema(corpus, arguments.split, arguments.languages or [])
    counts = count_captions(rows)
    if not (languages := arguments.languages or [code for code in LANGUAGES if counts.get(code)]):
        raise UserError(f"{place} has no captions in any language")
    if missing := [code for code in languages if not counts.get(code)]:
        raise UserError(f"{place} has no captions in {', '.join(missing)}")

    # A benchmark needs labels, and class names in at least one of the languages.
    benchmark, notes = None, []
    if arguments.benchmark:
        benchmark = load_benchmark(arguments.benchmark, arguments.prompts)
        evaluate.check_labels(rows["label"], benchmark)
        if not any(rows["label"]):
            raise UserError(f"--benchmark needs labels, and {place} has none")
        notes = missing_prompts(benchmark, languages)
    train = check_schema(corpus, arguments.train_split, []) if arguments.probes else None
    return Task("corpus", arguments.dataset, arguments.split, rows, languages, benchmark, train, notes)


def read_folder(name: str, folder: str, arguments: argparse.Namespace) -> Task:
    rows = read_image_folder(Path(folder))
    benchmark = benchmark_for(name, rows["label"], arguments.prompts)
    notes, present = missing_prompts(benchmark, arguments.languages or []), set(rows["label"])
    if absent := [label for label in benchmark.labels if label not in present]:
        candidates = f"all {len(benchmark.labels)} classes remain candidates"
        notes.append(f"Benchmark {name!r}: no images of {', '.join(absent)}; {candidates}.")
    languages = [code for code in benchmark.templates if code in (arguments.languages or benchmark.templates)]
    return Task(name, folder, None, rows, languages, benchmark, notes=notes)


def missing_prompts(benchmark: Benchmark, languages: list[str]) -> list[str]:
    # Returns a note that names the languages without prompts, if there are any.
    unknown = [code for code in languages if code not in benchmark.templates]
    if not unknown:
        return []
    lack = f"prompt set {benchmark.prompts!r} of benchmark {benchmark.name!r} has no {', '.join(unknown)}"
    if len(unknown) == len(languages):
        raise UserError(f"{lack}; choose from its languages: {', '.join(benchmark.templates)}")
    return [f"No zero-shot figures in {', '.join(unknown)}: {lack}."]


def measure_split(embedder: Embedder, task: Task, arguments: argparse.Namespace) -> Measured:
    # Retrieval, zero-shot classification and probes on a corpus. Also writes its search index.
    rows, capitalize = task.rows, arguments.caption_style == "capitalize"
    embedded = evaluate.embed_corpus(embedder, rows, task.languages, capitalize=capitalize)
    outcomes = evaluate.measure_corpus(embedder, rows, embedded, task.benchmark, thorough=True)
    if task.train is not None:
        outcomes.probes = probe_split(embedder, task.train, rows, embedded)
    if arguments.index and processes().is_main_process:
        made_by = {"revision": arguments.revision, "dtype": arguments.dtype}
        search.write_index(arguments.index, rows, embedded.image_embeds, arguments.model, embedder.hash, **made_by)
    texts = [text for captions in embedded.captions.values() for text in captions.texts]
    facts = describe(task, corpus_fingerprint(rows, texts), capitalize=capitalize)
    sentences = evaluate.measure_agreement(embedder, rows, task.languages)
    return Measured("corpus", facts, outcomes, task.benchmark, sentences, examples_of(rows, embedded))


def measure_folder(embedder: Embedder, task: Task, arguments: argparse.Namespace) -> Measured:
    # Zero-shot classification and probes on a folder of images.
    rows, benchmark = task.rows, task.benchmark
    image_embeds, labels = embedder.images(rows), list(rows["label"])
    outcomes = Outcomes(list(rows["image_id"]))
    for language in task.languages:
        outcomes.zero_shot[language] = evaluate.measure_zero_shot(embedder, image_embeds, labels, benchmark, language)
    facts = describe(task, fingerprint(rows), capitalize=False)
    if arguments.probes:
        train, test = split_rows(labels)
        classes = np.array(labels)
        outcomes.probes = evaluate.measure_probes(
            image_embeds[train], classes[train], image_embeds[test], classes[test], test
        )
        facts.notes.append("Probes learn from one half of each class and are tested on the other (seed 0).")
    return Measured(task.name, facts, outcomes, benchmark)


def examples_of(rows: Dataset, embedded: evaluate.Embedded) -> dict[str, list[Query]]:
    # Random queries in each language, among the images that have captions in this language.
    examples = {}
    for language, captions in embedded.captions.items():
        own, owner = np.unique(captions.rows, return_inverse=True)
        gallery = (rows.select(own), embedded.image_embeds[own])
        examples[language] = retrieved_examples(*gallery, captions.texts, captions.embeds, owner)
    return examples


def probe_split(
    embedder: Embedder, train: Dataset, rows: Dataset, embedded: evaluate.Embedded
) -> dict[str, Classification]:
    (train, kept), (_, tested) = labeled(train), labeled(rows)
    if not len(kept) or not len(tested):
        raise UserError("--probes needs rows with labels in --split and in --train_split")
    labels = [rows["label"][row] for row in tested]
    return evaluate.measure_probes(
        embedder.images(train), train["label"], embedded.image_embeds[tested], labels, tested
    )


def labeled(rows: Dataset) -> tuple[Dataset, np.ndarray]:
    # The rows that have a label, and their indices.
    kept = np.array([row for row, label in enumerate(rows["label"]) if label is not None], dtype=int)
    return rows.select(kept), kept


def describe(task: Task, content_hash: str, capitalize: bool) -> DatasetFacts:
    facts = DatasetFacts(
        dataset=task.dataset,
        split=task.split,
        revision=hub_revision(task.rows),
        rows=len(task.rows),
        fingerprint=content_hash,
        languages=task.languages,
        capitalize=capitalize,
        notes=[],
    )
    if (benchmark := task.benchmark) is not None:
        if benchmark.images not in (None, len(task.rows)):
            facts.notes.append(f"{benchmark.title} has {benchmark.images} images ({benchmark.split}).")
        facts.benchmark, facts.prompts, facts.templates = benchmark.name, benchmark.prompts, benchmark.templates
        facts.citation, facts.license = benchmark.citation, benchmark.license
    facts.notes += task.notes
    return facts
