"""Tables of captions, with a line for each caption or for each image: their columns, and the lines of one image.

A column that is named by a language code (`pt`) has captions in this language, which are stored as they are. Captions
on one line, or at one place of the lists of a line, are translations of each other.
"""

import json
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.languages import LANGUAGES

OPTIONS = ("captions", "image", "label", "split")  # each names a column
CAPTION_NAMES = ("captions", "text")
SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}  # other names of splits
LIST_AS_TEXT = re.compile(r"""\s*\[\s*["'].*]\s*""", flags=re.DOTALL)

Line = tuple[str, Mapping]  # place (file and line number, for error lines) and values by column


class Columns(NamedTuple):
    """Names of columns. A line may lack all of them except the image."""

    image: str
    captions: tuple[str, ...]  # English captions as published, in the first of these columns that a line has
    languages: tuple[str, ...]  # columns that are named by a language code
    label: str | None
    split: str | None

    def unused_note(self, present: Iterable[str]) -> str | None:
        """Return a line about the columns of a table that are not read."""
        used = {self.image, *self.captions, *self.languages, self.label, self.split, ""}
        if not (unused := [name for name in present if name not in used]):
            return None
        advice = "name captions in another language by its code, such as pt, others with label=COLUMN, captions=COLUMN"
        return f"columns that are not used: {', '.join(unused)} ({advice})"


class ImageLines(NamedTuple):
    """What the lines of one image say. The fields are those of a [`~rsmclip.data.sources.protocol.SourceRow`]."""

    captions_en: list[str | None] | None
    given: dict[str, list[str | None]]
    label: str | None
    split: str | None
    places: list[str]  # of each caption


def caption_columns(
    place: str, present: Collection[str], asked: str | None, names: Sequence[str] = CAPTION_NAMES
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Return the columns of published English captions, and the columns that are named by a language code.

    Args:
        place (`str`): The table, for error lines.
        present (`Collection[str]`): All columns.
        asked (`str`, *optional*): Value of the option `captions`.
        names (`Sequence[str]`, *optional*): Columns of English captions, if `asked` is not given.

    Raises:
        [`UserError`]: There is no column of captions, or two have English captions.
    """
    languages = tuple(code for code in LANGUAGES if code in present)
    published = (asked,) if asked else tuple(name for name in names if name in present)
    if asked in languages:  # it is no column of English captions: its name says the language
        published = ()
    if missing := [name for name in published if name not in present]:
        raise UserError(f"{place} has no column {missing[0]!r}; its columns are {', '.join(present) or 'none'}")
    if not published and not languages:
        known = " or ".join(map(repr, names)) or "text"
        advice = "name the column of English captions with the option captions=COLUMN, others by a language code (pt)"
        raise UserError(
            f"{place} has no column of captions, {known}: {advice}; its columns are {', '.join(present) or 'none'}"
        )
    if published and "en" in languages:
        both = f"English captions in two columns, {published[0]!r} and 'en'"
        raise UserError(f"{place} has {both}: rename one, or choose the second one with the option captions=en")
    return published, languages


def join_lines(lines: Sequence[Line], columns: Columns) -> ImageLines:
    """
    Join the lines of one image.

    Raises:
        [`UserError`]: Two lines have different labels or splits, a value is no caption, or the captions of a line are
            not aligned.
    """
    published: list[str | None] = []
    given: dict[str, list[str | None]] = {language: [] for language in columns.languages}
    places: list[str] = []
    for place, entry in lines:
        own = next((name for name in columns.captions if name in entry), None)
        texts = {name: read_captions(entry.get(name), name, place) for name in (own, *given) if name is not None}
        count = max(map(len, texts.values()), default=1)
        for name, found in texts.items():
            if found and len(found) != count:
                other = next(name for name in texts if len(texts[name]) == count)
                raise UserError(f"{place}: {name!r} has {len(found)} captions, but {other!r} has {count}")
        places += [place] * count
        published += texts.get(own) or [None] * count
        for language, known in given.items():
            known += texts[language] or [None] * count
    if not columns.captions:
        published = given.get("en")
    split = agreed(lines, columns.split)
    return ImageLines(published, given, agreed(lines, columns.label), SPLIT_NAMES.get(split, split), places)


def read_captions(value: object, column: str, place: str) -> list[str | None]:
    """Return the captions in a field: a text, a list, or a list that is written as JSON. Empty if there are none."""
    if value is None or isinstance(value, list):
        return value or []
    if not isinstance(value, str):
        raise UserError(f"{place} is malformed: {column!r} cannot be {reprlib.repr(value)}")
    if not LIST_AS_TEXT.fullmatch(value):
        return [value]
    advice = "write it as JSON, or one caption per line"
    with user_errors(ValueError, RecursionError, prefix=f"{place}: {column!r} is a list written as text: {advice}"):
        return json.loads(value)


def agreed(lines: Sequence[Line], column: str | None) -> str | None:
    """Return the value of a column that all lines of an image have, or that is empty in some of them."""
    places: dict[str, str] = {}
    for place, entry in lines:
        if (value := entry.get(column)) not in (None, ""):
            places.setdefault(str(value), place)
    if len(places) > 1:
        (one, first), (other, second) = list(places.items())[:2]
        raise UserError(f"{second}: {column} is {other!r}, but {one!r} for the same image in {first}")
    return next(iter(places), None)
