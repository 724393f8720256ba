"""LoRA (Hu et al. 2022) with peft: low-rank adapters in the towers. Only the adapters are trained and saved."""

import copy
import re
from dataclasses import fields as fields_of
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPProcessor

from rsmclip import RSMCLIPModel
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import has_type
from rsmclip.models.folder import open_weights
from rsmclip.training.config import unknown_field

TYPES = {  # of the usual fields of LoraConfig, which peft does not check
    "r": int,
    "target_modules": str | list[str] | None,
    "modules_to_save": list[str] | None,
    "lora_alpha": float,
    "lora_dropout": float,
}


def add_adapter(model: RSMCLIPModel, fields: dict) -> PeftModel:
    """
    Add adapters to the model, in place, and freeze all other parameters except the self-distillation head.

    The head stays trainable because it starts at random and is not published.

    Args:
        model ([`RSMCLIPModel`]): The model in training.
        fields (`dict`): Fields of peft's `LoraConfig`.

    Raises:
        [`UserError`]: A field is unknown or has the wrong type, or no module has one of the target names.
    """
    known = [spec.name for spec in fields_of(LoraConfig)]
    for name, value in fields.items():
        if name not in known:
            raise UserError(f"lora: {unknown_field(name, known)}")
        if not has_type(value, TYPES.get(name, object)):
            raise UserError(
                f"lora: {name} is {value!r}, but must be of type {getattr(TYPES[name], '__name__', TYPES[name])}"
            )
    with user_errors(ValueError, re.error, prefix=f"lora {fields}"):
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
    with user_errors(OSError, SafetensorError, prefix=f"{folder} cannot be written"):
        adapter.save_pretrained(folder)
        open_weights(folder)
        processor.save_pretrained(folder)
