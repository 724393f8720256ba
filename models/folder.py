"""The model folder: weights, configuration with `auto_map`, remote code and processor, in the format of the Hub."""

import json
import math
import shutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, HTTPError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers import AutoProcessor, CLIPProcessor, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin
from transformers.activations import ACT2FN

from rsmclip import RSMCLIPConfig, RSMCLIPImageProcessor, RSMCLIPModel
from rsmclip.core.errors import UserError, foreign_errors, user_errors
from rsmclip.core.files import LOCK, has_type, read_json, recover

# Before this version, transformers leaves the weights of this remote code at their random initial values.
LOWEST_TRANSFORMERS = "5.13"
TRAINING_CURVE, LANGUAGE_PLOT = "training_curve.png", "recall_by_language.png"  # pictures in the card
# Files of a model or an adapter. A push deletes the ones that an earlier model left in the repository.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
PUBLISHED = (  # every file of a model repository on the Hub
    *(*WEIGHTS, "*_rsmclip.py", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "handler.py", "requirements.txt", "README.md", "eval_results.json"),
    *("training_config.yaml", "train_log.jsonl", TRAINING_CURVE, LANGUAGE_PLOT, "examples/*.jpg"),
)
PRIVATE = ("checkpoints", "trackers")  # folders of a run
PICTURE = "dry_run.png"  # of a dry run; it shows images of the corpus
LOCAL = (*PRIVATE, PICTURE, LOCK, ".gitignore")  # files of a run that are not published

SIZES = (  # fields of a model and its towers that must be at least 1
    *("projection_dim", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("image_size", "patch_size", "num_channels", "vocab_size", "max_position_embeddings", "type_vocab_size"),
)
# Types of fields that transformers reads without a check, by file. A field may be absent.
CONFIG_TYPES = {
    **dict.fromkeys(("vision_config", "text_config", "self_distillation"), dict | None),
    **dict.fromkeys(("id2label", "quantization_config"), dict | None),
    **{
        "auto_map": dict[str, str | list],
        "dtype": str | None,
        "torch_dtype": str | None,
        "logit_scale_init_value": float,
    },
}
FIELD_TYPES = {
    "config.json": CONFIG_TYPES,
    "processor_config.json": {"image_processor": dict | None, "auto_map": dict[str, str | list]},
    "tokenizer_config.json": {
        "tokenizer_class": str | None,
        "auto_map": dict[str, str | list],
        "model_max_length": float | None,
    },
    "tokenizer.json": {"model": dict},
    "adapter_config.json": {"base_model_name_or_path": str | None, "revision": str | None},
}
TOKENIZER_FILES = ["tokenizer.json", "vocab.*", "*.model"]  # patterns; a tokenizer has one or more
LARGEST_SIZE = 10_000_000  # of a field of SIZES: torch fails at tensors of more than 2 ** 63 bytes
MOST_LAYERS = 200  # of a tower. Building a layer takes 10 ms, and a hostile config.json could describe millions.
HANDLER = Path(__file__).parent.parent / "hub" / "handler.py"  # copied into model folders, not imported
# For Inference Endpoints. They have torch; an entry here would download it again.
REQUIREMENTS = f"transformers>={LOWEST_TRANSFORMERS}\npillow>=11.1\n"


def make_image_processor(image_size: int) -> RSMCLIPImageProcessor:
    """Return the released preprocessing of images: bicubic resize, center crop, CLIP's mean and deviation."""
    crop = {"height": image_size, "width": image_size}
    return RSMCLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=crop)


def make_processor(tokenizer: PreTrainedTokenizerBase, image_size: int) -> CLIPProcessor:
    """
    Make CLIP's processor: bicubic resize of the short side, center crop, CLIP's mean and standard deviation.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer of the text tower.
        image_size (`int`): Height and width of the image tower's input in pixels.
    """
    return CLIPProcessor(image_processor=make_image_processor(image_size), tokenizer=tokenizer)


