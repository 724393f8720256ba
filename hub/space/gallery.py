"""The images that the Space searches: embedded once at the start, and kept as thumbnails."""

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

MAX_IMAGES = 2000  # a larger split is reduced to this many images, evenly spaced
THUMBNAIL = 192  # pixels, the longer side
BATCH_SIZE = 32


class EmptyGallery(ValueError):
    """A dataset of which no image can be opened."""


@dataclass
class Gallery:
    """Images with their embeddings. All lists have the same order."""

    name: str
    rows: Sequence[dict]  # of the dataset, images not decoded
    kept: list[int]  # index in `rows` of each image
    thumbnails: list[str]  # `data:` URLs
    captions: list[dict[str, str]]  # language: caption, without missing ones
    labels: list[str | None]
    embeds: np.ndarray  # (images, dim) float32, unit rows

    def __len__(self) -> int:
        return len(self.kept)

    def content(self, index: int) -> bytes:
        """Return the encoded image."""
        return image_content(self.rows[self.kept[index]])

    def closest(self, query: np.ndarray, count: int, without: int | None = None) -> list[tuple[int, float]]:
        """
        Return index and cosine of the images that are closest to an embedding, from the highest cosine.

        Args:
            query (`np.ndarray` of shape `(dim,)`): A unit vector.
            count (`int`): Number of images to return.
            without (`int`, *optional*): Index of an image to leave out.
        """
        cosines = self.embeds @ query
        order = (index for index in np.argsort(-cosines, kind="stable").tolist() if index != without)
        return [(index, float(cosines[index])) for index in islice(order, count)]

    def examples(self, labels: Sequence[str], count: int) -> list[int]:
        """Return indices of up to `count` different images: the first of each label, then evenly spaced ones."""
        first = [self.labels.index(label) for label in labels if label in self.labels]
        spaced = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int).tolist()
        return list(dict.fromkeys(first + spaced))[:count]


def make_gallery(name: str, rows: Sequence[dict], handler: ModuleType, model: object) -> Gallery:
    """
    Embed a split of a dataset. Images that cannot be opened are left out, and their number is printed.

    Args:
        name (`str`): Name of the gallery on the page.
        rows (`Sequence[dict]`): Rows with an encoded `image` (`{"bytes": …, "path": …}`), and optionally `captions` (a
            text, a list of texts, or either by language) and `label` (a text, or the number of a class).
        handler (`ModuleType`): The module `handler.py`.
        model (`EndpointHandler`): The model.

    Raises:
        [`EmptyGallery`]: No image can be opened.
    """
    chosen = range(len(rows))
    if len(rows) > MAX_IMAGES:
        chosen = np.linspace(0, len(rows) - 1, MAX_IMAGES).astype(int).tolist()
        print(f"{name} has {len(rows):,} images: the gallery shows {MAX_IMAGES:,} evenly spaced images")
    gallery = Gallery(name, rows, [], [], [], [], np.empty((0, 0), np.float32))
    images = add_rows(gallery, tqdm(chosen, desc="embedding the gallery", unit="image"), handler)
    # The handler takes the images of a batch one by one, so only a few are decoded at a time.
    embeds = [model.embed_images(chain([first], islice(images, BATCH_SIZE - 1))) for first in images]
    if not gallery.kept:
        raise EmptyGallery(f"no image of {name} can be opened")
    if broken := len(chosen) - len(gallery):
        print(f"{broken:,} images of {name} cannot be opened and are left out")
    gallery.embeds = np.concatenate(embeds)
    return gallery


def add_rows(gallery: Gallery, chosen: Iterable[int], handler: ModuleType) -> Iterator[Image.Image]:
    """Add rows to a gallery, without their embeddings, and yield their images."""
    classes = getattr(getattr(gallery.rows, "features", {}).get("label"), "names", ())
    for index in chosen:
        row = gallery.rows[index]
        try:
            image = handler.open_image(image_content(row))
        except handler.InputError:
            continue
        gallery.kept.append(index)
        gallery.thumbnails.append(thumbnail(image))
        gallery.captions.append(first_captions(row.get("captions")))
        gallery.labels.append(class_name(row.get("label"), classes))
        yield image


def image_content(row: dict) -> bytes:
    """Return the encoded image of a row, from the table or from the file that it names; `b""` if it is missing."""
    image = row["image"] or {}
    if image.get("bytes") is None and image.get("path") and Path(image["path"]).is_file():
        return Path(image["path"]).read_bytes()
    return image.get("bytes") or b""


def first_captions(captions: object) -> dict[str, str]:
    """Return the first caption in each language. Captions of an unknown language count as English."""
    by_language = captions if isinstance(captions, dict) else {DEFAULT: captions}
    found = {}
    for language, texts in by_language.items():
        texts = texts if isinstance(texts, list) else [texts]
        if text := next((text for text in texts if isinstance(text, str) and text), None):
            found[language] = text
    return found


def class_name(label: object, classes: Sequence[str]) -> str | None:
    """Return the class of a number, or a text unchanged; `None` for any other label."""
    if isinstance(label, int) and 0 <= label < len(classes):  # unlabeled images have -1
        return classes[label]
    return label if isinstance(label, str) else None


def thumbnail(image: Image.Image) -> str:
    """Return a small JPEG as a `data:` URL."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
