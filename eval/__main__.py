"""Command line of the evaluation.

python -m rsmclip.eval MODEL --dataset DIR --split test --output OUT       figures, tables and pictures of a model
accelerate launch -m rsmclip.eval MODEL …                                  the same on several processes
python -m rsmclip.eval compare A B                                         which differences of two models are real
python -m rsmclip.eval search INDEX QUERY                                  the images that a text fits best
"""

import argparse
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np
from datasets import Dataset, disable_progress_bars
from transformers.utils import logging as transformers_logging

from rsmclip.core.command_line import OneLineParser
from rsmclip.data.schema import LANGUAGES, check_schema, count_captions, hub_revision, load_corpus
from rsmclip.eval import compare, search
from rsmclip.eval.cache import EmbeddingCache, corpus_fingerprint, fingerprint
from rsmclip.eval.embed import Embedder, processes
from rsmclip.eval.evaluate import (
    Embedded,
    check_labels,
    embed_corpus,
    measure_agreement,
    measure_corpus,
    measure_probes,
    measure_zero_shot,
)
from rsmclip.eval.image_folder import benchmark_for, read_image_folder
from rsmclip.eval.models import DTYPES, load_embedder
from rsmclip.eval.outcomes import Outcomes
from rsmclip.eval.probes import split_rows
from rsmclip.eval.protocol import DEFAULT_PROMPTS, Benchmark, load_benchmark
from rsmclip.eval.results import Measured, make_results, write_results
from rsmclip.eval.sheet import Query, retrieved_examples
from rsmclip.models.folder import is_model_folder

EXAMPLES = 6  # queries of each language that are shown with what they retrieve


