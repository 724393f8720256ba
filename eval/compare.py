"""Test which differences between two models are real: `rsmclip eval compare A B`.

A and B are the output folders of two evaluations on the same images. Each bootstrap draw takes the same images for
both models, so the intervals are of paired differences.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from rsmclip.core.arguments import check_count
from rsmclip.core.errors import UserError
from rsmclip.core.files import write_whole
from rsmclip.eval.intervals import described, draw_statistics, interval
from rsmclip.eval.outcomes import Outcomes, statistics
from rsmclip.eval.report import Table, as_markdown, as_text
from rsmclip.eval.results import DatasetFacts, EvalResults

# Fields of `DatasetFacts`
MUST_AGREE = ("fingerprint", "split", "prompts", "templates", "class_names", "capitalize", "languages")
FEWEST_DRAWS = 40  # with fewer, a 95 % interval has all draws
FEWEST_IMAGES = 6  # if 5 images change alike, a sign test has p = 0.06
MAIN = ("mean_recall", "zero_shot_accuracy", "transductive_accuracy")


@dataclass(kw_only=True)
class Comparison:
    """The differences between two models. `print` shows the table."""

    a: str  # output folder of an evaluation
    b: str  # of the other model
    bootstrap_samples: int
    differences: list[dict]  # from [`differences`]

    def __str__(self) -> str:
        """Return the table."""
        return f"A: {self.a}\nB: {self.b}\n\n{as_text(*self.table())}\n\n{self.summary()}"

    def table(self) -> Table:
        """Return header and rows, in percent with one decimal."""
        header = ["dataset", "language", "metric", "A", "B", "difference", "95 % interval", "real"]
        rows = []
        for record in self.differences:
            (low, high), (first, second) = record["interval"], record["values"]
            figures = [f"{first:.1f}", f"{second:.1f}", f"{record['difference']:+.1f}", f"{low:+.1f} … {high:+.1f}"]
            names = [record["dataset"], record["language"] or "–", record["metric"]]
            rows.append([*names, *figures, "yes" if record["real"] else "–"])
        return header, rows

    def summary(self) -> str:
        """Return how many differences are real, and how many would be by chance."""
        real, by_chance = sum(record["real"] for record in self.differences), len(self.differences) / 20
        return (
            f"{real} of {len(self.differences)} differences are real at 95 %; about {by_chance:.0f} are expected by "
            "chance."
        )

    def write(self, folder: Path) -> None:
        """Write `comparison.json` and the table as `comparison.md`. Raises [`UserError`] if this fails."""
        text = f"A: `{self.a}`, B: `{self.b}`\n\n{as_markdown(*self.table())}\n\n{self.summary()}\n"
        write_whole(folder / "comparison.md", text)
        fields = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        write_whole(folder / "comparison.json", fields + "\n")


def compare(
    a: str | Path, b: str | Path, samples: int = 1000, every: bool = False, output: str | Path | None = None
) -> Comparison:
    """
    Test which differences between two evaluated models are real.

    Args:
        a (`str` or `Path`): Output folder of an evaluation.
        b (`str` or `Path`): Output folder of another model on the same data.
        samples (`int`, *optional*, defaults to 1000): Draws of the bootstrap.
        every (`bool`, *optional*, defaults to `False`): Whether to compare every figure but those between
            sentences. By default, mean recall and the accuracies (zero-shot, transductive, probes) are compared.
        output (`str` or `Path`, *optional*): Folder for the table in Markdown and JSON; by default no file is written.

    Raises:
        [`UserError`]: A folder has no complete evaluation, the evaluations differ in more than the model, or `output`
            cannot be written.
    """
    check_count("samples", samples)
    folders = Path(a), Path(b)
    (facts_a, outcomes_a), (facts_b, outcomes_b) = map(load_outcomes, folders)
    check_same(facts_a, facts_b, folders)
    found = Comparison(
        a=str(a),
        b=str(b),
        bootstrap_samples=samples,
        differences=differences(outcomes_a, outcomes_b, samples, every),
    )
    if output is not None:
        found.write(Path(output))
    return found


def differences(
    one: dict[str, Outcomes], other: dict[str, Outcomes], samples: int = 1000, every: bool = False
) -> list[dict]:
    """
    Compute the differences between two models on the same images.

    `one` and `other` are the outcomes of the models by dataset. By default mean recall and the accuracies (zero-shot,
    transductive, probes) are compared; with `every`, all figures.

    Returns:
        `list[dict]`: Records of `dataset`, `language`, `metric`, `values` (of both models), `difference` (second minus
            first), `interval` (95 %, of the difference), and `real` (whether the interval excludes zero, of at
            least 6 images and 40 draws).

    Raises:
        [`UserError`]: The rows of a dataset differ, or are in another order. Draws take the same rows of both.
    """
    records = []
    for dataset in sorted(one.keys() & other.keys()):
        check_rows(dataset, one[dataset].ids, other[dataset].ids)
        ones = np.ones((1, len(one[dataset].ids)))
        first, second = (statistics(outcomes[dataset], ones) for outcomes in (one, other))
        drawn_first, drawn_second = (draw_statistics(outcomes[dataset], samples) for outcomes in (one, other))
        for language, metric in [key for key in first if key in second]:
            if every or metric in MAIN or metric.endswith("probe_accuracy"):
                key = language, metric
                values = [float(first[key][0]), float(second[key][0])]
                low, high = interval(drawn_second[key] - drawn_first[key])
                images = min(described(one[dataset], code, metric)["rows"] for code in parts(first, *key))
                is_tested = samples >= FEWEST_DRAWS and images >= FEWEST_IMAGES
                record = {"dataset": dataset, "language": language, "metric": metric, "values": values}
                record |= {"difference": values[1] - values[0], "interval": [low, high]}
                record["real"] = is_tested and (low > 0 or high < 0)
                records.append(record)
    return records


def parts(figures: Iterable[tuple[str, str]], language: str, metric: str) -> list[str]:
    # The languages of a mean over languages, which is as uncertain as the one with the fewest images.
    return [code for code, name in figures if name == metric and code != "mean"] if language == "mean" else [language]


def check_rows(dataset: str, one: list[str], other: list[str]) -> None:
    if one != other:
        pairs = enumerate(zip_longest(one, other))
        row, (first, second) = next((row, pair) for row, pair in pairs if pair[0] != pair[1])
        raise UserError(
            f"row {row} of {dataset} is {first!r} in the first evaluation and {second!r} in the second: evaluate both "
            "models on the same rows in the same order"
        )


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
        probed_on = {facts[dataset].probed_on for facts in (one, other)} - {None}
        if len(probed_on) > 1:
            raise UserError(
                f"the probes of {names[0]} and {names[1]} learn from different rows of {dataset}: evaluate both with "
                "one --train_split of one corpus"
            )


def run(arguments: argparse.Namespace) -> None:
    """Compare two evaluations and print the table."""
    print(compare(arguments.a, arguments.b, arguments.samples, arguments.all, arguments.output))
    if arguments.output:
        print(f"\ntable: {arguments.output / 'comparison.md'}, {arguments.output / 'comparison.json'}")
