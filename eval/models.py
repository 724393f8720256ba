"""Loads any model that embeds images and texts, each to be measured as it was trained.

    load_embedder("outputs/demo")                                   a folder of ours, an adapter's too
    load_embedder("google/siglip2-base-patch16-224")                any of transformers with both towers
    load_embedder("laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k")  OpenCLIP's layout, converted on the fly

The image processor is the model's own. What texts need beside its tokenizer is a row of `TEXT_INPUT`.
"""

from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModel, AutoProcessor, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.tokenization_utils_base import LARGE_INTEGER

from rsmclip.core.files import read_json
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.eval.embed import Embedder, TextInput, processes
from rsmclip.models.folder import find_source
from rsmclip.models.openclip import CONFIG, PICKLE, SAFETENSORS, load_openclip

ADAPTER = "adapter_config.json"
DESCRIPTIONS = ["*.json", "*.jinja", "*.py", "*.txt", "*.model"]
TOKENIZER_FILES = ["tokenizer.json", "vocab.*", "*.model"]
WEIGHTS = ["model*.safetensors", "adapter_model.safetensors"]
DTYPES = ("float32", "bfloat16", "float16")

# By `model_type`; any other takes texts as RS-M-CLIP. Where a context length is given, the text tower has more
# positions than it was trained on.
SIGLIP = TextInput("max_length", padding_side="right", attention_mask=False, lower_case=True)
TEXT_INPUT = {
    "rsmclip": TextInput(),  # pools over the mask
    "clip": TextInput(),  # causal, pools at the end-of-text token: what comes after it changes nothing
    "metaclip_2": TextInput(),  # likewise
    "altclip": TextInput(context_length=77),  # in FlagAI, where it comes from; its XLM-RoBERTa takes 512
    "chinese_clip": TextInput(context_length=52),  # in cn_clip, for all its models; its BERT takes 512
    # Pools at the last position, which is padding, and attends to padding: trained so in big_vision, on lower case
    # padded on the right. SigLIP 2 of fixed resolution is a `siglip`, with a tokenizer that lower-cases nothing.
    "siglip": SIGLIP,
    "siglip2": SIGLIP,
}
ROBERTA = {"roberta", "xlm-roberta", "altclip_text_model"}  # positions begin after the padding token's id

# What transformers, peft and safetensors raise on a folder that cannot be loaded, beside ValueError and OSError.
LOADING_ERRORS = (ImportError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)


def load_embedder(
    name: str,
    batch_size: int = 128,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    revision: str | None = None,
    trust_remote_code: bool = True,
    cache: EmbeddingCache | None = None,
    shared: bool = False,
) -> Embedder:
    """
    A model with its processor, ready to embed.

    Args:
        name (`str`):
            Folder or Hub id: of RS-M-CLIP, or of an adapter to it; of any model of `transformers` with
            `get_image_features` and `get_text_features`; or in OpenCLIP's layout.
        batch_size (`int`, *optional*, defaults to 128):
            Images or texts a batch.
        dtype (`str`, *optional*, defaults to `"float32"`):
            What the model computes in: `"float32"`, `"bfloat16"` or `"float16"`. Embeddings are float32.
        device (`str` or `torch.device`, *optional*):
            By default the accelerator of this process if there is one.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub id.
        trust_remote_code (`bool`, *optional*, defaults to `True`):
            Whether code that comes with the model may run.
        cache ([`EmbeddingCache`], *optional*):
            Where embeddings are kept.
        shared (`bool`, *optional*, defaults to `False`):
            Whether all processes embed together.

    Returns:
        [`Embedder`]

    Raises:
        `ValueError`: One line: the model lacks a tower, a tokenizer, or weights in safetensors; or cannot be loaded.
        `OSError`: There is no such folder or repository.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    try:
        model, processor = load(name, getattr(torch, dtype), revision, trust_remote_code)
    except LOADING_ERRORS as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from error
    text_input = text_input_of(model, processor.tokenizer)
    model.to(processes().device if device is None else device)
    return Embedder(model.eval(), processor, batch_size, text_input, cache, shared)


def load(
    name: str, dtype: torch.dtype, revision: str | None, trust_remote_code: bool
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of a folder or Hub id in any of the layouts."""
    folder = find_source(name, DESCRIPTIONS, revision)
    if (folder / ADAPTER).is_file():
        model = load_adapted(name, find_source(name, WEIGHTS, revision), dtype, trust_remote_code)
    elif (folder / "config.json").is_file():
        model = load_model(name, find_source(name, WEIGHTS, revision), dtype, trust_remote_code)
    elif (folder / CONFIG).is_file():
        found = load_openclip(str(find_source(name, [SAFETENSORS, PICKLE], revision)))
        if not found.has_tokenizer:
            raise ValueError(f"{name} has no tokenizer; put its files beside the weights")
        return found.model.to(dtype), found.processor
    else:
        raise ValueError(f"{name} holds no model: there is no config.json, {ADAPTER} or {CONFIG}")
    return model, load_processor(name, folder, trust_remote_code)


def load_model(name: str, folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """A model of `transformers` with both towers, all of whose weights are there, in safetensors."""
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{name} has no weights in safetensors, and pickled ones are not loaded")
    model, found = AutoModel.from_pretrained(
        folder, trust_remote_code=trust_remote_code, dtype=dtype, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"the weights of {name} lack {missing[0]}{more}; they would be random")
    if lacking := [method for method in ("get_text_features", "get_image_features") if not hasattr(model, method)]:
        raise ValueError(
            f"{name} is a {model.config.model_type}, not a model with a text tower and an image tower: "
            f"{type(model).__name__} has no {' and no '.join(lacking)}"
        )
    return model


def load_adapted(name: str, folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """The model that an adapter was trained on, with the adapter merged into its weights."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{name} has no adapter_model.safetensors, and pickled weights are not loaded")
    described = read_json(folder / ADAPTER)
    if not (base := described.get("base_model_name_or_path")):
        raise ValueError(f"{ADAPTER} of {name} names no base_model_name_or_path to which the adapter belongs")
    model, _ = load(base, dtype, described.get("revision"), trust_remote_code)
    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def load_processor(name: str, folder: Path, trust_remote_code: bool) -> ProcessorMixin:
    """The processor of a model, with its image processor and its tokenizer."""
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):  # transformers would make one without words
        raise ValueError(f"{name} has no tokenizer; put its files beside the weights")
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ValueError(
            f"{name} has no processor of images and texts; put preprocessor_config.json beside the weights"
        )
    return processor


def text_input_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TextInput:
    """The row of `TEXT_INPUT`, its context length within what tokenizer and text tower allow."""
    settings = TEXT_INPUT.get(model.config.model_type, TextInput())
    limits = [settings.context_length, tokenizer.model_max_length]  # a tokenizer without a limit says 10^30
    text = getattr(model.config, "text_config", None)
    if positions := getattr(text, "max_position_embeddings", None):
        limits.append(positions - text.pad_token_id - 1 if text.model_type in ROBERTA else positions)
    known = [limit for limit in limits if limit and limit < LARGE_INTEGER]
    return replace(settings, context_length=min(known, default=None))
