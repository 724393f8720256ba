"""The date, commit, machine, versions and command that a benchmark records with its figures."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def describe_run(command: str, *packages: str) -> dict:
    """
    Return the date, commit, machine, versions and command of a running benchmark.

    Args:
        command (`str`): The command that makes the result again.
        packages (`str`): Distributions whose versions are recorded. With torch among them, the GPU is recorded too.
    """
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        **({"commit": name} if (name := commit()) else {}),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        **({"accelerator": name} if "torch" in packages and (name := accelerator()) else {}),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def commit() -> str | None:
    """Return the commit of the code, with `-dirty` if files differ from it. Outside a repository return `None`."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def accelerator() -> str | None:
    import torch  # imported here because it takes seconds and memory, which a benchmark may measure

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
