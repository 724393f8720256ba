"""Processes that take turns: each keeps its model and data warm and works only while the others wait.

Both sides of a comparison see the same machine in the same minutes, so what else the machine does moves both, and the
ratio less than either rate. Requests and answers are lines of JSON on stdin and stdout.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


class Side:
    """
    A process that answers requests; to be used as a context.

    Args:
        name (`str`): What messages call it.
        command (`Sequence[str]`): Starts it.
        folder (`Path`): Where it runs.
        environment (`Mapping[str, str]`, *optional*): Variables beside those of this process.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None):
        self.name = name
        self.said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()  # which ends it
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.said.close()

    def ask(self, do: str, **request: object) -> dict:
        """
        Sends a request and waits for the answer.

        Raises:
            `OSError`: The process ended instead of answering. What it last said is printed.
        """
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said comes below
        line = self.process.stdout.readline()
        if not line:
            self.said.seek(0)
            lines = self.said.read().strip().splitlines() or ["it said nothing"]
            print("\n".join(lines[-30:]), file=sys.stderr, flush=True)
            raise OSError(f"the process of {self.name} ended with status {self.process.wait()}: {lines[-1]}")
        return json.loads(line)


def alternate(sides: Sequence[Side], rounds: int, settle: int, steps: int, pairs: int) -> dict[str, dict]:
    """
    Lets each side train in turn, round after round.

    Args:
        sides (`Sequence[Side]`): The processes.
        rounds (`int`): Turns of each.
        settle (`int`): Steps of a turn before its clock starts.
        steps (`int`): Steps of a turn on the clock.
        pairs (`int`): Pairs of image and caption in a step.

    Returns:
        `dict[str, dict]`: For each side, see [`summarise`].
    """
    turns: dict[str, list[dict]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            turns[side.name].append(side.ask("steps", settle=settle, steps=steps))
        rates = (f"{side.name} {steps * pairs / turns[side.name][-1]['seconds']:.2f}" for side in sides)
        print(f"  round {number + 1} of {rounds}, pairs/s: {', '.join(rates)}", flush=True)
    return {name: summarise(taken, steps * pairs) for name, taken in turns.items()}


def summarise(turns: Sequence[Mapping[str, float]], pairs: int) -> dict:
    """
    Rates of a side.

    Args:
        turns (`Sequence[Mapping[str, float]]`): `seconds` of each turn and those of them `waited` for data.
        pairs (`int`): Pairs in a turn.

    Returns:
        `dict`: `pairs_per_second`, the median over turns; `turns`, the rate of each; `waited_percent`, the share of
        all turns' time that went by waiting for batches.
    """
    rates = [pairs / turn["seconds"] for turn in turns]
    waited = sum(turn["waited"] for turn in turns) / sum(turn["seconds"] for turn in turns)
    return {
        "pairs_per_second": round(statistics.median(rates), 3),
        "turns": [round(rate, 3) for rate in rates],
        "waited_percent": round(100 * waited, 2),
    }


def ratio(ours: Mapping, theirs: Mapping) -> dict[str, float]:
    """The ratio of two sides' rates round by round: median, smallest and largest."""
    ratios = [one / other for one, other in zip(ours["turns"], theirs["turns"], strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "smallest": round(min(ratios), 3),
        "largest": round(max(ratios), 3),
    }
