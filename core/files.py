"""Read JSON, and write files and folders that are either complete or absent."""

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
        folder (`Path`): A folder that is empty or does not exist.

    Raises:
        [`UserError`]: `folder` is not empty, or cannot be written.
    """
    failed = f"{folder} cannot be written"
    with user_errors(OSError, prefix=failed):
        is_there = folder.exists()
        if is_there and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists and is not an empty folder; choose another folder")
        # An empty folder may be a link, a mounted disk or the working directory: keep it and write inside.
        place = folder.resolve()
        unfinished = (place if is_there else place.parent) / f".{place.name}.{os.getpid()}"
        unfinished.mkdir(parents=True)
    try:
        yield unfinished
        with user_errors(OSError, prefix=failed):
            if not is_there:
                unfinished.replace(place)
            elif list(place.iterdir()) != [unfinished]:
                raise UserError(f"{folder} has files of another program by now; choose another folder")
            else:
                for path in unfinished.iterdir():
                    path.replace(place / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_json(path: Path) -> dict:
    """Return the fields of a JSON file. Raises [`UserError`] if the file does not exist or has no JSON object."""
    if not path.is_file():
        raise UserError(f"there is no {path.name} in {path.parent}")
    with user_errors(OSError, ValueError, RecursionError, prefix=f"{path} cannot be read as JSON"):
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
    """Write a text file under a temporary name, then rename it: no program can read half a file."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    with user_errors(OSError, prefix=f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
