"""Command line of the data step: `python -m rsmclip.data build …`, `python -m rsmclip.data demo …`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from rsmclip.data.build import build_corpus, push_corpus, read_translations
from rsmclip.data.command_line import OneLineParser
from rsmclip.data.sources import READERS, SourceError, fault_table, open_source


def named_source(argument: str) -> tuple[str, str]:
    """`NAME=DIR` as a pair."""
    name, separator, folder = argument.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, got {argument!r}")
    return name, folder


def hub_id(argument: str) -> str:
    """The id of a repository, checked before anything is built for it."""
    try:
        validate_repo_id(argument)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return argument


def seed(argument: str) -> int:
    """A seed, as numpy takes it."""
    if not argument.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {argument!r}")
    return int(argument)


def build(arguments: argparse.Namespace) -> None:
    """`build`: writes a corpus, prints what is in it, and pushes it if asked to."""
    sources = [open_source(name, folder) for name, folder in arguments.source]
    translations = read_translations(arguments.translations) if arguments.translations else None
    report = build_corpus(sources, arguments.output, translations, arguments.skip_bad, arguments.overwrite_output_dir)
    print(report.table())
    if report.faults:
        print(f"left out: {fault_table(report.faults)}")
    if arguments.push_to_hub:
        push_corpus(arguments.output, arguments.push_to_hub)


def demo(arguments: argparse.Namespace) -> None:
    """`demo`: draws the demo corpus."""
    from rsmclip.data.demo import build_demo, demo_contact_sheet  # its drawing and grammars are no part of a build

    build_demo(arguments.output, arguments.seed, overwrite=arguments.overwrite_output_dir)
    if arguments.contact_sheet:
        demo_contact_sheet(arguments.seed).save(arguments.contact_sheet)


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = OneLineParser(prog="python -m rsmclip.data", description="Builds corpora in the project's schema.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)

    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    output.add_argument("--overwrite_output_dir", action="store_true", help="replace a dataset that is there")

    builder = commands.add_parser("build", parents=[output], help="join caption corpora with translations")
    builder.set_defaults(run=build)
    builder.add_argument("--source", action="append", required=True, type=named_source, metavar="NAME=DIR",
                         help=f"a corpus ({', '.join(READERS)}) and its folder; may be repeated")  # fmt: skip
    builder.add_argument("--translations", type=Path, metavar="DIR", help="folder of *.jsonl with ready translations")
    builder.add_argument("--push_to_hub", type=hub_id, metavar="ID", help="dataset repository to push to")
    builder.add_argument("--skip_bad", action="store_true", help="leave unusable rows out instead of stopping")

    drawer = commands.add_parser("demo", parents=[output], help="draw the demo corpus")
    drawer.set_defaults(run=demo)
    drawer.add_argument("--seed", type=seed, default=0, help="seed of the drawing (defaults to 0)")
    drawer.add_argument(
        "--contact_sheet", type=Path, metavar="FILE", help="also draw two pictures of every class there"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; bad input is one clear message and exit status 2."""
    arguments = make_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (SourceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
