"""Pictures of evaluation figures: mean recall by language, recall@k curves, confusion matrices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rsmclip.core.drawing import BLUE, FONT, GREEN, SIZE, SMALL_SIZE, VERMILION, WIDTH, fonts_for, new_figure
from rsmclip.core.errors import UserError

if TYPE_CHECKING:  # commands that draw nothing do not import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH = 100  # largest k of recall@k curves
NAME_LENGTH = 30  # letters of a class name
COLOR_BAR = 0.75  # inches at the right of a confusion matrix
NUMBER_WIDTH = 0.29  # inches of the smallest cell that holds a number


def style(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=SIZE + 1, loc="left")
    axes.tick_params(labelsize=SIZE, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def recall_by_language(records: Sequence[dict], model: str) -> "Figure":
    """Draw mean recall in each language, with 95 % intervals and chance, from [`~rsmclip.eval.intervals.figures`]."""
    found = {record["language"]: record for record in records if record["metric"] == "mean_recall"}
    if not found:
        raise UserError(f"{model} has no figure of the metric mean_recall to draw")
    languages = list(found)
    places = np.arange(len(languages))
    values = np.array([found[language]["value"] for language in languages])
    low, high = np.array([found[language]["interval"] for language in languages], dtype=float).T
    figure = new_figure(3.4, layout="constrained")
    axes = figure.subplots()
    style(axes, "Mean recall by language, with 95 % intervals")

    axes.vlines(places, low, high, color=BLUE, linewidth=1.6)
    axes.plot(places, values, "o", color=BLUE, markersize=5, label=model)
    for place, value, top in zip(places, values, high, strict=True):
        look = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL_SIZE}
        axes.annotate(f"{value:.1f}", (place, top), (0, 3), **look)

    # Chance is a dotted line at each language. The mean over languages has no chance.
    chance = {place: found[code]["chance"] for place, code in enumerate(languages) if "chance" in found[code]}
    starts, look = np.array(list(chance)) - 0.5, {"color": "0.3", "linestyle": ":", "linewidth": 1.3}
    axes.hlines(list(chance.values()), starts, starts + 1, label="chance", **look)
    axes.set_xticks(places, languages)
    axes.set_ylabel("mean recall, %", fontsize=SIZE)
    axes.set_xlim(-0.5, len(languages) - 0.5)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    add_legend(figure, axes)
    return figure


def add_legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), 110 // (max(map(len, labels)) + 8)))  # as many as the longest name allows
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=SIZE, frameon=False)


def recall_curves(ranks: dict[str, tuple[np.ndarray, np.ndarray]]) -> "Figure":
    """
    Draw recall@k for k from 1 to 100 in both directions, from [`~rsmclip.eval.retrieval.retrieval_ranks`] by language.

    Up to three languages have one named curve each. With more languages, English and the mean are named and the others
    are gray. A curve ends at the number of items.
    """
    figure = new_figure(3.6, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for direction, (axes, title) in enumerate(zip(panels, ("Image → text", "Text → image"), strict=True)):
        style(axes, title)
        # The queries of one direction are the items of the other one.
        draw_curves(
            axes, {code: recall_curve(each[direction], len(each[1 - direction])) for code, each in ranks.items()}
        )
        axes.set(xscale="log", xlim=(0.9, 1.1 * DEPTH), ylim=(0, 102))
        axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        axes.minorticks_off()
        axes.set_xlabel("k", fontsize=SIZE)
        axes.grid(alpha=0.3, linewidth=0.6)
    panels[0].set_ylabel("recall@k, %", fontsize=SIZE)
    add_legend(figure, panels[0])
    return figure


def recall_curve(ranks: np.ndarray, items: int) -> np.ndarray:
    if len(ranks) == 0 or ranks.min() < 0 or ranks.max() >= items:
        raise ValueError(f"ranks of {items} items must be from 0 to {items - 1}, and there must be at least one rank")
    return 100 * np.bincount(ranks, minlength=items).cumsum()[:DEPTH] / len(ranks)


def draw_curves(axes: "Axes", curves: dict[str, np.ndarray]) -> None:
    if len(curves) <= 3:
        looks = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "D"))
        for (color, marker), (language, curve) in zip(looks, curves.items(), strict=False):
            draw_curve(axes, curve, color=color, marker=marker, label=language)
        return
    others = [language for language in curves if language != "en"]
    for number, language in enumerate(others):
        label = f"each of the {'other ' if 'en' in curves else ''}{len(others)}"
        draw_curve(axes, curves[language], color="0.72", linewidth=0.9, label="" if number else label)
    if "en" in curves:
        draw_curve(axes, curves["en"], color=VERMILION, marker="s", label="English")
    shortest = min(map(len, curves.values()))
    mean = np.mean([curve[:shortest] for curve in curves.values()], axis=0)
    draw_curve(axes, mean, color=BLUE, marker="o", label=f"mean of the {len(curves)} languages")


def draw_curve(axes: "Axes", curve: np.ndarray, **look: object) -> None:
    marked = [place for place in (0, 4, 9) if place < len(curve)]  # recall at 1, 5 and 10
    axes.plot(np.arange(1, len(curve) + 1), curve, markevery=marked, markersize=4.5, **{"linewidth": 1.6} | look)


def trade_off(points: Sequence[tuple[float, float, float]], chosen: float, benchmarks: Sequence[str]) -> "Figure":
    """
    Draw the figures of averages of two models: in domain against out of domain (WiSE-FT, arXiv 2109.01903, figure 1).

    Args:
        points (`Sequence[tuple[float, float, float]]`):
            Alpha, mean recall in domain and zero-shot accuracy out of domain, by increasing alpha.
        chosen (`float`): Alpha to mark.
        benchmarks (`Sequence[str]`): Names of the datasets out of domain.
    """
    alphas, x, y = np.array(points, dtype=float).T
    figure = new_figure(4.6, layout="constrained")
    axes = figure.subplots()
    style(axes, "Averages of the start (0) and the tuned model (1)")
    axes.plot(x, y, "o-", color=BLUE, markersize=5, linewidth=1.2)
    mark = alphas == chosen
    axes.plot(x[mark], y[mark], "o", color=VERMILION, markersize=9, label=f"best by the rule: alpha {chosen:g}")
    axes.set_xlabel("in domain: mean recall, %", fontsize=SIZE)
    axes.set_ylabel(f"out of domain: zero-shot accuracy on {', '.join(benchmarks)}, %", fontsize=SIZE)
    axes.margins(0.08)
    axes.grid(alpha=0.3, linewidth=0.6)
    add_legend(figure, axes)

    # Labels are at the left of the way from 0 to 1, the outer side of a curve that turns to the right.
    figure.draw_without_rendering()  # sets the place of the panel
    around = np.pad(axes.transData.transform(np.column_stack([x, y])), ((1, 1), (0, 0)), "edge")
    ways = around[2:] - around[:-2]  # (points, 2), in pixels
    ways[~ways.any(axis=1)] = (1, 0)  # of equal points
    offsets = 11 * ways[:, ::-1] * (-1, 1) / np.linalg.norm(ways, axis=1, keepdims=True)
    for alpha, place, offset in zip(alphas, zip(x, y, strict=True), offsets, strict=True):
        look = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": SMALL_SIZE}
        axes.annotate(f"{alpha:g}", place, offset, **look)
    return figure


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> "Figure":
    """
    Draw how the images of each class were classified, in percent of the class.

    `counts`, `(classes, classes)`, are numbers of images by true class (row) and predicted class (column). The row of
    a class without images is gray. If no installed font has the letters of the names, numbers from 1 are written.
    """
    import matplotlib
    from matplotlib.colors import PowerNorm

    counts = np.asarray(counts)
    if counts.shape != (len(class_names), len(class_names)) or len(class_names) == 0 or counts.min() < 0:
        raise ValueError(f"{len(class_names)} classes need as many rows and columns of counts, not {counts.shape}")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(100 * counts / np.where(totals, totals, np.nan))

    names, fonts, note = [shorten(name) for name in class_names], fonts_for("".join(class_names)), ""
    if fonts is None:
        names, fonts = [str(number + 1) for number in range(len(names))], [FONT]
        note = ", by number: no font for the names is installed"
    axes, bar, size = place_matrix(names, fonts)

    # Colors follow the square root, because most confusions are a few percent.
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="0.85")
    image = axes.imshow(shares, colors, PowerNorm(0.5, 0, 100), interpolation="nearest")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size, family=fonts)
    axes.set_yticks(range(len(names)), names, fontsize=size, family=fonts)
    axes.tick_params(length=2)
    axes.set_title("Predicted class of each true class's images", fontsize=SIZE + 1, loc="left")
    axes.set_xlabel(f"predicted class{note}", fontsize=SIZE)
    axes.set_ylabel("true class", fontsize=SIZE)
    scale = axes.figure.colorbar(image, cax=bar, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    scale.set_label("% of the true class's images", fontsize=SIZE)
    scale.ax.tick_params(labelsize=SMALL_SIZE, length=2)
    if axes.get_position().width * WIDTH / len(names) >= NUMBER_WIDTH:
        write_shares(axes, shares)
    return axes.figure


def shorten(name: str) -> str:
    shortened = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1].rstrip() + "…"
    return shortened.replace("$", r"\$")  # otherwise Matplotlib draws the letters between two signs as a formula


def place_matrix(names: list[str], fonts: list[str]) -> tuple["Axes", "Axes", float]:
    # The panels of a square matrix and its color bar, and the font size at which the names fit.
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=fonts)
    longest = max(TextPath((0, 0), name, size=1, prop=font).get_extents().width for name in names)
    size = SIZE
    while True:  # smaller letters leave more room for the matrix, so the loop ends
        margin = longest * size / 72 + 0.45
        side = WIDTH - margin - COLOR_BAR
        if 72 * side / len(names) >= 1.15 * size or size <= 4:
            break
        size -= 0.25
    height = 0.35 + side + margin
    figure = new_figure(height)
    axes = figure.add_axes((margin / WIDTH, margin / height, side / WIDTH, side / height))
    bar = figure.add_axes(((WIDTH - COLOR_BAR + 0.1) / WIDTH, margin / height, 0.13 / WIDTH, side / height))
    return axes, bar, size


def write_shares(axes: "Axes", shares: np.ma.MaskedArray) -> None:
    look = {"ha": "center", "va": "center", "fontsize": SMALL_SIZE - 0.5}
    for row, column in np.argwhere(shares.filled(0) > 0):
        share = shares[row, column]
        text = f"{share:.0f}" if share >= 0.5 else "<1"
        axes.text(column, row, text, color="white" if share > 35 else "black", **look)
