"""Shared parts of the command lines: one-line usage errors, and the exit status of a command."""

import argparse
import sys
from collections.abc import Callable

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from tqdm import tqdm

from rsmclip.core.errors import UserError


def run_command(command: Callable[[], object], name: str = "") -> None:
    """
    Run a command and end the process with the exit status that all commands of this package share.

    A [`UserError`] is printed as one line, with exit status 2. Ctrl-C gives status 130. Any other exception is a bug
    of this project and shows its traceback.

    Args:
        command (`Callable`): The command.
        name (`str`, *optional*): Name of the program, put before its lines.
    """
    prefix = f"{name}: " if name else ""
    try:
        command()
    except UserError as error:
        tqdm.write(
            f"{prefix}{error.label}{' '.join(str(error).split())}", file=sys.stderr
        )  # keeps progress bars whole
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        tqdm.write(f"{prefix}interrupted", file=sys.stderr)
        sys.exit(130)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose usage errors are one line."""

    def error(self, message: str):
        """Print one line and exit with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def hub_id(argument: str) -> str:
    """Check the id of a repository on the Hub; a type for `add_argument`."""
    try:
        validate_repo_id(argument)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return argument
