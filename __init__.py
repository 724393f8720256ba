"""RS-M-CLIP: a multilingual vision-language model for remote sensing, native to the Hugging Face libraries."""

from importlib import import_module

__all__ = ["RSMCLIPConfig", "RSMCLIPImageProcessor", "RSMCLIPModel"]
__version__ = "0.1.0"

HOME = {
    "RSMCLIPConfig": ".configuration_rsmclip",
    "RSMCLIPImageProcessor": ".image_processing_rsmclip",
    "RSMCLIPModel": ".modeling_rsmclip",
}


def __getattr__(name: str) -> type:
    """Import a class at its first use, because the data commands and every `--help` do not need torch."""
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOME[name], __name__), name)
