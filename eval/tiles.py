"""Tiles of large scenes, read in windows with rasterio: no scene is ever read whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.rasters import import_rasterio, open_raster, picture_bands

if TYPE_CHECKING:
    from rasterio import DatasetReader

TO_8_BITS = "gdal_translate -ot Byte -scale"

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def tile_boxes(width: int, height: int, tile: int, stride: int) -> list[Box]:
    """
    Return the boxes of the tiles of an image, row by row. The last tile of a row or column ends at the edge.

    A side that is shorter than `tile` has one tile of its own length.
    """
    columns, rows = ([*range(0, max(side - tile, 0), stride), max(side - tile, 0)] for side in (width, height))
    return [(left, top, min(left + tile, width), min(top + tile, height)) for top in rows for left in columns]


def scene_size(path: Path) -> tuple[int, int]:
    """Return width and height of a scene in pixels. Raises [`UserError`] if its bands are not a picture."""
    with open_raster(path) as scene:
        scene_bands(scene)
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
    with open_raster(path) as scene:
        bands = scene_bands(scene)
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


def scene_bands(scene: "DatasetReader") -> list[int]:
    bands = picture_bands(scene, "gdal_translate" if set(scene.dtypes) == {"uint8"} else TO_8_BITS)
    types = {scene.dtypes[band - 1] for band in bands}
    if types != {"uint8"}:
        raise UserError(f"its pixels are {', '.join(sorted(types))}, not 8-bit: rescale with {TO_8_BITS} IN OUT")
    return bands


def tile_coordinates(path: Path, boxes: Sequence[Box]) -> list[list[float]] | None:
    """Return longitude and latitude (WGS84, degrees) of the center of each box, `None` without georeference."""
    import_rasterio()
    from rasterio.warp import transform

    with open_raster(path) as scene:
        if scene.crs is None or scene.transform.is_identity:
            return None
        left, top, right, bottom = np.array(boxes).T
        centers = scene.xy((top + bottom) / 2, (left + right) / 2, offset="ul")
        points = transform(scene.crs, "EPSG:4326", *centers)
    found = np.array(points).T
    return found.round(7).tolist() if np.isfinite(found).all() else None