def save_model_folder(
    model: RSMCLIPModel,
    processor: CLIPProcessor | RSMCLIPImageProcessor,
    folder: Path,
    keep_self_distillation_head: bool = True,
) -> None:
    """
    Save a folder for `AutoModel.from_pretrained(folder, trust_remote_code=True)` and the pipelines.

    With a `CLIPProcessor`, which has a tokenizer, the folder also serves Inference Endpoints.

    Raises:
        [`UserError`]: A file cannot be written.
    """
    RSMCLIPConfig.register_for_auto_class()
    RSMCLIPModel.register_for_auto_class("AutoModel")
    RSMCLIPImageProcessor.register_for_auto_class()
    # A class can register for one auto class only; the zero-shot pipeline needs a second one.
    model.config.auto_map = {"AutoModelForZeroShotImageClassification": "modeling_rsmclip.RSMCLIPModel"}
    with user_errors(OSError, SafetensorError, prefix=f"{folder} cannot be written"):
        model.save_pretrained(folder, keep_self_distillation_head=keep_self_distillation_head)
        open_weights(folder)
        processor.save_pretrained(folder)
        if isinstance(processor, CLIPProcessor):
            shutil.copyfile(HANDLER, folder / "handler.py")
            (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")


def open_weights(folder: Path) -> None:
    """Give the weights the permissions of the configuration; safetensors makes them readable by the owner only."""
    for path in folder.glob("*.safetensors"):
        shutil.copymode(next(folder.glob("*config.json")), path)


def find_source(source: str, patterns: list[str], revision: str | None = None) -> Path:
    """
    Return the local folder of a model; download it if `source` is a Hub id.

    Args:
        source (`str`): Folder or Hub id.
        patterns (`list[str]`): Files to download.
        revision (`str`, *optional*): Branch, tag or commit of the Hub id.

    Raises:
        [`UserError`]: There is no such folder or repository, or the download fails.
    """
    recover(Path(source))
    if source and Path(source).is_dir():
        if revision:
            raise UserError(f"{source} is a local folder, which has no revision {revision!r}: leave the revision out")
        return Path(source)
    if Path(source).is_file():
        raise UserError(f"{source} is a file; give its folder")
    with user_errors(HFValidationError, prefix=f"there is no folder {source!r}, and it is not a valid Hub id"):
        validate_repo_id(source)
    with user_errors(HTTPError, OSError, ValueError, prefix=f"{source} cannot be downloaded"):
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))


def build_on_meta(fields: dict, place: str) -> RSMCLIPModel:
    """
    Build a model without memory for its weights, on the meta device.

    Args:
        fields (`dict`): Arguments of [`RSMCLIPConfig`].
        place (`str`): Source of the sizes; the error line begins with it.

    Raises:
        [`UserError`]: There is no model of these sizes.
    """
    check_types(fields, CONFIG_TYPES, place)
    for name in RSMCLIPConfig.sub_configs:
        if fields.get(name, {}) is None:
            raise UserError(f"{place} does not describe a model: {name} is {fields[name]!r}, not fields and values")
    # From the checks of transformers and torch, and from transformers' copies of deeply nested values.
    impossible = (ValueError, ArithmeticError, AssertionError, RecursionError, StrictDataclassError)
    with user_errors(*impossible, prefix=f"{place} does not describe a model"):
        config = RSMCLIPConfig(**fields)
    check_sizes(config, place)
    with user_errors(*impossible, prefix=f"{place} does not describe a model"), torch.device("meta"):
        return RSMCLIPModel(config)


def check_types(fields: dict, types: dict[str, type], place: str) -> None:
    for name in types.keys() & fields.keys():
        value, kind = fields[name], getattr(types[name], "__name__", types[name])
        if not has_type(value, types[name]):
            raise UserError(f"{place}: {name} is {value!r}, but must be of type {kind}")
        if name.endswith("dtype") and value is not None and not isinstance(getattr(torch, value, None), torch.dtype):
            raise UserError(f"{place}: {name} is {value!r}, which is no dtype of torch")
        if name == "auto_map" and any(isinstance(value[of], list) for of in value if of != "AutoTokenizer"):
            raise UserError(f"{place}: auto_map has lists of classes; only AutoTokenizer may have one")
        if name in RSMCLIPConfig.sub_configs:
            check_types(value or {}, types, f"{place}: {name}")


