"""LoRA (Hu et al. 2022) with peft: low-rank adapters in the towers. Only the adapters are trained and saved."""

import copy
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import CLIPProcessor

from rsmclip import RSMCLIPModel
from rsmclip.core.errors import user_errors
from rsmclip.models.folder import open_weights


def add_adapter(model: RSMCLIPModel, fields: dict) -> PeftModel:
    """
    Add adapters to the model, in place, and freeze all other parameters except the self-distillation head.

    The head stays trainable because it starts at random and is not published.

    Args:
        model ([`RSMCLIPModel`]): The model in training.
        fields (`dict`): Fields of peft's `LoraConfig`.

    Raises:
        [`UserError`]: A field is unknown, or no module has one of the target names.
    """
    with user_errors(TypeError, ValueError, prefix="lora"):
        adapter = get_peft_model(model, LoraConfig(**fields))
    if model.self_distillation_head is not None:
        model.self_distillation_head.requires_grad_(True)
    return adapter


def save_only_trained(student: nn.Module, teacher: nn.Module | None) -> None:
    """Exclude frozen parameters from the checkpoints of student and teacher. The start model has their values."""
    trained = {name.removeprefix("model.") for name, value in student.named_parameters() if value.requires_grad}
    for module in filter(None, (student, teacher)):
        names = {name for name, _ in module.named_parameters()}
        leave_out(module, {name for name in names if name.removeprefix("model.") not in trained})


def leave_out(module: nn.Module, names: set[str]) -> None:
    def drop(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        for name in names:
            del state[prefix + name]

    def accept(module: nn.Module, incompatible: object) -> None:
        incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if name not in names]

    module.register_state_dict_post_hook(drop)
    module.register_load_state_dict_post_hook(accept)


def merged(adapter: PeftModel) -> RSMCLIPModel:
    """Return a copy of the model with the adapter merged into its weights. The original keeps its adapter."""
    return copy.deepcopy(adapter).merge_and_unload()


def save_adapter(adapter: PeftModel, processor: CLIPProcessor, folder: Path) -> None:
    """Save the adapter without its model, and the processor."""
    adapter.save_pretrained(folder)
    open_weights(folder)
    processor.save_pretrained(folder)
