"""What the package's command lines share."""

import argparse


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str):
        """Prints one line and exits with status 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")
