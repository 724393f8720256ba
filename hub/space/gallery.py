"""What the page needs of the images that it searches: embeddings, names and captions, and the pixels when shown."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .texts import DEFAULT

LOOKED_AT = 1000  # images whose labels are read for the choice of examples


class Unreadable(ValueError):
    """An image that is missing, damaged or too large."""


@dataclass(frozen=True)
class Entry:
    """What the page says about an image. All texts are untrusted."""

    name: str  # path in a folder, or id in valid Unicode; "" if the image has none
    captions: dict[str, str] = field(default_factory=dict)  # language: caption, without missing ones
    label: str | None = None
    details: tuple[str, ...] = ()  # box of a tile, and its latitude and longitude


class Gallery(ABC):
    """
    Images with their embeddings. The place of an image is its row in `embeds`.

    Args:
        name (`str`): Name of the gallery on the page.
        embeds (`np.ndarray` of shape `(images, dim)`): Unit rows, float32.
        nearest (`Callable`): The function `nearest` of `eval/index.py`, which is `index.py` on the Hub.
        tiles (`bool`, *optional*, defaults to `False`): Whether the images are tiles of larger images.
    """

    def __init__(self, name: str, embeds: np.ndarray, nearest: Callable, tiles: bool = False):
        self.name, self.embeds, self.nearest, self.tiles = name, embeds, nearest, tiles
        # A part of each address, so that a browser does not show what it kept of another gallery.
        self.key = secrets.token_hex(4)

    def __len__(self) -> int:
        return len(self.embeds)

    @abstractmethod
    def entry(self, place: int) -> Entry:
        """Return what the page says about an image. The image itself is not read."""

    @abstractmethod
    def content(self, place: int) -> bytes | None:
        """Return the file of an image, `None` for a tile. Raises [`Unreadable`]."""

    @abstractmethod
    def image(self, place: int) -> Image.Image:
        """Return an image in RGB. Raises [`Unreadable`]."""

    def closest(self, query: np.ndarray, count: int, without: int | None = None) -> list[tuple[int, float]]:
        """
        Return place and cosine of the images that are closest to an embedding, from the highest cosine.

        Args:
            query (`np.ndarray` of shape `(dim,)`): A unit vector.
            count (`int`): Number of images to return.
            without (`int`, *optional*): Place of an image to leave out.
        """
        return list(zip(*self.nearest(self.embeds, query, count, without), strict=True))

    def examples(self, labels: Sequence[str], count: int) -> list[int]:
        """
        Return places of up to `count` different images: the first of each label, then evenly spaced ones.

        Only `LOOKED_AT` evenly spaced images of a larger gallery are searched for labels.
        """
        places = self.spaced(LOOKED_AT)
        found = [self.entry(place).label for place in places]
        first = [places[found.index(label)] for label in labels if label in found]
        return list(dict.fromkeys(first + self.spaced(count)))[:count]

    def spaced(self, count: int) -> list[int]:
        """Return up to `count` evenly spaced places."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).astype(int).tolist()


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
