"""Which differences between two models are real: `python -m rsmclip.eval compare A B`.

A and B are folders that evaluations of two models wrote. Both models have met the same images, so the bootstrap draws
the images once for both, and the interval is that of the difference.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from rsmclip.core.command_line import OneLineParser
from rsmclip.core.files import read_json
from rsmclip.eval.intervals import draw_statistics, interval
from rsmclip.eval.outcomes import Outcomes, statistics
from rsmclip.eval.report import as_text

SAME = {
    "fingerprint": "images and captions",
    "split": "split",
    "prompts": "prompts",
    "capitalize": "style of captions",
    "languages": "languages",
}
MAIN = ("mean_recall", "zero_shot_accuracy")


def compare(
    one: dict[str, Outcomes], other: dict[str, Outcomes], samples: int = 1000, seed: int = 0, every: bool = False
) -> list[dict]:
    """
    Differences of two models on the same images.

    Args:
        one (`dict[str, Outcomes]`):
            What the first model did, by dataset.
        other (`dict[str, Outcomes]`):
            What the second did.
        samples (`int`, *optional*, defaults to 1000):
            Draws of the bootstrap.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.
        every (`bool`, *optional*, defaults to `False`):
            Whether to compare every figure, not mean recall, accuracies and probes alone.

    Returns:
        `list[dict]`: Records of `dataset`, `language`, `metric`, `values` of both, `difference` (second less first),
        its 95 % `interval`, and `real`: whether that leaves out zero.
    """
    records = []
    for dataset in one.keys() & other.keys():
        ones = np.ones((1, len(one[dataset].ids)))
        values = [statistics(outcomes[dataset], ones) for outcomes in (one, other)]
        drawn = [draw_statistics(outcomes[dataset], samples, seed) for outcomes in (one, other)]
        for language, metric in values[0]:
            if (language, metric) not in values[1] or not (
                every or metric in MAIN or metric.endswith("probe_accuracy")
            ):
                continue
            pair = [float(found[language, metric][0]) for found in values]
            low, high = interval(drawn[1][language, metric] - drawn[0][language, metric])
            record = {"dataset": dataset, "language": language, "metric": metric, "values": pair}
            record |= {"difference": pair[1] - pair[0], "interval": [low, high], "real": low > 0 or high < 0}
            records.append(record)
    return sorted(records, key=lambda record: record["dataset"])


def load_outcomes(folder: Path) -> tuple[dict, dict[str, Outcomes]]:
    """What an evaluation recorded of its datasets, and the outcomes."""
    record = read_json(folder / "eval_results.json")
    if "datasets" not in record:
        raise ValueError(f"{folder} holds no evaluation to compare: make it with python -m rsmclip.eval … --output")
    outcomes = {name: Outcomes.load(folder / "outcomes" / f"{name}.npz") for name in record["datasets"]}
    return record["datasets"], outcomes


def check_same(one: dict, other: dict, names: tuple[Path, Path]) -> None:
    """Raises `ValueError` unless both models were measured on the same and in the same way."""
    if not (shared := one.keys() & other.keys()):
        raise ValueError(f"{names[0]} and {names[1]} have no dataset in common")
    for dataset in sorted(shared):
        for key, what in SAME.items():
            if one[dataset].get(key) != other[dataset].get(key):
                raise ValueError(f"{names[0]} and {names[1]} differ in the {what} of {dataset}: measure both alike")


def comparison_table(records: list[dict]) -> tuple[list[str], list[list[str]]]:
    """Header and rows; figures in percent with one decimal."""
    header = ["dataset", "language", "metric", "A", "B", "difference", "95 % interval", "real"]
    rows = []
    for record in records:
        (low, high), (first, second) = record["interval"], record["values"]
        figures = [f"{first:.1f}", f"{second:.1f}", f"{record['difference']:+.1f}", f"{low:+.1f} … {high:+.1f}"]
        rows.append(
            [record["dataset"], record["language"], record["metric"], *figures, "yes" if record["real"] else "–"]
        )
    return header, rows


def run(arguments: argparse.Namespace) -> None:
    """Compares and prints."""
    if arguments.samples < 1:
        raise ValueError(f"--samples must be 1 or more, not {arguments.samples}")
    described, outcomes = zip(*(load_outcomes(folder) for folder in (arguments.a, arguments.b)), strict=True)
    check_same(*described, (arguments.a, arguments.b))
    records = compare(*outcomes, arguments.samples, every=arguments.all)
    print(f"A: {arguments.a}\nB: {arguments.b}\n\n{as_text(*comparison_table(records))}\n")
    real, by_chance = sum(record["real"] for record in records), len(records) / 20
    print(f"{real} of {len(records)} differences are real at 95 %; chance alone makes about {by_chance:.0f} look so.")


def main(arguments: list[str]) -> None:
    """
    Runs a comparison; bad input is one clear line and exit status 2.

    Args:
        arguments (`list[str]`): What stands on the command line after `compare`.
    """
    parser = OneLineParser(
        prog="python -m rsmclip.eval compare", description="Which differences of two models are real."
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of an evaluation")
    parser.add_argument("b", type=Path, metavar="B", help="folder of another model's evaluation on the same data")
    parser.add_argument("--samples", type=int, default=1000, help="draws of the bootstrap (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="compare every figure")
    try:
        run(parser.parse_args(arguments))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
