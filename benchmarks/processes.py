"""Run command lines: wait for one at a signal, or measure time and memory of all of its processes."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

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


def run_training(command: Sequence[str], **options: object) -> int:
    """
    Run a training and return its exit status, or 128 + the number of the signal that this process received.

    At Ctrl-C or SIGTERM the training gets SIGTERM, and this function waits until it has saved its checkpoint.
    `subprocess.run` would kill the training at Ctrl-C, and leave it alone in the background at SIGTERM.

    Args:
        command (`Sequence[str]`): Command line.
        options (`dict`): Options of `subprocess.Popen`.
    """
    received = 0
    process: subprocess.Popen | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = number
        if process is not None:
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(command, **options)
        if received:  # while it started
            process.send_signal(signal.SIGTERM)
        process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received if received else process.returncode


def tree_memory(process: psutil.Process) -> int:
    """Return the bytes of memory of a process and its children. On Linux, a page that they share counts once."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = each.memory_full_info() if psutil.LINUX else each.memory_info()
                total += getattr(memory, "pss", memory.rss)
    return total
