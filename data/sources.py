"""Readers of caption corpora in the layouts their authors publish. A new corpus is a new class behind [`Source`].

A reader yields what the corpus says and stops only at what it cannot read at all, such as a damaged annotation file.
Whether a row is usable is judged by [`find_fault`] and [`encode_image`], in one place for all corpora.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, TypedDict

from PIL import Image

SPLITS = ("train", "val", "test")

# What Pillow's plugins raise for bytes that are no image, only half of one, or one of absurd size.
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class SourceRow(TypedDict):
    """
    One image of a corpus.

    Args:
        image (`bytes`, *optional*): The file of the image as published; `None` if it is missing.
        file (`str`): Where that is in the corpus, for messages.
        image_id (`str`): Unique over all corpora, `rsicd/airport_1`.
        source (`str`): Name of the corpus.
        label (`str`, *optional*): Scene class, where the corpus has one.
        split (`str`): Official split: `train`, `val` or `test`.
        captions_en (`list[str]`): Captions as published.
    """

    image: bytes | None
    file: str
    image_id: str
    source: str
    label: str | None
    split: str
    captions_en: list[str]


class Source(Protocol):
    """A corpus."""

    name: str

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the annotations."""


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
        entries = self.read_annotation(path)
        folder = next((self.root / name for name in self.images if (self.root / name).is_dir()), None)
        if folder is None:
            raise SourceError(f"{self.name}: no folder {' or '.join(self.images)} in {self.root}")
        for number, entry in enumerate(entries):
            try:
                file_name, split = entry["filename"], entry["split"]
                captions = [sentence["raw"] for sentence in entry["sentences"]]
                yield make_row(self.name, folder, file_name, split, captions, label_of(file_name))
            except (KeyError, TypeError, ValueError) as error:
                raise SourceError(f"{path}: images[{number}] is malformed ({describe(error)})") from None

    def read_annotation(self, path: Path) -> list[dict]:
        """The list of images of an annotation file."""
        if not path.is_file():
            raise SourceError(f"{self.name}: no annotation file {path}")
        try:
            return list(json.loads(path.read_text(encoding="utf-8"))["images"])
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{path} is no annotation file after Karpathy ({describe(error)})") from None


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
            raise SourceError(f"{self.name}: no annotation file {path}")
        for place, entry in read_json_lines(path):
            try:
                captions = entry["captions"] if "captions" in entry else entry["text"]
                captions = [captions] if isinstance(captions, str) else list(captions or [])
                label = None if entry.get("label") is None else str(entry["label"])
                yield make_row(self.name, self.root, entry["file_name"], entry.get("split", "train"), captions, label)
            except (KeyError, TypeError, ValueError) as error:
                raise SourceError(f"{place} is malformed ({describe(error)})") from None


def image_folder(root: Path) -> ImageFolderSource:
    """A folder of images, which is a corpus by the folder's name."""
    return ImageFolderSource(root.resolve().name, root)


READERS: dict[str, Callable[..., Source]] = {
    "rsicd": partial(KarpathySource, "rsicd", annotation="dataset_rsicd.json", images=("RSICD_images", "images")),
    "ucm": partial(KarpathySource, "ucm", annotation="dataset.json", images=("imgs", "images")),
    "sydney": partial(KarpathySource, "sydney", annotation="dataset.json", images=("imgs", "images")),
    "imagefolder": image_folder,
}


def open_source(name: str, folder: str | Path) -> Source:
    """
    The reader of a corpus.

    Args:
        name (`str`): One of `READERS`.
        folder (`str` or `Path`): Where its files are.

    Raises:
        [`SourceError`]: There is no such reader or folder.
    """
    if name not in READERS:
        raise SourceError(f"unknown source {name!r}; known are {', '.join(READERS)}")
    if not Path(folder).is_dir():
        raise SourceError(f"{name}: no folder {folder}")
    return READERS[name](root=Path(folder))


