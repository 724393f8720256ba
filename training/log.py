"""The log of a run: the losses of every step in `train_log.jsonl`, a progress bar, and the trackers of accelerate.

Losses stay on the device until `logging_steps` steps are fetched together, because each transfer makes the host wait.
"""

import contextlib
import json
import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from rsmclip.core.command_line import printable
from rsmclip.core.errors import user_errors
from rsmclip.core.files import write_whole
from rsmclip.training.batches import UNDECODABLE_SHARE, undecodable_images
from rsmclip.training.best import CORPUS, BestStep, Metrics, better, mean_figures, named_figures, shown
from rsmclip.training.checkpoints import sync
from rsmclip.training.config import TrainingConfig

COLLAPSE = 0.01  # share of the largest entropy: a teacher this close to one-hot or to uniform has collapsed


class TrainingLog:
    """
    The log of a run. Every process has one and calls the same methods; rank 0 writes.

    Args:
        config ([`TrainingConfig`]): The run.
        accelerator (`Accelerator`): The processes and their trackers.
        first_step (`int`): Number of steps already done. Lines of later steps are deleted from the file.
        num_rows (`int`): Number of rows of the training split.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, first_step: int, num_rows: int):
        self.config, self.accelerator, self.num_rows = config, accelerator, num_rows
        self.written = first_step  # last step in the file
        # Later steps: number, scalars, learning rates and image ids of each.
        self.pending: list[tuple[int, dict[str, torch.Tensor], dict[str, float], list[str]]] = []
        self.skipped_in_a_row = 0
        self.collapse: str | None = None
        self.undecodable: set[str] = set()
        self.new_undecodable: list[str] = []
        self.seconds_before = 0.0
        self.evaluated = 0  # step of the last evaluation
        self.best: BestStep | None = None  # by `best_figure`
        self.path = Path(config.output_dir) / "train_log.jsonl"
        if accelerator.is_main_process:
            self.keep_lines_up_to(first_step)
        # All processes evaluate at the same steps and agree on the best one.
        self.evaluated, self.best = broadcast_object_list([self.evaluated, self.best])
        if config.log_with:
            accelerator.init_trackers("rsmclip", config={k: str(v) for k, v in vars(config).items()})
        self.bar = tqdm(
            total=config.max_train_steps,
            initial=first_step,
            desc="train",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            miniters=1,  # by default a bar that was fast at first moves rarely after it has become slow
            disable=not accelerator.is_main_process,
        )
        self.start, self.end = time.perf_counter(), None
        self.paused = 0.0

    def keep_lines_up_to(self, step: int) -> None:
        kept = [record for record in self.read() if record["step"] <= step] if step else []
        write_whole(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
        self.seconds_before = max((record.get("seconds", 0.0) for record in kept), default=0.0)
        self.undecodable.update(image_id for record in kept for image_id in record.get("undecodable", []))
        for record in (record for record in kept if "validation" in record):
            self.evaluated = record["step"]
            has_checkpoint = (self.path.parent / "checkpoints" / f"step-{self.evaluated}").is_dir()
            metrics = {CORPUS: record["validation"]} | record.get("benchmarks", {})
            self.update_best(self.evaluated, metrics, has_checkpoint)

    def read(self) -> list[dict]:
        records = []
        for line in self.path.read_bytes().splitlines() if self.path.is_file() else []:
            with contextlib.suppress(ValueError):  # a kill may cut a line or a character: such a line is ignored
                records.append(json.loads(line))
        return records

    def step(
        self, number: int, values: dict[str, torch.Tensor], learning_rates: dict[str, float], batch: dict
    ) -> None:
        """
        Add a step: its scalars on the device, the learning rate of each part, and the ids of its images.

        `number` is the number of steps done, including this step.
        """
        self.bar.update()  # counts without waiting for the device
        scalars = {name: value.detach() for name, value in values.items()}
        self.pending.append((number, scalars, learning_rates, batch["image_ids"]))
        self.new_undecodable += batch["undecodable"]
        if number % self.config.logging_steps == 0:
            self.flush()

    def flush(self) -> None:
        """Fetch the pending steps from the device, average them over processes and write them."""
        if not self.pending:
            return
        # One transfer from the device for all steps. A scalar that a step does not have is NaN in its row.
        names = list(dict.fromkeys(name for _, values, _, _ in self.pending for name in values))
        absent = torch.full((), torch.nan, device=self.accelerator.device)
        rows = [torch.stack([values.get(name, absent).float() for name in names]) for _, values, _, _ in self.pending]
        table = self.accelerator.reduce(torch.stack(rows), "mean").cpu().tolist()  # (steps, scalars)
        self.count_undecodable()

        # A line for each step.
        seconds = round(self.seconds, 2)
        for row, (number, values, rates, image_ids) in zip(table, self.pending, strict=True):
            scalars = {name: value for name, value in zip(names, row, strict=True) if name in values}
            skipped = scalars.pop("skipped") > 0
            scalars = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
            record = {"step": number, **scalars, "learning_rate": rates, "seconds": seconds}
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
            if skipped:
                record["skipped"] = sorted(gather_object(image_ids))
                self.say(f"step {number}: no finite gradient, step skipped; train_log.jsonl names its images")
            self.write(record)
        self.written = number
        self.pending.clear()
        self.warn_of_collapse(record)
        self.show(record)

    def show(self, record: dict) -> None:
        loss = "" if record["loss"] is None else f"loss {record['loss']:.3f}, "  # null if it is not finite
        self.bar.set_postfix_str(f"{loss}{self.pairs_per_second:,.0f} pairs/s")
        rates = {f"learning_rate/{part}": rate for part, rate in record["learning_rate"].items()}
        scalars = {name: value for name, value in record.items() if isinstance(value, float)}
        self.accelerator.log(scalars | rates, step=self.written)

    def warn_of_collapse(self, record: dict) -> None:
        entropy, use = record.get("teacher_entropy"), record.get("prototype_use")
        if entropy is None:
            return
        state = "uniform" if entropy > 1 - COLLAPSE else "one-hot" if entropy < COLLAPSE else None
        if state is not None and state != self.collapse:
            advice = {
                "uniform": "lower teacher_temperature",
                "one-hot": "raise teacher_temperature, or use --centering sinkhorn_knopp",
            }
            self.say(
                f"step {self.written}: the self-distillation collapses: the teacher's distributions are "
                f"{state} (entropy {entropy:.3f} of the largest, {use:.1%} of the prototypes in use); {advice[state]}"
            )
        self.collapse = state

    def count_undecodable(self) -> None:
        new = sorted(set(gather_object(self.new_undecodable)) - self.undecodable)
        self.new_undecodable = []
        self.undecodable.update(new)
        for image_id in new:
            self.say(f"image {image_id} cannot be decoded; another image replaces it")
        if new:
            self.write({"step": self.written, "undecodable": new})
        if len(self.undecodable) > UNDECODABLE_SHARE * self.num_rows:
            raise undecodable_images(sorted(self.undecodable), self.num_rows)

    def evaluation(self, step: int, metrics: Metrics, seconds: float) -> None:
        """
        Write an evaluation after `step` steps: the figures of each language and their means.

        Its duration, `seconds`, does not count as training time. Only rank 0 needs `metrics`.
        """
        self.paused += seconds
        self.evaluated = step
        if self.accelerator.is_main_process:
            means = mean_figures(metrics)
            logged = {f"validation_{name}": value for name, value in means.items()}
            folders = {
                dataset: {language: shown(found) for language, found in by_language.items()}
                for dataset, by_language in metrics.items()
            }
            record = {"step": step, **logged, "validation": folders.pop(CORPUS)}
            self.write(record | ({"benchmarks": folders} if folders else {}))
            self.say(f"step {step}: " + ", ".join(f"{name} {value:.1f}" for name, value in means.items()))
            self.accelerator.log(logged, step=step)
            self.update_best(step, metrics)
        (self.best,) = broadcast_object_list([self.best])

    def update_best(self, step: int, metrics: Metrics, has_checkpoint: bool = True) -> None:
        # A step whose checkpoint is lost cannot become the model.
        if self.config.best_figure and (has_checkpoint or self.best is not None):
            value = named_figures(metrics)[self.config.best_figure] if has_checkpoint else -math.inf
            self.best = better(self.best, step, value)

    def say(self, line: str) -> None:
        if self.accelerator.is_main_process:
            self.bar.write(printable(line))  # a corpus can have control characters in its image ids

    def write(self, record: dict) -> None:
        if self.accelerator.is_main_process:
            line = json.dumps(record, ensure_ascii=False) + "\n"
            with user_errors(OSError, prefix=f"{self.path}"), self.path.open("a", encoding="utf-8") as file:
                file.write(line)

    def sync(self) -> None:
        """Wait until the file is on the disk."""
        if self.accelerator.is_main_process:
            with user_errors(OSError, prefix=f"{self.path}"):
                sync(self.path)

    @property
    def seconds(self) -> float:
        """Return the seconds of training, including the time before a resumption, without evaluations."""
        return self.seconds_before + (self.end or time.perf_counter()) - self.start - self.paused

    @property
    def pairs_per_second(self) -> float:
        """Return the images per second over all processes."""
        return self.written * self.config.batch_size / self.seconds

    def close(self) -> None:
        """Write the pending steps, and stop the clock, the progress bar and the trackers."""
        self.flush()
        self.end = time.perf_counter()
        self.bar.close()
        for tracker in self.accelerator.trackers:  # `end_training` would end the process group before the evaluation
            tracker.finish()
