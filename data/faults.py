"""Faults that make a row of a corpus unusable. The rows of all sources are checked here."""

import io
import re
import reprlib
from collections import Counter
from collections.abc import Sequence
from itertools import compress, zip_longest
from typing import NamedTuple

from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.images import RESCALE, TooManyBits, load_pixels
from rsmclip.data.sources.protocol import SourceRow
from rsmclip.data.stretch import stretch_to_8_bit

SPLITS = ("train", "val", "test")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # 8 bits per channel, convertible to RGB
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a single surrogate, which JSON allows and UTF-8 does not
EMPTY_CAPTION = "empty caption"  # in all languages
SHOWN = 20  # faults in a table
OR_STRETCH = "or build a corpus with --stretch 2 98"


class Fault(NamedTuple):
    """The reason why a row, or one of its captions, is unusable."""

    problem: str
    image_id: str
    place: str  # file of the image, line of the caption, or the invalid value


def find_fault(row: SourceRow, seen: set[str]) -> Fault | None:
    """
    Return the first fault that makes a row unusable, or `None`. `seen` has the ids of earlier rows.

    A row is usable if one caption is left by [`without_empty_captions`]. [`encode_image`] finds faults of the image.
    """
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
    elif not any(caption.strip() for caption in captions):
        problem, place = EMPTY_CAPTION, row.get("places", [place])[0]
    elif any(HALF_CHARACTER.search(text) for text in (*captions, row["image_id"], row["label"] or "")):
        problem = "text that is not Unicode"
    elif row["image"] is None:
        problem = "image missing"
    return Fault(problem, row["image_id"], place) if problem else None


def without_empty_captions(row: SourceRow) -> tuple[SourceRow, list[Fault]]:
    """Return a row without the captions that are empty in all languages, and a fault for each of them."""
    lists = [row["captions_en"] or [], *row["given"].values()]
    full = [any(text and text.strip() for text in texts) for texts in zip_longest(*lists)]
    if all(full):
        return row, []
    places = row.get("places", [row["file"]] * len(full))
    faults = [
        Fault(EMPTY_CAPTION, row["image_id"], place) for place, kept in zip(places, full, strict=True) if not kept
    ]
    english = row["captions_en"] and list(compress(row["captions_en"], full))
    given = {language: list(compress(texts, full)) for language, texts in row["given"].items()}
    return row | {"captions_en": english, "given": given}, faults


def fault_summary(faults: Sequence[Fault]) -> str:
    """Return the numbers of faults by problem, in one line."""
    counts = Counter(fault.problem for fault in faults)
    kinds = "rows or captions" if EMPTY_CAPTION in counts else "rows"
    numbers = ", ".join(f"{problem}: {count:,}" for problem, count in counts.most_common())
    return f"{len(faults):,} unusable {kinds} ({numbers})"


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
    except TooManyBits as error:
        raise UserError(f"image not in 8 bits per channel: {error}, {OR_STRETCH}") from error
    except UserError as error:
        raise UserError(f"image undecodable: {error}") from error
    if image.mode not in MODES:
        raise UserError(f"image not in 8 bits per channel: mode {image.mode}; {RESCALE}, {OR_STRETCH}")
    return image


def encode_image(encoded: bytes, stretch: tuple[float, float] | None = None) -> bytes:
    """
    Check that an image can be decoded. Return the bytes of a JPEG or PNG, and other formats as PNG.

    Images of more than 8 bits per channel need `stretch`, see [`stretch_to_8_bit`].
    """
    if stretch is not None:
        try:
            encoded = stretch_to_8_bit(encoded, *stretch) or encoded
        except UserError as error:
            raise UserError(f"image not stretched: {error}") from error
    image = load_image(encoded)
    if image.format in ("JPEG", "MPO", "PNG"):  # MPO: a JPEG from a camera that stores a second picture after it
        return encoded
    buffer = io.BytesIO()
    profile = image.info.get("icc_profile")  # a number in a broken TIFF
    # Keep transparency: the image processor puts a white background behind it.
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.save(buffer, "PNG", icc_profile=profile if isinstance(profile, bytes) else None)
    return buffer.getvalue()
