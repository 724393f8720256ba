"""Your own images: a folder with a CSV or JSON Lines file, as for `imagefolder` in `datasets`.

`imagefolder=DIR` reads `metadata.jsonl` or `metadata.csv` in DIR and in its folders `train`, `val` (or `validation`,
`valid`, `dev`) and `test`, or else the only CSV or JSON Lines file in DIR. These folders state the split of their
images. By default the columns are `file_name` (path of the image), `text` (one caption) or in JSON `captions` (a
list), and optionally `label` and `split`. Options name other columns:
`imagefolder=DIR,image=COLUMN,captions=COLUMN,label=COLUMN,split=COLUMN`.

All lines with one file name are one image. `columns.py` says how columns and lines are read.
"""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.images import IMAGE_SUFFIXES
from rsmclip.data.sources.columns import OPTIONS, SPLIT_NAMES, Columns, Line, caption_columns, join_lines
from rsmclip.data.sources.protocol import (
    SourceRow,
    attempt,
    check_inside,
    encoded_lines,
    existing_folder,
    make_row,
    parse_line,
    parse_options,
    read_field,
)

SPLIT_FOLDERS = {".": None, "train": "train", "val": "val", **SPLIT_NAMES, "test": "test"}
DEFAULT_COLUMNS = {"image": "file_name", "label": "label", "split": "split"}
JSON_LINES = (".jsonl", ".ndjson")
SHOWN = 3  # names of images in a note


class Table(NamedTuple):
    """The lines of a metadata file."""

    columns: Columns
    present: dict[str, None]  # names of all columns
    images: dict[str, list[Line]]  # by path of the image in DIR, in the order of the first lines
    malformed: list[UserError]  # in place of lines


class ImageFolder:
    """A folder of images. The name of the folder is the name of the corpus."""

    license = None
    citation = None
    chosen = False

    def __init__(self, place: str):
        place, self.options = parse_options("imagefolder", place, OPTIONS)
        self.root = existing_folder("imagefolder", place)
        self.name = self.root.resolve().name

    @property
    def languages(self) -> set[str]:
        """Languages of the columns that are named by a language code."""
        return {language for table in self.tables for language in table.columns.languages}

    @cached_property
    def tables(self) -> list[Table]:
        """All metadata. Notes name what is not used, and repeated lines, when this is read."""
        tables = [self.read_table(path, folder) for path, folder in self.metadata_files()]
        listed = {name for table in tables for name in table.images}
        files = "; ".join([*self.ignored_metadata(), *self.images_except(listed)])
        columns = dict.fromkeys(table.columns.unused_note(table.present) for table in tables)
        for note in filter(None, (files, *columns, repeated_lines(tables))):
            tqdm.write(f"note: {self.name}: {note}", file=sys.stderr)
        return tables

    @cached_property
    def files(self) -> list[str]:
        """Paths of all images in the folder."""
        with user_errors(OSError, prefix=f"{self.root} cannot be read"):
            paths = [path for path in self.root.rglob("[!.]*") if path.suffix.lower() in IMAGE_SUFFIXES]
        return sorted(path.relative_to(self.root).as_posix() for path in paths)

    @cached_property
    def similar(self) -> dict[str, str]:
        """Paths of images by path in lower case without backslashes, with and without suffix."""
        whole = {folded(path): path for path in self.files}
        return {without_suffix(name): path for name, path in whole.items()} | whole

    def rows(self) -> Iterator[SourceRow | UserError]:
        """Yield all rows in the order of the metadata."""
        splits = {name: SPLIT_FOLDERS.get(name.partition("/")[0]) for table in self.tables for name in table.images}
        has_splits = not {None, "train"}.issuperset(splits.values())  # a folder `train` alone states no split
        for table in self.tables:
            yield from table.malformed
            for name, lines in table.images.items():
                yield attempt(self.row, table.columns, name, lines, splits[name] if has_splits else None)

    def row(self, columns: Columns, name: str, lines: list[Line], split: str | None) -> SourceRow:
        found, place = join_lines(lines, columns), lines[0][0]
        split = found.split or split
        row = make_row(self.name, self.root, name, split, found.captions_en, found.label, place, found.given)
        if row["image"] is None and (similar := self.similar_image(name)):
            row["file"] += f", but the folder has {similar!r}"
        return row | {"places": found.places}

    def similar_image(self, name: str) -> str | None:
        """Return an image whose path differs from `name` by backslashes, case or suffix."""
        wanted = folded(name)
        found = self.similar.get(wanted) or self.similar.get(without_suffix(wanted))
        return found if found != name else None  # equal for a folder or a broken link

    def metadata_files(self) -> list[tuple[Path, str]]:
        """Return the files to read, each with its folder."""
        if files := [(path, folder) for folder in SPLIT_FOLDERS if (path := first_metadata(self.root / folder))]:
            return files
        with user_errors(OSError, prefix=f"{self.root} cannot be read"):
            others = [path for path in sorted(self.root.glob("[!.]*")) if path.suffix.lower() in (".csv", *JSON_LINES)]
        if not others:
            kinds = "metadata.jsonl, metadata.csv, or another CSV or JSON Lines file"
            raise UserError(f"{self.name}: no annotation file ({kinds}) in {self.root}")
        if len(others) > 1:
            names = ", ".join(path.name for path in others)
            raise UserError(f"{self.root} has several tables ({names}): rename one to metadata.csv or metadata.jsonl")
        return [(others[0], ".")]

    def read_table(self, path: Path, folder: str) -> Table:
        is_json = path.suffix.lower() in JSON_LINES
        found = [attempt(parse_line, *line) for line in encoded_lines(path)] if is_json else list(read_csv(path))
        malformed = [line for line in found if isinstance(line, UserError)]
        # The dataset card shows the places of lines, so they do not have the local path.
        local = f"{self.root}/"
        lines = [(line[0].removeprefix(local), line[1]) for line in found if not isinstance(line, UserError)]
        if not lines:
            raise malformed[0] if malformed else UserError(f"{path} has no lines")
        present = dict.fromkeys(column for _, entry in lines for column in entry)
        columns = self.find_columns(path, present)
        images: dict[str, list[Line]] = {}
        for place, entry in lines:
            name = attempt(image_name, entry, columns.image, place)
            if isinstance(name, UserError):
                malformed.append(name)
            else:
                images.setdefault((PurePosixPath(folder) / name).as_posix(), []).append((place, entry))
        return Table(columns, present, images, malformed)

    def find_columns(self, path: Path, present: dict[str, None]) -> Columns:
        named = DEFAULT_COLUMNS | {role: self.options[role] for role in DEFAULT_COLUMNS if role in self.options}
        for role, column in named.items():
            if column not in present and (role == "image" or role in self.options):
                advice = f"name the column with the option {role}=COLUMN"
                raise UserError(f"{path} has no column {column!r}: {advice}; its columns are {', '.join(present)}")
        captions, languages = caption_columns(str(path), present, self.options.get("captions"))
        return Columns(captions=captions, languages=languages, **named)

    def ignored_metadata(self) -> Iterator[str]:
        for folder in (self.root / name for name in SPLIT_FOLDERS):
            if (folder / "metadata.jsonl").is_file() and (folder / "metadata.csv").is_file():
                yield f"{folder / 'metadata.jsonl'} is read, and metadata.csv beside it is not"

    def images_except(self, listed: set[str]) -> Iterator[str]:
        if others := [path for path in self.files if path not in listed]:
            first = ", ".join(others[:SHOWN])
            more = ", …" if len(others) > SHOWN else ""
            yield f"images left out, because no line names them: {len(others):,} ({first}{more})"


