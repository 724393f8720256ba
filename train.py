"""Trains RS-M-CLIP.

    accelerate launch train.py                                            # the demo: everything embedded, on a CPU
    accelerate launch train.py --config configs/rs_m_clip.yaml --dataset DIR --output_dir OUT [--field value …]
    accelerate launch --num_processes 2 --cpu train.py --max_train_steps 20

Two objectives on each batch of images and captions: InfoNCE between every global view of an image and its captions,
and self-distillation from an EMA teacher's view of the image to the student's other views (`training_step`). The run's
folder ends up as a model repository for the Hub.
"""

import copy
import dataclasses
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    send_to_device,
    set_seed,
)
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import CLIPProcessor, get_cosine_schedule_with_warmup
from transformers.utils import logging as transformers_logging

from rsmclip import RSMCLIPModel
from rsmclip.core.files import is_local, published_name
from rsmclip.data.card import recorded_facts
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import check_schema, hub_revision, load_corpus
from rsmclip.eval.cache import corpus_fingerprint
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import check_labels, embed_corpus, measure_corpus, metrics_by_language
from rsmclip.eval.intervals import figures
from rsmclip.eval.outcomes import Outcomes, class_recalls
from rsmclip.eval.protocol import Benchmark, load_benchmark
from rsmclip.eval.report import as_text, result_table
from rsmclip.hub.card import write_card
from rsmclip.hub.examples import write_examples
from rsmclip.hub.run_upload import RunUpload
from rsmclip.models.folder import TRAINING_CURVE, fetched_revision, model_sizes, open_weights, save_model_folder
from rsmclip.training.adapter import add_adapter, save_only_trained
from rsmclip.training.batches import CaptionedViews, CaptionSampling, Collate, StepSampler
from rsmclip.training.checkpoints import checkpoint_step, find_checkpoint_once, load_checkpoint, save_checkpoint
from rsmclip.training.compilation import compile_layers, eager
from rsmclip.training.config import TrainingConfig, parse_config
from rsmclip.training.curve import draw_training_curve
from rsmclip.training.dry_run import dry_run
from rsmclip.training.energy import estimate_energy
from rsmclip.training.initial_model import captions_of, make_model
from rsmclip.training.interruption import Stopped, StopSignal, end_with_the_training_process, start_workers
from rsmclip.training.launch import start_processes_on_cpu
from rsmclip.training.log import TrainingLog
from rsmclip.training.losses import Centering, clip_loss, effective_rank, entropy
from rsmclip.training.optimizer import clip_gradients, freeze, learning_rates, make_optimizer, skip_unless_finite
from rsmclip.training.run_folder import check_run_folder, prepare_run_folder, published_config
from rsmclip.training.sharding import check_launch, make_shardable, whole_model
from rsmclip.training.shards import cache_folder
from rsmclip.training.streaming import follow, open_splits
from rsmclip.training.teacher import Student, Teacher
from rsmclip.training.views import ViewSpec, render_views

MAX_LOGIT_SCALE = math.log(100)  # (Radford et al. 2021, section 2.5)


@dataclass
class Run:
    """What a training run is made of, all of it checked, on its device and prepared by accelerate."""

    config: TrainingConfig
    accelerator: Accelerator
    benchmark: Benchmark | None
    splits: dict[str, Dataset]
    model: RSMCLIPModel
    processor: CLIPProcessor
    specs: dict[str, ViewSpec]
    mean: torch.Tensor  # (3, 1, 1), of the image tower's pixels
    std: torch.Tensor
    adapter: PeftModel | None
    sizes: dict[str, int]  # of the model, counted before it may be sharded
    # from `start` on
    student: Student | None = None  # the model inside what accelerate wraps around it
    teacher: Teacher | None = None
    centring: Centering | None = None
    optimizer: torch.optim.Optimizer | None = None
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    upload: RunUpload | None = None  # of a run that pushes to the Hub
    saved: Path | None = None  # the last checkpoint that was written


