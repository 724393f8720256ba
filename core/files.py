"""Read JSON, and write files and folders that are either complete or absent."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin
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


def has_type(value: object, expected: type) -> bool:
    """
    Return whether a value of JSON or YAML has a type.

    An integer in the range of floats is a float too; a bool is not an integer.
    """
    origin, inner = get_origin(expected), get_args(expected)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(has_type(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(has_type(item, inner[1]) for item in value.values())
    if inner:  # a union
        return any(has_type(value, choice) for choice in inner)
    if is_dataclass(expected):  # its fields, not yet read
        return isinstance(value, dict)
    if isinstance(value, bool):
        return expected is bool or expected is object
    if expected is float and isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, expected)


def published_name(path_or_hub_id: str | None) -> str | None:
    """Return the last part of a local path; a Hub id and `None` are returned unchanged."""
    if path_or_hub_id is None or not is_local(path_or_hub_id):
        return path_or_hub_id
    return Path(path_or_hub_id).resolve().name


def absolute_name(path_or_hub_id: str) -> str:
    """Return a local path as an absolute path; a Hub id is returned unchanged."""
    return str(Path(path_or_hub_id).absolute()) if is_local(path_or_hub_id) else path_or_hub_id


def is_local(path_or_hub_id: str) -> bool:
    """Return whether a name is a local path rather than a Hub id."""
    return Path(path_or_hub_id).exists() or path_or_hub_id.startswith((".", "/", "~"))


def write_whole(path: Path, content: str | bytes, errors: str = "strict") -> None:
    """
    Write a file under a temporary name, then rename it: no program can read half a file. A text is written in UTF-8.

    With `errors="surrogateescape"`, names of files that are not UTF-8 get their own bytes.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    with user_errors(OSError, prefix=f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", errors))
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