def positive(argument: str) -> int:
    """A whole number from 1 on."""
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {argument!r}")
    return int(argument)


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = OneLineParser(
        prog="python -m rsmclip.eval",
        description="Measures a model in every language.",
        epilog="`python -m rsmclip.eval compare A B` compares two models, `python -m rsmclip.eval search` searches.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or Hub id of a model of ours, of transformers or of OpenCLIP")
    add("--revision", help="branch, tag or commit of a Hub id")
    add("--dataset", metavar="DIR", help="corpus in the project's schema: a folder or a Hub id")
    add("--split", default="test", help="its split (default: %(default)s)")
    add("--languages", nargs="+", metavar="CODE", help="default: all in which the split has captions")
    add("--benchmark", metavar="NAME", help="class names for the zero-shot figures of the corpus")
    add("--zero_shot", nargs="+", default=[], metavar="NAME=DIR", help="folders of images by class")
    add("--prompts", default=DEFAULT_PROMPTS, metavar="SET", help="set of eval/prompts.yaml (default: %(default)s)")
    styles = {"choices": ("raw", "capitalize"), "default": "raw"}
    add("--caption_style", help="captions as they are, or with a capital letter as RemoteCLIP has them", **styles)
    add("--probes", action="store_true", help="linear, k-NN and few-shot probes of what has labels")
    add("--train_split", default="train", help="split of the corpus that probes learn from (default: %(default)s)")
    add("--batch_size", type=positive, default=128, help="of images or texts (default: %(default)s)")
    add("--dtype", choices=DTYPES, default="float32", help="what the model computes in (default: %(default)s)")
    add("--cache_dir", type=Path, help="of embeddings (default: HF_HOME/rsmclip/embeddings)")
    add("--no_cache", action="store_true", help="neither read nor keep embeddings")
    add("--samples", type=positive, default=1000, help="draws of the bootstrap (default: %(default)s)")
    add("--index", type=Path, metavar="INDEX", help="leave a search index of the corpus in this folder")
    add("--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    return parser


def main() -> None:
    """Runs the command; bad input is one clear line and exit status 2."""
    commands = {"compare": compare.main, "search": search.main}
    if sys.argv[1:2] and (command := commands.get(sys.argv[1])):
        return command(sys.argv[2:])
    transformers_logging.disable_progress_bar()
    disable_progress_bars()  # of datasets
    arguments = make_parser().parse_args()
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def run(arguments: argparse.Namespace) -> None:
    """Evaluates, prints the tables and writes them."""
    folders = check_arguments(arguments)
    corpus = read_corpus(arguments) if arguments.dataset else None
    read = {name: read_folder(name, Path(folder), arguments) for name, folder in folders.items()}
    cache = None
    if not arguments.no_cache:
        cache = EmbeddingCache(arguments.cache_dir) if arguments.cache_dir else EmbeddingCache()
    settings = (arguments.batch_size, arguments.dtype, None, arguments.revision)
    embedder = load_embedder(arguments.model, *settings, cache=cache, shared=True)

    measured = [on_corpus(embedder, *corpus, arguments)] if corpus else []
    measured += [on_folder(embedder, name, *found, arguments) for name, found in read.items()]
    if processes().is_main_process:
        command = shlex.join(["python", "-m", "rsmclip.eval", *sys.argv[1:]])
        results = make_results(arguments.model, embedder.hash, command, measured, arguments.samples)
        write_results(arguments.output, results, measured)
        print(f"\nfigures, tables and pictures: {arguments.output}")


def check_arguments(arguments: argparse.Namespace) -> dict[str, str]:
    """The folders of `--zero_shot` by name; what can be told before anything is loaded is told here."""
    if not arguments.dataset and not arguments.zero_shot:
        raise ValueError("nothing to evaluate on: give --dataset, --zero_shot or both")
    if arguments.index and not arguments.dataset:
        raise ValueError("--index makes an index of --dataset, which is missing")
    if arguments.probes and arguments.dataset and arguments.split == arguments.train_split:
        raise ValueError(f"--probes would be tested on what they learn from: --train_split is {arguments.split!r} too")
    if arguments.index:
        search.import_faiss()
        search.check_place(arguments.index)
    folders = [entry.partition("=") for entry in arguments.zero_shot]
    if bad := [name + separator for name, separator, folder in folders if not (name and folder)]:
        raise ValueError(f"--zero_shot takes NAME=DIR, not {bad[0]!r}")
    names = ["corpus", *(name for name, _, _ in folders)]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--zero_shot needs names of their own: {repeated[0]!r} is taken")
    if unusable := [name for name in names if Path(name).name != name]:
        raise ValueError(f"--zero_shot names a dataset {unusable[0]!r}, which cannot be part of a file's name")
    if is_model_folder(arguments.output):
        raise ValueError(f"{arguments.output} is a model folder with results of its own; choose another --output")
    if arguments.output.exists() and not arguments.output.is_dir():
        raise ValueError(f"--output {arguments.output} is a file; choose a folder")
    return {name: folder for name, _, folder in folders}


def read_corpus(arguments: argparse.Namespace) -> tuple[Dataset, Dataset | None, list[str], Benchmark | None]:
    """Rows of the corpus, those that probes learn from, languages and class names."""
    corpus = load_corpus(arguments.dataset)
    rows = check_schema(corpus, arguments.split, arguments.languages or [])
    counts = count_captions(rows)
    if not (languages := arguments.languages or [code for code in LANGUAGES if counts.get(code)]):
        raise ValueError(f"split {arguments.split!r} of {arguments.dataset} has no captions in any language")
    if missing := [code for code in languages if not counts.get(code)]:
        raise ValueError(f"split {arguments.split!r} of {arguments.dataset} has no captions in {', '.join(missing)}")
    benchmark = load_benchmark(arguments.benchmark, arguments.prompts) if arguments.benchmark else None
    if benchmark is not None:
        check_labels(rows["label"], benchmark)
        if not any(rows["label"]):
            raise ValueError(
                f"--benchmark needs labels, and split {arguments.split!r} of {arguments.dataset} has none"
            )
        if not set(languages) & benchmark.templates.keys():
            benchmark.check_languages(languages)
    train = check_schema(corpus, arguments.train_split, []) if arguments.probes else None
    return rows, train, languages, benchmark


def on_corpus(
    embedder: Embedder,
    rows: Dataset,
    train: Dataset | None,
    languages: list[str],
    benchmark: Benchmark | None,
    arguments: argparse.Namespace,
) -> Measured:
    """Retrieval, zero-shot classification and probes on `--dataset`."""
    embedded = embed_corpus(embedder, rows, languages, arguments.caption_style == "capitalize")
    outcomes = measure_corpus(embedder, rows, embedded, benchmark, thorough=True)
    if train is not None:
        outcomes.probes = probe_corpus(embedder, train, rows, embedded)
    if arguments.index and processes().is_main_process:
        made_by = (arguments.model, embedder.hash, fingerprint(rows), arguments.revision, arguments.dtype)
        search.write_index(arguments.index, rows, embedded.image_embeds, *made_by)
    facts = describe(rows, arguments.dataset, arguments.split, benchmark, arguments) | {"languages": languages}
    texts = [text for captions in embedded.captions.values() for text in captions.texts]
    if benchmark and (unknown := [code for code in languages if code not in benchmark.templates]):
        facts["notes"].append(
            f"Prompt set {benchmark.prompts!r} has no {', '.join(unknown)}: no zero-shot figures there."
        )
    facts["fingerprint"] = corpus_fingerprint(rows, texts)
    sentences = measure_agreement(embedder, rows, languages)
    return Measured("corpus", facts, outcomes, benchmark, sentences, examples_of(rows, embedded))


def examples_of(rows: Dataset, embedded: Embedded) -> dict[str, list[Query]]:
    """Queries of each language and what they retrieve among the images that have captions in it."""
    examples = {}
    for language, captions in embedded.captions.items():
        own, owner = np.unique(captions.rows, return_inverse=True)
        gallery = (rows.select(own), embedded.image_embeds[own])
        examples[language] = retrieved_examples(*gallery, captions.texts, captions.embeds, owner, EXAMPLES)
    return examples


def probe_corpus(embedder: Embedder, train: Dataset, rows: Dataset, embedded: Embedded) -> dict:
    """Probes that learn from the training split and are tested on the rows."""
    (train, kept), (_, tested) = labelled(train), labelled(rows)
    if not len(kept) or not len(tested):
        raise ValueError("--probes needs rows with labels in both splits")
    labels = [rows["label"][row] for row in tested]
    return measure_probes(embedder.images(train), train["label"], embedded.image_embeds[tested], labels, tested)


def labelled(rows: Dataset) -> tuple[Dataset, np.ndarray]:
    """The rows that have a label, and which they are."""
    kept = np.array([row for row, label in enumerate(rows["label"]) if label is not None], dtype=int)
    return rows.select(kept), kept


def read_folder(name: str, folder: Path, arguments: argparse.Namespace) -> tuple[Dataset, Benchmark, list[str]]:
    """Images of a folder by class, its class names, and what to note of it."""
    rows = read_image_folder(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        benchmark = benchmark_for(name, rows["label"], arguments.prompts)
    notes = [str(warning.message) for warning in told]
    if unknown := [code for code in arguments.languages or [] if code not in benchmark.templates]:
        if len(unknown) == len(arguments.languages):
            benchmark.check_languages(unknown)
        notes.append(f"benchmark {name!r} has no class names in {', '.join(unknown)}; they are left out")
    for note in notes if processes().is_main_process else []:
        print(f"note: {note}", file=sys.stderr)
    return rows, benchmark, notes


def on_folder(
    embedder: Embedder, name: str, rows: Dataset, benchmark: Benchmark, notes: list[str], arguments: argparse.Namespace
) -> Measured:
    """Zero-shot classification and probes of a folder of images, in the languages that its benchmark knows."""
    image_embeds, labels = embedder.images(rows), list(rows["label"])
    languages = [code for code in benchmark.templates if code in (arguments.languages or benchmark.templates)]
    outcomes = Outcomes(list(rows["image_id"]))
    for language in languages:
        outcomes.zero_shot[language] = measure_zero_shot(embedder, image_embeds, labels, benchmark, language)
    if arguments.probes:
        train, test = split_rows(labels)
        classes = np.array(labels)
        outcomes.probes = measure_probes(image_embeds[train], classes[train], image_embeds[test], classes[test], test)
        notes = [*notes, "Probes learn from one half of each class and are tested on the other (seed 0)."]
    folder = dict(entry.split("=", 1) for entry in arguments.zero_shot)[name]
    facts = describe(rows, folder, None, benchmark, arguments) | {"languages": languages}
    return Measured(name, facts | {"notes": facts["notes"] + notes}, outcomes, benchmark)


def describe(
    rows: Dataset, dataset: str, split: str | None, benchmark: Benchmark | None, arguments: argparse.Namespace
) -> dict:
    """What was measured on, as the results have it."""
    facts = {"dataset": dataset, "split": split, "rows": len(rows), "fingerprint": fingerprint(rows), "notes": []}
    facts["revision"] = hub_revision(rows)
    facts |= {"capitalize": arguments.caption_style == "capitalize", "benchmark": None, "prompts": None}
    if benchmark is None:
        return facts
    if benchmark.images not in (None, len(rows)):
        facts["notes"].append(f"{benchmark.title} has {benchmark.images} images ({benchmark.split}).")
    facts |= {"benchmark": benchmark.name, "prompts": benchmark.prompts, "templates": benchmark.templates}
    return facts | {"citation": benchmark.citation, "licence": benchmark.licence}


if __name__ == "__main__":
    main()