def plan(config: TrainingConfig) -> Run:
    """Reads and checks everything that the run needs, and writes nothing. For a dry run the sizes of a model do."""
    accelerator = make_accelerator(config)
    config = dataclasses.replace(config, mixed_precision=accelerator.mixed_precision)  # the launcher's if it was null
    check_launch(config, accelerator)
    if config.lora and not config.model and not config.merge_adapter:
        raise ValueError("lora needs --model, or --merge_adapter true: an adapter to random weights is of no use")
    if (
        config.push_to_hub
        and config.lora
        and not config.merge_adapter
        and (not config.model or is_local(config.model))
    ):
        raise ValueError(
            "push_to_hub: others could not load an adapter to a model that only this machine has; "
            "give --merge_adapter true, or push that model and give its repository as --model"
        )
    check_run_folder(config)
    if config.resume_from_checkpoint:
        folder = Path(config.output_dir) / "checkpoints"
        checkpoint = find_checkpoint_once(accelerator, folder, config.resume_from_checkpoint)
        config = dataclasses.replace(config, resume_from_checkpoint=str(checkpoint))
    benchmark = load_benchmark(config.benchmark) if config.benchmark else None
    splits = load_splits(config, benchmark, accelerator)
    set_seed(config.seed)
    with torch.device("meta") if config.dry_run and config.model is None else nullcontext():
        model, processor = make_model(config, splits["train"])
        adapter = add_adapter(model, config.lora) if config.lora else None
    freeze(model, config)
    specs = config.view_specs(model.config.vision_config.image_size)
    values = (processor.image_processor.image_mean, processor.image_processor.image_std)
    mean, std = (torch.tensor(value, device=accelerator.device)[:, None, None] for value in values)
    sizes = model_sizes(model, processor)
    return Run(config, accelerator, benchmark, splits, model, processor, specs, mean, std, adapter, sizes)


