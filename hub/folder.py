"""The model folder: weights, configuration with `auto_map`, remote code and processor, as the Hub expects them."""

import json
from pathlib import Path

from transformers import CLIPImageProcessor, CLIPProcessor, PreTrainedTokenizerBase

from rsmclip import RSMCLIPConfig, RSMCLIPModel

# The remote code is known to leave its weights at random initialisation before this version.
LOWEST_TRANSFORMERS = "5.13"


def make_processor(tokenizer: PreTrainedTokenizerBase, image_size: int) -> CLIPProcessor:
    """
    The released preprocessing: bicubic resize of the short side, centre crop, CLIP's mean and standard deviation.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer of the text tower.
        image_size (`int`): Height and width of the image tower's input in pixels.
    """
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def save_model_folder(model: RSMCLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    """
    Saves what `AutoModel.from_pretrained(folder, trust_remote_code=True)` and the pipelines need.

    Args:
        model ([`RSMCLIPModel`]): The model.
        processor (`CLIPProcessor`): Its processor.
        folder (`Path`): Where it goes.
    """
    RSMCLIPConfig.register_for_auto_class()
    RSMCLIPModel.register_for_auto_class("AutoModel")
    # One class registers for one auto class; the zero-shot pipeline asks for another.
    model.config.auto_map = {"AutoModelForZeroShotImageClassification": "modeling_rsmclip.RSMCLIPModel"}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model."""
    return (folder / "config.json").is_file() or any(folder.glob("*.safetensors"))


def read_results(folder: Path) -> dict:
    """The `eval_results.json` of a model folder."""
    return json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
