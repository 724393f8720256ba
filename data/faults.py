"""Faults that make a row of a corpus unusable. The rows of all sources are checked here."""

import io
import re
import reprlib
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.images import load_pixels
from rsmclip.data.sources.protocol import SourceRow

SPLITS = ("train", "val", "test")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # 8 bits per channel, convertible to RGB
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a single surrogate, which JSON allows and UTF-8 does not
J2K_SIZE = b"\xff\x4f\xff\x51"  # begins a JPEG 2000 codestream: markers SOC and SIZ
SHOWN = 20  # faults in a table


class Fault(NamedTuple):
    """The reason why a row is unusable."""

    problem: str
    image_id: str
    place: str  # file of the image, or the invalid value


def find_fault(row: SourceRow, seen: set[str]) -> Fault | None:
    """Return the first fault of a row, or `None`. `seen` has the ids of earlier rows. [`encode_image`] decodes."""
    problem, place = None, row["file"]
    lists = [row["captions_en"] or [], *row["given"].values()]
    captions = [caption for texts in lists for caption in texts if caption is not None]
    if row["image_id"] in seen:
        problem = "duplicate id"
    elif row["split"] not in (None, *SPLITS):
        problem, place = "unknown split", f"{row['split']!r} is none of {', '.join(SPLITS)}"
    elif not any(lists):
        problem = "no captions"
    elif wrong := [caption for caption in captions if not isinstance(caption, str)]:
        problem, place = "caption that is not text", f"{place}: {reprlib.repr(wrong[0])}"
    elif not all(any(text and text.strip() for text in texts) for texts in zip_longest(*lists)):
        problem = "empty caption"  # in all languages
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
        [`UserError`]: The image is damaged or refused, or has more than 8 bits per channel. The message is the kind of
            fault, which is counted, then a colon and the reason.
    """
    try:
        image = load_pixels(encoded, "L", draft_side)
    except UserError as error:
        raise UserError(f"image undecodable: {error}") from error
    bits = bits_per_channel(image, encoded)
    if bits > 8 or image.mode not in MODES:  # Pillow would clip 16-bit values to 255
        remedy = "rescale it to 8-bit gray or RGB, as with gdal_translate -ot Byte -scale MIN MAX 0 255 IN OUT"
        found = f"{bits} bits, mode {image.mode}" if bits > 8 else f"mode {image.mode}"
        raise UserError(f"image not in 8 bits per channel: {found}; {remedy}")
    return image


def bits_per_channel(image: Image.Image, encoded: bytes) -> int:
    # Bits in the file. The mode does not show them: Pillow keeps 8 of the 16 bits if there are several channels.
    if image.format == "PNG":
        return encoded[24]  # in the header
    if image.format == "JPEG2000":
        return (encoded[encoded.find(J2K_SIZE) + 42] & 127) + 1
    return max(image.tag_v2.get(258, (1,))) if image.format == "TIFF" else 8  # tag BitsPerSample


def encode_image(encoded: bytes) -> bytes:
    """Check that an image can be decoded. Return the bytes of a JPEG or PNG, and other formats as PNG."""
    image = load_image(encoded)
    if image.format in ("JPEG", "MPO", "PNG"):  # MPO: a JPEG from a camera that stores a second picture after it
        return encoded
    buffer = io.BytesIO()
    # Keep transparency: the image processor puts a white background behind it.
    image.convert("RGBA" if image.has_transparency_data else "RGB").save(buffer, "PNG")
    return buffer.getvalue()
