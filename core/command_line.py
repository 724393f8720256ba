"""Shared parts of the command lines: usage errors of one line, types of arguments, exit status."""

import argparse
import atexit
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from tqdm import tqdm

from rsmclip.core.errors import UserError
from rsmclip.core.files import expand_home
from rsmclip.core.tokens import hide_tokens

LONGEST_MESSAGE = 2000  # characters of an error line


class OutputError(Exception):
    """Standard output cannot be written. It is no `OSError`, which code that prints may catch for another reason."""


class Output(io.TextIOWrapper):
    """Standard output that raises [`OutputError`]."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {error}") from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {error}") from error


def run_command(command: Callable[[], object], name: str = "") -> None:
    """
    Run a command, and end the process with the exit status that all commands of this package share.

    A [`UserError`] is printed as one line, with status 2. Standard output on a full disk is an error too. Ctrl-C gives
    status 130. If the reader of standard output has ended (`rsmclip data --help | head -1`), the status is 141. Any
    other exception is a bug of this project and shows its traceback.

    Args:
        command (`Callable`): The command.
        name (`str`, *optional*): Name of the program, printed before an error line.
    """
    status = 0
    try:
        run_and_report(command, name)
    except SystemExit as end:
        if not in_group():
            raise
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as bug:
        if not in_group():
            raise
        sys.excepthook(type(bug), bug, bug.__traceback__)
        status = 1
    if in_group():
        end_process(status)


def in_group() -> bool:
    """Return whether this process has joined a group of processes of `torch.distributed`."""
    distributed = sys.modules.get("torch.distributed")  # most commands do not need torch
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def end_process(status: int) -> NoReturn:
    """
    End a process that has joined a group, without the end of the interpreter.

    After an exchange, gloo's threads free its tensors, and need Python's lock (the GIL) for it. While the interpreter
    ends, they abort the process, and if DDP holds the last reference to the group, they make it hang. So exit handlers
    run, but no thread is waited for.
    """
    atexit._run_exitfuncs()  # what multiprocessing and others do at the end
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(status)


def run_and_report(command: Callable[[], object], name: str) -> None:
    """Run a command. Its errors are printed and become `SystemExit`."""
    prefix = f"{name}: " if name else ""
    if sys.stdout is None:  # closed, as by `>&-`
        sys.stdout = io.StringIO()
    if sys.stdout is sys.__stdout__:
        # The encoding of the terminal may lack letters.
        kept = {name: getattr(sys.stdout, name) for name in ("encoding", "line_buffering", "write_through")}
        sys.stdout = Output(sys.stdout.buffer, errors="backslashreplace", **kept)
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # a closed pipe or a full disk must fail here, not when the interpreter ends
    except UserError as error:
        text = hide_tokens(str(error))  # a server may repeat one
        message = " ".join(text[:LONGEST_MESSAGE].split())  # it may quote a file
        shortened = "…" * (len(text) > LONGEST_MESSAGE)
        # tqdm moves progress bars below the line.
        tqdm.write(printable(f"{prefix}{error.label}{message}{shortened}"), file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt as stop:
        tqdm.write(prefix + ": ".join(filter(None, ["interrupted", str(stop)])), file=sys.stderr)
        sys.exit(130)
    except (OutputError, BrokenPipeError) as error:
        # The interpreter flushes standard output at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if BrokenPipeError in (type(error), type(error.__cause__)):
            sys.exit(128 + 13)  # as if SIGPIPE had ended the process
        tqdm.write(f"{prefix}{UserError.label}{error}", file=sys.stderr)
        sys.exit(UserError.exit_status)


class OneLineParser(argparse.ArgumentParser):
    """A parser with usage errors of one line. `~/` at the beginning of an argument or after `=` is the home folder."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: object = None):
        """Parse arguments, as `argparse` does."""
        return super().parse_known_args([*map(expand_home, sys.argv[1:] if args is None else args)], namespace)

    def error(self, message: str):
        """Print one line and exit with status 2."""
        self.exit(2, printable(f"error: {message} (see {self.prog} --help)") + "\n")


def printable(text: str) -> str:
    """Return a text for one line of a terminal: control characters and bytes that are not UTF-8 are escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def hub_id(argument: str) -> str:
    """Check the id of a repository on the Hub; a type for `add_argument`."""
    try:
        validate_repo_id(argument)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return argument


def whole_number(argument: str, least: int = 0) -> int:
    """Parse a whole number of at least `least`; a type for `add_argument`."""
    if not argument.isdecimal() or int(argument) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {argument!r}")
    return int(argument)


def png_file(argument: str) -> Path:
    """Check the name of a picture to write; a type for `add_argument`."""
    if not argument.lower().endswith(".png") or Path(argument).is_dir():
        raise argparse.ArgumentTypeError(f"expected a file name that ends in .png, got {argument!r}")
    return Path(argument)


def positive(argument: str) -> int:
    """Parse a whole number of at least 1; a type for `add_argument`."""
    return whole_number(argument, least=1)
