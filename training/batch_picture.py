"""Picture of a batch for a dry run: images with the boxes of their views, the rendered views, and the captions."""

from typing import TYPE_CHECKING

import torch
from datasets import Dataset

from rsmclip.core.drawing import FONT, fonts_for, new_figure, wrap
from rsmclip.training.views import ViewSpec, render_views

if TYPE_CHECKING:  # only a dry run imports matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES = 6
CELL, SMALL, GAP, TEXT, HEAD, DOTS = 1.4, 0.66, 0.08, 4.2, 0.6, 120  # inches; pixels per inch
FONT_SIZE, LINES, LINE_LENGTH = 8.5, 9, 52  # points; lines of captions of an image; letters of a line
HEADINGS = {
    "image": "image and boxes",
    "contrastive": "contrastive views",
    "global": "global views",
    "local": "local views",
}


def drawn_captions(batch: dict, rows: Dataset, languages: list[str]) -> list[list[tuple[str, str]]]:
    """
    Return language and text of the captions of a batch, a list for each of its first `IMAGES` images.

    The language is `"?"` if `rows` does not have the image (a stream replaced a row).
    """
    image_ids = batch["image_ids"][:IMAGES]
    places = {image_id: row for row, image_id in enumerate(rows["image_id"]) if image_id in image_ids}
    found = []
    for number, image_id in enumerate(image_ids):
        known = rows[places[image_id]]["captions"] if image_id in places else {}
        texts = [captions[number] for captions in batch["captions"]]
        language_of = {text: name for name in reversed(languages) for text in known.get(name) or []}
        found.append([(language_of.get(text, "?"), text) for text in texts])
    return found


def draw_batch(batch: dict, specs: dict[str, ViewSpec], captions: list[list[tuple[str, str]]], title: str) -> "Figure":
    """
    Draw a row for each of the first images of a batch. A view has the color of its box.

    `captions` is the result of [`drawn_captions`] and sets the number of images. A row is `CELL + 2 * GAP` inches
    high, and an inch has `DOTS` pixels.
    """
    count, places = len(captions), view_places(specs)
    text_left = max(left + size for _, left, _, size in places) + 2 * GAP
    width, height = text_left + TEXT, HEAD + count * (CELL + 2 * GAP)

    # The title, and a heading above the first column of each kind.
    figure = new_figure(height, width, DOTS)
    figure.text(GAP / width, 1 - 0.1 / height, title, fontsize=11, va="top")
    for name, left in ({name: left for name, left, _, _ in reversed(places)} | {"captions": text_left}).items():
        text = HEADINGS.get(name, name)
        figure.text(left / width, 1 - 0.36 / height, text, fontsize=FONT_SIZE, va="top", color="0.4")

    # A row for each image: the image with boxes, its views, its captions.
    pixels, rendered, boxes = batch["pixels"][:count], {}, {}
    for name, spec in specs.items():
        numbers = {key: values[:count] for key, values in batch["views"][name].items()}
        rendered[name], boxes[name] = render_views(pixels, numbers, spec), numbers["box"].tolist()
    for row in range(count):
        bottom = height - HEAD - row * (CELL + 2 * GAP) - CELL
        panels = [figure.add_axes((x / width, (bottom + y) / height, s / width, s / height)) for _, x, y, s in places]
        show(panels[0], pixels[row])
        views = [view for name in specs for view in zip(rendered[name][:, row], boxes[name][row], strict=True)]
        for number, (axes, (picture, box)) in enumerate(zip(panels[1:], views, strict=True)):
            show(axes, picture, f"C{number % 10}")
            draw_box(panels[0], box, f"C{number % 10}")
        write_captions(figure, captions[row], text_left / width, (bottom + CELL) / height)
    return figure


def view_places(specs: dict[str, ViewSpec]) -> list[tuple[str, float, float, float]]:
    # (kind, left, bottom, size) of the image and of each view, in inches from the lower left corner of the row.
    places, left = [("image", GAP, 0.0, CELL)], 2 * GAP + CELL
    for name, spec in specs.items():
        for number in range(spec.count):
            if name == "local":  # two below each other
                places.append((name, left + number // 2 * (SMALL + GAP), (1 - number % 2) * (CELL - SMALL), SMALL))
            else:
                places.append((name, left + number * (CELL + GAP), 0.0, CELL))
        left += spec.count * (CELL + GAP)  # local views come last
    return places


def show(axes: "Axes", picture: torch.Tensor, color: str = "none") -> None:
    axes.imshow(picture.permute(1, 2, 0).cpu().numpy(), interpolation="antialiased")
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set(color=color, linewidth=1.8)


def draw_box(axes: "Axes", box: list[float], color: str) -> None:
    from matplotlib.patches import Rectangle

    top, left, height, width = box
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=color, linewidth=1.5))


def write_captions(figure: "Figure", captions: list[tuple[str, str]], left: float, top: float) -> None:
    # The language is before the first line of a caption.
    lines = []
    for language, text in captions:
        fonts = fonts_for(text)
        texts = wrap(text, LINE_LENGTH) if fonts else ["(no installed font has its letters; the terminal shows it)"]
        style = {"family": fonts or FONT, "color": "black" if fonts else "0.5"}
        lines += [(language if not number else "", line, style) for number, line in enumerate(texts)]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], ("", "…", {})]
    step, indent = CELL / LINES / figure.get_figheight(), 0.3 / figure.get_figwidth()
    for number, (language, line, style) in enumerate(lines):
        place = top - number * step
        figure.text(left, place, language, fontsize=FONT_SIZE, va="top", weight="bold")
        figure.text(left + indent, place, line, fontsize=FONT_SIZE, va="top", parse_math=False, **style)
