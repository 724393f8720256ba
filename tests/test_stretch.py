"""Images of more than 8 bits per channel are stretched between percentiles; 8-bit images are kept."""

import io
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.enums import ColorInterp

from rsmclip.benchmarks import fuzz_images
from rsmclip.core import images
from rsmclip.core.errors import UserError
from rsmclip.core.rasters import open_raster
from rsmclip.data.faults import encode_image
from rsmclip.data.stretch import stretch_to_8_bit
from tests.rasters import write_raster

RNG = np.random.default_rng(0)
SENSOR = RNG.integers(0, 3000, (20, 30, 3), dtype=np.uint16)


def stretched(pixels: np.ndarray, low: float = 2, high: float = 98, **options) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stretch_to_8_bit(write_raster(pixels, **options), low, high))))


def by_definition(values: np.ndarray, known: np.ndarray | None = None, low: float = 2, high: float = 98) -> np.ndarray:
    dark, bright = np.percentile(values if known is None else values[known], (low, high))
    return np.interp(values.astype(np.float64), (dark, bright), (0, 255)).round()


@pytest.mark.parametrize("driver", ["GTiff", "PNG", "JP2OpenJPEG", "PNM"])
@pytest.mark.parametrize("bands", [1, 3])
def test_the_percentiles_of_all_bands_together_become_black_and_white(driver, bands):
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    found = stretched(SENSOR[..., :bands], driver=driver, **options)
    np.testing.assert_allclose(found, by_definition(SENSOR[..., :bands].squeeze()), atol=1)
    assert found.min() == 0 and found.max() == 255


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_values_of_any_type_are_stretched(dtype):
    values = (SENSOR - 1000.0).astype(dtype)
    np.testing.assert_allclose(stretched(values), by_definition(values), atol=1)
    np.testing.assert_allclose(stretched(values, 0, 100), by_definition(values, low=0, high=100), atol=1)


def test_pixels_without_data_do_not_count():
    values = SENSOR.astype(np.float32)
    values[:5], values[5, 0] = -9999, np.nan
    known = np.ones(values.shape, bool)
    known[:5], known[5, 0] = False, False
    found = stretched(values, nodata=-9999)
    np.testing.assert_allclose(found[known], by_definition(values, known)[known], atol=1)
    assert not found[~known].any()


def test_alpha_is_kept_and_other_bands_are_left_out():
    alpha = np.full((20, 30, 1), 65535, np.uint16)
    alpha[:5] = 0
    red_to_alpha = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    found = stretched(np.dstack([SENSOR, alpha]), colors=red_to_alpha)
    assert found.shape == (20, 30, 4) and not found[:5, :, 3].any() and (found[5:, :, 3] == 255).all()
    np.testing.assert_allclose(found[5:, :, :3], by_definition(SENSOR[5:]), atol=1)
    infrared = [*red_to_alpha[:3], ColorInterp.undefined]
    np.testing.assert_array_equal(stretched(np.dstack([SENSOR, alpha]), colors=infrared), stretched(SENSOR))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "PPM"])
def test_images_of_8_bits_are_stored_as_without_the_option(image_format):
    Image.fromarray((SENSOR % 100).astype(np.uint8)).save(buffer := io.BytesIO(), image_format)
    assert encode_image(buffer.getvalue(), (2, 98)) == encode_image(buffer.getvalue())


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((9, 9, 3), 700, np.uint16), "no contrast.*700"),
        (np.full((9, 9, 1), np.nan, np.float32), "no contrast.*nan"),
        (np.resize([-1e308, 1e308], (9, 9, 1)), "no contrast"),
        (np.ones((9, 9, 1), np.complex64), "complex64"),
        (np.ones((9, 9, 13), np.uint16), "13 bands.*gdal_translate"),
        (np.ones((1, 51, 1), np.uint16), "50 times"),
    ],
)
def test_what_cannot_be_stretched_is_a_fault_of_its_kind(pixels, reason):
    with pytest.raises(UserError, match=f"^image not stretched: .*{reason}"):
        encode_image(write_raster(pixels), (2, 98))


def test_a_damaged_or_huge_image_is_refused(monkeypatch):
    content = write_raster(SENSOR)
    for damaged in (content[:8], content[: len(content) // 2]):
        with pytest.raises(UserError, match="image not stretched"):
            encode_image(damaged, (2, 98))
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 299)
    with pytest.raises(UserError, match="598"):
        encode_image(content, (2, 98))


def second_page() -> bytes:
    """A TIFF whose second page has 3,000 tags of the same bytes. GDAL looks at all pages."""
    first, second = fuzz_images.tiff(fuzz_images.picture_tags(8)), next(fuzz_images.tiff_tags(random.Random(0), 3_000))
    return first[:-4] + struct.pack("<I", len(first)) + second[8:]


COSTLY = {
    "tags": (lambda: next(fuzz_images.tiff_tags(random.Random(0), 3_000)), "metadata"),
    "second page": (second_page, "metadata"),
    "tile": (lambda: [*fuzz_images.tiff_tiles(random.Random(0), 9)][1], "tiles"),
}


@pytest.mark.parametrize(("make", "reason"), COSTLY.values(), ids=COSTLY)
def test_a_small_raster_that_takes_gigabytes_is_not_opened(tmp_path, make, reason):
    content = make()
    (tmp_path / "a.tif").write_bytes(content)
    for raster in (content, Path(tmp_path / "a.tif")):
        with pytest.raises(UserError, match=reason), open_raster(raster):
            pytest.fail("it was opened")
    with pytest.raises(UserError, match=reason):
        encode_image(content, (2, 98))


def test_small_blocks_and_chunks_are_refused_before_gdal_reads_them():
    for content, reason in (
        (fuzz_images.j2k(5_000, 5_000, block=2), "blocks"),
        (fuzz_images.png(*[(b"iCCP", b"k\0\0" + fuzz_images.zeros(2**19))] * 1_000), "metadata"),
    ):
        with pytest.raises(UserError, match=reason):
            stretch_to_8_bit(content, 2, 98)


def test_the_tags_of_a_file_of_many_pages_are_accepted():
    pages = [Image.fromarray(SENSOR[..., band] << 4) for band in range(3)] * 20
    pages[0].save(buffer := io.BytesIO(), "TIFF", save_all=True, append_images=pages[1:])
    assert stretch_to_8_bit(buffer.getvalue(), 2, 98)
