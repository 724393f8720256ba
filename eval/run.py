"""Evaluate a model on a corpus, on folders of images by class, or on both: `rsmclip eval MODEL`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, disable_progress_bars
from transformers.utils import logging as transformers_logging

from rsmclip.core.arguments import check_count, check_type
from rsmclip.core.errors import UserError
from rsmclip.core.files import absolute_name
from rsmclip.data.schema import hub_revision
from rsmclip.eval import evaluate as measuring
from rsmclip.eval.build_index import check_older, write_corpus_index
from rsmclip.eval.build_index import describe as describe_index
from rsmclip.eval.cache import EmbeddingCache, corpus_fingerprint, fingerprint, text_fingerprint
from rsmclip.eval.embed import Embedder, processes
from rsmclip.eval.image_sources import CorpusSource
from rsmclip.eval.index_files import check_place
from rsmclip.eval.models import as_embedder
from rsmclip.eval.outcomes import Classification
from rsmclip.eval.probes import split_rows
from rsmclip.eval.protocol import CAPTION_STYLES, DEFAULT_PROMPTS
from rsmclip.eval.results import DatasetFacts, EvalResults, Measured, make_results, write_results
from rsmclip.eval.sheet import Query, retrieved_examples
from rsmclip.eval.tasks import Task, check_dataset_names, measure_folder, named_folders, read_corpus, read_folder
from rsmclip.models.folder import is_model_folder

TRANSDUCTIVE = (
    "Transductive figures: all images with a label are classified together (TransCLIP), so the class of an image "
    "depends on the other images. The intervals draw images with their assignments fixed."
)


def evaluate(
    model: str | Path | Embedder,
    dataset: str | Path | None = None,
    split: str = "test",
    languages: str | Sequence[str] | None = None,
    benchmark: str | None = None,
    zero_shot: Mapping[str, str | Path] | None = None,
    classes: str | Path | None = None,
    transductive: bool = False,
    prompts: str = DEFAULT_PROMPTS,
    caption_style: str = "raw",
    probes: bool = False,
    train_split: str = "train",
    batch_size: int = 128,
    dtype: str = "float32",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    no_cache: bool = False,
    samples: int = 1000,
    index: str | Path | None = None,
    output: str | Path | None = None,
    command: str = "rsmclip.evaluate",
) -> EvalResults | None:
    """
    Evaluate a model on a split of a corpus, on folders of images by class, or on both.

    Every process of `accelerate launch` must call it; the processes share the work.

    Args:
        model (`str`, `Path` or [`~rsmclip.eval.embed.Embedder`]): Folder or Hub id of a model; or a loaded model, the
            result of [`~rsmclip.eval.models.load_embedder`].
        dataset (`str` or `Path`, *optional*): Folder or Hub id of a corpus that `rsmclip data` built.
        split (`str`, *optional*, defaults to `"test"`): Split of the corpus.
        languages (`str` or `Sequence[str]`, *optional*): Language codes; by default every language with captions in
            the split, and for a folder every language with class names.
        benchmark (`str`, *optional*): Benchmark with class names, for zero-shot figures of the corpus.
        zero_shot (`Mapping[str, str | Path]`, *optional*): Folders of images by class, by name. A name of
            `eval/benchmarks/` gives the classes of this benchmark.
        classes (`str` or `Path`, *optional*): YAML or CSV file with the class names of the one `zero_shot` folder.
        transductive (`bool`, *optional*, defaults to `False`): Whether to also classify all images of a dataset
            together, with [`~rsmclip.eval.zero_shot.transductive_assignments`].
        prompts (`str`, *optional*, defaults to `"small"`): Set of `eval/prompts.yaml`.
        caption_style (`str`, *optional*, defaults to `"raw"`): `"capitalize"` begins each caption with a capital
            letter, as RemoteCLIP does.
        probes (`bool`, *optional*, defaults to `False`): Whether to train linear, k-NN and few-shot probes.
        train_split (`str`, *optional*, defaults to `"train"`): Split of the corpus that probes learn from.
        batch_size, dtype, revision: Options of [`~rsmclip.eval.models.load_embedder`], if `model` is a name.
        cache_dir (`str` or `Path`, *optional*): Folder of cached embeddings; by default `HF_HOME/rsmclip/embeddings`.
            A loaded model has its own cache, if any.
        no_cache (`bool`, *optional*, defaults to `False`): Whether to neither read nor write cached embeddings.
        samples (`int`, *optional*, defaults to 1000): Draws of the bootstrap.
        index (`str` or `Path`, *optional*): Folder in which to also write a search index of the corpus: new,
            empty, or an index of this split by this model.
        output (`str` or `Path`, *optional*): Folder for figures, tables and pictures; by default no file is written.
        command (`str`, *optional*): Recorded in the results.

    Returns:
        [`~rsmclip.eval.results.EvalResults`]: All figures in percent, on the main process; `None` on other processes.
        `print` shows the tables.

    Raises:
        [`UserError`]: There is nothing to evaluate on, an argument needs another one, a dataset, a split, a language,
            a benchmark or the model does not exist, `index` is of other images or another model, or `output` cannot be
            written.
    """
    # Check the arguments, because reading the datasets may take minutes.
    zero_shot, index, output = zero_shot or {}, index and Path(index), output and Path(output)
    check_type("dataset", dataset, str | Path | None, "a folder or Hub id of a corpus")
    check_type("zero_shot", zero_shot, Mapping, "a dict: name to folder")
    languages = [languages] if isinstance(languages, str) else languages
    check_dataset_names(zero_shot, "zero_shot")
    if not dataset and not zero_shot:
        raise UserError("nothing to evaluate on: give dataset, zero_shot or both")
    if classes and len(zero_shot) != 1:
        raise UserError("classes has the class names of one folder: give exactly one zero_shot folder")
    if transductive and not zero_shot and not (dataset and benchmark):
        raise UserError("transductive has no classes to assign: give zero_shot, or benchmark with dataset")
    if index and not dataset:
        raise UserError("index needs dataset")
    if caption_style not in CAPTION_STYLES:
        raise UserError(f"caption_style {caption_style!r} is none of {', '.join(CAPTION_STYLES)}")
    check_count("samples", samples)
    if probes and dataset and split == train_split:
        raise UserError(f"probes: split and train_split are both {split!r}; choose different splits")
    check_places(index, output)

    # Read the datasets before the model, because that finds most errors and is fast.
    tasks = []
    if dataset:
        trained_on = train_split if probes else None
        tasks.append(read_corpus(str(dataset), split, languages, benchmark, prompts, trained_on))
    tasks += [read_folder(name, str(folder), languages, prompts, classes) for name, folder in zero_shot.items()]
    for note in [note for task in tasks for note in task.notes] if processes().is_main_process else []:
        print(f"note: {note}", file=sys.stderr)
    cache = EmbeddingCache(Path(cache_dir)) if cache_dir else EmbeddingCache()
    options = {"batch_size": batch_size, "dtype": dtype, "revision": revision, "shared": True}
    embedder = as_embedder(model, cache=None if no_cache else cache, **options)
    if index:  # before the evaluation, which may take hours
        check_older(index, describe_index(source_of(tasks[0]), embedder))

    # All processes embed and measure. The main process writes.
    measured = []
    for task in tasks:
        if task.split is None:
            measured.append(measure_images(embedder, task, transductive, probes, with_names=classes is not None))
        else:
            measured.append(measure_split(embedder, task, transductive, caption_style == "capitalize", index))
        if measured[-1].outcomes.transductive:
            measured[-1].facts.notes.append(TRANSDUCTIVE)
    if not processes().is_main_process:
        return None
    results = make_results(embedder.name, embedder.hash, command, measured, samples)
    if output:
        write_results(output, results, measured)
    return results


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, write all results and print the tables."""
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    folders = named_folders(arguments.zero_shot, "--zero_shot")
    results = evaluate(**vars(arguments) | {"zero_shot": folders})
    if results is not None:
        print(f"\n{results}\n\nfigures, tables and pictures: {arguments.output}")


