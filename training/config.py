"""The configuration of a training run: a dataclass, filled from a YAML file and the command line, checked at once."""

import argparse
import difflib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import yaml
from accelerate.tracking import get_available_trackers
from transformers import HfArgumentParser, PreTrainedConfig

from rsmclip import RSMCLIPConfig
from rsmclip.configuration_rsmclip import SELF_DISTILLATION_DEFAULTS
from rsmclip.data.schema import LANGUAGES
from rsmclip.training.batches import CaptionSampling
from rsmclip.training.losses import DuplicateCaptions
from rsmclip.training.views import ViewSpec

DEFAULT_CONFIG = Path(__file__).parent.parent / "configs" / "demo.yaml"

RANGES = {  # smallest and largest value
    **dict.fromkeys(("grayscale", "blur", "solarize", "center_momentum", "adam_beta2"), (0, 1)),
    **dict.fromkeys(("teacher_momentum", "final_teacher_momentum", "layer_decay"), (0, 1)),
    **dict.fromkeys(("brightness", "contrast", "saturation", "teacher_temperature_warmup"), (0, 1)),
    **dict.fromkeys(("self_distillation_weight", "weight_decay"), (0, math.inf)),
    **dict.fromkeys(("num_local_views", "num_workers", "warmup_steps"), (0, math.inf)),
    **dict.fromkeys(("freeze_prototypes_steps", "self_distillation_warmup_steps"), (0, math.inf)),
    **dict.fromkeys(("max_train_steps", "vocab_size", "cpu_threads"), (1, math.inf)),
    **dict.fromkeys(("num_global_views", "captions_per_image", "loss_chunk_size"), (1, math.inf)),
    **dict.fromkeys(("gradient_accumulation_chunks", "max_skipped_steps", "shuffle_buffer"), (1, math.inf)),
    **dict.fromkeys(("checkpoint_steps", "keep_checkpoints", "evaluation_steps", "logging_steps"), (1, math.inf)),
    **dict.fromkeys(("evaluation_batch_size", "local_size", "short_side"), (1, math.inf)),
    "max_length": (3, math.inf),  # a token between the two special ones
    "hue": (0, 0.5),
    "seed": (0, 2**32 - 1),
}
POSITIVE = ("learning_rate", "image_learning_rate", "text_learning_rate", "head_learning_rate", "max_grad_norm")
POSITIVE += ("student_temperature", "teacher_temperature", "warmup_teacher_temperature")


