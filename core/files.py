"""Read JSON, and write files and folders that are either complete or absent."""

import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin
from uuid import uuid4

from filelock import FileLock, Timeout

from rsmclip.core.errors import UserError, user_errors

LOCK = ".lock"  # in a folder that is being written
NO_LOCKS = (Timeout, OSError, NotImplementedError)  # a process has the lock, or the disk has no locks (some of NFS)
# Ends of the names of hidden folders: one that will be put in its place, and one that it replaces.
COMPLETE, OLD = ".rsmclip-complete", ".rsmclip-old"


@contextmanager
def new_folder(folder: Path, check: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """
    Yield a hidden folder that becomes `folder` at the end, or is deleted if something fails.

    What killed processes left is put in place or deleted first, see [`recover`].

    Args:
        folder (`Path`): The folder to write.
        check (`Callable`, *optional*): Raises [`UserError`] unless `folder`, its argument, may be replaced. By default
            the folder must be empty or must not exist.

    Raises:
        [`UserError`]: `folder` may not be replaced, or cannot be written.
    """
    check, failed, place = check or check_empty, f"{folder} cannot be written", folder.resolve()
    with user_errors(OSError, prefix=failed):
        recover(folder)
        delete_left(place)
        check(folder)
        # An empty folder may be a link, a mounted disk or the working directory: keep it and write inside.
        is_kept = place.is_dir() and not any(place.iterdir())
        unfinished = (place if is_kept else place.parent) / f".{place.name}.{uuid4().hex}"
        unfinished.mkdir(parents=True)
    lock = FileLock(unfinished / LOCK)
    with suppress(*NO_LOCKS):
        lock.acquire(blocking=False)
    try:
        yield unfinished
        with user_errors(OSError, prefix=failed):
            if not is_kept:
                check(folder)
            elif list(place.iterdir()) != [unfinished]:
                raise UserError(f"{folder} has files of another program by now; choose another folder")
            complete = unfinished.rename(unfinished.with_name(f".{place.name}{COMPLETE}"))
            lock.release()
            put_in_place(complete, place)
    finally:
        lock.release()
        shutil.rmtree(unfinished, ignore_errors=True)


def check_empty(folder: Path) -> None:
    """Raise [`UserError`] if something is in the place of a new folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; choose another folder")


def put_in_place(complete: Path, place: Path) -> None:
    # After a kill at any line, `recover` continues here.
    old = place.with_name(f".{place.name}{OLD}")
    (complete / LOCK).unlink(missing_ok=True)
    if complete.parent == place:
        for path in complete.iterdir():
            path.replace(place / path.name)
        complete.rmdir()
        return
    if place.exists():
        place.rename(old)
    complete.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """
    Put a complete folder in its place if the process that wrote it was killed while it did so.

    Raises:
        [`UserError`]: The folder cannot be put in its place.
    """
    with user_errors(ValueError, prefix=f"{str(folder)!r} is not a path"):
        place = Path(os.path.realpath(folder))  # `resolve` fails at a link to itself; here that is no error
    for home in (place, place.parent):
        complete = home / f".{place.name}{COMPLETE}"
        if os.path.isdir(complete) and (home == place or not place.exists()):
            with user_errors(OSError, prefix=f"{complete} is complete, but cannot be moved to {place}"):
                put_in_place(complete, place)


def delete_left(place: Path) -> None:
    # A process holds the lock of its unfinished folder until it ends, also if it is killed.
    for home in (place, place.parent):
        for lock in home.glob(f".{glob.escape(place.name)}.{'[0-9a-f]' * 32}/{LOCK}"):
            with suppress(*NO_LOCKS), FileLock(lock).acquire(blocking=False):
                shutil.rmtree(lock.parent, ignore_errors=True)
    if place.exists():  # and so was not replaced, or was replaced to the end
        for left in (OLD, COMPLETE):
            shutil.rmtree(place.with_name(f".{place.name}{left}"), ignore_errors=True)


def is_inside(path: Path, folder: Path) -> bool:
    """
    Return whether a path is in a folder after all links are followed.

    A file of a snapshot in the cache of the Hub is a link to `blobs` beside `snapshots`, and counts as inside.
    """
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    blobs = [parent.parent / "blobs" for parent in (home, *home.parents) if parent.name == "snapshots"]
    return any(real.is_relative_to(place) for place in (home, *blobs))


def check_links(paths: Iterable[Path], folder: Path, advice: str) -> None:
    """Raise [`UserError`] if a path leads out of a folder by a link: other people's files would be published."""
    if leading := next((path for path in paths if not is_inside(path, folder)), None):
        raise UserError(f"{leading} is a link out of {folder}, to {os.path.realpath(leading)}: {advice}")


def links_in(folder: Path) -> Iterator[Path]:
    """Yield all links in a folder and its folders. The folder itself may be a link, which is followed."""
    for place, folders, files in os.walk(folder):
        yield from (path for path in (Path(place, name) for name in (*folders, *files)) if path.is_symlink())


def read_json(path: Path) -> dict:
    """Return the fields of a JSON file. Raises [`UserError`] if the file does not exist or has no JSON object."""
    if not path.is_file():
        raise UserError(f"there is no {path.name} in {path.parent}")
    with user_errors(OSError, ValueError, RecursionError, prefix=f"{path} cannot be read as JSON"):
        fields = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise UserError(f"{path} contains a {type(fields).__name__}, not an object with fields")
    return fields


def visible_files(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Yield the files with one of the suffixes in a folder, its subfolders and linked folders, but no hidden ones."""
    visited = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        visited.add(os.path.realpath(place))  # a link may lead to a folder above it
        new = (name for name in folders if os.path.realpath(os.path.join(place, name)) not in visited)
        folders[:] = [name for name in new if not name.startswith(".")]
        paths = (Path(place, name) for name in files if not name.startswith("."))
        yield from (path for path in paths if path.suffix.lower() in suffixes and path.is_file())


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


def expand_home(text: str) -> str:
    """Return a path, or `NAME=PATH`, with `~/` replaced by the home folder. Shells do not replace it after `=`."""
    return re.sub(r"(^|=)(~[^/=,]*)(?=/)", lambda found: found[1] + os.path.expanduser(found[2]), text)


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
