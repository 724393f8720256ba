"""Rasters of remote sensing, read with rasterio: windows of scenes, and depths that Pillow does not read."""

import io
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import TiffImagePlugin

from rsmclip.core.errors import UserError, extra, user_errors
from rsmclip.core.images import IMAGE_ERRORS, MAX_HEADER_PARTS, Bounded, BoundedFile, check_blocks

if TYPE_CHECKING:
    from rasterio import DatasetReader

# Formats with pixels of their own. GDAL has others that name files and addresses to read.
DRIVERS = ["GTiff", "PNG", "JPEG", "JP2OpenJPEG", "WEBP", "GIF", "BMP", "PNM"]

MAX_SCENE_HEADER_BYTES = 2**26  # a scene may have a million tiles


class BoundedScene(Bounded, io.FileIO):
    """A file too large for memory, see [`Bounded`]."""


def import_rasterio():
    """Return the module `rasterio`. Raises [`UserError`] if it is not installed."""
    with extra("geo"):
        import rasterio.io
    return rasterio


@contextmanager
def open_raster(content: Path | bytes) -> Iterator["DatasetReader"]:
    """
    Open a file, or the content of one, without reading its pixels.

    Raises [`UserError`] if it cannot be opened, needs far more memory than its pixels, or has damaged pixels.
    """
    rasterio = import_rasterio()
    is_file = isinstance(content, Path)
    with user_errors(*IMAGE_ERRORS):
        check_header(BoundedScene(content) if is_file else BoundedFile(content))
        if not is_file:
            check_blocks(content)
    # `rasterio.open` takes one driver only. UnicodeError: a name that is not UTF-8.
    with (
        user_errors(rasterio.errors.RasterioError, OSError, UnicodeError),
        warnings.catch_warnings(),
        ExitStack() as files,
    ):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        files.enter_context(rasterio.Env())
        name = str(content) if is_file else files.enter_context(rasterio.io.MemoryFile(content)).name
        raster = files.enter_context(rasterio.io.DatasetReader(name, driver=DRIVERS, sharing=False))
        if any(height * width > max(raster.height * raster.width, 2**24) for height, width in raster.block_shapes):
            raise UserError("its tiles are larger than the picture")
        try:
            yield raster
        except rasterio.errors.RasterioIOError as error:  # "Read failed. See previous exception for details."
            raise UserError(" ".join(str(error.__cause__ or error).split())) from error


def check_header(file: Bounded) -> None:
    """Read the tags of all pictures of a TIFF, as GDAL does. Raises [`TooCostly`] if they name too many bytes."""
    with file:
        file.allow(MAX_HEADER_PARTS, MAX_SCENE_HEADER_BYTES)
        head = file.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return
        tags, seen = TiffImagePlugin.ImageFileDirectory_v2(head + (file.read(8) if b"+" in head[2:4] else b"")), set()
        while tags.next and tags.next not in seen:
            seen.add(tags.next)
            file.seek(tags.next)
            tags.load(file)


def picture_bands(raster: "DatasetReader", command: str = "gdal_translate") -> list[int]:
    """
    Return the bands to read: gray, palette or red, green and blue, with alpha.

    Raises [`UserError`] for others. `command` begins the command that chooses three bands.
    """
    names = [color.name for color in raster.colorinterp]
    bands = [names.index(color) + 1 for color in ("red", "green", "blue") if color in names]
    if len(bands) < 3:
        bands = [1] if set(names[1:]) <= {"alpha"} else []
    if not bands:
        raise UserError(
            f"none of its {raster.count} bands is marked as red, green and blue: "
            f"choose three with {command} -b 3 -b 2 -b 1 -colorinterp red,green,blue IN OUT"
        )
    return [*bands, names.index("alpha") + 1] if "alpha" in names else bands
