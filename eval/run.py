"""The command `rsmclip eval MODEL`: evaluate a model on a corpus, on folders of images by class, or on both."""

import argparse
import sys

import numpy as np
from datasets import Dataset, DatasetDict, disable_progress_bars
from transformers.utils import logging as transformers_logging

from rsmclip.core.errors import UserError
from rsmclip.core.files import absolute_name
from rsmclip.data.schema import hub_revision
from rsmclip.eval import evaluate
from rsmclip.eval.build_index import write_corpus_index
from rsmclip.eval.cache import EmbeddingCache, corpus_fingerprint, fingerprint
from rsmclip.eval.embed import Embedder, processes
from rsmclip.eval.image_sources import CorpusSource
from rsmclip.eval.index_files import check_place
from rsmclip.eval.models import load_embedder
from rsmclip.eval.outcomes import Classification
from rsmclip.eval.probes import split_rows
from rsmclip.eval.results import DatasetFacts, Measured, make_results, write_results
from rsmclip.eval.sheet import Query, retrieved_examples
from rsmclip.eval.tasks import Task, measure_folder, named_folders, read_corpus, read_folder
from rsmclip.models.folder import is_model_folder

TRANSDUCTIVE = (
    "Transductive figures: all images with a label are classified together (TransCLIP), so the class of an image "
    "depends on the other images. The intervals draw images with their assignments fixed."
)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, print the tables and write all results."""
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    folders = check_arguments(arguments)

    # Read the datasets before the model, because that finds most errors and is fast.
    tasks = []
    if arguments.dataset:
        train_split = arguments.train_split if arguments.probes else None
        options = (arguments.languages, arguments.benchmark, arguments.prompts, train_split)
        tasks.append(read_corpus(arguments.dataset, arguments.split, *options))
    options = (arguments.languages, arguments.prompts, arguments.classes)
    tasks += [read_folder(name, folder, *options) for name, folder in folders.items()]
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
        measure = measure_images if task.split is None else measure_split
        measured.append(measure(embedder, task, arguments))
        if measured[-1].outcomes.transductive:
            measured[-1].facts.notes.append(TRANSDUCTIVE)
    if processes().is_main_process:
        results = make_results(arguments.model, embedder.hash, arguments.command, measured, arguments.samples)
        write_results(arguments.output, results, measured)
        print(f"\nfigures, tables and pictures: {arguments.output}")


def check_arguments(arguments: argparse.Namespace) -> dict[str, str]:
    # Returns the folders of `--zero_shot` by name.
    if not arguments.dataset and not arguments.zero_shot:
        raise UserError("nothing to evaluate on: give --dataset, --zero_shot or both")
    if arguments.classes and len(arguments.zero_shot) != 1:
        raise UserError("--classes has the class names of one folder: give exactly one --zero_shot NAME=FOLDER")
    if arguments.transductive and not arguments.zero_shot and not (arguments.dataset and arguments.benchmark):
        raise UserError("--transductive has no classes to assign: give --zero_shot, or --benchmark with --dataset")
    if arguments.index and not arguments.dataset:
        raise UserError("--index needs --dataset")
    if arguments.probes and arguments.dataset and arguments.split == arguments.train_split:
        raise UserError(f"--probes: --split and --train_split are both {arguments.split!r}; choose different splits")
    if arguments.index:
        check_place(arguments.index)
    if is_model_folder(arguments.output):
        raise UserError(f"{arguments.output} is a model folder with results of its own; choose another --output")
    if arguments.output.exists() and not arguments.output.is_dir():
        raise UserError(f"--output {arguments.output} is a file; choose a folder")

    return named_folders(arguments.zero_shot, "--zero_shot")


def measure_split(embedder: Embedder, task: Task, arguments: argparse.Namespace) -> Measured:
    # Retrieval, zero-shot classification and probes on a corpus. Also writes its search index.
    rows, capitalize = task.rows, arguments.caption_style == "capitalize"
    embedded = evaluate.embed_corpus(embedder, rows, task.languages, capitalize=capitalize)
    outcomes = evaluate.measure_corpus(embedder, rows, embedded, task.benchmark, thorough=True)
    if arguments.transductive and task.benchmark is not None:
        classified = embedder, embedded.image_embeds, list(rows["label"]), task.benchmark
        outcomes.transductive = evaluate.measure_transductive(*classified, outcomes.zero_shot)
    if task.train is not None:
        outcomes.probes = probe_split(embedder, task.train, rows, embedded)
    if arguments.index and processes().is_main_process:
        corpus = DatasetDict({task.split: rows})
        source = CorpusSource(absolute_name(task.dataset), corpus, task.split, hub_revision(rows))
        embeds = embedded.image_embeds
        write_corpus_index(arguments.index, source, embedder, embeds, arguments.model, arguments.revision)
    texts = [text for captions in embedded.captions.values() for text in captions.texts]
    facts = describe(task, corpus_fingerprint(rows, texts), capitalize=capitalize)
    sentences = evaluate.measure_agreement(embedder, rows, task.languages)
    return Measured("corpus", facts, outcomes, task.benchmark, sentences, examples_of(rows, embedded))


def measure_images(embedder: Embedder, task: Task, arguments: argparse.Namespace) -> Measured:
    # Zero-shot classification and probes on a folder of images.
    rows, labels = task.rows, list(task.rows["label"])
    image_embeds, outcomes = measure_folder(embedder, task)
    if arguments.transductive:
        classified = embedder, image_embeds, labels, task.benchmark
        outcomes.transductive = evaluate.measure_transductive(*classified, outcomes.zero_shot)
    facts = describe(task, fingerprint(rows), capitalize=False)
    if arguments.classes:
        facts.class_names = task.benchmark.class_names  # others can be found in the benchmark file
    if arguments.probes:
        train, test = split_rows(labels)
        classes = np.array(labels)
        outcomes.probes = evaluate.measure_probes(
            image_embeds[train], classes[train], image_embeds[test], classes[test], test
        )
        facts.notes.append("Probes learn from one half of each class and are tested on the other (seed 0).")
    return Measured(task.name, facts, outcomes, task.benchmark)


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
