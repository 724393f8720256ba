"""Kill training runs with SIGKILL at random moments, resume them, and compare them with an uninterrupted run.

    python -m rsmclip.benchmarks.soak --kills 30 --output FILE.json

Some kills hit a run while it saves a checkpoint. On a CPU, the weights, the teacher, the optimizer, the random states
and the log of a resumed run must equal those of the uninterrupted run bit for bit.
"""

import argparse
import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate.utils import load
from safetensors.torch import load_file

from rsmclip.benchmarks.machine import describe_run
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import features
from rsmclip.data.write import write_corpus
from rsmclip.training.checkpoints import UNFINISHED, checkpoints

ROOT = Path(__file__).parent.parent
STEPS = 60
KILLS_A_RUN = 3
# A step takes 0.03 s, so most of the time of a run is its start. The model has dropout, so each step depends on the
# random state after the step before.
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
RECIPE = {
    "model_config": {
        "projection_dim": 16,
        "vision_config": {
            **TOWER,
            "num_hidden_layers": 2,
            "image_size": 32,
            "patch_size": 16,
            "attention_dropout": 0.1,
        },
        "text_config": {
            **TOWER,
            "num_hidden_layers": 1,
            "max_position_embeddings": 80,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
        },
        "self_distillation": {"hidden_size": 32, "bottleneck_size": 16, "num_prototypes": 24},
    },
    "languages": ["en", "pt", "ko"],
    "vocab_size": 1000,
    "short_side": 64,
    "num_local_views": 2,
    "local_size": 16,
    "max_train_steps": STEPS,
    "batch_size": 12,
    "learning_rate": 0.001,
    "warmup_steps": 2,
    "num_workers": 1,
    "checkpoint_steps": 5,
    "evaluation_steps": 11,
    "logging_steps": 2,  # at every second checkpoint, the last step is not yet in the log
}


@dataclass
class Trial:
    """
    A training run that is killed and resumed.

    Args:
        config (`Path`): Recipe of the run.
        output (`Path`): Output folder of the run.
        options (`tuple[str, ...]`, *optional*): Further options of train.py.
    """

    config: Path
    output: Path
    options: tuple[str, ...] = ()

    def start(self) -> subprocess.Popen:
        """Start a process, in its own session, that begins the run or resumes it from its last checkpoint."""
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(self.config), "--cpu_threads", "1"]
        command += ["--output_dir", str(self.output), *self.options]
        if checkpoints(self.output / "checkpoints"):
            command += ["--resume_from_checkpoint", "latest"]
        elif self.output.exists():
            command += ["--overwrite_output_dir"]
        with (self.output.parent / f"{self.output.name}.txt").open("ab") as printed:
            return subprocess.Popen(
                command, cwd=ROOT, start_new_session=True, stdout=printed, stderr=printed, preexec_fn=heed_interrupts
            )

    def steps(self) -> int:
        """Return the number of steps in the log."""
        log = self.output / "train_log.jsonl"
        return log.read_bytes().count(b'"loss"') if log.is_file() else 0

    def unfinished(self) -> set[int]:
        """Return the inodes of checkpoints that are being written or deleted. Their names can be used again."""
        found = set()
        for pattern in UNFINISHED:
            # The run may rename a checkpoint, or delete the whole folder to start anew, in the meantime.
            with contextlib.suppress(FileNotFoundError):
                for path in (self.output / "checkpoints").glob(pattern):
                    with contextlib.suppress(FileNotFoundError):
                        found.add(path.stat().st_ino)
        return found

    def kill(self, moment: str, rng: random.Random, seconds: float, within: int = STEPS) -> str | None:
        """
        Start the run and kill it.

        Args:
            moment (`str`): `"save"`: while a checkpoint is written. `"training"`: during or after a step. `"any"`: at
                any time, including the start and the end of the process.
            rng (`random.Random`): Generator that draws the moment.
            seconds (`float`): Duration of a whole run.
            within (`int`, *optional*): The kill comes at most this number of steps after the last step in the log.

        Returns:
            `str`, *optional*: What the kill interrupted, or `None` if the run ended before the kill.
        """
        before, left = self.steps() if checkpoints(self.output / "checkpoints") else 0, self.unfinished()
        process = self.start()
        if moment == "any":
            wait(process, lambda: False, rng.uniform(0, seconds))
        else:
            until = rng.randint(before + 1, max(before + 1, min(before + within, STEPS - 4)))
            wait(process, lambda: before < self.steps() >= until)
            if moment == "save":
                wait(process, lambda: self.unfinished() - left)
            duration = 0.02 if moment == "save" else 0.05  # of a save, or of a step, in seconds
            wait(process, lambda: False, rng.uniform(0, duration))
        ended = process.poll() is not None
        stop(process, signal.SIGKILL)
        if ended:
            return None
        if self.unfinished() - left:
            return "inside a save"
        if self.steps() in (0, before):
            return "before the first step"
        return "after the last step" if self.steps() == STEPS else "between saves"

    def finish(self) -> None:
        """Run the training to its end."""
        if status := self.start().wait():
            raise RuntimeError(f"the run ended with status {status}: {self.printed()}")

    def printed(self) -> str:
        """Return the output of all processes of the run."""
        return (self.output.parent / f"{self.output.name}.txt").read_text(encoding="utf-8")


