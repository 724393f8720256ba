"""Faults that make a row of a corpus unusable. The rows of all sources are checked here."""

import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.images import load_pixels
from rsmclip.data.sources.protocol import SourceRow

SPLITS = ("train", "val", "test")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # 8 bits per channel, convertible to RGB
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a single surrogate, which JSON allows and UTF-8 does not
SHOWN = 20  # faults in a table


class Fault(NamedTuple):
    """The reason why a row is unusable."""

    problem: str
    image_id: str
    place: str  # file of the image, or the invalid value


def find_fault(row: SourceRow, seen: set[str]) -> Fault | None:
    """Return the first fault of a row, or `None`. `seen` has the ids of earlier rows. [`encode_image`] decodes."""
    problem, place, captions = None, row["file"], row["captions_en"]
    if row["image_id"] in seen:
        problem = "duplicate id"
    elif row["split"] not in SPLITS:
        problem, place = "unknown split", f"{row['split']!r} is none of {', '.join(SPLITS)}"
    elif not captions:
        problem = "no captions"
    elif not all(isinstance(caption, str) and caption.strip() for caption in captions):
        problem = "empty caption"
    elif any(HALF_CHARACTER.search(text) for text in (*captions, row["image_id"], row["label"] or "")):
        problem = "text that is not Unicode"
    elif row["image"] is None:
        problem = "image missing"
    return Fault(problem, row["image_id"], place) if problem else None


def fault_summary(faults: Sequence[Fault]) -> str:
    """Return the numbers of faults by problem, in one line."""
    counts = Counter(fault.problem for fault in faults).most_common()
    return f"{len(faults):,} unusable rows ({', '.join(f'{problem}: {count:,}' for problem, count in counts)})"


def fault_table(faults: Sequence[Fault]) -> str:
    """Return [`fault_summary`] and a line for each of the first `SHOWN` faults."""
    lines = [f"  {fault.problem}: {printable(fault.image_id)} ({printable(fault.place)})" for fault in faults[:SHOWN]]
    if len(faults) > SHOWN:
        lines.append(f"  … and {len(faults) - SHOWN:,} more")
    return "\n".join([fault_summary(faults), *lines])


def printable(text: str) -> str:
    return " ".join(text.split()).encode(errors="backslashreplace").decode()


def load_image(encoded: bytes, draft_side: int | None = None) -> Image.Image:
    """
    Decode an image. With `draft_side`, decode a larger JPEG in gray, with at least this many pixels per side.

    Raises:
        [`UserError`]: The image is damaged, or has more than 8 bits per channel.
    """
    try:
        image = load_pixels(encoded, "L", draft_side)
    except UserError as error:
        raise UserError("image undecodable") from error  # constant, because faults are counted by their text
    if image.mode not in MODES:  # Pillow would clip 16-bit values to 255
        raise UserError(f"image not in 8 bits per channel ({image.mode})")
    return image


def encode_image(encoded: bytes) -> bytes:
    """Check that an image can be decoded. Return the bytes of a JPEG or PNG, and other formats as PNG."""
    image = load_image(encoded)
    if image.format in ("JPEG", "MPO", "PNG"):  # MPO: a JPEG from a camera that stores a second picture after it
        return encoded
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
