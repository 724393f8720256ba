"""Read and write models in OpenCLIP's layout. Tensors are renamed, split and transposed, so all values stay equal.

OpenCLIP's `CustomTextCLIP` with a ViT and an XLM-RoBERTa has our architecture with other names of tensors. OpenCLIP
packs queries, keys and values of the image tower into one tensor, and stores the image projection transposed. Weights
are mapped from their file and keep their precision.
"""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import HTTPError, StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, CLIPProcessor, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from rsmclip import RSMCLIPConfig, RSMCLIPImageProcessor, RSMCLIPModel
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import new_folder, read_json
from rsmclip.models.folder import (
    LARGEST_SIZE,
    build_on_meta,
    check_model_type,
    find_source,
    is_finite,
    weight_files,
)

CONFIG, SAFETENSORS, PICKLE = "open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
TOKENIZER_FILES = ["tokenizer*.json", "*.model", "special_tokens_map.json"]
CONTEXT_LENGTH = 77  # OpenCLIP's default

# Patterns of our names, and OpenCLIP's names.
RENAMINGS = [
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"\.self_attn\.[qkv]_proj\.", ".attn.in_proj_"),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_model\.", "text.transformer."),
    (r"^text_projection\.", "text.proj."),
]
TRANSPOSED = "visual.proj"
POSITION_IDS = "text.transformer.embeddings.position_ids"  # a constant, in files of old versions of transformers

# Fields of OpenCLIP's image tower that are converted or have no effect on embeddings. Other fields must be off.
IMAGE_FIELDS = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "norm_kwargs", "act_kwargs"}
IMAGE_FIELDS |= {"patch_dropout", "output_tokens", "pos_embed_type", "final_ln_after_pool"}
IMAGE_FIELDS |= {"attn_pooler_queries", "attn_pooler_heads", "timm_pool", "timm_proj"}
PLAIN_VIT = {"block_type": "default", "pool_type": "tok"}  # values that mean off
POOLINGS = {"mean": "mean_pooler", "max": "max_pooler", "cls": "cls_last_hidden_state_pooler", "pooler": "cls_pooler"}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TEXT_TOWERS = {"xlm-roberta-base": {}, "xlm-roberta-large": LARGE}  # sizes that differ from our defaults
RESAMPLING = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
RESIZE_MODES = ("shortest", "longest", "squash")
COMPARED = {"size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std"}


@dataclass(frozen=True)
class OpenCLIPFolder:
    """Content of a folder in OpenCLIP's layout."""

    path: Path  # local folder
    described: dict  # fields of `open_clip_config.json`
    model: RSMCLIPModel  # in the precision of the weights
    processor: CLIPProcessor | RSMCLIPImageProcessor  # `RSMCLIPImageProcessor` if there is no tokenizer

    @property
    def has_tokenizer(self) -> bool:
        return isinstance(self.processor, CLIPProcessor)


def load_openclip(source: str, tokenizer: str | None = None) -> OpenCLIPFolder:
    """
    Load a model from OpenCLIP's layout.

    Args:
        source (`str`): Local folder or Hub id with `open_clip_config.json` and `open_clip_model.safetensors` or
            `open_clip_pytorch_model.bin`.
        tokenizer (`str`, *optional*): Folder or Hub id of the tokenizer; by default the one in `source`.

    Raises:
        [`UserError`]: There is no such model; a tower is not a plain ViT or XLM-RoBERTa; or a tensor is missing,
            unexpected, not finite or has another shape.
    """
    read_from = find_source(source, [CONFIG, SAFETENSORS, PICKLE, "README.md", "*/config.json", *TOKENIZER_FILES])
    described = read_json(read_from / CONFIG)
    model_cfg = section(described, "model_cfg")
    model = build_on_meta(model_fields(model_cfg, read_from), str(read_from / CONFIG))
    image_size, text_cfg = model.config.vision_config.image_size, section(model_cfg, "text_cfg")
    processor = read_image_processor(section(described, "preprocess_cfg", {}), image_size)
    # OpenCLIP keeps the tokenizer beside the weights, or in a sub-folder.
    places = [tokenizer] if tokenizer else [read_from, read_from / str(text_cfg.get("hf_tokenizer_name") or "")]
    context_length = positive(text_cfg.get("context_length") or CONTEXT_LENGTH, "context_length")
    text_tokenizer = read_tokenizer(places, model.config, context_length)
    if text_tokenizer is not None:
        processor = CLIPProcessor(image_processor=processor, tokenizer=text_tokenizer)
    model.load_state_dict(from_openclip(read_weights(read_from), model), assign=True)
    fill_buffers(model)
    return OpenCLIPFolder(read_from, described, model, processor)


