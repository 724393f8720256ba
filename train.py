"""Train RS-M-CLIP.

    python train.py                                                       # the demo: small, on drawn images, on a CPU
    accelerate launch train.py --config configs/rs_m_clip.yaml --dataset DIR --output_dir OUT [--field value …]
    torchrun --nproc_per_node 2 train.py --max_train_steps 20             # several processes on a CPU

`training_step` is the whole method. It minimizes a weighted sum of two losses. InfoNCE compares global or mild views
of every image with the captions of a batch, in both directions. Self-distillation is a cross-entropy: from another
view of the same image, the student predicts the distribution over prototypes that an EMA teacher gives to a global
view. The student after the last step is saved, or with `best_figure` that of the best step of the validation. At the
end the folder of the run is a model repository for the Hub (`outcome.py`).
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from datasets import Dataset
from peft import PeftModel
from transformers import CLIPProcessor
from transformers.utils import logging as transformers_logging

from rsmclip import RSMCLIPModel, outcome
from rsmclip.core.command_line import run_command
from rsmclip.core.errors import UserError
from rsmclip.data.schema import captions_of
from rsmclip.eval import tasks as evaluation
from rsmclip.eval.outcomes import Outcomes
from rsmclip.eval.run_results import RunResults
from rsmclip.hub import run_upload
from rsmclip.models import folder as model_folder
from rsmclip.training import adapter as lora
from rsmclip.training import (
    best,
    checkpoints,
    command_line,
    compilation,
    dry_run,
    initial_model,
    interruption,
    loading,
    optimizer,
    processes,
    run_folder,
    run_lock,
    schedules,
)
from rsmclip.training import probe as probing
from rsmclip.training.config import TrainingConfig
from rsmclip.training.log import TrainingLog
from rsmclip.training.losses import MAX_LOG_SCALE, Centering, clip_loss, effective_rank, entropy, kl_divergence
from rsmclip.training.teacher import Student, Teacher
from rsmclip.training.views import ViewSpec, render_views


@dataclass
class Plan:
    """All inputs of a run, after the checks. No file is written yet."""

    config: TrainingConfig
    accelerator: Accelerator
    splits: dict[str, Dataset]  # train, validation, test
    tasks: evaluation.RunTasks  # what is evaluated: splits and benchmarks
    model: RSMCLIPModel
    processor: CLIPProcessor
    view_specs: dict[str, ViewSpec]  # by kind: contrastive, global, local
    mean: torch.Tensor  # (3, 1, 1), of the pixels that the image tower takes
    std: torch.Tensor
    adapter: PeftModel | None
    sizes: dict[str, int]  # numbers of parameters and layers, counted before the model is sharded


@dataclass(kw_only=True)
class Run(Plan):
    """A plan and the state of training. `model` changes too. Accelerate wraps student, optimizer and scheduler."""

    student: Student  # contains the model
    teacher: Teacher | None  # EMA of image tower and head; None if self_distillation_weight is 0
    centering: Centering | None
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    upload: run_upload.RunUpload | None
    step: int = 0  # number of finished steps
    saved: int | None = None  # step of the last checkpoint


def plan(config: TrainingConfig) -> Plan:
    """Read and check everything that the run needs. A dry run does not allocate random weights."""
    accelerator = processes.make_accelerator(config)
    config = dataclasses.replace(config, mixed_precision=accelerator.mixed_precision)  # null: the launcher's setting
    run_folder.check_run_folder(config, accelerator)

    # data
    accelerator.print(f"reading the corpus {config.dataset}")
    splits = loading.load_splits(config, accelerator)
    config = run_folder.with_checkpoint(config.with_whole_steps(len(splits["train"])), accelerator)
    evaluated = {role: splits[role] for role in ("validation", "test")}
    tasks = evaluation.load_run_tasks(config.benchmarks, config.evaluated_languages, evaluated)
    best.check_figure(config.best_figure, best.named_figures(tasks.expected("validation")))

    # model
    accelerator.print(f"making the model from {config.weights}")
    set_seed(config.seed)
    with_head = config.self_distillation_weight > 0
    captions = captions_of(splits["train"], config.languages)
    texts = evaluation.all_texts(loading.all_splits(config))
    with torch.device("meta") if config.dry_run and not (config.model or config.image_tower) else nullcontext():
        model, processor = initial_model.make_model(config, captions, texts, with_head)
        adapter = lora.add_adapter(model, config.lora) if config.lora else None
    optimizer.freeze(model, config)
    view_specs = config.view_specs(model.config.vision_config.image_size)
    initial_model.check_sizes(model.config, config.max_length, view_specs)
    values = (processor.image_processor.image_mean, processor.image_processor.image_std)
    mean, std = (torch.tensor(value, device=accelerator.device)[:, None, None] for value in values)
    sizes = model_folder.model_sizes(model, processor)
    return Plan(config, accelerator, splits, tasks, model, processor, view_specs, mean, std, adapter, sizes)


def probe(plan: Plan) -> None:
    """Train projections and logit scale alone, on embeddings of plain images and captions (training/probe.py)."""
    config, model = plan.config, plan.model.to(plan.accelerator.device)
    plan.accelerator.print(f"embedding {len(plan.splits['train']):,} images and their captions for the probe")
    towers = probing.without_projections(model)
    embedder = evaluation.cached_embedder(towers, plan.processor, config.evaluation_batch_size)
    probing.train_new_layers(model, embedder.images, embedder.texts, plan.splits["train"], config)


def start(plan: Plan) -> Run:
    """Build teacher and optimizer, create the output folder, and call `accelerator.prepare`."""
    config, accelerator, model = plan.config, plan.accelerator, plan.model
    upload = None
    if config.push_to_hub:
        folder, repo_id = Path(config.output_dir), config.hub_model_id
        upload = run_upload.RunUpload(folder, repo_id, accelerator, config.hub_private, config.hub_strategy)
    run_folder.prepare_run_folder(config, accelerator)
    set_seed(config.seed, device_specific=True)  # another seed for dropout in each process
    model.to(accelerator.device)
    processes.choose_attention(model, accelerator)
    processes.make_shardable(model, accelerator)
    # Both process the batch in chunks, to save memory. There is one backward pass, for the loss of the whole batch.
    student = Student(model, config.student_temperature, config.gradient_accumulation_chunks)
    teacher = centering = None
    if config.self_distillation_weight > 0:
        teacher = Teacher(model, config.gradient_accumulation_chunks)
        prototypes = model.config.self_distillation["num_prototypes"]
        centering = Centering(prototypes, config.centering, config.center_momentum).to(accelerator.device)
    stream = plan.splits["train"] if config.streaming else None
    checkpoints.register_states(accelerator, teacher=teacher, centering=centering, stream=stream)
    if plan.adapter is not None:
        lora.save_only_trained(student, teacher)
    compilation.compile_layers(student, teacher)
    adamw = optimizer.make_optimizer(model, config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, partial(schedules.learning_rate_factor, config))
    student, adamw, scheduler = accelerator.prepare(student, adamw, scheduler)
    if accelerator.distributed_type == DistributedType.FSDP:
        optimizer.initialize_moments(adamw)
    prepared = {"student": student, "optimizer": adamw, "scheduler": scheduler}
    return Run(**vars(plan), **prepared, teacher=teacher, centering=centering, upload=upload)


@processes.names_lost_peer()
@run_lock.releases()
def train(config: TrainingConfig) -> RunResults | None:
    """Train, evaluate and save. Returns the results on rank 0, `None` on other ranks and for a dry run."""
    planned = plan(config)
    config, accelerator, num_rows = planned.config, planned.accelerator, len(planned.splits["train"])
    if config.dry_run:
        batch = next(make_batches(planned, 0))
        return dry_run.dry_run(config, planned.splits, planned.model, batch, accelerator.is_main_process)
    if config.probe_steps and not config.resume_from_checkpoint:
        probe(planned)
    run = start(planned)
    accelerator.print(f"training on {processes.describe_device(accelerator)}: {schedules.length(config, num_rows)}")
    untrained = evaluate_start(run)  # before a checkpoint is loaded
    if config.resume_from_checkpoint:
        run.step = checkpoints.load_checkpoint(accelerator, Path(config.resume_from_checkpoint), config.seed)
        run.saved = run.step
        accelerator.print(f"resumed from {config.resume_from_checkpoint}")
    log = TrainingLog(config, accelerator, run.step, num_rows)
    run.student.train()
    with interruption.StopSignal(accelerator) as stop:
        if config.probe_steps and run.saved is None:
            save(run, log)  # the probed start
        for batch in make_batches(run, run.step):
            if validate(run, log, stop):
                break
            rates = optimizer.learning_rates(run.optimizer)  # read before the scheduler changes them
            scalars = training_step(run, batch, run.step)
            run.step += 1
            log.step(run.step, scalars, rates, batch)
            if log.skipped_in_a_row >= config.max_skipped_steps:
                raise UserError(
                    f"{log.skipped_in_a_row} successive steps had no finite gradient and did not change the model. "
                    f"The checkpoint is {save(run, log)}. Try a lower learning_rate; train_log.jsonl names the images"
                )
            is_last = run.step == config.max_train_steps  # saved, to resume a run stopped in its final evaluation
            if run.step % config.checkpoint_steps == 0 or is_last:
                save(run, log)
                if run.upload is not None:
                    run.upload.checkpoint(run.step, partial(outcome.save_model, run), is_last)
            stop_if_told(run, log, stop)
        validate(run, log, stop)
        save(run, log)  # a run that ended early has no checkpoint of this step yet
    log.close()
    return finish(run, untrained, log)


def training_step(run: Run, batch: dict, step: int) -> dict[str, torch.Tensor]:
    """
    Do one step of the optimizer. Returns scalars for the log. They stay on the device: the CPU does not wait for it.

    Args:
        batch (`dict`):
            Images and captions of this process, on the device. `pixels`: `(batch, 3, height, width)`, uint8. `views`:
            parameters of every view. `input_ids`, `attention_mask`: `(captions, batch, length)`, drawn for each image.
            `sentence_ids`: `(captions, batch)`, equal for one sentence in any language. `image_sentence_ids`:
            `(sentences, batch)`, of all captions. `text_groups`: captions of similar length, for less padding.
        step (`int`): Number of steps before this one.
    """
    config, accelerator, model = run.config, run.accelerator, run.model

    # views: random crops, rendered from their parameters, (views, batch, 3, size, size), normalized
    views = {
        name: (render_views(batch["pixels"], batch["views"][name], spec) - run.mean) / run.std
        for name, spec in run.view_specs.items()
    }

    # teacher: an EMA of the student's image tower and head, without gradient. Its prototype logits for the global
    # views become the targets: distributions, centered and sharpened
    targets = None
    if run.teacher is not None:
        with accelerator.autocast():
            teacher_logits = run.teacher(views["global"])
        targets = run.centering(teacher_logits, temperature=schedules.teacher_temperature(config, step))

    # student: every view through the image tower, every caption through the text tower. It also computes
    # `self_distillation_loss` of each image, in chunks, because prototype logits are large
    with accelerator.autocast():
        output = run.student(
            global_views=views.get("global"),
            local_views=views.get("local"),
            contrastive_views=views.get("contrastive"),
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            text_groups=batch["text_groups"],
            targets=targets,
        )

    # loss: InfoNCE over the batch of all processes + weight · cross-entropy(teacher, student), of float32 outputs
    loss = clip_loss(
        image_embeds=output.image_embeds,
        text_embeds=output.text_embeds,
        logit_scale=output.logit_scale,  # exp of model.logit_scale
        sentence_ids=batch["sentence_ids"],
        duplicate_captions=config.duplicate_captions,
        chunk_size=config.loss_chunk_size,
        image_sentence_ids=batch["image_sentence_ids"],
    )
    losses = {"contrastive": loss}
    if targets is not None:
        losses["distillation"] = output.distillation.mean()
        loss = loss + schedules.distillation_weight(config, step) * losses["distillation"]

    # update: the student by AdamW, unless a gradient is not finite; the teacher by its EMA, in every step
    accelerator.backward(loss)
    if run.teacher is not None and step < config.freeze_prototypes_steps:
        model.self_distillation_head.prototypes.weight.grad = None
    gradient_norm = optimizer.clip_gradients(accelerator, run.student, config.max_grad_norm)
    skipped = optimizer.skip_unless_finite(run.optimizer, gradient_norm)
    run.optimizer.step()
    run.scheduler.step()  # once for all processes, see `make_accelerator`
    run.optimizer.zero_grad()
    model.logit_scale.data.clamp_(max=MAX_LOG_SCALE)
    if run.teacher is not None:
        run.teacher.update(model, momentum=schedules.teacher_momentum(config, step))

    scalars = {"loss": loss, **losses, "gradient_norm": gradient_norm, "skipped": skipped}
    scalars["logit_scale"] = output.logit_scale
    if (step + 1) % config.logging_steps == 0:  # early signs of collapse; the rank is of the first view, this process
        scalars["embedding_rank"] = effective_rank(output.image_embeds[0].detach())
        if targets is not None:
            scalars |= {"teacher_entropy": entropy(targets), "kl": kl_divergence(losses["distillation"], targets)}
            scalars["prototype_use"] = run.centering.prototype_use()
    return scalars


def make_batches(plan: Plan, first_step: int) -> Iterator[dict]:
    """Yield the batches of this process, on its device, for the steps from `first_step` to `max_train_steps`."""
    rows, tokenizer = plan.splits["train"], plan.processor.tokenizer
    return loading.batches(plan.config, rows, plan.view_specs, tokenizer, plan.accelerator, first_step)


def save(run: Run, log: TrainingLog) -> Path:
    """Write a checkpoint if this step has none. The log comes first, so that the log of a resumed run has no gap."""
    log.flush()
    folder = Path(run.config.output_dir) / "checkpoints"
    if run.saved != run.step:
        log.sync()
        keep, best_step = run.config.keep_checkpoints, log.best.step if log.best else None
        checkpoints.save_checkpoint(run.accelerator, folder, run.step, keep, best_step)
        run.saved = run.step
    return folder / f"step-{run.step}"


def restore(run: Run, step: int) -> None:
    """Load the checkpoint of an earlier step."""
    folder = Path(run.config.output_dir) / "checkpoints"
    found = checkpoints.find_checkpoint_once(run.accelerator, folder, str(folder / f"step-{step}"))
    checkpoints.load_checkpoint(run.accelerator, found, run.config.seed)


def evaluate(
    run: Run, split: str, guard: AbstractContextManager | None = None, thorough: bool = False
) -> dict[str, Outcomes]:
    """
    Evaluate the student on a split and on the folders of images, on rank 0. Returns outcomes by dataset.

    Other ranks wait, and get no outcomes, as rank 0 does if `guard` stops it.
    """
    outcomes, model = {}, processes.whole_model(run.model, run.student, run.accelerator)
    if run.accelerator.is_main_process:
        with guard or nullcontext(), compilation.eager():
            outcomes = run.tasks.measure(
                model.eval(), run.processor, run.config.evaluation_batch_size, split, thorough
            )
    run.accelerator.wait_for_everyone()
    return outcomes


def evaluate_start(run: Run) -> best.Metrics:
    """Return the metrics before training, a row of the final table. A resumed run reads them from its folder."""
    config = run.config
    if not config.evaluate_start:
        return {}
    if (metrics := run_folder.stored_start(config, run.accelerator)) is None:
        if config.probe_steps and config.resume_from_checkpoint:
            restore(run, 0)  # a resumed run has not probed
        run.accelerator.print(f"evaluating the start on {len(run.splits['test']):,} images of {config.test_split}")
        metrics = evaluation.metrics_by_dataset(evaluate(run, "test"))
        if run.accelerator.is_main_process:
            run_folder.store_start(config, metrics)
    return metrics


def validate(run: Run, log: TrainingLog, stop: interruption.StopSignal) -> bool:
    """
    Evaluate every `evaluation_steps` steps and after the last step, unless the log has this step. A best step is
    saved. Returns whether the run ends early.
    """
    if run.step > log.evaluated and schedules.is_validated(run.config, run.step):
        stop_if_told(run, log, stop)  # a signal while the run waited for the batch
        began = time.perf_counter()
        metrics = evaluation.metrics_by_dataset(evaluate(run, "validation", stop.gives_up()))
        stop_if_told(run, log, stop)  # if a signal ended the evaluation, the resumed run repeats it
        log.evaluation(run.step, metrics, time.perf_counter() - began)
        if log.best is not None and log.best.step == run.step:
            save(run, log)
        run.student.train()
    return log.best is not None and log.best.ends(run.config)


def stop_if_told(run: Run, log: TrainingLog, stop: interruption.StopSignal) -> None:
    """End the run with a checkpoint if any process has received a signal."""
    if signal := stop.agreed():
        saved = save(run, log)
        log.close()
        raise interruption.Stopped(signal, saved) if run.accelerator.is_main_process else SystemExit(128 + signal)


@outcome.says_how_to_continue()
def finish(run: Run, untrained: best.Metrics, log: TrainingLog) -> RunResults | None:
    """Save the model, evaluate it on the test split, and write results, curve and card."""
    folder = Path(run.config.output_dir)
    if run.config.streaming and run.accelerator.is_local_main_process:
        run.splits["train"].cache.remove()  # a run that a signal ends leaves its shards for the resumption
    if log.best is not None and log.best.step != run.step:  # the model is that of an earlier step
        restore(run, log.best.step)
    outcome.save_model(run, folder)
    outcomes = evaluate(run, "test", thorough=True)
    return outcome.write(run, outcomes, untrained, log) if run.accelerator.is_main_process else None


def main(arguments: list[str] | None = None, prog: str = "train.py") -> None:
    """Run the training. Bad input gives one line and status 2, a signal gives status 128 + its number."""
    transformers_logging.disable_progress_bar()
    run_command(lambda: train(command_line.parse_config(arguments, prog)), prog)


if __name__ == "__main__":
    main()
