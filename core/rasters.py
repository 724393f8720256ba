"""Rasters of remote sensing, read with rasterio: windows of scenes, and depths that Pillow does not read."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rsmclip.core.errors import UserError, extra, user_errors

if TYPE_CHECKING:
    from rasterio import DatasetReader

# Formats with pixels of their own. GDAL has others that name files and addresses to read.
DRIVERS = ["GTiff", "PNG", "JPEG", "JP2OpenJPEG", "WEBP", "GIF", "BMP", "PNM"]


def import_rasterio():
    """Return the module `rasterio`. Raises [`UserError`] if it is not installed."""
    with extra("geo"):
        import rasterio.io
    return rasterio


@contextmanager
def open_raster(content: Path | bytes) -> Iterator["DatasetReader"]:
    """
    Open a file, or the content of one, without reading its pixels.

    Raises [`UserError`] if it cannot be opened, or if its pixels cannot be read.
    """
    rasterio = import_rasterio()
    # `rasterio.open` takes one driver only. UnicodeError: a name that is not UTF-8.
    with (
        user_errors(rasterio.errors.RasterioError, OSError, UnicodeError),
        warnings.catch_warnings(),
        ExitStack() as files,
    ):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        files.enter_context(rasterio.Env())
        is_file = isinstance(content, Path)
        name = str(content) if is_file else files.enter_context(rasterio.io.MemoryFile(content)).name
        raster = files.enter_context(rasterio.io.DatasetReader(name, driver=DRIVERS, sharing=False))
        try:
            yield raster
        except rasterio.errors.RasterioIOError as error:  # "Read failed. See previous exception for details."
            raise UserError(" ".join(str(error.__cause__ or error).split())) from error


def picture_bands(raster: "DatasetReader") -> list[int]:
    """Return the bands to read: gray, palette or red, green and blue, with alpha. Raises [`UserError`] for others."""
    names = [color.name for color in raster.colorinterp]
    bands = [names.index(color) + 1 for color in ("red", "green", "blue") if color in names]
    if len(bands) < 3:
        bands = [1] if set(names[1:]) <= {"alpha"} else []
    if not bands:
        raise UserError(
            f"none of its {raster.count} bands is marked as red, green and blue: "
            "choose three with gdal_translate -b 3 -b 2 -b 1 -colorinterp red,green,blue IN OUT"
        )
    return [*bands, names.index("alpha") + 1] if "alpha" in names else bands
