"""Files of more than 8 bits per channel, which Pillow does not write."""

import warnings
from collections.abc import Sequence

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

SUFFIXES = {"GTiff": ".tif", "PNG": ".png", "JP2OpenJPEG": ".jp2", "PNM": ".ppm"}


def write_raster(pixels: np.ndarray, colors: Sequence[ColorInterp] = (), driver: str = "GTiff", **options) -> bytes:
    """Encode `(height, width, bands)`. Three bands are red, green and blue."""
    height, width, bands = pixels.shape
    profile = {"driver": driver, "height": height, "width": width, "count": bands, "dtype": str(pixels.dtype)}
    if driver == "GTiff":
        profile["photometric"] = "RGB" if bands == 3 or colors else "MINISBLACK"
    with warnings.catch_warnings(), MemoryFile(ext=SUFFIXES[driver]) as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(**profile, **options) as raster:
            if colors or bands == 3:
                raster.colorinterp = colors or (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            raster.write(pixels.transpose(2, 0, 1))
        return file.read()
