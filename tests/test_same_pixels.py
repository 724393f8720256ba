"""Build, training, evaluation, endpoint and image processor make the same pixels of a file."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from rasterio.enums import ColorInterp

from rsmclip import RSMCLIPImageProcessor
from rsmclip.core.errors import UserError
from rsmclip.core.images import FORMATS, decode_image, decode_rgb
from rsmclip.data.audit.same_picture import make_thumbnail
from rsmclip.data.faults import encode_image
from rsmclip.hub import handler
from rsmclip.hub.handler import open_image
from rsmclip.image_processing_rsmclip import as_image
from rsmclip.training import batches
from tests.rasters import write_raster

RNG = np.random.default_rng(0)
RGBA = Image.fromarray(RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8))
PICTURES = {
    "bilevel": RGBA.convert("1"),
    "gray": RGBA.convert("L"),
    "gray, alpha": RGBA.convert("LA"),
    "palette": RGBA.convert("RGB").convert("P"),
    "palette, alpha": RGBA.convert("PA"),
    "RGB": RGBA.convert("RGB"),
    "RGB, alpha": RGBA,
    "CMYK": RGBA.convert("RGB").convert("CMYK"),
    "gray, 16 bits": Image.fromarray(RNG.integers(0, 2**16, (20, 30), dtype=np.uint16)),
}
OPTIONS = {
    "": {},
    "one color is transparent": {"transparency": 5},
    "premultiplied": {"tiffinfo": {338: 1}},
    "turned": {"tiffinfo": {274: 6}},
}


def encode(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def cases():
    writable = {
        "JPEG": ["gray", "RGB", "CMYK"],
        "PNG": ["bilevel", "gray", "gray, alpha", "palette", "RGB", "RGB, alpha", "gray, 16 bits"],
        "TIFF": [*PICTURES],
        "WEBP": ["RGB", "RGB, alpha", "gray, alpha"],
        "GIF": ["bilevel", "gray", "palette", "RGB, alpha"],
        "BMP": ["bilevel", "gray", "palette", "RGB", "RGB, alpha"],
        "JPEG2000": ["gray", "gray, alpha", "RGB", "RGB, alpha", "gray, 16 bits"],
        "PPM": ["bilevel", "gray", "RGB", "gray, 16 bits"],
    }
    assert set(writable) == set(FORMATS)
    for image_format, kinds in writable.items():
        yield from ((image_format, kind, "") for kind in kinds)
    yield from ((each, kind, "one color is transparent") for each in ("PNG", "GIF") for kind in ("gray", "palette"))
    yield from (("TIFF", "RGB, alpha", option) for option in ("premultiplied", "turned"))


def by_processor(encoded: bytes) -> np.ndarray:
    processor = RSMCLIPImageProcessor(do_resize=False, do_center_crop=False, do_normalize=False)
    pixels = processor(Image.open(io.BytesIO(encoded)), return_tensors="np")["pixel_values"][0]
    return (pixels * 255).round().astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize(("image_format", "kind", "option"), [*cases()])
def test_every_reader_makes_the_pixels_of_the_processor(image_format, kind, option):
    encoded = encode(PICTURES[kind], image_format, **OPTIONS[option])
    expected = by_processor(encoded)
    found = {
        "evaluation": decode_image({"bytes": encoded, "path": None}, "a/b"),
        "training": batches.decode_image(encoded, 999).permute(1, 2, 0),
    }
    if image_format in handler.FORMATS:
        found["endpoint"] = open_image(encoded)
    if "16" not in kind:  # refused by build, because a corpus has 8 bits per channel
        stored = encode_image(encoded)
        found |= {"corpus": decode_rgb(stored), "processor on a corpus": by_processor(stored)}
    for reader, pixels in found.items():
        np.testing.assert_array_equal(pixels, expected, err_msg=reader)
    if "alpha" in kind and image_format != "BMP":
        hidden = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        assert np.abs(expected.astype(int) - hidden).max() > 50  # white, not what is under the alpha


SENSOR = RNG.integers(0, 3000, (20, 30, 4), dtype=np.uint16)
WITH_ALPHA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
DEEP = {
    "TIFF": write_raster(SENSOR[..., :3]),
    "TIFF, four bands": write_raster(SENSOR, [*WITH_ALPHA[:3], ColorInterp.undefined]),
    "TIFF, band by band": write_raster(SENSOR[..., :3], interleave="band"),
    "TIFF, compressed": write_raster(SENSOR[..., :3], compress="deflate", predictor=2),
    "PNG": write_raster(SENSOR[..., :3], driver="PNG"),
    "PNG, alpha": write_raster(SENSOR, WITH_ALPHA, driver="PNG"),
    "PNG, gray and alpha": write_raster(SENSOR[..., :2], [ColorInterp.gray, ColorInterp.alpha], driver="PNG"),
    "JPEG2000": write_raster(SENSOR[..., :3], driver="JP2OpenJPEG"),
    "JPEG2000, gray of 9 bits": write_raster(SENSOR[..., :1] % 512, driver="JP2OpenJPEG", NBITS="9"),
    "PPM": write_raster(SENSOR[..., :3], driver="PNM"),
}


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
def test_more_bits_than_pillow_keeps_are_refused_with_the_command_that_rescales(content):
    """The numbers of a sensor would be black in the upper 8 bits."""
    for read in (encode_image, make_thumbnail):
        with pytest.raises(UserError, match=r"gdal_translate -ot Byte -scale IN OUT.*--stretch 2 98"):
            read(content)
    for read in (decode_rgb, lambda content: batches.decode_image(content, 9)):
        with pytest.raises(UserError, match=r"gdal_translate -ot Byte -scale IN OUT$"):  # an index needs no corpus
            read(content)
    with pytest.raises(handler.InputError, match="gdal_translate" if content[:1] != b"P" else "formats"):
        open_image(content)
    image = Image.open(io.BytesIO(content))
    if image.format in ("TIFF", "PNG"):  # Pillow shows the depth of an image that is not yet loaded
        with pytest.raises(handler.InputError, match="gdal_translate"):
            handler.read_image(image)
        with pytest.raises(ValueError, match="gdal_translate"):
            by_processor(content)
    image.load()
    if image.format == "TIFF":  # and keeps the tags
        with pytest.raises(ValueError, match="gdal_translate"):
            as_image(image)


@pytest.mark.parametrize("driver", ["GTiff", "PNG", "JP2OpenJPEG", "PNM"])
def test_gray_of_16_bits_is_refused_if_it_would_be_black(driver):
    darkest = np.full((20, 30, 1), 2**14, np.uint16)
    assert np.asarray(decode_rgb(write_raster(darkest, driver=driver))).max() == 64
    content = write_raster(darkest - 1, driver=driver)
    for read in (decode_rgb, lambda content: batches.decode_image(content, 9), by_processor):
        with pytest.raises(ValueError, match=r"1638\d.*gdal_translate"):
            read(content)
    if driver != "PNM":
        with pytest.raises(handler.InputError, match=r"1638\d.*gdal_translate"):
            open_image(content)


def test_arrays_of_16_bits_are_refused_if_they_would_be_black():
    for pixels in (SENSOR[..., :3], SENSOR[..., 0], torch.from_numpy(SENSOR[..., :3]), SENSOR.astype(">u2")):
        with pytest.raises(ValueError, match=r"299\d"):
            as_image(pixels)
    assert np.asarray(as_image(SENSOR[..., :3] * 20)).max() == SENSOR[..., :3].max() * 20 // 256


def test_a_bmp_of_16_bits_per_pixel_has_5_bits_per_channel():
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + 8, 0, 0, 54, 40, 2, 2, 1, 16, 0, 8, 0, 0, 0, 0)
    content = header + struct.pack("<4H", *[0x7C00] * 4)
    assert decode_rgb(content).getpixel((0, 0)) == open_image(content).getpixel((0, 0)) == (255, 0, 0)
