"""Run a command line and measure its time and the memory of all of its processes."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from rsmclip.core.errors import UserError

INTERVAL = 0.5  # seconds between looks at the processes; a look at 10 GB takes a few hundredths of a second


def measured(
    command: Sequence[str], printed: Path, stop_when: Callable[[], bool] | None = None, status: int = 0
) -> dict:
    """
    Run a command to its end. Returns its `seconds` and the `peak_bytes` of memory of its process tree.

    Args:
        command (`Sequence[str]`): Command line.
        printed (`Path`): File for the output of the command.
        stop_when (`Callable`, *optional*): The command gets SIGTERM, once, as soon as this returns true.
        status (`int`, *optional*, defaults to 0): Exit status to expect.

    Raises:
        [`UserError`]: The command ended with another status.
    """
    began, peak = time.monotonic(), 0
    with printed.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    tree = psutil.Process(process.pid)
    try:
        while process.poll() is None:
            peak = max(peak, tree_memory(tree))
            if stop_when is not None and stop_when():
                process.send_signal(signal.SIGTERM)
                stop_when = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERVAL)
    finally:
        process.kill()
    if process.returncode != status:
        last = (printed.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[-1]
        raise UserError(f"{printed.stem} ended with status {process.returncode}, not {status}: {last}; see {printed}")
    return {"seconds": round(time.monotonic() - began, 1), "peak_bytes": peak}


def tree_memory(process: psutil.Process) -> int:
    """Return the bytes of memory of a process and its children. On Linux, a page that they share counts once."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = each.memory_full_info() if psutil.LINUX else each.memory_info()
                total += getattr(memory, "pss", memory.rss)
    return total
