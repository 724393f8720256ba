"""Any Hugging Face dataset with a column of images and a column of captions: a folder, or an id on the Hub.

`hub=user/name` finds the columns by type and name. Options name the columns if several are possible:
`hub=user/name,captions=COLUMN,image=COLUMN,label=COLUMN,split=COLUMN,id=COLUMN,config=NAME,revision=COMMIT`.
Columns, or fields of a struct of captions, that are named by a language code are captions in that language.

Rows with equal image files are one image, unless they have different labels or splits, or names in a column of names.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, LargeList, List, Value
from tqdm.auto import tqdm

from rsmclip.core.errors import UserError
from rsmclip.core.images import IMAGE_SUFFIXES, image_bytes
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.card import load_card
from rsmclip.data.faults import SPLITS
from rsmclip.data.schema import RAW_CAPTIONS, column_faults, is_string, load_corpus
from rsmclip.data.sources.columns import SPLIT_NAMES, Columns, caption_columns, join_lines
from rsmclip.data.sources.protocol import SourceRow, attempt, parse_options

OPTIONS = ("image", "captions", "label", "split", "id", "config", "revision")
CAPTION_NAMES = ("captions", "caption", "sentences", "raw", "text", "texts")
NAMES_OF_IMAGES = ("image_id", "file_name", "filename")
KINDS = {
    "image": " (images, bytes, or structs of bytes and path; convert others with datasets)",
    "captions": " (text, lists of text, or structs of them by language code; convert others with datasets)",
}
ROWS_PER_BATCH = 64  # rows with images in memory at once


class HubColumns(NamedTuple):
    """Columns of a dataset."""

    table: Columns
    struct: str | None  # column of captions by language
    id: str | None
    names_images: bool  # whether rows with different ids are different images


class HubDataset:
    """A dataset; `place` is its folder or id, then options, separated by commas."""

    citation = None
    chosen = False

    def __init__(self, place: str):
        self.dataset_id, self.options = parse_options("hub", place, OPTIONS)
        folder = Path(self.dataset_id)
        self.root = folder if folder.is_dir() else None
        self.name = folder.resolve().name if folder.is_dir() else folder.name

    @property
    def license(self) -> str | None:
        """License in the card of the dataset; `None` if there is none."""
        card = load_card(self.dataset_id, self.options.get("revision"))
        stated = card and card.data.license
        return ", ".join(stated) if isinstance(stated, list) else stated

    @cached_property
    def corpus(self) -> DatasetDict:
        """All splits of the dataset."""
        return load_corpus(self.dataset_id, self.options.get("config"), self.options.get("revision"))

    @property
    def states_splits(self) -> bool:
        """Whether the dataset is divided. `datasets` calls a dataset without splits `train`."""
        return list(self.corpus) != ["train"]

    @cached_property
    def split_column(self) -> str | None:
        """The column `split` of a dataset that is not divided, if its values are names of splits."""
        rows = self.corpus["train"] if not self.states_splits else None
        if rows is None or not isinstance(feature := rows.features.get("split"), Value | ClassLabel):
            return None
        values = feature.names if isinstance(feature, ClassLabel) else rows.unique("split")
        if other := [value for value in values if value not in (None, "", *SPLITS, *SPLIT_NAMES)]:
            if "split" not in self.options:
                tqdm.write(f"note: {self.name}: column 'split' is ignored: {other[0]!r} is no split", file=sys.stderr)
            return None
        return "split"

    @property
    def languages(self) -> set[str]:
        """Languages of the columns, or of the fields of captions, that are named by a language code."""
        found = (self.columns(rows.features).table.languages for rows in self.corpus.values())
        return {language for languages in found for language in languages}

    def rows(self) -> Iterator[SourceRow | UserError]:
        """Yield all images of all splits."""
        has_splits = "split" not in self.options and self.states_splits
        for split, rows in self.corpus.items():
            columns, name = self.columns(rows.features), SPLIT_NAMES.get(split, split)
            pictures, texts = rows.select_columns(columns.table.image), rows.remove_columns(columns.table.image)
            in_schema = not any(column_faults(rows.features))
            make = partial(self.row, pictures, texts, columns, name, has_splits, in_schema)
            for numbers in self.images[split]:
                yield attempt(make, numbers)

    def row(
        self,
        pictures: Dataset,
        texts: Dataset,
        columns: HubColumns,
        split: str,
        has_splits: bool,
        in_schema: bool,
        numbers: list[int],
    ) -> SourceRow:
        lines = [(f"{self.name}/{split}[{n}]", as_line(texts[n], texts.features, columns.struct)) for n in numbers]
        first, found = lines[0][1], join_lines(lines, columns.table)
        row = SourceRow(
            image=encoded_image(pictures[numbers[0]][columns.table.image]),
            file=lines[0][0],
            image_id=f"{self.name}/{split}/{own_id(first.get(columns.id), numbers[0])}",
            source=self.name,
            label=found.label,
            split=split if has_splits else found.split,
            captions_en=found.captions_en,
            given=found.given,
        )
        if in_schema:  # a corpus of this project keeps its ids and sources
            row |= {key: first[key] for key in ("image_id", "source") if first[key]}
        return row

    @cached_property
    def images(self) -> dict[str, list[list[int]]]:
        """Row numbers of each image, by split. A note says how many rows are joined."""
        images = {split: list(self.rows_by_image(rows)) for split, rows in self.corpus.items()}
        count, total = (sum(map(len, lists)) for lists in (images.values(), self.corpus.values()))
        if count < total:
            joined = f"{total:,} rows are {count:,} images: rows with equal image files are joined"
            tqdm.write(f"note: {self.name}: {joined}", file=sys.stderr)
        return images

    def rows_by_image(self, rows: Dataset) -> Iterable[list[int]]:
        columns = self.columns(rows.features)
        others = [columns.table.label, columns.table.split, columns.id if columns.names_images else None]
        used = list(dict.fromkeys(name for name in (columns.table.image, *others) if name))
        groups: dict[tuple, list[int]] = {}
        number = 0
        for batch in rows.select_columns(used).iter(ROWS_PER_BATCH):
            for image, *values in zip(*(batch[name] for name in used), strict=True):
                encoded = encoded_image(image)
                content = number if encoded is None else hashlib.sha256(encoded).digest()
                groups.setdefault((content, *map(str, values)), []).append(number)
                number += 1
        return groups.values()

    def columns(self, features: Features) -> HubColumns:
        """Find the columns."""
        if {"__key__", "__url__"} <= set(features):
            advice = f"download it (hf download {self.dataset_id} --repo-type dataset --local-dir DIR)"
            raise UserError(f"hub: {self.dataset_id} is a WebDataset: {advice} and read it with webdataset=DIR")
        images = [name for name, feature in features.items() if holds_images(feature)]
        likely = [name for name in images if not isinstance(features[name], Value)] or images
        image = self.choose("image", images, likely if len(likely) == 1 else [])
        label = self.choose("label", features, ["label"] if "label" in features else [None])
        single = [name for name, feature in features.items() if isinstance(feature, Value | ClassLabel)]
        split = self.choose("split", single, [self.split_column])
        named = next((name for name in NAMES_OF_IMAGES if name in single), None)
        key = self.choose("id", single, [named or ("id" if "id" in single else None)])
        captions, languages, struct = self.caption_columns(features)
        table = Columns(image, captions, languages, label, split)
        return HubColumns(table, struct, key, named is not None or "id" in self.options)

    def caption_columns(self, features: Features) -> tuple[tuple[str, ...], tuple[str, ...], str | None]:
        captions = [name for name, feature in features.items() if holds_captions(feature)]
        likely = [name for name in (*CAPTION_NAMES, *LANGUAGES) if name in captions]
        likely += [name for name in captions if isinstance(features[name], dict)]
        chosen = self.choose("captions", captions, likely)
        if isinstance(features[chosen], dict):
            raw = not any(column_faults(features)) and RAW_CAPTIONS in features
            return (RAW_CAPTIONS,) if raw else (), languages_of(features[chosen]), chosen
        named = None if chosen in LANGUAGES and "captions" not in self.options else chosen
        return *caption_columns(f"hub: {self.dataset_id}", captions, named, names=()), None

    def choose(self, role: str, possible: Iterable[str], likely: list[str | None]) -> str | None:
        asked = self.options.get(role)
        if asked is None and likely:
            return likely[0]
        if asked in possible:
            return asked
        choices = f"possible columns{KINDS.get(role, '')}: {', '.join(possible) or 'none'}"
        raise UserError(f"hub: give the column of the {role} as hub={self.dataset_id},{role}=COLUMN; {choices}")


def as_line(entry: dict, features: Features, struct: str | None) -> dict:
    # Names instead of numbers of classes, and captions by language as columns.
    named = {name: class_name(features[name], value) for name, value in entry.items()}
    return named | (entry.get(struct) or {})


def class_name(feature: object, value: object) -> object:
    if not isinstance(feature, ClassLabel) or value is None:
        return value
    return feature.int2str(value) if value >= 0 else None  # -1: unknown, as in unlabeled test splits


def encoded_image(image: dict | bytes | None) -> bytes | None:
    return image if isinstance(image, bytes) else image_bytes(image)


def own_id(name: object, number: int) -> str:
    # The name of an image without the suffix of its file, or the number of its row.
    if name is None:
        return str(number)
    suffix = PurePosixPath(str(name)).suffix
    return str(name).removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else str(name)


def holds_images(feature: object) -> bool:
    """Return whether a column has images, structs of bytes and path, or the bytes of image files."""
    if isinstance(feature, dict):
        return "bytes" in feature and holds_images(feature["bytes"])
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in ("binary", "large_binary"))


def holds_captions(feature: object) -> bool:
    """Return whether a column has a caption, a list of captions, or lists of captions by language."""
    if isinstance(feature, dict):
        return bool(languages_of(feature))
    return is_string(feature) or (isinstance(feature, List | LargeList) and is_string(feature.feature))


def languages_of(struct: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(code for code in LANGUAGES if code in struct and holds_captions(struct[code]))
