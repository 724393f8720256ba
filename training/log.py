"""The log of a run: every step's losses in `train_log.jsonl`, a progress bar, and accelerate's trackers.

Losses stay on the device until `logging_steps` of them are fetched together, so that a step never waits for the host.
"""

import contextlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from rsmclip.training.batches import UNDECODABLE_SHARE, undecodable_images
from rsmclip.training.checkpoints import sync
from rsmclip.training.config import TrainingConfig

COLLAPSE = 0.01  # of the largest entropy: how near to one-hot or uniform the teacher may come


class TrainingLog:
    """
    Args:
        config ([`TrainingConfig`]): The run.
        accelerator (`Accelerator`): Its processes and trackers.
        first_step (`int`): Steps already done; later lines of an earlier log are dropped.
        num_rows (`int`): Rows of the training split.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, first_step: int, num_rows: int):
        self.config, self.accelerator, self.num_rows = config, accelerator, num_rows
        self.done = self.first_step = first_step
        # of each step since the last flush: scalars, learning rates, rows
        self.pending: list[tuple[dict[str, torch.Tensor], dict[str, float], list[str]]] = []
        self.skipped_in_a_row = 0
        self.collapse: str | None = None
        self.undecodable: set[str] = set()
        self.new_undecodable: list[str] = []
        self.seconds_before = 0.0
        self.evaluated = 0  # step of the last evaluation
        self.path = Path(config.output_dir) / "train_log.jsonl"
        if accelerator.is_main_process:
            self.keep_lines_up_to(first_step)
        self.evaluated = broadcast_object_list([self.evaluated])[0]  # all evaluate at the same steps
        if config.log_with:
            accelerator.init_trackers("rsmclip", config={k: str(v) for k, v in vars(config).items()})
        self.bar = tqdm(
            total=config.max_train_steps,
            initial=first_step,
            unit=" steps",
            desc="train",
            disable=not accelerator.is_main_process,
        )
        self.start, self.end = time.perf_counter(), None
        self.paused = 0.0

    def keep_lines_up_to(self, step: int) -> None:
        """Drops lines after a step from the log, and takes over how long training had taken until then."""
        kept = [record for record in self.read() if record["step"] <= step] if step else []
        aside = self.path.with_name(f".{self.path.name}")  # renamed when it is whole, since a kill may come here too
        aside.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept), encoding="utf-8")
        aside.replace(self.path)
        self.seconds_before = max((record.get("seconds", 0.0) for record in kept), default=0.0)
        self.undecodable.update(image_id for record in kept for image_id in record.get("undecodable", []))
        self.evaluated = max((record["step"] for record in kept if "validation_mean_recall" in record), default=0)

    def read(self) -> list[dict]:
        """The records of an earlier log, without a line that was cut off when it was written."""
        records = []
        for line in self.path.read_bytes().splitlines() if self.path.is_file() else []:
            with contextlib.suppress(ValueError):  # a character may be cut in two as well
                records.append(json.loads(line))
        return records

    def step(self, values: dict[str, torch.Tensor], learning_rates: dict[str, float], batch: dict) -> None:
        """Takes the scalars of a step, still on the device, and what it was made of."""
        scalars = {name: value.detach() for name, value in values.items()}
        self.pending.append((scalars, learning_rates, batch["image_ids"]))
        self.new_undecodable += batch["undecodable"]
        if (self.done + len(self.pending)) % self.config.logging_steps == 0:
            self.flush()

    def flush(self) -> None:
        """Fetches the pending steps, averages them over processes and writes them."""
        if not self.pending:
            return
        names = list(dict.fromkeys(name for values, _, _ in self.pending for name in values))
        absent = torch.full((), torch.nan, device=self.accelerator.device)
        rows = [torch.stack([values.get(name, absent).float() for name in names]) for values, _, _ in self.pending]
        table = self.accelerator.reduce(torch.stack(rows), "mean").cpu().tolist()  # (steps, scalars)
        self.count_undecodable()
        seconds = round(self.seconds, 2)
        for row, (values, rates, image_ids) in zip(table, self.pending, strict=True):
            self.done += 1
            scalars = {name: value for name, value in zip(names, row, strict=True) if name in values}
            skipped = scalars.pop("skipped") > 0
            scalars = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
            record = {"step": self.done, **scalars, "learning_rate": rates, "seconds": seconds}
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
            if skipped:
                record["skipped"] = sorted(gather_object(image_ids))
                self.say(f"step {self.done}: no finite gradient, the step is skipped; its rows are in train_log.jsonl")
            self.write([record])
        self.pending.clear()
        self.warn_of_collapse(record)
        self.show(record)

    def show(self, record: dict) -> None:
        """Takes the progress bar and the trackers to the last step."""
        self.bar.update(self.done - self.bar.n)
        losses = {name: record.get(name) for name in ("loss", "contrastive", "distillation")}
        shown = {name: f"{value:.3f}" for name, value in losses.items() if value is not None}
        self.bar.set_postfix(shown | {"pairs/s": f"{self.pairs_per_second:.0f}"})
        rates = {f"learning_rate/{part}": rate for part, rate in record["learning_rate"].items()}
        scalars = {name: value for name, value in record.items() if isinstance(value, float)}
        self.accelerator.log(scalars | rates, step=self.done)

    def warn_of_collapse(self, record: dict) -> None:
        """Says in words what the teacher's entropy means, when it comes to mean something else."""
        entropy, use = record.get("teacher_entropy"), record.get("prototype_use")
        if entropy is None:
            return
        state = "uniform" if entropy > 1 - COLLAPSE else "one-hot" if entropy < COLLAPSE else None
        if state is not None and state != self.collapse:
            advice = {
                "uniform": "it tells nothing apart: lower teacher_temperature",
                "one-hot": "raise teacher_temperature, or take --centering sinkhorn_knopp",
            }
            self.say(
                f"step {self.done}: the self-distillation collapses: the teacher's distributions over prototypes are "
                f"{state} (entropy {entropy:.3f} of the largest, {use:.1%} of prototypes ever won); {advice[state]}"
            )
        self.collapse = state

    def count_undecodable(self) -> None:
        """Names images that could not be decoded; too many of them stop the run, on every process alike."""
        new = sorted(set(gather_object(self.new_undecodable)) - self.undecodable)
        self.new_undecodable = []
        self.undecodable.update(new)
        for image_id in new:
            self.say(f"image {image_id} cannot be decoded; another row takes its place")
        if new:
            self.write([{"step": self.done, "undecodable": new}])
        if len(self.undecodable) > UNDECODABLE_SHARE * self.num_rows:
            raise undecodable_images(sorted(self.undecodable), self.num_rows)

    def evaluation(self, step: int, metrics: dict[str, dict[str, float]], seconds: float) -> None:
        """Writes an evaluation that took so many seconds: the figures of each language, and their means."""
        self.paused += seconds
        shown = ("mean_recall", "zero_shot_accuracy")
        self.evaluated = step
        by_metric = {name: [found[name] for found in metrics.values() if name in found] for name in shown}
        means = {f"validation_{name}": float(np.mean(values)) for name, values in by_metric.items() if values}
        if means:
            languages = {
                language: {n: values[n] for n in shown if n in values} for language, values in metrics.items()
            }
            self.write([{"step": step, **means, "validation": languages}])
            self.say(f"step {step}: " + ", ".join(f"{name} {value:.1f}" for name, value in means.items()))
            self.accelerator.log(means, step=step)

    def say(self, line: str) -> None:
        """Prints a line above the progress bar, once."""
        if self.accelerator.is_main_process:
            self.bar.write(line)

    def write(self, records: list[dict]) -> None:
        """Appends lines to the log."""
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def sync(self) -> None:
        """Returns when what is written is on the disk."""
        if self.accelerator.is_main_process:
            sync(self.path)

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resumption included, evaluations left out."""
        return self.seconds_before + (self.end or time.perf_counter()) - self.start - self.paused

    @property
    def pairs_per_second(self) -> float:
        """Pairs of image and caption trained on per second, over all processes."""
        return self.done * self.config.batch_size / self.seconds

    def close(self) -> None:
        """Writes what is pending and stops the clock of the bar and the trackers."""
        self.flush()
        self.end = time.perf_counter()
        self.bar.close()
        for tracker in self.accelerator.trackers:  # end_training would part the processes before the evaluation
            tracker.finish()
