"""What all figures share: size, colours, fonts for every script, line breaking.

The pictures are 1,200 pixels wide, to be read at the 800 that a page of the Hub gives them. The colours are those of
Okabe and Ito (2008), which colour-blind people can tell apart.
"""

import string
import textwrap
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who draws nothing loads no matplotlib
    from matplotlib.figure import Figure

WIDTH, DOTS = 8.0, 150  # inches; pixels an inch
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
SIZE, SMALL_SIZE = 9.0, 8.0  # points
FONT = "DejaVu Sans"  # comes with matplotlib
NO_FONT = "Last Resort"  # has a box for every letter; comes with matplotlib too
CLOSING = "。，、；：？！）」』》”"  # never begin a line


def new_figure(height: float, width: float = WIDTH, dots: int = DOTS, **options: object) -> "Figure":
    """A white figure of a height and width in inches, `dots` pixels an inch, that depends on no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=dots, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG; the same figure gives the same bytes."""
    figure.savefig(path, format="png", metadata={"Software": None})


def fonts_for(text: str) -> list[str] | None:
    """Names of fonts that together have all letters of a text; `None` if no font that is installed completes them."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    def missing(letters: set[int], file: str) -> set[int]:
        return letters - get_font(file).get_charmap().keys()

    letters = set(map(ord, text)) - set(map(ord, string.whitespace))  # of which the line breaks are not drawn
    if not (letters := missing(letters, findfont(FontProperties(family=[FONT])))):
        return [FONT]
    for font in fontManager.ttflist:
        is_there = Path(font.fname).is_file()  # the list is kept for later, and fonts may have been removed
        if is_there and not font.name.startswith(NO_FONT) and not missing(letters, font.fname):
            return [FONT, font.name]
    return None


def wrap(text: str, letters: int) -> list[str]:
    """Lines of a text, of so many letters; letters of East Asia are twice as wide as others."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    lines: list[str] = []
    for line in textwrap.wrap(text, round(letters / (1 + wide / len(text)))):
        if lines and line[0] in CLOSING:
            lines[-1], line = lines[-1] + line[0], line[1:]
        lines += [line] if line else []
    return lines
