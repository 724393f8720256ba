"""RS-M-CLIP: a multilingual vision-language model for remote sensing, native to the Hugging Face libraries."""

from .configuration_rsmclip import RSMCLIPConfig
from .modeling_rsmclip import RSMCLIPModel

__all__ = ["RSMCLIPConfig", "RSMCLIPModel"]
__version__ = "0.1.0"
