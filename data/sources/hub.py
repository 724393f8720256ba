"""Any Hugging Face dataset with a column of images and a column of captions: a folder, or an id on the Hub.

`hub=user/name` finds the columns by type and name. Options name the columns if several are possible:
`hub=user/name,captions=COLUMN,image=COLUMN,label=COLUMN,id=COLUMN,config=NAME,revision=COMMIT`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from datasets import ClassLabel, Features, Image, LargeList, List, Value

from rsmclip.core.errors import UserError
from rsmclip.core.images import IMAGE_SUFFIXES, image_bytes
from rsmclip.data.card import load_card
from rsmclip.data.schema import column_faults, is_string, load_corpus
from rsmclip.data.sources.protocol import SourceRow

OPTIONS = ("image", "captions", "label", "id", "config", "revision")
SPLIT_NAMES = {"validation": "val", "valid": "val", "dev": "val"}
CAPTION_NAMES = ("captions", "caption", "sentences", "raw", "text", "texts")
IMAGE_STRUCTS = [{"bytes": Value("binary"), "path": Value(kind)} for kind in ("string", "null")]
ID_NAMES = ("image_id", "file_name", "filename", "id")


class HubDataset:
    """A dataset; `place` is its folder or id, then options, separated by commas."""

    citation = None

    def __init__(self, place: str):
        self.dataset_id, *options = place.split(",")
        self.options = dict(option.partition("=")[::2] for option in options)
        if unknown := sorted(set(self.options) - set(OPTIONS)):
            raise UserError(f"hub: unknown option {unknown[0]!r}; known options are {', '.join(OPTIONS)}")
        folder = Path(self.dataset_id)
        self.name = folder.resolve().name if folder.is_dir() else folder.name

    @property
    def license(self) -> str | None:
        """License in the card of the dataset; `None` if there is none."""
        card = load_card(self.dataset_id, self.options.get("revision"))
        stated = card and card.data.license
        return ", ".join(stated) if isinstance(stated, list) else stated

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows of all splits."""
        corpus = load_corpus(self.dataset_id, self.options.get("config"), self.options.get("revision"))
        for split, rows in corpus.items():
            columns = self.columns(rows.features)
            label = rows.features.get(columns["label"])
            in_schema = not any(column_faults(rows.features))
            for number, entry in enumerate(rows):
                row = self.row(entry, SPLIT_NAMES.get(split, split), number, columns, label)
                if in_schema:  # a corpus of this project keeps its ids and sources
                    row |= {key: entry[key] for key in ("image_id", "source") if entry[key]}
                yield row

    def columns(self, features: Features) -> dict[str, str | None]:
        """Return the names of the columns for the roles `image`, `captions`, `label` and `id`."""
        images = [name for name, feature in features.items() if isinstance(feature, Image) or feature in IMAGE_STRUCTS]
        captions = [name for name, feature in features.items() if holds_captions(feature)]
        # A list of texts is likely captions under any name, a single text only under a known name.
        likely = [name for name in CAPTION_NAMES if name in captions]
        likely += [name for name in captions if not is_string(features[name])]
        return {
            "image": self.choose("image", images, images if len(images) == 1 else []),
            "captions": self.choose("captions", captions, likely),
            "label": self.choose("label", features, ["label"] if "label" in features else [None]),
            "id": self.choose("id", features, [*(name for name in ID_NAMES if name in features), None]),
        }

    def choose(self, role: str, possible: Iterable[str], likely: list[str | None]) -> str | None:
        asked = self.options.get(role)
        if asked is None and likely:
            return likely[0]
        if asked in possible:
            return asked
        choices = ", ".join(possible) or "none"
        raise UserError(
            f"hub: give the column of the {role} as hub={self.dataset_id},{role}=COLUMN; possible columns: {choices}"
        )

    def row(self, entry: dict, split: str, number: int, columns: dict, label_type: object) -> SourceRow:
        captions = entry[columns["captions"]]
        if isinstance(captions, dict):
            captions = entry.get("raw_captions") or captions["en"]
        label = entry.get(columns["label"])
        if isinstance(label_type, ClassLabel) and label is not None:
            label = label_type.int2str(label) if label >= 0 else None  # -1: unknown, as in unlabeled test splits
        own_id = entry.get(columns["id"])
        own_id = number if own_id is None else without_suffix(str(own_id))
        return SourceRow(
            image=image_bytes(entry[columns["image"]]),
            file=f"{self.name}/{split}[{number}]",
            image_id=f"{self.name}/{split}/{own_id}",
            source=self.name,
            label=None if label is None else str(label),
            split=split,
            captions_en=[captions] if isinstance(captions, str) else list(captions or []),
        )


def without_suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name


def holds_captions(feature: object) -> bool:
    """Return whether a column has a caption, a list of captions, or lists of captions by language."""
    if isinstance(feature, dict):
        return "en" in feature and holds_captions(feature["en"])
    return is_string(feature) or (isinstance(feature, List | LargeList) and is_string(feature.feature))
