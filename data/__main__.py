"""Command line of the data step: `python -m rsmclip.data build | translate | audit | demo …`."""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rsmclip.core.command_line import OneLineParser, hub_id
from rsmclip.data.build import build_corpus
from rsmclip.data.card import split_table
from rsmclip.data.faults import fault_table
from rsmclip.data.push import push_corpus
from rsmclip.data.schema import LANGUAGES, SchemaError, load_corpus
from rsmclip.data.sources import READERS, SourceError, open_source
from rsmclip.data.translation.report import acceptance_table
from rsmclip.data.translation.translations import load_translations
from rsmclip.data.write import check_output

DEFAULT_MODEL = "Unbabel/TowerInstruct-7B-v0.2"  # it knows exactly the ten languages


def named_source(argument: str) -> tuple[str, str]:
    """`NAME=DIR` as a pair."""
    name, separator, folder = argument.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"expected NAME=DIR, got {argument!r}")
    return name, folder


def seed(argument: str) -> int:
    """A seed, as numpy takes it."""
    if not argument.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {argument!r}")
    return int(argument)


def positive(argument: str) -> int:
    """A number from 1 on."""
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {argument!r}")
    return int(argument)


def report_file(argument: str) -> Path:
    """Where a report goes."""
    if not argument.endswith(".json"):
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .json, got {argument!r}")
    return Path(argument)


def picture_file(argument: str) -> Path:
    """Where a picture goes."""
    if not argument.endswith((".jpg", ".png")):
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .jpg or .png, got {argument!r}")
    return Path(argument)


def build(arguments: argparse.Namespace) -> None:
    """`build`: writes a corpus, prints what is in it, and pushes it if asked to."""
    sources = [open_source(name, place) for name, place in arguments.source]
    translations = load_translations(arguments.translations) if arguments.translations else None
    report = build_corpus(sources, arguments.output, translations, arguments.skip_bad, arguments.overwrite_output_dir)
    print(split_table(report))
    if translations:
        print(f"\n{acceptance_table(translations.counts)}")
    if report.faults:
        print(f"left out: {fault_table(report.faults)}")
    if arguments.push_to_hub:
        push(arguments.output, arguments)


def translate(arguments: argparse.Namespace) -> None:
    """`translate`: translates the captions of a corpus, or says what that would cost."""
    import torch  # these take seconds to import, and no other command needs them
    from accelerate import PartialState

    from rsmclip.data.translation.engines import open_engine
    from rsmclip.data.translation.translate import BATCH_SIZE, cost, distinct_sentences, translate_corpus

    corpus = load_corpus(arguments.dataset)
    engine = open_engine(arguments.engine, arguments.model, arguments.revision)
    state = PartialState(
        cpu=not torch.accelerator.is_available(),  # else accelerate takes no notice of torchrun on a CPU
        timeout=timedelta(days=1),  # processes wait for the slowest one, and for the one that judges
    )
    if state.is_main_process:
        print(cost(distinct_sentences(corpus), arguments.languages, engine))
    if arguments.dry_run:
        return
    batch_size = arguments.batch_size or BATCH_SIZE[arguments.engine]
    translate_corpus(corpus, arguments.languages, engine, arguments.output, batch_size)
    if state.is_main_process:
        print(acceptance_table(load_translations(arguments.output).counts))
        print(f"read {arguments.output / 'reports'}, then: rsmclip.data build … --translations {arguments.output}")


def audit(arguments: argparse.Namespace) -> None:
    """`audit`: finds rows that show the same picture, writes a report, and takes leaks out of `train` if asked to."""
    from rsmclip.data.audit.leaks import audit as find_leaks
    from rsmclip.data.audit.leaks import load_audited
    from rsmclip.data.audit.remove import note_audit, remove_rows
    from rsmclip.data.audit.report import summary, write_report

    folder = Path(arguments.dataset)
    check_audit(folder, arguments)
    datasets = {
        name: load_audited(place) for name, place in audited_names([arguments.dataset, *arguments.against]).items()
    }
    report = find_leaks(datasets, next(iter(datasets)))
    write_report(report, datasets, arguments.output)
    told = summary(report)
    print(told)
    if arguments.remove and report.to_remove:
        removed = f"These {len(report.to_remove):,} rows were removed from `train`; the counts are from before."
        remove_rows(
            folder, datasets[report.audited], [row.image_id for row in report.to_remove], f"{told}\n\n{removed}"
        )
    elif is_built(folder):
        note_audit(folder, told)
    if arguments.remove:
        print(f"removed from train: {len(report.to_remove):,} rows")
    if arguments.push_to_hub:
        push(folder, arguments)


def is_built(folder: Path) -> bool:
    """Whether `build` wrote a folder, so that an audit may change it."""
    return (folder / "README.md").is_file() and any(folder.glob("data/*.parquet"))


