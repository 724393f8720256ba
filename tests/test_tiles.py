"""Boxes of tiles, and windows of scenes against the whole picture read with Pillow."""

import sys
import warnings

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from rsmclip.core.errors import UserError
from rsmclip.core.images import decode_rgb
from rsmclip.eval.tiles import read_tiles, scene_size, tile_boxes, tile_coordinates


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (150, 210, 4), dtype=np.uint8)


def write_scene(path, pixels, **options):
    # `pixels`: (height, width, bands)
    options = {"driver": "GTiff", "dtype": str(pixels.dtype), "count": pixels.shape[2]} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **options) as scene:
            scene.write(pixels.transpose(2, 0, 1))
    return path


@pytest.mark.parametrize(
    ("width", "height", "tile", "stride"), [(210, 150, 64, 48), (64, 64, 64, 64), (65, 300, 64, 9)]
)
def test_tiles_cover_every_pixel_and_the_last_ones_end_at_the_edges(width, height, tile, stride):
    boxes = tile_boxes(width, height, tile, stride)
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        assert (right - left, bottom - top) == (tile, tile) and left >= 0 and top >= 0
        seen[top:bottom, left:right] = True
    assert seen.all() and boxes[-1][2:] == (width, height) and len(set(boxes)) == len(boxes)
    assert {left for left, *_ in boxes[:-1]} - {width - tile} <= set(range(0, width, stride))


def test_an_image_smaller_than_a_tile_is_one_tile():
    assert tile_boxes(40, 30, 64, 48) == [(0, 0, 40, 30)]
    assert tile_boxes(100, 30, 64, 64) == [(0, 0, 64, 30), (36, 0, 100, 30)]


@pytest.mark.parametrize("kind", ["rgb.tif", "rgba.tif", "gray.tif", "rgb.png", "rgba.png", "palette.png"])
def test_a_tile_equals_the_box_of_the_whole_picture(tmp_path, pixels, kind):
    path = tmp_path / kind
    if kind == "palette.png":
        Image.fromarray(pixels[:, :, :3]).quantize(200).save(path)
    else:
        mode = {"rgb": slice(3), "rgba": slice(4), "gray": 0}[kind.partition(".")[0]]
        Image.fromarray(pixels[:, :, mode]).save(path)
    assert scene_size(path) == (210, 150)
    whole = decode_rgb(path.read_bytes())
    for boxes in ([(0, 0, 64, 64), (48, 0, 112, 64)], [(146, 86, 210, 150)]):
        for tile, box in zip(read_tiles(path, boxes), boxes, strict=True):
            assert tile.mode == "RGB" and tile.tobytes() == whole.crop(box).tobytes()


def test_coordinates_are_longitude_and_latitude_of_the_center(tmp_path, pixels):
    # 500,000 m east is the central meridian of a UTM zone: 15° in zone 33. On it, the scale is 0.9996.
    place = {"crs": "EPSG:32633", "transform": from_origin(499_000, 5_000_000, 10, 10)}
    path = write_scene(tmp_path / "utm.tif", pixels[:, :, :3], photometric="RGB", **place)
    (left, upper), (_, lower) = tile_coordinates(path, [(90, 0, 110, 2), (90, 100, 110, 102)])
    assert left == pytest.approx(15, abs=1e-6) and upper == pytest.approx(45.153, abs=0.01)
    meters = (upper - lower) * 111_140  # of a degree of latitude at 45°
    assert meters == pytest.approx(1000, rel=0.002)
    degrees = {"crs": "EPSG:4326", "transform": from_origin(10, 50, 0.1, 0.1)}
    path = write_scene(tmp_path / "degrees.tif", pixels[:, :, :3], photometric="RGB", **degrees)
    assert tile_coordinates(path, [(0, 0, 20, 10)]) == [[11, 49.5]]


def test_a_picture_without_georeference_has_no_coordinates(tmp_path, pixels):
    assert tile_coordinates(write_scene(tmp_path / "a.tif", pixels[:, :, :3]), [(0, 0, 9, 9)]) is None


@pytest.mark.parametrize(
    ("bands", "dtype", "culprit"),
    [
        *[(13, "uint8", "13 bands"), (2, "uint8", "2 bands")],
        *[(3, "uint16", "uint16"), (1, "uint16", "uint16"), (1, "float32", "float32")],
    ],
)
def test_bands_that_are_not_a_picture_are_refused_with_the_command_that_helps(tmp_path, bands, dtype, culprit):
    options = {"photometric": "RGB"} if bands == 3 else {"photometric": "MINISBLACK"}
    path = write_scene(tmp_path / "a.tif", np.ones((20, 30, bands), dtype), **options)
    for call in (scene_size, lambda path: read_tiles(path, [(0, 0, 9, 9)])):
        with pytest.raises(UserError, match=f"{culprit}.*gdal_translate"):
            call(path)


def test_bands_of_16_bits_are_chosen_and_scaled_by_one_command(tmp_path):
    path = write_scene(tmp_path / "a.tif", np.ones((20, 30, 4), np.uint16), photometric="MINISBLACK")
    with pytest.raises(UserError, match="gdal_translate -ot Byte -scale -b 3"):
        scene_size(path)


def test_a_file_that_names_another_file_is_not_opened(tmp_path, pixels):
    scene = write_scene(tmp_path / "secret.tif", pixels[:, :, :3])
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{scene}</SourceFilename>'
    vrt = f'<VRTDataset rasterXSize="210" rasterYSize="150">{band}</SimpleSource></VRTRasterBand></VRTDataset>'
    (tmp_path / "a.tif").write_text(vrt)
    with pytest.raises(UserError):
        scene_size(tmp_path / "a.tif")


def test_damaged_scenes_are_errors(tmp_path, pixels):
    path = write_scene(tmp_path / "a.tif", pixels[:, :, :3], tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(UserError, match="band"):  # the cause, not "see previous exception"
        for top in (0, 86):
            read_tiles(path, [(0, top, 210, top + 64)])
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError):
        scene_size(tmp_path / "b.png")


def test_without_rasterio_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UserError, match=r"\[geo\]"):
        scene_size(tmp_path / "a.tif")
