"""The model folder: weights, configuration with `auto_map`, remote code and processor, as the Hub expects them."""

import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers import CLIPProcessor, PreTrainedTokenizerBase

from rsmclip import RSMCLIPConfig, RSMCLIPImageProcessor, RSMCLIPModel
from rsmclip.core.files import read_json

# The remote code is known to leave its weights at random initialisation before this version.
LOWEST_TRANSFORMERS = "5.13"
TRAINING_CURVE, LANGUAGE_PLOT = "training_curve.png", "recall_by_language.png"  # pictures in the card
# A model or an adapter; where another one was pushed before, none of its files may remain.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
PUBLISHED = (  # all that a model's repository on the Hub holds
    *(*WEIGHTS, "*_rsmclip.py", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "handler.py", "requirements.txt", "README.md", "eval_results.json"),
    *("training_config.yaml", "train_log.jsonl", TRAINING_CURVE, LANGUAGE_PLOT, "examples/*.jpg"),
)
PRIVATE = ("checkpoints", "trackers")  # folders of a run
PICTURE = "dry_run.png"  # of a dry run, which may be repeated and leaves nothing else; it shows images of the corpus
LOCAL = (*PRIVATE, PICTURE, ".gitignore")  # what a run leaves beside what is published, and stays where it is
# What sizes of a model that make no sense raise, beside ValueError.
CONFIG_ERRORS = (
    StrictDataclassError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)

HANDLER = Path(__file__).parent.parent / "hub" / "handler.py"  # copied into every model folder, never imported here
# What Inference Endpoints install beside what is there; torch is, and would be fetched anew if it were named.
REQUIREMENTS = f"transformers>={LOWEST_TRANSFORMERS}\npillow>=11.0\n"


def make_processor(tokenizer: PreTrainedTokenizerBase, image_size: int) -> CLIPProcessor:
    """
    The released preprocessing: bicubic resize of the short side, centre crop, CLIP's mean and standard deviation.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer of the text tower.
        image_size (`int`): Height and width of the image tower's input in pixels.
    """
    image_processor = RSMCLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)


def save_model_folder(
    model: RSMCLIPModel,
    processor: CLIPProcessor | RSMCLIPImageProcessor,
    folder: Path,
    keep_self_distillation_head: bool = True,
) -> None:
    """
    Saves what `AutoModel.from_pretrained(folder, trust_remote_code=True)`, the pipelines, and with a tokenizer
    Inference Endpoints need.

    Args:
        model ([`RSMCLIPModel`]): The model.
        processor (`CLIPProcessor` or [`RSMCLIPImageProcessor`]): Its processor; without a tokenizer the images' alone.
        folder (`Path`): Where it goes.
        keep_self_distillation_head (`bool`, *optional*, defaults to `True`): Whether the head of the self-supervised
            objective goes with it.
    """
    RSMCLIPConfig.register_for_auto_class()
    RSMCLIPModel.register_for_auto_class("AutoModel")
    RSMCLIPImageProcessor.register_for_auto_class()
    # One class registers for one auto class; the zero-shot pipeline asks for another.
    model.config.auto_map = {"AutoModelForZeroShotImageClassification": "modeling_rsmclip.RSMCLIPModel"}
    model.save_pretrained(folder, keep_self_distillation_head=keep_self_distillation_head)
    open_weights(folder)
    processor.save_pretrained(folder)
    if isinstance(processor, CLIPProcessor):
        shutil.copyfile(HANDLER, folder / "handler.py")
        (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")


def open_weights(folder: Path) -> None:
    """Lets those read the weights who can read the files beside them: safetensors writes for the owner alone."""
    for path in folder.glob("*.safetensors"):
        shutil.copymode(next(folder.glob("*config.json")), path)


def find_source(source: str, patterns: list[str], revision: str | None = None) -> Path:
    """
    The local folder of a folder or Hub id.

    Args:
        source (`str`): Folder or Hub id.
        patterns (`list[str]`): The files to fetch from the Hub.
        revision (`str`, *optional*): Branch, tag or commit of the Hub id.
    """
    if source and Path(source).is_dir():
        if revision:
            raise ValueError(f"{source} is a folder here, of which there is no revision {revision!r}: leave it out")
        return Path(source)
    if Path(source).is_file():
        raise ValueError(f"{source} is a file; give the folder it lies in")
    try:
        validate_repo_id(source)
    except HFValidationError:
        raise ValueError(f"there is no folder {source!r}, and no repository of the Hub has such an id") from None
    return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))


def check_model_type(folder: Path) -> None:
    """Raises `ValueError` unless a folder holds an RS-M-CLIP that is whole, and takes no code from elsewhere."""
    if (found := read_json(folder / "config.json").get("model_type")) != RSMCLIPConfig.model_type:
        raise ValueError(f"{folder} holds a model of type {found!r}, not {RSMCLIPConfig.model_type!r}")
    check_remote_code(folder)
    check_weight_files(folder)
    try:
        config = RSMCLIPConfig.from_pretrained(folder)
        with torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in RSMCLIPModel(config).state_dict().items()}
    except CONFIG_ERRORS as error:
        raise ValueError(f"{folder / 'config.json'} describes no model: {error}") from error
    found = weight_shapes(folder)
    if missing := [name for name in expected if name not in found]:  # transformers would make them up
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"the weights in {folder} lack {missing[0]}{more}; they would be random")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"{folder}: {name} has shape {found[name]}, not {shape} as config.json has it")


def check_remote_code(folder: Path) -> None:
    """Raise `ValueError` if an `auto_map` names a class of another repository: its revision is not pinned."""
    classes = []
    for path in folder.glob("*config.json"):
        try:
            json.loads(path.read_bytes(), object_hook=lambda fields: classes.append(fields.get("auto_map")) or fields)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if "--" in str(classes):  # `owner/name--module.Class`
            raise ValueError(
                f"{path} takes code from another repository, whose revision is not pinned, by its auto_map"
            )


def check_weight_files(folder: Path) -> None:
    """Raise `ValueError` if a safetensors file of a folder is damaged or cut off."""
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} holds no safetensors, or only a part of them: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """Where transformers reads a model's weights: one file, else those that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [single]
    return [folder / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a model, from the heads of its files."""
    shapes = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
    return shapes


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model."""
    return (folder / "config.json").is_file() or any(folder.glob("*.safetensors"))


def fetched_revision(repo_id: str) -> str | None:
    """The commit of a model on the Hub that was fetched last; `None` if there is none in the cache."""
    path = try_to_load_from_cache(repo_id, "config.json")
    return Path(path).parent.name if isinstance(path, str) else None


def model_sizes(model: RSMCLIPModel, processor: CLIPProcessor) -> dict[str, int]:
    """
    The sizes of a model: its parameters with and in the self-distillation head, its towers and their input.

    Args:
        model ([`RSMCLIPModel`]): The model; of adapters in it, the parameters count.
        processor (`CLIPProcessor`): Its processor.
    """
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
