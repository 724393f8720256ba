"""The interface of a reader, and functions that readers share."""

import json
import re
import reprlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, NotRequired, Protocol, TypedDict, TypeVar

from rsmclip.core.errors import UserError, user_errors

Result = TypeVar("Result")


class SourceRow(TypedDict):
    """One image of a corpus."""

    image: bytes | None  # content of the image file; `None` if the file is missing
    file: str  # path of the image in the corpus, for error lines
    image_id: str  # unique over all corpora: `rsicd/airport_1`
    source: str  # name of the corpus
    label: str | None  # scene class, if the corpus has classes
    split: str | None  # `train`, `val` or `test`; `None` if the corpus states no split
    captions_en: list[str | None] | None  # English captions as published; `None` if the corpus has none
    given: dict[str, list[str | None]]  # captions by language that are stored as the corpus has them, aligned
    places: NotRequired[list[str]]  # of each caption, for error lines: file in the corpus, and line


class Source(Protocol):
    """
    Reader of a corpus in the layout that its authors publish.

    A build may call `rows` twice. Reading `languages` may read annotations, and raises [`UserError`] as `rows` does.
    """

    name: str
    root: Path | None  # folder of all files that are read; `None` if the corpus is on the Hub
    license: str | None  # as the authors state it; `None` if none is known
    citation: str | None  # paper to cite, in one line
    languages: Collection[str]  # of the field `given`
    chosen: bool  # whether the caller named the files, so that links among them are the caller's own

    def __init__(self, place: str): ...

    def rows(self) -> Iterator[SourceRow | UserError]:
        """Yield all rows in the order of the annotations, and an error in place of a malformed annotation."""


def attempt(function: Callable[..., Result], *arguments: object) -> Result | UserError:
    """Return the result of a function, or the [`UserError`] that it raises: one bad row does not hide the others."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def parse_options(source: str, argument: str, known: Sequence[str]) -> tuple[str, dict[str, str]]:
    """
    Divide `PLACE,OPTION=VALUE,…` into the place and the options. The place may have commas.

    Args:
        source (`str`): Name of the reader, for error lines.
        argument (`str`): The text.
        known (`Sequence[str]`): Names of the options.

    Raises:
        [`UserError`]: An option is unknown or is given twice.
    """
    place, text = re.fullmatch(r"(.*?)((?:,\w+=[^,]*)*)", argument, flags=re.DOTALL).groups()
    options: dict[str, str] = {}
    for name, _, value in (option.partition("=") for option in text.split(",")[1:]):
        if name not in known:
            raise UserError(f"{source}: unknown option {name!r}; known options are {', '.join(known)}")
        if name in options:
            raise UserError(f"{source}: the option {name} is given twice")
        options[name] = value
    return place, options


def existing_folder(name: str, place: str) -> Path:
    """Return the folder of a corpus. Raises [`UserError`] if it does not exist."""
    if not Path(place).is_dir():
        raise UserError(f"{name}: no folder {place}")
    return Path(place)


def first_existing(name: str, kind: str, root: Path, choices: tuple[str, ...]) -> Path:
    """Return the first path of `choices` that exists in `root`. Raises [`UserError`] if none does."""
    found = next((root / choice for choice in choices if (root / choice).exists()), None)
    if found is None:
        raise UserError(f"{name}: no {kind} {' or '.join(choices)} in {root}")
    return found


def read_field(entry: object, name: str, kind: type | UnionType, place: str) -> Any:
    """Return a field of an annotation. Raises [`UserError`] if it is missing or not of type `kind`."""
    if not isinstance(entry, dict) or name not in entry:
        raise UserError(f"{place} is malformed: no field {name!r}")
    if not isinstance(entry[name], kind):
        raise UserError(f"{place} is malformed: {name!r} cannot be {reprlib.repr(entry[name])}")
    return entry[name]


def make_row(
    source: str,
    folder: Path,
    file_name: str,
    split: str | None,
    captions: list[str | None] | None,
    label: str | None,
    place: str,
    given: dict[str, list[str | None]] | None = None,
) -> SourceRow:
    """Return the row of the image `file_name` in `folder`; error lines begin with `place`, the annotation's place."""
    check_inside(file_name, place)
    path = folder / file_name
    try:
        encoded = path.read_bytes() if path.is_file() else None
    except OSError as error:  # its text has the local path
        raise UserError(f"{place}: {file_name!r} cannot be read: {error.strerror}") from error
    return SourceRow(
        image=encoded,
        file=f"{folder.name}/{file_name}",  # not the local path, because the dataset card shows it
        image_id=f"{source}/{PurePosixPath(file_name).with_suffix('')}",
        source=source,
        label=label,
        split=split,
        captions_en=captions,
        given=given or {},
    )


def check_inside(name: str, place: str) -> None:
    """Raise [`UserError`] if a path from an annotation file leads out of the folder of images."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place} is malformed: {name!r} is not a path inside the folder of images")


def read_annotations(path: Path) -> Any:
    """Return the content of a JSON file, with or without a byte order mark."""
    with user_errors(OSError, ValueError, RecursionError, prefix=f"{path} cannot be read as JSON"):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def read_json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield the place (file and line number, for error lines) and the content of each line of a JSON Lines file."""
    for place, line in encoded_lines(path):
        yield parse_line(place, line)


def encoded_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the place and the bytes of each line of a file that is not blank."""
    with user_errors(OSError, prefix=f"{path} cannot be read"):
        file = path.open("rb")
    with file:
        # Iterate over bytes: in text mode, U+2028 inside a caption would end a line.
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", line


def parse_line(place: str, line: bytes) -> tuple[str, dict]:
    """Return the place and the content of a line of JSON. Raises [`UserError`] if it is no JSON object."""
    with user_errors(ValueError, RecursionError, prefix=f"{place} is not JSON"):
        entry = json.loads(line.decode("utf-8-sig"))
    if not isinstance(entry, dict):
        raise UserError(f"{place} is not a JSON object")
    return place, entry
