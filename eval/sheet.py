"""Pictures of retrieved images, with queries in every language."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset
from PIL import Image, ImageOps

from rsmclip.core.drawing import DOTS, GREEN, SIZE, SMALL_SIZE, WIDTH, fonts_for, new_figure, wrap
from rsmclip.core.images import decode_image
from rsmclip.eval.retrieval import Embeds, unit_rows

if TYPE_CHECKING:  # commands that draw nothing do not import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOP = 5  # retrieved images per query
GAP, OWN, TEXT, PANEL = 0.08, 0.62, 2.04, 0.94  # inches: between panels; query image, query text, retrieved image
ROW, HEAD = PANEL + 0.27, 0.62  # inches: height of a query and of the heading
TEXT_LETTERS, TEXT_LINES = 28, 7  # most letters and lines of a query text
COLUMNS, COLUMN = 5, (WIDTH - 0.08) / 5  # of a contact sheet; width in inches
TITLE_LETTERS, TITLE_LINES = 28, 3  # most letters and lines of an image title in a contact sheet
TITLE_SIZE = 7.0  # points
LINE, LINE_LETTERS = 0.15, 95  # heading of a contact sheet: inches and letters of a line
LEGEND = (
    "Image of the query with its rank; query; retrieved images with cosines. "
    "✓: the image of the query, or an image with an equal caption."
)
STORED = 320  # pixels: images are not drawn larger


@dataclass
class Answer:
    """A retrieved image."""

    image_id: str
    image: Image.Image  # RGB
    score: float  # cosine similarity of image and query
    right: bool  # whether the query is a caption of the image


@dataclass
class Query:
    """A caption and the images that it retrieved."""

    text: str
    image: Image.Image  # the image of the caption, RGB
    rank: int  # of this image, from 1; other images with an equal score are ranked before it
    answers: list[Answer]  # the first retrieved images, the best first


def retrieved_examples(
    rows: Dataset,
    image_embeds: Embeds,
    texts: Sequence[str],
    text_embeds: Embeds,
    text_to_image: Sequence[int],
    count: int = 6,
) -> list[Query]:
    """
    Retrieve images with the first caption of randomly drawn images.

    The draw of `count` images depends only on the number of images, so it is equal for every language. The image of a
    caption and images with an equal caption are right. Ties are ranked as in
    [`~rsmclip.eval.retrieval.retrieval_metrics`], which has the arguments. `rows` are the images, with the columns
    `image` (encoded) and `image_id`.
    """
    owner = np.asarray(text_to_image)
    drawn = np.sort(np.random.default_rng(0).permutation(len(rows))[:count])
    queries = [int(np.flatnonzero(owner == image)[0]) for image in drawn]
    similarity = (unit_rows(text_embeds, "text")[queries] @ unit_rows(image_embeds, "image").t()).cpu().numpy()
    examples = []
    for query, image, scores in zip(queries, drawn, similarity, strict=True):
        right = {int(owner[place]) for place, text in enumerate(texts) if text == texts[query]}
        order = np.lexsort((np.arange(len(scores)) == image, -scores))
        answers = [Answer(*stored(rows, row), float(scores[row]), row in right) for row in order[:TOP].tolist()]
        rank = int(np.flatnonzero(order == image)[0]) + 1
        examples.append(Query(texts[query], stored(rows, int(image))[1], rank, answers))
    return examples


def stored(rows: Dataset, row: int) -> tuple[str, Image.Image]:
    image_id = rows[row]["image_id"]
    image = decode_image(rows[row]["image"], image_id)
    image.thumbnail((STORED, STORED))
    return image_id, image


def fitting(text: str, letters: int, lines: int) -> str:
    # Lines that do not fit become an ellipsis.
    wrapped = [part for line in text.splitlines() if line.strip() for part in wrap(line, letters)]
    return "\n".join(wrapped if len(wrapped) <= lines else [*wrapped[: lines - 1], "…"])


def write(figure: "Figure", left: float, top: float, text: str, **look: object) -> None:
    # `left` and `top`: inches from the upper left corner of the figure
    place = (left / figure.get_figwidth(), 1 - top / figure.get_figheight())
    figure.text(*place, text, **{"va": "top", "fontsize": SMALL_SIZE, "linespacing": 1.25, "parse_math": False} | look)


def show(figure: "Figure", image: Image.Image, left: float, top: float, size: float) -> "Axes":
    # `left`, `top` and `size`: inches; `left` and `top` from the upper left corner of the figure
    width, height = figure.get_figwidth(), figure.get_figheight()
    axes = figure.add_axes((left / width, 1 - (top + size) / height, size / width, size / height))
    axes.imshow(ImageOps.contain(image, (round(size * DOTS),) * 2), interpolation="antialiased")
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set(color="0.75", linewidth=0.5)
    return axes


def mark_right(axes: "Axes") -> None:
    axes.spines[:].set(color=GREEN, linewidth=3.5)
    disc = {"boxstyle": "circle,pad=0.2", "facecolor": GREEN, "edgecolor": "white"}
    look = {"ha": "center", "va": "center", "fontsize": SMALL_SIZE, "color": "white", "weight": "bold"}
    axes.text(0.1, 0.9, "✓", transform=axes.transAxes, bbox=disc, **look)  # for readers who cannot see the green


def retrieved_sheet(queries: Sequence[Query], language: str, title: str) -> "Figure":
    """
    Draw queries in rows: the image of the query, its text, then the retrieved images. Right images have a green frame.

    If no installed font has the letters of a query, its language code is written.
    """
    figure = new_figure(HEAD + len(queries) * ROW)
    write(figure, GAP, 0.1, title, fontsize=SIZE + 1, weight="bold", family=fonts_for(title))
    write(figure, GAP, 0.34, LEGEND, color="0.35")
    for number, query in enumerate(queries):
        top, left = HEAD + number * ROW, 2 * GAP + OWN
        show(figure, query.image, GAP, top, OWN)
        write(figure, GAP, top + OWN + 0.05, f"rank {query.rank:,}", color="0.35")
        if fonts := fonts_for(query.text):
            write(figure, left, top, fitting(query.text, TEXT_LETTERS, TEXT_LINES), family=fonts)
        else:
            write(figure, left, top, f"{language} caption: no font installed", color="0.5")
        for place, answer in enumerate(query.answers):
            axes = show(figure, answer.image, left + TEXT + GAP + place * (PANEL + GAP), top, PANEL)
            axes.set_xlabel(f"{answer.score:.3f}", fontsize=SMALL_SIZE, labelpad=3)
            if answer.right:
                mark_right(axes)
    return figure


def contact_sheet(sections: Sequence[tuple[str, Sequence[Image.Image | None], Sequence[str]]]) -> "Figure":
    """
    Draw RGB images in rows of five, each above its title of up to three lines.

    Args:
        sections (`Sequence[tuple]`): Heading, images and titles of each section. A gray box stands for `None`.
    """
    headings = [written_heading(heading) for heading, _, _ in sections]
    heads = [0.2 + LINE * (1 + written.count("\n")) for written, _ in headings]
    row = COLUMN + TITLE_LINES * LINE
    figure = new_figure(sum(heads) + row * sum(-(-len(images) // COLUMNS) for _, images, _ in sections))
    top = 0.0
    for (_, images, titles), (written, fonts), head in zip(sections, headings, heads, strict=True):
        write(figure, GAP, top + 0.1, written, fontsize=SIZE, family=fonts, color="black" if fonts else "0.5")
        for number, (image, title) in enumerate(zip(images, titles, strict=True)):
            left, upper = GAP + number % COLUMNS * COLUMN, top + head + number // COLUMNS * row
            show(figure, image or Image.new("RGB", (8, 8), (230, 230, 230)), left, upper, COLUMN - GAP)
            title_fonts = fonts_for(title)
            shown = fitting(title, TITLE_LETTERS, TITLE_LINES) if title_fonts else "no font installed"
            write(figure, left, upper + COLUMN - GAP + 0.04, shown, family=title_fonts, fontsize=TITLE_SIZE)
        top += head + row * -(-len(images) // COLUMNS)
    return figure


def written_heading(heading: str) -> tuple[str, list[str] | None]:
    fonts = fonts_for(heading)
    if not fonts:
        return "no installed font has the letters of this heading", None
    return fitting(heading, LINE_LETTERS, 3), fonts


def shorten(name: str, letters: int) -> str:
    """Shorten a name from the left, because the ends of paths differ most."""
    return name if len(name) <= letters else "…" + name[1 - letters :]