def export_openclip(source: str, folder: Path) -> None:
    """
    Write a model in OpenCLIP's layout, without its self-distillation head.

    Args:
        source (`str`): Folder or Hub id of an RS-M-CLIP.
        folder (`Path`): New or empty folder.

    Raises:
        [`UserError`]: There is no such model, it is not an RS-M-CLIP, a weight is not finite, or OpenCLIP cannot
            describe its preprocessing.
    """
    read_from = find_source(source, ["*.json", "*.safetensors", *TOKENIZER_FILES])
    check_model_type(read_from)
    config = RSMCLIPConfig.from_pretrained(read_from, self_distillation=None)
    with torch.device("meta"):
        model = RSMCLIPModel(config)
    with user_errors(OSError, ValueError, prefix=f"the image processor in {read_from} cannot be read"):
        image_processor = RSMCLIPImageProcessor.from_pretrained(read_from)
    described = describe(config, image_processor)
    text_cfg = described["model_cfg"]["text_cfg"]
    tokenizer = read_tokenizer([read_from], config, None)
    weights = {name: tensor for path in weight_files(read_from) for name, tensor in read_safetensors(path).items()}
    tensors = to_openclip(weights, model)
    if tokenizer is not None:
        text_cfg["context_length"] = tokenizer.model_max_length
    with new_folder(folder) as unfinished, user_errors(OSError, SafetensorError, prefix=f"{folder} cannot be written"):
        if tokenizer is not None:
            tokenizer.save_pretrained(unfinished)
        if text_cfg["hf_model_name"] not in TEXT_TOWERS:
            config.text_config.save_pretrained(unfinished / text_cfg["hf_model_name"])
        (unfinished / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, unfinished / SAFETENSORS, metadata={"format": "pt"})


def fill_buffers(model: RSMCLIPModel) -> None:
    # No file stores the buffers, so they are still on the meta device: positions, and token types, which are 0.
    for name, buffer in list(model.named_buffers()):
        owner, _, last = name.rpartition(".")
        is_position = last == "position_ids"
        value = torch.arange(buffer.shape[-1])[None] if is_position else torch.zeros_like(buffer, device="cpu")
        model.get_submodule(owner).register_buffer(last, value, persistent=False)


def tensor_names(model: RSMCLIPModel) -> dict[str, list[str]]:
    # Map OpenCLIP's name of each tensor to our names: three names if OpenCLIP packs queries, keys and values.
    names = {}
    for ours in model.state_dict():
        theirs = ours
        for pattern, replacement in RENAMINGS:
            theirs = re.sub(pattern, replacement, theirs)
        names.setdefault(theirs, []).append(ours)
    for parts in names.values():
        if len(parts) > 1:
            parts.sort(key=lambda name: "qkv".index(re.search(r"([qkv])_proj", name)[1]))
    return names


def from_openclip(weights: dict[str, torch.Tensor], model: RSMCLIPModel) -> dict[str, torch.Tensor]:
    names, ours = tensor_names(model), {}
    expected = {theirs: openclip_shape(theirs, parts, model) for theirs, parts in names.items()}
    weights = {name: tensor for name, tensor in weights.items() if name != POSITION_IDS}
    check_fit(weights, expected)
    for theirs, parts in names.items():
        tensor = weights.pop(theirs)
        if len(parts) > 1:
            ours |= zip(parts, [part.clone() for part in tensor.chunk(len(parts))], strict=True)
        else:
            ours[parts[0]] = tensor.t().contiguous() if theirs == TRANSPOSED else tensor
    return ours


