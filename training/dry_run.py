"""`--dry_run`: print data, model and schedule of a run, and draw the first batch as the model will see it."""

import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import get_cosine_schedule_with_warmup

from rsmclip import RSMCLIPModel
from rsmclip.core.errors import user_errors
from rsmclip.core.images import IMAGE_ERRORS, image_bytes, open_encoded
from rsmclip.training.batch_picture import draw_batch, drawn_captions
from rsmclip.training.config import TrainingConfig
from rsmclip.training.optimizer import layers_above, parameter_groups
from rsmclip.training.run_folder import PICTURE
from rsmclip.training.schedules import distillation_weight, teacher_momentum, teacher_temperature
from rsmclip.training.streaming import StreamedCorpus

PARTS = {  # by prefix of parameter names; the first match counts
    "vision_model.": "image tower",
    "text_model.embeddings.word_embeddings.": "text tower, word embeddings",
    "text_model.": "text tower, other",
    "visual_projection.": "projections",
    "text_projection.": "projections",
    "self_distillation_head.": "self-distillation head",
    "logit_scale": "logit scale",
}
IMAGES_READ = 200  # to find the range of image sizes
DUPLICATES = {"positive": "a positive", "ignore": "ignored", "negative": "a negative"}


def columns(rows: list[list[object]]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    return textwrap.indent("\n".join(line.rstrip() for line in lines), "  ")


def describe_data(config: TrainingConfig, splits: dict[str, Dataset]) -> str:
    """
    Describe rows of the splits, sizes of images, captions by language, and captions that several images share.

    Of a stream only the rows of the first batch are read.
    """
    rows_of_stream = len(splits["train"])
    if config.streaming:
        splits = splits | {"train": first_rows(config, splits["train"])}
    table = [["split", "rows", "without label", "image sizes"]]
    for role, rows in splits.items():
        table.append([role, len(rows), sum(label is None for label in rows["label"]), image_sizes(rows)])
    captions = splits["train"]["captions"]
    by_language: list[list] = [["language", "captions", "rows that have one"]]
    for language in config.languages:
        counts = [sum(map(bool, row.get(language) or [])) for row in captions]
        by_language.append([language, sum(counts), f"{np.mean(np.array(counts) > 0):.1%}"])
    shared = (
        f"  {shared_sentences(captions, config.languages):.1%} of the captions have a sentence that several images "
        f"share; such a pair is {DUPLICATES[config.duplicate_captions]}"
    )
    name = config.dataset
    if config.streaming:
        name += f", a stream of {rows_of_stream:,} training rows; the figures of train are those of the first batch"
    return "\n".join([f"data: {name}", columns(table), "", columns(by_language), shared])


def first_rows(config: TrainingConfig, stream: StreamedCorpus) -> Dataset:
    return Dataset.from_list([stream[int(row)] for row in stream.order(0, 0, config.batch_size)])


def image_sizes(rows: Dataset) -> str:
    sizes = []
    for index in np.linspace(0, len(rows) - 1, min(IMAGES_READ, len(rows)), dtype=int):
        try:
            sizes.append(open_encoded(image_bytes(rows[int(index)]["image"]) or b"").size)
        except IMAGE_ERRORS:
            continue
    if not sizes:
        return "none can be read"
    low, high = np.min(sizes, axis=0), np.max(sizes, axis=0)
    shown = "×".join(map(str, low)) + ("" if (low == high).all() else " to " + "×".join(map(str, high)))
    return shown + (f" (of {len(sizes)})" if len(sizes) < len(rows) else "")


def shared_sentences(captions: list[dict], languages: list[str]) -> float:
    """Return the share of the captions that translate an English sentence which several images have."""
    sentences = [list(sentences_of(row, languages)) for row in captions]
    images = Counter(sentence for row in sentences for sentence in set(row))
    shared = [images[sentence] > 1 for row in sentences for sentence in row]
    return sum(shared) / len(shared)


def sentences_of(captions: dict[str, list[str | None] | None], languages: list[str]) -> Iterator[str]:
    """Yield for each caption of an image the English sentence that it translates, or itself."""
    english = captions.get("en") or []
    for language in languages:
        for number, caption in enumerate(captions.get(language) or []):
            if caption:
                yield (english[number] if number < len(english) else None) or caption


def describe_model(config: TrainingConfig, model: RSMCLIPModel) -> str:
    """Describe the parameters of each part: all, trained, frozen; and those of the teacher."""
    every, trained = Counter(dict.fromkeys(PARTS.values(), 0)), Counter()
    for name, parameter in model.named_parameters():
        part = next(part for prefix, part in PARTS.items() if name.startswith(prefix))
        every[part] += parameter.numel()
        trained[part] += parameter.numel() if parameter.requires_grad else 0
    rows = [[part, every[part], trained[part], every[part] - trained[part]] for part in every if every[part]]
    rows.append(["all", every.total(), trained.total(), every.total() - trained.total()])
    if config.self_distillation_weight > 0:
        teacher = every["image tower"] + every["self-distillation head"]
        rows.append(["teacher, a moving average", teacher, 0, teacher])
    return "\n".join(["model", columns([["parameters", "all", "trained", "frozen"], *rows])])


def describe_schedule(config: TrainingConfig, model: RSMCLIPModel, num_rows: int) -> str:
    """
    Describe steps, epochs, and the values that change with the step.

    Args:
        config ([`TrainingConfig`]): The run.
        model ([`RSMCLIPModel`]): The model in training.
        num_rows (`int`): Rows of the training split.
    """
    steps, per_epoch = config.max_train_steps, num_rows // config.batch_size
    optimizer = torch.optim.SGD([torch.zeros(())], lr=1.0)
    factor = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, steps).lr_lambdas[0]
    shown = {"first step": 0, f"step {config.warmup_steps + 1}": config.warmup_steps, "last step": steps - 1}
    rows = [["", *shown]]
    rates = peak_learning_rates(config, model)
    if len(set(rates.values())) == 1:
        rates = {"all parts": next(iter(rates.values()))}
    for name, rate in rates.items():
        rows.append([f"learning rate, {name}", *(f"{rate * factor(step):.3g}" for step in shown.values())])
    if config.self_distillation_weight > 0:
        for schedule in (teacher_temperature, teacher_momentum, distillation_weight):
            name = schedule.__name__.replace("_", " ")
            rows.append([name, *(f"{schedule(config, step):.4g}" for step in shown.values())])
    text = (
        f"schedule: {steps:,} steps of {config.batch_size} images and {config.captions_per_image} captions each; "
        f"{per_epoch} steps an epoch, {steps / per_epoch:.1f} epochs; warm-up {config.warmup_steps} steps"
    )
    return "\n".join([text, columns(rows)])


