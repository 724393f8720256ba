"""Open and decode the images of corpora and users. Unknown formats and harmful files are refused."""

import io
import re
import struct
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from rsmclip.core.errors import UserError, user_errors

# Formats that a corpus may have. Pillow's other plugins are less tested, and its EPS plugin starts Ghostscript.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM")
IMAGE_SUFFIXES = (  # all that Pillow registers for these formats, in lower case
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".tif", ".tiff", ".webp", ".gif", ".bmp"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)

MAX_RATIO = 50  # longer side / shorter side; preprocessing resizes the shorter side to the model's size

MAX_SCANS = 50  # of a JPEG; a progressive JPEG has about ten, and each scan decodes the whole picture again

# Header of a JPEG scan with one to four components. The first two bytes alone also occur in other data of the file,
# such as a video that a phone appends to a picture.
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")

# Exceptions of Pillow for bytes that are not an image, for half an image, and for an image of absurd size. Those in
# the second line come from TIFF fields that are missing or have a wrong type. Catch them only around calls of Pillow.
IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)


def open_encoded(encoded: bytes) -> Image.Image:
    """
    Open an image without decoding its pixels.

    Args:
        encoded (`bytes`): Content of an image file in one of `FORMATS`.

    Raises:
        [`UserError`]: The bytes are not an image in one of `FORMATS`; a JPEG has more than `MAX_SCANS` scans; one side
            is more than `MAX_RATIO` times the other; or the image has over 179 million pixels (twice Pillow's
            `MAX_IMAGE_PIXELS`).
    """
    if encoded.startswith(b"\xff\xd8") and sum(1 for _ in JPEG_SCAN.finditer(encoded)) > MAX_SCANS:
        raise UserError(f"the JPEG has more than {MAX_SCANS} scans")
    with user_errors(*IMAGE_ERRORS):
        try:
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        except UnidentifiedImageError as error:  # its own message has the address of an object
            raise UserError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    if max(image.size) > MAX_RATIO * min(image.size):
        raise UserError("{:,} × {:,} pixels: one side is over {} times the other".format(*image.size, MAX_RATIO))
    return image


def load_pixels(encoded: bytes, draft_mode: str, short_side: int | None = None) -> Image.Image:
    """
    Open an image and decode its pixels. Raises [`UserError`] as [`open_encoded`] does, and if the pixels are damaged.

    With `short_side`, the size in pixels that the caller needs, a JPEG may be decoded in `draft_mode` (`"RGB"` or
    `"L"`) at a half, a quarter or an eighth of its size, which is faster.
    """
    image = open_encoded(encoded)
    with user_errors(*IMAGE_ERRORS):
        if short_side:
            image.draft(draft_mode, (short_side, short_side))
        image.load()
    return image


def decode_rgb(encoded: bytes, short_side: int | None = None) -> Image.Image:
    """
    Decode an image to RGB with 8 bits per channel, see [`load_pixels`].

    Raises:
        [`UserError`]: The image cannot be loaded, or the range of its pixel values is unknown.
    """
    from rsmclip.image_processing_rsmclip import as_image  # imports torch, which most commands do not need

    image = load_pixels(encoded, "RGB", short_side)
    with user_errors(ValueError):
        return as_image(image).convert("RGB")


def image_bytes(image: dict | None) -> bytes | None:
    """Return the encoded image of a row, from the row itself or from the file at its path; `None` if missing."""
    if image is None or image.get("bytes") is not None:
        return image and image["bytes"]
    path = Path(image["path"]) if image.get("path") else None
    if path is None or not path.is_file():
        return None
    with user_errors(OSError, prefix=f"{path} cannot be read"):
        return path.read_bytes()


def decode_image(image: dict | None, image_id: str) -> Image.Image:
    """
    Decode the image of a row to RGB with 8 bits per channel.

    Args:
        image (`dict`, *optional*): `{"bytes": …, "path": …}`, as `datasets` stores an image that is not decoded.
        image_id (`str`): Id of the row, for the error line.

    Raises:
        [`UserError`]: The image is missing or cannot be decoded.
    """
    if (encoded := image_bytes(image)) is None:
        raise UserError(f"image {image_id} is missing")
    try:
        return decode_rgb(encoded)
    except UserError as error:
        raise UserError(f"image {image_id} cannot be decoded: {error}") from error
