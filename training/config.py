"""The settings of a training run.

Each field is declared once, in one of the groups below: default, help, range, whether a resumed run may change it, and
whether the model card shows it. [`TrainingConfig`] has the fields of all groups. A function takes the group that it
needs.

This module imports neither torch nor the model at its top, so that `--help` is fast.
"""

import math
import re
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_origin, get_type_hints

import yaml

from rsmclip.core.errors import UserError
from rsmclip.core.files import expand_home, has_type, is_local
from rsmclip.core.languages import LANGUAGES

if TYPE_CHECKING:
    from rsmclip.training.batches import CaptionSampling
    from rsmclip.training.views import ViewSpec

SHARE = {"low": 0, "high": 1}
# Fields that name a folder, a file or a Hub id.
SOURCES = ("dataset", "same_pictures", "model", "image_tower", "text_tower", "tokenizer")
LENGTH = ("num_train_epochs", "max_train_steps")  # a run has one of them
VALIDATION = ("validation_split", "evaluation_languages", "benchmarks")  # what `best_figure` is measured on
LANGUAGE_SAMPLING = (
    "How languages are drawn: uniform; english_anchor (English always, others too); weights: en=3,pt=1."
)
SOURCE_SAMPLING = (
    "How rows of several corpora are drawn; null: each row once an epoch; temperature T: shares proportional to "
    "rows ** (1 / T); weights: rsicd=1,ucm=2."
)
BENCHMARKS = (
    "Zero-shot: NAME, a file of eval/benchmarks/, names the labels of the corpus; NAME=FOLDER is a folder of images "
    "by class."
)
HUB_STRATEGY = (
    "What is pushed: the finished model (end); also the model of each checkpoint to main (every_save) or to a branch "
    "checkpoint-N (checkpoint). The optimizer's state is never pushed."
)


def option(
    default: object,
    help: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    may_change: bool = False,
    card: bool = False,
    steps: bool = False,
) -> object:
    """
    Declare a field. `--help` shows `help`.

    A value may be `low` or `high`, but not `above`. `may_change` says whether a resumed run may have another value,
    and `card` whether the model card shows the field. With `steps`, a value below 1 is a share of the run's steps.
    """
    metadata = {"help": help, "low": low, "high": high, "above": above, "may_change": may_change, "card": card}
    metadata["steps"] = steps
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataSettings:
    title = "data"

    dataset: str = option("demo", "Corpus: 'demo' (drawn by the run), a folder of 'rsmclip data build', or a Hub id.")
    same_pictures: str | None = option(None, "REPORT.json of the audit: rows with one picture share their sentences.")
    train_split: str = option("train", "Split to train on.")
    validation_split: str = option("val", "Split to evaluate during training.", may_change=True)
    test_split: str = option("test", "Split of the final table.", may_change=True)
    languages: list[str] = option(list(LANGUAGES), "Language codes to train on.")
    evaluation_languages: list[str] | None = option(
        None, "Language codes of validation, test and card; null: languages.", may_change=True
    )
    language_sampling: str = option("uniform", LANGUAGE_SAMPLING, card=True)
    source_sampling: str | None = option(None, SOURCE_SAMPLING, card=True)
    captions_per_image: int = option(2, "Captions of an image in a step, in several languages.", low=1, card=True)
    benchmarks: list[str] = option([], BENCHMARKS, may_change=True)
    short_side: int = option(256, "Workers reduce the short side of images to this, in pixels.", low=1)
    num_workers: int = option(4, "Data loading processes of each training process.", low=0, may_change=True)
    streaming: bool = option(False, "Read the training split shard by shard in a bounded cache; needs parquet files.")
    shuffle_buffer: int = option(100_000, "Rows of successive shards that a stream shuffles together.", low=1)

    @property
    def evaluated_languages(self) -> list[str]:
        """The languages of validation and test."""
        return self.languages if self.evaluation_languages is None else self.evaluation_languages

    def caption_sampling(self) -> "CaptionSampling":
        """Return how captions are drawn."""
        from rsmclip.training.batches import CaptionSampling

        return CaptionSampling.parse(self.language_sampling, self.languages, self.captions_per_image)