def check_descriptions(folder: Path) -> None:
    """Raise [`UserError`] if a JSON file of a model folder is damaged or hostile, and transformers does not say so."""
    for name, types in FIELD_TYPES.items():
        if (folder / name).is_file():
            fields = read_json(folder / name)
            if name == "tokenizer.json" and "model" not in fields:
                raise UserError(f"{folder / name} has no tokenizer: the field model is missing")
            check_types(fields, types, str(folder / name))
            if name == "config.json":
                check_layers(fields, str(folder / name))
    for index in folder.rglob("*.safetensors.index.json"):
        indexed_files(index)
    if (folder / "tokenizer_config.json").is_file():
        check_tokenizer_files(str(folder), folder)


def check_layers(fields: dict, place: str) -> None:
    # Before a model is built, of any architecture and with any number of towers.
    for name, value in fields.items():
        if isinstance(value, dict):
            check_layers(value, f"{place}: {name}")
        elif name == "num_hidden_layers" and isinstance(value, int) and value > MOST_LAYERS:
            raise UserError(f"{place}: {name} is {value:,}, but must be at most {MOST_LAYERS}")


def check_tokenizer_files(name: str, folder: Path) -> None:
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):  # transformers would make an empty one
        raise UserError(f"{name} has no tokenizer; put its files beside the weights")


def load_processor(name: str, folder: Path, config: PreTrainedConfig) -> ProcessorMixin:
    """
    Load the processor of a model for images and texts.

    Args:
        name (`str`): Folder or Hub id, for the error line.
        folder (`Path`): Local folder, checked by [`check_descriptions`].
        config (`PreTrainedConfig`): Configuration of the model. The processor of an RS-M-CLIP must fit it.

    Raises:
        [`UserError`]: The folder has no tokenizer or no image processor, or they do not fit the model.
    """
    check_tokenizer_files(name, folder)
    # transformers raises TypeError, KeyError and others for fields of other types, and tokenizers bare Exceptions.
    with foreign_errors(f"the processor of {name} cannot be loaded"):
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    images, tokenizer = (getattr(processor, part, None) for part in ("image_processor", "tokenizer"))
    if images is None or tokenizer is None:
        raise UserError(
            f"{name} has no processor for images and texts; put preprocessor_config.json beside the weights"
        )
    if config.model_type == RSMCLIPConfig.model_type:
        check_image_processor(images, config.vision_config.image_size, name)
        if len(tokenizer) > (rows := config.text_config.vocab_size):
            raise UserError(f"the tokenizer of {name} has {len(tokenizer)} tokens, but vocab_size is {rows}")
    return processor


def check_image_processor(images: RSMCLIPImageProcessor, image_size: int, place: str) -> None:
    for name, low in (("image_mean", -math.inf), ("image_std", 0)):
        values = getattr(images, name)
        if (
            not has_type(values and list(values), list[float])
            or [low < value < math.inf for value in values] != [True] * 3
        ):
            raise UserError(f"{place}: {name} of the image processor is {values!r}, not three numbers above {low}")
    field = "crop_size" if images.do_center_crop else "size"
    if (found := [getattr(getattr(images, field), side, None) for side in ("height", "width")]) != [image_size] * 2:
        raise UserError(f"{place}: {field} of the image processor is {found}, but the image tower takes {image_size}")


def check_sizes(config: RSMCLIPConfig, place: str) -> None:
    # Without these checks torch fails later, with an error that does not name the field.
    check_layers(config.to_dict(), f"{place} does not describe a model")
    parts = {"": config, "vision_config.": config.vision_config, "text_config.": config.text_config}
    head = config.self_distillation or {}
    sizes = {f"self_distillation.{name}": value for name, value in head.items()}
    for prefix, part in parts.items():
        sizes |= {prefix + name: getattr(part, name) for name in SIZES if hasattr(part, name)}
        if (activation := getattr(part, "hidden_act", "gelu")) not in ACT2FN:
            raise UserError(f"{place} does not describe a model: {prefix}hidden_act is {activation!r}")
    if not has_type(config.text_config.pad_token_id, int):
        raise UserError(f"{place} does not describe a model: text_config.pad_token_id is not an integer")
    for name, value in sizes.items():
        if not has_type(value, int) or not 1 <= value <= LARGEST_SIZE:
            limits = f"at least 1 and at most {LARGEST_SIZE:,}"
            raise UserError(f"{place} does not describe a model: {name} is {value!r}, but must be {limits}")


