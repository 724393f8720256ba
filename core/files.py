"""Reading and writing files: JSON, whole-file writing, folders that are complete or absent."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """
    A folder to write in, which takes its name when all is written and is gone if something fails.

    Args:
        folder (`Path`): Its name; there is no such folder, or an empty one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder; choose another")
    # An empty one stays what it is, a link, a mounted disk or where the user stands, and is written in from inside.
    place, is_there = folder.resolve(), folder.exists()
    unfinished = (place if is_there else place.parent) / f".{place.name}.{os.getpid()}"
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if is_there:
            if list(place.iterdir()) != [unfinished]:
                raise ValueError(f"{folder} was empty, and is no more: others wrote in it; choose another")
            for path in unfinished.iterdir():
                path.replace(place / path.name)
        else:
            unfinished.replace(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_json(path: Path) -> dict:
    """The fields in a JSON file."""
    if not path.is_file():
        raise ValueError(f"there is no {path.name} in {path.parent}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} holds a {type(fields).__name__}, not fields")
    return fields


def published_name(path_or_hub_id: str | None) -> str | None:
    """The last name of a local folder; the id of a repository on the Hub as it is."""
    if path_or_hub_id is None or not is_local(path_or_hub_id):
        return path_or_hub_id
    return Path(path_or_hub_id).resolve().name


def is_local(path_or_hub_id: str) -> bool:
    """Whether a name is a path on this machine and not the id of a repository on the Hub."""
    return Path(path_or_hub_id).exists() or path_or_hub_id.startswith((".", "/", "~"))


def write_whole(path: Path, text: str) -> None:
    """Writes a text file, aside first and then renamed, so that it is never half there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
