"""A model out of towers that exist: a pretrained image tower, a pretrained text tower, and new projections."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    BertModel,
    CLIPProcessor,
    CLIPVisionModel,
    Dinov2Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from rsmclip import RSMCLIPImageProcessor, RSMCLIPModel
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import read_json
from rsmclip.models.dinov2 import clip_config, convert_dinov2, tensor_shapes
from rsmclip.models.folder import (
    build_on_meta,
    check_descriptions,
    check_finite,
    check_image_processor,
    find_source,
    make_image_processor,
)
from rsmclip.models.openclip import CONFIG, PICKLE, SAFETENSORS, load_openclip

IMAGE_TOWERS = ("clip_vision_model", "clip", "dinov2")
TEXT_TOWERS = ("xlm-roberta", "bert")
LOADING_ERRORS = (OSError, ValueError, SafetensorError, StrictDataclassError)
FILES = ["*.json", "*.safetensors", "*.model"]


def assemble(
    image_tower: str, text_tower: str, fields: dict, max_length: int = 77
) -> tuple[RSMCLIPModel, CLIPProcessor]:
    """
    Join two towers in one model. The weights of the towers are kept; projections, logit scale and head are new.

    Args:
        image_tower (`str`):
            Folder or Hub id of a `CLIPVisionModel`, a `CLIPModel`, a `Dinov2Model`, or a model in OpenCLIP's layout.
        text_tower (`str`):
            Folder or Hub id of an XLM-RoBERTa or BERT encoder of transformers, with its tokenizer.
        fields (`dict`):
            Fields of [`RSMCLIPConfig`], such as `projection_dim`. Its `vision_config` and `text_config` are not used.
        max_length (`int`, *optional*, defaults to 77):
            Longest text in tokens.

    Returns:
        `tuple[RSMCLIPModel, CLIPProcessor]`: The model on the CPU in float32, and its processor.

    Raises:
        [`UserError`]: A tower does not exist, has another type, lacks weights, or has weights that are not finite.
    """
    if fields.get("text_pooling") == "pooler":
        raise UserError("text_pooling pooler does not work with a text tower: its pooling layer is not loaded")
    vision, image_processor = load_image_tower(image_tower)
    text, tokenizer = load_text_tower(text_tower)
    tokenizer.model_max_length = max_length
    for tower, name in ((vision, image_tower), (text, text_tower)):
        check_finite(tower.state_dict(), name)
    fields = fields | {"vision_config": vision.config.to_dict(), "text_config": text.config.to_dict()}
    model = RSMCLIPModel(build_on_meta(fields, "the model of the two towers").config)
    model.vision_model.load_state_dict(vision.state_dict())
    model.text_model.load_state_dict(text.state_dict())
    return model, CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def load_image_tower(name: str) -> tuple[CLIPVisionModel, RSMCLIPImageProcessor]:
    """
    Load an image tower in float32, and its preprocessing.

    Args:
        name (`str`):
            Folder or Hub id of a `CLIPVisionModel`, a `CLIPModel`, a `Dinov2Model`, or a model in OpenCLIP's layout.

    Raises:
        [`UserError`]: There is no such tower.
    """
    folder = find_source(name, [*FILES, SAFETENSORS, PICKLE])
    if (folder / CONFIG).is_file() and not has_tower(folder, IMAGE_TOWERS):  # many repositories have both layouts
        found = load_openclip(str(folder))
        processor = getattr(found.processor, "image_processor", found.processor)
        return found.model.vision_model.float(), processor
    kind, fields = read_description(folder, f"image_tower {name}", IMAGE_TOWERS)
    if kind == "dinov2":
        return load_dinov2(folder, f"image_tower {name}")
    fields = fields.get("vision_config", {}) if kind == "clip" else fields
    build_on_meta({"vision_config": fields}, f"image_tower {name}")
    tower = load_weights(CLIPVisionModel, folder, f"image_tower {name}")
    processor = load_preprocessing(folder, f"image_tower {name}") or make_image_processor(tower.config.image_size)
    check_image_processor(processor, tower.config.image_size, f"image_tower {name}")
    return tower, processor


def load_preprocessing(folder: Path, place: str) -> RSMCLIPImageProcessor | None:
    if not (folder / "preprocessor_config.json").is_file():
        return None
    with user_errors(*LOADING_ERRORS, prefix=f"the preprocessing of {place} cannot be loaded"):
        return RSMCLIPImageProcessor.from_pretrained(folder)


def load_dinov2(folder: Path, place: str) -> tuple[CLIPVisionModel, RSMCLIPImageProcessor]:
    with user_errors(*LOADING_ERRORS, prefix=f"{place} cannot be loaded"):
        config = Dinov2Config.from_pretrained(folder)
        described = clip_config(config, config.image_size).to_dict()
        stored = load_file(folder / "model.safetensors")
    if config.use_swiglu_ffn:
        raise UserError(f"{place} has SwiGLU layers, which CLIP's ViT does not have: use a smaller DINOv2")
    tensors = {name.removeprefix("dinov2."): tensor.float() for name, tensor in stored.items()}
    build_on_meta({"vision_config": described}, place)
    shapes = tensor_shapes(config)
    check_complete(place, shapes.keys() - tensors.keys())
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise wrong_shape(place, name, tensors[name].shape, shape)
    processor = load_preprocessing(folder, place)
    if processor is None:
        processor = make_image_processor(config.image_size)
        processor.image_mean, processor.image_std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    sides = processor.crop_size if processor.do_center_crop else processor.size
    size = getattr(sides, "height", None) or 0  # the released models: 224, their positions are for 518
    check_image_processor(processor, size, place)
    if size % config.patch_size:
        raise UserError(f"{place}: its preprocessing crops to {size} pixels, not a multiple of {config.patch_size}")
    return convert_dinov2(config, tensors, size), processor


def load_text_tower(name: str) -> tuple[XLMRobertaModel, PreTrainedTokenizerBase]:
    """
    Load a text tower in float32 without its pooling layer, and its tokenizer.

    Args:
        name (`str`): Folder or Hub id of an XLM-RoBERTa or BERT encoder.

    Raises:
        [`UserError`]: There is no such tower, or it has no tokenizer.
    """
    folder = find_source(name, FILES)
    kind, fields = read_description(folder, f"text_tower {name}", TEXT_TOWERS)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "sentencepiece.bpe.model")):
        raise UserError(f"text_tower {name} has no tokenizer: there is no tokenizer.json")
    build_on_meta({"text_config": {n: v for n, v in fields.items() if n != "model_type"}}, f"text_tower {name}")
    tower = load_weights(
        BertModel if kind == "bert" else XLMRobertaModel, folder, f"text_tower {name}", add_pooling_layer=False
    )
    with user_errors(*LOADING_ERRORS, prefix=f"the tokenizer of text_tower {name} cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    padding = tokenizer.pad_token_id  # XLM-R counts positions from it
    if padding is None or (kind != "bert" and padding != tower.config.pad_token_id):
        there = f"config.json has pad_token_id {tower.config.pad_token_id}"
        raise UserError(f"text_tower {name}: the padding token of its tokenizer has the id {padding}, but {there}")
    if len(tokenizer) > tower.config.vocab_size:
        size = tower.config.vocab_size
        raise UserError(f"text_tower {name} has {size} word embeddings, fewer than its {len(tokenizer)} tokens")
    return convert_bert(tower, tokenizer) if kind == "bert" else tower, tokenizer


def convert_bert(bert: BertModel, tokenizer: PreTrainedTokenizerBase) -> XLMRobertaModel:
    """Convert to XLM-RoBERTa, which is BERT with positions that start after the id of the padding token."""
    state = bert.state_dict()
    positions = state["embeddings.position_embeddings.weight"]
    unused = positions.new_zeros(tokenizer.pad_token_id + 1, positions.shape[1])
    state["embeddings.position_embeddings.weight"] = torch.cat([unused, positions])
    fields = {name: value for name, value in bert.config.to_dict().items() if name != "model_type"}
    fields |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad", "eos")}
    fields["max_position_embeddings"] = len(unused) + len(positions)
    tower = XLMRobertaModel(XLMRobertaConfig(**fields), add_pooling_layer=False)
    tower.load_state_dict(state)
    return tower


def has_tower(folder: Path, expected: tuple[str, ...]) -> bool:
    path = folder / "config.json"
    weights = (folder / name for name in ("model.safetensors", "model.safetensors.index.json"))
    return path.is_file() and read_json(path).get("model_type") in expected and any(map(Path.is_file, weights))


def read_description(folder: Path, place: str, expected: tuple[str, ...]) -> tuple[str, dict]:
    # Returns the type of a tower and the fields of its config.json.
    check_descriptions(folder)
    fields = read_json(folder / "config.json")
    if (found := fields.get("model_type")) not in expected:
        raise UserError(f"{place} has the type {found!r}, not {' or '.join(map(repr, expected))}")
    return found, fields


def load_weights(kind: type[PreTrainedModel], folder: Path, place: str, **arguments: bool) -> PreTrainedModel:
    with user_errors(*LOADING_ERRORS, prefix=f"{place} cannot be loaded"):
        tower, loading = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in `loading`
            output_loading_info=True,
            **arguments,
        )
    check_complete(place, loading["missing_keys"])
    for name, found, expected in sorted(loading["mismatched_keys"]):
        raise wrong_shape(place, name, found, expected)
    return tower


def check_complete(place: str, missing: Iterable[str]) -> None:
    if missing := sorted(missing):
        raise UserError(f"{place} lacks {len(missing)} tensors, the first is {missing[0]}")


def wrong_shape(place: str, name: str, found: Sequence[int], expected: Sequence[int]) -> UserError:
    shapes = f"the shape {tuple(found)}, but its config.json describes {tuple(expected)}"
    return UserError(f"{place}: the tensor {name} has {shapes}")


def trim_vocabulary(model: RSMCLIPModel, processor: CLIPProcessor, texts: Iterable[str]) -> int:
    """
    Remove the tokens that no text uses from tokenizer and word embeddings, in place.

    All tokens of the texts and all single characters stay, so that the texts have the same pieces as before and other
    texts can still be written, if in more pieces. The ids change.

    Args:
        model ([`RSMCLIPModel`]): The model.
        processor (`CLIPProcessor`): Its processor with a Unigram tokenizer.
        texts (`Iterable[str]`): All captions, class names and prompts.

    Returns:
        `int`: Number of tokens that stay.

    Raises:
        [`UserError`]: The tokenizer is not a Unigram model.
    """
    tokenizer = processor.tokenizer
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    if described["model"]["type"] != "Unigram":
        raise UserError(f"trim_vocabulary needs a Unigram tokenizer, not {described['model']['type']}")
    texts = sorted(set(texts))
    before = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(texts)["input_ids"]]
    # Ids that stay, in their order: special tokens, single characters, pieces of the texts.
    vocabulary = described["model"]["vocab"]
    kept = {token["id"] for token in described["added_tokens"]} | {described["model"]["unk_id"]}
    kept |= {number for number, (piece, _) in enumerate(vocabulary) if len(piece.lstrip("▁")) <= 1}
    kept |= {number for ids in tokenizer(texts)["input_ids"] for number in ids}
    order = sorted(kept)
    new_ids = {old: new for new, old in enumerate(order)}
    # The tokenizer with new ids.
    described["model"]["vocab"] = [vocabulary[old] for old in order if old < len(vocabulary)]  # others were added
    described["model"]["unk_id"] = new_ids[described["model"]["unk_id"]]
    for token in described["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    for token in described["post_processor"]["special_tokens"].values():
        token["ids"] = [new_ids[old] for old in token["ids"]]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        Path(folder, "tokenizer.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
        processor.tokenizer = AutoTokenizer.from_pretrained(folder)
    after = [processor.tokenizer.convert_ids_to_tokens(ids) for ids in processor.tokenizer(texts)["input_ids"]]
    if before != after:
        raise AssertionError("trim_vocabulary changed the pieces of a text")
    # The word embeddings in the new order.
    embeddings = model.text_model.embeddings.word_embeddings
    trimmed = torch.nn.Embedding(len(order), embeddings.embedding_dim, padding_idx=new_ids[embeddings.padding_idx])
    trimmed.weight.data.copy_(embeddings.weight.data[order])
    model.text_model.embeddings.word_embeddings = trimmed
    text_config = model.config.text_config
    text_config.vocab_size = model.text_model.config.vocab_size = len(order)
    for name in ("bos_token_id", "pad_token_id", "eos_token_id"):
        setattr(text_config, name, new_ids[getattr(text_config, name)])
    return len(order)
