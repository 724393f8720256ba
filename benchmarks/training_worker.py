"""Our side of the training benchmark: a training run that trains on request.

    python -m rsmclip.benchmarks.training_worker CONFIG.json     # fields of the training configuration

Requests are lines of JSON on stdin, `{"do": NAME, …}`, with a NAME of [`REQUESTS`]. Answers are lines on stdout. The
end of stdin ends the process. The run comes from `train.start`, its batches from `train.make_batches`, and a step is
`train.training_step`.
"""

import argparse
import dataclasses
import gc
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rsmclip import train
from rsmclip.benchmarks.stages import measure_stages
from rsmclip.training.config import TrainingConfig

MATRIX_SIZES = {"cuda": (8192, torch.bfloat16), "cpu": (2048, torch.float32)}


class Worker:
    """
    A training run and its position in the data.

    Args:
        config ([`TrainingConfig`]): Configuration of the run.
    """

    def __init__(self, config: TrainingConfig):
        self.run = train.start(train.plan(config))
        self.run.student.train()
        self.numbers = itertools.count()
        self.batches: Iterator[dict] | None = None

    def next_batch(self) -> dict:
        """Return the next batch, on the device."""
        self.batches = self.batches or train.make_batches(self.run, 0)
        return next(self.batches)

    def step(self, batch: dict) -> None:
        """Train on a batch."""
        train.training_step(self.run, batch, next(self.numbers))

    def steps(self, settle: int, steps: int) -> dict:
        """Measure the seconds of `steps` steps, and of waiting for data, after `settle` unmeasured steps."""
        began = waited = 0.0
        for number in range(settle + steps):
            if number == settle:
                synchronize()
                began, waited = time.perf_counter(), 0.0
            asked = time.perf_counter()
            batch = self.next_batch()
            waited += time.perf_counter() - asked
            self.step(batch)
        synchronize()
        seconds = time.perf_counter() - began
        parameters = sum(p.numel() for p in self.run.model.parameters())
        return {"seconds": seconds, "waited": waited, "parameters": parameters}

    def flops(self) -> dict:
        """Count the floating-point operations of a step per pair: forward, backward, all views and the teacher."""
        batch = self.next_batch()
        return {"flops_per_pair": count_flops(lambda: self.step(batch)) / len(batch["image_ids"])}

    def stages(self, steps: int) -> dict:
        """Measure the seconds of a step by stage, see [`measure_stages`]."""
        return {"seconds": measure_stages(self.run, self.next_batch, self.step, steps, synchronize)}

    def synchronizations(self, steps: int) -> dict:
        """Count how often a step waits for the GPU, by place in the code."""
        found: dict[str, int] = {}
        for _ in range(steps):
            batch = self.next_batch()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                self.step(batch)
                torch.cuda.set_sync_debug_mode("default")
            for warning in caught:
                if "synchronizing CUDA operation" in str(warning.message):
                    place = f"{Path(*Path(warning.filename).parts[-2:])}:{warning.lineno}"
                    found[place] = found.get(place, 0) + 1
        return {"per_step": sum(found.values()) / steps, "places": found}

    def memory(self, batch_size: int, chunks: int, steps: int) -> dict:
        """Measure the peak GPU memory of steps with another batch size; `peak_bytes` is null if they do not fit."""
        config = self.run.config
        self.change(dataclasses.replace(config, batch_size=batch_size, gradient_accumulation_chunks=chunks))
        batches = train.make_batches(self.run, 0)
        torch.cuda.reset_peak_memory_stats()
        try:
            for _ in range(steps):
                self.step(next(batches))
            peak = torch.cuda.max_memory_allocated()
        except torch.OutOfMemoryError:
            peak = None
        self.run.optimizer.zero_grad()
        self.change(config)
        del batches
        gc.collect()
        torch.cuda.empty_cache()
        return {"peak_bytes": peak}

    def change(self, config: TrainingConfig) -> None:
        """Use another batch size or number of chunks."""
        self.run.config = config
        self.run.accelerator.unwrap_model(self.run.student).chunks = config.gradient_accumulation_chunks
        if self.run.teacher is not None:
            self.run.teacher.chunks = config.gradient_accumulation_chunks

    def matrix_product(self) -> dict:
        """Measure the operations per second of a large matrix product, the most that the device can reach."""
        device = self.run.accelerator.device
        size, dtype = MATRIX_SIZES[device.type]
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = min(self.time_product(left, right) for _ in range(10))
        return {"size": size, "dtype": str(dtype).removeprefix("torch."), "flops_per_second": 2 * size**3 / seconds}

    def time_product(self, left: torch.Tensor, right: torch.Tensor) -> float:
        synchronize()
        began = time.perf_counter()
        left @ right
        synchronize()
        return time.perf_counter() - began


REQUESTS = ("steps", "flops", "stages", "synchronizations", "memory", "matrix_product")  # methods of Worker


def count_flops(step: Callable[[], object]) -> int:
    """
    Count the floating-point operations of a call with PyTorch's counter: 2·m·n·k for a matrix product.

    Attention is computed as two plain products here. PyTorch does not count the fused kernels of a CPU, and the fused
    kernels of a GPU compute some products twice.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.get_total_flops()


def synchronize() -> None:
    """Wait until the accelerator has finished its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def main() -> None:
    """Answer requests until the end of stdin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="JSON file with fields of the training configuration")
    config = parser.parse_args().config
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stderr from here on, so that stdout holds answers only
    worker = Worker(TrainingConfig(**json.loads(config.read_text(encoding="utf-8"))))
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        do = request.pop("do")
        if do not in REQUESTS:
            raise ValueError(f"unknown request {do!r}; known are {', '.join(REQUESTS)}")
        answers.write(json.dumps(getattr(worker, do)(**request)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