@dataclass
class ModelSettings:
    title = "model"

    model: str | None = option(None, "Folder or Hub id of weights to start from; null: random, of model_config.")
    model_config: dict = option(
        {},
        "Fields of RSMCLIPConfig (JSON on the command line). With towers, their vision_config and text_config count; "
        "with model, only self_distillation is read, and only if the weights have no head.",
    )
    image_tower: str | None = option(
        None, "Folder or Hub id of a pretrained image tower: CLIP's, DINOv2's, or OpenCLIP's layout."
    )
    text_tower: str | None = option(
        None, "Folder or Hub id of a pretrained XLM-RoBERTa or BERT encoder with its tokenizer."
    )
    trim_vocabulary: bool = option(
        False, "Keep the text tower's tokens that captions, class names and prompts use, and single characters."
    )
    tokenizer: str | None = option(None, "Tokenizer of a random start, folder or Hub id; null: train one on captions.")
    vocab_size: int = option(4000, "Pieces of a tokenizer that is trained on the captions.", low=1)
    max_length: int = option(77, "Longest caption in tokens; longer captions are cut.", low=3)  # two are special
    freeze: str | None = option(None, "Regular expression; parameters with a matching name are frozen.")
    freeze_word_embeddings: bool = option(False, "Freeze the word embeddings, over half of all parameters.")
    lora: dict = option({}, "Fields of peft's LoraConfig: train low-rank adapters and the head only.")
    merge_adapter: bool = option(
        False, "Merge the adapter into the saved model; false: save it alone.", may_change=True
    )

    @property
    def weights(self) -> str:
        """The origin of the weights, for a line of the log."""
        return self.model or (f"{self.image_tower} and {self.text_tower}" if self.image_tower else "random weights")


@dataclass
class ViewSettings:
    title = "views"

    num_global_views: int = option(2, "Global views of an image, see num_contrastive_views.", low=1, card=True)
    global_scale: list[float] = option([0.4, 1.0], "Smallest and largest share of the image in a global view.")
    flip: float = option(0.5, "Probability of each flip, vertical and horizontal.", **SHARE)
    quarter_turn: float = option(0.5, "Probability of a quarter turn.", **SHARE)
    jitter: float = option(1.0, "Probability that brightness, contrast, saturation and hue change at all.", **SHARE)
    brightness: float = option(0.4, "Largest relative change of brightness.", **SHARE)
    contrast: float = option(0.4, "Largest relative change of contrast.", **SHARE)
    saturation: float = option(0.2, "Largest relative change of saturation.", **SHARE)
    hue: float = option(0.1, "Largest shift of hue, as a share of the color circle.", low=0, high=0.5)
    grayscale: float = option(0.2, "Probability of a gray view.", **SHARE)
    blur: float = option(0.5, "Probability of a blurred view.", **SHARE)
    solarize: float = option(0.0, "Probability of a solarized view.", **SHARE)


@dataclass
class ContrastiveSettings:
    title = "contrastive loss"

    num_contrastive_views: int = option(
        0, "Mild views for InfoNCE alone, never gray or blurred; 0: it takes the global views.", low=0, card=True
    )
    contrastive_scale: list[float] = option([0.5, 1.0], "Smallest and largest share of the image in a mild view.")
    duplicate_captions: Literal["ignore", "positive", "negative"] = option(
        "ignore", "Role in InfoNCE of another image's caption that has a sentence of this image.", card=True
    )
    # The next two fields change a result by rounding only.
    loss_chunk_size: int | None = option(None, "Rows of logits in memory at once; null: all.", low=1, may_change=True)
    gradient_accumulation_chunks: int = option(
        1, "Parts of a batch that pass the towers one by one; the loss sees the whole batch.", low=1, may_change=True
    )


