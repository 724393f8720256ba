"""Evaluation figures as pictures: recall by language with its intervals, recall@k curves, and confusion matrices.

The pictures are 1,200 pixels wide, to be read at the 800 that a page of the Hub gives them. The colours are those of
Okabe and Ito (2008), which colour-blind people can tell apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rsmclip.core.drawing import BLUE, FONT, GREEN, SIZE, SMALL_SIZE, VERMILION, WIDTH, fonts_for, new_figure
from rsmclip.data.schema import LANGUAGES

if TYPE_CHECKING:  # who draws nothing loads no matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DEPTH = 100  # of recall@k curves
NAME_LENGTH = 30  # letters of a class name
COLOR_BAR, NUMBER_WIDTH = 0.75, 0.29  # inches: the room of a confusion matrix's colour bar; a cell that holds a number


def style(axes: "Axes", title: str) -> None:
    """What all plots share."""
    axes.set_title(title, fontsize=SIZE + 1, loc="left")
    axes.tick_params(labelsize=SIZE, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def in_order(languages: Sequence[str]) -> list[str]:
    """Languages in the order of the schema, others after them."""
    places = {language: place for place, language in enumerate(LANGUAGES)}
    return sorted(dict.fromkeys(languages), key=lambda language: places.get(language, len(places)))


def recall_by_language(figures: dict[str, Sequence[dict]]) -> "Figure":
    """
    Mean recall in each language with its 95 % interval, beside chance; several models side by side.

    Args:
        figures (`dict[str, Sequence[dict]]`):
            For each model's name its figures. Those whose `metric` is `"mean_recall"` are drawn: `language`, `value`
            and `interval` (two bounds) in percent, and where it is known `chance`.

    Returns:
        `matplotlib.figure.Figure`: For each model a line collection of intervals and a line of values, labelled with
        its name; models that lack a language have a gap there.
    """
    known = {model: mean_recalls(records, model) for model, records in figures.items()}
    languages = in_order([language for records in known.values() for language in records])
    figure = new_figure(3.4 + 0.16 * (len(known) > 1) * len(known), layout="constrained")
    axes = figure.subplots()
    style(axes, "Mean recall by language, with 95 % intervals")
    distance = min(0.22, 0.7 / len(known))
    for number, (model, records) in enumerate(known.items()):
        places = np.array([languages.index(language) for language in records])
        places = places + (number - (len(known) - 1) / 2) * distance
        draw_recalls(axes, places, list(records.values()), number, model)
        if len(known) == 1:
            write_values(axes, places, list(records.values()))
    chance = {name: record["chance"] for records in known.values() for name, record in records.items()
              if record.get("chance") is not None}  # fmt: skip
    places = np.array([languages.index(language) for language in chance])
    axes.hlines(list(chance.values()), places - 0.5, places + 0.5, color="0.3", linestyle=":", linewidth=1.3,
                label="chance")  # fmt: skip
    axes.set_xticks(range(len(languages)), languages)
    axes.set_ylabel("mean recall, %", fontsize=SIZE)
    axes.set_xlim(-0.5, len(languages) - 0.5)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    add_legend(figure, axes)
    return figure


def draw_recalls(axes: "Axes", places: np.ndarray, records: list[dict], number: int, model: str) -> None:
    """The values of the model of a number with their intervals, `places` along the axis, `(languages,)`."""
    color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    low, high = np.array([record["interval"] for record in records], dtype=float).T
    axes.vlines(places, low, high, color=color, linewidth=1.6)
    axes.plot(places, [record["value"] for record in records], marker, color=color, markersize=5, label=model)


def write_values(axes: "Axes", places: np.ndarray, records: list[dict]) -> None:
    """The values above their intervals."""
    for place, record in zip(places, records, strict=True):
        axes.annotate(f"{record['value']:.1f}", (place, record["interval"][1]), (0, 3), textcoords="offset points",
                      ha="center", fontsize=SMALL_SIZE)  # fmt: skip


def mean_recalls(records: Sequence[dict], model: str) -> dict[str, dict]:
    """A model's figures of mean recall by language, in order."""
    records = [record for record in records if record["metric"] == "mean_recall"]
    languages = [record["language"] for record in records]
    if not records:
        raise ValueError(f"{model} has no figure of mean recall to draw")
    if twice := [language for language in languages if languages.count(language) > 1]:
        raise ValueError(f"{model} has several figures of mean recall for {twice[0]}; give those of one dataset")
    return {language: records[languages.index(language)] for language in in_order(languages)}


