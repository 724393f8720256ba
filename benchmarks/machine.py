"""What a result needs beside its figures: when, where and with which versions it was measured."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def describe_run(command: str, *packages: str) -> dict:
    """
    Date, machine, versions and command of a benchmark that is running.

    Args:
        command (`str`): How to make the result again.
        packages (`str`): Distributions whose versions matter. Where torch is one of them, its accelerator is named.
    """
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        **({"accelerator": name} if "torch" in packages and (name := accelerator()) else {}),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def accelerator() -> str | None:
    """Name of the first GPU that torch sees."""
    import torch  # not before a result needs it: it takes seconds and memory

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def processor() -> str:
    """Name of the processor, where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
