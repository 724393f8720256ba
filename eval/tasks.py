"""The datasets that a model is evaluated on: a split of a corpus, and folders of images by class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.schema import captions_of, check_schema, count_captions, load_corpus
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.eval.class_file import read_class_file
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import check_labels, embed_corpus, measure_corpus, measure_zero_shot, metrics_by_language
from rsmclip.eval.image_folder import benchmark_for, read_image_folder
from rsmclip.eval.outcomes import Outcomes
from rsmclip.eval.protocol import DEFAULT_PROMPTS, Benchmark, benchmark_texts, load_benchmark

CORPUS = "corpus"  # name of the corpus beside the names of folders


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


def read_corpus(
    dataset: str,
    split: str,
    languages: Sequence[str] | None,
    benchmark_name: str | None,
    prompts: str = DEFAULT_PROMPTS,
    train_split: str | None = None,
) -> Task:
    """
    Read a corpus to evaluate on.

    Args:
        dataset (`str`): Folder or Hub id.
        split (`str`): Split of the corpus.
        languages (`Sequence[str]`, *optional*): By default every language with captions in the split.
        benchmark_name (`str`, *optional*): Benchmark with the classes of the zero-shot figures.
        prompts (`str`, *optional*, defaults to `"small"`): Set of `eval/prompts.yaml`.
        train_split (`str`, *optional*): Split that probes learn from.

    Raises:
        [`UserError`]: A split, a language or the benchmark does not exist, or the labels are not its classes.
    """
    corpus = load_corpus(dataset)
    place = f"split {split!r} of {dataset}"

    # Every requested language must have captions.
    rows = check_schema(corpus, split, languages or [], "--languages")
    counts = count_captions(rows)
    if not (languages := list(languages or [code for code in LANGUAGES if counts.get(code)])):
        raise UserError(f"{place} has no captions in any language")
    if missing := [code for code in languages if not counts.get(code)]:
        raise UserError(f"{place} has no captions in {', '.join(missing)}")

    # A benchmark needs labels, and class names in at least one of the languages.
    benchmark, notes = None, []
    if benchmark_name:
        benchmark = load_benchmark(benchmark_name, prompts)
        check_labels(rows["label"], benchmark)
        if not any(rows["label"]):
            raise UserError(f"benchmark {benchmark_name!r} needs labels, and {place} has none")
        notes = missing_prompts(benchmark, languages)
    train = check_schema(corpus, train_split, []) if train_split else None
    return Task(CORPUS, dataset, split, rows, languages, benchmark, train, notes)


@dataclass
class RunTasks:
    """The datasets that a training run is evaluated on."""

    splits: dict[str, Dataset]  # of the corpus
    languages: list[str]
    benchmark: Benchmark | None  # class names of the corpus's own labels
    folders: list[Task]  # out of domain

    def measure(
        self, model: PreTrainedModel, processor: ProcessorMixin, batch_size: int, split: str, thorough: bool = False
    ) -> dict[str, Outcomes]:
        """Measure a model on a split of the corpus and on every folder. Returns outcomes by dataset."""
        embedder, rows = Embedder(model, processor, batch_size), self.splits[split]
        embedded = embed_corpus(embedder, rows, self.languages)
        outcomes = {CORPUS: measure_corpus(embedder, rows, embedded, self.benchmark, thorough)}
        return outcomes | {task.name: measure_folder(embedder, task)[1] for task in self.folders}

    def expected(self, split: str) -> dict[str, dict[str, dict[str, float]]]:
        """Return the figures of the validation in the form of [`metrics_by_dataset`], before they are known: NaN."""
        labeled = self.benchmark is not None and any(self.splits[split]["label"])
        named = set(self.benchmark.templates) if labeled else set()
        corpus = {
            language: {"mean_recall": nan} | ({"zero_shot_accuracy": nan} if language in named else {})
            for language in self.languages
        }
        folders = {task.name: {code: {"zero_shot_accuracy": nan} for code in task.languages} for task in self.folders}
        return {CORPUS: corpus} | folders


def load_run_tasks(benchmarks: Sequence[str], languages: Sequence[str], splits: dict[str, Dataset]) -> RunTasks:
    """
    Read the benchmarks of a training run.

    Args:
        benchmarks (`Sequence[str]`):
            `NAME` names the classes of the corpus's own labels, at most once. `NAME=FOLDER` is a folder of images by
            class.
        languages (`Sequence[str]`): Language codes to evaluate in.
        splits (`dict[str, Dataset]`): Splits of the corpus that are evaluated.

    Raises:
        [`UserError`]: A benchmark or a class is unknown, a folder cannot be read, or a name is not possible.
    """
    own = [entry for entry in benchmarks if "=" not in entry]
    if len(own) > 1:
        raise UserError(f"benchmarks: {own[1]!r} needs a folder, {own[1]}=FOLDER: {own[0]!r} already names the corpus")
    benchmark = load_benchmark(own[0]) if own else None
    for rows in splits.values() if benchmark else ():
        check_labels(rows["label"], benchmark)
    folders = named_folders([entry for entry in benchmarks if "=" in entry], "benchmarks")
    if mistaken := sorted(set(folders) & set(languages)):
        raise UserError(f"benchmarks: the name {mistaken[0]!r} is a language code; choose another")
    tasks = [read_folder(name, folder, languages) for name, folder in folders.items()]
    return RunTasks(splits, list(languages), benchmark, tasks)


def metrics_by_dataset(outcomes: dict[str, Outcomes]) -> dict[str, dict[str, dict[str, float]]]:
    """Return [`~rsmclip.eval.evaluate.metrics_by_language`] of each dataset."""
    return {name: metrics_by_language(found) for name, found in outcomes.items()}


def cached_embedder(model: PreTrainedModel, processor: ProcessorMixin, batch_size: int) -> Embedder:
    """Return an embedder whose batches all processes share, with the default cache of `rsmclip eval`."""
    return Embedder(model, processor, batch_size, cache=EmbeddingCache(), shared=True)


def all_texts(splits: Iterable[Dataset]) -> Iterator[str]:
    """Yield all captions of some splits, and the class names and prompts of all benchmarks, in every language."""
    for rows in splits:
        yield from captions_of(rows)
    yield from benchmark_texts()


def named_folders(entries: Sequence[str], option: str) -> dict[str, str]:
    """Return folders by name, from `NAME=FOLDER` entries of an option. Raises [`UserError`] for an unusable name."""
    folders = {}
    for entry in entries:
        name, _, folder = entry.partition("=")
        if not name or not folder:
            raise UserError(f"{option} takes NAME=DIR, not {entry!r}")
        if name in folders:
            raise UserError(f"{option}: the name {name!r} is already used; choose another")
        folders[name] = folder
    check_dataset_names(folders, option)
    return folders


def check_dataset_names(names: Iterable[str], option: str) -> None:
    """Raise [`UserError`] if a name of a folder of images is unusable."""
    for name in names:
        if name == CORPUS:
            raise UserError(f"{option}: the name {name!r} is already used; choose another")
        if Path(name).name != name:  # names of datasets become names of files
            raise UserError(f"{option}: the name {name!r} cannot be part of a file name; choose another")


def read_folder(
    name: str,
    folder: str,
    languages: Sequence[str] | None,
    prompts: str = DEFAULT_PROMPTS,
    class_file: str | Path | None = None,
) -> Task:
    """
    List the images of a folder, and load the names of their classes.

    Args:
        name (`str`): Name of a benchmark file, or another name for English class names made from folder names.
        folder (`str`): Folder with one folder per class.
        languages (`Sequence[str]`, *optional*): Language codes; by default all that have class names.
        prompts (`str`, *optional*, defaults to `"small"`): A set of `eval/prompts.yaml`.
        class_file (`str` or `Path`, *optional*): File with the class names, see [`~rsmclip.eval.class_file`]. No
            benchmark file is read.

    Raises:
        [`UserError`]: The folder or the class file cannot be read, a class is unknown, there is only one class, or no
            language has prompts.
    """
    rows = read_image_folder(Path(folder))
    if class_file is not None:
        benchmark, notes = read_class_file(Path(class_file), rows["label"], languages, prompts)
    else:
        benchmark = benchmark_for(name, rows["label"], prompts)
        notes = missing_prompts(benchmark, languages or [])
    if len(benchmark.labels) == 1:
        raise UserError(f"{folder} has the class {benchmark.labels[0]!r} only; zero-shot figures need two or more")
    present = set(rows["label"])
    if absent := [label for label in benchmark.labels if label not in present]:
        candidates = f"all {len(benchmark.labels)} classes remain candidates"
        notes.append(f"Benchmark {benchmark.name!r}: no images of {', '.join(absent)}; {candidates}.")
    known = [code for code in benchmark.templates if code in (languages or benchmark.templates)]
    return Task(name, folder, None, rows, known, benchmark, notes=notes)


def missing_prompts(benchmark: Benchmark, languages: Sequence[str]) -> list[str]:
    """Return a note that names the languages without prompts, if any. Raises [`UserError`] if no language has some."""
    unknown = [code for code in languages if code not in benchmark.templates]
    if not unknown:
        return []
    codes, known = ", ".join(unknown), ", ".join(benchmark.templates)
    lack = f"{benchmark.name!r} has no {codes} class names with prompts of the set {benchmark.prompts!r}, only {known}"
    if len(unknown) == len(languages):
        raise UserError(f"{lack}; name the classes of your own folder with rsmclip eval --classes")
    return [f"No zero-shot figures in {codes}: {lack}."]


def measure_folder(embedder: Embedder, task: Task) -> tuple[torch.Tensor, Outcomes]:
    """Measure zero-shot classification of a folder in each language. Returns the image embeddings too."""
    image_embeds, labels = embedder.images(task.rows), list(task.rows["label"])
    outcomes = Outcomes(list(task.rows["image_id"]))
    for language in task.languages:
        outcomes.zero_shot[language] = measure_zero_shot(embedder, image_embeds, labels, task.benchmark, language)
    return image_embeds, outcomes