@dataclass
class SelfDistillationSettings:
    """DINO (Caron et al. 2021); constant teacher momentum after SILC (Naeem et al. 2023)."""

    title = "self-distillation"

    self_distillation_weight: float = option(1.0, "Weight of the loss; 0: no teacher and no head.", low=0, card=True)
    self_distillation_warmup_steps: float = option(
        0, "Steps of linear warm-up of the weight, from 0; below 1: share of the run.", low=0, steps=True
    )
    num_local_views: int = option(8, "Local views of an image.", low=0, card=True)
    local_scale: list[float] = option([0.05, 0.4], "Smallest and largest share of the image in a local view.")
    local_size: int = option(96, "Height and width of a local view in pixels.", low=1)
    student_temperature: float = option(0.1, "Temperature of the student.", above=0)
    teacher_temperature: float = option(0.07, "Temperature of the teacher after its warm-up.", above=0, card=True)
    warmup_teacher_temperature: float = option(0.04, "Temperature of the teacher at the first step.", above=0)
    teacher_temperature_warmup: float = option(0.3, "Share of the steps in which the temperature rises.", **SHARE)
    teacher_momentum: float = option(0.996, "Share of the teacher's weights that a step keeps.", **SHARE, card=True)
    final_teacher_momentum: float | None = option(
        None, "Momentum at the last step (cosine schedule; 1 in DINO); null: it is constant.", **SHARE, card=True
    )
    centering: Literal["running_mean", "sinkhorn_knopp"] = option(
        "running_mean", "Guard against collapse: DINO's center or Sinkhorn-Knopp."
    )
    center_momentum: float = option(0.9, "Share of the center that a step keeps.", **SHARE)
    freeze_prototypes_steps: float = option(
        0, "First steps in which the prototypes are frozen; below 1: share of the run.", low=0, steps=True
    )