def option(default: object, help: str) -> object:
    """A field with its help text; a list or dict is copied for each instance."""
    metadata = {"help": help}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class TrainingConfig:
    """Every setting of a run; the help texts are the documentation (`python train.py --help`)."""

    # Data
    dataset: str = option("demo", "Corpus: 'demo' (drawn here), a folder made by 'rsmclip.data build', or a Hub id.")
    train_split: str = option("train", "Split to train on.")
    validation_split: str = option("val", "Split that is evaluated during training.")
    test_split: str = option("test", "Split of the final table.")
    languages: list[str] = option(list(LANGUAGES), "Language codes to train and evaluate on.")
    language_sampling: str = option(
        "uniform",
        "How languages are drawn: uniform, english_anchor (English always, and others), or weights: en=3,pt=1.",
    )
    captions_per_image: int = option(2, "Captions of an image in a step, in different languages where there are any.")
    benchmark: str | None = option(
        None, "Class names for the zero-shot columns: a file of eval/benchmarks/; null: none."
    )
    short_side: int = option(256, "The workers reduce the short side of images to this, in pixels.")
    num_workers: int = option(4, "Worker processes that load data, for each process.")
    streaming: bool = option(False, "Read the training split shard by shard, in a bounded cache; needs parquet files.")
    shuffle_buffer: int = option(100_000, "Rows of successive shards that a stream shuffles among themselves.")

    # Model
    model: str | None = option(
        None, "Folder or Hub id of weights to start from; null: random weights from model_config."
    )
    model_config: dict = option({}, "Fields of RSMCLIPConfig for a random start; on the command line as JSON.")
    tokenizer: str | None = option(
        None, "Folder or Hub id of a tokenizer for a random start; null: one trained on the captions."
    )
    vocab_size: int = option(4000, "Pieces of a tokenizer trained on the captions.")
    max_length: int = option(77, "Longest caption, in tokens; longer ones are cut.")
    freeze: str | None = option(None, "Regular expression: parameters whose name it is found in are not trained.")
    freeze_word_embeddings: bool = option(False, "Do not train the word embeddings, over half of all parameters.")
    lora: dict = option({}, "Fields of peft's LoraConfig: train low-rank adapters and the head only.")
    merge_adapter: bool = option(False, "Save the model with the adapter merged into it; else the adapter alone.")

    # Views
    num_global_views: int = option(2, "Global views of an image; the contrastive loss is taken on each.")
    global_scale: list[float] = option([0.4, 1.0], "Smallest and largest share of the image in a global view.")
    local_scale: list[float] = option([0.05, 0.4], "Smallest and largest share of the image in a local view.")
    num_local_views: int = option(8, "Local views of an image, for the self-distillation only.")
    local_size: int = option(96, "Height and width of a local view in pixels.")
    brightness: float = option(0.4, "Largest relative change of brightness.")
    contrast: float = option(0.4, "Largest relative change of contrast.")
    saturation: float = option(0.2, "Largest relative change of saturation.")
    hue: float = option(0.1, "Largest shift of hue, as a share of the colour circle.")
    grayscale: float = option(0.2, "Probability of a grey view.")
    blur: float = option(0.5, "Probability of a blurred view.")
    solarize: float = option(0.0, "Probability of a solarised view.")

    # Contrastive loss
    duplicate_captions: DuplicateCaptions = option(
        "positive", "Images of a batch with the same sentence are each other's positives, ignored, or negatives."
    )
    loss_chunk_size: int | None = option(None, "Rows whose logits are held at once; null: all.")
    gradient_accumulation_chunks: int = option(
        1, "Parts of a batch that pass the towers one after the other; the loss still sees the whole batch."
    )

    # Self-distillation (Caron et al. 2021; fixed momentum after Naeem et al. 2023)
    self_distillation_weight: float = option(
        1.0, "Weight of the self-distillation loss; 0 trains without teacher and head."
    )
    self_distillation_warmup_steps: int = option(0, "Steps over which that weight rises from 0.")
    student_temperature: float = option(0.1, "Temperature of the student.")
    teacher_temperature: float = option(0.07, "Temperature of the teacher after its warm-up.")
    warmup_teacher_temperature: float = option(0.04, "Temperature of the teacher at the first step.")
    teacher_temperature_warmup: float = option(0.3, "Share of the steps over which that temperature rises.")
    teacher_momentum: float = option(0.996, "Share of itself that the teacher keeps at a step.")
    final_teacher_momentum: float | None = option(
        None, "Where a cosine takes that share by the last step, 1 in DINO; null: it stays."
    )
    centering: Literal["running_mean", "sinkhorn_knopp"] = option(
        "running_mean", "What keeps the teacher's prototypes in use: DINO's centre or Sinkhorn-Knopp."
    )
    center_momentum: float = option(0.9, "Share of itself that the centre keeps at a step.")
    freeze_prototypes_steps: int = option(0, "First steps in which the prototypes do not move.")

    # Optimisation
    max_train_steps: int = option(1000, "Optimisation steps.")
    batch_size: int = option(64, "Pairs per step over all processes: the number of candidates in InfoNCE.")
    learning_rate: float = option(1e-4, "Peak learning rate of AdamW.")
    image_learning_rate: float | None = option(None, "The same of the image tower and its projection.")
    text_learning_rate: float | None = option(None, "The same of the text tower and its projection.")
    head_learning_rate: float | None = option(None, "The same of the self-distillation head.")
    layer_decay: float = option(1.0, "Factor on a tower's learning rate for every layer above a parameter.")
    weight_decay: float = option(0.1, "Weight decay, on matrices only.")
    adam_beta2: float = option(0.98, "Second-moment decay of AdamW.")
    warmup_steps: int = option(50, "Steps of linear warm-up before the cosine decay.")
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm.")
    max_skipped_steps: int = option(10, "Steps in a row without a finite gradient after which the run stops.")
    mixed_precision: Literal["no", "bf16", "fp16"] | None = option(
        None, "Arithmetic of the towers; null: what accelerate is launched or configured with."
    )
    cpu_threads: int | None = option(None, "Threads of a process that trains on a CPU; null: its share of the cores.")
    seed: int = option(0, "Seed of weights, order, captions and views.")

    # Output
    output_dir: str = option("outputs/demo", "The run's folder, in the end a model repository for the Hub.")
    overwrite_output_dir: bool = option(False, "Delete another run's model in output_dir.")
    checkpoint_steps: int = option(500, "Steps between checkpoints.")
    keep_checkpoints: int = option(2, "Checkpoints to keep.")
    keep_self_distillation_head: bool = option(True, "Save that head with the model; false for a release.")
    resume_from_checkpoint: str | None = option(None, "'latest', or the folder of a checkpoint.")
    evaluation_steps: int = option(500, "Steps between evaluations on the validation split.")
    evaluation_batch_size: int = option(128, "Images or captions a batch in evaluations.")
    logging_steps: int = option(10, "Steps between lines of the log; each holds every step's losses.")
    log_with: str | None = option(None, "Tracker of accelerate: tensorboard, wandb, trackio, …")
    push_to_hub: bool = option(False, "Push the model to the Hub; the run checks at its start that it may.")
    hub_model_id: str | None = option(None, "Repository to push to, USER/NAME; made if it does not exist.")
    hub_private: bool = option(False, "Make that repository private, if it is made.")
    hub_strategy: Literal["end", "every_save", "checkpoint"] = option(
        "end",
        "What is pushed: the finished model; with every_save also each checkpoint's model, to main; with checkpoint "
        "each to a branch checkpoint-N. Unlike transformers' Trainer, none uploads the optimiser's state.",
    )
    run_card_examples: bool = option(
        True, "Run the code in the card when training ends; false: it stands there unrun."
    )
    dry_run: bool = option(False, "Only show data, model, schedule, memory and the first batch as a picture.")

    def __post_init__(self):
        for name, expected in get_type_hints(TrainingConfig).items():
            if not has_type(getattr(self, name), expected):
                shown = getattr(expected, "__name__", expected) if get_origin(expected) is None else expected
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be of type {shown}")
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name) if len(getattr(self, name)) == 2 else (1, 0)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} takes two shares of the image, 0 < smallest <= largest <= 1")
        if unknown := [language for language in self.languages if language not in LANGUAGES]:
            raise ValueError(f"unknown language code {unknown[0]!r} in languages; known are {' '.join(LANGUAGES)}")
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError("languages must name at least one language, each once")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: contrastive learning needs at least two pairs")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                limits = f"at least {low}" if high == math.inf else f"between {low} and {high}"
                raise ValueError(f"{name} is {value}: it must be {limits}")
        for name in POSITIVE:
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        if not self.output_dir:
            raise ValueError("output_dir must name a folder")
        if self.model and self.tokenizer:
            raise ValueError("give model or tokenizer, not both: a model's tokenizer comes with its weights")
        if self.streaming and not (self.model or self.tokenizer):
            raise ValueError("streaming needs model or tokenizer: no tokenizer can be trained on a stream")
        if self.log_with and self.log_with not in (available := [str(name) for name in get_available_trackers()]):
            installed = ", ".join(available) or "none"
            raise ValueError(f"no tracker {self.log_with!r} for log_with is installed; installed: {installed}")
        if self.freeze is not None:
            try:
                re.compile(self.freeze)
            except re.error as error:
                raise ValueError(f"freeze {self.freeze!r} is no regular expression: {error}") from None
        if self.push_to_hub and (self.hub_model_id or "").count("/") != 1:
            raise ValueError(f"push_to_hub needs hub_model_id, as USER/NAME; it is {self.hub_model_id!r}")
        if self.merge_adapter and not self.lora:
            raise ValueError("merge_adapter needs lora: there is no adapter to merge")
        if self.self_distillation_weight > 0 and self.num_global_views + self.num_local_views < 2:
            raise ValueError("self-distillation compares views: it needs two global ones, or a global and a local one")
        self.caption_sampling()
        check_model_config(self.model_config, RSMCLIPConfig, "model_config")

    def caption_sampling(self) -> CaptionSampling:
        """How captions are drawn."""
        return CaptionSampling.parse(self.language_sampling, self.languages, self.captions_per_image)

    def view_specs(self, image_size: int) -> dict[str, ViewSpec]:
        """The sorts of views: global ones of the model's image size, and the local ones if there is a teacher."""
        names = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize")
        colour = {name: getattr(self, name) for name in names}
        specs = {"global": ViewSpec(self.num_global_views, image_size, tuple(self.global_scale), **colour)}
        if self.self_distillation_weight > 0 and self.num_local_views > 0:
            specs["local"] = ViewSpec(self.num_local_views, self.local_size, tuple(self.local_scale), **colour)
        return specs

    def save(self, path: Path) -> None:
        """Writes all fields as YAML, in a form that `--config` reads."""
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True), encoding="utf-8")