def to_openclip(ours: dict[str, torch.Tensor], model: RSMCLIPModel) -> dict[str, torch.Tensor]:
    names = tensor_names(model)
    ours = {name: tensor for name, tensor in ours.items() if not name.startswith("self_distillation_head.")}
    check_fit(ours, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    packed = {theirs: [ours[name] for name in parts] for theirs, parts in names.items()}
    tensors = {theirs: torch.cat(parts) if len(parts) > 1 else parts[0] for theirs, parts in packed.items()}
    return tensors | {TRANSPOSED: tensors[TRANSPOSED].t().contiguous()}


def openclip_shape(theirs: str, ours: list[str], model: RSMCLIPModel) -> tuple[int, ...]:
    shape = tuple(model.get_parameter(ours[0]).shape)
    if theirs == TRANSPOSED:
        return shape[::-1]
    return (shape[0] * len(ours), *shape[1:]) if len(ours) > 1 else shape


def check_fit(weights: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is surplus" for name in weights if name not in expected]
    for name in weights.keys() & expected.keys():
        if (shape := tuple(weights[name].shape)) != expected[name]:
            problems.append(f"{name} has shape {shape}, not {expected[name]}")
        elif not weights[name].is_floating_point():
            problems.append(f"{name} has type {weights[name].dtype}")
        elif not is_finite(weights[name]):
            problems.append(f"{name} has values that are NaN or infinite")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"the weights do not fit their configuration: {'; '.join(problems[:5])}{more}")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / SAFETENSORS).is_file():
        found = read_safetensors(folder / SAFETENSORS)
    elif (path := folder / PICKLE).is_file():
        # Unpickling arbitrary bytes may raise any exception.
        with user_errors(Exception, prefix=f"{path} is damaged, or contains other objects than tensors"):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        if isinstance(found, dict):
            found = found.get("state_dict", found)  # of a checkpoint of OpenCLIP's trainer
        if not isinstance(found, dict) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
        ):
            raise UserError(f"{path} contains other objects than tensors with names, and is not loaded")
    else:
        raise UserError(f"{folder} has neither {SAFETENSORS} nor {PICKLE}")
    weights = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    if len(weights) < len(found):
        raise UserError(f"{folder} contains tensors twice, with the prefix 'module.' and without")
    return weights


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    # Map the file once per tensor, so that the memory of a packed tensor is released after it was split.
    with user_errors(OSError, SafetensorError, prefix=f"{path} is damaged"):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        return {name: safe_open(path, framework="pt").get_tensor(name) for name in names}


def section(fields: dict, name: str, default: dict | None = None) -> dict:
    found = fields.get(name) or default
    if not isinstance(found, dict):
        raise UserError(f"{CONFIG}: {name} is {found!r}, not an object with fields")
    return found


def positive(value: object, name: str, kinds: type | tuple[type, ...] = int) -> int | float:
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= LARGEST_SIZE:
        raise UserError(f"{CONFIG}: {name} is {value!r}, not a positive number of at most {LARGEST_SIZE:,}")
    return value


