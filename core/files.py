"""Read and write files: JSON, files and folders that are complete or absent."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from rsmclip.core.errors import UserError, user_errors


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """
    Yield a temporary folder that is renamed to `folder` at the end, or deleted if something fails.

    Args:
        folder (`Path`): A new folder, or an empty one.

    Raises:
        [`UserError`]: The folder is not empty, or cannot be written.
    """
    is_there = folder.exists()
    if is_there and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; choose another")
    # An empty folder may be a link, a mounted disk or the working directory: keep it and write inside.
    place = folder.resolve()
    unfinished = (place if is_there else place.parent) / f".{place.name}.{os.getpid()}"
    with user_errors(OSError):
        unfinished.mkdir(parents=True)
    try:
        yield unfinished
        with user_errors(OSError):
            if not is_there:
                unfinished.replace(place)
            elif list(place.iterdir()) != [unfinished]:
                raise UserError(f"{folder} was empty at the start, and now has files of others; choose another")
            else:
                for path in unfinished.iterdir():
                    path.replace(place / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_json(path: Path) -> dict:
    """
    Return the fields of a JSON file.

    Raises:
        [`UserError`]: There is no such file, or it does not contain a JSON object.
    """
    if not path.is_file():
        raise UserError(f"there is no {path.name} in {path.parent}")
    with user_errors(OSError, ValueError, prefix=f"{path} is not valid JSON"):
        fields = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise UserError(f"{path} contains a {type(fields).__name__}, not an object with fields")
    return fields


def published_name(path_or_hub_id: str | None) -> str | None:
    """Return the last part of a local path; a Hub id and `None` are returned unchanged."""
    if path_or_hub_id is None or not is_local(path_or_hub_id):
        return path_or_hub_id
    return Path(path_or_hub_id).resolve().name


def is_local(path_or_hub_id: str) -> bool:
    """Return whether a name is a local path rather than a Hub id."""
    return Path(path_or_hub_id).exists() or path_or_hub_id.startswith((".", "/", "~"))


def write_whole(path: Path, text: str) -> None:
    """
    Write a text file under another name, then rename it, so that no reader sees a part of it.

    Raises:
        [`UserError`]: The file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    with user_errors(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
