"""The images of an index: files in a folder, or rows of a corpus."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from datasets import DatasetDict
from datasets import Image as ImageFeature
from PIL import Image

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import absolute_name
from rsmclip.core.images import IMAGE_SUFFIXES, decode_rgb, image_bytes
from rsmclip.data.schema import is_corpus, load_corpus
from rsmclip.eval.index import Index
from rsmclip.eval.tiles import read_tiles

ROWS_PER_BATCH = 256


class Picture(NamedTuple):
    """An image of a source."""

    path: str  # of a file: relative to the folder; of a row: see `row_name`
    version: str  # changes with the content of the image
    split: str | None = None
    row: int | None = None


@dataclass
class Listing:
    """The images of a source, and what it has beside them."""

    pictures: list[Picture] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # path: reason
    others: int = 0  # files with other suffixes


@dataclass(frozen=True)
class FolderSource:
    """A folder of image files, with folders inside."""

    folder: Path  # absolute
    kind: str = "folder"
    split: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        return str(self.folder)

    def list(self) -> Listing:
        """
        List the image files, ordered by path. Hidden files and folders are left out.

        An image file has a suffix of [`~rsmclip.core.images.IMAGE_SUFFIXES`] in any case. The version is made of size
        and time of the file.
        """
        listing = Listing()
        for entry in walk(self.folder, listing):
            if Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
                listing.others += 1
                continue
            path = Path(entry.path).relative_to(self.folder).as_posix()
            try:
                found = entry.stat()
            except OSError as error:  # a link to a file that is gone
                listing.left_out[path] = error.strerror or str(error)
                continue
            if S_ISREG(found.st_mode):
                listing.pictures.append(Picture(path, f"{found.st_size}-{found.st_mtime_ns}"))
            else:  # reading a pipe would wait forever
                listing.left_out[path] = "not a regular file"
        listing.pictures.sort()
        return listing

    def read(self, path: str, split: str | None = None, row: int | None = None) -> bytes:
        """Return the content of an image file. Raises [`UserError`] if it cannot be read."""
        with user_errors(OSError):
            return self.file(path).read_bytes()

    def file(self, path: str) -> Path:
        """Return a file in the folder. Raises [`UserError`] for a path out of it, which a hostile index may have."""
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise UserError(f"{path} is not in {self.folder}")
        return self.folder / path


def walk(folder: Path, listing: Listing) -> Iterator[os.DirEntry]:
    # Folders that are links are followed, but no folder is visited twice: a link may lead to a folder above it.
    waiting, visited = [folder], set()
    while waiting:
        place = waiting.pop()
        try:
            found = place.stat()
            entries = [] if (found.st_dev, found.st_ino) in visited else list(os.scandir(place))
        except OSError as error:
            if place == folder:
                raise UserError(f"{folder} cannot be read: {error.strerror}") from error
            listing.left_out[place.relative_to(folder).as_posix()] = error.strerror or str(error)
            continue
        visited.add((found.st_dev, found.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                waiting.append(place / entry.name)
            else:
                yield entry


def is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which cannot be read as a file either
        return False


@dataclass(frozen=True)
class CorpusSource:
    """The images of a corpus, or of one of its splits."""

    name: str  # absolute folder, or Hub id
    corpus: DatasetDict  # encoded images
    split: str | None = None  # all splits by default
    revision: str | None = None  # of a corpus on the Hub
    kind: str = "corpus"

    def list(self) -> Listing:
        """List the rows. The version is a hash of the encoded image."""
        listing = Listing()
        for split in [self.split] if self.split else self.corpus:
            rows = self.corpus[split]
            columns = [name for name in ("image", "image_id") if name in rows.features]
            row = 0
            for batch in rows.select_columns(columns).iter(ROWS_PER_BATCH):
                ids = batch.get("image_id", [None] * len(batch["image"]))
                for image, image_id in zip(batch["image"], ids, strict=True):
                    version = blake2b(image_bytes(image) or b"", digest_size=12).hexdigest()
                    listing.pictures.append(Picture(row_name(image_id, split, row), version, split, row))
                    row += 1
        seen: set[str] = set()
        for picture in listing.pictures:
            if picture.path in seen:
                raise UserError(f"{self.name} has the image_id {picture.path!r} twice: an index needs unique ids")
            seen.add(picture.path)
        return listing

    def read(self, path: str, split: str | None = None, row: int | None = None) -> bytes:
        """Return the encoded image of a row. Raises [`UserError`] if it is missing, see also [`row`]."""
        if (encoded := image_bytes(self.row(path, split, row)["image"])) is None:
            raise UserError("the image is missing")
        return encoded

    def row(self, path: str, split: str, row: int) -> dict[str, Any]:
        """Return a row, its image encoded. Raises [`UserError`] if another image has its place by now."""
        rows = self.corpus.get(split, [])
        found = rows[row] if row < len(rows) else None
        if found is None or row_name(found.get("image_id"), split, row) != path:
            raise UserError(f"row {row} of split {split!r} is not {path} any more: index {self.name} again")
        return found


def row_name(image_id: object, split: str, row: int) -> str:
    """Return the `image_id` of a row, or split and number of the row if it has none or another type."""
    return image_id if isinstance(image_id, str) and image_id else f"{split}/{row}"


Source = FolderSource | CorpusSource


def open_source(name: str, split: str | None = None, revision: str | None = None) -> Source:
    """
    Open a folder of images, or a corpus.

    Args:
        name (`str`): Folder of images; folder of a corpus; or Hub id of a corpus. See
            [`~rsmclip.data.schema.is_corpus`].
        split (`str`, *optional*): Split of a corpus; all splits by default.
        revision (`str`, *optional*): Branch, tag or commit of a corpus on the Hub.

    Raises:
        [`UserError`]: The source does not exist or cannot be read, or a plain folder is given with a split.
    """
    folder = Path(name)
    if folder.is_dir() and not is_corpus(folder):
        if split:
            raise UserError(f"{name} is a folder of images, not a corpus: it has no split {split!r}")
        return FolderSource(folder.absolute())
    if folder.is_file():
        raise UserError(f"{name} is a file: give its folder")
    corpus = load_corpus(name, revision=revision)
    if split and split not in corpus:
        raise UserError(f"{name} has no split {split!r}; its splits are {', '.join(corpus)}")
    for part, rows in corpus.items():
        if not isinstance(rows.features.get("image"), ImageFeature):
            raise UserError(f"split {part!r} of {name} has no column 'image' with images")
    return CorpusSource(absolute_name(name), corpus, split, revision)


def source_of(index: Index) -> Source:
    """Open the images of an index. Raises [`UserError`] if the folder or corpus is gone."""
    record = index.record
    if record["kind"] == "folder":
        if not Path(record["source"]).is_dir():
            raise UserError(
                f"{index.folder} is an index of {record['source']}, which is gone: index it where it is now"
            )
        return FolderSource(Path(record["source"]))
    return open_source(record["source"], record["split"], record["source_revision"])


def entry_image(source: Source, entry: dict[str, Any]) -> Image.Image:
    """Return the image or tile of an entry of an index, RGB. Raises [`UserError`] if it is gone or damaged."""
    if "box" in entry:
        return read_tiles(source.file(entry["path"]), [entry["box"]])[0]
    return decode_rgb(source.read(entry["path"], entry.get("split"), entry.get("row")))
