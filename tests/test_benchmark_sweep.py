"""The sweep: its combinations, a real sweep of two runs, its intervals, and how processes share the runs."""

import itertools
import json
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from rsmclip.benchmarks import sweep
from rsmclip.benchmarks.sweep import combinations, environment, parse, run, spread
from rsmclip.core.errors import UserError
from tests.conftest import TINY_RUN


@pytest.fixture
def options(tmp_path, corpus_folder):
    recipe = TINY_RUN | {"max_train_steps": 2, "evaluation_steps": 2, "num_workers": 0, "languages": ["en"]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    places = ["--config", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "runs")]
    grid = ["--grid", "learning_rate=1e-3,1e-9", "--seeds", "5"]
    return parse([*places, *grid, "--", "--dataset", str(corpus_folder), "--self_distillation_weight", "0"])


def fake_runs(monkeypatch, value=lambda arguments: 1.0, status=lambda arguments: 0) -> list[dict[str, str]]:
    """Replace training by a process that writes a log. Returns the options of each started run."""
    started = []

    def start(command: list[str], env: dict[str, str]) -> int:
        options = [*command[2:], "--end"]
        arguments = {name: after for name, after in itertools.pairwise(options) if name[:2] == "--"}
        started.append(arguments)
        if not (ended := status(arguments)):
            folder = sweep.Path(arguments["--output_dir"])
            folder.mkdir(parents=True, exist_ok=True)
            records = [{"step": step, "validation_mean_recall": value(arguments) * step} for step in (0, 1, 2)]
            (folder / "train_log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
            (folder / "eval_results.json").write_text("{}")
        return ended

    monkeypatch.setattr(sweep, "run_training", start)
    return started


def test_two_runs_are_trained_listed_and_not_trained_again(options, monkeypatch, capsys):
    run(options)
    rows = re.findall(r"^\| (1e-\d) \| 1 \| (\d+\.\d\d) \| – \|$", capsys.readouterr().out, re.MULTILINE)
    assert {rate for rate, _ in rows} == {"1e-3", "1e-9"} and float(rows[0][1]) >= float(rows[1][1])
    logs = [(options.output / f"learning_rate={rate}" / "seed-5" / "train_log.jsonl") for rate, _ in rows]
    figures = [json.loads(log.read_text().splitlines()[-1])["validation_mean_recall"] for log in logs]
    assert [f"{figure:.2f}" for figure in figures] == [figure for _, figure in rows]
    started = fake_runs(monkeypatch)
    run(options)
    assert not started


def test_an_interrupted_run_is_resumed_and_a_failed_one_is_left_out(options, monkeypatch, capsys):
    started = fake_runs(monkeypatch, status=lambda arguments: 2 * (arguments["--learning_rate"] == "1e-9"))
    (options.output / "learning_rate=1e-3" / "seed-5" / "checkpoints" / "step-1").mkdir(parents=True)
    (options.output / "learning_rate=1e-9" / "seed-5").mkdir(parents=True)
    run(options)
    assert started[0]["--resume_from_checkpoint"] == "latest" and "--overwrite_output_dir" in started[1]
    printed = capsys.readouterr()
    assert "| 1e-3 | 1 | 2.00 |" in printed.out and "| 1e-9 |" not in printed.out
    assert "learning_rate=1e-9" in printed.err and "status 2" in printed.err


def test_a_signal_that_ends_a_run_ends_the_sweep(options, monkeypatch):
    started = fake_runs(monkeypatch, status=lambda arguments: 143)
    with pytest.raises(SystemExit, match="143"):
        run(options)
    assert len(started) == 1


def test_processes_share_the_runs_and_each_has_its_gpu(options, monkeypatch):
    options.seeds = [0, 1, 2]
    started = fake_runs(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    shares = []
    for rank, device in enumerate("46"):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert environment()["CUDA_VISIBLE_DEVICES"] == device and not {"RANK", "WORLD_SIZE"} & environment().keys()
        run(options)
        shares.append({(one["--learning_rate"], one["--seed"]) for one in started})
        started.clear()
    assert len(shares[0]) == len(shares[1]) == 3 and not shares[0] & shares[1]


def test_a_process_without_a_run_does_not_end_those_of_the_others(options, monkeypatch):
    started = fake_runs(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("LOCAL_RANK", "7")
    run(options)
    assert not started and not (options.output / "table.md").exists()


def test_a_process_whose_runs_all_fail_ends_with_an_error(options, monkeypatch):
    fake_runs(monkeypatch, status=lambda arguments: 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="no run"):
        run(options)


def test_the_best_combination_comes_first_with_its_interval(options, monkeypatch, capsys):
    options.seeds = [0, 1, 2]
    fake_runs(monkeypatch, lambda run: float(run["--seed"]) + 5 * (run["--learning_rate"] == "1e-9"))
    run(options)
    lines = capsys.readouterr().out.splitlines()
    best, other = [line for line in lines if line.startswith("| 1e-")]
    # twice 5, 6 and 7: the standard error of the mean is 2 / √3, and t of two degrees of freedom is 4.3027
    assert best == "| 1e-9 | 3 | 12.00 | 7.03 to 16.97 |" and other.startswith("| 1e-3 | 3 | 2.00 |")
    assert spread([3.0, 1.0]) == "1.00 to 3.00" and spread([1.0]) == "–"


def test_combinations_are_all_pairs_of_values_and_a_wrong_field_is_named():
    found = combinations(["learning_rate=1e-4,2e-4", "self_distillation_weight=0,1"])
    assert len(found) == 4 and {"learning_rate": "2e-4", "self_distillation_weight": "0"} in found
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        combinations(["learning_rat=1"])


@pytest.mark.parametrize("grid", [["learning_rate"], ["seed=1,2"], ["output_dir=a"], ["seed=1", "seed=2"]])
def test_a_grid_without_values_or_of_a_field_of_the_sweep_is_refused(grid):
    with pytest.raises(UserError, match=f"--grid {grid[0].partition('=')[0]}"):
        combinations(grid)


def test_values_and_seeds_given_twice_count_once(options):
    assert len(combinations(["learning_rate=1,1"])) == 1
    places = ["--config", str(options.config), "--output", str(options.output), "--grid", "learning_rate=1"]
    assert parse([*places, "--seeds", "3", "3"]).seeds == [3]


def test_bad_values_are_refused_before_the_first_run(options, monkeypatch):
    started = fake_runs(monkeypatch)
    options.grid = ["learning_rate=1e-3,-1"]
    with pytest.raises(UserError, match="learning_rate is -1"):
        run(options)
    assert not started


def test_a_sweep_without_a_finished_run_fails(options, monkeypatch):
    fake_runs(monkeypatch, status=lambda arguments: 2)
    with pytest.raises(UserError, match="no run"):
        run(options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_training_can_end(tmp_path, number):
    parent = "import sys; from rsmclip.benchmarks.processes import run_training; sys.exit(run_training(sys.argv[1:]))"
    child = "trap 'sleep 1; touch saved; exit 143' TERM; touch started; while :; do sleep 0.05; done"
    process = subprocess.Popen([sys.executable, "-c", parent, "bash", "-c", child], cwd=tmp_path)
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == 128 + number and (tmp_path / "saved").exists()


def test_a_log_without_a_later_validation_is_refused(options, monkeypatch):
    fake_runs(monkeypatch)
    options.figure = "zero_shot_accuracy"
    with pytest.raises(UserError, match="evaluation_steps"):
        run(options)
