"""`--dry_run`: print data, model, disk and schedule of a run, and draw the first batch as the model sees it."""

import math
import shutil
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
from datasets import Dataset

from rsmclip import RSMCLIPModel
from rsmclip.core.command_line import printable
from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.images import image_bytes, open_encoded
from rsmclip.training.batch_picture import draw_batch, drawn_captions
from rsmclip.training.batches import sentences_of
from rsmclip.training.config import TrainingConfig
from rsmclip.training.loading import row_order
from rsmclip.training.optimizer import layers_above, parameter_groups
from rsmclip.training.run_folder import PICTURE
from rsmclip.training.schedules import (
    distillation_weight,
    learning_rate_factor,
    length,
    teacher_momentum,
    teacher_temperature,
)
from rsmclip.training.streaming import StreamedCorpus

PARTS = {  # parts of the model by prefix of parameter names; the first matching prefix counts
    "vision_model.": "image tower",
    "text_model.embeddings.word_embeddings.": "text tower, word embeddings",
    "text_model.": "text tower, other",
    "visual_projection.": "projections",
    "text_projection.": "projections",
    "self_distillation_head.": "self-distillation head",
    "logit_scale": "logit scale",
}
IMAGES_READ = 200  # to find the range of image sizes
TEACHER = ("vision_model.", "self_distillation_head.")  # prefixes of the parameters that the teacher averages
DUPLICATES = {"positive": "a positive", "ignore": "ignored", "negative": "a negative"}


