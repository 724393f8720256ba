"""The course of a run as a picture: what `train_log.jsonl` holds, for the model card."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a run loads matplotlib when it is over
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
WIDTH, HEIGHT, DOTS = 10.0, 2.35, 120  # inches of the picture and of a row of panels; pixels an inch
TITLE = {"fontsize": 9, "pad": 5}
SCALARS = {  # of the log, and what they are called
    "gradient_norm": "gradient norm, unclipped",
    "logit_scale": "logit scale",
    "embedding_rank": "effective rank of image embeddings",
    "teacher_entropy": "teacher's entropy (0 one-hot, 1 uniform)",
    "prototype_use": "share of prototypes that ever won",
}
FIGURES = {"mean_recall": "validation: mean recall, %", "zero_shot_accuracy": "validation: zero-shot accuracy, %"}


def draw_training_curve(log: Path, output: Path) -> None:
    """
    Draws losses, validation figures by language, and what tells of the run's health, as far as it was logged.

    Args:
        log (`Path`): A run's `train_log.jsonl`.
        output (`Path`): PNG file to write, 1,200 pixels wide.
    """
    curve_figure(log).savefig(output)


def curve_figure(log: Path) -> "Figure":
    """The picture of a log."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "loss" in record]
    evaluations = [record for record in records if "validation" in record]
    if not steps:
        raise ValueError(f"{log} holds no step to draw")
    figures = {
        name: title
        for name, title in FIGURES.items()
        if any(name in values for record in evaluations for values in record["validation"].values())
    }
    scalars = {name: title for name, title in SCALARS.items() if any(name in record for record in steps)}
    rows = -(-(2 + len(figures) + len(scalars)) // COLUMNS)
    figure = Figure((WIDTH, HEIGHT * rows), dpi=DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    style(panels, steps[-1]["step"])
    remaining = iter(panels)
    draw_losses(next(remaining), steps)
    for name, title in figures.items():
        draw_by_language(next(remaining), evaluations, name, title)
    draw_learning_rates(next(remaining), steps)
    for name, title in scalars.items():
        draw_scalar(next(remaining), steps, name, title)
    for axes in remaining:
        axes.remove()
    return figure


def style(panels: list["Axes"], last_step: int) -> None:
    """The same look and the same steps for all panels."""
    for axes in panels:
        axes.tick_params(which="both", labelsize=7.5, length=2)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, last_step + 1)
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.set_xlabel("step", fontsize=7.5, labelpad=1)


def series(records: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a scalar where it is known and finite."""
    found = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    steps, values = np.array(found, dtype=float).reshape(-1, 2).T
    return steps, values


def draw_series(axes: "Axes", steps: np.ndarray, values: np.ndarray, color: str, label: str | None = None) -> None:
    """The values faintly, and their moving average over a fortieth of them; a few values as they are."""
    window = len(values) // 40
    marker = "o" if len(values) < 10 else None
    if window > 1:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.7)
        values = moving_average(values, window)
    axes.plot(steps, values, color=color, linewidth=1.3, marker=marker, markersize=3, label=label)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over up to `window` values to each side, as many as there are."""
    kernel = np.ones(2 * window + 1)
    return np.convolve(values, kernel)[window:-window] / np.convolve(np.ones_like(values), kernel)[window:-window]


def draw_losses(axes: "Axes", steps: list[dict]) -> None:
    """Both objectives, and the steps that were skipped."""
    axes.set_title("training loss", **TITLE)
    for name, color in (("contrastive", "tab:blue"), ("distillation", "tab:orange")):
        if any(name in record for record in steps):
            draw_series(axes, *series(steps, name), color, name)
    if skipped := [record["step"] for record in steps if "skipped" in record]:
        axes.plot(skipped, np.full(len(skipped), 0.03), "x", color="tab:red", markersize=5, clip_on=False,
                  transform=axes.get_xaxis_transform(), label="skipped step")  # fmt: skip
    axes.legend(fontsize=7, frameon=False)


def draw_scalar(axes: "Axes", steps: list[dict], name: str, title: str) -> None:
    """A scalar over the steps."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_title(title, **TITLE)
    draw_series(axes, *series(steps, name), "tab:blue")
    if name == "gradient_norm":  # a single spike would flatten all else
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def draw_by_language(axes: "Axes", evaluations: list[dict], name: str, title: str) -> None:
    """A validation figure over the steps, a line for each language with the language at its end."""
    axes.set_title(title, **TITLE)
    languages = dict.fromkeys(language for record in evaluations for language in record["validation"])
    ends = {}
    for number, language in enumerate(languages):
        known = [(r["step"], r["validation"].get(language, {}).get(name)) for r in evaluations]
        known = [(step, value) for step, value in known if value is not None]
        if known:
            line = axes.plot(
                *zip(*known, strict=True), color=f"C{number % 10}", linewidth=1.2, marker="o", markersize=2.5
            )
            ends[language] = (*known[-1], line[0].get_color())
    axes.margins(y=0.15)
    low, high = axes.get_ylim()
    places = spread({language: (value - low) / (high - low) for language, (_, value, _) in ends.items()}, 0.085)
    for language, (step, value, color) in ends.items():
        axes.annotate(
            language,
            (step, value),
            (1.03, places[language]),
            textcoords="axes fraction",
            color=color,
            fontsize=7.5,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "alpha": 0.5, "shrinkA": 1, "shrinkB": 2},
        )


def spread(heights: dict[str, float], gap: float) -> dict[str, float]:
    """
    Moves labels apart that stand too near each other, as little as it takes, in their order.

    Args:
        heights (`dict[str, float]`): Where each label belongs, as a share of the panel's height.
        gap (`float`): Smallest distance.

    Returns:
        `dict[str, float]`: Where each label goes.
    """
    order = sorted(heights, key=heights.get)
    groups: list[list] = []  # neighbours that touch: their first place and their number
    for index, label in enumerate(order):
        groups.append([heights[label] - gap * index, 1])  # without the gaps they may only rise
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            place, count = groups.pop()
            groups[-1] = [
                (groups[-1][0] * groups[-1][1] + place * count) / (groups[-1][1] + count),
                groups[-1][1] + count,
            ]
    highest = 1 - gap * (len(order) - 1)  # none leaves the panel
    places = [min(max(place, 0.0), highest) for place, count in groups for _ in range(count)]
    return {label: place + gap * index for index, (label, place) in enumerate(zip(order, places, strict=True))}


def draw_learning_rates(axes: "Axes", steps: list[dict]) -> None:
    """The learning rate, by part where the parts have different ones."""
    axes.set_title("learning rate", **TITLE)
    parts: dict[tuple, list[str]] = {}
    for part in dict.fromkeys(part for record in steps for part in record["learning_rate"]):
        parts.setdefault(tuple(record["learning_rate"].get(part) for record in steps), []).append(part)
    for number, (rates, names) in enumerate(parts.items()):
        label = ", ".join(names).replace("_", " ")
        axes.plot([record["step"] for record in steps], rates, color=f"C{number}", linewidth=1.3, label=label,
                  marker="o" if len(steps) < 10 else None, markersize=3)  # fmt: skip
    if len(parts) > 1:
        axes.legend(fontsize=7, frameon=False)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", scilimits=(-3, 3))
    axes.yaxis.offsetText.set_fontsize(7.5)
