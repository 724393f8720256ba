"""Open and decode the images of corpora and users. Unknown formats and harmful files are refused."""

import io
import os
import re
import struct
from pathlib import Path

from PIL import Image, TiffTags, UnidentifiedImageError

from rsmclip.core.errors import UserError, user_errors

# Formats that a corpus may have. Pillow's other plugins are less tested, and its EPS plugin starts Ghostscript.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM")
IMAGE_SUFFIXES = (  # all that Pillow registers for these formats, in lower case
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".tif", ".tiff", ".webp", ".gif", ".bmp"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)

MAX_RATIO = 50  # longer side / shorter side; preprocessing resizes the shorter side to the model's size

MAX_SCANS = 50  # of a JPEG; a progressive JPEG has about ten, and each scan decodes the whole picture again
MAX_HEADER_PARTS = 2000  # that are read before the pixels: segments, chunks, tags and their values
MAX_HEADER_BYTES = 2**22
MAX_PARTS = 500_000  # that are read with the pixels
MAX_EXIF_BYTES = 2**17
MAX_COSTLY_PIXELS = 25_000_000  # of WebP and JPEG 2000, whose decoders need up to 24 bytes for a pixel
MAX_BLOCKS = 300_000  # of all components of a JPEG 2000

# Header of a JPEG scan with one to four components. The first two bytes alone also occur in other data of the file,
# such as a video that a phone appends to a picture.
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")

J2K_SIZE = b"\xff\x4f\xff\x51"  # begins a JPEG 2000 codestream: markers SOC and SIZ
# Headers of JPEG 2000. SIZ: corners of the image, sides of a tile, number of components. COD, and COC for one
# component: precincts given or not, number of levels, and logarithms of the sides of a block.
J2K_SIZ = re.compile(rb"\xff\x4f\xff\x51(.{38})", re.DOTALL)
J2K_COD = re.compile(
    rb"\xff(?:\x52\0.([\0-\7])[\0-\4]..[\0\1]|\x53\0..([\0\1]))([\0-\x20])([\0-\10])([\0-\10]).[\0\1]", re.DOTALL
)

RESCALE = "rescale it with gdal_translate -ot Byte -scale IN OUT"

# Exceptions of Pillow for bytes that are not an image, for half an image, and for an image of absurd size. Those in
# the second line come from TIFF fields that are missing or have a wrong type. Catch them only around calls of Pillow.
IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(TypeError, AttributeError, LookupError, ArithmeticError),
)


class TooManyBits(UserError):
    """An image of more bits per channel than the 8 that Pillow keeps. The numbers of a sensor would become black."""


class TooCostly(ValueError):
    """An image whose file takes far more time or memory than its pixels need."""


class Bounded:
    """
    A file of an image. Raises [`TooCostly`] if Pillow reads more bytes or parts of it than any usual file has.

    Thousands of tags can name the same bytes, a file can have millions of empty parts, and Pillow joins EXIF segments.
    """

    def __init__(self, content: object):
        super().__init__(content)
        self.exif_segments = 0
        self.allow(MAX_HEADER_PARTS, MAX_HEADER_BYTES)

    def allow(self, parts: int, size: int) -> None:
        """Set the numbers of parts and bytes that can be read from now on."""
        self.parts_left, self.bytes_left = parts, size

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.parts_left -= 1
        self.bytes_left -= len(data) if size >= 0 else 0  # a WebP is read at once
        self.exif_segments += data.startswith(b"Exif\0\0")
        if min(self.parts_left, self.bytes_left) < 0 or self.exif_segments > 2:
            raise TooCostly("it has too many parts or too much metadata: save it again as PNG, without metadata")
        return data


class BoundedFile(Bounded, io.BytesIO):
    """Content of an image file, see [`Bounded`]."""


def check_cost(image: Image.Image, content: bytes) -> None:
    """Raise [`TooCostly`] if an image that is not yet decoded needs far more time or memory than its pixels."""
    pixels = image.width * image.height
    if image.tile and image.tile[0][0] in ("bmp_rle", "ppm_plain"):  # slow decoders in Python
        raise TooCostly(f"a {image.format} in this encoding is not read: save it as PNG")
    if image.format == "TIFF":
        if image.tag_v2.get(322, 1) * image.tag_v2.get(323, 1) > max(pixels, 2**24):  # sides of a tile
            raise TooCostly("the tiles of the TIFF are larger than the picture")
        exif = image.getexif()
        for directory in TiffTags.TAGS_V2_GROUPS.keys() & exif.keys():
            exif.get_ifd(directory)  # else read with the pixels, where more bytes are allowed
    if image.format in ("WEBP", "JPEG2000") and pixels > MAX_COSTLY_PIXELS:
        raise TooCostly(
            f"{image.width:,} × {image.height:,} pixels: at most {MAX_COSTLY_PIXELS:,} are accepted in "
            f"{image.format}; cut it into tiles, or save it as TIFF"
        )
    if image.format == "JPEG2000":
        check_blocks(content)


