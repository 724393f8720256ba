"""The initial model of a run and its processor: published weights, two pretrained towers, or random weights."""

from collections.abc import Iterable

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPProcessor, PreTrainedTokenizerBase

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError, user_errors
from rsmclip.models.folder import (
    TOKENIZER_FILES,
    build_on_meta,
    check_model_type,
    find_source,
    load_processor,
    make_processor,
)
from rsmclip.models.towers import assemble, trim_vocabulary
from rsmclip.training.config import ModelSettings
from rsmclip.training.tokenizer import train_tokenizer
from rsmclip.training.views import ViewSpec


def make_model(
    settings: ModelSettings, captions: Iterable[str], texts: Iterable[str], with_head: bool
) -> tuple[RSMCLIPModel, CLIPProcessor]:
    """
    Return the model and its processor, on the CPU, in float32.

    Args:
        settings ([`ModelSettings`]): Weights, towers, or sizes and a tokenizer.
        captions (`Iterable[str]`): Training captions, for the tokenizer of a random start.
        texts (`Iterable[str]`): Texts that a trimmed tokenizer writes as before; see `trim_vocabulary`.
        with_head (`bool`): Whether the model has a self-distillation head. It is random if the weights lack it.

    Raises:
        [`UserError`]: There is no such model, tower or tokenizer, or the configuration describes no model.
    """
    if settings.lora and not settings.model and not settings.merge_adapter:
        raise UserError("lora needs model, or merge_adapter true: an adapter to random weights is of no use")
    if settings.model:
        return published_model(settings, with_head)
    if settings.image_tower:
        return joined_towers(settings, texts, with_head)
    return random_model(settings, captions, with_head)


def published_model(settings: ModelSettings, with_head: bool) -> tuple[RSMCLIPModel, CLIPProcessor]:
    name = settings.model
    folder = find_source(name, ["*.json", "*.jinja", "*.py", "*.safetensors", *TOKENIZER_FILES])
    fields = check_model_type(folder).to_dict()
    fields["self_distillation"] = head_sizes(settings, fields["self_distillation"]) if with_head else None
    config = build_on_meta(fields, f"the config.json of model {name}").config
    with user_errors(OSError, SafetensorError, prefix=f"the weights of model {name} cannot be loaded"):
        model = RSMCLIPModel.from_pretrained(folder, config=config, dtype=torch.float32, use_safetensors=True)
    model.name_or_path = model.config.name_or_path = name  # an adapter names its model
    return model, load_processor(f"model {name}", folder, config)


def joined_towers(
    settings: ModelSettings, texts: Iterable[str], with_head: bool
) -> tuple[RSMCLIPModel, CLIPProcessor]:
    fields = settings.model_config | {"self_distillation": head_sizes(settings, None) if with_head else None}
    model, processor = assemble(settings.image_tower, settings.text_tower, fields, settings.max_length)
    if settings.trim_vocabulary:
        trim_vocabulary(model, processor, texts)
    return model, processor


def random_model(
    settings: ModelSettings, captions: Iterable[str], with_head: bool
) -> tuple[RSMCLIPModel, CLIPProcessor]:
    if settings.tokenizer is None:
        tokenizer = train_tokenizer(captions, settings.vocab_size, settings.max_length)
    else:
        with user_errors(OSError, ValueError, prefix=f"tokenizer {settings.tokenizer} cannot be loaded"):
            tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer, model_max_length=settings.max_length)
    fields = settings.model_config | {"self_distillation": head_sizes(settings, None) if with_head else None}
    if isinstance(text_config := fields.get("text_config", {}), dict):
        fields["text_config"] = text_config | token_ids(tokenizer)
    model = RSMCLIPModel(build_on_meta(fields, "model_config").config)
    return model, make_processor(tokenizer, model.config.vision_config.image_size)


def head_sizes(settings: ModelSettings, found: dict | None) -> dict:
    # Sizes of the head in the weights, else in the settings, else the defaults.
    return found or settings.model_config.get("self_distillation") or {}


def token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the fields of the text tower's configuration that depend on the tokenizer."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad", "eos")}
    return {"vocab_size": len(tokenizer)} | ids


def check_sizes(config: RSMCLIPConfig, max_length: int, view_specs: dict[str, ViewSpec]) -> None:
    """
    Raise [`UserError`] if views or captions (of `max_length` tokens) do not fit the towers.

    Torch would fail later and, on a GPU, without naming the cause.
    """
    patch = config.vision_config.patch_size
    if "local" in view_specs and view_specs["local"].size % patch:
        size = view_specs["local"].size
        raise UserError(f"local_size {size} is not a multiple of the image tower's patch size {patch}")
    text = config.text_config
    longest = text.max_position_embeddings - text.pad_token_id - 1  # XLM-R counts positions from pad_token_id + 1
    if max_length > longest:
        raise UserError(f"max_length is {max_length}, but the text tower reads at most {longest} tokens")