def start(config: TrainingConfig) -> Run:
    """A run that is planned, has its folder, and is prepared by accelerate."""
    run = plan(config)
    config, accelerator, model = run.config, run.accelerator, run.model
    if config.push_to_hub:
        folder, repo_id = Path(config.output_dir), config.hub_model_id
        run.upload = RunUpload(folder, repo_id, accelerator, config.hub_private, config.hub_strategy)
    prepare_run_folder(config, accelerator)
    set_seed(config.seed, device_specific=True)  # dropout differs between processes
    model.to(accelerator.device)
    make_shardable(model, config, accelerator)
    student = Student(model, config.student_temperature, config.gradient_accumulation_chunks)
    teacher = centring = None
    if config.self_distillation_weight > 0:
        teacher = Teacher(model, config.gradient_accumulation_chunks)
        prototypes = model.config.self_distillation["num_prototypes"]
        centring = Centering(prototypes, config.centering, config.center_momentum).to(accelerator.device)
        accelerator.register_for_checkpointing(teacher, centring)
    if config.streaming:
        accelerator.register_for_checkpointing(run.splits["train"])
    if run.adapter is not None:
        save_only_trained(student, teacher)
    compile_layers(student, teacher)
    optimizer = make_optimizer(model, config)
    scheduler = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.max_train_steps)
    run.student, run.optimizer, run.scheduler = accelerator.prepare(student, optimizer, scheduler)
    run.teacher, run.centring = teacher, centring
    return run


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """The processes of the run, its precision and trackers, as `accelerate launch` or the configuration has them."""
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else torchrun's processes would not find each other on a CPU
        mixed_precision=config.mixed_precision,
        log_with=config.log_with,
        dynamo_backend="no",  # what it asks for is done by `compile_layers`
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),  # else gradients would lie there twice
            InitProcessGroupKwargs(timeout=timedelta(hours=1)),  # the others wait while one evaluates
        ],
        step_scheduler_with_optimizer=False,  # one scheduler step a training step, whatever the number of processes
        project_config=ProjectConfiguration(config.output_dir, logging_dir=f"{config.output_dir}/trackers"),
    )
    if accelerator.device.type == "cpu":  # accelerate launch leaves a process one thread
        torch.set_num_threads(config.cpu_threads or max(1, os.cpu_count() // accelerator.num_processes))
    torch.backends.cudnn.benchmark = True  # else the patch embedding takes a tenth of a step on an H100
    return accelerator


def show(run: Run) -> None:
    """What `--dry_run` shows."""
    schedules = {}
    if run.config.self_distillation_weight > 0:
        schedules = {"teacher temperature": teacher_temperature, "teacher momentum": teacher_momentum}
        schedules["self-distillation weight"] = distillation_weight
    batch = next(make_batches(run, 0))
    if run.accelerator.is_main_process:
        by_step = {name: partial(schedule, run.config) for name, schedule in schedules.items()}
        dry_run(run.config, run.splits, run.model, batch, by_step, run.accelerator)


def train(config: TrainingConfig) -> dict:
    """Trains, evaluates and saves; returns what `eval_results.json` holds."""
    if config.dry_run:
        show(plan(config))
        return {}
    run = start(config)
    config = run.config
    # The floor of the final table; before a checkpoint is loaded, so that a resumed run prints the same one.
    untrained = metrics_by_language(evaluate(run, "test"))
    first_step = resume(run)
    log = TrainingLog(config, run.accelerator, first_step, len(run.splits["train"]))
    run.student.train()
    with StopSignal(run.accelerator) as stop:
        for step, batch in enumerate(make_batches(run, first_step), first_step):
            validate(run, log, stop, step)
            rates = learning_rates(run.optimizer)  # before the step moves them on
            log.step(training_step(run, batch, step), rates, batch)
            done = step + 1
            spoilt = log.skipped_in_a_row >= config.max_skipped_steps
            # After the last step too, since the final evaluation may be interrupted.
            if spoilt or done % config.checkpoint_steps == 0 or done == config.max_train_steps:
                saved = save(run, log)
                if run.upload is not None and not spoilt:
                    run.upload.checkpoint(done, partial(save_model, run), is_last=done == config.max_train_steps)
            if spoilt:
                raise FloatingPointError(
                    f"no finite gradient in the last {log.skipped_in_a_row} steps: they changed nothing, and {saved} "
                    "holds the weights; try a lower --learning_rate, and see the rows that train_log.jsonl names"
                )
            stop_if_told(run, log, stop)
        validate(run, log, stop, config.max_train_steps)
    log.close()
    return finish(run, untrained, log)


def training_step(run: Run, batch: dict, step: int) -> dict[str, torch.Tensor]:
    """One step of the optimiser; returns what is logged, still on the device, for which nothing here waits."""
    config, accelerator, model = run.config, run.accelerator, run.model

    # views: global and local crops of every image, {name: (views, batch, 3, size, size)}
    views = {
        name: normalise(render_views(batch["pixels"], batch["views"][name], spec), run.mean, run.std)
        for name, spec in run.specs.items()
    }

    # teacher: of the global views only, as distributions over prototypes that are centred and sharpened
    targets = None
    if run.teacher is not None:
        with accelerator.autocast():
            teacher_logits = run.teacher(views["global"])
        targets = run.centring(teacher_logits, teacher_temperature(config, step))

    # student: every view through the image tower, every caption through the text tower
    captions = (batch["input_ids"], batch["attention_mask"], batch["text_groups"])
    with accelerator.autocast():
        output = run.student(views["global"], views.get("local"), *captions, targets)

    # loss: InfoNCE over the global batch, and cross-entropy from the teacher's to the student's prototypes
    same = (batch["sentence_ids"], config.duplicate_captions, config.loss_chunk_size)
    losses = {"contrastive": clip_loss(output.image_embeds, output.text_embeds, output.logit_scale, *same)}
    loss = losses["contrastive"]
    if targets is not None:
        losses["distillation"] = output.distillation.mean()
        loss = loss + distillation_weight(config, step) * losses["distillation"]

    # update: AdamW unless a gradient is not finite, then the teacher
    accelerator.backward(loss)
    if run.teacher is not None and step < config.freeze_prototypes_steps:
        model.self_distillation_head.prototypes.weight.grad = None
    gradient_norm = clip_gradients(accelerator, run.student, config.max_grad_norm)
    skipped = skip_unless_finite(run.optimizer, gradient_norm)
    run.optimizer.step()
    run.scheduler.step()
    run.optimizer.zero_grad()
    model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
    if run.teacher is not None:
        run.teacher.update(model, teacher_momentum(config, step))

    scalars = {"loss": loss, **losses, "gradient_norm": gradient_norm, "logit_scale": output.logit_scale}
    scalars["skipped"] = skipped
    if (step + 1) % config.logging_steps == 0:
        scalars |= diagnose(run, output.image_embeds, targets)
    return scalars


@torch.no_grad()
def diagnose(run: Run, image_embeds: torch.Tensor, targets: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What shows a collapse before the losses do."""
    scalars = {"embedding_rank": effective_rank(image_embeds[0])}
    if targets is not None:
        scalars |= {"teacher_entropy": entropy(targets), "prototype_use": run.centring.prototype_use()}
    return scalars


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Pixels between 0 and 1, `(..., 3, height, width)`, to what the image tower takes."""
    return (pixels - mean) / std


def teacher_temperature(config: TrainingConfig, step: int) -> float:
    """Temperature of the teacher at a step: a linear warm-up (Caron et al. 2021, section 3.2)."""
    progress = min(1.0, step / max(1.0, config.teacher_temperature_warmup * config.max_train_steps))
    start, end = config.warmup_teacher_temperature, config.teacher_temperature
    return start + progress * (end - start)


def teacher_momentum(config: TrainingConfig, step: int) -> float:
    """Momentum of the teacher at a step: fixed (Naeem et al. 2023), or a cosine to its end (Caron et al. 2021)."""
    if config.final_teacher_momentum is None:
        return config.teacher_momentum
    share = (1 + math.cos(math.pi * step / config.max_train_steps)) / 2
    return config.final_teacher_momentum + share * (config.teacher_momentum - config.final_teacher_momentum)


def distillation_weight(config: TrainingConfig, step: int) -> float:
    """Weight of the self-distillation loss at a step: a linear warm-up."""
    return config.self_distillation_weight * min(1.0, (step + 1) / max(1, config.self_distillation_warmup_steps))


def load_splits(config: TrainingConfig, benchmark: Benchmark | None, accelerator: Accelerator) -> dict[str, Dataset]:
    """The splits `train`, `validation` and `test`, checked."""
    if config.batch_size % accelerator.num_processes:
        raise ValueError(f"batch_size {config.batch_size} cannot be shared by {accelerator.num_processes} processes")
    with accelerator.main_process_first():
        name = str(cached_demo()) if config.dataset == "demo" else config.dataset
        if config.streaming:
            stream, corpus = open_splits(
                name,
                config.train_split,
                (config.validation_split, config.test_split),
                config.languages,
                folder=cache_folder(config.output_dir),
                shuffle_buffer=config.shuffle_buffer,
                seed=config.seed,
            )
        else:
            corpus = load_corpus(name)
    names = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
    if config.streaming:
        del names["train"]  # of a stream, only its columns can be checked, and have been
    splits = {role: check_schema(corpus, name, config.languages) for role, name in names.items()}
    if benchmark is not None:
        for role in ("validation", "test"):
            check_labels(splits[role]["label"], benchmark)
    splits["train"] = stream if config.streaming else rows_with_captions(splits["train"], config.caption_sampling())
    if len(splits["train"]) < config.batch_size:
        raise ValueError(
            f"batch_size is {config.batch_size}, but only {len(splits['train'])} rows have captions to train on"
        )
    return splits


def rows_with_captions(rows: Dataset, sampling: CaptionSampling) -> Dataset:
    """Rows that have a caption which can be drawn."""
    kept = [index for index, captions in enumerate(rows["captions"]) if sampling.available(captions)]
    return rows if len(kept) == len(rows) else rows.select(kept)


def make_batches(run: Run, first_step: int) -> Iterator[dict]:
    """Batches of this process from `first_step` on, on the device."""
    config, accelerator, rows = run.config, run.accelerator, run.splits["train"]
    on_cpu = accelerator.device.type == "cpu"  # there padding costs most; on a GPU small matrices do
    groups = max(4 if on_cpu else 1, config.gradient_accumulation_chunks)
    replacement = rows.replacement if config.streaming else None
    loader = DataLoader(
        CaptionedViews(rows, config.caption_sampling(), run.specs, config.short_side, config.seed, replacement),
        batch_sampler=StepSampler(
            num_rows=len(rows),
            batch_size=config.batch_size // accelerator.num_processes,
            max_steps=config.max_train_steps,
            first_step=first_step,
            seed=config.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            order=rows.order if config.streaming else None,
        ),
        collate_fn=Collate(run.processor.tokenizer, config.max_length, groups, multiple=1 if on_cpu else 8),
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        prefetch_factor=4 if config.num_workers else None,
        worker_init_fn=end_with_the_training_process,
        generator=torch.Generator().manual_seed(config.seed),  # else it would draw from the one that resuming restores
    )
    follows = config.streaming and accelerator.is_local_main_process
    for batch in follow(loader, rows) if follows else start_workers(loader):
        if isinstance(batch, Exception):
            raise batch
        yield send_to_device(batch, accelerator.device, non_blocking=True)


def resume(run: Run) -> int:
    """Loads the checkpoint that the configuration names, if any; returns the number of steps done."""
    config, accelerator = run.config, run.accelerator
    if not config.resume_from_checkpoint:
        return 0
    step = load_checkpoint(accelerator, Path(config.resume_from_checkpoint), config.seed)
    accelerator.print(f"resumed from {config.resume_from_checkpoint}")
    return step


def save(run: Run, log: TrainingLog) -> Path:
    """
    A checkpoint of what is done, unless the last one is that; the log is on the disk before it, so that a resumed run
    lacks no line.
    """
    log.flush()
    if run.saved is None or checkpoint_step(run.saved) < log.done:
        log.sync()
        folder = Path(run.config.output_dir) / "checkpoints"
        run.saved = save_checkpoint(run.accelerator, folder, log.done, run.config.keep_checkpoints)
    return run.saved


def evaluate(run: Run, split: str, guard: AbstractContextManager | None = None, thorough: bool = False) -> Outcomes:
    """What the model does with a split, on the main process; the others wait. Empty if the guard ends it."""
    outcomes, model = Outcomes([]), whole_model(run.model, run.student, run.accelerator)
    if run.accelerator.is_main_process:
        embedder, rows = Embedder(model.eval(), run.processor, run.config.evaluation_batch_size), run.splits[split]
        with guard or nullcontext(), eager():
            embedded = embed_corpus(embedder, rows, run.config.languages)
            outcomes = measure_corpus(embedder, rows, embedded, run.benchmark, thorough)
    run.accelerator.wait_for_everyone()
    return outcomes


def validate(run: Run, log: TrainingLog, stop: StopSignal, step: int) -> None:
    """Evaluates on the validation split if it is time, also for a resumed run that has missed it."""
    if step % run.config.evaluation_steps or step <= log.evaluated:
        return
    began = time.perf_counter()
    metrics = metrics_by_language(evaluate(run, "validation", stop.gives_up()))
    stop_if_told(run, log, stop)  # it may have been given up; the resumed run takes it again
    log.evaluation(step, metrics, time.perf_counter() - began)
    run.student.train()


def stop_if_told(run: Run, log: TrainingLog, stop: StopSignal) -> None:
    """Ends the run with a checkpoint, if any process has been told to."""
    if signal := stop.agreed():
        saved = save(run, log)
        log.close()
        raise Stopped(signal, saved)


def save_model(run: Run, folder: Path) -> None:
    """The model folder; of a run with an adapter the adapter alone, unless it is to be merged into the model."""
    model = whole_model(run.model, run.student, run.accelerator)
    if not run.accelerator.is_main_process:
        return
    if run.adapter is not None and not run.config.merge_adapter:
        run.adapter.save_pretrained(folder)
        open_weights(folder)
        run.processor.save_pretrained(folder)
        return
    if run.adapter is not None:
        model = copy.deepcopy(run.adapter).merge_and_unload()  # the run may go on with the adapter
    save_model_folder(model, run.processor, folder, run.config.keep_self_distillation_head)


def finish(run: Run, untrained: dict, log: TrainingLog) -> dict:
    """The model folder, the final evaluation, what it found, and the card that tells it."""
    config, output_dir = run.config, Path(run.config.output_dir)
    save_model(run, output_dir)
    outcomes = evaluate(run, "test", thorough=True)
    if not run.accelerator.is_main_process:
        return {}
    results = describe(run, outcomes, untrained, log)
    (output_dir / "eval_results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8")
    draw_training_curve(log.path, output_dir / TRAINING_CURVE)
    print(f"\n{config.dataset}, split {config.test_split}: {results['images']} images, in percent\n")
    print(as_text(*result_table(results["metrics"], untrained)))
    try:
        notes = write_card(output_dir, run_examples=config.run_card_examples)
    except ValueError as error:  # the run has ended well, and the card's code can be run later
        notes = [str(error), *write_card(output_dir, run_examples=False)]
    for note in notes:
        print(f"note: {note}")
    print(f"\nmodel, card and results: {output_dir}")
    if run.upload is not None:
        run.upload.finish()
    return results


def describe(run: Run, outcomes: Outcomes, untrained: dict, log: TrainingLog) -> dict:
    """What `eval_results.json` holds; the pictures of its examples are written into the folder."""
    config, accelerator, rows, benchmark = run.config, run.accelerator, run.splits["test"], run.benchmark
    texts = [text for language in config.languages for text in captions_of(rows, [language])]
    corpus, revision = str(cached_demo()) if config.dataset == "demo" else config.dataset, hub_revision(rows)
    data = recorded_facts(corpus, revision)
    base_model = config.model if config.model and not is_local(config.model) else None
    return {
        "dataset": published_name(config.dataset),
        "split": config.test_split,
        "revision": revision,
        "fingerprint": corpus_fingerprint(rows, texts),
        "images": len(rows),
        "train_images": len(run.splits["train"]),
        "classes": len(benchmark.labels) if benchmark else 0,
        "prompts": benchmark.prompts if benchmark else None,
        "languages": config.languages,
        "metrics": metrics_by_language(outcomes),
        "figures": figures(outcomes),
        "class_recall": class_recalls(outcomes.zero_shot),
        "untrained": untrained,
        "seconds": log.seconds,
        "pairs_per_second": log.pairs_per_second,
        "undecodable_images": sorted(log.undecodable),
        "device": device_name(accelerator),
        "energy": estimate_energy(accelerator, log.seconds),
        "mixed_precision": accelerator.mixed_precision,
        "base_model": base_model,
        "base_revision": fetched_revision(base_model) if base_model else None,
        "model": run.sizes,
        "data": data,
        "examples": write_examples(Path(config.output_dir), rows, config.benchmark, data["license"]),
        "command": command_again(config, accelerator),
        "training": dataclasses.asdict(published_config(config)),
    }


def command_again(config: TrainingConfig, accelerator: Accelerator) -> str:
    """The command that does the run again from its folder; what lay on this machine stands in capitals."""
    processes = accelerator.num_processes
    launcher = f" --num_processes {processes}" if processes > 1 else ""
    launcher += " --cpu" if processes > 1 and accelerator.device.type == "cpu" else ""
    launcher += f" --mixed_precision {accelerator.mixed_precision}" if accelerator.mixed_precision != "no" else ""
    local = (name for name in ("dataset", "model", "tokenizer") if getattr(config, name) not in (None, "demo"))
    places = "".join(f" --{name} {name.upper()}" for name in local if is_local(getattr(config, name)))
    return f"accelerate launch{launcher} train.py --config training_config.yaml --output_dir NEW{places}"


def device_name(accelerator: Accelerator) -> str:
    """What the run ran on."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} × {torch.cuda.get_device_name(accelerator.device)}"
    threads = torch.get_num_threads()
    return f"{accelerator.num_processes} × CPU ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"


def main() -> None:
    """Runs the training. Bad input is one clear line and exit status 2; a signal ends it with 128 and its number."""
    start_processes_on_cpu()
    status = 0
    transformers_logging.disable_progress_bar()
    try:
        train(parse_config())
    except (ValueError, OSError, FloatingPointError) as error:
        tqdm.write(f"train.py: error: {' '.join(str(error).split())}", file=sys.stderr)  # not into a progress bar
        sys.exit(2)
    except KeyboardInterrupt:  # while the finished model is described or pushed: a training stops with a checkpoint
        tqdm.write("train.py: interrupted", file=sys.stderr)
        sys.exit(130)
    except Stopped as stopped:
        if PartialState().is_main_process:
            tqdm.write(f"train.py: {stopped}", file=sys.stderr)
        status = stopped.exit_status
    PartialState().destroy_process_group()  # a process that ends with gloo's threads running is aborted now and then
    sys.exit(status)


if __name__ == "__main__":
    main()