def columns(rows: list[list[object]]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    return textwrap.indent("\n".join(line.rstrip() for line in lines), "  ")


def describe_data(config: TrainingConfig, splits: dict[str, Dataset]) -> str:
    # Rows and image sizes of the splits, captions by language, and captions that several images share. Only the first
    # batch is read from a stream.
    rows_of_stream = len(splits["train"])
    if config.streaming:
        splits = splits | {"train": first_rows(config, splits["train"])}
    table = [["split", "rows", "without label", "image sizes"]]
    for role, rows in splits.items():
        table.append([role, len(rows), sum(label is None for label in rows["label"]), image_sizes(rows)])
    captions = splits["train"]["captions"]
    by_language: list[list] = [["language", "captions", "rows with a caption"]]
    for language in config.languages:
        counts = [sum(map(bool, row.get(language) or [])) for row in captions]
        by_language.append([language, sum(counts), f"{np.mean(np.array(counts) > 0):.1%}"])
    shared = (
        f"  {shared_sentences(captions, config.languages):.1%} of the captions have a sentence that several images "
        f"share; in the loss, such a caption of another image is {DUPLICATES[config.duplicate_captions]}\n"
        f"  {repeated_sentences(captions, config):.1%} of the images have too few sentences for "
        f"{config.captions_per_image} different ones in a step"
    )
    if config.source_sampling is not None:
        order = row_order(config, splits["train"], config.batch_size)
        by_source = zip(order.names, map(len, order.rows), order.draws.tolist(), strict=True)
        shared += "\n\n" + columns([["corpus", "rows", "drawn in an epoch"], *map(list, by_source)])
    name = config.dataset
    if config.streaming:
        name += f", a stream of {rows_of_stream:,} training rows; the figures of train count the first batch only"
    return "\n".join([f"data: {name}", columns(table), "", columns(by_language), shared])


def first_rows(config: TrainingConfig, stream: StreamedCorpus) -> Dataset:
    return Dataset.from_list([stream[int(row)] for row in stream.order(0, 0, config.batch_size)])


def image_sizes(rows: Dataset) -> str:
    sizes = []
    for index in np.linspace(0, len(rows) - 1, min(IMAGES_READ, len(rows)), dtype=int):
        try:
            sizes.append(open_encoded(image_bytes(rows[int(index)]["image"]) or b"").size)
        except UserError:
            continue
    if not sizes:
        return "none can be read"
    low, high = np.min(sizes, axis=0), np.max(sizes, axis=0)
    shown = "×".join(map(str, low)) + ("" if (low == high).all() else " to " + "×".join(map(str, high)))
    return shown + (f" (of {len(sizes)})" if len(sizes) < len(rows) else "")


def shared_sentences(captions: list[dict], languages: list[str]) -> float:
    # Share of the captions with an English sentence that several images have.
    sentences = [list(sentences_of(row, languages)) for row in captions]
    images = Counter(sentence for row in sentences for sentence in set(row))
    shared = [images[sentence] > 1 for row in sentences for sentence in row]
    return sum(shared) / max(1, len(shared))


def repeated_sentences(captions: list[dict], config: TrainingConfig) -> float:
    # Share of the images whose captions in a step are not different sentences.
    sampling, rng = config.caption_sampling(), np.random.default_rng(config.seed)
    drawn = [sampling.draw(row, rng)[1] for row in captions if sampling.available(row)]
    return float(np.mean([len(set(ids)) < len(ids) for ids in drawn]))


def describe_model(config: TrainingConfig, model: RSMCLIPModel) -> str:
    # Numbers of parameters, of each part and of the teacher.
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


def describe_disk(config: TrainingConfig, model: RSMCLIPModel) -> str:
    # Disk that the run needs. A new checkpoint is written before the oldest one is deleted.
    started, checkpoint, final = sizes_on_disk(config, model)
    steps = min(config.checkpoint_steps, config.evaluation_steps) if config.best_figure else config.checkpoint_steps
    number, most = math.ceil(config.max_train_steps / steps), config.keep_checkpoints + bool(config.best_figure)
    beside = started if config.probe_steps else 0
    needed = min(number, most) * checkpoint + beside + final
    peak = max(needed, min(number, most + 1) * checkpoint + beside)
    parts = [f"checkpoints {min(number, most)} × {gigabytes(checkpoint)}", f"model {gigabytes(final)}"]
    parts += [f"probed start {gigabytes(beside)}"] if beside else []
    text = f"disk: {gigabytes(needed)} ({', '.join(parts)})"
    if peak > needed:
        text += f"; {gigabytes(peak)} while one more checkpoint is written"

    # Files of an earlier run in the folder are replaced, those of a resumed run are part of what it needs.
    output = Path(config.output_dir).resolve()
    place = next(folder for folder in (output, *output.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free + sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    if free < peak:
        return text + f"; too little is free for {output}: {gigabytes(free)}; free space or lower keep_checkpoints"
    return text + f"; {gigabytes(free)} are free"


def sizes_on_disk(config: TrainingConfig, model: RSMCLIPModel) -> tuple[int, int, int]:
    """Return the bytes of a checkpoint before the first step and of a later one, with moments, and of the model."""
    size = {name: value.numel() * value.element_size() for name, value in model.named_parameters()}
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    head = {name for name in size if name.startswith("self_distillation_head.")}
    student = trained if config.lora else set(size)
    teacher = {name for name in student if name.startswith(TEACHER) and config.self_distillation_weight > 0}
    adapter = trained - head if config.lora else set()
    final = adapter if config.lora and not config.merge_adapter else set(size) - adapter
    if not config.keep_self_distillation_head:
        final -= head

    def total(names: set[str]) -> int:
        return sum(size[name] for name in names)

    started = total(student) + total(teacher)
    return started, started + 2 * total(trained), total(final)  # AdamW has two moments


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def describe_schedule(config: TrainingConfig, model: RSMCLIPModel, num_rows: int) -> str:
    # Learning rates: peak rate of each part times the factor of the schedule.
    steps = config.max_train_steps
    shown = {"first step": 0, "last step": steps - 1}
    if config.warmup_steps < steps - 1:
        shown = {"first step": 0, f"step {config.warmup_steps + 1}": config.warmup_steps, "last step": steps - 1}
    rows, factors = [["", *shown]], [learning_rate_factor(config, step) for step in shown.values()]
    rates = peak_learning_rates(config, model)
    if len(set(rates.values())) == 1:
        rates = {"all parts": next(iter(rates.values()))}
    for name, rate in rates.items():
        rows.append([f"learning rate, {name}", *(f"{rate * factor:.3g}" for factor in factors)])

    # Schedules of the self-distillation.
    if config.self_distillation_weight > 0:
        for schedule in (teacher_temperature, teacher_momentum, distillation_weight):
            name = schedule.__name__.replace("_", " ")
            rows.append([name, *(f"{schedule(config, step):.4g}" for step in shown.values())])
    text = (
        f"schedule: {length(config, num_rows)} of {config.batch_size} images and {config.captions_per_image} captions "
        f"each; warm-up {config.warmup_steps} steps"
    )
    return "\n".join([text, columns(rows)])


def peak_learning_rates(config: TrainingConfig, model: RSMCLIPModel) -> dict[str, float]:
    # Peak learning rate of each part. With a layer decay, of each layer of a part.
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
    Print data, model, disk, schedule and captions of the first batch. Draw its views to `dry_run.png` in the folder.

    The model may be on the meta device, without weights. Processes other than the main process do nothing.

    Raises:
        [`UserError`]: The picture cannot be written.
    """
    if not is_main_process:
        return
    print(describe_data(config, splits))
    print(f"\n{describe_model(config, model)}\n\n{describe_disk(config, model)}")
    print(f"\n{describe_schedule(config, model, len(splits['train']))}", flush=True)
    rows = first_rows(config, splits["train"]) if config.streaming else splits["train"]
    captions = drawn_captions(batch, rows, config.languages)
    print("\nfirst batch")
    for image_id, texts in zip(batch["image_ids"], captions, strict=False):
        lines = [image_id, *(f"  {language}: {text}" for language, text in texts)]
        print(textwrap.indent("\n".join(map(printable, lines)), "  "))
    path = Path(config.output_dir) / PICTURE
    shown = f"{len(captions)} of {config.batch_size} images, seed {config.seed}"
    title = f"First batch of {path.resolve().parent.name}: {shown}"
    specs = config.view_specs(model.config.vision_config.image_size)
    with user_errors(OSError, prefix=f"output_dir {config.output_dir} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
    save(draw_batch(batch, specs, captions, title), path)
    print(f"\nnothing was trained; the first batch as a picture: {path}")