def first_metadata(folder: Path) -> Path | None:
    return next((path for path in (folder / "metadata.jsonl", folder / "metadata.csv") if path.is_file()), None)


def image_name(entry: Mapping, column: str, place: str) -> str:
    name = read_field(entry, column, str, place)
    if not name.strip():
        raise UserError(f"{place}: the column {column!r} is empty: write the path of the image")
    check_inside(name, place)
    return PurePosixPath(name).as_posix()


def folded(path: str) -> str:
    return path.replace("\\", "/").lower()


def without_suffix(path: str) -> str:
    stem, dot, suffix = path.rpartition(".")
    return stem if f"{dot}{suffix}" in IMAGE_SUFFIXES else path


def repeated_lines(tables: Iterable[Table]) -> str | None:
    """Return a note about lines that equal an earlier line of their image."""
    repeated: list[str] = []  # places
    for lines in chain(*(table.images.values() for table in tables)):
        seen: set[str] = set()
        for place, entry in lines:
            if (content := repr(entry)) in seen:
                repeated.append(place)
            seen.add(content)
    return f"{len(repeated):,} lines repeat another line and are kept; the first: {repeated[0]}" if repeated else None


def decode_csv(path: Path) -> str:
    with user_errors(OSError, prefix=f"{path} cannot be read"):
        encoded = path.read_bytes()
    try:
        return encoded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_utf16 = encoded.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        number = 1 + error.object.count(b"\n", 0, error.start)
        found = f"{path} is in UTF-16" if is_utf16 else f"{path}, line {number} is not in UTF-8"
        raise UserError(f'{found}: save the table as "CSV UTF-8"') from error


def read_csv(path: Path) -> Iterator[tuple[str, dict[str, str]] | UserError]:
    """
    Yield the place (file and number of the first line, for error lines) and the fields of each record of a CSV.

    Records whose fields are all empty are left out, as blank lines. A record with too many or too few fields is
    yielded as an error. A wrong quote is raised, because it can hide all lines after it.
    """
    text = decode_csv(path)
    # Excel separates by `;` where the decimal sign is a comma, and may say so in a first line.
    stated = re.match(r"sep=([,;\t])\r?\n", text)
    line = text[stated.end() if stated else 0 :].lstrip("\r\n").partition("\n")[0]
    delimiter = stated[1] if stated else max(",;\t", key=re.sub('"[^"]*"', "", line).count)
    spaced = f"{delimiter} " in line  # in other files a space belongs to the text
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter, skipinitialspace=spaced)
    if stated:
        next(reader)
    header = None
    while True:
        place = f"{path}, line {reader.line_num + 1}"
        with user_errors(csv.Error, prefix=f"{place} cannot be read as CSV"):
            fields = next(reader, None)
        if fields is None:
            return
        if not any(map(str.strip, fields)):  # a blank line, or an empty row of a spreadsheet
            continue
        if header is None:
            header = fields
            if twice := [name for name in header if name and header.count(name) > 1]:
                raise UserError(f"{place} has the column {twice[0]!r} twice")
        elif len(fields) != len(header):
            found = f"{len(fields)} fields, but the header has {len(header)}"
            yield UserError(f"{place} has {found}; write a text with {delimiter!r} in double quotes")
        else:
            yield place, dict(zip(header, fields, strict=True))
