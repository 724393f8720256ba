"""RS-M-CLIP: a multilingual vision-language model for remote sensing, native to the Hugging Face libraries."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsmclip.eval.run_results import RunResults

HOME = {  # module of each name
    "RSMCLIPConfig": ".configuration_rsmclip",
    "RSMCLIPImageProcessor": ".image_processing_rsmclip",
    "RSMCLIPModel": ".modeling_rsmclip",
    "build_corpus": ".data.build",
    "build_index": ".eval.build_index",
    "classify": ".eval.classify",
    "compare": ".eval.compare",
    "evaluate": ".eval.run",
    "load_embedder": ".eval.models",
    "search": ".eval.search",
}
__all__ = [*HOME, "train_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a name at its first use, because the data commands and every `--help` do not need torch."""
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def train_model(recipe: str | Path = "demo", **fields: Any) -> "RunResults | None":
    """
    Train a model. Its folder, `output_dir`, is a model repository for the Hub.

    Args:
        recipe (`str` or `Path`, *optional*, defaults to `"demo"`): Name of a recipe in `configs/`, or a YAML file.
        fields: Fields of [`~rsmclip.training.config.TrainingConfig`], which replace those of the recipe.

    Returns:
        [`~rsmclip.eval.run_results.RunResults`]: Figures of the test split in percent, and the settings of the run, on
        rank 0; `None` on other ranks and for a dry run.

    Raises:
        [`UserError`]: A field is unknown, a value is not possible, or the data or the model does not exist.
    """
    from rsmclip.train import train
    from rsmclip.training.command_line import read_config

    return train(read_config(recipe, **fields))