@dataclass
class OptimizationSettings:
    title = "optimization"

    batch_size: int = option(64, "Images of a step over all processes: candidates of InfoNCE.", low=2, card=True)
    # A resumed run has as many steps as it had, however they are given.
    num_train_epochs: float | None = option(
        None, "Epochs of rows // batch_size steps; null: max_train_steps.", above=0, may_change=True
    )
    max_train_steps: int | None = option(1000, "Optimization steps; null: num_train_epochs.", low=1, card=True)
    learning_rate: float = option(1e-4, "Peak learning rate of AdamW, before a cosine decay.", above=0, card=True)
    image_learning_rate: float | None = option(None, "Image tower's rate; null: learning_rate.", above=0, card=True)
    text_learning_rate: float | None = option(None, "Text tower's rate; null: learning_rate.", above=0, card=True)
    projection_learning_rate: float | None = option(
        None, "Rate of the two projections; null: their tower's rate.", above=0, card=True
    )
    head_learning_rate: float | None = option(None, "Head's rate; null: learning_rate.", above=0, card=True)
    layer_decay: float = option(1.0, "Factor on the learning rate of a layer, for each layer above it.", **SHARE)
    weight_decay: float = option(0.1, "Weight decay, on matrices only.", low=0, card=True)
    adam_beta2: float = option(0.98, "Second-moment decay of AdamW.", low=0, high=0.99999, card=True)
    warmup_steps: float = option(
        50, "Steps of linear warm-up before the cosine decay; below 1: share of the run.", low=0, card=True, steps=True
    )
    max_grad_norm: float = option(
        1.0, "Largest norm of the gradient over all parameters together (DINO's 3.0: of each).", above=0, card=True
    )
    probe_steps: int = option(
        0, "Steps that first train the projections alone, on stored embeddings of frozen towers.", low=0, card=True
    )
    probe_learning_rate: float = option(1e-3, "Peak learning rate of these steps.", above=0)
    max_skipped_steps: int = option(
        10, "Number of successive steps without a finite gradient that stops the run.", low=1, may_change=True
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = option(
        None, "Precision of the towers; null: the setting of accelerate."
    )
    cpu_threads: int | None = option(  # torch crashes if the system cannot start so many
        None, "Threads of a process on a CPU; null: its share of the cores.", low=1, high=1024, may_change=True
    )
    seed: int = option(0, "Seed of weights, order, captions and views.", low=0, high=2**32 - 1, card=True)


@dataclass
class OutputSettings:
    title = "output"

    output_dir: str = option("outputs/demo", "Folder of the run, in the end a model repository.", may_change=True)
    overwrite_output_dir: bool = option(False, "Delete an earlier run in output_dir.", may_change=True)
    checkpoint_steps: float = option(
        500, "Steps between checkpoints; below 1: share of the run.", above=0, may_change=True, steps=True
    )
    keep_checkpoints: int = option(2, "Checkpoints to keep.", low=1, may_change=True)
    keep_self_distillation_head: bool = option(
        True, "Save the self-distillation head with the model; false for a release.", may_change=True
    )
    resume_from_checkpoint: str | None = option(None, "'latest', or the folder of a checkpoint.", may_change=True)
    evaluation_steps: float = option(
        500,
        "Steps between validations; one more after the last step, unless the run is shorter; below 1: share.",
        above=0,
        may_change=True,
        steps=True,
    )
    evaluate_start: bool = option(True, "Evaluate the model before training, for the final table.", may_change=True)
    best_figure: str | None = option(
        None, "Figure of the validation; the step where it is highest is the model; null: the last step.", card=True
    )
    early_stop_evaluations: int | None = option(
        None, "Evaluations without a rise of best_figure that end the run; null: never.", low=1, may_change=True
    )
    evaluation_batch_size: int = option(128, "Images or captions of a batch in evaluations.", low=1, may_change=True)
    logging_steps: int = option(10, "Steps between writes to the log of all steps.", low=1, may_change=True)
    log_with: str | None = option(None, "Tracker of accelerate: tensorboard, wandb, trackio, …", may_change=True)
    dry_run: bool = option(False, "Show data, model, schedule and the first batch; do not train.", may_change=True)


@dataclass
class HubSettings:
    title = "hub"

    push_to_hub: bool = option(False, "Push the model; the permission is checked at the start.", may_change=True)
    hub_model_id: str | None = option(None, "Repository, USER/NAME; created if it does not exist.", may_change=True)
    hub_private: bool = option(False, "Create a private repository.", may_change=True)
    hub_strategy: Literal["end", "every_save", "checkpoint"] = option("end", HUB_STRATEGY, may_change=True)


@dataclass
class TrainingConfig(  # a dataclass has the fields of its last base first
    HubSettings,
    OutputSettings,
    OptimizationSettings,
    SelfDistillationSettings,
    ContrastiveSettings,
    ViewSettings,
    ModelSettings,
    DataSettings,
):
    """
    Every setting of a run, checked by the constructor. `train.py --help` documents the fields.

    Raises:
        [`UserError`]: A value has the wrong type, is out of range, or contradicts another one.
    """

    def __post_init__(self):
        hints = get_type_hints(TrainingConfig)
        for spec in fields(self):
            check_value(spec.name, getattr(self, spec.name), hints[spec.name], **spec.metadata)
            if spec.metadata["steps"] and getattr(self, spec.name) % 1 == 0:
                setattr(self, spec.name, int(getattr(self, spec.name)))  # the command line reads 50 as 50.0
        if sum(getattr(self, name) is not None for name in LENGTH) != 1:
            raise UserError(f"a run needs one of {' and '.join(LENGTH)}: set one to a number and the other to null")
        for name in ("contrastive_scale", "global_scale", "local_scale"):
            low, high = getattr(self, name) if len(getattr(self, name)) == 2 else (1, 0)
            if not 0 < low <= high <= 1:
                raise UserError(f"{name} needs two shares of the image: 0 < smallest <= largest <= 1")
        for name, codes in (("languages", self.languages), ("evaluation_languages", self.evaluated_languages)):
            if unknown := [code for code in codes if code not in LANGUAGES]:
                raise UserError(f"{name} has an unknown code {unknown[0]!r}; known codes: {' '.join(LANGUAGES)}")
            if not codes or len(set(codes)) < len(codes):
                raise UserError(f"{name} must name at least one language, each once")
        self.benchmarks = [*map(expand_home, self.benchmarks)]
        for name in (*SOURCES, "output_dir", "resume_from_checkpoint"):
            value = getattr(self, name) and expand_home(getattr(self, name))
            setattr(self, name, value)
            if value == "":  # such as --model "$MODEL" without this variable: a run from random weights
                raise UserError(f"{name} is empty: it must name a folder")
            if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", value or ""):  # or half a surrogate pair
                raise UserError(f"{name} is {value!r}: a name of a folder must not have control characters; rename it")
        self.check_combinations()
        self.caption_sampling()
        check_model_config(self.model_config)

    def check_combinations(self) -> None:
        if self.model and self.tokenizer:
            raise UserError("give model or tokenizer, but not both: a model has its own tokenizer")
        if (self.image_tower is None) != (self.text_tower is None):
            missing = "text_tower" if self.text_tower is None else "image_tower"
            raise UserError(f"give image_tower and text_tower together: {missing} is not set")
        if self.image_tower and (self.model or self.tokenizer):
            other = "model" if self.model else "tokenizer"
            raise UserError(
                f"give {other} or the towers, but not both: towers are a new model with the text tower's tokenizer"
            )
        if self.trim_vocabulary and not self.text_tower:
            raise UserError("trim_vocabulary needs image_tower and text_tower: it trims the text tower's tokenizer")
        if self.streaming and (self.trim_vocabulary or self.probe_steps):
            name = "trim_vocabulary" if self.trim_vocabulary else "probe_steps"
            raise UserError(
                f"{name} reads all training captions before the first step: it does not work with streaming"
            )
        if self.streaming and not (self.model or self.tokenizer or self.text_tower):
            raise UserError("streaming needs model, towers or tokenizer: no tokenizer can be trained on a stream")
        if self.streaming and self.source_sampling is not None:
            raise UserError("source_sampling does not work with streaming: a stream has the order of its shards")
        if self.streaming and self.same_pictures is not None:
            raise UserError("same_pictures does not work with streaming: it needs the captions of all training rows")
        if self.log_with:
            from accelerate.tracking import get_available_trackers  # imports torch

            if self.log_with not in (available := [str(name) for name in get_available_trackers()]):
                installed = ", ".join(available) or "none"
                raise UserError(
                    f"log_with: the tracker {self.log_with!r} is not installed; installed: {installed}. For "
                    "tensorboard, trackio and wandb: pip install -e '.[trackers]'"
                )
        if self.freeze is not None:
            try:
                re.compile(self.freeze)
            except re.error as error:
                raise UserError(f"freeze {self.freeze!r} is not a regular expression: {error}") from None
        if self.push_to_hub and (self.hub_model_id or "").count("/") != 1:
            raise UserError(f"push_to_hub needs hub_model_id, as USER/NAME; it is {self.hub_model_id!r}")
        if self.early_stop_evaluations and not self.best_figure:
            raise UserError("early_stop_evaluations needs best_figure: the figure that must rise")
        if self.lora and (self.probe_steps or self.image_tower):
            name = "probe_steps" if self.probe_steps else "image_tower"
            raise UserError(
                f"{name} does not work with lora: an adapter trains no projections. Train them in a run without lora, "
                "and give the folder of that run as --model"
            )
        if self.merge_adapter and not self.lora:
            raise UserError("merge_adapter needs lora: without lora there is no adapter to merge")
        if self.push_to_hub and self.lora and not self.merge_adapter and self.model and is_local(self.model):
            raise UserError(
                f"push_to_hub: others cannot load an adapter to the local model {self.model}; give --merge_adapter "
                "true, or push the model and give its repository as --model"
            )
        if self.self_distillation_weight > 0 and self.num_global_views + self.num_local_views < 2:
            raise UserError(
                "self-distillation compares views: give at least two num_global_views, or one and num_local_views"
            )

    def with_whole_steps(self, num_rows: int) -> "TrainingConfig":
        """Return the settings of a run on `num_rows` training rows: epochs and shares are whole numbers of steps."""
        total = self.max_train_steps or round_up(self.num_train_epochs * (num_rows // self.batch_size))
        given = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.metadata["steps"]}
        shares = {name: round_up(value * total) for name, value in given.items() if 0 < value < 1}
        return replace(self, num_train_epochs=None, max_train_steps=total, **shares)

    def view_specs(self, image_size: int) -> dict[str, "ViewSpec"]:
        """
        Return the kinds of views of a run. Contrastive and global views have the model's image size.

        InfoNCE takes the contrastive views (as in SLIP, Mu et al. 2021), or the global views if there are none (as in
        SILC, Naeem et al. 2023). The self-distillation takes global and local views. The contrastive views come first,
        so that their random numbers do not depend on the self-distillation.
        """
        from rsmclip.training.views import ViewSpec

        turns = ("flip", "quarter_turn")
        color = ("jitter", "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize")
        augmentation = {name: getattr(self, name) for name in turns + color}
        specs, with_teacher = {}, self.self_distillation_weight > 0
        if self.num_contrastive_views > 0:
            mild = augmentation | dict.fromkeys(("grayscale", "blur", "solarize"), 0.0)
            scale = tuple(self.contrastive_scale)
            specs["contrastive"] = ViewSpec(self.num_contrastive_views, image_size, scale, **mild)
        if with_teacher or not specs:
            specs["global"] = ViewSpec(self.num_global_views, image_size, tuple(self.global_scale), **augmentation)
        if with_teacher and self.num_local_views > 0:
            specs["local"] = ViewSpec(self.num_local_views, self.local_size, tuple(self.local_scale), **augmentation)
        return specs

    def card_rows(self) -> list[list[str]]:
        """Return name and value of the settings that the model card shows."""
        shown = [spec.name for spec in fields(self) if spec.metadata["card"] and getattr(self, spec.name) is not None]
        if self.self_distillation_weight == 0:
            unused = {spec.name for spec in fields(SelfDistillationSettings)} - {"self_distillation_weight"}
            shown = [name for name in shown if name not in unused]
        return [[f"`{name}`", f"{getattr(self, name)}"] for name in shown]

    def save(self, path: Path) -> None:
        """Write all fields as YAML, which `--config` reads."""
        path.write_text(yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True), encoding="utf-8")


GROUPS = TrainingConfig.__bases__[::-1]  # in the order of `--help`


def check_value(
    name: str,
    value: object,
    expected: type,
    low: float | None,
    high: float | None,
    above: float | None,
    steps: bool,
    **_: object,
) -> None:
    # Raise unless a value has the type of its field and is in its range.
    if not has_type(value, expected):
        shown = getattr(expected, "__name__", expected) if get_origin(expected) is None else expected
        raise UserError(f"{name} is {value!r}, but must be of type {shown}")
    if value is None or (low is None and high is None and above is None):
        return
    if steps and value > 1 and value % 1:
        raise UserError(f"{name} is {value}: it must be a whole number of steps, or below 1, a share of the run")
    largest = sys.float_info.max  # an integer beyond it is no number for torch
    low, high = (-largest if low is None else low), (largest if high is None else high)
    if above is not None and not above < value <= largest:
        raise UserError(f"{name} is {value}: it must be above {above}")
    if not low <= value <= high:
        limits = f"at least {low}" if high == largest else f"between {low} and {high}"
        raise UserError(f"{name} is {value}: it must be {limits}")


def round_up(steps: float) -> int:
    return max(1, math.ceil(round(steps, 6)))  # 0.07 · 100 is 7.000000000000001


def check_model_config(values: dict) -> None:
    # Raise for a field that a model configuration does not have: transformers would keep it unused.
    from rsmclip import RSMCLIPConfig
    from rsmclip.configuration_rsmclip import SELF_DISTILLATION_DEFAULTS

    def check_names(given: dict, known: list[str], place: str) -> None:
        for name in given:
            if name not in known:
                raise UserError(f"{place}: {unknown_field(name, known)}")

    check_names(values, [spec.name for spec in fields(RSMCLIPConfig) if spec.init], "model_config")
    for name, tower in RSMCLIPConfig.sub_configs.items():
        if isinstance(values.get(name), dict):
            check_names(values[name], [spec.name for spec in fields(tower) if spec.init], f"model_config.{name}")
    head = values.get("self_distillation")
    if not isinstance(head, dict | None):
        raise UserError(f"model_config.self_distillation is {head!r}, but must have the sizes of the head as fields")
    check_names(head or {}, list(SELF_DISTILLATION_DEFAULTS), "model_config.self_distillation")


def unknown_field(name: object, known: list[str]) -> str:
    """Return a message that a field does not exist, with the known name closest to it."""
    from difflib import get_close_matches

    close = get_close_matches(str(name), known, n=1)
    return f"unknown field {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
