"""Run a function in a process that kills itself before one of its renames."""

import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

NUMBERS = count(1)


def kill_before_rename(number: int, folder: str) -> None:
    """Kill this process by SIGKILL before the rename with this number, from 1, of something in a folder."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "os.rename" and str(arguments[0]).startswith(folder) and next(NUMBERS) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def is_killed(code: str, number: int, folder: Path, *arguments: object) -> bool:
    """Run code in a new process. Return whether it was killed before the rename with this number in a folder."""
    begin = f"from tests.killed import kill_before_rename\nkill_before_rename({number}, {str(folder)!r})\n"
    command = [sys.executable, "-c", begin + code, *map(str, arguments)]
    status = subprocess.run(command, timeout=120).returncode
    assert status in (0, -signal.SIGKILL)
    return status != 0
