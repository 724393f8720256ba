"""Any Hugging Face dataset with a column of images and one of captions: a folder, or an id on the Hub.

`hub=user/name` finds the columns by their types and names; `hub=user/name,captions=COLUMN,image=COLUMN,label=COLUMN,
id=COLUMN,config=NAME,revision=COMMIT` tells what it cannot find.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from datasets import ClassLabel, DatasetDict, Features, Image, LargeList, List
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HTTPError  # of the HTTP client, which differs between versions of huggingface_hub
from yaml import YAMLError

from rsmclip.core.images import image_bytes
from rsmclip.data.schema import SchemaError, column_faults, is_string, load_corpus
from rsmclip.data.sources.protocol import SourceError, SourceRow

OPTIONS = ("image", "captions", "label", "id", "config", "revision")
SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}
CAPTION_NAMES = ("captions", "caption", "sentences", "raw", "text", "texts")
ID_NAMES = ("image_id", "file_name", "filename", "id")


class HubDataset:
    """
    A dataset.

    Args:
        place (`str`): Folder or id, and options after commas.
    """

    citation = None

    def __init__(self, place: str):
        self.dataset_id, *options = place.split(",")
        self.options = dict(option.partition("=")[::2] for option in options)
        if unknown := sorted(set(self.options) - set(OPTIONS)):
            raise SourceError(f"hub: unknown option {unknown[0]!r}; known are {', '.join(OPTIONS)}")
        folder = Path(self.dataset_id)
        self.name = folder.resolve().name if folder.is_dir() else folder.name

    @property
    def licence(self) -> str | None:
        """What the dataset's own card says."""
        folder = Path(self.dataset_id)
        try:
            card = DatasetCard.load(folder / "README.md" if folder.is_dir() else self.dataset_id)
        except (HTTPError, OSError, ValueError, YAMLError):  # there is no card, or none that can be read
            return None
        stated = card.data.license
        return ", ".join(stated) if isinstance(stated, list) else stated

    def rows(self) -> Iterator[SourceRow]:
        """All rows, split after split."""
        for split, rows in self.load().items():
            columns = self.columns(rows.features)
            for number, entry in enumerate(rows):
                yield self.row(entry, SPLIT_NAMES.get(split, split), number, columns, rows.features)

    def load(self) -> DatasetDict:
        """The dataset, its images still encoded."""
        try:
            return load_corpus(self.dataset_id, self.options.get("config"), self.options.get("revision"))
        except SchemaError as error:
            raise SourceError(f"hub: {error}") from error

    def columns(self, features: Features) -> dict[str, str | None]:
        """Which column holds the image, the captions, the class and the id."""
        images = [name for name, feature in features.items() if isinstance(feature, Image)]
        captions = [name for name in CAPTION_NAMES if name in features and holds_captions(features[name])]
        captions += [name for name, feature in features.items() if not is_string(feature) and holds_captions(feature)]
        found = {
            "image": self.chosen("image", features, images[:1] if len(images) == 1 else []),
            "captions": self.chosen("captions", features, captions),
            "label": self.chosen("label", features, ["label"] if "label" in features else [None]),
            "id": self.chosen("id", features, [*(name for name in ID_NAMES if name in features), None]),
        }
        if not isinstance(features[found["image"]], Image):
            raise SourceError(f"hub: {self.dataset_id}: column {found['image']!r} holds no images")
        if not holds_captions(features[found["captions"]]):
            raise SourceError(f"hub: {self.dataset_id}: column {found['captions']!r} holds no captions")
        return found

    def chosen(self, role: str, features: Features, candidates: list[str | None]) -> str | None:
        """The column for a role: the one that was asked for, else the first candidate."""
        asked = self.options.get(role)
        if asked in features or (asked is None and candidates):
            return asked or candidates[0]
        missing = f"no column {asked!r}" if asked else f"not one column that must be the {role}"
        raise SourceError(
            f"hub: {self.dataset_id} has {missing} among {', '.join(features)}: "
            f"say hub={self.dataset_id},{role}=COLUMN"
        )

    def row(self, entry: dict, split: str, number: int, columns: dict, features: Features) -> SourceRow:
        """A row in this project's terms. A corpus in its schema keeps its ids, sources and raw captions."""
        kept = {} if any(column_faults(features)) else entry
        captions = entry[columns["captions"]]
        if isinstance(captions, dict):
            captions = entry.get("raw_captions") or captions["en"]
        label, feature = entry.get(columns["label"]), features.get(columns["label"])
        if isinstance(feature, ClassLabel) and label is not None:
            label = feature.int2str(label) if label >= 0 else None  # -1: not known, as in unlabelled test splits
        named = entry.get(columns["id"])
        own = number if named is None else without_suffix(str(named))
        return SourceRow(
            image=image_bytes(entry[columns["image"]]),
            file=f"{self.name}/{split}[{number}]",
            image_id=kept.get("image_id") or f"{self.name}/{split}/{own}",
            source=kept.get("source") or self.name,
            label=None if label is None else str(label),
            split=split,
            captions_en=[captions] if isinstance(captions, str) else list(captions or []),
        )


def without_suffix(name: str) -> str:
    """An id without the suffix of an image's file: `tile_0.5` of `tile_0.5.tif` and of `tile_0.5`."""
    return re.sub(r"\.(jpe?g|png|tiff?|webp|bmp)$", "", name, flags=re.IGNORECASE)


def holds_captions(feature: object) -> bool:
    """Whether a column holds a caption, a list of them, or lists of them by language."""
    if isinstance(feature, dict):
        return "en" in feature and holds_captions(feature["en"])
    return is_string(feature) or (isinstance(feature, List | LargeList) and is_string(feature.feature))


READER = HubDataset
