"""Opening and checking the images of corpora and users: which formats are read, and what is refused."""

import io
import re
import struct
from pathlib import Path

from PIL import Image, UnidentifiedImageError

# The formats that a corpus may hold. Pillow reads others too, by plugins that few have tried to break; of EPS it has
# Ghostscript make a picture.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM")

MAX_RATIO = 50  # of an image's longer side to its shorter one, which models bring to their size

MAX_SCANS = 50  # of a JPEG, which are ten if it is progressive; each decodes the whole picture anew

# The head of a scan of one to four components. The two bytes alone also stand in what follows a picture, such as the
# video of a phone's.
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")

# What Pillow's plugins raise for bytes that are no image, only half of one, or one of absurd size. A TIFF whose fields
# are of another type than they should be, or missing, raises the second line.
IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)


def open_encoded(encoded: bytes) -> Image.Image:
    """
    An image of a corpus, of one of `FORMATS`; its pixels are not decoded yet.

    Raises:
        One of `IMAGE_ERRORS`: The bytes are no such image, one that is too long and narrow, or one of more pixels than
        Pillow takes: 179 million, twice its `MAX_IMAGE_PIXELS`.
    """
    if encoded.startswith(b"\xff\xd8") and sum(1 for _ in JPEG_SCAN.finditer(encoded)) > MAX_SCANS:
        raise ValueError(f"a JPEG of more than {MAX_SCANS} scans")
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    if max(image.size) > MAX_RATIO * min(image.size):
        raise ValueError("{:,} × {:,} pixels; a side may be {} times the other".format(*image.size, MAX_RATIO))
    return image


def image_bytes(image: dict | None) -> bytes | None:
    """The file of an image that is still encoded: in the table, or beside it; `None` if it is missing."""
    if image is None or image.get("bytes") is not None:
        return image and image["bytes"]
    path = Path(image["path"]) if image.get("path") else None
    return path.read_bytes() if path and path.is_file() else None


def decode_image(image: dict, image_id: str) -> Image.Image:
    """An encoded image in RGB, 8 bits a channel; `ValueError` with its id if it is none."""
    if (encoded := image_bytes(image)) is None:
        raise ValueError(f"image {image_id} is missing")
    from rsmclip.image_processing_rsmclip import as_image  # imports torch, which most commands can do without

    try:
        return as_image(open_encoded(encoded)).convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(f"image {image_id} cannot be decoded: it is of no format that a corpus may hold") from error
    except IMAGE_ERRORS as error:
        raise ValueError(f"image {image_id} cannot be decoded: {error}") from error