def check_blocks(content: bytes) -> None:
    # The decoder keeps up to 2 kB for each block or precinct of a component, and more for a tile, even without data.
    width = height = bands = tiles = 0
    for found in J2K_SIZ.finditer(content):
        length, right, bottom, left, top, across, down, count = struct.unpack(">H2x6I8xH", found[1])
        if length != 38 + 3 * count:
            continue  # compressed data that looks like a header
        width, height, bands = max(width, right - left), max(height, bottom - top), max(bands, count)
        tiles = max(tiles, (width // max(across, 1) + 1) * (height // max(down, 1) + 1))
    if width * height > MAX_COSTLY_PIXELS:
        raise TooCostly(
            f"{width:,} × {height:,} pixels: at most {MAX_COSTLY_PIXELS:,} are accepted in JPEG 2000; "
            "cut it into tiles, or save it as TIFF"
        )
    blocks = 2 * tiles
    for found in J2K_COD.finditer(content):
        levels, *sides = (found[group][0] for group in (3, 4, 5))
        has_precincts = (found[1] or found[2])[0] & 1
        precincts = content[found.end() : found.end() + levels + 1] if has_precincts else b"\xff" * (levels + 1)
        for level, precinct in zip(range(levels, -1, -1), precincts, strict=False):
            most = (precinct & 15, precinct >> 4)
            across, down = (min(side + 2, size) for side, size in zip(sides, most, strict=True))
            blocks += ((width >> level + across) + 1) * ((height >> level + down) + 1)
        if blocks * bands > MAX_BLOCKS:
            break
    if blocks * bands > MAX_BLOCKS:
        raise TooCostly(f"the JPEG 2000 has more than {MAX_BLOCKS:,} blocks: save it with blocks of 64 × 64 pixels")


def check_exif(image: Image.Image) -> None:
    """Raise [`TooCostly`] if a decoded image has too much EXIF data. Pillow has not parsed it yet."""
    if any(len(image.info.get(name, "")) > MAX_EXIF_BYTES for name in ("exif", "Raw profile type exif")):
        raise TooCostly(f"its EXIF data has more than {MAX_EXIF_BYTES // 2**10} KiB: save it without metadata")


def open_encoded(encoded: bytes) -> Image.Image:
    """
    Open an image without decoding its pixels.

    Args:
        encoded (`bytes`): Content of an image file in one of `FORMATS`.

    Raises:
        [`UserError`]: The bytes are not an image in one of `FORMATS`; a JPEG has more than `MAX_SCANS` scans; one side
            is more than `MAX_RATIO` times the other; the image has over 179 million pixels (twice Pillow's
            `MAX_IMAGE_PIXELS`); or the file needs far more time or memory than its pixels (see [`check_cost`]).
    """
    if encoded.startswith(b"\xff\xd8") and sum(1 for _ in JPEG_SCAN.finditer(encoded)) > MAX_SCANS:
        raise UserError(f"the JPEG has more than {MAX_SCANS} scans")
    with user_errors(*IMAGE_ERRORS):
        try:
            image = Image.open(file := BoundedFile(encoded), formats=FORMATS)
        except UnidentifiedImageError as error:  # its own message has the address of an object
            raise UserError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
        check_cost(image, encoded)
    file.allow(MAX_PARTS, 2 * len(encoded) + MAX_HEADER_BYTES)
    check_size(*image.size)
    return image


def check_size(width: int, height: int) -> None:
    """Raise [`UserError`] if an image has too many pixels, or one side is over `MAX_RATIO` times the other."""
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UserError(f"{width:,} × {height:,} pixels: one side is over {MAX_RATIO} times the other")
    if width * height > 2 * Image.MAX_IMAGE_PIXELS:  # Pillow's own limit
        raise UserError(f"{width:,} × {height:,} pixels: at most {2 * Image.MAX_IMAGE_PIXELS:,} are accepted")


def load_pixels(encoded: bytes, draft_mode: str, short_side: int | None = None) -> Image.Image:
    """
    Open an image and decode its pixels.

    With `short_side`, the size in pixels that the caller needs, a JPEG may be decoded in `draft_mode` (`"RGB"` or
    `"L"`) at a half, a quarter or an eighth of its size, which is faster.

    Raises:
        [`TooManyBits`]: The image has more than 8 bits per channel, and Pillow keeps 8.
        [`UserError`]: See [`open_encoded`]; or the pixels are damaged.
    """
    image = open_encoded(encoded)
    with user_errors(*IMAGE_ERRORS):
        bits = bits_per_channel(image, encoded)
    if bits > 8 and image.mode[0] not in "IF":  # modes of 16 and 32 bits
        raise TooManyBits(f"{bits} bits per channel, of which Pillow keeps 8; {RESCALE}")
    with user_errors(*IMAGE_ERRORS):
        if short_side:
            image.draft(draft_mode, (short_side, short_side))
        image.load()
        check_exif(image)
    return image


def bits_per_channel(image: Image.Image, encoded: bytes) -> int:
    # Bits in the file. The mode does not show them: of color, Pillow keeps 8.
    if image.format == "PNG":
        return encoded[24]  # in the header
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # tag BitsPerSample
    if image.format == "JPEG2000":
        first = encoded.find(J2K_SIZE) + 42  # three bytes for each channel
        return 1 + max(depth & 127 for depth in encoded[first : first + 3 * len(image.getbands()) : 3])
    if image.format == "PPM" and image.mode == "RGB":
        arguments = image.tile[0].args  # of the decoder: raw mode and maximum, or the raw mode if the maximum is 255
        return arguments[1].bit_length() if isinstance(arguments, tuple) else 8
    return 8


def decode_rgb(encoded: bytes, short_side: int | None = None) -> Image.Image:
    """
    Decode an image to RGB with 8 bits per channel, see [`load_pixels`].

    Raises:
        [`UserError`]: The image cannot be loaded, has more bits per channel than Pillow keeps, or
            values of an unknown range.
    """
    from rsmclip.image_processing_rsmclip import as_image  # imports torch, which most commands do not need

    image = load_pixels(encoded, "RGB", short_side)
    with user_errors(ValueError):
        return as_image(image).convert("RGB")


def image_bytes(image: dict | None) -> bytes | None:
    """Return the encoded image of a row, from the row itself or from the file at its path; `None` if missing."""
    if image is None or image.get("bytes") is not None:
        return image and image["bytes"]
    if not image.get("path") or not os.path.isfile(image["path"]):
        return None
    path = Path(image["path"])
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
