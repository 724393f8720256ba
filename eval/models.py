"""Load any model that embeds images and texts, with the tokenization of its training.

load_embedder("outputs/demo")                                   a folder of this project, or an adapter
load_embedder("google/siglip2-base-patch16-224")                a model of transformers with both towers
load_embedder("laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k")  OpenCLIP's layout, converted in memory
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.tokenization_utils_base import LARGE_INTEGER

from rsmclip import RSMCLIPConfig
from rsmclip.core.arguments import check_count, check_type
from rsmclip.core.errors import UserError, foreign_errors
from rsmclip.core.files import read_json
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.eval.embed import Embedder, TextInput, processes
from rsmclip.models.folder import build_on_meta, check_descriptions, check_shapes, find_source, load_processor
from rsmclip.models.openclip import CONFIG, PICKLE, SAFETENSORS, load_openclip

ADAPTER = "adapter_config.json"
DESCRIPTIONS = ["*.json", "*.jinja", "*.py", "*.txt", "*.model"]
WEIGHTS = ["model*.safetensors", "adapter_model.safetensors"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Settings that a tokenizer does not contain, by `model_type`. The default fits RS-M-CLIP, which pools over the mask,
# and CLIP and MetaCLIP 2, which are causal and pool at the end-of-text token. A context length is given if the text
# tower has more positions than the model was trained on.
SIGLIP = TextInput("max_length", padding_side="right", attention_mask=False, lower_case=True)
TEXT_INPUT = {
    "altclip": TextInput(context_length=77),  # as in FlagAI; its XLM-RoBERTa takes 512
    "chinese_clip": TextInput(context_length=52),  # as in cn_clip; its BERT takes 512
    # SigLIP pools at the last position and attends to padding. It was trained (big_vision) on lower case with padding
    # on the right. SigLIP 2 of fixed resolution has type `siglip`, and its tokenizer does not lower-case.
    "siglip": SIGLIP,
    "siglip2": SIGLIP,
}
ROBERTA = {"roberta", "xlm-roberta", "altclip_text_model"}  # positions start after the padding token's id


def load_embedder(
    name: str | Path,
    batch_size: int = 128,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    revision: str | None = None,
    cache: EmbeddingCache | None = None,
    shared: bool = False,
) -> Embedder:
    """
    Load a model with its processor. Code in the model folder is run.

    Args:
        name (`str` or `Path`): Folder or Hub id of an RS-M-CLIP, of an adapter to it, of a model of `transformers`
            with `get_image_features` and `get_text_features`, or of a model in OpenCLIP's layout.
        batch_size (`int`, *optional*, defaults to 128): Images or texts per batch.
        dtype (`str`, *optional*, defaults to `"float32"`): Type of weights and activations: `"float32"`, `"bfloat16"`
            or `"float16"`. Embeddings are float32.
        device (`str` or `torch.device`, *optional*): By default the accelerator of this process, or the CPU.
        revision (`str`, *optional*): Branch, tag or commit of a Hub id.
        cache ([`EmbeddingCache`], *optional*): Cache of embeddings.
        shared (`bool`, *optional*, defaults to `False`): Whether processes share the batches, see [`Embedder`].

    Raises:
        [`UserError`]: There is no such model; it cannot be loaded; or it lacks a tower, a tokenizer or weights in
            safetensors.
    """
    check_type("model", name, str | Path, "a folder or Hub id, or what load_embedder returns")
    name = str(name)
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    batch_size = check_count("batch_size", batch_size)
    model, processor = load(name, DTYPES[dtype], revision)
    text_input = text_input_of(model, processor.tokenizer)
    model.to(processes().device if device is None else device)
    return Embedder(model.eval(), processor, batch_size, text_input, cache, shared, name, revision)


def as_embedder(model: str | Path | Embedder, **options: object) -> Embedder:
    """Load a model by its name, see [`load_embedder`]. A model that is loaded already is returned unchanged."""
    return model if isinstance(model, Embedder) else load_embedder(model, **options)


def load(name: str, dtype: torch.dtype, revision: str | None) -> tuple[PreTrainedModel, ProcessorMixin]:
    folder = find_source(name, DESCRIPTIONS, revision)
    check_descriptions(folder)
    if (folder / ADAPTER).is_file():
        model = load_adapted(name, find_source(name, WEIGHTS, revision), dtype)
    elif (folder / "config.json").is_file():
        if (fields := read_json(folder / "config.json")).get("model_type") == RSMCLIPConfig.model_type:
            # transformers does not name a wrong field, and takes memory for the sizes of config.json.
            check_shapes(build_on_meta(fields, f"config.json of {name}"), safetensors_folder(name, revision))
        model = load_model(name, safetensors_folder(name, revision), dtype)
    elif (folder / CONFIG).is_file():
        found = load_openclip(str(find_source(name, [SAFETENSORS, PICKLE], revision)))
        if not found.has_tokenizer:
            raise UserError(f"{name} has no tokenizer; put its files beside the weights")
        return found.model.to(dtype), found.processor
    else:
        raise UserError(f"{name} is not a model: it has no config.json, {ADAPTER} or {CONFIG}")
    return model, load_processor(name, folder, model.config)


def loading_errors(name: str) -> AbstractContextManager[None]:
    # For fields and weights that do not fit, transformers and peft raise exceptions of any kind.
    return foreign_errors(f"{name} cannot be loaded")


def safetensors_folder(name: str, revision: str | None) -> Path:
    folder = find_source(name, WEIGHTS, revision)
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{name} has no weights in safetensors; pickled weights are not loaded, since they can run code"
        )
    return folder


def load_model(name: str, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    with loading_errors(name):
        model, found = AutoModel.from_pretrained(
            folder, trust_remote_code=True, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    if missing := sorted(found["missing_keys"]):  # transformers initializes them at random
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"the weights of {name} lack {missing[0]}{more}")
    if lacking := [method for method in ("get_text_features", "get_image_features") if not hasattr(model, method)]:
        raise UserError(
            f"{name} is a {model.config.model_type}, not a model with a text tower and an image tower: "
            f"{type(model).__name__} has no {' and no '.join(lacking)}"
        )
    return model


def load_adapted(name: str, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(
            f"{name} has no adapter_model.safetensors; pickled weights are not loaded, since they can run code"
        )
    described = read_json(folder / ADAPTER)
    if not (base := described.get("base_model_name_or_path")):
        raise UserError(f"{ADAPTER} of {name} has no base_model_name_or_path")
    model, _ = load(base, dtype, described.get("revision"))
    with loading_errors(name):
        adapted = PeftModel.from_pretrained(model, str(folder))
    return adapted.merge_and_unload()


def text_input_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TextInput:
    settings = TEXT_INPUT.get(model.config.model_type, TextInput())
    limits = [settings.context_length, tokenizer.model_max_length]  # 10^30 for a tokenizer without a limit
    text = getattr(model.config, "text_config", None)
    if positions := getattr(text, "max_position_embeddings", None):
        limits.append(positions - text.pad_token_id - 1 if text.model_type in ROBERTA else positions)
    known = [limit for limit in limits if limit and limit < LARGE_INTEGER]
    return replace(settings, context_length=min(known, default=None))
