"""Command line `rsmclip hub`: convert, export, show and publish models."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rsmclip.core.command_line import OneLineParser, hub_id, positive, run_command
from rsmclip.core.errors import UserError, extra


def run_convert_openclip(arguments: argparse.Namespace) -> None:
    from rsmclip.hub.convert_openclip import convert_openclip

    has_tokenizer = convert_openclip(arguments.source, arguments.output, arguments.tokenizer)
    print(f"{arguments.output}: AutoModel.from_pretrained({str(arguments.output)!r}, trust_remote_code=True)")
    if not has_tokenizer:
        print(f"{arguments.source} has no tokenizer, so the folder takes images only; for texts, give --tokenizer")


def run_export_openclip(arguments: argparse.Namespace) -> None:
    from rsmclip.models.openclip import export_openclip

    export_openclip(arguments.source, arguments.output)
    print(f"{arguments.output}: open_clip.create_model_and_transforms('local-dir:{arguments.output}')")
    if (arguments.output / "text_model").is_dir():
        print(f"OpenCLIP reads text_model/ from the working directory: start Python in {arguments.output}")


def run_export_onnx(arguments: argparse.Namespace) -> None:
    with extra("onnx"):
        from rsmclip.hub.export_onnx import export_onnx

    quality = {"dataset": arguments.dataset, "split": arguments.split}
    print("\n".join(export_onnx(arguments.source, arguments.output, int8=arguments.int8, **quality)))


def run_assemble(arguments: argparse.Namespace) -> None:
    from rsmclip.hub.assemble import assemble_folder

    towers = (arguments.image_tower, arguments.text_tower)
    tokens = assemble_folder(*towers, arguments.output, arguments.projection_dim, arguments.trim_vocabulary)
    print(
        f"{arguments.output}: {tokens:,} tokens; the projections are random: train it with --model {arguments.output}"
    )


# Options of `interpolate` that only --alphas uses, with their defaults.
MEASURED = {
    "dataset": None,
    "split": "val",
    "languages": None,
    "benchmarks": None,
    "choose": "mean",
    "batch_size": 128,
}


def run_interpolate(arguments: argparse.Namespace) -> None:
    from rsmclip.eval.report import as_text
    from rsmclip.hub.interpolate import interpolate, interpolate_best, read_tasks

    folders = (arguments.start, arguments.tuned, arguments.output)
    measured = {name: value for name in MEASURED if (value := getattr(arguments, name)) is not None}
    if arguments.alphas is None:
        if measured:
            raise UserError(f"--{min(measured)} is for measured shares: give them with --alphas")
        interpolate(*folders, arguments.alpha, arguments.soup)
    else:
        given = MEASURED | measured
        tasks = read_tasks(given["dataset"], given["split"], given["languages"], given["benchmarks"] or [])
        for note in [note for task in tasks for note in task.notes]:
            print(f"note: {note}", file=sys.stderr)
        best, table = interpolate_best(*folders, arguments.alphas, tasks, given["choose"], given["batch_size"])
        print(f"{as_text(*table)}\nalpha {best.alpha:g} is the best by --choose {given['choose']}")
    print(arguments.output)


def run_teacher(arguments: argparse.Namespace) -> None:
    from rsmclip.hub.assemble import teacher_folder

    teacher_folder(arguments.checkpoint, arguments.output)
    print(arguments.output)


def run_card(arguments: argparse.Namespace) -> None:
    from rsmclip.hub.card import write_card

    write_card(arguments.folder, arguments.results, run_examples=arguments.run_examples)
    print(arguments.folder / "README.md")


def run_push(arguments: argparse.Namespace) -> None:
    from rsmclip.hub.push import push_model

    push_model(**push_options(arguments))


def run_push_dataset(arguments: argparse.Namespace) -> None:
    from rsmclip.data.push import push_corpus

    push_corpus(**push_options(arguments))


def push_options(arguments: argparse.Namespace) -> dict[str, object]:
    names = ("folder", "repo_id", "private", "revision", "create_pr")
    return {name: getattr(arguments, name) for name in names}


def run_local_space(arguments: argparse.Namespace) -> None:
    with extra("space"):
        from rsmclip.hub.run_space import run_space

    names = ("source", "gallery", "split", "port", "revision", "gallery_revision")
    run_space(**{name: getattr(arguments, name) for name in names})


def run_push_space(arguments: argparse.Namespace) -> None:
    from rsmclip.hub.push_space import push_space

    model, gallery = (arguments.model, arguments.revision), (arguments.gallery, arguments.gallery_revision)
    push_space(arguments.repo_id, model, gallery, arguments.split, private=arguments.private)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="rsmclip hub", description="Convert, export, show and publish models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pushed = argparse.ArgumentParser(add_help=False)
    add_push_options(pushed)
    converted = argparse.ArgumentParser(add_help=False)
    converted.add_argument("source", metavar="SRC", help="local folder or Hub id of a model")
    converted.add_argument("output", metavar="OUT", type=Path, help="new or empty folder")

    command = commands.add_parser(
        "convert-openclip", parents=[converted], help="convert weights in OpenCLIP's layout to a model folder"
    )
    command.add_argument(
        "--tokenizer", metavar="DIR", help="folder or Hub id of the tokenizer (default: the one in SRC)"
    )
    command.set_defaults(run=run_convert_openclip)

    command = commands.add_parser("export-openclip", parents=[converted], help="write a model in OpenCLIP's layout")
    command.set_defaults(run=run_export_openclip)

    command = commands.add_parser(
        "export-onnx", parents=[converted], help="write the towers and the model as ONNX graphs"
    )
    command.add_argument("--int8", action="store_true", help="also write graphs with int8 weights and evaluate them")
    command.add_argument(
        "--dataset", metavar="DIR", default="demo", help="corpus to evaluate --int8 on (default: %(default)s)"
    )
    command.add_argument("--split", default="test", help="split of this corpus (default: %(default)s)")
    command.set_defaults(run=run_export_onnx)

    add_weights(commands)
    command = commands.add_parser("card", help="write the model card of a training run again")
    command.add_argument("folder", metavar="DIR", type=Path, help="folder of a finished run")
    command.add_argument(
        "--results", nargs="+", default=[], type=Path, metavar="DIR", help="outputs of rsmclip eval to add to the card"
    )
    command.add_argument("--run_examples", action="store_true", help="run the code of the card and show its output")
    command.set_defaults(run=run_card)

    command = commands.add_parser("push", parents=[pushed], help="push a model folder to the Hub")
    command.set_defaults(run=run_push)
    command = commands.add_parser("push-dataset", parents=[pushed], help="push a corpus to the Hub")
    command.set_defaults(run=run_push_dataset)
    add_spaces(commands)
    return parser


def add_weights(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("assemble", help="join a pretrained image tower and text tower in a model folder")
    command.add_argument("output", metavar="OUT", type=Path, help="new or empty folder")
    command.add_argument(
        "--image_tower", metavar="M", required=True, help="CLIP, DINOv2 or OpenCLIP folder, or Hub id"
    )
    command.add_argument("--text_tower", metavar="M", required=True, help="XLM-RoBERTa or BERT folder, or Hub id")
    command.add_argument("--projection_dim", type=positive, default=512, help="width of the shared space")
    command.add_argument("--trim_vocabulary", metavar="DATASET", help="cut the vocabulary to the texts of a corpus")
    command.set_defaults(run=run_assemble)

    command = commands.add_parser(
        "teacher", help="write the model of a checkpoint with the image tower of its EMA teacher"
    )
    command.add_argument("checkpoint", metavar="STEP", type=Path, help="checkpoints/step-N of a finished run")
    command.add_argument("output", metavar="OUT", type=Path, help="new or empty folder")
    command.set_defaults(run=run_teacher)
    add_interpolate(commands)


def add_interpolate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("interpolate", help="average the weights of two models, or of several")
    command.add_argument("start", metavar="START", type=Path, help="folder of the model before fine-tuning")
    command.add_argument("tuned", metavar="TUNED", type=Path, help="folder of the tuned model")
    command.add_argument("output", metavar="OUT", type=Path, help="new or empty folder")
    shares = command.add_mutually_exclusive_group()
    shares.add_argument("--alpha", type=share, default=0.5, help="share of TUNED (default: %(default)s)")
    shares.add_argument(
        "--soup", nargs="+", default=[], type=Path, metavar="DIR", help="more models or checkpoints; all share equally"
    )
    shares.add_argument(
        "--alphas", nargs="+", type=share, metavar="A", help="shares of TUNED to measure; OUT is the best"
    )

    measured = command.add_argument_group("with --alphas")
    measured.add_argument("--dataset", metavar="DIR", help="corpus in domain: a folder or a Hub id")
    measured.add_argument("--split", help=f"split of the corpus (default: {MEASURED['split']})")
    measured.add_argument("--languages", nargs="+", metavar="CODE", help="default: every language of the split")
    measured.add_argument(
        "--benchmarks",
        nargs="+",
        metavar="NAME[=DIR]",
        help="NAME=DIR: images by class, out of domain; NAME: classes of the corpus, shown only",
    )
    measured.add_argument(
        "--choose",
        choices=("mean", "in_domain", "nearly_in_domain"),
        help="the best alpha. in_domain: highest mean recall on the corpus, over its languages. nearly_in_domain: "
        "smallest alpha with at least 99 %% of that recall. mean: highest mean of recall and zero-shot accuracy over "
        f"the folders of --benchmarks (default: {MEASURED['choose']})",
    )
    measured.add_argument("--batch_size", type=positive, help="images or texts per batch")
    command.set_defaults(run=run_interpolate)


def add_push_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="DIR", type=Path, help="folder to push; it is not changed")
    command.add_argument("repo_id", metavar="USER/NAME", type=hub_id, help="repository; created if it does not exist")
    command.add_argument("--private", action="store_true", help="make the repository private if it is new")
    command.add_argument("--revision", metavar="R", help="branch (default: main); created if it does not exist")
    command.add_argument("--create_pr", action="store_true", help="open a pull request instead")


def add_spaces(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("space", help="try a model in the browser, on this machine")
    command.add_argument(
        "source",
        metavar="DIR",
        nargs="?",
        default="outputs/demo",
        help="local folder or Hub id of a model (default: %(default)s)",
    )
    command.add_argument(
        "--gallery",
        metavar="GALLERY",
        default="demo",
        help="images to search: folder of images, index, or folder or Hub id of a corpus (default: %(default)s)",
    )
    command.add_argument("--split", help="split of a corpus (default: test, or all splits if it has no test)")
    command.add_argument("--revision", metavar="R", help="branch, tag or commit of a model on the Hub (default: main)")
    command.add_argument("--gallery_revision", metavar="R", help="branch, tag or commit of a gallery on the Hub")
    command.add_argument("--port", type=port_number, help="port of the server (default: the first free one from 7860)")
    command.set_defaults(run=run_local_space)

    command = commands.add_parser("push-space", help="push a Space that serves a model to the Hub")
    command.add_argument("repo_id", metavar="USER/SPACE", type=hub_id, help="Space; created if it does not exist")
    command.add_argument("--model", metavar="USER/NAME", type=hub_id, required=True, help="model on the Hub")
    command.add_argument(
        "--revision", default="main", help="branch, tag or commit of the model (default: %(default)s)"
    )
    command.add_argument("--gallery", metavar="USER/DATASET", required=True, help="dataset on the Hub to search")
    command.add_argument(
        "--gallery_revision",
        metavar="R",
        default="main",
        help="branch, tag or commit of the gallery (default: %(default)s)",
    )
    command.add_argument("--split", default="test", help="split of the gallery (default: %(default)s)")
    command.add_argument("--private", action="store_true", help="make the Space private if it is new")
    command.set_defaults(run=run_push_space)


def share(argument: str) -> float:
    try:
        alpha = float(argument)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise argparse.ArgumentTypeError(f"alpha is {argument}, but must be a number from 0 to 1")
    return alpha


def port_number(argument: str) -> int:
    if not argument.isdecimal() or not 1 <= int(argument) <= 65535:
        raise argparse.ArgumentTypeError(f"{argument} is not a port number from 1 to 65535")
    return int(argument)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name."""
    run_command(lambda: run(make_parser().parse_args(arguments)))


def run(parsed: argparse.Namespace) -> None:
    from transformers.utils import logging as transformers_logging  # slow to import: --help does not need it

    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub.hf_api").setLevel(logging.ERROR)  # push itself reports that nothing is new
    parsed.run(parsed)


if __name__ == "__main__":
    main()
