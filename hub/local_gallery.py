"""The gallery of a Space on this machine: an index, opened or made when the Space starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from rsmclip.core.command_line import printable
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import published_name
from rsmclip.core.images import IMAGE_ERRORS
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.eval.build_index import build_index, kept_index
from rsmclip.eval.image_sources import CorpusSource, Source, entry_image, open_source, source_of
from rsmclip.eval.index import BadIndex, Index, nearest, open_index, read_record
from rsmclip.eval.index_command import print_left_out
from rsmclip.eval.index_files import read_entry
from rsmclip.eval.models import load_embedder
from rsmclip.eval.search import model_of
from rsmclip.hub.handler import TURNS
from rsmclip.hub.space.gallery import Entry, Gallery, Unreadable, class_name, first_captions

USUAL_SPLIT = "test"  # of a corpus; all splits if it has no split of this name


class IndexGallery(Gallery):
    """
    The images of an index, read when they are shown.

    Args:
        name (`str`): Name of the gallery on the page.
        index ([`~rsmclip.eval.index.Index`]): An open index.
        source (`Source`): The images of the index.
    """

    def __init__(self, name: str, index: Index, source: Source):
        super().__init__(name, index.embeds, nearest, tiles=bool(index.record["tile"]))
        self.index, self.source = index, source

    def entry(self, place: int) -> Entry:
        found = read_entry(self.index, place)
        captions, label = self.texts(found) if isinstance(self.source, CorpusSource) else ({}, None)
        return Entry(printable(found["path"]), captions, label, details(found))

    def texts(self, found: dict[str, Any]) -> tuple[dict[str, str], str | None]:
        """Return captions and label of a row; none if the corpus has changed since it was indexed."""
        try:
            row = self.source.row(found["path"], found["split"], found["row"])
        except UserError:
            return {}, None
        classes = getattr(self.source.corpus[found["split"]].features.get("label"), "names", ())
        return first_captions(row.get("captions")), class_name(row.get("label"), classes)

    def content(self, place: int) -> bytes | None:
        found = read_entry(self.index, place)
        if "box" in found:
            return None
        with unreadable():
            return self.source.read(found["path"], found.get("split"), found.get("row"))

    def image(self, place: int) -> Image.Image:
        with unreadable(), user_errors(*IMAGE_ERRORS):
            image = entry_image(self.source, read_entry(self.index, place))
            turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        # Embeddings ignore EXIF data. The page turns images as browsers turn their files.
        image = image if turn is None else image.transpose(turn)
        image.info.clear()  # else a reader of the EXIF data turns the image again
        return image


def details(found: dict[str, Any]) -> tuple[str, ...]:
    """Return the box of a tile, and latitude and longitude as maps take them."""
    parts = ["x {0}–{2}, y {1}–{3}".format(*found["box"])] if "box" in found else []
    if "coordinates" in found:
        parts.append("{1:.5f}, {0:.5f}".format(*found["coordinates"]))
    return tuple(parts)


@contextmanager
def unreadable() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise Unreadable(str(error)) from error


def open_gallery(
    gallery: str,
    model: str,
    split: str | None = None,
    gallery_revision: str | None = None,
    revision: str | None = None,
) -> IndexGallery:
    """
    Open an index, or make one in `HF_HOME/rsmclip/indexes` for a folder of images or a corpus.

    Args:
        gallery (`str`): Index, folder of images, folder or Hub id of a corpus, or `"demo"`.
        model (`str`): Folder or Hub id of the model.
        split (`str`, *optional*): Split of a corpus; by default `"test"`, or all splits if there is no such split.
        gallery_revision (`str`, *optional*): Branch, tag or commit of a corpus on the Hub.
        revision (`str`, *optional*): Branch, tag or commit of the model.

    Raises:
        [`UserError`]: The gallery, its split or its images are missing or damaged; or another model made the index.
    """
    with user_errors(BadIndex):
        index = open_index(Path(gallery)) if read_record(Path(gallery)) else None
    source = open_images(gallery, split, gallery_revision) if index is None else source_of(index)
    if index is not None and split:
        raise UserError(f"{gallery} is an index, which has no split {split!r}: leave --split out")
    if index is None:
        embedder = load_embedder(model, revision=revision)
        place = kept_index(source, embedder)
        print_left_out(build_index(source, embedder, place).left_out)
        index = open_index(place)
    else:
        model_of(index, model, revision)  # refuses another model
    name = gallery if gallery == "demo" else published_name(source.name)
    return IndexGallery(f"{name} ({source.split})" if source.split else name, index, source)


def open_images(gallery: str, split: str | None, revision: str | None) -> Source:
    source = open_source(str(cached_demo()) if gallery == "demo" else gallery, split, revision)
    if split is None and isinstance(source, CorpusSource) and USUAL_SPLIT in source.corpus:
        return replace(source, split=USUAL_SPLIT)
    return source
