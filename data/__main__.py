"""Command line of the data step: `rsmclip data build | translate | audit | demo …`.

Commands import their modules when they run, because `datasets` and `torch` would slow down `--help`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rsmclip.core.command_line import OneLineParser, hub_id, positive, run_command, whole_number
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import recover
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.sources import READERS
from rsmclip.data.translation.wording import PORTUGUESE

DEFAULT_MODEL = "Unbabel/TowerInstruct-7B-v0.2"  # trained on exactly the ten languages


def json_file(argument: str) -> Path:
    if not argument.endswith(".json"):
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .json, got {argument!r}")
    return Path(argument)


def picture_file(argument: str) -> Path:
    if not argument.endswith((".jpg", ".png")):
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .jpg or .png, got {argument!r}")
    return Path(argument)


def build(arguments: argparse.Namespace) -> None:
    from rsmclip.data.build import UnusableRows, build_corpus
    from rsmclip.data.card import split_note, split_table, translation_note
    from rsmclip.data.faults import fault_table
    from rsmclip.data.translation.report import acceptance_table
    from rsmclip.data.translation.translations import load_translations

    translations = load_translations(arguments.translations) if arguments.translations else None
    options = {"skip_bad": arguments.skip_bad, "overwrite": arguments.overwrite_output_dir}
    options |= {name: getattr(arguments, name) for name in ("split", "seed", "stretch", "follow_links")}
    try:
        report = build_corpus(arguments.source, arguments.output, translations, **options)
    except UnusableRows as error:
        print(fault_table(error.faults), file=sys.stderr)
        raise
    print(split_table(report))
    for note in filter(None, (split_note(report), translation_note(report))):
        print(f"note: {note}", file=sys.stderr)
    if translations:
        print(f"\n{acceptance_table(translations.counts)}")
    if report.faults:
        print(f"left out: {fault_table(report.faults)}")
    if arguments.push_to_hub:
        push(arguments.output, arguments)


def translate(arguments: argparse.Namespace) -> None:
    import torch
    from accelerate import PartialState

    from rsmclip.data.schema import load_corpus
    from rsmclip.data.translation.engines import open_engine
    from rsmclip.data.translation.report import acceptance_table
    from rsmclip.data.translation.translate import BATCH_SIZE, cost, distinct_sentences, translate_corpus
    from rsmclip.data.translation.translations import load_translations

    corpus = load_corpus(arguments.dataset)
    engine = open_engine(arguments.engine, arguments.model, arguments.revision, arguments.portuguese)
    state = PartialState(
        cpu=not torch.accelerator.is_available(),  # without it, accelerate ignores torchrun on a CPU
        timeout=timedelta(days=1),  # processes wait for the slowest process, and while rank 0 runs the checks
    )
    if state.is_main_process:
        print(cost(distinct_sentences(corpus), arguments.languages, engine))
    if arguments.dry_run:
        return
    batch_size = arguments.batch_size or BATCH_SIZE[arguments.engine]
    translate_corpus(corpus, arguments.languages, engine, arguments.output, batch_size)
    if state.is_main_process:
        print(acceptance_table(load_translations(arguments.output).counts))
        print(f"read {arguments.output / 'reports'}, then: rsmclip data build … --translations {arguments.output}")


def audit(arguments: argparse.Namespace) -> None:
    from rsmclip.data.audit import leaks
    from rsmclip.data.audit.remove import note_audit, remove_rows
    from rsmclip.data.audit.report import summary, write_report
    from rsmclip.data.schema import is_built

    # An audit takes minutes. Check the arguments first.
    folder = Path(arguments.dataset)
    recover(folder)
    check_audit(folder, arguments)
    places = audited_names([arguments.dataset, *arguments.against])
    datasets = {name: leaks.load_audited(place) for name, place in places.items()}

    report = leaks.audit(datasets, next(iter(datasets)))
    write_report(report, datasets, arguments.output)
    findings = summary(report)
    print(findings)

    # The result goes into the card of a built corpus, which is written again if rows are removed.
    dropped = [row.image_id for row in report.to_remove]
    if arguments.remove and dropped:
        leaks.check_train_remains(report)
        note = f"These {len(dropped):,} rows were removed from `train`. The counts above include them."
        remove_rows(folder, datasets[report.audited], dropped, f"{findings}\n\n{note}")
    elif is_built(folder):
        note_audit(folder, findings)
    if arguments.remove:
        print(f"removed from train: {len(dropped):,} rows")


def check_audit(folder: Path, arguments: argparse.Namespace) -> None:
    from rsmclip.data.schema import is_built
    from rsmclip.data.write import check_output

    if arguments.remove:
        if not is_built(folder):
            raise UserError(f"{folder} was not made by rsmclip data build, so --remove cannot change it")
        check_output(folder, overwrite=True)
    if is_built(folder) and not os.access(folder, os.W_OK):
        card = folder / "README.md"
        raise UserError(f"{card} cannot be written, and the audit writes its result there: audit a copy of {folder}")
    for place in (arguments.dataset, *arguments.against):
        if Path(place).resolve() in arguments.output.resolve().parents:  # the next audit would read its pictures
            raise UserError(f"{arguments.output} is inside {place}, which is audited: write the report elsewhere")


def audited_names(places: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for place in places:
        name = Path(place).resolve().name if Path(place).is_dir() else place  # reports do not show local paths
        if name in names:
            raise UserError(f"two datasets have the name {name}: {names[name]} and {place}; rename one folder")
        names[name] = place
    return names


def push(folder: Path, arguments: argparse.Namespace) -> None:
    from rsmclip.data.push import push_corpus

    try:
        push_corpus(folder, arguments.push_to_hub, arguments.private)
    except UserError as error:
        command = f"rsmclip hub push-dataset {folder} {arguments.push_to_hub}"
        raise UserError(f"{folder} is complete, but {error}; to push it later: {command}") from error


def demo(arguments: argparse.Namespace) -> None:
    from rsmclip.data.demo.corpus import build_demo, demo_contact_sheet

    build_demo(arguments.output, arguments.seed, overwrite=arguments.overwrite_output_dir)
    if arguments.contact_sheet:
        sheet = demo_contact_sheet(arguments.seed)
        with user_errors(OSError, prefix=f"{arguments.contact_sheet} cannot be written"):
            arguments.contact_sheet.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(arguments.contact_sheet)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="rsmclip data", description="Build, translate and audit corpora of captioned images.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    making = argparse.ArgumentParser(add_help=False)
    making.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    making.add_argument("--overwrite_output_dir", action="store_true", help="replace a corpus in this folder")
    add_build(commands.add_parser("build", parents=[making], help="join caption corpora with translations"))
    add_translate(commands.add_parser("translate", help="translate the captions of a corpus by machine"))
    add_audit(commands.add_parser("audit", help="find rows that show the same picture"))
    add_demo(commands.add_parser("demo", parents=[making], help="draw the demo corpus"))
    return parser


def add_build(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=build)
    known = f"corpus and its folder, repeatable; NAME: {', '.join(READERS)}"
    options = "imagefolder, hub and webdataset take columns: NAME=DIR,captions=COLUMN,image=COLUMN,label=COLUMN,…"
    corpus = {"metavar": "NAME=DIR", "help": f"{known}; {options}"}
    parser.add_argument("--source", action="append", required=True, **corpus)
    shares = "percent of train, val and test, for images without a stated split: 80/10/10 (default: all are train)"
    parser.add_argument("--split", metavar="PERCENT", help=shares)
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of --split (default: 0)")
    given = "folder: output of translate, or *.jsonl files of yours"
    parser.add_argument("--translations", type=Path, metavar="DIR", help=given)
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave out unusable rows and empty captions instead of stopping"
    )
    links = "read links that lead out of the folder of a source"
    parser.add_argument("--follow_links", action="store_true", help=links)
    stretch = "stretch images of more than 8 bits between two percentiles, for example 2 98"
    parser.add_argument("--stretch", nargs=2, type=float, metavar=("LOW", "HIGH"), help=stretch)
    parser.add_argument("--push_to_hub", type=hub_id, metavar="ID", help="dataset repository to push to")
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")


def add_translate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=translate)
    targets = LANGUAGES[1:]
    parser.add_argument("dataset", metavar="DIR", help="corpus: folder or Hub id")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"folder or Hub id (default: {DEFAULT_MODEL})")
    parser.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    library = "library that runs the model; vllm: chat models only (default: transformers)"
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers", help=library)
    codes = f"languages to translate into (default: {' '.join(targets)})"
    parser.add_argument("--languages", nargs="+", choices=targets, default=targets, metavar="CODE", help=codes)
    variety = "variety of Portuguese that a chat model is asked for (default: Portuguese)"
    parser.add_argument("--portuguese", choices=PORTUGUESE, help=variety)
    parser.add_argument("--batch_size", type=positive, help="sentences per batch (default: 64, with vllm 4096)")
    output = "folder of translations; a second run continues an interrupted one"
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=output)
    parser.add_argument("--dry_run", action="store_true", help="only count sentences and tokens")


def add_audit(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=audit)
    parser.add_argument("dataset", metavar="DIR", help="corpus (folder or Hub id), or folder of pictures")
    others = "corpora or folders of pictures to compare with DIR"
    parser.add_argument("--against", nargs="+", action="extend", default=[], metavar="DIR", help=others)
    report = "report to write, with REPORT.md and REPORT_pairs/ beside it"
    parser.add_argument("--output", type=json_file, required=True, metavar="REPORT.json", help=report)
    removal = "drop rows of train that show the same picture as an evaluation row"
    parser.add_argument("--remove", action="store_true", help=removal)


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=demo)
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of the drawing (default: 0)")
    sheet = "also draw two pictures of every class into this file"
    parser.add_argument("--contact_sheet", type=picture_file, metavar="FILE", help=sheet)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command with the given arguments, by default those of the process."""
    run_command(lambda: run(argv))


def run(argv: Sequence[str] | None) -> None:
    parsed = make_parser().parse_args(argv)
    parsed.run(parsed)


if __name__ == "__main__":
    main()
