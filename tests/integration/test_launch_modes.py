"""The ways of accelerate's launcher, each in whole runs that are held to a plain one: `configs/accelerate/`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.conftest import TINY

ROOT = Path(__file__).parents[2]
STEPS = 8


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, corpus_folder) -> Path:
    """A recipe that trains in seconds."""
    sizes = {"model_config": TINY, "vocab_size": 1000, "short_side": 64, "num_local_views": 2, "local_size": 16}
    run = {"max_train_steps": STEPS, "checkpoint_steps": 4, "evaluation_steps": 100, "logging_steps": 1}
    data = {"dataset": str(corpus_folder), "batch_size": 12, "num_workers": 0, "cpu_threads": 1}
    data["run_card_examples"] = False
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(sizes | run | data | {"learning_rate": 0.001, "warmup_steps": 2}))
    return path


def launch(recipe: Path, output: Path, how: str, *launcher: object, script: str = "train.py", options: tuple = ()):
    """A run by `accelerate launch` with a file of configs/accelerate/, in float32."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--mixed_precision", "no"]
    command += ["--config_file", ROOT / "configs" / "accelerate" / f"{how}.yaml", *launcher, ROOT / script]
    command += ["--config", recipe, "--output_dir", output, *options]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT, timeout=300)


def sharded(recipe: Path, output: Path, *options: object):
    return launch(
        recipe,
        output,
        "fsdp",
        "--num_processes",
        2,
        "--main_process_port",
        0,
        script="tests/sharded_on_cpu.py",
        options=options,
    )


def finish(run: subprocess.CompletedProcess, output: Path) -> list[float]:
    """The losses of a run that has come to its end."""
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def from_its_first_checkpoint(folder: Path, copy: Path) -> Path:
    """A copy of a run as it was halfway."""
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "checkpoints" / f"step-{STEPS}")
    return copy


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory) -> tuple[Path, list[float]]:
    """A run of one process, uncompiled: its folder and its losses."""
    output = tmp_path_factory.mktemp("plain") / "model"
    return output, finish(launch(recipe, output, "cpu"), output)


def test_chunks_in_two_processes_train_as_one_process_does(recipe, plain, tmp_path):
    options = ("--gradient_accumulation_chunks", 3, "--loss_chunk_size", 2)
    run = launch(recipe, tmp_path / "ddp", "cpu", "--cpu", "--num_processes", 2, options=options)
    assert finish(run, tmp_path / "ddp") == pytest.approx(plain[1], abs=1e-4)


def test_fsdp_trains_saves_and_resumes_as_one_process_does(recipe, plain, tmp_path):
    losses = finish(sharded(recipe, tmp_path / "fsdp"), tmp_path / "fsdp")
    assert losses == pytest.approx(plain[1], abs=1e-4)
    weights, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "fsdp", plain[0]))
    assert {name: weight.shape for name, weight in weights.items()} == {n: w.shape for n, w in expected.items()}
    assert all(weights[name].allclose(expected[name], atol=1e-4) for name in weights)
    again = from_its_first_checkpoint(tmp_path / "fsdp", tmp_path / "again")
    assert finish(sharded(recipe, again, "--resume_from_checkpoint", "latest"), again) == pytest.approx(
        losses, abs=1e-4
    )
    assert all(
        weight.allclose(weights[name], atol=1e-5) for name, weight in load_file(again / "model.safetensors").items()
    )


def test_what_does_not_go_together_is_refused_in_one_line(recipe, tmp_path):
    def refusal(run: subprocess.CompletedProcess) -> str:
        assert run.returncode != 0 and not (tmp_path / "refused").exists()
        return next(line for line in run.stderr.splitlines() if "train.py: error: " in line)

    lora = ("--lora", '{"r": 4, "target_modules": ["q_proj"]}')
    assert "lora does not go with FSDP" in refusal(sharded(recipe, tmp_path / "refused", *lora))
    assert "FSDP needs GPUs" in refusal(launch(recipe, tmp_path / "refused", "fsdp", "--num_processes", 1))
    fp16 = ("--mixed_precision", "fp16")
    assert "fp16 needs GPUs" in refusal(launch(recipe, tmp_path / "refused", "cpu", options=fp16))


