"""LoRA (Hu et al. 2022) by peft: low-rank adapters in the towers, the only thing there that is trained and saved."""

import copy
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import CLIPProcessor

from rsmclip import RSMCLIPModel
from rsmclip.models.folder import open_weights


def add_adapter(model: RSMCLIPModel, fields: dict) -> PeftModel:
    """
    Puts adapters into the model, in place, and freezes all else but the self-distillation head, which starts at random
    and is not published.

    Args:
        model ([`RSMCLIPModel`]): The model.
        fields (`dict`): Fields of peft's `LoraConfig`.

    Returns:
        `PeftModel`: What saves the adapter, or merges it into the model.

    Raises:
        `ValueError`: A field is unknown, or no module has the targets' names.
    """
    try:
        adapter = get_peft_model(model, LoraConfig(**fields))
    except (TypeError, ValueError) as error:
        raise ValueError(f"lora cannot be applied: {error}") from error
    if model.self_distillation_head is not None:
        model.self_distillation_head.requires_grad_(True)
    return adapter


def save_only_trained(student: nn.Module, teacher: nn.Module | None) -> None:
    """Leaves all that isn't trained out of the checkpoints: it comes with the model that the run starts from."""
    trained = {name.removeprefix("model.") for name, value in student.named_parameters() if value.requires_grad}
    for module in (student, teacher):
        if module is not None:
            save_only(
                module, {name for name, _ in module.named_parameters() if name.removeprefix("model.") in trained}
            )


def save_only(module: nn.Module, names: set[str]) -> None:
    """
    Leaves all other parameters out of a module's `state_dict`, and accepts such a one when it is loaded.

    Args:
        module (`nn.Module`): The module.
        names (`set[str]`): Names of its parameters that are saved.
    """
    left_out = {name for name, _ in module.named_parameters()} - names

    def drop(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        for name in left_out:
            del state[prefix + name]

    def accept(module: nn.Module, incompatible: object) -> None:
        incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if name not in left_out]

    module.register_state_dict_post_hook(drop)
    module.register_load_state_dict_post_hook(accept)


def merged(adapter: PeftModel) -> RSMCLIPModel:
    """Return a copy of the model with the adapter merged into its weights; the run may continue with the adapter."""
    return copy.deepcopy(adapter).merge_and_unload()


def save_adapter(adapter: PeftModel, processor: CLIPProcessor, folder: Path) -> None:
    """Save an adapter without its model, and the processor."""
    adapter.save_pretrained(folder)
    open_weights(folder)
    processor.save_pretrained(folder)