def check_places(index: Path | None, output: Path | None) -> None:
    if index:
        check_place(index)
    if output and is_model_folder(output):
        raise UserError(f"{output} is a model folder with results of its own; choose another output")
    if output and output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file; choose a folder")


def measure_split(
    embedder: Embedder, task: Task, transductive: bool, capitalize: bool, index: Path | None
) -> Measured:
    # Retrieval, zero-shot classification and probes on a corpus. Also writes its search index.
    rows = task.rows
    embedded = measuring.embed_corpus(embedder, rows, task.languages, capitalize=capitalize)
    outcomes = measuring.measure_corpus(embedder, rows, embedded, task.benchmark, thorough=True)
    if transductive and task.benchmark is not None:
        classified = embedder, embedded.image_embeds, list(rows["label"]), task.benchmark
        outcomes.transductive = measuring.measure_transductive(*classified, outcomes.zero_shot)
    if task.train is not None:
        outcomes.probes = probe_split(embedder, task.train, rows, embedded)
    if index and processes().is_main_process:
        write_corpus_index(index, source_of(task), embedder, embedded.image_embeds)
    texts = [text for captions in embedded.captions.values() for text in captions.texts]
    facts = describe(task, corpus_fingerprint(rows, texts), capitalize=capitalize)
    sentences = measuring.measure_agreement(embedder, rows, task.languages)
    return Measured("corpus", facts, outcomes, task.benchmark, sentences, examples_of(rows, embedded))


