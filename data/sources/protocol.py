"""What a reader of a corpus is: the protocol, and what readers share."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol, TypedDict


class SourceRow(TypedDict):
    """
    One image of a corpus.

    Args:
        image (`bytes`, *optional*): The file of the image as published; `None` if it is missing.
        file (`str`): Where that is in the corpus, for messages.
        image_id (`str`): Unique over all corpora, `rsicd/airport_1`.
        source (`str`): Name of the corpus.
        label (`str`, *optional*): Scene class, where the corpus has one.
        split (`str`): Official split: `train`, `val` or `test`.
        captions_en (`list[str]`): Captions as published.
    """

    image: bytes | None
    file: str
    image_id: str
    source: str
    label: str | None
    split: str
    captions_en: list[str]


class Source(Protocol):
    """
    A corpus.

    Args:
        name (`str`): Name of the corpus.
        licence (`str`, *optional*): As its authors state it; `None` if they state none that this project knows of.
        citation (`str`, *optional*): The paper to cite, in one line.
    """

    name: str
    licence: str | None
    citation: str | None

    def __init__(self, place: str): ...

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the annotations."""


class SourceError(ValueError):
    """A corpus is not in the layout that its reader knows, or rows of it are unusable."""


def existing_folder(name: str, place: str) -> Path:
    """The folder of a corpus, or a [`SourceError`]."""
    if not Path(place).is_dir():
        raise SourceError(f"{name}: no folder {place}")
    return Path(place)


def first_existing(name: str, kind: str, root: Path, choices: tuple[str, ...]) -> Path:
    """The first of the names under which a part of a corpus is known, or a [`SourceError`]."""
    found = next((root / choice for choice in choices if (root / choice).exists()), None)
    if found is None:
        raise SourceError(f"{name}: no {kind} {' or '.join(choices)} in {root}")
    return found


def make_row(
    source: str, folder: Path, file_name: str, split: str, captions: list[str], label: str | None
) -> SourceRow:
    """A row whose image is the file `file_name` in `folder`; a `ValueError` if that is elsewhere."""
    check_inside(file_name)
    path = folder / file_name
    return SourceRow(
        image=path.read_bytes() if path.is_file() else None,
        file=f"{folder.name}/{file_name}",  # it goes into the dataset card, where a path of this machine has no place
        image_id=f"{source}/{PurePosixPath(file_name).with_suffix('')}",
        source=source,
        label=label,
        split=split,
        captions_en=captions,
    )


def check_inside(name: str) -> None:
    """Raises a `ValueError` if a path from an annotation file leads out of the folder of images."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name!r} lies outside the folder of images")


def read_json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """
    The objects of a file in JSON lines, each with its place for messages.

    Raises:
        [`SourceError`]: A line is no JSON object.
    """
    # Bytes, not text: a caption may hold U+2028 and other line ends that are no line ends in JSON.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{path}, line {number}"
            try:
                entry = json.loads(line.decode("utf-8-sig")) if line.strip() else None
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{place} is no JSON ({error})") from None
            if isinstance(entry, dict):
                yield place, entry
            elif line.strip():
                raise SourceError(f"{place} is no JSON object")


def describe(error: Exception) -> str:
    """What an error found, in words."""
    return f"no {error}" if isinstance(error, KeyError) else str(error)
