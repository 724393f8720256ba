"""Load any model that embeds images and texts, with the tokenization it was trained with.

    load_embedder("outputs/demo")                                   a folder of this project, or an adapter
    load_embedder("google/siglip2-base-patch16-224")                a model of transformers with both towers
    load_embedder("laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k")  OpenCLIP's layout, converted in memory

The image processor is the model's own. `TEXT_INPUT` holds what a tokenizer does not know about its model.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModel, AutoProcessor, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.tokenization_utils_base import LARGE_INTEGER

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import read_json
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.eval.embed import Embedder, TextInput, processes
from rsmclip.models.folder import find_source
from rsmclip.models.openclip import CONFIG, PICKLE, SAFETENSORS, load_openclip

ADAPTER = "adapter_config.json"
DESCRIPTIONS = ["*.json", "*.jinja", "*.py", "*.txt", "*.model"]
TOKENIZER_FILES = ["tokenizer.json", "vocab.*", "*.model"]
WEIGHTS = ["model*.safetensors", "adapter_model.safetensors"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# By `model_type`. The default fits RS-M-CLIP, which pools over the mask, and CLIP and MetaCLIP 2, which are causal and
# pool at the end-of-text token. A context length is given where the text tower has more positions than it was trained
# on.
SIGLIP = TextInput("max_length", padding_side="right", attention_mask=False, lower_case=True)
TEXT_INPUT = {
    "altclip": TextInput(context_length=77),  # as in FlagAI; its XLM-RoBERTa takes 512
    "chinese_clip": TextInput(context_length=52),  # as in cn_clip; its BERT takes 512
    # SigLIP pools at the last position, which is padding, and attends to padding. It was trained (big_vision) on
    # lower case with padding on the right. SigLIP 2 of fixed resolution has type `siglip`, and its tokenizer does not
    # lower-case.
    "siglip": SIGLIP,
    "siglip2": SIGLIP,
}
ROBERTA = {"roberta", "xlm-roberta", "altclip_text_model"}  # positions start after the padding token's id


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
    Load a model with its processor.

    Args:
        name (`str`): Folder or Hub id of an RS-M-CLIP, of an adapter to it, of a model of `transformers` with
            `get_image_features` and `get_text_features`, or of a model in OpenCLIP's layout.
        batch_size (`int`, *optional*, defaults to 128): Images or texts per batch.
        dtype (`str`, *optional*, defaults to `"float32"`): Type of weights and activations: `"float32"`, `"bfloat16"`
            or `"float16"`. Embeddings are float32.
        device (`str` or `torch.device`, *optional*): By default the accelerator of this process, or the CPU.
        revision (`str`, *optional*): Branch, tag or commit of a Hub id.
        trust_remote_code (`bool`, *optional*, defaults to `True`): Whether code in the model folder may run.
        cache ([`EmbeddingCache`], *optional*): Cache of embeddings.
        shared (`bool`, *optional*, defaults to `False`): Whether all processes embed together.

    Raises:
        [`UserError`]: There is no such model, it cannot be loaded, or it lacks a tower, a tokenizer or weights in
        safetensors.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    model, processor = load(name, DTYPES[dtype], revision, trust_remote_code)
    text_input = text_input_of(model, processor.tokenizer)
    model.to(processes().device if device is None else device)
    return Embedder(model.eval(), processor, batch_size, text_input, cache, shared)


def load(
    name: str, dtype: torch.dtype, revision: str | None, trust_remote_code: bool
) -> tuple[PreTrainedModel, ProcessorMixin]:
    folder = find_source(name, DESCRIPTIONS, revision)
    if (folder / ADAPTER).is_file():
        model = load_adapted(name, find_source(name, WEIGHTS, revision), dtype, trust_remote_code)
    elif (folder / "config.json").is_file():
        model = load_model(name, find_source(name, WEIGHTS, revision), dtype, trust_remote_code)
    elif (folder / CONFIG).is_file():
        found = load_openclip(str(find_source(name, [SAFETENSORS, PICKLE], revision)))
        if not found.has_tokenizer:
            raise UserError(f"{name} has no tokenizer; put its files beside the weights")
        return found.model.to(dtype), found.processor
    else:
        raise UserError(f"{name} holds no model: it has no config.json, {ADAPTER} or {CONFIG}")
    return model, load_processor(name, folder, trust_remote_code)


def loading_errors(name: str) -> AbstractContextManager[None]:
    """Convert what `from_pretrained` of transformers and peft raises for a folder that cannot be loaded."""
    kinds = (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)
    return user_errors(*kinds, prefix=f"{name} cannot be loaded")


def load_model(name: str, folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{name} has no weights in safetensors; pickled weights are not loaded, since they can run code"
        )
    with loading_errors(name):
        model, found = AutoModel.from_pretrained(
            folder, trust_remote_code=trust_remote_code, dtype=dtype, use_safetensors=True, output_loading_info=True
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


def load_adapted(name: str, folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    """Load the base model of an adapter and merge the adapter into its weights."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"{name} has no adapter_model.safetensors; pickled weights are not loaded")
    described = read_json(folder / ADAPTER)
    if not (base := described.get("base_model_name_or_path")):
        raise UserError(f"{ADAPTER} of {name} has no base_model_name_or_path")
    model, _ = load(base, dtype, described.get("revision"), trust_remote_code)
    with loading_errors(name):
        adapted = PeftModel.from_pretrained(model, str(folder))
    return adapted.merge_and_unload()


def load_processor(name: str, folder: Path, trust_remote_code: bool) -> ProcessorMixin:
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):  # transformers would make an empty one
        raise UserError(f"{name} has no tokenizer; put its files beside the weights")
    with loading_errors(name):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise UserError(
            f"{name} has no processor for images and texts; put preprocessor_config.json beside the weights"
        )
    return processor


def text_input_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TextInput:
    """Return the entry of `TEXT_INPUT`, with a context length that tokenizer and text tower allow."""
    settings = TEXT_INPUT.get(model.config.model_type, TextInput())
    limits = [settings.context_length, tokenizer.model_max_length]  # 10^30 for a tokenizer without a limit
    text = getattr(model.config, "text_config", None)
    if positions := getattr(text, "max_position_embeddings", None):
        limits.append(positions - text.pad_token_id - 1 if text.model_type in ROBERTA else positions)
    known = [limit for limit in limits if limit and limit < LARGE_INTEGER]
    return replace(settings, context_length=min(known, default=None))
