"""Whole runs with the files of configs/accelerate/ and the SLURM script of docs/; all train as one process does."""

import contextlib
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

from tests.conftest import TINY_RUN

ROOT = Path(__file__).parents[2]
STEPS = 8
RESUME = ("--resume_from_checkpoint", "latest")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, corpus_folder) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    fields = {"dataset": str(corpus_folder), "max_train_steps": STEPS, "num_workers": 0, "freeze_prototypes_steps": 4}
    path.write_text(yaml.safe_dump(TINY_RUN | fields))
    return path


def launch(how: str, *arguments: object) -> subprocess.CompletedProcess:
    file = ROOT / "configs" / "accelerate" / f"{how}.yaml"
    launcher = ("-m", "accelerate.commands.accelerate_cli", "launch", "--mixed_precision", "no", "--config_file", file)
    command = [sys.executable, *map(str, (*launcher, *arguments))]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def training(recipe: Path, output: Path, *options: object) -> tuple:
    return (ROOT / "train.py", "--config", recipe, "--output_dir", output, *options)


def sharded(recipe: Path, output: Path, *options: object) -> subprocess.CompletedProcess:
    _, *arguments = training(recipe, output, *options)
    processes = ("--num_processes", 2, "--main_process_port", 0)
    return launch("fsdp", *processes, ROOT / "tests" / "sharded_on_cpu.py", *arguments)


def finish(run: subprocess.CompletedProcess, output: Path) -> list[float]:
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def copy_to_resume(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "checkpoints" / f"step-{STEPS}")
    return copy


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory) -> tuple[Path, list[float]]:
    """The folder and the losses of a run of one process, without compilation."""
    output = tmp_path_factory.mktemp("plain") / "model"
    return output, finish(launch("cpu", *training(recipe, output)), output)


def test_fsdp_trains_saves_and_resumes_as_one_process_does(recipe, plain, tmp_path):
    losses = finish(sharded(recipe, tmp_path / "fsdp"), tmp_path / "fsdp")
    assert losses == pytest.approx(plain[1], abs=1e-4)
    weights, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "fsdp", plain[0]))
    assert {name: weight.shape for name, weight in weights.items()} == {n: w.shape for n, w in expected.items()}
    assert all(weights[name].allclose(expected[name], atol=1e-4) for name in weights)
    again = copy_to_resume(tmp_path / "fsdp", tmp_path / "again")
    assert finish(sharded(recipe, again, *RESUME), again) == pytest.approx(losses, abs=1e-4)
    resumed = load_file(again / "model.safetensors")
    assert all(weight.allclose(weights[name], atol=1e-5) for name, weight in resumed.items())


def test_settings_that_exclude_each_other_are_refused_in_one_line(recipe, tmp_path):
    def refusal(run: subprocess.CompletedProcess) -> str:
        assert run.returncode != 0 and not (tmp_path / "refused").exists()
        return next(line for line in run.stderr.splitlines() if "error: " in line)

    lora = refusal(sharded(recipe, tmp_path / "refused", "--lora", '{"r": 4, "target_modules": ["q_proj"]}'))
    assert "lora" in lora and "FSDP" in lora
    one = training(recipe, tmp_path / "refused")
    assert "FSDP" in refusal(launch("fsdp", "--num_processes", 1, *one))
    assert "fp16" in refusal(launch("cpu", *one, "--mixed_precision", "fp16"))


def test_a_compiled_run_trains_as_a_plain_one_and_resumes_without_compilation(recipe, plain, tmp_path):
    backend = ("--dynamo_backend", "aot_eager")  # traces and differentiates like inductor, without building code
    compiled = tmp_path / "compiled"
    losses = finish(launch("compile", *backend, *training(recipe, compiled)), compiled)
    assert losses == pytest.approx(plain[1], abs=1e-4)
    names, expected = (load_file(folder / "model.safetensors").keys() for folder in (compiled, plain[0]))
    assert names == expected
    again = copy_to_resume(compiled, tmp_path / "again")
    assert finish(launch("cpu", *training(recipe, again, *RESUME)), again) == pytest.approx(plain[1], abs=1e-4)
    other = copy_to_resume(plain[0], tmp_path / "other")
    resumed = launch("compile", *backend, *training(recipe, other, *RESUME))
    assert finish(resumed, other) == pytest.approx(plain[1], abs=1e-4)


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


def slurm_job(folder: Path, srun: str, dataset: str) -> tuple[Path, dict]:
    """Write the script of docs/scaling.md and stand-ins for SLURM's programs. Return its path and environment."""
    script = re.search(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)[1]
    for name, text in (("srun", srun), ("scontrol", SCONTROL), ("job.sh", script)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "LOG": str(folder), "TMPDIR": str(folder)}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2"}
    return folder / "job.sh", environment | {"DATASET": dataset, "OUTPUT": str(folder / "run")}


@pytest.mark.parametrize(
    "checkpoint, restarts, option",
    [
        ("", "0", "--mixed_precision bf16"),
        ("", "1", "--overwrite_output_dir"),
        ("step-4", "1", "--resume_from_checkpoint latest"),
    ],
)
def test_a_slurm_job_that_is_queued_again_starts_anew_or_resumes(tmp_path, checkpoint, restarts, option):
    job, environment = slurm_job(tmp_path, '#!/bin/bash\necho "${@:5}"\n', "corpus")
    (tmp_path / "run" / "checkpoints" / checkpoint).mkdir(parents=True)
    environment["SLURM_RESTART_COUNT"] = restarts
    started = subprocess.run([job], env=environment, capture_output=True, text=True, check=True).stdout
    assert started.rstrip().endswith(option)


def test_the_slurm_script_of_the_docs_stops_with_a_checkpoint_and_resumes(recipe, tmp_path):
    fields = yaml.safe_load(recipe.read_text()) | {"max_train_steps": 40, "mixed_precision": "no"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields))
    job, environment = slurm_job(tmp_path, SRUN, fields["dataset"])
    environment |= {"CONFIG": str(tmp_path / "recipe.yaml"), "PRECISION": "no", "SLURM_JOB_ID": str(os.getpid())}
    environment["PYTHONFAULTHANDLER"] = "1"  # SIGABRT prints the stacks
    log = tmp_path / "run" / "train_log.jsonl"
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen([job], cwd=ROOT, env=environment, stdout=printed, stderr=printed)
        while not (log.is_file() and log.read_text().count("\n") >= 2):
            assert process.poll() is None, (tmp_path / "printed").read_text()
            time.sleep(0.01)
        for pid in (tmp_path / "pids").read_text().split():
            os.kill(int(pid), signal.SIGTERM)  # as SLURM signals every process of a step
        try:
            status = process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            status = "did not end"
            for pid in (tmp_path / "pids").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGABRT)
            process.wait(timeout=20)
        assert status == 143, (tmp_path / "printed").read_text()
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n"
    done = log.read_text().count("\n")
    again = subprocess.run([job], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0 and 1 < done < 40 and f"step-{done}" in again.stdout, again.stderr
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 41))
