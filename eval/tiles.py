"""Tiles of large scenes, read in windows with rasterio: no scene is ever read whole."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rsmclip.core.errors import UserError, extra, user_errors

if TYPE_CHECKING:
    from rasterio import DatasetReader

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

# Formats with pixels of their own. GDAL has others that name files and addresses to read.
DRIVERS = ["GTiff", "PNG", "JPEG", "JP2OpenJPEG", "WEBP", "GIF", "BMP", "PNM"]


def tile_boxes(width: int, height: int, tile: int, stride: int) -> list[Box]:
    """
    Return the boxes of the tiles of an image, row by row. The last tile of a row or column ends at the edge.

    A side that is shorter than `tile` has one tile of its own length.
    """
    columns, rows = ([*range(0, max(side - tile, 0), stride), max(side - tile, 0)] for side in (width, height))
    return [(left, top, min(left + tile, width), min(top + tile, height)) for top in rows for left in columns]


def import_rasterio():
    """Return the module `rasterio`. Raises [`UserError`] if it is not installed."""
    with extra("geo"):
        import rasterio.io
    return rasterio


@contextmanager
def open_scene(path: Path) -> Iterator["DatasetReader"]:
    """Open a scene without reading its pixels. Raises [`UserError`] if the scene cannot be opened or read."""
    rasterio = import_rasterio()
    # `rasterio.open` takes one driver only. UnicodeError: a name that is not UTF-8.
    with user_errors(rasterio.errors.RasterioError, OSError, UnicodeError), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.Env(), rasterio.io.DatasetReader(str(path), driver=DRIVERS, sharing=False) as scene:
            yield scene


def scene_size(path: Path) -> tuple[int, int]:
    """Return width and height of a scene in pixels. Raises [`UserError`] if its bands are not a picture."""
    with open_scene(path) as scene:
        picture_bands(scene)
        return scene.width, scene.height


def read_tiles(path: Path, boxes: Sequence[Box]) -> list[Image.Image]:
    """
    Read tiles of one row of a scene.

    Args:
        path (`Path`): File of the scene.
        boxes (`Sequence[Box]`): Boxes with the same top and bottom. The strip from the first to the last is read.

    Returns:
        `list[PIL.Image.Image]`: RGB images.

    Raises:
        [`UserError`]: The pixels cannot be read, or the bands are not a picture.
    """
    from rsmclip.image_processing_rsmclip import as_image

    left, top, right, bottom = boxes[0][0], boxes[0][1], boxes[-1][2], boxes[0][3]
    with open_scene(path) as scene:
        bands = picture_bands(scene)
        pixels = scene.read(bands, window=((top, bottom), (left, right)))
        colors = scene.colormap(1) if len(bands) == 1 and has_colormap(scene) else None
    if colors:
        table = np.array([colors.get(value, (0, 0, 0, 255)) for value in range(256)], np.uint8)
        pixels = table[pixels[0]].transpose(2, 0, 1)
    pixels = pixels.transpose(1, 2, 0) if len(pixels) > 1 else pixels[0]
    if pixels.shape[2:] == (2,):  # gray and alpha
        pixels = pixels[:, :, [0, 0, 0, 1]]
    with user_errors(ValueError):
        parts = [as_image(pixels[:, begin - left : end - left], "channels_last") for begin, _, end, _ in boxes]
    return [part.convert("RGB") for part in parts]


def has_colormap(scene: "DatasetReader") -> bool:
    return scene.colorinterp[0].name == "palette"


def picture_bands(scene: "DatasetReader") -> list[int]:
    """Return the bands to read: gray, palette or red, green and blue, with alpha. Raises [`UserError`] for others."""
    names = [color.name for color in scene.colorinterp]
    bands = [names.index(color) + 1 for color in ("red", "green", "blue") if color in names]
    if len(bands) < 3:
        bands = [1] if set(names[1:]) <= {"alpha"} else []
    if not bands:
        raise UserError(
            f"none of its {scene.count} bands is marked as red, green and blue: "
            "choose three with gdal_translate -b 3 -b 2 -b 1 -colorinterp red,green,blue IN OUT"
        )
    types = {scene.dtypes[band - 1] for band in bands}
    if types != {"uint8"} and (types, len(bands)) != ({"uint16"}, 1):
        raise UserError(
            f"its pixels are {', '.join(sorted(types))}, not 8-bit: rescale with gdal_translate -ot Byte -scale IN OUT"
        )
    has_alpha = "alpha" in names and types == {"uint8"}
    return [*bands, names.index("alpha") + 1] if has_alpha else bands


def tile_coordinates(path: Path, boxes: Sequence[Box]) -> list[list[float]] | None:
    """Return longitude and latitude (WGS84, degrees) of the center of each box, `None` without georeference."""
    import_rasterio()
    from rasterio.warp import transform

    with open_scene(path) as scene:
        if scene.crs is None or scene.transform.is_identity:
            return None
        left, top, right, bottom = np.array(boxes).T
        centers = scene.xy((top + bottom) / 2, (left + right) / 2, offset="ul")
        points = transform(scene.crs, "EPSG:4326", *centers)
    found = np.array(points).T
    return found.round(7).tolist() if np.isfinite(found).all() else None