def peak_learning_rates(config: TrainingConfig, model: RSMCLIPModel) -> dict[str, float]:
    """Return the peak learning rate of each part; with a layer decay, of each of its layers."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates: dict[str, float] = {}
    for group in parameter_groups(model, config):
        above = layers_above(model, names[id(group["params"][0])]) if config.layer_decay < 1 else 0
        rates[group["part"].replace("_", " ") + (f", {above} below the last layer" if above else "")] = group["lr"]
    return rates


def dry_run(
    config: TrainingConfig,
    splits: dict[str, Dataset],
    model: RSMCLIPModel,
    batch: dict,
    is_main_process: bool,
) -> None:
    """
    Print data, model, schedule and captions of the first batch; draw its views to `dry_run.png` in the run's folder.

    Args:
        config ([`TrainingConfig`]): The run.
        splits (`dict[str, Dataset]`): `train`, `validation` and `test`.
        model ([`RSMCLIPModel`]): The model in training; it may be on the meta device, without weights.
        batch (`dict`): The first batch.
        is_main_process (`bool`): Other processes do nothing.

    Raises:
        [`UserError`]: The picture cannot be written.
    """
    if not is_main_process:
        return
    print(describe_data(config, splits))
    print(f"\n{describe_model(config, model)}")
    print(f"\n{describe_schedule(config, model, len(splits['train']))}", flush=True)
    rows = first_rows(config, splits["train"]) if config.streaming else splits["train"]
    captions = drawn_captions(batch, rows, config.languages)
    print("\nfirst batch")
    for image_id, texts in zip(batch["image_ids"], captions, strict=False):
        print(textwrap.indent("\n".join([image_id, *(f"  {language}: {text}" for language, text in texts)]), "  "))
    path = Path(config.output_dir) / PICTURE
    shown = f"{len(captions)} of {config.batch_size} images, seed {config.seed}"
    title = f"First batch of {path.resolve().parent.name}: {shown}"
    specs = config.view_specs(model.config.vision_config.image_size)
    picture = draw_batch(batch, specs, captions, title)
    with user_errors(OSError, prefix=f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path)
    print(f"\nnothing was trained; the first batch as a picture: {path}")
