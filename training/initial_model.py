"""The model that a run starts from, with its processor: published weights, or random ones of the configured sizes."""

from collections.abc import Iterator

import torch
from datasets import Dataset
from transformers import AutoProcessor, AutoTokenizer, CLIPProcessor, PreTrainedConfig, PreTrainedTokenizerBase

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.models.folder import build_on_meta, make_processor
from rsmclip.training.config import TrainingConfig
from rsmclip.training.tokenizer import train_tokenizer


def make_model(config: TrainingConfig, rows: Dataset) -> tuple[RSMCLIPModel, CLIPProcessor]:
    """
    The model and its processor, on the CPU, in float32.

    Args:
        config ([`TrainingConfig`]):
            The run.
        rows (`datasets.Dataset`):
            Training split; a tokenizer is trained on its captions where neither a model nor a tokenizer is named.

    Raises:
        `ValueError`: The weights are no RS-M-CLIP, or the configuration cannot be built.
        `OSError`: There is no such model or tokenizer.
    """
    model, processor = published_model(config) if config.model else random_model(config, rows)
    check_sizes(config, model.config)
    return model, processor


def published_model(config: TrainingConfig) -> tuple[RSMCLIPModel, CLIPProcessor]:
    """Weights from a folder or the Hub. They may lack the self-distillation head, which is not published by all."""
    found = PreTrainedConfig.get_config_dict(config.model)[0].get("model_type")
    if found != RSMCLIPConfig.model_type:
        raise ValueError(f"{config.model} holds a model of type {found!r}, not {RSMCLIPConfig.model_type!r}")
    model_config = RSMCLIPConfig.from_pretrained(config.model).to_dict()
    model_config["self_distillation"] = head_config(config, model_config["self_distillation"])
    model, loading = RSMCLIPModel.from_pretrained(
        config.model,
        config=RSMCLIPConfig(**model_config),
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("self_distillation_head."))
    if missing:
        raise ValueError(f"the weights in {config.model} lack {len(missing)} tensors, the first is {missing[0]}")
    return model, AutoProcessor.from_pretrained(config.model, trust_remote_code=True)


def random_model(config: TrainingConfig, rows: Dataset) -> tuple[RSMCLIPModel, CLIPProcessor]:
    """Random weights, and the tokenizer that is named or one trained on the captions."""
    if config.tokenizer is not None:
        tokenizer = AutoTokenizer.from_pretrained(config.tokenizer, model_max_length=config.max_length)
    else:
        tokenizer = train_tokenizer(captions_of(rows, config.languages), config.vocab_size, config.max_length)
    fields = dict(config.model_config)
    fields["self_distillation"] = head_config(config, fields.get("self_distillation"))
    if not isinstance(text_config := fields.get("text_config", {}), dict):
        raise UserError(f"model_config: text_config is {text_config!r}, not a table of sizes")
    fields["text_config"] = text_config | token_ids(tokenizer)
    model = RSMCLIPModel(build_on_meta(fields, "model_config").config)
    return model, make_processor(tokenizer, model.config.vision_config.image_size)


def head_config(config: TrainingConfig, found: dict | None) -> dict | None:
    """Sizes of the self-distillation head: those found, else the run's or the defaults; none without the objective."""
    if config.self_distillation_weight == 0:
        return None
    return found or config.model_config.get("self_distillation") or {}


def token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """What the text tower must know of its tokenizer."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad", "eos")}
    return {"vocab_size": len(tokenizer)} | ids


def captions_of(rows: Dataset, languages: list[str]) -> Iterator[str]:
    """All captions in the languages."""
    for captions in rows["captions"]:
        for language in languages:
            yield from (caption for caption in captions.get(language) or [] if caption)


def check_sizes(config: TrainingConfig, model_config: RSMCLIPConfig) -> None:
    """Views and captions must fit the towers; torch would fail on them late or, on a GPU, without saying why."""
    patch = model_config.vision_config.patch_size
    if config.self_distillation_weight > 0 and config.num_local_views > 0 and config.local_size % patch:
        raise ValueError(f"local_size {config.local_size} is no multiple of the image tower's patch size {patch}")
    text = model_config.text_config
    longest = text.max_position_embeddings - text.pad_token_id - 1  # XLM-R's positions start after the padding's
    if config.max_length > longest:
        raise ValueError(f"max_length is {config.max_length}, but the text tower takes at most {longest} tokens")
