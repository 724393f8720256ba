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
    """Imports a class when it is first asked for: the data step and every `--help` do without torch."""
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOME[name], __name__), name)
