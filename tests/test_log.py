"""The log of a run that was killed: it has every step once."""

import json

import pytest
import torch
from accelerate import Accelerator

from rsmclip.training.best import BestStep
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


def validation(step: int, recall: float) -> dict:
    return {"step": step, "validation_mean_recall": recall, "validation": {"en": {"mean_recall": recall}}}


def test_a_resumed_run_knows_the_best_step_of_those_that_have_a_checkpoint(tmp_path):
    lines = [validation(step, recall) for step, recall in ((10, 9.0), (20, 3.0), (30, 5.0), (40, 4.0), (50, 8.0))]
    (tmp_path / "train_log.jsonl").write_bytes(as_bytes(lines))
    for step in (20, 30, 50):
        (tmp_path / "checkpoints" / f"step-{step}").mkdir(parents=True)
    config = TrainingConfig(output_dir=str(tmp_path), best_figure="en/mean_recall")
    for first_step, best in ((50, BestStep(50, 8.0)), (40, BestStep(30, 5.0, waited=1))):
        log = TrainingLog(config, Accelerator(cpu=True), first_step, 60)
        assert log.evaluated == first_step and log.best == best
        log.bar.close()


def test_an_evaluation_is_written_with_its_means_and_benchmarks(tmp_path):
    config = TrainingConfig(output_dir=str(tmp_path), best_figure="aid/zero_shot_accuracy")
    log = TrainingLog(config, Accelerator(cpu=True), 0, 60)
    recalls = {"en": {"mean_recall": 6.0, "images": 9}, "pt": {"mean_recall": 4.0}}
    log.evaluation(7, {"corpus": recalls, "aid": {"en": {"zero_shot_accuracy": 70.0}}}, seconds=1.0)
    log.bar.close()
    (record,) = log.read()
    assert record == {
        "step": 7,
        "validation_mean_recall": 5.0,
        "validation_aid/zero_shot_accuracy": 70.0,
        "validation": {"en": {"mean_recall": 6.0}, "pt": {"mean_recall": 4.0}},
        "benchmarks": {"aid": {"en": {"zero_shot_accuracy": 70.0}}},
    }
    assert log.best == BestStep(7, 70.0)


def test_the_bar_moves_every_step_and_fits_80_columns_with_loss_rate_and_remaining_time(tmp_path):
    config = TrainingConfig(output_dir=str(tmp_path), max_train_steps=20_000, logging_steps=4, batch_size=4096)
    log = TrainingLog(config, Accelerator(cpu=True), 9_990, 60)
    log.start -= 40_000
    transfers = []
    log.accelerator.reduce = lambda table, reduction: transfers.append(len(table)) or table
    seen = []
    for step in range(9_991, 9_997):
        values = {name: torch.tensor(12.3456) for name in ("loss", "contrastive", "distillation")}
        log.step(step, values | {"skipped": torch.tensor(0.0)}, {}, {"image_ids": [], "undecodable": []})
        seen.append((log.bar.n, len(transfers)))
    assert seen == [(9_991, 0), (9_992, 1), (9_993, 1), (9_994, 1), (9_995, 1), (9_996, 2)]
    shown = {"ncols": 80, "initial": 0, "elapsed": 40_000.0, "rate": None}
    line = log.bar.format_meter(**log.bar.format_dict | shown)
    assert len(line) <= 80 and line.endswith("9996/20000 [11:06:40<11:07:12, loss 12.346, 1,024 pairs/s]")
    log.bar.close()


def test_control_characters_of_an_image_id_do_not_reach_the_terminal(tmp_path, capsys):
    log = TrainingLog(TrainingConfig(output_dir=str(tmp_path)), Accelerator(cpu=True), 0, 1_000)
    log.new_undecodable = ["a\x1b[2J\r"]
    log.count_undecodable()
    log.bar.close()
    (record,) = map(json.loads, (tmp_path / "train_log.jsonl").read_text().splitlines())
    assert record["undecodable"] == ["a\x1b[2J\r"]
    shown = capsys.readouterr()
    assert "a\\x1b[2J\\r" in shown.out + shown.err and "\x1b[2J" not in shown.out + shown.err