def source_of(task: Task) -> CorpusSource:
    # The evaluated split, for its index.
    corpus = DatasetDict({task.split: task.rows})
    return CorpusSource(absolute_name(task.dataset), corpus, task.split, hub_revision(task.rows))


def measure_images(embedder: Embedder, task: Task, transductive: bool, probes: bool, with_names: bool) -> Measured:
    # Zero-shot classification and probes on a folder of images. `with_names` records the class names.
    rows, labels = task.rows, list(task.rows["label"])
    image_embeds, outcomes = measure_folder(embedder, task)
    if transductive:
        classified = embedder, image_embeds, labels, task.benchmark
        outcomes.transductive = measuring.measure_transductive(*classified, outcomes.zero_shot)
    facts = describe(task, fingerprint(rows), capitalize=False)
    if with_names:
        facts.class_names = task.benchmark.class_names  # others can be found in the benchmark file
    if probes:
        train, test = split_rows(labels)
        classes = np.array(labels)
        outcomes.probes = measuring.measure_probes(
            image_embeds[train], classes[train], image_embeds[test], classes[test], test
        )
        facts.notes.append("Probes learn from one half of each class and are tested on the other (seed 0).")
    return Measured(task.name, facts, outcomes, task.benchmark)


def examples_of(rows: Dataset, embedded: measuring.Embedded) -> dict[str, list[Query]]:
    # Random queries in each language, among the images that have captions in this language.
    examples = {}
    for language, captions in embedded.captions.items():
        own, owner = np.unique(captions.rows, return_inverse=True)
        gallery = (rows.select(own), embedded.image_embeds[own])
        examples[language] = retrieved_examples(*gallery, captions.texts, captions.embeds, owner)
    return examples


def probe_split(
    embedder: Embedder, train: Dataset, rows: Dataset, embedded: measuring.Embedded
) -> dict[str, Classification]:
    (train, kept), (_, tested) = labeled(train), labeled(rows)
    if not len(kept) or not len(tested):
        raise UserError("--probes needs rows with labels in --split and in --train_split")
    labels = [rows["label"][row] for row in tested]
    return measuring.measure_probes(
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
    if task.train is not None:
        facts.probed_on = text_fingerprint([fingerprint(task.train), *(label or "" for label in task.train["label"])])
    if (benchmark := task.benchmark) is not None:
        if benchmark.images not in (None, len(task.rows)):
            facts.notes.append(f"{benchmark.title} has {benchmark.images} images ({benchmark.split}).")
        facts.benchmark, facts.prompts, facts.templates = benchmark.name, benchmark.prompts, benchmark.templates
        facts.citation, facts.license = benchmark.citation, benchmark.license
    facts.notes += task.notes
    return facts
