"""Preprocessing of RS-M-CLIP: CLIP's, to the pixel as OpenCLIP does it, for the images that remote sensing has.

Two things differ from `CLIPImageProcessor`. The centre crop rounds as torchvision does, so that images that are not
square give OpenCLIP's pixels. And 16-bit, grey and float images are brought to 8 bits by their range, where Pillow's
conversion to RGB clips 16 bits to white without a word.
"""

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil
from transformers.image_utils import SizeDict


def as_8_bit(image):
    """
    One image as Pillow and the resize understand it.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            8-bit, 16-bit (`uint16`, Pillow's `I;16`), boolean, or float in 0 to 1 or 0 to 255, give or take the
            twentieth by which resampling overshoots; grey of shape `(height, width)`, or with 1, 3 or 4 channels,
            first or last.

    Returns:
        Of the same kind, 8 bits a channel; what is no image, the path or address of one say, as it is.

    Raises:
        `ValueError`: The range of the values is not known.
    """
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().float().numpy() if image.is_floating_point() else image.cpu().numpy()
        return torch.from_numpy(scale_to_8_bit(array[None] if array.ndim == 2 else array))
    wide = isinstance(image, Image.Image) and (image.mode in ("I", "F") or image.mode.startswith("I;"))
    if not wide and not isinstance(image, np.ndarray):
        return image
    array = np.asarray(image)
    return scale_to_8_bit(array[..., None] if array.ndim == 2 else array)


def scale_to_8_bit(array: np.ndarray) -> np.ndarray:
    """Values of a known range to 8 bits."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array >> 8).astype(np.uint8)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    for top in (1, 255) if array.dtype.kind == "f" else (255,):
        if -top / 20 <= low and high <= top * 1.05:
            return (array.clip(0, top) * (255 / top)).round().astype(np.uint8)
    raise ValueError(
        f"an image of {array.dtype} has values from {low:g} to {high:g}: "
        "scale them to 0 to 255, or give 16 bits as uint16"
    )


class RSMCLIPImageProcessor(CLIPImageProcessorPil):
    """
    Resize of the short side by Pillow, centre crop, CLIP's mean and standard deviation: [`CLIPImageProcessor`] and its
    options, the same on every machine, with torchvision or without it. Transparency is laid over white.
    """

    def preprocess(self, images, *args, **kwargs):
        """
        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them):
                What [`as_8_bit`] takes. Numpy arrays that could be read both ways, of shape `(1, 1, 3)` say, have
                their channels last, as Pillow's have; tensors have them first.

        Returns:
            `BatchFeature`: `pixel_values` of shape `(images, 3, height, width)`.
        """
        options = [kwargs.get(name) for name in ("do_rescale", "rescale_factor")]
        own = [self.do_rescale, self.rescale_factor]
        do_rescale, factor = (own[i] if option is None else option for i, option in enumerate(options))
        if do_rescale and factor == 1 / 255:  # else the caller has scaled the values
            if isinstance(images, list | tuple):
                images = [as_8_bit(image) for image in images]
            else:
                images = [as_8_bit(image) for image in images] if getattr(images, "ndim", 0) == 4 else as_8_bit(images)
        return super().preprocess(images, *args, **kwargs)

    def process_image(self, image, do_convert_rgb=None, input_data_format=None, **kwargs) -> np.ndarray:
        """One image to an array of shape `(3, height, width)`."""
        shape = image.shape if isinstance(image, np.ndarray) else ()
        if input_data_format is None and len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] in (1, 3, 4):
            input_data_format = "channels_last"
        return super().process_image(image, do_convert_rgb, input_data_format, **kwargs)

    def resize(self, image: np.ndarray, size: SizeDict, *args, **kwargs) -> np.ndarray:
        """`(channels, height, width)` resized; to a longest side with OpenCLIP's rounding, and no side of nothing."""
        if size.longest_edge and size.longest_edge == size.shortest_edge:
            ratio = max(image.shape[1:]) / size.longest_edge
            height, width = (max(1, round(side / ratio)) for side in image.shape[1:])
            size = SizeDict(height=height, width=width)
        return super().resize(image, size, *args, **kwargs)

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        """`(channels, height, width)` to `size`: black where it is too small, halves rounded as torchvision does."""
        missing = [
            max(wanted - found, 0) for wanted, found in zip((size.height, size.width), image.shape[1:], strict=True)
        ]
        image = np.pad(image, [(0, 0), *((pixels // 2, pixels - pixels // 2) for pixels in missing)])
        top, left = round((image.shape[1] - size.height) / 2), round((image.shape[2] - size.width) / 2)
        return image[:, top : top + size.height, left : left + size.width]

    def to_dict(self) -> dict:
        """Names the class that a loader told `trust_remote_code=False` takes."""
        return super().to_dict() | {"image_processor_type": "CLIPImageProcessor"}


__all__ = ["RSMCLIPImageProcessor"]