def model_fields(model_cfg: dict, folder: Path) -> dict:
    """
    Return the arguments of [`RSMCLIPConfig`] for OpenCLIP's `model_cfg`; other architectures are a [`UserError`].

    Args:
        model_cfg (`dict`): Field of `open_clip_config.json`.
        folder (`Path`): Folder of this file; a sub-folder may describe the text tower.
    """
    vision, text = section(model_cfg, "vision_cfg"), section(model_cfg, "text_cfg")
    # Refuse other architectures.
    if isinstance(vision.get("layers"), list):
        raise UserError("the image tower is a ResNet; only ViTs can be converted")
    for name, value in vision.items():
        if name not in IMAGE_FIELDS and value and value != PLAIN_VIT.get(name):
            raise UserError(f"the image tower has {name} {value!r}, which CLIP's ViT does not have")
    if not isinstance(text.get("hf_model_name"), str):
        raise UserError("the text tower is OpenCLIP's own, not an XLM-RoBERTa (text_cfg has no hf_model_name)")
    for name in ("init_logit_bias", "nonscalar_logit_scale", "multimodal_cfg"):
        if model_cfg.get(name):
            raise UserError(f"the model has {name} {model_cfg[name]!r}, which this architecture does not have")
    pooler, projection = text.get("hf_pooler_type") or "mean_pooler", text.get("hf_proj_type", "mlp") or "none"
    if pooler not in POOLINGS.values():
        raise UserError(f"hf_pooler_type {pooler!r} is not one of {', '.join(POOLINGS.values())}")
    # Translate the sizes.
    embed_dim, width = positive(model_cfg.get("embed_dim"), "embed_dim"), positive(vision.get("width", 768), "width")
    activation = "gelu_pytorch_tanh" if section(vision, "act_kwargs", {}).get("approximate") == "tanh" else "gelu"
    return {
        "projection_dim": embed_dim,
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": int(width * positive(vision.get("mlp_ratio", 4.0), "mlp_ratio", (int, float))),
            "num_hidden_layers": positive(vision.get("layers", 12), "layers"),
            "num_attention_heads": width // positive(vision.get("head_width", 64), "head_width"),
            "image_size": as_square(vision.get("image_size", 224), "image_size"),
            "patch_size": as_square(vision.get("patch_size", 16), "patch_size"),
            "hidden_act": "quick_gelu" if model_cfg.get("quick_gelu") else activation,
            "layer_norm_eps": positive(section(vision, "norm_kwargs", {}).get("eps", 1e-5), "eps", (int, float)),
            "projection_dim": embed_dim,
        },
        "text_config": text_fields(text["hf_model_name"], folder),
        "text_pooling": next(ours for ours, theirs in POOLINGS.items() if theirs == pooler),
        "text_projection_type": projection,
        "self_distillation": None,
    }


def as_square(size: object, name: str) -> int:
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if height != width:
        raise UserError(f"{name} {size} is not a square, and CLIP's ViT takes squares only")
    return positive(height, name)


def text_fields(name: str, folder: Path) -> dict:
    with user_errors(OSError, prefix=f"{CONFIG}: hf_model_name"):
        described_here = (folder / name / "config.json").is_file()
    if not described_here and name.removeprefix("FacebookAI/") in TEXT_TOWERS:
        return TEXT_TOWERS[name.removeprefix("FacebookAI/")]
    place = folder / name if described_here else name
    if described_here:
        read_json(place / "config.json")  # transformers expects an object
    kinds = (OSError, ValueError, RecursionError, HTTPError, StrictDataclassError)
    with user_errors(*kinds, prefix=f"the configuration of the text tower {place} cannot be read"):
        config = AutoConfig.from_pretrained(place)
        fields = config.to_diff_dict()
    if config.model_type != "xlm-roberta":
        raise UserError(f"the text tower {name} is of type {config.model_type!r}, not an XLM-RoBERTa")
    return {key: value for key, value in fields.items() if key not in ("transformers_version", "architectures")}