def make_row(
    source: str, folder: Path, file_name: str, split: str, captions: list[str], label: str | None
) -> SourceRow:
    """A row whose image is the file `file_name` in `folder`."""
    path = folder / file_name
    return SourceRow(
        image=path.read_bytes() if path.is_file() else None,
        file=f"{folder.name}/{file_name}",  # it goes into the dataset card, where a path of this machine has no place
        image_id=f"{source}/{PurePosixPath(file_name).with_suffix('')}",
        source=source,
        label=label,
        split=split,
        captions_en=captions,
    )


def label_of(file_name: str) -> str | None:
    """The scene class in a file name: `airport` of `airport_1.jpg`, none of `00623.jpg`."""
    scene = re.fullmatch(r"([A-Za-z]+)_\d+", PurePosixPath(file_name).stem)
    return scene[1] if scene else None


def read_json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """
    The objects of a file in JSON lines, each with its place for messages.

    Raises:
        [`SourceError`]: A line is no JSON object.
    """
    # Bytes, not text: a caption may hold U+2028 and other line ends that are no line ends in JSON.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{path}, line {number}"
            try:
                entry = json.loads(line.decode("utf-8")) if line.strip() else None
            except ValueError as error:
                raise SourceError(f"{place} is no JSON ({error})") from None
            if isinstance(entry, dict):
                yield place, entry
            elif line.strip():
                raise SourceError(f"{place} is no JSON object")


def describe(error: Exception) -> str:
    """What an error found, in words."""
    return f"no {error}" if isinstance(error, KeyError) else str(error)


class Fault(NamedTuple):
    """
    Why a row is unusable.

    Args:
        problem (`str`): What is wrong.
        image_id (`str`): The row.
        place (`str`): The file of its image, or the value that is wrong.
    """

    problem: str
    image_id: str
    place: str


def find_fault(row: SourceRow, seen: set[str]) -> Fault | None:
    """
    What is wrong with a row, if anything. The image itself is judged by [`encode_image`].

    Args:
        row ([`SourceRow`]): The row.
        seen (`set[str]`): Ids of the rows before it.
    """
    problem, place = None, row["file"]
    if row["image_id"] in seen:
        problem = "duplicate id"
    elif row["split"] not in SPLITS:
        problem, place = "unknown split", f"{row['split']!r} is none of {', '.join(SPLITS)}"
    elif not row["captions_en"]:
        problem = "no captions"
    elif not all(isinstance(caption, str) and caption.strip() for caption in row["captions_en"]):
        problem = "empty caption"
    elif row["image"] is None:
        problem = "image missing"
    return problem and Fault(problem, row["image_id"], place)


def fault_table(faults: Sequence[Fault], shown: int = 20) -> str:
    """How often each problem is there, then the first `shown` faults as a table."""
    counts = Counter(fault.problem for fault in faults).most_common()
    listed = [Fault("problem", "image", "where"), *faults[:shown]]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    lines = [f"{len(faults):,} unusable rows (" + ", ".join(f"{problem}: {n:,}" for problem, n in counts) + ")"]
    for fault in listed:
        lines.append("  " + "  ".join(text.ljust(width) for text, width in zip(fault, widths, strict=True)).rstrip())
    return "\n".join(lines + [f"  … and {len(faults) - shown:,} more"] * (len(faults) > shown))


def encode_image(encoded: bytes) -> bytes:
    """
    The bytes of a JPEG or PNG as they are; any other format, such as TIFF, as PNG. Every image is decoded once, so
    that none is damaged.

    Raises:
        [`SourceError`]: The bytes are no image, only a part of one, or one of more than 8 bits a channel.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except IMAGE_ERRORS as error:
        raise SourceError("image undecodable") from error
    if image.mode.startswith(("I", "F")):  # Pillow would cut off whatever is brighter than 255
        raise SourceError("image not of 8 bits a channel")
    if image.format in ("JPEG", "PNG"):
        return encoded
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def normalise_caption(raw: str) -> str:
    """White space folded, none before punctuation: `"a  red roof ."` to `"a red roof."`."""
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(raw.split()))
