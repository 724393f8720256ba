"""A batch as a picture: images with the boxes of their views, the views as the model sees them, and the captions."""

from typing import TYPE_CHECKING

import torch
from datasets import Dataset

from rsmclip.core.drawing import FONT, fonts_for, wrap
from rsmclip.training.views import ViewSpec, render_views

if TYPE_CHECKING:  # only a dry run loads matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES = 6
CELL, SMALL, GAP, TEXT, HEAD, DOTS = 1.4, 0.66, 0.08, 4.2, 0.6, 120  # inches; pixels an inch
FONT_SIZE, LINES, LINE_LENGTH = 8.5, 9, 52  # points; lines of captions beside an image, and their length in letters
HEADINGS = {"image": "image and boxes", "global": "global views", "local": "local views"}


def drawn_captions(batch: dict, rows: Dataset, languages: list[str]) -> list[list[tuple[str, str]]]:
    """
    Languages and texts of the captions that were drawn for each image that the picture shows; the language of a row
    that isn't among `rows`, as it took another's place, is `"?"`.
    """
    image_ids = batch["image_ids"][:IMAGES]
    places = {image_id: row for row, image_id in enumerate(rows["image_id"]) if image_id in image_ids}
    found = []
    for number, image_id in enumerate(image_ids):
        known = rows[places[image_id]]["captions"] if image_id in places else {}
        texts = [captions[number] for captions in batch["captions"]]
        found.append(
            [(next((name for name in languages if text in (known.get(name) or [])), "?"), text) for text in texts]
        )
    return found


def draw_batch(batch: dict, specs: dict[str, ViewSpec], captions: list[list[tuple[str, str]]], title: str) -> "Figure":
    """
    Draws the first images of a batch, one a row, a view in the colour of its box.

    Args:
        batch (`dict`):
            What [`~rsmclip.training.batches.Collate`] gave.
        specs (`dict[str, ViewSpec]`):
            Its sorts of views.
        captions (`list[list[tuple[str, str]]]`):
            What [`drawn_captions`] found; as many images are drawn.
        title (`str`):
            What stands above.

    Returns:
        `matplotlib.figure.Figure`: A row is `CELL + 2 * GAP` inches high, an inch `DOTS` pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count, places = len(captions), view_places(specs)
    text_left = max(left + size for _, left, _, size in places) + 2 * GAP
    width, height = text_left + TEXT, HEAD + count * (CELL + 2 * GAP)
    figure = Figure((width, height), dpi=DOTS)
    FigureCanvasAgg(figure)
    figure.text(GAP / width, 1 - 0.1 / height, title, fontsize=11, va="top")
    for name, left in ({name: left for name, left, _, _ in reversed(places)} | {"captions": text_left}).items():
        text = HEADINGS.get(name, name)
        figure.text(left / width, 1 - 0.36 / height, text, fontsize=FONT_SIZE, va="top", color="0.4")
    pixels, rendered, boxes = batch["pixels"][:count], {}, {}
    for name, spec in specs.items():
        numbers = {key: values[:count] for key, values in batch["views"][name].items()}
        rendered[name], boxes[name] = render_views(pixels, numbers, spec), numbers["box"].tolist()
    for row in range(count):
        bottom = height - HEAD - row * (CELL + 2 * GAP) - CELL
        panels = [figure.add_axes((x / width, (bottom + y) / height, s / width, s / height)) for _, x, y, s in places]
        image = show(panels[0], pixels[row])
        views = [view for name in specs for view in zip(rendered[name][:, row], boxes[name][row], strict=True)]
        for number, (axes, (picture, box)) in enumerate(zip(panels[1:], views, strict=True)):
            show(axes, picture, f"C{number % 10}")
            draw_box(image, box, f"C{number % 10}")
        write_captions(figure, captions[row], text_left / width, (bottom + CELL) / height)
    return figure


def view_places(specs: dict[str, ViewSpec]) -> list[tuple[str, float, float, float]]:
    """Sort, left, bottom and size in inches of the image and its views in a row of the picture."""
    places, left = [("image", GAP, 0.0, CELL)], 2 * GAP + CELL
    for number in range(specs["global"].count):
        places.append(("global", left + number * (CELL + GAP), 0.0, CELL))
    left += specs["global"].count * (CELL + GAP)
    for number in range(specs["local"].count if "local" in specs else 0):  # in two rows
        places.append(("local", left + number // 2 * (SMALL + GAP), (1 - number % 2) * (CELL - SMALL), SMALL))
    return places


def show(axes: "Axes", picture: torch.Tensor, color: str | None = None) -> "Axes":
    """Shows `(3, height, width)` in a panel, framed in a colour."""
    axes.imshow(picture.permute(1, 2, 0).cpu().numpy(), interpolation="antialiased")
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set(color=color or "none", linewidth=1.8)
    return axes


def draw_box(axes: "Axes", box: list[float], color: str) -> None:
    """Outlines a view's box (top, left, height, width in pixels) in the image that it is cut from."""
    from matplotlib.patches import Rectangle

    top, left, height, width = box
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=color, linewidth=1.5))


def write_captions(figure: "Figure", captions: list[tuple[str, str]], left: float, top: float) -> None:
    """Writes captions below each other, each after its language, as many lines as there is room for."""
    lines = [(language if not number else "", line, text) for language, text in captions
             for number, line in enumerate(wrap(text, LINE_LENGTH))]  # fmt: skip
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], ("", "…", "")]
    step = CELL / LINES / figure.get_figheight()
    for number, (language, line, text) in enumerate(lines):
        fonts = fonts_for(text)
        place = top - number * step
        figure.text(left, place, language, fontsize=FONT_SIZE, va="top", weight="bold")
        line = line if fonts else "(no installed font has its letters; the terminal shows it)" if language else ""
        figure.text(left + 0.3 / figure.get_figwidth(), place, line, fontsize=FONT_SIZE, va="top",
                    family=fonts or FONT, color="black" if fonts else "0.5", parse_math=False)  # fmt: skip
