"""Preprocessing of every kind of image, against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from rsmclip import RSMCLIPImageProcessor

MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture
def processor():
    return RSMCLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 53, 3), dtype=np.uint8)


def by_pillow(image: Image.Image) -> np.ndarray:
    # Pillow and numpy, with the crop rounded as in torchvision.
    width, height = image.size
    scale = 32 / min(width, height)
    size = (32, int(height * scale)) if width < height else (int(width * scale), 32)
    resized = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float64) / 255
    top, left = round((size[1] - 32) / 2), round((size[0] - 32) / 2)
    return ((resized[top : top + 32, left : left + 32] - MEAN) / STD).transpose(2, 0, 1)


def run(processor, image, **options) -> np.ndarray:
    found = processor(image, return_tensors="np", **options)["pixel_values"]
    assert found.shape == (1, 3, 32, 32) and found.dtype == np.float32
    return found[0]


@pytest.mark.parametrize("size", [(40, 53), (53, 40), (64, 64), (33, 47), (32, 35), (35, 32), (20, 90)])
def test_pixels_are_pillows(processor, size):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    np.testing.assert_allclose(run(processor, image), by_pillow(image), atol=1e-5)


def test_arrays_and_tensors_are_taken_like_images(processor, pixels):
    expected = run(processor, Image.fromarray(pixels))
    for image in (pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels), pixels.astype(np.int64)):
        np.testing.assert_array_equal(run(processor, image), expected)
    batch = processor(np.stack([pixels, pixels]), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(batch, np.stack([expected, expected]))


def test_floats_are_read_by_their_range(processor, pixels):
    expected = run(processor, pixels)
    np.testing.assert_array_equal(run(processor, pixels.astype(np.float32)), expected)
    unit = pixels.astype(np.float32) / 255
    np.testing.assert_array_equal(run(processor, unit), expected)
    unit[0, 0], unit[0, 1] = 1.0001, -1e-4  # the overshoot of resampling
    clipped = pixels.copy()
    clipped[0, 0], clipped[0, 1] = 255, 0
    np.testing.assert_array_equal(run(processor, unit), run(processor, clipped))


def test_a_caller_who_scales_the_values_is_believed(pixels):
    unit = pixels.astype(np.float32) / 255
    for options in ({"do_rescale": False}, {"rescale_factor": 1.0}):
        ours = RSMCLIPImageProcessor(do_resize=False, do_center_crop=False, do_normalize=False, **options)
        found = ours(unit, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(found, unit.transpose(2, 0, 1), atol=1e-6)


def test_paths_and_half_precision_are_taken(processor, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "image.png")
    expected = run(processor, pixels)
    for images in (str(tmp_path / "image.png"), [str(tmp_path / "image.png")]):
        np.testing.assert_array_equal(run(processor, images), expected)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    np.testing.assert_array_equal(run(processor, tensor.bfloat16()), expected)
    narrow = torch.from_numpy(pixels[:, :3]).permute(2, 0, 1)  # (3, 40, 3): a tensor's channels are first
    np.testing.assert_array_equal(run(processor, narrow), run(processor, Image.fromarray(pixels[:, :3])))


def test_16_bits_are_scaled_not_clipped(processor, pixels):
    wide = pixels.astype(np.uint16) * 257
    for image in (wide, wide.astype(">u2")):
        np.testing.assert_array_equal(run(processor, image), run(processor, pixels))
    gray = Image.fromarray(wide[..., 0])
    assert gray.mode == "I;16"
    np.testing.assert_array_equal(run(processor, gray), run(processor, Image.fromarray(pixels[..., 0])))


def test_gray_is_three_equal_channels(processor, pixels):
    expected = run(processor, Image.fromarray(pixels[..., 0]))
    np.testing.assert_allclose(expected, by_pillow(Image.fromarray(pixels[..., 0])), atol=1e-5)
    for image in (pixels[..., 0], pixels[..., :1], torch.from_numpy(pixels[..., 0])):
        np.testing.assert_array_equal(run(processor, image), expected)


def test_transparent_pixels_become_white(processor, pixels):
    opaque, clear = (np.dstack([pixels, np.full((40, 53), alpha, np.uint8)]) for alpha in (255, 0))
    np.testing.assert_array_equal(run(processor, Image.fromarray(opaque)), run(processor, pixels))
    np.testing.assert_array_equal(run(processor, opaque), run(processor, pixels))
    np.testing.assert_array_equal(run(processor, Image.fromarray(clear)), run(processor, np.full_like(pixels, 255)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 3)])
def test_the_smallest_images_pass(processor, size, pixels):
    image = np.full((*size, 3), pixels[0, 0])
    expected = np.broadcast_to(((pixels[0, 0] / 255 - MEAN) / STD)[:, None, None], (3, 32, 32))
    for given in (image, Image.fromarray(image)):
        np.testing.assert_allclose(run(processor, given), expected, atol=1e-5)


def test_values_of_unknown_range_are_refused(processor):
    with pytest.raises(ValueError, match="int32 .*4000"):
        processor(np.linspace(0, 4000, 1600).reshape(40, 40).astype(np.int32))
    with pytest.raises(ValueError, match="nan"):
        processor(np.full((40, 40, 3), np.nan, dtype=np.float32))


RAMP = np.tile(np.linspace(0, 1, 32, dtype=np.float32)[:, None, None], (1, 32, 3))


def with_pixel(image: np.ndarray, value: float) -> np.ndarray:
    image = image.copy()
    image[0, 0] = value
    return image


@pytest.mark.parametrize(
    ("image", "low", "high"),
    [
        (RAMP * 2 - 1, "-1", "1"),
        (with_pixel(RAMP, 1.10), "0", "1.1"),
        (with_pixel(RAMP, -0.2), "-0.2", "1"),
        (with_pixel(RAMP, -9999), "-9999", "1"),
        (with_pixel(RAMP, np.inf), "0", "inf"),
        ((RAMP - MEAN) / STD, "-1.79", "2.14"),  # normalized: read as 0 to 255, it was black
        (RAMP * 30 - 25, "-25", "5"),  # decibels
        (RAMP * 268, "0", "268"),
        (with_pixel(RAMP * 100, -6), "-6", "100"),
        (with_pixel(RAMP * 255, -9).astype(np.int16), "-9", "255"),
        (RAMP * 1j, "complex", "64"),
    ],
)
def test_an_image_whose_range_is_unknown_is_refused_with_its_values(processor, image, low, high):
    for given in (image, torch.from_numpy(image)):
        with pytest.raises(ValueError, match=f"{low}.*{high}.*uint8"):
            processor(given, return_tensors="pt")


@pytest.mark.parametrize(
    ("image", "top"),
    [(RAMP * 1.05, 1), (RAMP - 0.05, 1), (RAMP * 2.1, 255), (with_pixel(RAMP * 255, -12), 255), (RAMP * 267, 255)],
)
def test_floats_at_the_edge_of_a_range_are_clipped_to_it(processor, image, top):
    expected = (image.astype(np.float64).clip(0, top) / top * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(run(processor, image), run(processor, expected))


LONG_SIDE = {"shortest_edge": 32, "longest_edge": 32}


def test_a_long_side_is_padded_with_black():
    processor = RSMCLIPImageProcessor(size=LONG_SIDE, crop_size={"height": 32, "width": 32})
    found = run(processor, Image.fromarray(np.full((20, 40, 3), 255, np.uint8)))
    black, white = -MEAN / STD, (1 - MEAN) / STD
    np.testing.assert_allclose(found[:, [0, 7, -1], 5].T, np.stack([black] * 3), atol=1e-5)
    np.testing.assert_allclose(found[:, [8, 23], 5].T, np.stack([white] * 2), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 31), (1, 64), (47, 90), (90, 47), (33, 64), (7, 100)])
def test_a_long_side_is_rounded_as_openclip_rounds_it(size):
    processor = RSMCLIPImageProcessor(size=LONG_SIDE, do_center_crop=False, do_normalize=False)
    found = processor(np.full((*size, 3), 255, np.uint8), return_tensors="np")["pixel_values"][0]
    ratio = max(size) / 32
    assert found.shape[1:] == tuple(max(1, round(side / ratio)) for side in size)
