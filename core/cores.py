"""The number of cores that a process may use."""

import os


def cpu_count() -> int:
    """Return how many cores this process is bound to: a job of Slurm may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
