"""Runs that are killed, stopped, ended by a full disk or resumed in another number of processes.

Each run is compared with an uninterrupted run: weights, teacher, optimizer, random states and log are equal to the
last bit. The recipe has dropout, so that a step with a different random state would give a different loss.
"""

import copy
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rsmclip.benchmarks.soak import RECIPE, ROOT, STEPS, Trial, differences, steps_of, stop, wait, write_recipe
from rsmclip.training.checkpoints import checkpoint_step, checkpoints, damage


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory) -> Path:
    trial = Trial(recipe, tmp_path_factory.mktemp("runs") / "uninterrupted")
    trial.finish()
    return trial.output


def test_a_run_that_is_killed_five_times_ends_like_an_uninterrupted_one(recipe, uninterrupted, tmp_path):
    trial, rng, hits = Trial(recipe, tmp_path / "killed"), random.Random(0), []
    while len(hits) < 5 or hits.count("inside a save") < 2:
        hits += [trial.kill("training" if len(hits) in (1, 3) else "save", rng, seconds=20, within=4)]
        assert len(hits) < 10 and None not in hits, hits
        assert all(damage(checkpoint) is None for checkpoint in checkpoints(trial.output / "checkpoints"))
        assert not (trial.output / "model.safetensors").exists()
    trial.finish()
    assert differences(uninterrupted, trial.output) == []
    assert not list((trial.output / "checkpoints").glob(".*"))


def test_a_run_that_is_stopped_by_signals_ends_its_step_and_resumes(recipe, uninterrupted, tmp_path):
    trial = Trial(recipe, tmp_path / "stopped")
    for number, step, expected in ((signal.SIGTERM, 2, 143), (signal.SIGINT, 8, 130)):
        process = trial.start()
        wait(process, lambda step=step: trial.steps() >= step)
        assert process.poll() is None, trial.printed()
        assert stop(process, number) == expected, trial.printed()  # the whole session: loader processes too
        line = trial.printed().splitlines()[-1]
        saved = checkpoints(trial.output / "checkpoints")[-1]
        assert step <= checkpoint_step(saved) == trial.steps() < STEPS and damage(saved) is None
        assert number.name in line and str(saved) in line and "--resume_from_checkpoint latest" in line
    trial.finish()
    assert differences(uninterrupted, trial.output) == []


def test_a_damaged_checkpoint_is_named_and_the_run_resumes_from_the_one_before(recipe, uninterrupted, tmp_path):
    trial = Trial(recipe, tmp_path / "damaged")
    shutil.copytree(uninterrupted, trial.output)
    before, last = checkpoints(trial.output / "checkpoints")
    content = bytearray((last / "teacher.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (last / "teacher.safetensors").write_bytes(content)
    log = trial.output / "train_log.jsonl"  # as if the run was killed in the evaluation after that checkpoint
    lines = log.read_text().splitlines()
    kept = [line for line in lines if f'"step": {checkpoint_step(before)}, "validation_' not in line]
    assert len(kept) == len(lines) - 1
    log.write_text("".join(f"{line}\n" for line in kept))
    trial.finish()
    named = [line for line in trial.printed().splitlines() if "teacher.safetensors" in line]
    assert named and str(last) in named[0] and str(before) in trial.printed()
    assert differences(uninterrupted, trial.output) == []


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_the_last_checkpoint(recipe, tmp_path):
    trial = Trial(recipe, tmp_path / "full")
    process = trial.start()
    wait(process, lambda: checkpoints(trial.output / "checkpoints"))
    # From the first checkpoint on, the system refuses files above 250 kB, as a full disk refuses all files.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (250_000, 250_000))
    assert process.wait() == 2, trial.printed()
    (line,) = [line for line in trial.printed().splitlines() if "error: " in line]
    good = checkpoints(trial.output / "checkpoints")[-1]
    assert "File too large" in line and str(good) in line
    assert "Traceback" not in trial.printed() and damage(good) is None
    assert not list((trial.output / "checkpoints").glob(".*"))


def test_a_run_of_one_process_resumes_in_two_and_a_run_of_two_in_one(tmp_path):
    sizes = copy.deepcopy(RECIPE["model_config"])  # without dropout, which differs between one process and two
    sizes["text_config"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    sizes["vision_config"]["attention_dropout"] = 0.0
    config = write_recipe(tmp_path, model_config=sizes)
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
    psutil.Process(process.pid).children()[1].terminate()  # one of the two
    status, printed = process.wait(), (tmp_path / "two.txt").read_text()
    assert status == 1 and "SIGTERM" in printed and "step-5" in printed, printed

    assert 6 < trial.steps() < STEPS
    trial.finish()
    losses = [[step["loss"] for step in steps_of(each.output) if "loss" in step] for each in (whole, trial)]
    assert len(losses[0]) == STEPS and losses[1] == pytest.approx(losses[0], abs=1e-4)
