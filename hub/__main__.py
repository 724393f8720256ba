"""Command line of publishing: `python -m rsmclip.hub card | push | space | convert-openclip …`."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging as transformers_logging

from rsmclip.core.command_line import OneLineParser, hub_id
from rsmclip.data.push import push_corpus
from rsmclip.hub.convert_openclip import convert_openclip
from rsmclip.hub.push import push_model
from rsmclip.models.openclip import export_openclip


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


def push(arguments: argparse.Namespace) -> None:
    """`push`: says what went up and where it is."""
    push_model(arguments.folder, arguments.repo_id, arguments.private, arguments.revision, arguments.create_pr)


def push_dataset(arguments: argparse.Namespace) -> None:
    """`push-dataset`: the same of a corpus."""
    push_corpus(arguments.folder, arguments.repo_id, arguments.private, arguments.revision, arguments.create_pr)


def space(arguments: argparse.Namespace) -> None:
    """`space`: serves a model on this machine, until it is interrupted."""
    with space_extra():
        from rsmclip.hub.run_space import run_space
    revisions = (arguments.revision, arguments.gallery_revision)
    run_space(arguments.source, arguments.gallery, arguments.split, arguments.port, *revisions)


def space_on_the_hub(arguments: argparse.Namespace) -> None:
    """`push-space`: says what went up and where it is."""
    from rsmclip.hub.push_space import push_space

    model, gallery = (arguments.model, arguments.revision), (arguments.gallery, arguments.gallery_revision)
    with space_extra():  # the Space gets the version of Gradio that is installed here
        push_space(arguments.repo_id, model, gallery, arguments.split, arguments.private)


@contextmanager
def space_extra() -> Iterator[None]:
    """What to install if Gradio, which is an extra, is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}: pip install -e '.[space]'") from error


def card(arguments: argparse.Namespace) -> None:
    """`card`: says what was made and what it lacks."""
    from rsmclip.hub.card import write_card  # plots and benchmarks, which no conversion needs

    for line in write_card(arguments.folder, arguments.results):
        print(f"note: {line}", file=sys.stderr)
    print(arguments.folder / "README.md")


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = OneLineParser(prog="python -m rsmclip.hub", description="Converts, exports and publishes models.")
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
        "--dataset", metavar="DIR", default="demo", help="corpus to measure --int8 on (default: %(default)s)"
    )
    command.add_argument("--split", default="test", help="its split (default: %(default)s)")
    command.set_defaults(run=onnx)

    command = commands.add_parser("push", help="a model folder to the Hub, card and weights in one commit")
    command.add_argument("folder", metavar="DIR", type=Path, help="the model folder; it is only read")
    add_push_options(command)
    command.set_defaults(run=push)

    command = commands.add_parser("push-dataset", help="a corpus to the Hub, card and shards in one commit")
    command.add_argument("folder", metavar="DIR", type=Path, help="what rsmclip.data build wrote; it is only read")
    add_push_options(command)
    command.set_defaults(run=push_dataset)

    command = commands.add_parser("space", help="the model in a browser, on this machine")
    command.add_argument(
        "source", metavar="DIR", nargs="?", default="outputs/demo",
        help="local folder or Hub id of a model (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--gallery", metavar="DATASET", default="demo",
        help="folder or Hub id of the dataset whose images are searched (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--split", default="test", help="its split (default: %(default)s)")
    command.add_argument("--revision", metavar="R", help="branch, tag or commit of a model on the Hub (default: main)")
    command.add_argument("--gallery_revision", metavar="R", help="the same of a dataset on the Hub")
    command.add_argument("--port", type=port_number, help="where to serve (default: the first free one from 7860)")
    command.set_defaults(run=space)

    command = commands.add_parser("push-space", help="the same as a Space on the Hub")
    command.add_argument("repo_id", metavar="USER/SPACE", type=hub_id, help="the Space; made if it does not exist")
    command.add_argument("--model", metavar="USER/NAME", type=hub_id, required=True, help="a model on the Hub")
    command.add_argument("--revision", default="main", help="its branch, tag or commit (default: %(default)s)")
    command.add_argument(
        "--gallery", metavar="USER/DATASET", required=True, help="a dataset on the Hub whose images are searched"
    )
    command.add_argument("--gallery_revision", default="main", metavar="REVISION", help="the same of the dataset")
    command.add_argument("--split", default="test", help="its split (default: %(default)s)")
    command.add_argument("--private", action="store_true", help="make the Space private, if it is made")
    command.set_defaults(run=space_on_the_hub)

    command = commands.add_parser("card", help="the card of a training run's folder, made anew")
    command.add_argument("folder", metavar="DIR", type=Path, help="folder of a run that has ended")
    command.add_argument("--results", nargs="+", default=[], type=Path, metavar="EVAL_FOLDER",
                         help="what rsmclip.eval DIR … --output wrote: further figures")  # fmt: skip
    command.set_defaults(run=card)
    return parser


def port_number(argument: str) -> int:
    """A port, checked before anything is loaded."""
    if not argument.isdecimal() or not 1 <= int(argument) <= 65535:
        raise argparse.ArgumentTypeError(f"{argument} is no port: give a number from 1 to 65535")
    return int(argument)


def add_push_options(command: argparse.ArgumentParser) -> None:
    """Where to push to."""
    command.add_argument("repo_id", metavar="USER/NAME", type=hub_id, help="repository; made if it does not exist")
    command.add_argument("--private", action="store_true", help="make it private, if it is made")
    command.add_argument("--revision", metavar="R", help="branch to commit to (default: main); made if there is none")
    command.add_argument("--create_pr", action="store_true", help="open a pull request instead")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; bad input is one clear line and exit status 2."""
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub.hf_api").setLevel(logging.ERROR)  # push itself says when nothing is new
    parsed = make_parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
