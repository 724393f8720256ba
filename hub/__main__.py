"""Command line of publishing: `python -m rsmclip.hub convert-openclip …`, `export-openclip …`, `export-onnx …`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging as transformers_logging

from rsmclip.data.command_line import OneLineParser
from rsmclip.hub.convert_openclip import convert_openclip, export_openclip


def convert(arguments: argparse.Namespace) -> None:
    """`convert-openclip`: says what was made and what it lacks."""
    has_tokenizer = convert_openclip(arguments.source, arguments.output, arguments.tokenizer)
    print(f"{arguments.output}: AutoModel.from_pretrained({str(arguments.output)!r}, trust_remote_code=True)")
    if not has_tokenizer:
        print(f"{arguments.source} has no tokenizer: the folder preprocesses images only. Give --tokenizer for texts")


def export(arguments: argparse.Namespace) -> None:
    """`export-openclip`: says how to load what was made."""
    export_openclip(arguments.source, arguments.output)
    print(f"{arguments.output}: open_clip.create_model_and_transforms('local-dir:{arguments.output}')")
    if (arguments.output / "text_model").is_dir():
        print(f"OpenCLIP looks for text_model/ in the working directory: start it in {arguments.output}")


def onnx(arguments: argparse.Namespace) -> None:
    """`export-onnx`: prints how far each graph is from torch, and what int8 does to retrieval."""
    try:
        from rsmclip.hub.export_onnx import export_onnx
    except ModuleNotFoundError as error:  # onnx, onnxruntime and onnxscript are an extra
        raise ValueError(f"{error}: pip install -e '.[onnx]'") from error
    lines = export_onnx(arguments.source, arguments.output, arguments.int8, arguments.dataset, arguments.split)
    print("\n".join(lines))


def card(arguments: argparse.Namespace) -> None:
    """`card`: says what was made and what it lacks."""
    from rsmclip.hub.card import write_card  # plots and benchmarks, which no conversion needs

    for line in write_card(arguments.folder, arguments.results):
        print(f"note: {line}", file=sys.stderr)
    print(arguments.folder / "README.md")


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = OneLineParser(prog="python -m rsmclip.hub", description="Converts and exports models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("convert-openclip", help="a model folder of weights in OpenCLIP's layout")
    command.add_argument("source", metavar="SRC", help="local folder or Hub id in OpenCLIP's layout")
    command.add_argument("output", metavar="OUT", type=Path, help="folder for the model; new, or empty")
    command.add_argument(
        "--tokenizer", metavar="DIR", help="folder or Hub id of the tokenizer (default: the one in SRC)"
    )
    command.set_defaults(run=convert)

    command = commands.add_parser("export-openclip", help="the same the other way")
    command.add_argument("source", metavar="SRC", help="local folder or Hub id of a model")
    command.add_argument("output", metavar="OUT", type=Path, help="folder in OpenCLIP's layout; new, or empty")
    command.set_defaults(run=export)

    command = commands.add_parser("export-onnx", help="image tower, text tower and both as ONNX graphs")
    command.add_argument("source", metavar="SRC", help="local folder or Hub id of a model")
    command.add_argument("output", metavar="OUT", type=Path, help="folder for the graphs; new, or empty")
    command.add_argument("--int8", action="store_true", help="also graphs with int8 weights, and what they cost")
    command.add_argument(
        "--dataset", metavar="DIR", default="demo", help="corpus to measure that on (default: %(default)s)"
    )
    command.add_argument("--split", default="test", help="its split (default: %(default)s)")
    command.set_defaults(run=onnx)

    command = commands.add_parser("card", help="the card of a training run's folder, made anew")
    command.add_argument("folder", metavar="DIR", type=Path, help="folder of a run that has ended")
    command.add_argument("--results", nargs="+", default=[], type=Path, metavar="EVAL_FOLDER",
                         help="what rsmclip.eval DIR … --output wrote: further figures")  # fmt: skip
    command.set_defaults(run=card)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; bad input is one clear line and exit status 2."""
    transformers_logging.disable_progress_bar()
    parsed = make_parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
