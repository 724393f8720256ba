"""The entry point `rsmclip`: `rsmclip data …`, `rsmclip train …`, `rsmclip eval …`, `rsmclip hub …`.

`python -m rsmclip …` is equivalent. Each part parses its own options.
"""

import sys

PARTS = {
    "data": "build, translate and audit corpora; draw the demo",
    "train": "train a model; every field of the configuration is an option",
    "eval": "evaluate, compare and search with a model",
    "hub": "convert, export, show and publish a model",
}
USAGE = f"usage: rsmclip {{{','.join(PARTS)}}} … (rsmclip PART --help lists the options of a part)"


def main(arguments: list[str] | None = None) -> None:
    """Run the part that the first argument names."""
    part, *arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if part in ("-h", "--help"):
        print(USAGE + "\n\n" + "\n".join(f"  {name:8}{text}" for name, text in PARTS.items()))
    elif part == "data":
        from rsmclip.data.__main__ import main as data

        data(arguments)
    elif part == "eval":
        from rsmclip.eval.__main__ import main as evaluate

        evaluate(arguments)
    elif part == "hub":
        from rsmclip.hub.__main__ import main as hub

        hub(arguments)
    elif part == "train":
        train(arguments)
    else:
        print(f"error: no part {part!r}; {USAGE}", file=sys.stderr)
        sys.exit(2)


def train(arguments: list[str]) -> None:
    """Run train.py; print its help without importing torch."""
    if {"-h", "--help"} & set(arguments):
        from rsmclip.training.command_line import ConfigParser

        ConfigParser("rsmclip train").print_help()
        return
    from rsmclip.train import main

    main(arguments, "rsmclip train")


if __name__ == "__main__":
    main()