def add_legend(figure: "Figure", axes: "Axes") -> None:
    """A legend below the plot, in as many columns as its longest name allows."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), 110 // (max(map(len, labels)) + 8)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=SIZE, frameon=False)


def recall_curves(ranks: dict[str, tuple[np.ndarray, np.ndarray]]) -> "Figure":
    """
    Recall@k for k from 1 to 100 in both directions: up to three languages by name, more of them as English, the mean,
    and the others faintly.

    Args:
        ranks (`dict[str, tuple[np.ndarray, np.ndarray]]`):
            For each language the ranks, from 0, of the first right text of each image, `(images,)`, and of the right
            image of each text, `(texts,)`.

    Returns:
        `matplotlib.figure.Figure`: Two panels, image to text and text to image; a panel's curves end where all that
        can be retrieved is.
    """
    figure = new_figure(3.6, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for direction, (axes, title) in enumerate(zip(panels, ("Image → text", "Text → image"), strict=True)):
        style(axes, title)
        # What is retrieved are the queries of the other direction.
        curves = {
            language: recall_curve(ranks[language][direction], len(ranks[language][1 - direction]))
            for language in in_order(list(ranks))
        }
        draw_curves(axes, curves)
        axes.set(xscale="log", xlim=(0.9, 1.1 * DEPTH), ylim=(0, 102))
        axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        axes.minorticks_off()
        axes.set_xlabel("k", fontsize=SIZE)
        axes.grid(alpha=0.3, linewidth=0.6)
    panels[0].set_ylabel("recall@k, %", fontsize=SIZE)
    add_legend(figure, panels[0])
    return figure


def recall_curve(ranks: np.ndarray, items: int) -> np.ndarray:
    """Recall@k in percent for k from 1 to 100, or to the number of items if there are fewer, `(k,)`."""
    if len(ranks) == 0 or ranks.min() < 0 or ranks.max() >= items:
        raise ValueError(f"ranks must be from 0 to {items - 1}, the last of the {items} items, and at least one")
    return 100 * np.bincount(ranks, minlength=items).cumsum()[:DEPTH] / len(ranks)


def draw_curves(axes: "Axes", curves: dict[str, np.ndarray]) -> None:
    """Curves by language, `(k,)` each, labelled; of more than three languages English and the mean stand out."""
    if len(curves) <= 3:
        for color, marker, (language, curve) in zip(COLORS, MARKERS, curves.items(), strict=False):
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
    """A curve with its markers at 1, 5 and 10."""
    marked = [place for place in (0, 4, 9) if place < len(curve)]
    axes.plot(np.arange(1, len(curve) + 1), curve, markevery=marked, markersize=4.5, **{"linewidth": 1.6} | look)


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> "Figure":
    """
    How the images of each class were classified, in percent of the class.

    Args:
        counts (`np.ndarray` of shape `(classes, classes)`):
            Images by true class (row) and predicted class (column). The row of a class without images stays grey.
        class_names (`Sequence[str]`):
            Their names; longer ones than `NAME_LENGTH` letters are cut, and names that no installed font can write
            give way to numbers from 1.

    Returns:
        `matplotlib.figure.Figure`: A square matrix, with numbers where its cells have room for them.
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
    # By the square root, since most confusions are of a few percent.
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
    """A name of at most `NAME_LENGTH` letters."""
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1].rstrip() + "…"


def place_matrix(names: list[str], fonts: list[str]) -> tuple["Axes", "Axes", float]:
    """Panels of a figure for a square matrix and its colour bar, with room for the names, and the names' size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=fonts)
    longest = max(TextPath((0, 0), name, size=1, prop=font).get_extents().width for name in names)  # in their size
    size = SIZE
    while True:  # smaller letters leave the matrix more room, so this ends
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
    """Percentages in the cells that aren't empty."""
    for row, column in np.argwhere(shares.filled(0) > 0):
        share = shares[row, column]
        text = f"{share:.0f}" if share >= 0.5 else "<1"
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL_SIZE - 0.5,
                  color="white" if share > 35 else "black")  # fmt: skip
