"""`rsmclip train`: train.py, with a `--help` that does not import torch."""

import sys

from rsmclip.training.command_line import ConfigParser

PROG = "rsmclip train"


def main(arguments: list[str] | None = None) -> None:
    """Run train.py."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        ConfigParser(PROG).print_help()
        return
    from rsmclip.train import main as train

    train(arguments, PROG)


if __name__ == "__main__":
    main()
