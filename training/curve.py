"""Picture of the scalars in a run's `train_log.jsonl`, for the model card."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsmclip.core.drawing import new_figure, save
from rsmclip.core.errors import UserError

if TYPE_CHECKING:  # matplotlib is imported when a run ends
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
WIDTH, HEIGHT, DOTS = 10.0, 2.35, 120  # width of the picture and height of a row in inches; pixels per inch
SMALL = 7.5  # points
SCALARS = {  # fields of the log and titles
    "gradient_norm": "gradient norm, unclipped",
    "logit_scale": "logit scale",
    "embedding_rank": "effective rank of image embeddings",
    "teacher_entropy": "teacher's entropy (0 one-hot, 1 uniform)",
    "kl": "KL(teacher || student), nats",
    "prototype_use": "share of prototypes that ever won",
}
FIGURES = {"mean_recall": "mean recall, %", "zero_shot_accuracy": "zero-shot accuracy, %"}
FEW = 3  # languages that each have a line; more have their mean and range


def draw_training_curve(
    log: Path, output: Path, kept: int | None = None, start: dict[str, dict[str, dict[str, float]]] | None = None
) -> None:
    """
    Draw losses, validation figures of the corpus and of the benchmarks, learning rates and other scalars.

    Args:
        log (`Path`): The log of the run.
        output (`Path`): PNG file.
        kept (`int`, *optional*): Step that became the model, marked in the validation figures.
        start (`dict`, *optional*): Metrics before training by benchmark and language, drawn at step 0.

    Raises:
        [`UserError`]: The log has no step, or the file cannot be written.
    """
    save(curve_figure(log, kept, start), output)


def curve_figure(
    log: Path, kept: int | None = None, start: dict[str, dict[str, dict[str, float]]] | None = None
) -> "Figure":
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "loss" in record]
    validations = validation_series(records, start or {})
    if not steps:
        raise UserError(f"{log} has no step to draw")
    scalars = {name: title for name, title in SCALARS.items() if any(name in record for record in steps)}

    # One panel for each series that the log has.
    rows = -(-(2 + len(validations) + len(scalars)) // COLUMNS)
    figure = new_figure(HEIGHT * rows, WIDTH, DOTS, layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    remaining = iter(panels)
    draw_losses(next_panel(remaining, "training loss", steps), steps)
    for title, languages in validations.items():
        draw_by_language(next_panel(remaining, title, steps), languages, kept)
    draw_learning_rates(next_panel(remaining, "learning rate", steps), steps)
    for name, title in scalars.items():
        draw_scalar(next_panel(remaining, title, steps), steps, name)
    for axes in remaining:
        axes.remove()
    return figure


def next_panel(panels: Iterator["Axes"], title: str, steps: list[dict]) -> "Axes":
    axes = next(panels)
    axes.set_title(title, fontsize=9, pad=5)
    axes.tick_params(which="both", labelsize=SMALL, length=2)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, steps[-1]["step"] + 1)
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.set_xlabel("step", fontsize=SMALL, labelpad=1)
    return axes


def series(records: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    found = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    steps, values = np.array(found, dtype=float).reshape(-1, 2).T
    return steps, values


def draw_series(axes: "Axes", steps: np.ndarray, values: np.ndarray, color: str, label: str | None = None) -> None:
    # Pale values and their moving average. A series of fewer than ten values has markers.
    window = len(values) // 40
    if window > 1:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.7)
        values = moving_average(values, window)
    marker = "o" if len(values) < 10 else None
    axes.plot(steps, values, color=color, linewidth=1.3, marker=marker, markersize=3, label=label)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    # Mean of a value and up to `window` values on each side.
    kernel = np.ones(2 * window + 1)
    return np.convolve(values, kernel)[window:-window] / np.convolve(np.ones_like(values), kernel)[window:-window]


def draw_losses(axes: "Axes", steps: list[dict]) -> None:
    for name, color in (("contrastive", "tab:blue"), ("distillation", "tab:orange")):
        if any(name in record for record in steps):
            draw_series(axes, *series(steps, name), color, name)
    if skipped := [record["step"] for record in steps if "skipped" in record]:
        bottom = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(skipped, np.full(len(skipped), 0.03), "x", color="tab:red", label="skipped step", **bottom)
    axes.legend(fontsize=7, frameon=False)


def draw_scalar(axes: "Axes", steps: list[dict], name: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    draw_series(axes, *series(steps, name), "tab:blue")
    if name == "gradient_norm":  # a single peak would hide all other values
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def validation_series(records: list[dict], start: dict) -> dict[str, dict[str, dict[int, float]]]:
    """Return the figures of the validation: values by title of the panel, language and step."""
    evaluations = [(0, name, by_language) for name, by_language in start.items()]
    for record in records:
        if "validation" in record:
            measured = {"validation": record["validation"]} | record.get("benchmarks", {})
            evaluations += [(record["step"], name, by_language) for name, by_language in measured.items()]
    found: dict[str, dict[str, dict[int, float]]] = {}
    # Panels in this order: the validation split, then benchmarks by name.
    for step, name, by_language in sorted(evaluations, key=lambda each: (each[1] != "validation", each[1], each[0])):
        for metric, title in FIGURES.items():
            for language, values in by_language.items():
                if metric in values:
                    found.setdefault(f"{name}: {title}", {}).setdefault(language, {})[step] = values[metric]
    return found


def draw_by_language(axes: "Axes", languages: dict[str, dict[int, float]], kept: int | None) -> None:
    style = {"linewidth": 1.3, "marker": "o", "markersize": 2.5}
    if len(languages) <= FEW:
        for language, values in languages.items():
            axes.plot(values.keys(), values.values(), label=language, **style)
    else:
        # Lines of many languages hide each other: mean, range and English.
        table: dict[int, list[float]] = {}
        for values in languages.values():
            for step, value in values.items():
                table.setdefault(step, []).append(value)
        lowest, highest = [[choose(values) for values in table.values()] for choose in (min, max)]
        label = f"range of {len(languages)} languages"
        axes.fill_between(list(table), lowest, highest, alpha=0.2, linewidth=0, label=label)
        axes.plot(list(table), [np.mean(values) for values in table.values()], color="tab:blue", label="mean", **style)
        if "en" in languages:
            axes.plot(languages["en"].keys(), languages["en"].values(), color="tab:orange", label="en", **style)
    if kept is not None:
        axes.axvline(kept, color="tab:gray", linewidth=1, linestyle=":", label="the model")
    axes.legend(fontsize=7, framealpha=0.8, edgecolor="none")


def draw_learning_rates(axes: "Axes", steps: list[dict]) -> None:
    # Parts of the model with equal learning rates share a line.
    parts: dict[tuple, list[str]] = {}
    for part in dict.fromkeys(part for record in steps for part in record["learning_rate"]):
        parts.setdefault(tuple(record["learning_rate"].get(part) for record in steps), []).append(part)
    for rates, names in parts.items():
        label, marker = ", ".join(names).replace("_", " "), "o" if len(steps) < 10 else None
        axes.plot([record["step"] for record in steps], rates, linewidth=1.3, label=label, marker=marker, markersize=3)
    if len(parts) > 1:
        axes.legend(fontsize=7, frameon=False)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", scilimits=(-3, 3))
    axes.yaxis.offsetText.set_fontsize(SMALL)