def check_model_config(values: dict, config_class: type[PreTrainedConfig], place: str) -> None:
    """Names that a model configuration does not have are an error; transformers would keep them for later versions."""
    known = [spec.name for spec in fields(config_class) if spec.init]
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{place}: {unknown_field(name, known)}")
        if name in config_class.sub_configs and isinstance(value, dict):
            check_model_config(value, config_class.sub_configs[name], f"{place}.{name}")
        if name == "self_distillation":
            if not isinstance(value, dict | None):
                raise ValueError(f"{place}.{name} is {value!r}, but must be the sizes of the head")
            for key in (value or {}).keys() - SELF_DISTILLATION_DEFAULTS:
                raise ValueError(f"{place}.{name}: {unknown_field(key, list(SELF_DISTILLATION_DEFAULTS))}")


def unknown_field(name: object, known: list[str]) -> str:
    """Says that a field does not exist, and which may have been meant."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"unknown field {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def has_type(value: object, expected: type) -> bool:
    """Whether a value, from YAML say, is of a field's type. An integer is a float; a bool is no integer."""
    if get_origin(expected) is Literal:
        return value in get_args(expected)
    if get_origin(expected) is list:
        return isinstance(value, list) and all(has_type(item, get_args(expected)[0]) for item in value)
    if get_args(expected):  # a union
        return any(has_type(value, choice) for choice in get_args(expected))
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, (int, float) if expected is float else expected)


