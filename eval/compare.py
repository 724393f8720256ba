"""Test which differences between two models are real: `rsmclip eval compare A B`.

A and B are the output folders of two evaluations on the same images. Each bootstrap draw takes the same images for
both models, so the intervals are of paired differences.
"""

import argparse
from pathlib import Path

import numpy as np

from rsmclip.core.errors import UserError
from rsmclip.eval.intervals import draw_statistics, interval
from rsmclip.eval.outcomes import Outcomes, statistics
from rsmclip.eval.report import as_text
from rsmclip.eval.results import DatasetFacts, EvalResults

# Fields of `DatasetFacts`
MUST_AGREE = ("fingerprint", "split", "prompts", "templates", "class_names", "capitalize", "languages")
MAIN = ("mean_recall", "zero_shot_accuracy", "transductive_accuracy")


def compare(
    one: dict[str, Outcomes], other: dict[str, Outcomes], samples: int = 1000, every: bool = False
) -> list[dict]:
    """
    Compute the differences between two models on the same images.

    `one` and `other` are the outcomes of the models by dataset. By default mean recall and the accuracies (zero-shot,
    transductive, probes) are compared; with `every`, all figures.

    Returns:
        `list[dict]`: Records of `dataset`, `language`, `metric`, `values` (of both models), `difference` (second minus
            first), `interval` (95 %, of the difference), and `real` (whether the interval excludes zero).
    """
    records = []
    for dataset in sorted(one.keys() & other.keys()):
        ones = np.ones((1, len(one[dataset].ids)))
        first, second = (statistics(outcomes[dataset], ones) for outcomes in (one, other))
        drawn_first, drawn_second = (draw_statistics(outcomes[dataset], samples) for outcomes in (one, other))
        for language, metric in [key for key in first if key in second]:
            if every or metric in MAIN or metric.endswith("probe_accuracy"):
                key = language, metric
                values = [float(first[key][0]), float(second[key][0])]
                low, high = interval(drawn_second[key] - drawn_first[key])
                record = {"dataset": dataset, "language": language, "metric": metric, "values": values}
                record |= {"difference": values[1] - values[0], "interval": [low, high], "real": low > 0 or high < 0}
                records.append(record)
    return records


def load_outcomes(folder: Path) -> tuple[dict[str, DatasetFacts], dict[str, Outcomes]]:
    datasets = EvalResults.read(folder).datasets
    return datasets, {name: Outcomes.load(folder / "outcomes" / f"{name}.npz") for name in datasets}


def check_same(one: dict[str, DatasetFacts], other: dict[str, DatasetFacts], names: tuple[Path, Path]) -> None:
    """Raise [`UserError`] unless both models were evaluated on the same data in the same way."""
    if not (shared := one.keys() & other.keys()):
        raise UserError(f"{names[0]} and {names[1]} have no dataset in common")
    for dataset in sorted(shared):
        for field in MUST_AGREE:
            if getattr(one[dataset], field) != getattr(other[dataset], field):
                raise UserError(
                    f"{names[0]} and {names[1]} differ in the {field} of {dataset}: evaluate both in the same way"
                )


def comparison_table(records: list[dict]) -> tuple[list[str], list[list[str]]]:
    header = ["dataset", "language", "metric", "A", "B", "difference", "95 % interval", "real"]
    rows = []
    for record in records:
        (low, high), (first, second) = record["interval"], record["values"]
        figures = [f"{first:.1f}", f"{second:.1f}", f"{record['difference']:+.1f}", f"{low:+.1f} … {high:+.1f}"]
        real = "yes" if record["real"] else "–"
        rows.append([record["dataset"], record["language"], record["metric"], *figures, real])
    return header, rows


def run(arguments: argparse.Namespace) -> None:
    """Compare two evaluations and print the table."""
    (facts_a, outcomes_a), (facts_b, outcomes_b) = load_outcomes(arguments.a), load_outcomes(arguments.b)
    check_same(facts_a, facts_b, (arguments.a, arguments.b))
    records = compare(outcomes_a, outcomes_b, arguments.samples, every=arguments.all)
    print(f"A: {arguments.a}\nB: {arguments.b}\n\n{as_text(*comparison_table(records))}\n")
    real, by_chance = sum(record["real"] for record in records), len(records) / 20
    print(f"{real} of {len(records)} differences are real at 95 %; about {by_chance:.0f} are expected by chance.")
