"""Views of an image: crops, flips, quarter turns, color jitter, blur and solarization.

A view is made in two steps. A worker on the CPU draws the numbers that define the views of an image (`draw_views`).
The random generator is seeded for each image, so the views do not depend on the number of workers or processes. Then
the device renders the views of the whole batch (`render_views`). A crop with antialiased bicubic resize is two matrix
products, with one row of filter weights for each output pixel.

Overhead images have no up direction, so flips and quarter turns keep the caption true, unless it names a direction.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # luma first
TO_GRAY = torch.tensor(np.tile(RGB_TO_YIQ[0], (3, 1)), dtype=torch.float32)
QUARTER_TURN = np.linalg.inv(RGB_TO_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ RGB_TO_YIQ  # of the chroma
QUARTER_TURN = torch.tensor(QUARTER_TURN, dtype=torch.float32)


@dataclass(frozen=True)
class ViewSpec:
    """
    Distribution of one kind of view: contrastive, global or local.

    Args:
        count (`int`): Number of views of an image.
        size (`int`): Height and width of a view in pixels.
        scale (`tuple[float, float]`): Smallest and largest area of the crop, as a share of the image's area.
        brightness, contrast, saturation (`float`): Largest relative change.
        hue (`float`): Largest shift, as a share of the color circle.
        grayscale (`float`): Probability of a gray view.
        blur (`float`): Probability of a Gaussian blur. Its standard deviation is 0.1 to 2 pixels in a view of 224
            pixels, and proportional to the size of the view.
        solarize (`float`): Probability that values of 0.5 and above are inverted.
        flip (`float`): Probability of each flip, vertical and horizontal.
        quarter_turn (`float`): Probability of a quarter turn (with the flips: the view is transposed).
        jitter (`float`): Probability that brightness, contrast, saturation and hue change at all.
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
    flip: float = 0.5
    quarter_turn: float = 0.5
    jitter: float = 1.0