def dictionary(argument: str) -> dict:
    """A dictionary on the command line, in JSON."""
    try:
        return dict(json.loads(argument))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"expected a JSON object, got {argument}") from None


class ConfigParser(HfArgumentParser):
    """Command-line parser whose errors are one line, and which takes dictionaries as JSON."""

    def add_argument(self, *names, **options):
        """Adds an option; a dictionary on the command line is JSON."""
        if options.get("type") is dict:
            options["type"] = dictionary
        return super().add_argument(*names, **options)

    def error(self, message: str):
        """Prints one line and exits with status 2."""
        self.exit(2, f"train.py: error: {message}\n")


def parse_config(arguments: list[str] | None = None) -> TrainingConfig:
    """
    The configuration from `--config FILE` (by default the demo's), with `--field value` over it.

    Args:
        arguments (`list[str]`, *optional*):
            Command line without the program's name; by default the process's own.

    Raises:
        `ValueError`: A field that does not exist or a value that cannot be; `SystemExit` from the parser.
    """
    parser = ConfigParser(
        TrainingConfig,
        description="Trains RS-M-CLIP. Every field of the configuration is an option.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", default=str(DEFAULT_CONFIG), help="YAML file with fields of the configuration.")
    path = Path(parser.parse_known_args(arguments)[0].config)
    parser.set_defaults(**read_yaml(path))
    namespace = vars(parser.parse_args(arguments))
    del namespace["config"]
    optional = [name for name, hint in get_type_hints(TrainingConfig).items() if type(None) in get_args(hint)]
    nulls = {name: None for name in optional if namespace[name] == "null"}  # as in YAML
    return TrainingConfig(**(namespace | nulls))


def read_yaml(path: Path, derived: tuple[Path, ...] = ()) -> dict:
    """
    The fields in a YAML file, over those of the file beside it that `base` names. Names that the configuration does
    not have are an error.
    """
    if not path.is_file():
        raise ValueError(f"no configuration file at {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold fields and values, not a {type(values).__name__}")
    base = values.pop("base", None)
    if not isinstance(base, str | None):
        raise ValueError(f"{path}: base is {base!r}, but must be the name of a file beside it")
    if values.get("mixed_precision") is False:
        values["mixed_precision"] = "no"  # which YAML reads as false
    known = [spec.name for spec in fields(TrainingConfig)]
    for name in values:
        if name not in known:
            raise ValueError(f"{path}: {unknown_field(name, known)}")
    if base is None:
        return values
    if path in derived:
        raise ValueError(f"{path} is its own base")
    return read_yaml(path.parent / base, (*derived, path)) | values
