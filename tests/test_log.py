"""The log of a run that was killed: it has every step once."""

import json

import pytest
from accelerate import Accelerator

from rsmclip.training.config import TrainingConfig
from rsmclip.training.log import TrainingLog

LINES = [
    {"step": 1, "loss": 4.5, "seconds": 0.5},
    {"step": 1, "undecodable": ["demo/train_é"]},
    {"step": 2, "loss": 4.25, "seconds": 0.75},
    {"step": 3, "loss": 4.0, "seconds": 1.0},
]


def resumed(folder, content: bytes, first_step: int) -> TrainingLog:
    (folder / "train_log.jsonl").write_bytes(content)
    return TrainingLog(TrainingConfig(output_dir=str(folder)), Accelerator(cpu=True), first_step, 60)


def as_bytes(lines: list[dict]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


@pytest.mark.parametrize("written", range(len(as_bytes(LINES[:3])), len(as_bytes(LINES)) + 1))
def test_a_kill_while_a_line_is_written_loses_that_line_only(tmp_path, written):
    log = resumed(tmp_path, as_bytes(LINES)[:written], first_step=2)
    assert (tmp_path / "train_log.jsonl").read_bytes() == as_bytes(LINES[:3])
    assert log.seconds_before == 0.75 and log.undecodable == {"demo/train_é"}
    log.bar.close()


def test_a_character_that_was_cut_in_two_is_no_error(tmp_path):
    whole = as_bytes(LINES[:2])
    resumed(tmp_path, whole[: whole.index("é".encode()) + 1], first_step=2).bar.close()
    assert (tmp_path / "train_log.jsonl").read_bytes() == as_bytes(LINES[:1])
