"""Readers of caption corpora in the layouts their authors publish. A new corpus is a new class behind [`Source`]."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SourceRow:
    """
    One image of a corpus.

    Args:
        path (`Path`): File of the image.
        image_id (`str`): Unique over all corpora, `rsicd/airport_1`.
        source (`str`): Name of the corpus.
        label (`str`, *optional*): Scene class.
        split (`str`): `train`, `val` or `test`.
        captions (`list[str]`): English captions as published.
    """

    path: Path
    image_id: str
    source: str
    label: str | None
    split: str
    captions: list[str]


class Source(Protocol):
    """A corpus on disk."""

    name: str

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the annotation file."""


class SourceError(ValueError):
    """A corpus is not in the layout that its reader knows, or rows of it are unusable."""


@dataclass(frozen=True)
class KarpathySource:
    """
    RSICD, UCM-Captions and Sydney-Captions: one JSON file after Karpathy, one folder of images.

    Args:
        name (`str`): Name of the corpus.
        root (`Path`): Folder of the annotation file.
        annotation (`str`): Name of that file.
        images (`tuple[str, ...]`): Names under which the folder of images is known; the first that exists is taken.
    """

    name: str
    root: Path
    annotation: str
    images: tuple[str, ...]

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the annotation file."""
        path = self.root / self.annotation
        if not path.is_file():
            raise SourceError(f"{self.name}: no annotation file {path}")
        folders = [self.root / name for name in self.images if (self.root / name).is_dir()]
        if not folders:
            raise SourceError(f"{self.name}: no folder {' or '.join(self.images)} in {self.root}")
        for entry in json.loads(path.read_text(encoding="utf-8"))["images"]:
            stem = Path(entry["filename"]).stem
            scene = re.fullmatch(r"([A-Za-z]+)_\d+", stem)  # airport_1.jpg; the other files are only numbered
            yield SourceRow(
                path=folders[0] / entry["filename"],
                image_id=f"{self.name}/{stem}",
                source=self.name,
                label=scene[1] if scene else None,
                split=entry["split"],
                captions=[sentence["raw"] for sentence in entry["sentences"]],
            )


@dataclass(frozen=True)
class ImageFolderSource:
    """
    A folder of images with `metadata.jsonl`: `file_name`, `captions` (a list) or `text`, and optionally `split`
    (`train` if absent) and `label`.

    Args:
        name (`str`): Name of the corpus.
        root (`Path`): The folder.
    """

    name: str
    root: Path

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the metadata file."""
        path = self.root / "metadata.jsonl"
        if not path.is_file():
            raise SourceError(f"{self.name}: no file {path}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                captions = entry["captions"] if "captions" in entry else [entry["text"]]
                file_name = entry["file_name"]
            except (json.JSONDecodeError, KeyError) as error:
                raise SourceError(f"{path}, line {number}: {type(error).__name__}: {error}") from None
            yield SourceRow(
                path=self.root / file_name,
                image_id=f"{self.name}/{Path(file_name).with_suffix('')}",
                source=self.name,
                label=entry.get("label"),
                split=entry.get("split", "train"),
                captions=captions,
            )


def open_source(name: str, folder: str) -> Source:
    """
    The reader of a corpus.

    Args:
        name (`str`): `rsicd`, `ucm`, `sydney` or `imagefolder`.
        folder (`str`): Where its files are.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"{name}: no folder {folder}")
    if name == "rsicd":
        return KarpathySource(name, root, "dataset_rsicd.json", ("RSICD_images", "images"))
    if name == "ucm":
        return KarpathySource(name, root, "dataset.json", ("imgs", "images"))
    if name == "sydney":
        return KarpathySource(name, root, "dataset.json", ("imgs", "images"))
    if name == "imagefolder":
        return ImageFolderSource(root.resolve().name, root)
    raise SourceError(f"unknown source {name!r}; known are rsicd, ucm, sydney and imagefolder")


def fault(row: SourceRow, seen: set[str]) -> str | None:
    """What is wrong with a row, if anything; `seen` holds the ids before it. The image is judged by [`encode_image`]."""
    if row.image_id in seen:
        return "duplicate id"
    if row.split not in SPLITS:
        return f"unknown split {row.split!r}"
    if not row.captions:
        return "no captions"
    if not all(isinstance(caption, str) and caption.strip() for caption in row.captions):
        return "empty caption"
    return None if row.path.is_file() else "image missing"


def encode_image(path: Path) -> bytes:
    """
    The bytes of a JPEG or PNG as they are, of any other format as PNG. Every image is decoded once.

    Raises:
        `OSError`: The file is no image, or a damaged one.
    """
    encoded = path.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        if image.format in ("JPEG", "PNG"):
            return encoded
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def normalise_caption(raw: str) -> str:
    """White space folded, none before punctuation: `"a  red roof ."` to `"a red roof."`."""
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(raw.split()))
