"""Views of an image: crops, flips, quarter turns, colour, blur, solarising; drawn on the CPU, rendered on the device.

Drawing and rendering are apart. A worker draws the numbers that define the views of one image, from that image's own
generator, so the views do not depend on the number of workers or processes. The device then renders a whole batch: a
crop with antialiased bicubic resize is two matrix products, with one row of filter weights per output pixel, which
flips merely reverse. Crop-and-resize equals Pillow's for the same box. An overhead image has no up, so flips and
quarter turns change nothing that a caption says.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))  # first the luma


@dataclass(frozen=True)
class ViewSpec:
    """
    How one sort of view is drawn.

    Args:
        count (`int`): Views of this sort per image.
        size (`int`): Height and width in pixels.
        scale (`tuple[float, float]`): Area of the crop as a share of the image's.
        brightness (`float`): Largest relative change; so `contrast` and `saturation`.
        contrast (`float`): See `brightness`.
        saturation (`float`): See `brightness`.
        hue (`float`): Largest shift, as a share of the colour circle.
        grayscale (`float`): Probability of a grey view.
        blur (`float`): Probability of a Gaussian blur of 0.1 to 2 pixels, at 224 pixels; in proportion otherwise.
        solarize (`float`): Probability that values from one half up are inverted.
    """

    count: int
    size: int
    scale: tuple[float, float]
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.5
    solarize: float = 0.0


def draw_views(height: int, width: int, spec: ViewSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """
    Draws the numbers that define the `spec.count` views of one image.

    Args:
        height (`int`): Height of the image in pixels.
        width (`int`): Width of the image in pixels.
        spec ([`ViewSpec`]): What to draw.
        rng (`np.random.Generator`): The image's own generator.

    Returns:
        `dict[str, np.ndarray]`: float32 arrays with a row for each view: `box` (top, left, height, width in pixels),
        `flip` (vertical, horizontal: 0 or 1), `transpose` (0 or 1), `colour` (factors of brightness, contrast,
        saturation; shift of hue in radians), `gray` (0 or 1), `blur` (standard deviation in pixels, 0 for none),
        `solarize` (0 or 1).
    """
    u = rng.random((spec.count, 15))
    area = height * width * (spec.scale[0] + u[:, 0] * (spec.scale[1] - spec.scale[0]))
    ratio = np.exp((2 * u[:, 1] - 1) * math.log(4 / 3))
    box_height = np.clip(np.rint(np.sqrt(area / ratio)), 1, height)
    box_width = np.clip(np.rint(np.sqrt(area * ratio)), 1, width)
    top, left = np.floor(u[:, 2] * (height - box_height + 1)), np.floor(u[:, 3] * (width - box_width + 1))
    strength = np.array([spec.brightness, spec.contrast, spec.saturation, spec.hue * 2 * math.pi])
    sigma = (0.1 + 1.9 * u[:, 12]) * spec.size / 224
    views = {
        "box": np.stack([top, left, box_height, box_width], axis=1),
        "flip": u[:, 4:6] < 0.5,
        "transpose": u[:, 6] < 0.5,
        "colour": np.array([1, 1, 1, 0]) + (2 * u[:, 7:11] - 1) * strength,
        "gray": u[:, 11] < spec.grayscale,
        "blur": np.where(u[:, 13] < spec.blur, sigma, 0),
        "solarize": u[:, 14] < spec.solarize,
    }
    return {name: values.astype(np.float32) for name, values in views.items()}


def render_views(images: torch.Tensor, views: dict[str, torch.Tensor], spec: ViewSpec) -> torch.Tensor:
    """
    Renders the drawn views of a batch.

    Args:
        images (`torch.Tensor` of shape `(batch, 3, height, width)`):
            uint8 pixels; images smaller than the batch's are padded at the bottom and right, which no box touches.
        views (`dict[str, torch.Tensor]`):
            What [`draw_views`] gave, stacked: shapes `(batch, views, ...)`.
        spec ([`ViewSpec`]):
            What was drawn.

    Returns:
        `torch.Tensor` of shape `(views, batch, 3, size, size)`, between 0 and 1.
    """
    pixels = images.float() / 255
    views = {name: values.transpose(0, 1).flatten(0, 1) for name, values in views.items()}  # (views * batch, ...)
    rendered = crop_and_resize(pixels, views["box"], views["flip"], views["transpose"], spec.size)
    rendered = adjust_colour(rendered, views["colour"], views["gray"])
    if spec.blur > 0:
        rendered = blur(rendered, views["blur"])
    if spec.solarize > 0:
        inverted = (views["solarize"][:, None, None, None] > 0) & (rendered >= 0.5)
        rendered = torch.where(inverted, 1 - rendered, rendered)
    return rendered.unflatten(0, (spec.count, len(images)))


def crop_and_resize(
    pixels: torch.Tensor, box: torch.Tensor, flip: torch.Tensor, transpose: torch.Tensor, size: int
) -> torch.Tensor:
    """
    Pillow's `crop(box).resize((size, size), BICUBIC)`, another box for each view, then flips and transposition.

    Args:
        pixels (`torch.Tensor` of shape `(batch, 3, height, width)`): Between 0 and 1.
        box (`torch.Tensor` of shape `(views * batch, 4)`): Top, left, height, width in pixels; the first view of all
            images comes first.
        flip (`torch.Tensor` of shape `(views * batch, 2)`): 1 to flip vertically, horizontally.
        transpose (`torch.Tensor` of shape `(views * batch,)`): 1 to swap rows and columns in the end.
        size (`int`): Height and width of the result.

    Returns:
        `torch.Tensor` of shape `(views * batch, 3, size, size)`, between 0 and 1.
    """
    side = max(pixels.shape[-2:])
    pixels = F.pad(pixels, (0, side - pixels.shape[-1], 0, side - pixels.shape[-2]))
    rows = bicubic_weights(box[:, 0], box[:, 2], flip[:, 0], size, side)  # (views * batch, size, side)
    columns = bicubic_weights(box[:, 1], box[:, 3], flip[:, 1], size, side)
    # Pillow keeps the result of the first pass in 8 bits, which clips its overshoot before the second. Since version
    # 13 the vertical pass comes first where the box shrinks over twice as much in height as in width: there everything
    # is transposed before and after, so that one order of passes serves the whole batch.
    tall = ((box[:, 2] > size) & (2 * (box[:, 3] - size) < box[:, 2] - size))[:, None, None]
    first, second = torch.where(tall, rows, columns).mT.unsqueeze(1), torch.where(tall, columns, rows).unsqueeze(1)
    tall, transpose = tall.unsqueeze(1), transpose.bool()[:, None, None, None]
    parts = zip(first.split(len(pixels)), tall.split(len(pixels)), strict=True)  # a view each: all share the pixels
    passed = torch.cat([torch.where(turned, pixels.mT, pixels) @ weights for weights, turned in parts]).clamp_(0, 1)
    resized = (second @ passed).clamp_(0, 1)
    return torch.where(tall ^ transpose, resized.mT, resized)


def bicubic_weights(
    start: torch.Tensor, length: torch.Tensor, flip: torch.Tensor, size: int, source: int
) -> torch.Tensor:
    """
    Weights of an antialiased bicubic resize (a = -0.5) of `source[start : start + length]` to `size` pixels.

    Returns:
        `torch.Tensor` of shape `(batch, size, source)`; rows sum to one.
    """
    position = torch.arange(size, device=start.device) + 0.5
    pixel = torch.arange(source, device=start.device) + 0.5
    scale = (length / size)[:, None]
    centre = start[:, None] + position * scale  # (batch, size)
    x = ((pixel - centre[..., None]) / scale.clamp(min=1)[..., None]).abs()  # (batch, size, source)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weights = weights * inside[:, None]
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.where(flip.bool()[:, None, None], weights.flip(1), weights)


def adjust_colour(pixels: torch.Tensor, colour: torch.Tensor, gray: torch.Tensor) -> torch.Tensor:
    """
    Brightness, contrast, saturation and hue as one linear map of each view's colours. The first three are those of
    Pillow's `ImageEnhance`, but that values are clipped once, in the end. Hue turns colours around the axis of greys,
    at constant luma, in the chroma plane of YIQ.

    Args:
        pixels (`torch.Tensor` of shape `(batch, 3, height, width)`): Between 0 and 1.
        colour (`torch.Tensor` of shape `(batch, 4)`): Factors of brightness, contrast and saturation; hue in radians.
        gray (`torch.Tensor` of shape `(batch,)`): 1 for a grey view, whatever its saturation.
    """
    brightness, contrast, saturation, hue = colour[:, :, None, None].unbind(1)  # each (batch, 1, 1)
    chroma = saturation * (1 - gray[:, None, None])
    luma, quarter = (values.to(pixels.device, non_blocking=True) for values in colour_matrices())
    matrices = luma + chroma * (hue.cos() * (torch.eye(3, device=pixels.device) - luma) + hue.sin() * quarter)
    mean = (pixels.mean(dim=(-1, -2)) @ luma[0])[:, None, None] * brightness  # which a change of contrast keeps
    offset, slope = mean * (1 - contrast), brightness * contrast
    return torch.baddbmm(offset, slope * matrices, pixels.flatten(2)).view_as(pixels).clamp_(0, 1)


def colour_matrices() -> tuple[torch.Tensor, torch.Tensor]:
    """What maps a colour to its grey, and what turns its chroma by a quarter; each of shape `(3, 3)`."""
    to_yiq = np.array(RGB_TO_YIQ)
    luma = np.tile(to_yiq[0], (3, 1))
    quarter = np.linalg.inv(to_yiq) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ to_yiq
    return torch.tensor(luma, dtype=torch.float32), torch.tensor(quarter, dtype=torch.float32)


def blur(pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """
    Gaussian blur, `(batch, 3, size, size)`, each view with its own standard deviation in pixels (`(batch,)`; 0: none).
    Rows and columns are multiplied by a matrix of weights; at the borders what is inside weighs more.
    """
    position = torch.arange(pixels.shape[-1], device=pixels.device)
    distance = (position - position[:, None]) / sigma.clamp(min=1e-3)[:, None, None]
    weights = (-(distance**2) / 2).exp()
    weights = (weights / weights.sum(dim=-1, keepdim=True)).unsqueeze(1)
    return weights @ pixels @ weights.mT
