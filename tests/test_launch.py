"""Several processes on a CPU, and the files that accelerate is launched with."""

import os
from pathlib import Path

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file

from rsmclip.training.config import DEFAULT_CONFIG
from rsmclip.training.launch import STARTED_BY_A_LAUNCHER, requested_processes, start_processes_on_cpu

LAUNCH_FILES = sorted((DEFAULT_CONFIG.parent / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize(
    "command, expected",
    [
        ("python .venv/bin/accelerate launch --num_processes 2 --cpu train.py --max_train_steps 20", 2),
        ("python -m accelerate.commands.accelerate_cli launch --cpu --num_processes=3 train.py", 3),
        ("python .venv/bin/accelerate launch --cpu train.py", 1),
        ("python .venv/bin/accelerate launch --cpu train.py --num_processes 4", 1),  # train.py's own, and its error
        ("python train.py --num_processes 4", 1),
        ("bash launch", 1),
    ],
)
def test_the_number_of_processes_is_read_from_the_launcher(command, expected):
    assert requested_processes(command.split()) == expected


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_accelerate_takes_every_launch_file(path: Path):
    config = load_config_from_file(str(path))  # names that it doesn't know are errors
    assert config.mixed_precision in ("no", "bf16", "fp16")
    assert (config.dynamo_config.get("dynamo_backend", "no") != "no") == (path.stem == "compile")


def test_the_first_process_of_a_container_starts_no_others(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(psutil.Process, "parent", lambda process: None)  # as psutil says of process 1
    for name in STARTED_BY_A_LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    started = []
    monkeypatch.setattr(os, "execv", lambda *command: started.append(command))
    start_processes_on_cpu()
    assert started == []
