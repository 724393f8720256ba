"""Preprocessing of RS-M-CLIP: CLIP's preprocessing with OpenCLIP's pixels, for the images of remote sensing.

Two parts differ from `CLIPImageProcessor`. The center crop rounds as in torchvision, so that images that are not
square get OpenCLIP's pixels. 16-bit and float images are scaled to 8 bits by the range of their type (Pillow clips
16-bit values to white).
"""

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil
from transformers.image_utils import SizeDict

RAW_16_BITS = (";16B", ";16L", ";16N")  # in Pillow's raw modes of 16 bits per channel
RESCALE = "rescale it with gdal_translate -ot Byte -scale IN OUT"


def as_image(image, channels: str | None = None):
    """
    Convert an image to a Pillow image with 8 bits per channel.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            Gray of shape `(height, width)`, or 1, 3 or 4 channels. Values are 8-bit, 16-bit (`uint16`, Pillow's
            `I;16`; the upper 8 bits are kept), boolean, or float. Floats from -0.05 to 1.05 are read as 0 to 1. Floats
            with a maximum over 2 and up to 267 are read as 0 to 255, if the minimum is not below -5 % of the maximum
            (resampling overshoots).
            Give `uint8` if you can: a float image from 0 to 255 that is darker than 1.05 is read as 0 to 1.
        channels (`str`, *optional*):
            `"channels_first"` or `"channels_last"`. By default the side of length 1, 3 or 4. If both sides have such a
            length, channels are first in a tensor and last in an array.

    Returns:
        `PIL.Image.Image`: The image on a white background. Paths, URLs and other non-images are returned unchanged.

    Raises:
        `ValueError`: The type or the range of the values is unknown, the maximum of 16-bit values is below 16,384,
            Pillow keeps 8 of 16 bits (see [`has_too_many_bits`]), or no side has the length 1, 3 or 4.
    """
    is_image, is_tensor = isinstance(image, Image.Image), isinstance(image, torch.Tensor)
    if not is_image and not is_tensor and not isinstance(image, np.ndarray):
        return image
    if is_tensor:
        image = (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
    if is_image and has_too_many_bits(image):
        raise ValueError(f"the image has 16 bits per channel, of which Pillow keeps 8: {RESCALE}")
    if not is_image or image.mode in ("I", "F") or image.mode.startswith("I;"):
        # Pillow scales a PPM of more than 8 bits to 16.
        is_16_bit = is_image and (image.format, image.mode) == ("PPM", "I")
        array = scale_to_8_bit(np.asarray(image, np.uint16 if is_16_bit else None))
        if array.ndim == 3:
            sides = {"channels_first": array.shape[0], "channels_last": array.shape[2]}
            found = [channels] if channels else [side for side, count in sides.items() if count in (1, 3, 4)]
            if not found:
                raise ValueError(f"an image of shape {array.shape} has no side of 1, 3 or 4 channels")
            if found[0 if is_tensor else -1] == "channels_first":
                array = array.transpose(1, 2, 0)
        image = Image.fromarray(np.ascontiguousarray(array.squeeze(2) if array.shape[2:] == (1,) else array))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def has_too_many_bits(image: Image.Image) -> bool:
    """
    Return whether Pillow shows that an image has more bits per channel than Pillow keeps, such as color of 16 bits.

    Pillow shows them in the tags of a TIFF (258: BitsPerSample), and in the raw mode of an image that is not yet
    loaded. It does not show them in a JPEG 2000, a PPM, a loaded PNG, or an image that was converted.
    """
    bits, decoder = max(getattr(image, "tag_v2", {}).get(258, (8,))), str(getattr(image, "tile", [])[:1])
    return image.mode[0] not in "IF" and (bits > 8 or any(raw in decoder for raw in RAW_16_BITS))


def scale_to_8_bit(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        if array.size and array.max() < 2**14:  # numbers of a sensor
            raise ValueError(f"a 16-bit image has a maximum of {array.max()} and would be nearly black: {RESCALE}")
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"an image cannot have values of type {array.dtype}: give uint8")
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if array.dtype.kind == "f":
        # -1 to 1, a reflectance of 1.1 and normalized values have neither range: as 0 to 255 they would be black.
        is_unit = low >= -0.05 and high <= 1.05
        is_known = is_unit or (2 < high <= 1.05 * 255 and low >= -0.05 * high)
    else:
        is_unit, is_known = False, low >= 0 and high <= 255
    if not is_known:
        raise ValueError(
            f"an image of {array.dtype} has values from {low:g} to {high:g}, and its range is unknown: "
            "scale it to 0 to 255 and give uint8"
        )
    top = 1 if is_unit else 255
    return (array.clip(0, top) * (255 / top)).round().astype(np.uint8)


class RSMCLIPImageProcessor(CLIPImageProcessorPil):
    """
    [`CLIPImageProcessor`] for the images of remote sensing: short side resized with Pillow, center crop, CLIP's mean
    and standard deviation. The result does not depend on torchvision. Transparent images get a white background.
    """

    def preprocess(self, images, *args, **kwargs):
        """
        Convert images with [`as_image`] and preprocess them.

        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them): Images.

        Returns:
            `BatchFeature`: `pixel_values` of shape `(images, 3, height, width)`.
        """
        given = {name: kwargs[name] for name in ("do_rescale", "rescale_factor") if kwargs.get(name) is not None}
        do_rescale, factor = given.get("do_rescale", self.do_rescale), given.get("rescale_factor", self.rescale_factor)
        if do_rescale and factor == 1 / 255:  # with other settings, the caller has scaled the values
            channels = kwargs.get("input_data_format")
            if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4:
                images = [as_image(image, channels) for image in images]
            else:
                images = as_image(images, channels)
        return super().preprocess(images, *args, **kwargs)

    def resize(self, image: np.ndarray, size: SizeDict, *args, **kwargs) -> np.ndarray:
        """Resize `(channels, height, width)`. If the longest side is limited, round sides as in OpenCLIP."""
        if size.longest_edge and size.longest_edge == size.shortest_edge:
            ratio = max(image.shape[1:]) / size.longest_edge
            height, width = (max(1, round(side / ratio)) for side in image.shape[1:])
            size = SizeDict(height=height, width=width)
        return super().resize(image, size, *args, **kwargs)

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        """Crop `(channels, height, width)` to `size`, rounded as in torchvision. Pad smaller images with black."""
        sides = zip((size.height, size.width), image.shape[1:], strict=True)
        missing = [max(wanted - found, 0) for wanted, found in sides]
        image = np.pad(image, [(0, 0), *((pixels // 2, pixels - pixels // 2) for pixels in missing)])
        top, left = round((image.shape[1] - size.height) / 2), round((image.shape[2] - size.width) / 2)
        return image[:, top : top + size.height, left : left + size.width]

    def to_dict(self) -> dict:
        """Return the settings, with `CLIPImageProcessor` as the class to load with `trust_remote_code=False`."""
        return super().to_dict() | {"image_processor_type": "CLIPImageProcessor"}


__all__ = ["RSMCLIPImageProcessor"]