def draw_views(height: int, width: int, spec: ViewSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """
    Draw the numbers that define the `spec.count` views of an image. `height` and `width` are in pixels.

    Returns:
        `dict[str, np.ndarray]`: float32 arrays with one row for each view: `box` (top, left, height, width in pixels),
        `flip` (vertical, horizontal: 0 or 1), `transpose` (0 or 1), `color` (factors of brightness, contrast and
        saturation, shift of the hue in radians), `gray` (0 or 1), `blur` (standard deviation in pixels, 0 for none),
        `solarize` (0 or 1).
    """
    u = rng.random((spec.count, 15))
    jittered = rng.spawn(1)[0].random(spec.count) < spec.jitter  # a child: it takes no number of other views
    area = height * width * (spec.scale[0] + u[:, 0] * (spec.scale[1] - spec.scale[0]))
    ratio = np.exp((2 * u[:, 1] - 1) * math.log(4 / 3))
    box_height = np.clip(np.rint(np.sqrt(area / ratio)), 1, height)
    box_width = np.clip(np.rint(np.sqrt(area * ratio)), 1, width)
    top, left = np.floor(u[:, 2] * (height - box_height + 1)), np.floor(u[:, 3] * (width - box_width + 1))
    strength = np.array([spec.brightness, spec.contrast, spec.saturation, spec.hue * 2 * math.pi])
    sigma = (0.1 + 1.9 * u[:, 12]) * spec.size / 224
    views = {
        "box": np.stack([top, left, box_height, box_width], axis=1),
        "flip": u[:, 4:6] < spec.flip,
        "transpose": u[:, 6] < spec.quarter_turn,
        "color": np.array([1, 1, 1, 0]) + (2 * u[:, 7:11] - 1) * strength * jittered[:, None],
        "gray": u[:, 11] < spec.grayscale,
        "blur": np.where(u[:, 13] < spec.blur, sigma, 0),
        "solarize": u[:, 14] < spec.solarize,
    }
    return {name: values.astype(np.float32) for name, values in views.items()}


def render_views(images: torch.Tensor, views: dict[str, torch.Tensor], spec: ViewSpec) -> torch.Tensor:
    """
    Render the views of a batch.

    Args:
        images (`torch.Tensor` of shape `(batch, 3, height, width)`): Pixels, uint8. Smaller images are padded at the
            bottom and at the right. No box contains padding.
        views (`dict[str, torch.Tensor]`): Results of [`draw_views`], stacked to shapes `(batch, views, ...)`.
        spec ([`ViewSpec`]): The spec that was given to [`draw_views`].

    Returns:
        `torch.Tensor` of shape `(views, batch, 3, size, size)`, values from 0 to 1.
    """
    pixels = images.float() / 255
    views = {name: values.transpose(0, 1).flatten(0, 1) for name, values in views.items()}  # (views * batch, ...)
    rendered = crop_and_resize(pixels, views["box"], views["flip"], views["transpose"], spec.size)
    rendered = adjust_color(rendered, views["color"], views["gray"])
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
    Crop and resize each view as Pillow's `crop(box).resize((size, size), BICUBIC)`, then flip and transpose it.

    Pixels from 0 to 1 of shape `(batch, 3, height, width)` give `(views * batch, 3, size, size)`. `box`, `flip` and
    `transpose` are from [`draw_views`], with `views * batch` rows: first the first view of every image.
    """
    # Pad to a square, so that the weights of rows and columns have one shape.
    side = max(pixels.shape[-2:])
    pixels = F.pad(pixels, (0, side - pixels.shape[-1], 0, side - pixels.shape[-2]))
    rows = bicubic_weights(box[:, 0], box[:, 2], flip[:, 0], size, side)  # (views * batch, size, side)
    columns = bicubic_weights(box[:, 1], box[:, 3], flip[:, 1], size, side)

    # Columns first, then rows, as in Pillow. Pillow stores 8 bits after each pass, which clips the filter's overshoot.
    parts = columns.mT.unsqueeze(1).split(len(pixels))  # one view at a time, because all views share the pixels
    narrowed = torch.cat([pixels @ weights for weights in parts]).clamp_(0, 1)
    resized = (rows.unsqueeze(1) @ narrowed).clamp_(0, 1)
    return torch.where(transpose.bool()[:, None, None, None], resized.mT, resized)


def bicubic_weights(
    start: torch.Tensor, length: torch.Tensor, flip: torch.Tensor, size: int, source: int
) -> torch.Tensor:
    # Antialiased bicubic resize (a = -0.5) of source[start : start + length] to size pixels. Returns the weights of
    # shape (views * batch, size, source). Rows sum to one.
    position = torch.arange(size, device=start.device) + 0.5
    pixel = torch.arange(source, device=start.device) + 0.5
    scale = (length / size)[:, None]
    center = start[:, None] + position * scale  # (views * batch, size)
    x = ((pixel - center[..., None]) / scale.clamp(min=1)[..., None]).abs()  # (views * batch, size, source)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weights = weights * inside[:, None]
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.where(flip.bool()[:, None, None], weights.flip(1), weights)


def adjust_color(pixels: torch.Tensor, color: torch.Tensor, gray: torch.Tensor) -> torch.Tensor:
    """
    Change brightness, contrast, saturation and hue, in this order, as one linear map of the colors of each view.

    Brightness, contrast and saturation are those of Pillow's `ImageEnhance`. Hue rotates colors around the gray axis
    in the chroma plane of YIQ, which keeps the luma. Values are clipped once, at the end.
    """
    brightness, contrast, saturation, hue = color[:, :, None, None].unbind(1)  # each (batch, 1, 1)
    chroma = saturation * (1 - gray[:, None, None])
    luma, quarter = (values.to(pixels.device, non_blocking=True) for values in (TO_GRAY, QUARTER_TURN))
    matrices = luma + chroma * (hue.cos() * (torch.eye(3, device=pixels.device) - luma) + hue.sin() * quarter)
    mean = (pixels.mean(dim=(-1, -2)) @ luma[0])[:, None, None] * brightness  # contrast keeps the mean luma
    offset, slope = mean * (1 - contrast), brightness * contrast
    return torch.baddbmm(offset, slope * matrices, pixels.flatten(2)).view_as(pixels).clamp_(0, 1)


def blur(pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    # Gaussian blur with one standard deviation for each view, in pixels. At the borders, the weights of the pixels
    # inside are scaled to sum to one.
    position = torch.arange(pixels.shape[-1], device=pixels.device)
    distance = (position - position[:, None]) / sigma.clamp(min=1e-3)[:, None, None]
    weights = (-(distance**2) / 2).exp()
    weights = (weights / weights.sum(dim=-1, keepdim=True)).unsqueeze(1)
    return weights @ pixels @ weights.mT
