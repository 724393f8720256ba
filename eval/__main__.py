"""Command line of the evaluation: `python -m rsmclip.eval MODEL --dataset DIR --split test --output OUT`."""

import argparse
import json
import sys
from pathlib import Path

from transformers import AutoModel, AutoProcessor

from rsmclip.data.schema import LANGUAGES, check_schema, count_captions, load_corpus
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import evaluate_corpus, evaluate_zero_shot
from rsmclip.eval.image_folder import benchmark_for, read_image_folder
from rsmclip.eval.protocol import load_benchmark
from rsmclip.eval.report import as_markdown, as_text, result_table


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str):
        """Prints one line and exits with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = OneLineParser(prog="python -m rsmclip.eval", description="Measures a model in every language.")
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of a model")
    parser.add_argument("--dataset", metavar="DIR", help="corpus in the project's schema: a folder or a Hub id")
    parser.add_argument("--split", default="test", help="its split (default: %(default)s)")
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="default: all in which the split has captions")
    parser.add_argument("--benchmark", metavar="NAME", help="class names for the zero-shot figures of the corpus")
    parser.add_argument("--zero_shot", nargs="+", default=[], metavar="NAME=DIR", help="folders of images by class")
    parser.add_argument("--batch_size", type=int, default=128, help="images or texts a batch (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    return parser


def evaluate_on_corpus(embedder: Embedder, arguments: argparse.Namespace) -> dict:
    """Retrieval, and zero-shot if `--benchmark` says so, on `--dataset`."""
    corpus = load_corpus(arguments.dataset)
    rows = check_schema(corpus, arguments.split, arguments.languages or ["en"])
    counts = count_captions(rows)
    languages = arguments.languages or [code for code in LANGUAGES if counts.get(code)]
    benchmark = load_benchmark(arguments.benchmark) if arguments.benchmark else None
    return evaluate_corpus(embedder, rows, languages, benchmark)


def evaluate_on_folder(embedder: Embedder, name: str, folder: Path, languages: list[str] | None) -> dict:
    """Zero-shot classification of a folder of images, in the languages that its benchmark knows."""
    rows = read_image_folder(folder)
    benchmark = benchmark_for(name, rows["label"])
    image_embeds = embedder.images(image["bytes"] for image in rows["image"])
    languages = [code for code in benchmark.templates if not languages or code in languages]
    return {code: evaluate_zero_shot(embedder, image_embeds, rows["label"], benchmark, code) for code in languages}


def run(arguments: argparse.Namespace) -> None:
    """Evaluates, prints the tables and writes them."""
    if not arguments.dataset and not arguments.zero_shot:
        raise ValueError("nothing to evaluate on: give --dataset, --zero_shot or both")
    folders = [entry.partition("=") for entry in arguments.zero_shot]
    if bad := [name + separator for name, separator, folder in folders if not (name and folder)]:
        raise ValueError(f"--zero_shot takes NAME=DIR, not {bad[0]!r}")
    processor = AutoProcessor.from_pretrained(arguments.model, trust_remote_code=True)
    model = AutoModel.from_pretrained(arguments.model, trust_remote_code=True).eval()
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
    arguments = make_parser().parse_args()
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