def read_tokenizer(
    places: list[str | Path], config: RSMCLIPConfig, context_length: int | None
) -> PreTrainedTokenizerBase | None:
    # A place of type `str` is a Hub id or folder that the user named. A `Path` is a folder that may have a tokenizer.
    files = ("tokenizer.json", "sentencepiece.bpe.model")
    with user_errors(OSError, prefix="a folder of a tokenizer has an impossible name"):
        here = [place for place in places if isinstance(place, str) or any((place / file).is_file() for file in files)]
    if not here:
        return None
    text = config.text_config
    # `tokenizers` raises plain `Exception`. Pass the text tower's configuration: transformers knows no tokenizer for
    # the type of the whole model.
    with user_errors(Exception, prefix=f"the tokenizer in {here[0]} cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(here[0], config=text, trust_remote_code=False)
    if len(tokenizer) > text.vocab_size:
        raise UserError(f"the tokenizer has {len(tokenizer)} tokens, but the text tower only {text.vocab_size}")
    longest = text.max_position_embeddings - text.pad_token_id - 1
    tokenizer.model_max_length = min(context_length or tokenizer.model_max_length, longest)
    return tokenizer


def read_image_processor(preprocess_cfg: dict, image_size: int) -> RSMCLIPImageProcessor:
    mode, fill = preprocess_cfg.get("resize_mode") or "shortest", preprocess_cfg.get("fill_color") or 0
    if mode not in RESIZE_MODES:
        raise UserError(f"resize_mode {mode!r} is not one of {', '.join(RESIZE_MODES)}")
    if mode == "longest" and fill != 0:
        raise UserError(f"fill_color is {fill!r}; only black borders (0) can be converted")
    interpolation = preprocess_cfg.get("interpolation") or "bicubic"
    if interpolation not in (*RESAMPLING, "random"):
        raise UserError(f"interpolation {interpolation!r} is not one of {', '.join(RESAMPLING)}")
    size = {"height": image_size, "width": image_size} if mode == "squash" else {"shortest_edge": image_size}
    return RSMCLIPImageProcessor(
        size=size | ({"longest_edge": image_size} if mode == "longest" else {}),
        do_center_crop=mode != "squash",
        crop_size={"height": image_size, "width": image_size},
        resample=RESAMPLING["bilinear" if interpolation == "bilinear" else "bicubic"],  # "random" is for training
        image_mean=by_channel(preprocess_cfg.get("mean") or OPENAI_CLIP_MEAN, "mean"),
        image_std=by_channel(preprocess_cfg.get("std") or OPENAI_CLIP_STD, "std"),
    )


def by_channel(found: object, name: str) -> list[float]:
    values = list(found) if isinstance(found, list | tuple) else [found] * 3
    if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
        raise UserError(f"{name} {found!r} is not a number, nor three numbers, one per channel")
    return values


def describe(config: RSMCLIPConfig, processor: RSMCLIPImageProcessor) -> dict:
    """Return the fields of `open_clip_config.json` for a model and its image processor."""
    vision, text = config.vision_config, config.text_config
    vision_cfg = {
        "image_size": vision.image_size,
        "layers": vision.num_hidden_layers,
        "width": vision.hidden_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
        "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        "patch_size": vision.patch_size,
    }
    if vision.layer_norm_eps != 1e-5:
        vision_cfg["norm_kwargs"] = {"eps": vision.layer_norm_eps}
    if vision.hidden_act == "gelu_pytorch_tanh":
        vision_cfg["act_kwargs"] = {"approximate": "tanh"}
    elif vision.hidden_act not in ("gelu", "quick_gelu"):
        raise UserError(f"OpenCLIP has no activation {vision.hidden_act!r}")
    name = next((name for name, sizes in TEXT_TOWERS.items() if is_same_tower(text, sizes)), "text_model")
    text_cfg = {
        "hf_model_name": name,
        "hf_tokenizer_name": name,
        "hf_pooler_type": POOLINGS[config.text_pooling],
        "hf_proj_type": None if config.text_projection_type == "none" else config.text_projection_type,
    }
    model_cfg = {"embed_dim": config.projection_dim, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    if vision.hidden_act == "quick_gelu":
        model_cfg["quick_gelu"] = True
    return {"model_cfg": model_cfg, "preprocess_cfg": describe_preprocessing(processor, vision.image_size)}


def is_same_tower(text: PreTrainedConfig, sizes: dict) -> bool:
    known = RSMCLIPConfig(text_config=sizes).text_config
    names = [*LARGE, "vocab_size", "max_position_embeddings", "type_vocab_size"]
    names += ["hidden_act", "layer_norm_eps", "pad_token_id"]
    return all(getattr(text, name) == getattr(known, name) for name in names)


def describe_preprocessing(processor: RSMCLIPImageProcessor, image_size: int) -> dict:
    sides = {name for name, value in dict(processor.size).items() if value is not None}
    mode = "squash" if sides == {"height", "width"} else "longest" if "longest_edge" in sides else "shortest"
    described = {
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "interpolation": {number: name for name, number in RESAMPLING.items()}.get(processor.resample, "bicubic"),
        "resize_mode": mode,
    }
    # Convert the description back: OpenCLIP can describe the processor only if the result equals it.
    ours, theirs = processor.to_dict(), read_image_processor(described, image_size).to_dict()
    for name in theirs:
        if (name.startswith("do_") or name in COMPARED) and ours.get(name) != theirs[name]:
            raise UserError(f"OpenCLIP cannot describe an image processor with {name} {ours.get(name)}")
    return described