def heed_interrupts() -> None:
    """Make a process react to SIGINT again, which a shell script's background jobs ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait(process: subprocess.Popen, condition: object, seconds: float = 120) -> None:
    """Wait until the condition is true, the process ends or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None and not condition():
        time.sleep(0.0005)


def stop(process: subprocess.Popen, number: signal.Signals) -> int:
    """Send a signal to the session of a process and wait for the end of the process. Return its exit status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    return process.wait()


def differences(first: Path, second: Path) -> list[str]:
    """Return the names of the files in which two finished runs differ."""
    found = []
    ends = [checkpoints(folder / "checkpoints")[-1] for folder in (first, second)]
    for folders, name in (((first, second), "model"), (ends, "teacher"), (ends, "centering")):
        if not same(*(load_file(folder / f"{name}.safetensors") for folder in folders)):
            found.append(f"{name}.safetensors")
    for name in ("optimizer.bin", "scheduler.bin"):
        if not same(*(torch.load(end / name, weights_only=True) for end in ends)):
            found.append(name)
    if not same(*(load(end / "random_states_0.pkl") for end in ends)):
        found.append("random_states_0.pkl")
    if steps_of(first) != steps_of(second):
        found.append("train_log.jsonl")
    return found


def steps_of(output: Path) -> list[dict]:
    """Return the records of the log without their times."""
    records = [json.loads(line) for line in (output / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def same(first: object, second: object) -> bool:
    """Return whether two nested states are equal bit for bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second


def write_recipe(folder: Path, **fields: object) -> Path:
    """Write a small corpus and the recipe that trains on it."""
    rows = {"train": 60, "val": 18, "test": 18}
    write_corpus(demo_examples(rows=rows), features(LANGUAGES), folder / "corpus", False, demo_card)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"dataset": str(folder / "corpus"), **RECIPE, **fields}))
    return folder / "recipe.yaml"


def soak(folder: Path, kills: int, inside_saves: int, seed: int) -> dict:
    """
    Start runs and kill each of them three times, until the number of kills is reached.

    Args:
        folder (`Path`): Folder for the runs.
        kills (`int`): Number of SIGKILLs that hit a running process.
        inside_saves (`int`): Smallest number of kills while a checkpoint is written or deleted.
        seed (`int`): Seed of the moments.
    """
    # The reference: a run from start to end, which also gives the duration of a run.
    rng, config = random.Random(seed), write_recipe(folder)
    whole = Trial(config, folder / "uninterrupted")
    began = time.monotonic()
    whole.finish()
    seconds = time.monotonic() - began

    # Killed runs. Moments inside a save are forced when only as many kills are left as are needed.
    hits, differing, runs = [], [], 0
    while len(hits) < kills:
        trial, runs = Trial(config, folder / f"killed-{runs}"), runs + 1
        for _ in range(min(KILLS_A_RUN, kills - len(hits))):
            open_saves = inside_saves - hits.count("inside a save")
            urgent = open_saves >= kills - len(hits)
            moment = "save" if urgent else rng.choice(["save", "training", "any"])
            if not (hit := trial.kill(moment, rng, seconds)):
                break
            hits.append(hit)
            print(f"run {runs}, kill {len(hits)} ({moment}): {hit}", flush=True)
        trial.finish()
        if found := differences(whole.output, trial.output):
            differing.append({"run": runs, "differs_in": found})
    outcome = {"kills": len(hits), "hits": dict(Counter(hits)), "runs": runs, "steps_a_run": STEPS}
    return outcome | {"runs_that_differ": differing, "seconds": round(time.monotonic() - began)}


def main() -> None:
    """Run the soak and print its outcome. Exit with status 1 if a killed run differs from the uninterrupted run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="number of SIGKILLs")
    parser.add_argument("--inside_saves", type=int, default=8, help="smallest number of SIGKILLs inside a save")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--output", type=Path, help="JSON file for the outcome")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(Path(folder), arguments.kills, arguments.inside_saves, arguments.seed)
    command = shlex.join(["python", "-m", "rsmclip.benchmarks.soak", *sys.argv[1:]])
    record = {**describe_run(command, "torch", "accelerate", "transformers"), **outcome}
    print(json.dumps(record, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if outcome["runs_that_differ"] else 0)


if __name__ == "__main__":
    main()
