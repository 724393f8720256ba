"""`UserError`, for bad input and failures outside this project, and conversions of other exceptions to it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """
    Bad input, or a failure of the machine or the Hub, that the user can change.

    Raise it where the cause is known. The message says in one line what is wrong, where (file, row, field, value) and
    what to do. Commands print it and exit with status 2; any other exception is a bug and shows its traceback.

    A subclass may have another `exit_status` and another `label`, which is printed before the message.
    """

    exit_status = 2
    label = "error: "


@contextmanager
def user_errors(*kinds: type[Exception], prefix: str = "") -> Iterator[None]:
    """
    Raise exceptions of other libraries as a [`UserError`] of one line.

    Put it around the one call that opens, reads, writes, loads or sends. An exception in code of this project is a bug
    and must keep its traceback.

    Args:
        kinds (`type[Exception]`): The exceptions to convert.
        prefix (`str`, *optional*): What failed and where, put before the exception's own message.
    """
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        message = " ".join(str(error).split())
        if not message or isinstance(error, LookupError | TypeError | AttributeError):  # alone, they say little
            message = f"{type(error).__name__}: {message}".removesuffix(": ")
        raise UserError(f"{prefix}: {message}" if prefix else message) from error


@contextmanager
def foreign_errors(prefix: str) -> Iterator[None]:
    """
    Raise every exception that is not raised in this package as a [`UserError`], see [`user_errors`].

    For libraries that fail in any way at a file that they do not expect. A bug in our code keeps its traceback; the
    remote code of a model is ours, too.
    """
    try:
        with user_errors(OSError, ValueError, ImportError, prefix=prefix):
            yield
    except UserError:
        raise
    except Exception as error:
        *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
        module = innermost.f_globals.get("__name__", "")  # an environment may lie in our folder
        if module.partition(".")[0] in ("rsmclip", "__main__") or module.endswith("_rsmclip"):
            raise
        with user_errors(Exception, prefix=prefix):
            raise


@contextmanager
def extra(name: str) -> Iterator[None]:
    """
    Raise [`UserError`] with the command that installs an extra, if an import of one of its packages fails.

    Args:
        name (`str`): Name of the extra in pyproject.toml.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "rsmclip":
            raise
        raise UserError(f"{error}: pip install -e '.[{name}]'") from error
