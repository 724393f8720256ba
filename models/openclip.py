"""OpenCLIP's layout and ours, both ways, tensor by tensor: nothing is computed, so nothing differs.

OpenCLIP's `CustomTextCLIP` with a ViT and an XLM-RoBERTa is this model under other names; it packs the image tower's
queries, keys and values into one tensor and holds the image projection transposed. Weights are mapped from their file,
and keep the precision they have.
"""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, CLIPProcessor, PreTrainedTokenizerBase
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from rsmclip import RSMCLIPConfig, RSMCLIPImageProcessor, RSMCLIPModel
from rsmclip.core.files import new_folder, read_json
from rsmclip.models.folder import check_model_type, find_source, weight_files

CONFIG, SAFETENSORS, PICKLE = "open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
TOKENIZER_FILES = ["tokenizer*.json", "*.model", "special_tokens_map.json"]
CONTEXT_LENGTH = 77  # OpenCLIP's, where its configuration names none

# Our names to OpenCLIP's.
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
POSITION_IDS = "text.transformer.embeddings.position_ids"  # a constant that old versions of transformers saved

# Fields of OpenCLIP's image tower that are read here, or change no embedding. Any other must be off.
IMAGE_FIELDS = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "norm_kwargs", "act_kwargs"}
IMAGE_FIELDS |= {"patch_dropout", "output_tokens", "pos_embed_type", "final_ln_after_pool"}
IMAGE_FIELDS |= {"attn_pooler_queries", "attn_pooler_heads", "timm_pool", "timm_proj"}
PLAIN_VIT = {"block_type": "default", "pool_type": "tok"}  # the names of what is meant by off
POOLINGS = {"mean": "mean_pooler", "max": "max_pooler", "cls": "cls_last_hidden_state_pooler", "pooler": "cls_pooler"}
TEXT_TOWERS = {
    "xlm-roberta-base": {},
    "xlm-roberta-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
RESAMPLING = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
COMPARED = {"size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std"}


@dataclass(frozen=True)
class OpenCLIPFolder:
    """
    What a folder or repository in OpenCLIP's layout holds.

    Args:
        path (`Path`): The folder on this machine.
        described (`dict`): The fields of its `open_clip_config.json`.
        model ([`RSMCLIPModel`]): The model, in the precision of the weights.
        processor (`CLIPProcessor` or [`RSMCLIPImageProcessor`]): The processor; without a tokenizer that of images.
    """

    path: Path
    described: dict
    model: RSMCLIPModel
    processor: CLIPProcessor | RSMCLIPImageProcessor

    @property
    def has_tokenizer(self) -> bool:
        """Whether the model can read texts."""
        return isinstance(self.processor, CLIPProcessor)


def load_openclip(source: str, tokenizer: str | None = None) -> OpenCLIPFolder:
    """
    Load a model from OpenCLIP's layout.

    Args:
        source (`str`):
            Local folder or Hub id with `open_clip_config.json` and `open_clip_model.safetensors` or
            `open_clip_pytorch_model.bin`.
        tokenizer (`str`, *optional*):
            Folder or Hub id of the tokenizer; by default the one in `source`.

    Raises:
        `ValueError`: A tower that is not a plain ViT or XLM-RoBERTa, or a tensor missing, surplus or misshapen.
        `OSError`: There is no such folder, repository or file.
    """
    read_from = find_source(source, [CONFIG, SAFETENSORS, PICKLE, "README.md", "*/config.json", *TOKENIZER_FILES])
    described = read_json(read_from / CONFIG)
    try:
        config = read_config(described["model_cfg"], read_from)
        image_processor = read_image_processor(described.get("preprocess_cfg") or {}, config.vision_config.image_size)
        text_cfg = described["model_cfg"]["text_cfg"]
    except KeyError as error:
        raise ValueError(f"{read_from / CONFIG} has no {error}") from error
    except (AttributeError, TypeError, ZeroDivisionError, StrictDataclassError) as error:
        raise ValueError(f"{read_from / CONFIG} cannot be understood: {error}") from error
    places = [tokenizer] if tokenizer else [read_from, read_from / (text_cfg.get("hf_tokenizer_name") or "")]
    text_tokenizer = read_tokenizer(places, config, text_cfg.get("context_length") or CONTEXT_LENGTH)
    processor = image_processor
    if text_tokenizer is not None:
        processor = CLIPProcessor(image_processor=image_processor, tokenizer=text_tokenizer)
    with torch.device("meta"):
        model = RSMCLIPModel(config)
    model.load_state_dict(from_openclip(read_weights(read_from), model), assign=True)
    return OpenCLIPFolder(read_from, described, model, processor)


def export_openclip(source: str, folder: Path) -> None:
    """
    Makes a folder in OpenCLIP's layout of a model; the self-distillation head, which OpenCLIP has not, stays behind.

    Args:
        source (`str`): Folder or Hub id of an RS-M-CLIP.
        folder (`Path`): Where it goes.

    Raises:
        `ValueError`: No RS-M-CLIP, or preprocessing that OpenCLIP cannot describe.
        `OSError`: There is no such folder, repository or file.
    """
    read_from = find_source(source, ["*.json", "*.safetensors", *TOKENIZER_FILES])
    check_model_type(read_from)
    config = RSMCLIPConfig.from_pretrained(read_from, self_distillation=None)
    with torch.device("meta"):
        model = RSMCLIPModel(config)
    described = describe(config, RSMCLIPImageProcessor.from_pretrained(read_from))
    text_cfg = described["model_cfg"]["text_cfg"]
    tokenizer = read_tokenizer([read_from], config, None)
    tensors = to_openclip(read_model_weights(read_from), model)
    with new_folder(folder) as unfinished:
        if tokenizer is not None:
            tokenizer.save_pretrained(unfinished)
            text_cfg["context_length"] = tokenizer.model_max_length
        if text_cfg["hf_model_name"] not in TEXT_TOWERS:
            config.text_config.save_pretrained(unfinished / text_cfg["hf_model_name"])
        (unfinished / CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, unfinished / SAFETENSORS, metadata={"format": "pt"})


def tensor_names(model: RSMCLIPModel) -> dict[str, list[str]]:
    """OpenCLIP's name of each tensor, to ours: three where OpenCLIP packs queries, keys and values."""
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
    """
    Our tensors of OpenCLIP's: the same memory but where OpenCLIP packs or transposes.

    Args:
        weights (`dict[str, torch.Tensor]`): OpenCLIP's state dict.
        model ([`RSMCLIPModel`]): The model they must fit; it may be on the meta device.
    """
    names, ours = tensor_names(model), {}
    expected = {theirs: openclip_shape(theirs, ours, model) for theirs, ours in names.items()}
    weights = {name: tensor for name, tensor in weights.items() if name != POSITION_IDS}
    check_fit(weights, expected)
    for theirs, parts in names.items():
        tensor = weights.pop(theirs)
        if theirs == TRANSPOSED:
            tensor = tensor.t().contiguous()
        ours |= zip(
            parts, [part.clone() for part in tensor.chunk(len(parts))] if len(parts) > 1 else [tensor], strict=True
        )
    return ours


def to_openclip(ours: dict[str, torch.Tensor], model: RSMCLIPModel) -> dict[str, torch.Tensor]:
    """
    OpenCLIP's tensors of ours.

    Args:
        ours (`dict[str, torch.Tensor]`): Our state dict; a self-distillation head in it is left out.
        model ([`RSMCLIPModel`]): The model without a head; it may be on the meta device.
    """
    names = tensor_names(model)
    ours = {name: tensor for name, tensor in ours.items() if not name.startswith("self_distillation_head.")}
    check_fit(ours, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    packed = {theirs: [ours[name] for name in parts] for theirs, parts in names.items()}
    tensors = {theirs: torch.cat(parts) if len(parts) > 1 else parts[0] for theirs, parts in packed.items()}
    return tensors | {TRANSPOSED: tensors[TRANSPOSED].t().contiguous()}


def openclip_shape(theirs: str, ours: list[str], model: RSMCLIPModel) -> tuple[int, ...]:
    """Shape of a tensor in OpenCLIP's layout."""
    shape = tuple(model.get_parameter(ours[0]).shape)
    if theirs == TRANSPOSED:
        return shape[::-1]
    return (shape[0] * len(ours), *shape[1:]) if len(ours) > 1 else shape


def check_fit(weights: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    """Raises `ValueError` that names the tensors which are missing, surplus, misshapen or integers."""
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is surplus" for name in weights if name not in expected]
    for name in weights.keys() & expected.keys():
        if (shape := tuple(weights[name].shape)) != expected[name]:
            problems.append(f"{name} has shape {shape}, not {expected[name]}")
        elif not weights[name].is_floating_point():
            problems.append(f"{name} holds {weights[name].dtype}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"the weights do not fit their configuration: {'; '.join(problems[:5])}{more}")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """OpenCLIP's state dict, mapped from its file; a checkpoint of its trainer is one too."""
    if (folder / SAFETENSORS).is_file():
        found = read_safetensors(folder / SAFETENSORS)
    elif (path := folder / PICKLE).is_file():
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
            found = found.get("state_dict", found)
        except (UnpicklingError, EOFError, RuntimeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged, or holds more than tensors, and is not loaded") from error
        if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()):
            raise ValueError(f"{path} holds more than tensors with names, and is not loaded")
    else:
        raise ValueError(f"{folder} has neither {SAFETENSORS} nor {PICKLE}")
    weights = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    if len(weights) < len(found):
        raise ValueError(f"{folder} holds tensors twice, with the prefix 'module.' and without")
    return weights


def read_model_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Our state dict, from one file or from those of an index."""
    return {name: tensor for path in weight_files(folder) for name, tensor in read_safetensors(path).items()}


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file, each with a mapping of its own, so that one which is split can leave memory alone."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        return {name: safe_open(path, framework="pt").get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_config(model_cfg: dict, folder: Path) -> RSMCLIPConfig:
    """
    Our configuration of OpenCLIP's `model_cfg`.

    Args:
        model_cfg (`dict`): From `open_clip_config.json`.
        folder (`Path`): Where it lies; the text tower's own configuration may lie beneath.
    """
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    if isinstance(vision.get("layers"), list):
        raise ValueError("the image tower is a ResNet; only ViTs convert")
    for name, value in vision.items():
        if name not in IMAGE_FIELDS and value and value != PLAIN_VIT.get(name):
            raise ValueError(f"the image tower has {name} {value!r}, which CLIP's ViT has no counterpart of")
    if not text.get("hf_model_name"):
        raise ValueError("the text tower is OpenCLIP's own, not an XLM-RoBERTa (text_cfg has no hf_model_name)")
    for name in ("init_logit_bias", "nonscalar_logit_scale", "multimodal_cfg"):
        if model_cfg.get(name):
            raise ValueError(f"the model has {name} {model_cfg[name]!r}, which this architecture does not")
    width = vision.get("width", 768)
    pooler, projection = text.get("hf_pooler_type") or "mean_pooler", text.get("hf_proj_type", "mlp") or "none"
    if pooler not in POOLINGS.values():
        raise ValueError(f"hf_pooler_type {pooler!r} is none of {', '.join(POOLINGS.values())}")
    return RSMCLIPConfig(
        projection_dim=model_cfg["embed_dim"],
        vision_config={
            "hidden_size": width,
            "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision.get("layers", 12),
            "num_attention_heads": width // vision.get("head_width", 64),
            "image_size": as_square(vision.get("image_size", 224), "image_size"),
            "patch_size": as_square(vision.get("patch_size", 16), "patch_size"),
            "hidden_act": image_activation(model_cfg, vision),
            "layer_norm_eps": (vision.get("norm_kwargs") or {}).get("eps", 1e-5),
            "projection_dim": model_cfg["embed_dim"],
        },
        text_config=read_text_config(text["hf_model_name"], folder),
        text_pooling=next(ours for ours, theirs in POOLINGS.items() if theirs == pooler),
        text_projection_type=projection,
        self_distillation=None,
    )


def image_activation(model_cfg: dict, vision: dict) -> str:
    """Name of the image tower's activation in transformers."""
    if model_cfg.get("quick_gelu"):
        return "quick_gelu"
    return "gelu_pytorch_tanh" if (vision.get("act_kwargs") or {}).get("approximate") == "tanh" else "gelu"


def as_square(size: int | list[int], name: str) -> int:
    """A side of what must be a square."""
    height, width = size if isinstance(size, list) else (size, size)
    if height != width:
        raise ValueError(f"{name} {size} is no square, and CLIP's ViT takes squares only")
    return height


def read_text_config(name: str, folder: Path) -> dict:
    """Sizes of the text tower: from a configuration in the folder, those known here, or the Hub's."""
    if (folder / name / "config.json").is_file():
        config = AutoConfig.from_pretrained(folder / name)
    elif name.removeprefix("FacebookAI/") in TEXT_TOWERS:
        return TEXT_TOWERS[name.removeprefix("FacebookAI/")]
    else:
        config = AutoConfig.from_pretrained(name)
    if config.model_type != "xlm-roberta":
        raise ValueError(f"the text tower {name} is of type {config.model_type!r}, not an XLM-RoBERTa")
    # Of the sizes only: where the file lay is nobody's business.
    return {
        key: value
        for key, value in config.to_diff_dict().items()
        if key not in ("transformers_version", "architectures")
    }


def read_tokenizer(
    places: list[str | Path], config: RSMCLIPConfig, context_length: int | None
) -> PreTrainedTokenizerBase | None:
    """
    The tokenizer that is named, or the first in the folders, if one has one.

    Args:
        places (`list[str | Path]`): The name (`str`), or folders (`Path`).
        config ([`RSMCLIPConfig`]): The model, which its tokens must fit.
        context_length (`int`, *optional*): Where it cuts a text; by default where it says itself.
    """
    files = ("tokenizer.json", "sentencepiece.bpe.model")
    here = [place for place in places if isinstance(place, str) or any((place / file).is_file() for file in files)]
    if not here:
        return None
    text = config.text_config
    try:  # the configuration that lies there may be of the whole model, of whose type no tokenizer is known
        tokenizer = AutoTokenizer.from_pretrained(here[0], config=text, trust_remote_code=False)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the tokenizer in {here[0]} cannot be read: {error}") from error
    if len(tokenizer) > text.vocab_size:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the text tower {text.vocab_size}")
    longest = text.max_position_embeddings - text.pad_token_id - 1
    tokenizer.model_max_length = min(context_length or tokenizer.model_max_length, longest)
    return tokenizer


def read_image_processor(preprocess_cfg: dict, image_size: int) -> RSMCLIPImageProcessor:
    """The preprocessing of OpenCLIP's `preprocess_cfg`."""
    mode, fill = preprocess_cfg.get("resize_mode") or "shortest", preprocess_cfg.get("fill_color") or 0
    sizes = {
        "shortest": {"shortest_edge": image_size},
        "longest": {"shortest_edge": image_size, "longest_edge": image_size},
        "squash": {"height": image_size, "width": image_size},
    }
    if mode not in sizes:
        raise ValueError(f"resize_mode {mode!r} is none of {', '.join(sizes)}")
    if mode == "longest" and fill != 0:
        raise ValueError(f"fill_color {fill!r}: only black borders convert")
    interpolation = preprocess_cfg.get("interpolation") or "bicubic"
    if interpolation not in (*RESAMPLING, "random"):
        raise ValueError(f"interpolation {interpolation!r} is none of {', '.join(RESAMPLING)}")
    mean, std = preprocess_cfg.get("mean") or OPENAI_CLIP_MEAN, preprocess_cfg.get("std") or OPENAI_CLIP_STD
    mean, std = ([value] * 3 if isinstance(value, int | float) else list(value) for value in (mean, std))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"mean {mean} and std {std} need three values, one a channel")
    return RSMCLIPImageProcessor(
        size=sizes[mode],
        do_center_crop=mode != "squash",
        crop_size={"height": image_size, "width": image_size},
        resample=RESAMPLING["bilinear" if interpolation == "bilinear" else "bicubic"],  # "random" is for training
        image_mean=mean,
        image_std=std,
    )


def describe(config: RSMCLIPConfig, processor: RSMCLIPImageProcessor) -> dict:
    """`open_clip_config.json` of a model."""
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
        raise ValueError(f"OpenCLIP has no activation {vision.hidden_act!r}")
    name = next((name for name, sizes in TEXT_TOWERS.items() if is_same_tower(text, sizes)), "text_model")
    model_cfg = {
        "embed_dim": config.projection_dim,
        "vision_cfg": vision_cfg,
        "text_cfg": {
            "hf_model_name": name,
            "hf_tokenizer_name": name,
            "hf_pooler_type": POOLINGS[config.text_pooling],
            "hf_proj_type": None if config.text_projection_type == "none" else config.text_projection_type,
        },
    }
    if vision.hidden_act == "quick_gelu":
        model_cfg["quick_gelu"] = True
    return {"model_cfg": model_cfg, "preprocess_cfg": describe_preprocessing(processor, vision.image_size)}


def is_same_tower(text, sizes: dict) -> bool:
    """Whether a text tower is the one of these sizes."""
    known = RSMCLIPConfig(text_config=sizes).text_config
    names = [*TEXT_TOWERS["xlm-roberta-large"], "vocab_size", "max_position_embeddings", "type_vocab_size"]
    names += ["hidden_act", "layer_norm_eps", "pad_token_id"]
    return all(getattr(text, name) == getattr(known, name) for name in names)


def describe_preprocessing(processor: RSMCLIPImageProcessor, image_size: int) -> dict:
    """OpenCLIP's `preprocess_cfg` of an image processor: the one that gives the same processor again."""
    modes = {
        ("shortest_edge",): "shortest",
        ("longest_edge", "shortest_edge"): "longest",
        ("height", "width"): "squash",
    }
    sides = tuple(sorted(name for name, value in dict(processor.size).items() if value is not None))
    described = {
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "interpolation": {number: name for name, number in RESAMPLING.items()}.get(processor.resample, "bicubic"),
        "resize_mode": modes.get(sides, "shortest"),
    }
    ours, theirs = processor.to_dict(), read_image_processor(described, image_size).to_dict()
    for name in theirs:
        if (name.startswith("do_") or name in COMPARED) and ours.get(name) != theirs[name]:
            raise ValueError(f"OpenCLIP cannot say that the image processor has {name} {ours.get(name)}")
    return described