def test_a_compiled_run_trains_as_a_plain_one_and_goes_on_uncompiled(recipe, plain, tmp_path):
    backend = ("--dynamo_backend", "aot_eager")  # traces and differentiates as inductor does, and builds nothing
    run = launch(recipe, tmp_path / "compiled", "compile", *backend)
    assert finish(run, tmp_path / "compiled") == pytest.approx(plain[1], abs=1e-4)
    assert (
        load_file(tmp_path / "compiled" / "model.safetensors").keys()
        == load_file(plain[0] / "model.safetensors").keys()
    )
    resumed = ("--resume_from_checkpoint", "latest")
    again = from_its_first_checkpoint(tmp_path / "compiled", tmp_path / "again")
    assert finish(launch(recipe, again, "cpu", options=resumed), again) == pytest.approx(plain[1], abs=1e-4)
    other = from_its_first_checkpoint(plain[0], tmp_path / "other")
    assert finish(launch(recipe, other, "compile", *backend, options=resumed), other) == pytest.approx(
        plain[1], abs=1e-4
    )


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & echo $! >> "$LOG/pids"; pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; status=$?; (( status > highest )) && highest=$status; done
exit $((highest))
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> "$LOG/requeued"; fi
"""


def slurm_script(folder: Path, srun: str) -> Path:
    """The script of the docs as a job, with a folder of programs in place of SLURM's."""
    script = re.search(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)[1]
    for name, text in (("srun", srun), ("scontrol", SCONTROL), ("job.sh", script)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder / "job.sh"


@pytest.mark.parametrize("checkpoint, restarts, option", [
    (None, None, None),
    (None, "1", "--overwrite_output_dir"),  # else what the first start has left would be another run's model
    ("step-4", "1", "--resume_from_checkpoint latest"),
    ("step-4", None, "--resume_from_checkpoint latest"),
])  # fmt: skip
def test_a_slurm_job_that_is_queued_again_starts_anew_or_goes_on(tmp_path, checkpoint, restarts, option):
    job = slurm_script(tmp_path, '#!/bin/bash\necho "${@:5}"\n')
    (tmp_path / "run" / "checkpoints" / (checkpoint or "")).mkdir(parents=True)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path), "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "here", "OUTPUT": str(tmp_path / "run"), "DATASET": "corpus"}  # fmt: skip
    environment |= {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    said = subprocess.run([job], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith(option or "--mixed_precision bf16")


def test_the_slurm_script_of_the_docs_stops_with_a_checkpoint_and_goes_on(recipe, tmp_path):
    slurm_script(tmp_path, SRUN)
    fields = yaml.safe_load(recipe.read_text()) | {"max_train_steps": 40, "mixed_precision": "no"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields))
    environment = os.environ | {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}", "LOG": str(tmp_path),
        "SLURM_NTASKS": "2", "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "TMPDIR": str(tmp_path),
        "CONFIG": str(tmp_path / "recipe.yaml"), "DATASET": fields["dataset"], "OUTPUT": str(tmp_path / "run"),
        "PRECISION": "no"}  # fmt: skip
    log = tmp_path / "run" / "train_log.jsonl"
    with (tmp_path / "said").open("w") as said:
        job = subprocess.Popen([tmp_path / "job.sh"], cwd=ROOT, env=environment, stdout=said, stderr=said)
        while not (log.is_file() and log.read_text().count("\n") >= 2):
            assert job.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.01)
        for pid in (tmp_path / "pids").read_text().split():
            os.kill(int(pid), signal.SIGTERM)  # as SLURM signals every process of a step
        assert job.wait(timeout=120) == 143, (tmp_path / "said").read_text()
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n"
    done = log.read_text().count("\n")
    again = subprocess.run(
        [tmp_path / "job.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert again.returncode == 0 and 1 < done < 40 and f"step-{done}" in again.stdout, again.stderr
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 41))
