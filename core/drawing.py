"""Settings of all figures: size, colors, fonts for every script, line breaks.

Figures are 1,200 pixels wide; the Hub shows them at 800. The colors are from Okabe and Ito (2008);
color-blind people can distinguish them.
"""

import io
import string
import textwrap
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rsmclip.core.files import write_whole

if TYPE_CHECKING:  # commands that draw nothing do not import matplotlib
    from matplotlib.figure import Figure

WIDTH, DOTS = 8.0, 150  # inches; pixels per inch
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
SIZE, SMALL_SIZE = 9.0, 8.0  # points
FONT = "DejaVu Sans"  # part of matplotlib
NO_FONT = "Last Resort"  # part of matplotlib; draws a box for every letter
CLOSING = "。，、；：？！）」』》”"  # signs that must not begin a line


def new_figure(height: float, width: float = WIDTH, dots: int = DOTS, **options: object) -> "Figure":
    """Make a white figure of `height` × `width` inches with `dots` pixels per inch, without using pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=dots, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, and create the folder. Equal figures give equal bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_whole(path, content.getvalue())


def fonts_for(text: str) -> list[str] | None:
    """Return names of installed fonts that together have all letters of a text; `None` if no such fonts exist."""
    from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font

    def missing(letters: set[int], file: str) -> set[int]:
        return letters - get_font(file).get_charmap().keys()

    letters = set(map(ord, text)) - set(map(ord, string.whitespace))  # line breaks are not drawn
    if not (letters := missing(letters, findfont(FontProperties(family=[FONT])))):
        return [FONT]
    for file in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
        with suppress(OSError, RuntimeError):  # a file that matplotlib cannot read
            fontManager.addfont(file)  # matplotlib caches the list; a font may be installed or uninstalled since
    for font in fontManager.ttflist:
        is_there = Path(font.fname).is_file()
        if is_there and not font.name.startswith(NO_FONT) and not missing(letters, font.fname):
            return [FONT, font.name]
    return None


def wrap(text: str, letters: int) -> list[str]:
    """Break a text into lines of at most `letters` letters. East Asian letters count twice."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    lines: list[str] = []
    for line in textwrap.wrap(text, round(letters / (1 + wide / len(text)))):
        if lines and line[0] in CLOSING:
            lines[-1], line = lines[-1] + line[0], line[1:]
        lines += [line] if line else []
    return lines
