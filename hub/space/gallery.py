"""The images that the Space searches: embedded once, and kept as thumbnails."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from tqdm import tqdm

from .texts import DEFAULT

MOST = 2000  # images; of a larger split, as many evenly spaced ones
THUMBNAIL = 192  # pixels, the longer side
BATCH_SIZE = 32


@dataclass
class Gallery:
    """Images with their embeddings; all lists are in the same order."""

    name: str
    rows: Sequence[dict]  # with the images as they are encoded
    kept: list[int]  # which rows these are
    thumbnails: list[str]  # as data: URLs
    captions: list[dict[str, str]]  # by language, without those that are missing
    labels: list[str | None]
    embeds: np.ndarray  # (images, dim) float32, unit rows

    def __len__(self) -> int:
        return len(self.kept)

    def content(self, index: int) -> bytes:
        """The file of an image."""
        return image_content(self.rows[self.kept[index]])

    def closest(self, query: np.ndarray, count: int, without: int | None = None) -> list[tuple[int, float]]:
        """
        The images closest to an embedding.

        Args:
            query (`np.ndarray` of shape `(dim,)`): A unit vector.
            count (`int`): How many.
            without (`int`, *optional*): An image that is not to be among them.

        Returns:
            `list[tuple[int, float]]`: Indices and cosines, from the highest; of equal ones the first comes first.
        """
        cosines = self.embeds @ query
        order = (index for index in np.argsort(-cosines, kind="stable").tolist() if index != without)
        return [(index, float(cosines[index])) for index, _ in zip(order, range(count), strict=False)]

    def examples(self, labels: Sequence[str], count: int) -> list[int]:
        """Indices of different images: the first of each label that it has, then evenly spaced ones."""
        first = [self.labels.index(label) for label in labels if label in self.labels]
        spaced = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int).tolist()
        return list(dict.fromkeys(first + spaced))[:count]


def make_gallery(name: str, rows: Sequence[dict], handler: ModuleType, model: object) -> Gallery:
    """
    Embeds a split of a dataset. Images that cannot be opened are left out, and counted in a line.

    Args:
        name (`str`):
            What people call it.
        rows (`Sequence[dict]`):
            Rows with an encoded `image` (`{"bytes": …, "path": …}`), and perhaps `label` and `captions`: a text, or
            the number of a class that the dataset names; a text, several, or either by language.
        handler (`ModuleType`):
            The module `handler.py`.
        model (`EndpointHandler`):
            Its handler.

    Raises:
        `ValueError`: No image can be opened.
    """
    chosen = range(len(rows))
    if len(rows) > MOST:
        chosen = np.linspace(0, len(rows) - 1, MOST).astype(int).tolist()
        print(f"{name} has {len(rows):,} images: the gallery takes {MOST:,} of them, evenly spaced")
    gallery = Gallery(name, rows, [], [], [], [], np.empty((0, 0), np.float32))
    images = take_in(gallery, tqdm(chosen, desc="embedding the gallery", unit="image"), handler)
    # The handler takes a batch's images one by one: not all of them lie decoded in memory.
    embeds = [model.embed_images(chain([first], islice(images, BATCH_SIZE - 1))) for first in images]
    if not gallery.kept:
        raise ValueError(f"no image of {name} can be opened")
    if broken := len(chosen) - len(gallery):
        print(f"{broken:,} images of {name} cannot be opened and are left out")
    gallery.embeds = np.concatenate(embeds)
    return gallery


def take_in(gallery: Gallery, chosen: Iterable[int], handler: ModuleType) -> Iterator[Image.Image]:
    """Enters rows into a gallery, all but their embeddings, and yields their images; leaves out what is none."""
    classes = getattr(getattr(gallery.rows, "features", {}).get("label"), "names", ())
    for index in chosen:
        row = gallery.rows[index]
        try:
            image = handler.open_image(image_content(row))
        except ValueError:
            continue
        gallery.kept.append(index)
        gallery.thumbnails.append(thumbnail(image))
        gallery.captions.append(first_captions(row))
        gallery.labels.append(class_name(row.get("label"), classes))
        yield image


def image_content(row: dict) -> bytes:
    """The file of a row's image: in the table, or beside it; empty if it is missing."""
    image = row["image"] or {}
    if image.get("bytes") is None and image.get("path") and Path(image["path"]).is_file():
        return Path(image["path"]).read_bytes()
    return image.get("bytes") or b""


def first_captions(row: dict) -> dict[str, str]:
    """The first caption in each language that has one; those of no known language count as the default's."""
    captions = row.get("captions")
    if not isinstance(captions, dict):
        captions = {DEFAULT: captions}
    found = {language: first_text(texts) for language, texts in captions.items()}
    return {language: text for language, text in found.items() if text}


def first_text(texts: object) -> str | None:
    """A text, or the first of several that is not empty."""
    candidates = texts if isinstance(texts, list) else [texts]
    return next((text for text in candidates if isinstance(text, str) and text), None)


def class_name(label: object, classes: Sequence[str]) -> str | None:
    """A label in words: itself, or the name of the class of that number; `None` if neither describes an image."""
    if isinstance(label, int) and 0 <= label < len(classes):  # unlabelled images have -1
        return classes[label]
    return label if isinstance(label, str) else None


def thumbnail(image: Image.Image) -> str:
    """A small JPEG of an image as a `data:` URL."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
