"""What the package's command lines share."""

import argparse

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str):
        """Prints one line and exits with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def hub_id(argument: str) -> str:
    """The id of a repository, checked before anything is built for it."""
    try:
        validate_repo_id(argument)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return argument
