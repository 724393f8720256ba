"""Runs that are killed, stopped, cut short by a full disk or carried over to other processes, and resumed.

Each is compared with a run that nothing interrupted: weights, teacher, optimiser, random states and log are equal to
the last bit. The recipe has dropout, so that a step in which any random state differs would give another loss.
"""

import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from rsmclip.benchmarks.soak import RECIPE, ROOT, STEPS, Trial, differences, steps_of, stop, wait, write_recipe
from rsmclip.training.checkpoints import checkpoint_step, checkpoints, damage


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """A recipe that trains in a second, and its corpus."""
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory) -> Path:
    """The folder of a run from start to end."""
    trial = Trial(recipe, tmp_path_factory.mktemp("runs") / "uninterrupted")
    trial.finish()
    return trial.output


def stopped(trial: Trial, number: signal.Signals, step: int) -> tuple[int, str]:
    """Signals the whole session of a run, loaders too, after a step; its status and the last line it printed."""
    process = trial.start()
    wait(process, lambda: trial.steps() >= step)
    assert process.poll() is None, trial.printed()
    return stop(process, number), trial.printed().splitlines()[-1]


def test_killed_five_times_it_ends_as_if_it_had_not_been(recipe, uninterrupted, tmp_path):
    trial, rng, hits = Trial(recipe, tmp_path / "killed"), random.Random(0), []
    while len(hits) < 5 or hits.count("inside a save") < 2:
        hits += [trial.kill("training" if len(hits) in (1, 3) else "save", rng, seconds=20, within=4)]
        assert len(hits) < 10 and None not in hits, hits
        assert all(damage(checkpoint) is None for checkpoint in checkpoints(trial.output / "checkpoints"))
        assert not (trial.output / "model.safetensors").exists()
    trial.finish()
    assert differences(uninterrupted, trial.output) == []
    assert not list((trial.output / "checkpoints").glob(".*"))


def test_stopped_by_signals_it_ends_its_step_and_goes_on_later(recipe, uninterrupted, tmp_path):
    trial = Trial(recipe, tmp_path / "stopped")
    for number, step, expected in ((signal.SIGTERM, 2, 143), (signal.SIGINT, 8, 130)):
        status, line = stopped(trial, number, step)
        assert status == expected, trial.printed()
        saved = checkpoints(trial.output / "checkpoints")[-1]
        assert step <= checkpoint_step(saved) == trial.steps() < STEPS and damage(saved) is None
        assert line == (
            f"train.py: stopped by {number.name}; the run is saved in {saved}; "
            "the same command with --resume_from_checkpoint latest continues it"
        )
    trial.finish()
    assert differences(uninterrupted, trial.output) == []


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(recipe, uninterrupted, tmp_path):
    trial = Trial(recipe, tmp_path / "damaged")
    shutil.copytree(uninterrupted, trial.output)
    before, last = checkpoints(trial.output / "checkpoints")
    content = bytearray((last / "custom_checkpoint_0.pkl").read_bytes())  # the teacher
    content[len(content) // 2] ^= 1
    (last / "custom_checkpoint_0.pkl").write_bytes(content)
    log = trial.output / "train_log.jsonl"  # as of a run that was killed in the evaluation after that checkpoint
    lines = log.read_text().splitlines()
    kept = [line for line in lines if f'"step": {checkpoint_step(before)}, "validation_' not in line]
    assert len(kept) == len(lines) - 1
    log.write_text("".join(f"{line}\n" for line in kept))
    trial.finish()
    assert f"{last} is damaged: custom_checkpoint_0.pkl" in trial.printed()
    assert f"resumed from {before}" in trial.printed()
    assert differences(uninterrupted, trial.output) == []


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_the_last_checkpoint(recipe, tmp_path):
    """The system refuses files above 250 kB from the first checkpoint on, as it refuses all of them on a full disk."""
    trial = Trial(recipe, tmp_path / "full")
    process = trial.start()
    wait(process, lambda: checkpoints(trial.output / "checkpoints"))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (250_000, 250_000))
    assert process.wait() == 2, trial.printed()
    (line,) = re.findall(r"train.py: error: .*", trial.printed())
    good = checkpoints(trial.output / "checkpoints")[-1]
    assert "step-" in line and "File too large" in line
    assert "Traceback" not in trial.printed() and damage(good) is None
    assert not list((trial.output / "checkpoints").glob(".*"))


def test_one_process_goes_on_as_two_and_two_as_one(recipe, tmp_path):
    """Without dropout, since two processes draw other random numbers than one. Only one of the two gets the signal."""
    sizes = yaml.safe_load(yaml.safe_dump(RECIPE["model_config"]))
    sizes["text_config"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    sizes["vision_config"]["attention_dropout"] = 0.0
    config = tmp_path / "without_dropout.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"model_config": sizes}))
    whole, trial = Trial(config, tmp_path / "one", ("--keep_checkpoints", "99")), Trial(config, tmp_path / "carried")
    whole.finish()
    shutil.copytree(whole.output / "checkpoints", trial.output / "checkpoints")
    shutil.copy(whole.output / "train_log.jsonl", trial.output)
    for later in checkpoints(trial.output / "checkpoints")[1:]:
        shutil.rmtree(later)

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = ["--config", str(config), "--output_dir", str(trial.output), "--resume_from_checkpoint", "latest"]
    with (tmp_path / "two.txt").open("wb") as printed:
        command = [*launcher, str(ROOT / "train.py"), *options, "--cpu_threads", "1"]
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=printed, stderr=printed)
    wait(process, lambda: 6 < trial.steps() < STEPS)
    psutil.Process(process.pid).children()[1].terminate()
    said = (tmp_path / "two.txt").read_text() if process.wait() else ""
    assert process.returncode == 1 and "train.py: stopped by SIGTERM" in said, said
    assert "step-5 was written by 1 processes" in said

    assert 6 < trial.steps() < STEPS
    trial.finish()
    assert "was written by 2 processes" in trial.printed()
    losses = [[step["loss"] for step in steps_of(each.output) if "loss" in step] for each in (whole, trial)]
    assert len(losses[0]) == STEPS and losses[1] == pytest.approx(losses[0], abs=1e-4)
