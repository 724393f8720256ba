"""Processes that take turns: each process keeps its model and data in memory and works only while the others wait.

Both sides of a comparison run on the same machine in the same minutes. Other load on the machine slows down both, so
it changes their ratio less than their rates. Requests and answers are lines of JSON on stdin and stdout.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rsmclip.core.errors import UserError


class Side:
    """
    A process that answers requests. Use it in a `with` statement, which ends the process.

    Args:
        name (`str`): Name of the process in messages.
        command (`Sequence[str]`): Command line of the process.
        folder (`Path`): Working directory of the process.
        environment (`Mapping[str, str]`, *optional*): Environment variables, added to those of this process.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None):
        self.name = name
        self.errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()  # the process ends at the end of its input
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def ask(self, do: str, **request: object) -> dict:
        """
        Send a request and return the answer.

        Raises:
            [`UserError`]: The process ended without an answer. The last lines of its stderr are printed.
        """
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended, which is reported below
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or ["no message"]
            print("\n".join(lines[-30:]), file=sys.stderr, flush=True)
            raise UserError(f"the process of {self.name} ended with status {self.process.wait()}: {lines[-1]}")
        return json.loads(line)


def alternate(sides: Sequence[Side], rounds: int, settle: int, steps: int, pairs: int) -> dict[str, dict]:
    """
    Let each side train in turn, round after round.

    Args:
        sides (`Sequence[Side]`): The processes.
        rounds (`int`): Number of turns of each side.
        settle (`int`): Number of unmeasured steps at the start of a turn.
        steps (`int`): Number of measured steps of a turn.
        pairs (`int`): Pairs of image and caption in a step.

    Returns:
        `dict[str, dict]`: The rates of each side, see [`summarize`].
    """
    turns: dict[str, list[dict]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            turns[side.name].append(side.ask("steps", settle=settle, steps=steps))
        rates = (f"{side.name} {steps * pairs / turns[side.name][-1]['seconds']:.2f}" for side in sides)
        print(f"  round {number + 1} of {rounds}, pairs/s: {', '.join(rates)}", flush=True)
    return {name: summarize(taken, steps * pairs) for name, taken in turns.items()}


def summarize(turns: Sequence[Mapping[str, float]], pairs: int) -> dict:
    """
    Compute the rates of a side.

    Args:
        turns (`Sequence[Mapping[str, float]]`): `seconds` of each turn, and the seconds `waited` for data.
        pairs (`int`): Pairs in a turn.

    Returns:
        `dict`: `pairs_per_second`: the median over the turns. `turns`: the rate of each turn. `waited_percent`: the
        share of the time of all turns in which the process waited for batches.
    """
    rates = [pairs / turn["seconds"] for turn in turns]
    waited = sum(turn["waited"] for turn in turns) / sum(turn["seconds"] for turn in turns)
    return {
        "pairs_per_second": round(statistics.median(rates), 3),
        "turns": [round(rate, 3) for rate in rates],
        "waited_percent": round(100 * waited, 2),
    }


def ratio(ours: Mapping, theirs: Mapping) -> dict[str, float]:
    """Return the median, smallest and largest ratio of two sides' rates over the rounds."""
    ratios = [one / other for one, other in zip(ours["turns"], theirs["turns"], strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "smallest": round(min(ratios), 3),
        "largest": round(max(ratios), 3),
    }