def check_audit(folder: Path, arguments: argparse.Namespace) -> None:
    """Refuses before an audit what could not be done after it."""
    if (arguments.remove or arguments.push_to_hub) and not is_built(folder):
        raise SourceError(
            f"{folder} is no folder that rsmclip.data build made, so it can be neither changed nor pushed"
        )
    if arguments.remove:
        check_output(folder, overwrite=True)
    for place in (arguments.dataset, *arguments.against):  # else its pictures would be audited the next time
        if Path(place).resolve() in arguments.output.resolve().parents:
            raise SourceError(f"{arguments.output} lies in {place}, which is audited: write the report elsewhere")


def push(folder: Path, arguments: argparse.Namespace) -> None:
    """Pushes a finished corpus; a refusal says how to push it later."""
    try:
        push_corpus(folder, arguments.push_to_hub, arguments.private)
    except OSError as error:
        command = f"python -m rsmclip.hub push-dataset {folder} {arguments.push_to_hub}"
        raise OSError(f"{folder} is finished, but {error}; later: {command}") from error


def audited_names(places: Sequence[str]) -> dict[str, str]:
    """Names of datasets in reports, without the way to a folder, and where each is."""
    names = {}
    for place in places:
        name = Path(place).resolve().name if Path(place).is_dir() else place
        if name in names:
            raise SourceError(f"two datasets are called {name}: {names[name]} and {place}; rename one of the folders")
        names[name] = place
    return names


def demo(arguments: argparse.Namespace) -> None:
    """`demo`: draws the demo corpus."""
    from rsmclip.data.demo.corpus import (  # its drawing and grammars are no part of a build
        build_demo,
        demo_contact_sheet,
    )

    build_demo(arguments.output, arguments.seed, overwrite=arguments.overwrite_output_dir)
    if arguments.contact_sheet:
        arguments.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        demo_contact_sheet(arguments.seed).save(arguments.contact_sheet)


def make_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = OneLineParser(prog="python -m rsmclip.data", description="Builds corpora in the project's schema.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    making = argparse.ArgumentParser(add_help=False)
    making.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    making.add_argument("--overwrite_output_dir", action="store_true", help="replace a dataset that is there")
    pushing = argparse.ArgumentParser(add_help=False)
    pushing.add_argument("--push_to_hub", type=hub_id, metavar="ID", help="dataset repository to push to")
    pushing.add_argument("--private", action="store_true", help="make that repository private")

    builder = commands.add_parser("build", parents=[making, pushing], help="join caption corpora with translations")
    add_build_options(builder)
    translator = commands.add_parser("translate", help="translate the captions of a corpus by machine")
    add_translate_options(translator)
    auditor = commands.add_parser("audit", parents=[pushing], help="find rows that show the same picture")
    add_audit_options(auditor)
    drawer = commands.add_parser("demo", parents=[making], help="draw the demo corpus")
    add_demo_options(drawer)
    return parser


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Options of `build`."""
    parser.set_defaults(run=build)
    parser.add_argument("--source", action="append", required=True, type=named_source, metavar="NAME=DIR",
                        help=f"a corpus ({', '.join(READERS)}) and its folder; may be repeated")  # fmt: skip
    parser.add_argument("--translations", type=Path, metavar="DIR", help="what translate wrote, or ready *.jsonl")
    parser.add_argument("--split_policy", choices=("official",), default="official", help="which splits rows go to")
    parser.add_argument("--skip_bad", action="store_true", help="leave unusable rows out instead of stopping")


def add_translate_options(parser: argparse.ArgumentParser) -> None:
    """Options of `translate`."""
    parser.set_defaults(run=translate)
    parser.add_argument("dataset", metavar="DIR", help="a corpus: folder or Hub id")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"folder or Hub id (defaults to {DEFAULT_MODEL})")
    parser.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES[1:], default=LANGUAGES[1:], metavar="CODE",
                        help=f"languages to translate into (defaults to {' '.join(LANGUAGES[1:])})")  # fmt: skip
    parser.add_argument("--batch_size", type=positive, help="sentences in a batch")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="folder of translations; a second run goes on where the first stopped")  # fmt: skip
    parser.add_argument("--dry_run", action="store_true", help="only say how much there is to translate")


def add_audit_options(parser: argparse.ArgumentParser) -> None:
    """Options of `audit`."""
    parser.set_defaults(run=audit)
    parser.add_argument("dataset", metavar="DIR", help="a corpus: folder or Hub id")
    parser.add_argument("--against", nargs="+", action="extend", default=[], metavar="DIR",
                        help="corpora, or folders of pictures, that it must not share pictures with")  # fmt: skip
    parser.add_argument("--output", type=report_file, required=True, metavar="REPORT.json",
                        help="report to write; REPORT.md and REPORT_pairs/ are written beside it")  # fmt: skip
    parser.add_argument("--remove", action="store_true", help="drop rows of train that show what is evaluated on")


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    """Options of `demo`."""
    parser.set_defaults(run=demo)
    parser.add_argument("--seed", type=seed, default=0, help="seed of the drawing (defaults to 0)")
    parser.add_argument(
        "--contact_sheet", type=picture_file, metavar="FILE", help="also draw two pictures of every class there"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; bad input is one clear message and exit status 2."""
    arguments = make_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (SourceError, SchemaError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
