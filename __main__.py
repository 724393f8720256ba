"""The entry point `rsmclip`, also `python -m rsmclip`. Each part parses its own options."""

import sys

from rsmclip.core.command_line import run_command

PARTS = {
    "data": "build, translate and audit corpora; draw the demo",
    "train": "train a model; every field of the configuration is an option",
    "eval": "evaluate and compare models",
    "index": "embed a folder of images once",
    "search": "search an index by text or image",
    "classify": "classify a folder of images by labels of your own",
    "hub": "convert, export, show and publish a model",
}
USAGE = f"usage: rsmclip {{{','.join(PARTS)}}} … (rsmclip PART --help lists the options of a part)"


def main(arguments: list[str] | None = None) -> None:
    """Run `rsmclip`. Bad input ends with one line and status 2."""
    run_command(lambda: run_part(sys.argv[1:] if arguments is None else arguments))


def run_part(arguments: list[str]) -> None:
    """Run the part that the first argument names. Only this part is imported."""
    part, *arguments = arguments or ["--help"]
    if part in ("-h", "--help"):
        print(USAGE + "\n\n" + "\n".join(f"  {name:10}{text}" for name, text in PARTS.items()))
    elif part == "data":
        from rsmclip.data.__main__ import main as data

        data(arguments)
    elif part == "eval":
        from rsmclip.eval.__main__ import main as evaluate

        evaluate(arguments)
    elif part in ("index", "search", "classify"):
        from rsmclip.eval.image_commands import main as images

        images(part, arguments)
    elif part == "hub":
        from rsmclip.hub.__main__ import main as hub

        hub(arguments)
    elif part == "train":
        train(arguments)
    else:
        print(f"error: no part {part!r}; {USAGE}", file=sys.stderr)
        sys.exit(2)


def train(arguments: list[str]) -> None:
    """Run train.py, or print its options."""
    if {"-h", "--help"} & set(arguments):  # train.py would import torch
        from rsmclip.training.command_line import ConfigParser

        ConfigParser("rsmclip train").print_help()
        return
    from rsmclip.train import main

    main(arguments, "rsmclip train")


if __name__ == "__main__":
    main()
