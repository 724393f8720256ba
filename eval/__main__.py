"""Command line of the evaluation.

rsmclip eval MODEL --dataset DIR --split test --output OUT     evaluate a model: figures, tables and pictures
accelerate launch -m rsmclip.eval MODEL …                      evaluate with several processes
rsmclip eval classes FOLDER > classes.yaml                     print the classes of a folder, to name them
rsmclip eval compare A B                                       test which differences between two models are real
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rsmclip.core.command_line import OneLineParser, positive, run_command
from rsmclip.eval.protocol import CAPTION_STYLES, DEFAULT_PROMPTS


def evaluation_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="rsmclip eval",
        description="Evaluate a model in every language.",
        epilog="`rsmclip eval compare A B` compares two models; `rsmclip eval classes FOLDER` prints a file of class "
        "names to fill in.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or Hub id: RS-M-CLIP, any model of transformers, or OpenCLIP's layout")
    add("--revision", help="branch, tag or commit of a Hub id")
    add("--dataset", metavar="DIR", help="corpus built by rsmclip data: a folder or a Hub id")
    add("--split", default="test", help="split of the corpus (default: %(default)s)")
    add("--languages", nargs="+", metavar="CODE", help="default: every language with captions in the split")
    add("--benchmark", metavar="NAME", help="benchmark with class names, for zero-shot figures of the corpus")
    add("--zero_shot", nargs="+", default=[], metavar="NAME=DIR", help="folders of images by class")
    classes = "YAML or CSV file with the class names of the --zero_shot folder; `rsmclip eval classes` makes one"
    add("--classes", type=Path, metavar="FILE", help=classes)
    together = "also classify all images of a dataset together (TransCLIP), beside the zero-shot figures"
    add("--transductive", action="store_true", help=together)
    add("--prompts", default=DEFAULT_PROMPTS, metavar="SET", help="set of eval/prompts.yaml (default: %(default)s)")
    style = "capitalize: begin each caption with a capital letter, as RemoteCLIP does (default: %(default)s)"
    add("--caption_style", choices=CAPTION_STYLES, default="raw", help=style)
    add("--probes", action="store_true", help="train linear, k-NN and few-shot probes on datasets with labels")
    add("--train_split", default="train", help="split of the corpus that probes learn from (default: %(default)s)")
    add("--batch_size", type=positive, default=128, help="images or texts per batch (default: %(default)s)")
    dtypes = ("float32", "bfloat16", "float16")
    add("--dtype", choices=dtypes, default="float32", help="type of weights and activations (default: %(default)s)")
    add("--cache_dir", type=Path, help="folder of cached embeddings (default: HF_HOME/rsmclip/embeddings)")
    add("--no_cache", action="store_true", help="neither read nor write cached embeddings")
    add("--samples", type=positive, default=1000, help="draws of the bootstrap (default: %(default)s)")
    add("--index", type=Path, metavar="INDEX", help="also write a search index of the corpus into this folder")
    add("--output", type=Path, required=True, metavar="OUT", help="folder for the results")
    return parser


def classes_parser() -> argparse.ArgumentParser:
    description = "Print the classes of a folder as YAML, with English names made from folder names."
    parser = OneLineParser(prog="rsmclip eval classes", description=description)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with one folder of images per class")
    return parser


def comparison_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="rsmclip eval compare", description="Test which differences between two models are real."
    )
    parser.add_argument("a", type=Path, metavar="A", help="output folder of an evaluation")
    parser.add_argument("b", type=Path, metavar="B", help="output folder of another model on the same data")
    parser.add_argument("--samples", type=positive, default=1000, help="draws of the bootstrap (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="compare every figure but those between sentences")
    parser.add_argument("--output", type=Path, metavar="OUT", help="folder for the table in Markdown and JSON")
    return parser


COMMANDS = {  # module with `run(arguments)`, and its options
    "classes": ("rsmclip.eval.class_file", classes_parser),
    "compare": ("rsmclip.eval.compare", comparison_parser),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command. Bad input is one line and exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    run_command(lambda: run(arguments))


def run(argv: list[str]) -> None:
    if argv and argv[0] in COMMANDS:
        module, make_parser = COMMANDS[argv[0]]
        arguments = make_parser().parse_args(argv[1:])
    else:
        module, arguments = "rsmclip.eval.run", evaluation_parser().parse_args(argv)
    arguments.command = shlex.join(["rsmclip", "eval", *argv])
    import_module(module).run(arguments)  # imported here, because `--help` does not need torch


if __name__ == "__main__":
    main()