def check_model_type(folder: Path) -> RSMCLIPConfig:
    """
    Return the configuration of a folder with a complete RS-M-CLIP and without code of other repositories.

    Raises:
        [`UserError`]: The folder has another model, or a file is damaged or does not fit the others.
    """
    fields = read_json(folder / "config.json")
    if (found := fields.get("model_type")) != RSMCLIPConfig.model_type:
        raise UserError(f"{folder} has a model of type {found!r}, not {RSMCLIPConfig.model_type!r}")
    check_descriptions(folder)
    check_remote_code(folder)
    model = build_on_meta(fields, str(folder / "config.json"))
    check_shapes(model, folder)
    return model.config


def check_shapes(model: RSMCLIPModel, folder: Path) -> None:
    """Raise [`UserError`] if the headers of the weights do not have the tensors of a model on the meta device."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = weight_shapes(folder)
    if missing := [name for name in expected if name not in found]:  # transformers initializes them at random
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"the weights in {folder} lack {missing[0]}{more}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise UserError(f"{folder}: {name} has shape {found[name]}, but config.json describes {shape}")


def check_finite(weights: dict[str, torch.Tensor], place: str | Path) -> None:
    """Raise [`UserError`] if a weight is NaN or infinite. `place` begins the error line."""
    if bad := [name for name, tensor in weights.items() if not is_finite(tensor)]:
        more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
        raise UserError(f"{place}: {bad[0]}{more} has values that are NaN or infinite: the weights are damaged")


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether no value is NaN or infinite. It takes no memory of the size of the tensor."""
    return not tensor.numel() or all(limit.isfinite() for limit in tensor.aminmax())


def check_remote_code(folder: Path) -> None:
    classes = []
    for path in folder.glob("*config.json"):
        with user_errors(OSError, ValueError, RecursionError, prefix=f"{path} is not valid JSON"):
            json.loads(path.read_bytes(), object_hook=lambda fields: classes.append(fields.get("auto_map")) or fields)
            named = str(classes)
        if "--" in named:  # `owner/name--module.Class`
            raise UserError(f"{path} names code of another repository (auto_map), whose revision is not pinned")


def weight_files(folder: Path) -> list[Path]:
    """Return the files from which transformers reads the weights: a single file, or the files that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [single]
    return [folder / name for name in indexed_files(index)]


def indexed_files(index: Path) -> list[str]:
    """Return the names of the files in `*.safetensors.index.json`. Raises [`UserError`] for other files' names."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{index} has no weight_map with names of files")
    for name in names.values():  # transformers would unpickle a .bin file
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index} names {name!r}, which is not a safetensors file beside it")
    return sorted(set(names.values()))


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for path in weight_files(folder):
        prefix = f"{path} cannot be read"
        with user_errors(OSError, SafetensorError, prefix=prefix), safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
    return shapes


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder contains a model or an adapter."""
    return (folder / "config.json").is_file() or any(folder.glob("*.safetensors"))


def fetched_revision(repo_id: str) -> str | None:
    """Return the commit of the last download of a Hub model, or `None` if the cache does not have it."""
    path = try_to_load_from_cache(repo_id, "config.json")
    return Path(path).parent.name if isinstance(path, str) else None


def model_sizes(model: RSMCLIPModel, processor: CLIPProcessor) -> dict[str, int]:
    """Return the sizes of a model, adapters included, for its card. The self-distillation head is counted apart."""
    config, head = model.config, model.self_distillation_head
    in_head = sum(value.numel() for value in head.parameters()) if head is not None else 0
    return {
        "parameters": sum(value.numel() for value in model.parameters()) - in_head,
        "head_parameters": in_head,
        "embedding": config.projection_dim,
        "image_size": config.vision_config.image_size,
        "patch_size": config.vision_config.patch_size,
        "image_layers": config.vision_config.num_hidden_layers,
        "text_layers": config.text_config.num_hidden_layers,
        "max_tokens": processor.tokenizer.model_max_length,
    }
