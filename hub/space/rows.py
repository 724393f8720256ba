"""The gallery of a Space on the Hub: a split of a dataset, embedded at the start."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from types import ModuleType

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm import tqdm

from .gallery import Entry, Gallery, Unreadable, class_name, first_captions

BATCH_SIZE = 32


class EmptyGallery(ValueError):
    """A dataset of which no image can be opened."""


class RowsGallery(Gallery):
    """
    A split of a dataset. Images that cannot be opened are left out, and their number is printed.

    Args:
        name (`str`): Name of the gallery on the page.
        rows (`Dataset`): Rows with an encoded `image` (`{"bytes": …, "path": …}`). Optional columns are `image_id`,
            `captions` (a text, a list of texts, or either by language) and `label` (a text, or the number of a class).
        handler (`ModuleType`): The module `handler.py`.
        model (`EndpointHandler`): The model.
        nearest (`Callable`): See [`Gallery`].

    Raises:
        [`EmptyGallery`]: No image can be opened.
    """

    def __init__(self, name: str, rows: Dataset, handler: ModuleType, model: object, nearest: Callable):
        self.rows, self.handler = rows, handler
        self.classes = getattr(rows.features.get("label"), "names", ())
        self.kept: list[int] = []  # row of each image
        images = self.openable(tqdm(range(len(rows)), desc="embedding the gallery", unit="image"))
        # The handler takes the images of a batch one by one, so only a few are decoded at a time.
        embeds = [model.embed_images(chain([first], islice(images, BATCH_SIZE - 1))) for first in images]
        if not self.kept:
            raise EmptyGallery(f"no image of {name} can be opened")
        if broken := len(rows) - len(self.kept):
            print(f"{broken:,} images of {name} cannot be opened and are left out")
        super().__init__(name, np.concatenate(embeds), nearest)

    def openable(self, rows: Iterable[int]) -> Iterator[Image.Image]:
        for row in rows:
            try:
                image = self.open_row(row)
            except Unreadable:
                continue
            self.kept.append(row)
            yield image

    def open_row(self, row: int) -> Image.Image:
        try:
            return self.handler.open_image(row_content(self.rows[row]))
        except self.handler.InputError as error:
            raise Unreadable(str(error)) from error

    def entry(self, place: int) -> Entry:
        row = self.rows[self.kept[place]]
        name = row.get("image_id") or Path((row["image"] or {}).get("path") or "").name
        return Entry(str(name), first_captions(row.get("captions")), class_name(row.get("label"), self.classes))

    def content(self, place: int) -> bytes:
        return row_content(self.rows[self.kept[place]])

    def image(self, place: int) -> Image.Image:
        return self.open_row(self.kept[place])


def row_content(row: dict) -> bytes:
    """Return the encoded image of a row, from the table or from the file that it names; `b""` if it is missing."""
    image = row["image"] or {}
    if image.get("bytes") is None and image.get("path") and Path(image["path"]).is_file():
        return Path(image["path"]).read_bytes()
    return image.get("bytes") or b""
