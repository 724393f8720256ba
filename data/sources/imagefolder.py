"""Your own images: a folder with a CSV or JSON Lines file, as for `imagefolder` in `datasets`.

`imagefolder=DIR` reads `metadata.jsonl` or `metadata.csv` in DIR and in its folders `train`, `val` (or `validation`,
`valid`, `dev`) and `test`, or else the only CSV or JSON Lines file in DIR. These folders state the split of their
images. By default the columns are `file_name` (path of the image), `text` (one caption) or in JSON `captions` (a
list), and optionally `label` and `split`. Options name other columns:
`imagefolder=DIR,image=COLUMN,captions=COLUMN,label=COLUMN,split=COLUMN`.

All lines with one file name are one image. `columns.py` says how columns and lines are read.
"""

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
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
        """All metadata. Files that are not used are named in a note when this is read."""
        tables = [self.read_table(path, folder) for path, folder in self.metadata_files()]
        listed = {self.root / name for table in tables for name in table.images}
        if unused := [*self.ignored_metadata(), *self.images_except(listed)]:
            tqdm.write(f"note: {self.name}: {'; '.join(unused)}", file=sys.stderr)
        return tables

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
        return row | {"places": found.places}

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
        columns = self.find_columns(path, dict.fromkeys(column for _, entry in lines for column in entry))
        images: dict[str, list[Line]] = {}
        for place, entry in lines:
            name = attempt(image_name, entry, columns.image, place)
            if isinstance(name, UserError):
                malformed.append(name)
            else:
                images.setdefault((PurePosixPath(folder) / name).as_posix(), []).append((place, entry))
        return Table(columns, images, malformed)

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

    def images_except(self, listed: set[Path]) -> Iterator[str]:
        with user_errors(OSError, prefix=f"{self.root} cannot be read"):
            paths = [path for path in self.root.rglob("[!.]*") if path.suffix.lower() in IMAGE_SUFFIXES]
        if others := sorted(set(paths) - listed):
            first = ", ".join(str(path.relative_to(self.root)) for path in others[:SHOWN])
            more = ", …" if len(others) > SHOWN else ""
            yield f"images left out, because no line names them: {len(others):,} ({first}{more})"


def first_metadata(folder: Path) -> Path | None:
    return next((path for path in (folder / "metadata.jsonl", folder / "metadata.csv") if path.is_file()), None)


def image_name(entry: Mapping, column: str, place: str) -> str:
    name = read_field(entry, column, str, place)
    check_inside(name, place)
    return PurePosixPath(name).as_posix()


def read_csv(path: Path) -> Iterator[tuple[str, dict[str, str]] | UserError]:
    """
    Yield the place (file and number of the first line, for error lines) and the fields of each record of a CSV.

    A record with too many or too few fields is yielded as an error. A wrong quote is raised, because it can hide all
    lines after it.
    """
    failed = "cannot be read as CSV in UTF-8"
    with user_errors(OSError, UnicodeDecodeError, prefix=f"{path} {failed}"):
        text = path.read_bytes().decode("utf-8-sig")
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
        with user_errors(csv.Error, prefix=f"{place} {failed}"):
            fields = next(reader, None)
        if fields is None:
            return
        if not fields:  # a blank line
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
