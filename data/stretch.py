"""Images of more than 8 bits per channel, stretched to 8 bits (`rsmclip data build --stretch`)."""

import io
import re

import numpy as np
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.images import check_size, open_encoded
from rsmclip.core.rasters import import_rasterio, open_raster, picture_bands

# First bytes of the formats that may have more than 8 bits per channel: TIFF, PNG, JPEG 2000, PPM.
DEEP_FORMATS = re.compile(rb"II[*+]\0|MM\0[*+]|\x89PNG|\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[56]\s")


def check_stretch(low: float, high: float) -> None:
    """Raise [`UserError`] if images cannot be stretched between these percentiles, or not on this machine."""
    if not 0 <= low < high <= 100:
        raise UserError(f"--stretch needs two percentiles from 0 to 100, the lower one first, not {low:g} {high:g}")
    import_rasterio()


def stretch_to_8_bit(encoded: bytes, low: float, high: float) -> bytes | None:
    """
    Stretch the values between two percentiles to 8 bits.

    The percentiles are those of all color bands together, so colors keep their hue. Pixels without data do not count
    and become black. An alpha band is kept.

    Args:
        encoded (`bytes`): Content of an image file.
        low, high (`float`): Percentiles that become 0 and 255.

    Returns:
        `bytes`, *optional*: Content of a PNG; `None` if the image has 8 bits.

    Raises:
        [`UserError`]: The image cannot be read, its bands are not a picture, or both percentiles have the same value.
    """
    if not DEEP_FORMATS.match(encoded):
        return None
    if encoded.startswith(b"\x89PNG"):
        open_encoded(encoded)  # bounds the chunks, which GDAL would inflate
    with open_raster(encoded) as raster:
        if set(raster.dtypes) == {"uint8"}:
            return None
        check_size(raster.width, raster.height)
        if raster.dtypes[0].startswith("complex"):  # GDAL has complex integers too, which NumPy does not know
            raise UserError(f"its values are {raster.dtypes[0]}, not real numbers")
        bands = picture_bands(raster)
        colors = bands if len(bands) in (1, 3) else bands[:-1]
        pixels, has_data = raster.read(colors), raster.dataset_mask() > 0  # (bands, height, width), (height, width)

    known = np.isfinite(pixels) & has_data
    limits = np.percentile(pixels[known], [low, high]) if known.any() else (np.nan, np.nan)
    darkest, brightest = map(float, limits)
    if not 0 < brightest - darkest < np.inf:
        raise UserError(f"it has no contrast: percentiles {low:g} and {high:g} are {darkest:g} and {brightest:g}")
    scale = 255 / (brightest - darkest)
    values = [  # band by band, because the numbers are float64
        ((np.where(usable, band, darkest) - darkest) * scale).clip(0, 255).round().astype(np.uint8)
        for band, usable in zip(pixels, known, strict=True)
    ]
    image = Image.fromarray(values[0] if len(values) == 1 else np.stack(values, axis=-1))
    if len(bands) > len(colors):
        image.putalpha(Image.fromarray(has_data.astype(np.uint8) * 255))
    image.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()
