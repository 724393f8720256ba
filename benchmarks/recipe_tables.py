"""Tables and plot of the experiment in benchmarks/recipe.py: figures of the arms and differences, with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsmclip.benchmarks.training_tables import table
from rsmclip.core.drawing import BLUE, GREEN, SIZE, new_figure
from rsmclip.core.files import read_json
from rsmclip.core.languages import LANGUAGES
from rsmclip.eval.intervals import draw_statistics, interval
from rsmclip.eval.outcomes import Outcomes, chance_of, statistics
from rsmclip.eval.plots import add_legend, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results" / "recipe"
FIGURES = {  # column: dataset, language, metric
    "mean recall, en": ("corpus", "en", "mean_recall"),
    "mean recall, 10 languages": ("corpus", "mean", "mean_recall"),
    "gap to en": ("corpus", "mean", "mean_recall_gap_to_english"),
    "zero-shot, en": ("corpus", "en", "zero_shot_accuracy"),
    "zero-shot, 10 languages": ("corpus", "mean", "zero_shot_accuracy"),
    "RSSCN7, en": ("rsscn7", "en", "zero_shot_accuracy"),
    "RSSCN7, 10 languages": ("rsscn7", "mean", "zero_shot_accuracy"),
}
CLAIMS = [  # stated before the runs; everything else is exploratory
    ("b", "a", "mean recall, en"),
    ("b", "a", "mean recall, 10 languages"),
    ("c", "b", "mean recall, en"),
    ("c", "b", "mean recall, 10 languages"),
    ("d", "a", "mean recall, en"),
]
EXPLORATORY = {  # arm: the arm that it differs from in one setting
    "a_free": "a",
    "b_long": "b",
    "c_mild": "c",
    "c_global": "c",
    "e": "b",
    "f_b": "b",
    "distance1": "b",
    "translated_20": "b",
    "translated_10": "b",
    "f_long": "long",
}
LINES = ((", en", "English", BLUE, 0.14), (", 10 languages", "ten languages", GREEN, -0.14))  # of an arm in the plot
SAMPLES = 2000
SEED = 0  # of the draws of seeds

Draws = dict[int, dict[str, np.ndarray]]  # by seed and figure: the value, then one for each bootstrap draw


def results() -> dict[str, dict[int, Path]]:
    """Return the folders of the results by arm, in alphabetical order, and by seed."""
    found: dict[str, dict[int, Path]] = {}
    for folder in sorted(RESULTS.glob("*-[0-9]*")):
        arm, _, seed = folder.name.rpartition("-")
        found.setdefault(arm, {})[int(seed)] = folder
    return found


def read_draws(folders: Mapping[int, Path]) -> Draws:
    """Return the figures of an arm by seed: `(1 + SAMPLES,)`, the value and the bootstrap draws over images."""
    draws: Draws = {}
    for seed, folder in folders.items():
        found = {name: Outcomes.load(folder / "outcomes" / f"{name}.npz") for name in ("corpus", "rsscn7")}
        values = {}
        for name, outcomes in found.items():
            value, drawn = statistics(outcomes, np.ones((1, len(outcomes.ids)))), draw_statistics(outcomes, SAMPLES)
            values[name] = {key: np.concatenate([value[key], drawn[key]]) for key in value}
        draws[seed] = {
            column: values[dataset][language, metric] for column, (dataset, language, metric) in FIGURES.items()
        }
    return draws


def mean_and_interval(values: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """
    Return the mean over seeds and its 95 % interval: images are drawn with replacement, and seeds with them.

    Seeds are few, so the interval is too narrow for what another seed would give: of one seed it is over images alone.
    """
    seeds = np.stack(values)  # (seeds, 1 + SAMPLES)
    chosen = np.random.default_rng(SEED).integers(len(seeds), size=(len(seeds), SAMPLES))
    return float(seeds[:, 0].mean()), interval(np.take_along_axis(seeds[:, 1:], chosen, axis=0).mean(axis=0))


def differences(one: Draws, other: Draws, figure: str) -> list[np.ndarray]:
    """Return `one - other` of each seed that both have, in the form of [`read_draws`]."""
    return [one[seed][figure] - other[seed][figure] for seed in sorted(one.keys() & other.keys())]


def arm_table(draws: Mapping[str, Draws], names: Mapping[str, str]) -> str:
    """Return a table with a row for each arm: means over seeds, with half of the width of their intervals."""
    rows = []
    for arm, seeds in draws.items():
        minutes = [read_json(RESULTS / f"{arm}-{seed}" / "run.json")["minutes"] for seed in seeds]
        cells = []
        for column in FIGURES:
            mean, (low, high) = mean_and_interval([values[column] for values in seeds.values()])
            cells.append(f"{mean:.1f} ± {(high - low) / 2:.1f}")
        rows.append([names.get(arm, arm), len(seeds), f"{np.mean(minutes):.0f}", *cells])
    return table(["arm", "seeds", "minutes", *FIGURES], rows)


def claim_table(draws: Mapping[str, Draws]) -> str:
    """Return a table of the claims. A claim holds if its interval excludes 0 and several seeds have one sign."""
    rows = []
    for one, other, figure in CLAIMS:
        if pairs := differences(draws.get(one, {}), draws.get(other, {}), figure):
            mean, (low, high) = mean_and_interval(pairs)
            each = [pair[0] for pair in pairs]
            agree = len(each) > 1 and len({value > 0 for value in each}) == 1
            holds = "yes" if agree and (low > 0 or high < 0) else "no"
            cells = [f"{mean:+.2f}", f"{low:+.2f} … {high:+.2f}", ", ".join(f"{value:+.2f}" for value in each)]
            rows.append([f"{one} − {other}, {figure}", *cells, holds])
    return table(["difference", "mean", "95 % interval", "each seed", "holds"], rows)


def exploratory_table(draws: Mapping[str, Draws], names: Mapping[str, str]) -> str:
    """Return a table of differences between arms, over the seeds that both have."""
    rows = []
    for one, other in EXPLORATORY.items():
        cells = []
        for column in FIGURES:
            if pairs := differences(draws.get(one, {}), draws.get(other, {}), column):
                mean, (low, high) = mean_and_interval(pairs)
                cells.append(f"{mean:+.1f} ({low:+.1f} … {high:+.1f})")
        if cells:
            shared = sorted(draws[one].keys() & draws[other].keys())
            rows.append([f"{names.get(one, one)} − {other}", ", ".join(map(str, shared)), *cells])
    return table(["difference", "seed", *FIGURES], rows)


def language_table(run: str) -> str:
    """Return a table of the figures of a run in each language, their means, and those of a random answer."""
    metrics = read_json(RESULTS / run / "run.json")["metrics"]
    columns = [("corpus", "mean_recall"), ("corpus", "zero_shot_accuracy"), ("rsscn7", "zero_shot_accuracy")]
    values = {code: [metrics[name][code][metric] for name, metric in columns] for code in LANGUAGES}
    values["mean"] = np.mean(list(values.values()), axis=0).tolist()
    found = [Outcomes.load(RESULTS / run / "outcomes" / f"{name}.npz") for name in ("corpus", "rsscn7")]
    recalls = chance_of(found[0].retrieval["en"])
    values["chance, en"] = [recalls["mean_recall"], *(100 / len(each.zero_shot["en"].classes) for each in found)]
    rows = [[name, *(f"{value:.1f}" for value in row)] for name, row in values.items()]
    return table(["language", "mean recall", "zero-shot", "RSSCN7"], rows)


def arm_plot(draws: Mapping[str, Draws], names: Mapping[str, str]) -> "Figure":
    """
    Draw the figures of the arms with their intervals, in English and over ten languages.

    Args:
        draws (`Mapping[str, Draws]`): Results of [`read_draws`] by arm, from top to bottom.
        names (`Mapping[str, str]`): What is written for an arm. An arm without a name has its letter.
    """
    places = np.arange(len(draws))[::-1]
    figure = new_figure(1.3 + 0.36 * len(draws), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    titles = {"mean recall": "Mean recall", "zero-shot": "Zero-shot, RSICD", "RSSCN7": "Zero-shot, RSSCN7"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        style(axes, title)
        for suffix, label, color, shift in LINES:
            figures = ([values[column + suffix] for values in seeds.values()] for seeds in draws.values())
            means, bounds = zip(*map(mean_and_interval, figures), strict=True)
            axes.hlines(places + shift, *np.transpose(bounds), color=color, linewidth=1.6)
            axes.plot(means, places + shift, "o", color=color, markersize=4.5, label=label)
        axes.set_xlabel("%", fontsize=SIZE)
        axes.grid(axis="x", alpha=0.3, linewidth=0.6)
    panels[0].set_yticks(places, [names.get(arm, arm) for arm in draws])
    add_legend(figure, panels[0])
    return figure
