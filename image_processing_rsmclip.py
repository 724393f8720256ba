"""Preprocessing of RS-M-CLIP: CLIP's, to the pixel as OpenCLIP does it, for the images that remote sensing has.

Two things differ from `CLIPImageProcessor`. The centre crop rounds as torchvision does, so that images that are not
square give OpenCLIP's pixels. And 16-bit, grey and float images are brought to 8 bits by their range, where Pillow's
conversion to RGB clips 16 bits to white without a word.
"""

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessorPil
from transformers.image_utils import SizeDict


def as_8_bit(image):
    """
    One image as Pillow and the resize understand it.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            8-bit, 16-bit (`uint16`, Pillow's `I;16`), boolean, or float in 0 to 1 or 0 to 255; grey of shape `(height,
            width)`, or with 1, 3 or 4 channels, first or last.

    Returns:
        `PIL.Image.Image` or `np.ndarray`: 8 bits a channel.

    Raises:
        `ValueError`: The range of the values is not known.
    """
    if isinstance(image, Image.Image) and image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype != np.uint8:
        if array.size and not (array.min() >= 0 and array.max() <= 255):
            raise ValueError(
                f"an image of {array.dtype} has values from {array.min():g} to {array.max():g}: scale them to "
                "0 to 255, or give 16 bits as uint16"
            )
        scale = 255 if array.dtype.kind == "f" and array.size and array.max() <= 1 else 1
        array = (array * scale).round().astype(np.uint8)
    return array


class RSMCLIPImageProcessor(CLIPImageProcessorPil):
    """
    Resize of the short side by Pillow, centre crop, CLIP's mean and standard deviation: [`CLIPImageProcessor`] and its
    options, the same on every machine, with torchvision or without it. Transparency is laid over white.
    """

    def preprocess(self, images, *args, **kwargs):
        """
        Args:
            images (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them):
                What [`as_8_bit`] takes. An array that could be read both ways, of shape `(1, 1, 3)` say, has its
                channels last, as Pillow's arrays do.

        Returns:
            `BatchFeature`: `pixel_values` of shape `(images, 3, height, width)`.
        """
        if not isinstance(images, list | tuple):
            images = list(images) if getattr(images, "ndim", 0) == 4 else [images]
        if kwargs.get("do_rescale", self.do_rescale):  # without it the caller has scaled the values
            images = [as_8_bit(image) for image in images]
        return super().preprocess(images, *args, **kwargs)

    def process_image(self, image, do_convert_rgb=None, input_data_format=None, **kwargs) -> np.ndarray:
        """One image to an array of shape `(3, height, width)`."""
        shape = getattr(image, "shape", ())
        if input_data_format is None and len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] in (1, 3, 4):
            input_data_format = "channels_last"
        return super().process_image(image, do_convert_rgb, input_data_format, **kwargs)

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
