"""Train every combination of some settings with several seeds, and print one table.

    python -m rsmclip.benchmarks.sweep --config FILE --grid learning_rate=1e-4,2e-4 head_learning_rate=5e-4,1e-3 \
        --seeds 0 1 2 --output DIR [--figure mean_recall] [-- --dataset CORPUS …]
    accelerate launch --num_processes 8 -m rsmclip.benchmarks.sweep …       # eight runs at a time, each on a GPU

Every run gets the options after `--`. A second call skips finished runs and resumes interrupted ones. The figure is
that of a run's last validation, so the test split chooses nothing.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from rsmclip.benchmarks.processes import run_training
from rsmclip.benchmarks.training_tables import table
from rsmclip.core.command_line import OneLineParser, run_command
from rsmclip.core.errors import UserError
from rsmclip.core.files import write_whole
from rsmclip.training.checkpoints import checkpoints
from rsmclip.training.command_line import parse_config
from rsmclip.training.config import TrainingConfig, unknown_field

ROOT = Path(__file__).parent.parent
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
OWN = ("seed", "output_dir", "resume_from_checkpoint", "overwrite_output_dir")  # fields that the sweep sets
INTERVAL = "Mean over seeds and its 95 % t-interval. Of two seeds: the smaller and the larger value."


def combinations(grid: Sequence[str]) -> list[dict[str, str]]:
    """Return the settings of each combination of the values in `FIELD=VALUE,VALUE,…`."""
    values, known = {}, list(TrainingConfig.__dataclass_fields__)
    for item in grid:
        name, sign, listed = item.partition("=")
        if name not in known:
            raise UserError(f"--grid {item}: {unknown_field(name, known)}; expected FIELD=VALUE,VALUE,…")
        if not sign or name in values or name in OWN:
            reason = f"the sweep sets {name}" if name in OWN else "expected FIELD=VALUE,VALUE,…, each field once"
            raise UserError(f"--grid {item}: {reason}")
        values[name] = dict.fromkeys(listed.split(","))  # each value once
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def folder_of(settings: Mapping[str, str], seed: int, options: argparse.Namespace) -> Path:
    parts = (f"{name}={value}".replace("/", "_") for name, value in settings.items())
    return options.output / ",".join(parts) / f"seed-{seed}"


def train(settings: Mapping[str, str], seed: int, options: argparse.Namespace) -> None:
    """Train one run, or resume it. A run that fails, such as one that diverges, does not end the sweep."""
    folder = folder_of(settings, seed, options)
    if (folder / "eval_results.json").is_file():
        return
    command = [sys.executable, str(ROOT / "train.py"), *arguments_of(settings, seed, options)]
    resumed = checkpoints(folder / "checkpoints")
    command += ["--resume_from_checkpoint", "latest"] if resumed else ["--overwrite_output_dir"]
    status = run_training(command, env=environment())
    if status in (130, 143, -2, -15):  # Ctrl-C or SIGTERM ended the run
        sys.exit(status % 256)
    if status:
        print(f"{folder} ended with status {status}", file=sys.stderr)


def arguments_of(settings: Mapping[str, str], seed: int, options: argparse.Namespace) -> list[str]:
    """Return the command line of a run."""
    given = [part for name, value in settings.items() for part in (f"--{name}", value)]
    places = ["--seed", str(seed), "--output_dir", str(folder_of(settings, seed, options))]
    return ["--config", str(options.config), *options.passed, *given, *places]


def environment() -> dict[str, str]:
    """Return the variables of a run: it is a single process, on the GPU of this process."""
    found = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    if "LOCAL_RANK" in os.environ:
        place, visible = os.environ["LOCAL_RANK"], os.environ.get("CUDA_VISIBLE_DEVICES")
        found["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(place)] if visible else place
    return found


def last_figure(folder: Path, figure: str) -> float | None:
    """Return the figure of the last validation of a run, or `None` if the run is not finished."""
    if not (folder / "eval_results.json").is_file():
        return None
    lines = (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()
    found = [record for record in map(json.loads, lines) if f"validation_{figure}" in record and record["step"]]
    if not found:
        raise UserError(f"{folder} has no validation with {figure} after step 0: set evaluation_steps or --figure")
    return found[-1][f"validation_{figure}"]


def make_table(options: argparse.Namespace) -> str:
    """Return a row for each combination with a finished run, the best one first."""
    rows = []
    for settings in combinations(options.grid):
        values = [last_figure(folder_of(settings, seed, options), options.figure) for seed in options.seeds]
        if values := [value for value in values if value is not None]:
            rows.append((np.mean(values), [*settings.values(), len(values), f"{np.mean(values):.2f}", spread(values)]))
    if not rows:
        raise UserError(f"no run in {options.output} has finished; the errors of the runs are above")
    rows = [row for _, row in sorted(rows, key=lambda row: -row[0])]
    return table([*settings, "seeds", options.figure, "interval"], rows) + f"\n\n{INTERVAL}"


def spread(values: Sequence[float]) -> str:
    """Return the 95 % t-interval of the mean over seeds; of two seeds their range, because t is 12.7 then."""
    low, high = min(values), max(values)
    if len(values) > 2 and low < high:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return f"{low:.2f} to {high:.2f}" if len(values) > 1 else "–"


def run(options: argparse.Namespace) -> None:
    """Train the runs of this process and print the table. The process that ends last has the whole table."""
    runs = [(settings, seed) for seed in options.seeds for settings in combinations(options.grid)]
    for settings, seed in runs:  # before the first run
        parse_config(arguments_of(settings, seed, options))
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not (own := runs[rank::count]):
        return  # an error, as there is no result yet, would make the launcher end the runs of the other processes
    for settings, seed in own:
        train(settings, seed, options)
    write_whole(options.output / "table.md", make_table(options) + "\n")
    print(make_table(options))


def parse(arguments: list[str]) -> argparse.Namespace:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = OneLineParser(prog="python -m rsmclip.benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True, help="recipe of all runs")
    parser.add_argument("--grid", nargs="+", required=True, metavar="FIELD=V,V", help="values of fields of train.py")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--figure",
        default="mean_recall",
        help="validation figure of train_log.jsonl: a mean over languages, such as zero_shot_accuracy",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs and table.md")
    found = vars(parser.parse_args(arguments[:end]))
    found["seeds"] = list(dict.fromkeys(found["seeds"]))  # a seed that is counted twice would narrow the interval
    return argparse.Namespace(**found, passed=arguments[end + 1 :])


if __name__ == "__main__":
    run_command(lambda: run(parse(sys.argv[1:])), "python -m rsmclip.benchmarks.sweep")
