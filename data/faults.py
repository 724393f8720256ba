"""What makes a row of a corpus unusable: one place for all corpora."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rsmclip.core.images import IMAGE_ERRORS, open_encoded
from rsmclip.data.sources.protocol import SourceError, SourceRow

SPLITS = ("train", "val", "test")


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
    elif not all(map(is_text, [*row["captions_en"], row["image_id"], row["label"] or ""])):
        problem = "text that is no Unicode"
    elif row["image"] is None:
        problem = "image missing"
    return problem and Fault(problem, row["image_id"], place)


def fault_table(faults: Sequence[Fault], shown: int = 20) -> str:
    """How often each problem is there, then the first `shown` faults as a table."""
    counts = Counter(fault.problem for fault in faults).most_common()
    listed = [Fault("problem", "image", "where")]
    listed += [Fault(*map(printable, fault)) for fault in faults[:shown]]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    lines = [f"{len(faults):,} unusable rows (" + ", ".join(f"{problem}: {n:,}" for problem, n in counts) + ")"]
    for fault in listed:
        lines.append("  " + "  ".join(text.ljust(width) for text, width in zip(fault, widths, strict=True)).rstrip())
    return "\n".join(lines + [f"  … and {len(faults) - shown:,} more"] * (len(faults) > shown))


def printable(text: str) -> str:
    """A text on one line, halves of characters as JSON has them."""
    return " ".join(text.split()).encode(errors="backslashreplace").decode()


def is_text(text: str) -> bool:
    """Whether a string can be written: JSON may hold halves of characters, such as `"\\ud83d"` alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_image(encoded: bytes) -> bytes:
    """
    The bytes of a JPEG or PNG as they are; any other format, such as TIFF, as PNG. Every image is decoded once, so
    that none is damaged.

    Raises:
        [`SourceError`]: The bytes are no image, only a part of one, or one of more than 8 bits a channel.
    """
    try:
        image = open_encoded(encoded)
        image.load()
    except IMAGE_ERRORS as error:
        raise SourceError("image undecodable") from error
    if image.mode.startswith(("I", "F")):  # Pillow would cut off whatever is brighter than 255
        raise SourceError("image not of 8 bits a channel")
    if image.format in ("JPEG", "MPO", "PNG"):  # MPO: a JPEG of a camera that keeps a second picture behind the first
        return encoded
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
