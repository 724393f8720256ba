"""Command lines for a folder of images without captions: `rsmclip index`, `rsmclip search`, `rsmclip classify`."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rsmclip.core.command_line import OneLineParser, png_file, positive, run_command
from rsmclip.core.languages import LANGUAGES

DTYPES = ("float32", "bfloat16", "float16")


def index_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="rsmclip index",
        description="Embed the images of a folder or corpus. A second run embeds only what is new or has changed.",
    )
    add = parser.add_argument
    add("images", metavar="FOLDER", help="folder of images, with any folders inside; or a corpus, a folder or Hub id")
    add("--model", required=True, metavar="MODEL", help="folder or Hub id of the model")
    add("--output", type=Path, required=True, metavar="INDEX", help="folder of the index")
    add("--split", help="split of a corpus (default: all)")
    add("--revision", help="branch, tag or commit of the model on the Hub")
    add("--batch_size", type=positive, default=128, help="images per batch (default: %(default)s)")
    add("--dtype", choices=DTYPES, default="float32", help="type of weights and activations (default: %(default)s)")
    add("--tile", type=positive, metavar="PIXELS", help="cut every image into square tiles with sides of this length")
    add("--stride", type=positive, metavar="PIXELS", help="distance between tiles (default: --tile)")
    return parser


def search_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="rsmclip search", description="Find the images of an index that fit a query best.")
    add = parser.add_argument
    add("index", type=Path, metavar="INDEX", help="folder that rsmclip index wrote")
    add("text", nargs="?", metavar="TEXT", help="query in any language of the model")
    add("--image", type=Path, metavar="FILE", help="query image; with TEXT, the sum of both embeddings is searched")
    add("--top", type=positive, default=20, metavar="N", help="images to find (default: %(default)s)")
    add("--sheet", type=png_file, metavar="FILE.png", help="also draw the images found")
    add("--json", action="store_true", help="print a JSON list, best first, in place of lines")
    add("--model", metavar="MODEL", help="folder or Hub id of the model, if it moved")
    return parser


def classify_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="rsmclip classify", description="Give each image of a folder one of your labels.")
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or Hub id of the model")
    add("images", metavar="FOLDER", help="folder of images, or an index that rsmclip index wrote")
    add("--labels", required=True, metavar='"A, B, C"', help="labels, separated by commas")
    add("--language", choices=LANGUAGES, default="en", help="language of the labels (default: %(default)s)")
    add("--csv", type=Path, metavar="FILE.csv", help="write a row per image: path, label and all scores")
    add("--sheet", type=png_file, metavar="FILE.png", help="draw the images with the highest scores of each label")
    add(
        "--transductive",
        action="store_true",
        help="classify all images together; every label must occur",
    )
    add("--revision", help="branch, tag or commit of the model on the Hub")
    return parser


COMMANDS = {  # module with `run(arguments)`, and its options
    "index": ("rsmclip.eval.index_command", index_parser),
    "search": ("rsmclip.eval.search", search_parser),
    "classify": ("rsmclip.eval.classify", classify_parser),
}


def main(name: str, arguments: Sequence[str]) -> None:
    """Run a command. Bad input is one line and exit status 2."""
    module, make_parser = COMMANDS[name]
    parsed = make_parser().parse_intermixed_args(arguments)  # `parse_args` fails at INDEX --top 3 TEXT
    run_command(lambda: import_module(module).run(parsed))  # imported here, because `--help` does not need torch
