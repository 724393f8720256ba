"""Command line of the evaluation: `python -m rsmclip.eval MODEL --dataset DIR --split test --output OUT`."""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor
from transformers.utils import logging as transformers_logging

from rsmclip.data.command_line import OneLineParser
from rsmclip.data.schema import LANGUAGES, check_schema, count_captions, load_corpus
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import check_labels, evaluate_corpus, evaluate_zero_shot
from rsmclip.eval.image_folder import benchmark_for, read_image_folder
from rsmclip.eval.protocol import load_benchmark
from rsmclip.eval.report import as_markdown, as_text, result_table
from rsmclip.hub.folder import is_model_folder


def positive(argument: str) -> int:
    """A whole number from 1 on."""
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {argument!r}")
    return int(argument)


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = OneLineParser(prog="python -m rsmclip.eval", description="Measures a model in every language.")
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of a model")
    parser.add_argument("--dataset", metavar="DIR", help="corpus in the project's schema: a folder or a Hub id")
    parser.add_argument("--split", default="test", help="its split (default: %(default)s)")
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="default: all in which the split has captions")
    parser.add_argument("--benchmark", metavar="NAME", help="class names for the zero-shot figures of the corpus")
    parser.add_argument("--zero_shot", nargs="+", default=[], metavar="NAME=DIR", help="folders of images by class")
    parser.add_argument("--batch_size", type=positive, default=128, help="of images or texts (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    return parser


def evaluate_on_corpus(embedder: Embedder, arguments: argparse.Namespace) -> dict:
    """Retrieval, and zero-shot if `--benchmark` says so, on `--dataset`."""
    corpus = load_corpus(arguments.dataset)
    rows = check_schema(corpus, arguments.split, arguments.languages or [])
    counts = count_captions(rows)
    if not (languages := arguments.languages or [code for code in LANGUAGES if counts.get(code)]):
        raise ValueError(f"split {arguments.split!r} of {arguments.dataset} has no captions in any language")
    benchmark = load_benchmark(arguments.benchmark) if arguments.benchmark else None
    return evaluate_corpus(embedder, rows, languages, benchmark)


def evaluate_on_folder(embedder: Embedder, name: str, folder: Path, languages: list[str] | None) -> dict:
    """Zero-shot classification of a folder of images, in the languages that its benchmark knows."""
    rows = read_image_folder(folder)
    benchmark = benchmark_for(name, rows["label"])
    if unknown := [code for code in languages or [] if code not in benchmark.templates]:
        known = ", ".join(benchmark.templates)
        raise ValueError(f"benchmark {name!r} has no class names in {', '.join(unknown)}; it has them in {known}")
    check_labels(rows["label"], benchmark)
    image_embeds = embedder.images(rows)
    languages = languages or list(benchmark.templates)
    return {code: evaluate_zero_shot(embedder, image_embeds, rows["label"], benchmark, code) for code in languages}


def run(arguments: argparse.Namespace) -> None:
    """Evaluates, prints the tables and writes them."""
    if not arguments.dataset and not arguments.zero_shot:
        raise ValueError("nothing to evaluate on: give --dataset, --zero_shot or both")
    folders = [entry.partition("=") for entry in arguments.zero_shot]
    if bad := [name + separator for name, separator, folder in folders if not (name and folder)]:
        raise ValueError(f"--zero_shot takes NAME=DIR, not {bad[0]!r}")
    names = ["corpus", *(name for name, _, _ in folders)]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--zero_shot needs names of their own: {repeated[0]!r} is taken")
    if is_model_folder(arguments.output):
        raise ValueError(f"{arguments.output} is a model folder with results of its own; choose another --output")
    processor = AutoProcessor.from_pretrained(arguments.model, trust_remote_code=True)
    model = AutoModel.from_pretrained(arguments.model, trust_remote_code=True, dtype=torch.float32).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    embedder = Embedder(model, processor, arguments.batch_size)

    results, titles = {}, {}
    if arguments.dataset:
        results["corpus"] = evaluate_on_corpus(embedder, arguments)
        titles["corpus"] = f"{arguments.dataset}, split {arguments.split}"
    for name, _, folder in folders:
        results[name] = evaluate_on_folder(embedder, name, Path(folder), arguments.languages)
        titles[name] = f"{name}: {folder}"

    arguments.output.mkdir(parents=True, exist_ok=True)
    record = {"model": arguments.model, "dataset": arguments.dataset, "split": arguments.split, "metrics": results}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (arguments.output / "eval_results.json").write_text(text, encoding="utf-8")
    markdown = []
    for name, metrics in results.items():
        table = result_table(metrics)
        print(f"\n{titles[name]}\n\n{as_text(*table)}")
        markdown.append(f"## {titles[name]}\n\n{as_markdown(*table)}\n")
    (arguments.output / "eval_results.md").write_text("\n".join(markdown), encoding="utf-8")


def main() -> None:
    """Runs the evaluation; bad input is one clear line and exit status 2."""
    transformers_logging.disable_progress_bar()
    arguments = make_parser().parse_args()
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
