"""Command line of the data step: `python -m rsmclip.data build …`, `python -m rsmclip.data demo …`."""

import argparse
import sys
from pathlib import Path

from datasets import load_dataset
from rsmclip.data.build import build_corpus, fault_table, read_translations
from rsmclip.data.demo import build_demo
from rsmclip.data.sources import SourceError, open_source


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str):
        """Prints one line and exits with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def named_source(argument: str) -> tuple[str, str]:
    """`NAME=DIR` as a pair."""
    name, separator, folder = argument.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, got {argument!r}")
    return name, folder


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = OneLineParser(prog="python -m rsmclip.data", description="Builds corpora in the project's schema.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)

    build = commands.add_parser("build", help="join caption corpora with translations")
    build.add_argument("--source", action="append", required=True, type=named_source, metavar="NAME=DIR",
                       help="rsicd, ucm, sydney or imagefolder, and its folder; may be repeated")  # fmt: skip
    build.add_argument("--translations", type=Path, metavar="DIR", help="folder of *.jsonl with ready translations")
    build.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    build.add_argument("--skip_bad", action="store_true", help="drop unusable rows instead of stopping")
    build.add_argument("--overwrite_output_dir", action="store_true", help="replace the folder if it is there")
    build.add_argument("--push_to_hub", metavar="ID", help="dataset repository to push to")

    demo = commands.add_parser("demo", help="draw the demo corpus")
    demo.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--overwrite_output_dir", action="store_true", help="replace the folder if it is there")
    return parser


def main() -> None:
    """Runs a command; bad input is one clear line and exit status 2."""
    arguments = make_parser().parse_args()
    try:
        if arguments.command == "demo":
            build_demo(arguments.output, arguments.seed, overwrite=arguments.overwrite_output_dir)
            return
        sources = [open_source(name, folder) for name, folder in arguments.source]
        translations = read_translations(arguments.translations) if arguments.translations else None
        report = build_corpus(
            sources, arguments.output, translations, arguments.skip_bad, arguments.overwrite_output_dir
        )
    except SourceError as error:
        sys.exit(f"error: {error}")
    print(report.table())
    if report.faults:
        print("left out: " + fault_table(report.faults))
    if arguments.push_to_hub:
        load_dataset(str(arguments.output)).push_to_hub(arguments.push_to_hub)


if __name__ == "__main__":
    main()
