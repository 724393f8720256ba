"""Views are compared with Pillow and scipy, and draws depend on the generator only."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter

from rsmclip.training.views import ViewSpec, adjust_color, blur, crop_and_resize, draw_views, render_views


@pytest.fixture
def picture() -> Image.Image:
    """A picture with smooth parts and hard edges, not square."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.array(small.resize((60, 44), Image.Resampling.BICUBIC))
    pixels[10:20, 15:40] = (255, 0, 30)
    return Image.fromarray(pixels)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def error(rendered: torch.Tensor, expected: Image.Image) -> float:
    return (rendered * 255 - as_tensor(expected).float()).abs().max().item()


def crop(picture: Image.Image, box: tuple, size: int) -> Image.Image:
    top, left, height, width = box
    expected = picture.crop((left, top, left + width, top + height))
    # One pass a call, because the order of the passes differs between versions of Pillow.
    expected = expected.resize((size, expected.height), Image.Resampling.BICUBIC)
    return expected.resize((size, size), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("box", [(0, 0, 44, 60), (5, 7, 30, 31), (20, 30, 8, 9), (43, 59, 1, 1), (0, 10, 44, 16)])
@pytest.mark.parametrize("size", [8, 32, 50])
def test_crop_and_resize_equals_pillow(picture, box, size):
    pixels, expected = as_tensor(picture)[None].float() / 255, crop(picture, box, size)
    for flip, turned in (
        ((0, 0), expected),
        ((1, 0), expected.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
        ((0, 1), expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    ):
        rendered = crop_and_resize(pixels, torch.tensor([box]).float(), torch.tensor([flip]), torch.zeros(1), size)
        assert error(rendered[0], turned) <= 1.5


def test_each_image_has_its_own_box_and_padding_is_never_seen(picture):
    padded = torch.zeros(2, 3, 70, 70, dtype=torch.uint8)
    padded[0, :, :44, :60] = as_tensor(picture)
    padded[1] = 255
    boxes = torch.tensor([[0, 0, 44, 60], [10, 20, 30, 30]]).float()
    rendered = crop_and_resize(padded.float() / 255, boxes, torch.zeros(2, 2), torch.zeros(2), 24)
    assert error(rendered[0], picture.resize((24, 24), Image.Resampling.BICUBIC)) <= 1.5
    torch.testing.assert_close(rendered[1], torch.ones(3, 24, 24))


def test_color_equals_pillow(picture):
    pixels = as_tensor(picture)[None].float() / 255
    for column, enhance in enumerate((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)):
        for factor in (0.6, 1.4):
            color = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
            color[0, column] = factor
            rendered = adjust_color(pixels, color, torch.zeros(1))
            assert error(rendered[0], enhance(picture).enhance(factor)) <= 2
    soft = Image.fromarray((np.array(picture) * 0.3 + 80).astype(np.uint8))  # nothing to clip
    expected = ImageEnhance.Contrast(ImageEnhance.Brightness(soft).enhance(1.2)).enhance(0.7)
    changed = adjust_color(as_tensor(soft)[None].float() / 255, torch.tensor([[1.2, 0.7, 1.3, 0.0]]), torch.zeros(1))
    assert error(changed[0], ImageEnhance.Color(expected).enhance(1.3)) <= 3  # Pillow rounds three times
    gray = adjust_color(pixels, torch.tensor([[1.0, 1.0, 1.3, 0.0]]), torch.ones(1))
    assert error(gray[0], picture.convert("L").convert("RGB")) <= 1


def test_hue_turns_colors_and_keeps_luma_and_gray(picture):
    pixels = as_tensor(picture)[None].float() / 255 * 0.4 + 0.3
    luma = torch.tensor([0.299, 0.587, 0.114])

    def turn(pixels, angle):
        return adjust_color(pixels, torch.tensor([[1.0, 1.0, 1.0, angle]]), torch.zeros(1))

    turned = turn(pixels, 0.3)
    assert (turned - pixels).abs().max() > 0.02
    torch.testing.assert_close((turned[0].permute(1, 2, 0) @ luma), (pixels[0].permute(1, 2, 0) @ luma))
    gray = pixels.mean(dim=1, keepdim=True).expand_as(pixels)
    torch.testing.assert_close(turn(gray, 1.0), gray, atol=1e-4, rtol=0)
    torch.testing.assert_close(turn(turned, -0.3), pixels, atol=1e-5, rtol=0)
    torch.testing.assert_close(turn(pixels, 2 * np.pi), pixels, atol=1e-5, rtol=0)


def test_blur_is_gaussian_and_leaves_others_alone(picture):
    pixels = as_tensor(picture.resize((64, 64)))[None].float().repeat(2, 1, 1, 1) / 255
    blurred = blur(pixels, torch.tensor([0.0, 0.5]))
    assert torch.equal(blurred[0], pixels[0])
    expected = gaussian_filter(np.array(picture.resize((64, 64)), dtype=float), (0.5, 0.5, 0), truncate=8)
    inside = (slice(None), slice(4, -4), slice(4, -4))  # at the borders scipy takes a mirror image
    difference = blurred[1].numpy() * 255 - expected.transpose(2, 0, 1)
    assert np.abs(difference[inside]).max() < 0.1 and np.abs(difference).max() < 40


def test_solarized_views_equal_pillow(picture):
    unchanged = ViewSpec(12, 20, (0.3, 0.9), 0, 0, 0, 0, 0, 0)
    drawn = draw_views(44, 60, replace(unchanged, solarize=0.5), np.random.default_rng(3))
    views = {name: torch.from_numpy(values)[None] for name, values in drawn.items()}
    plain = render_views(as_tensor(picture)[None], views, unchanged)
    rendered = render_views(as_tensor(picture)[None], views, replace(unchanged, solarize=0.5))
    assert set(drawn["solarize"]) == {0, 1}
    for view, solarized in enumerate(drawn["solarize"]):
        pixels = (plain[view, 0] * 255).floor().byte()  # Pillow inverts from 128 on
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        if solarized:
            assert error(rendered[view, 0], ImageOps.solarize(image, 128)) <= 1
        else:
            assert rendered[view].equal(plain[view])


def test_draws_stay_inside_the_image_and_in_the_scale():
    spec = ViewSpec(400, 32, (0.2, 0.5))
    views = draw_views(40, 90, spec, np.random.default_rng(0))
    top, left, height, width = views["box"].T
    assert (top >= 0).all() and (top + height <= 40).all() and (left >= 0).all() and (left + width <= 90).all()
    share = height * width / (40 * 90)
    assert share.min() > 0.15 and share.max() < 0.53
    for name in ("flip", "transpose", "gray"):
        assert set(np.unique(views[name])) == {0, 1}


def test_flips_turns_and_jitter_have_their_probabilities_and_change_no_other_draw():
    usual = ViewSpec(2000, 32, (0.2, 0.5))
    rare = replace(usual, flip=0.1, quarter_turn=0.2, jitter=0.3)
    views, fewer = (draw_views(40, 90, spec, np.random.default_rng(0)) for spec in (usual, rare))
    jittered = (fewer["color"] != [1, 1, 1, 0]).all(axis=1)
    shares = [*fewer["flip"].mean(axis=0), fewer["transpose"].mean(), jittered.mean()]
    np.testing.assert_allclose(shares, [0.1, 0.1, 0.2, 0.3], atol=0.03)
    np.testing.assert_array_equal(fewer["color"][jittered], views["color"][jittered])
    np.testing.assert_array_equal(fewer["color"][~jittered], np.tile([1, 1, 1, 0], (sum(~jittered), 1)))
    for name in ("box", "gray", "blur", "solarize"):
        np.testing.assert_array_equal(views[name], fewer[name])
    never = draw_views(40, 90, ViewSpec(50, 32, (0.2, 0.5), flip=0, quarter_turn=0), np.random.default_rng(0))
    assert not never["flip"].any() and not never["transpose"].any()


def test_the_views_of_a_seed_stay():
    views = draw_views(70, 90, ViewSpec(2, 64, (0.4, 1.0)), np.random.default_rng([0, 7]))
    np.testing.assert_array_equal(views["box"], [[18, 16, 48, 56], [0, 30, 70, 59]])
    color = [[1.028, 0.963, 1.164, 0.417], [0.870, 1.384, 1.016, -0.307]]
    np.testing.assert_allclose(views["color"], color, atol=1e-3)


def test_rendered_views_are_turned_crops(picture):
    spec = ViewSpec(16, 20, (0.3, 0.9), 0, 0, 0, 0, 0, 0)
    drawn = draw_views(44, 60, spec, np.random.default_rng(3))
    views = {name: torch.from_numpy(values)[None] for name, values in drawn.items()}
    rendered = render_views(as_tensor(picture)[None], views, spec)
    assert rendered.shape == (16, 1, 3, 20, 20)
    for view in range(16):
        expected = crop(picture, drawn["box"][view], 20)
        if drawn["flip"][view][0]:
            expected = expected.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if drawn["flip"][view][1]:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if drawn["transpose"][view]:
            expected = expected.transpose(Image.Transpose.TRANSPOSE)
        assert error(rendered[view, 0], expected) <= 1.5


def test_a_view_does_not_depend_on_the_rest_of_the_batch(picture):
    spec = ViewSpec(2, 24, (0.3, 0.9))
    drawn = [draw_views(44, 60, spec, np.random.default_rng(seed)) for seed in (1, 2)]
    images = torch.stack([as_tensor(picture), as_tensor(picture.transpose(Image.Transpose.ROTATE_180))])
    batch = {name: torch.from_numpy(np.stack([d[name] for d in drawn])) for name in drawn[0]}
    alone = {name: values[1:] for name, values in batch.items()}
    together = render_views(images, batch, spec)[:, 1]
    torch.testing.assert_close(together, render_views(images[1:], alone, spec)[:, 0], atol=1e-5, rtol=0)
    assert together.min() >= 0 and together.max() <= 1
