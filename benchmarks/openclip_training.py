"""OpenCLIP's side of the training benchmark: its own training command, which trains when it is told to.

    PYTHON benchmarks/openclip_training.py --model_config FILE.json --threads 2 [options of open_clip_train.main]

It lives in an environment of OpenCLIP's (`pip install 'open_clip_torch[training]'`) and imports nothing of ours. All
of `open_clip_train.main` runs as it is: model, data, optimiser, schedule, and its loop over epochs. Only the call of
`train_one_epoch` waits for a line on stdin first and is given a loader that ends after the steps which that line asks
for, `{"do": "steps", "settle": 1, "steps": 4}`; the next call continues behind them. The answer on stdout,
`{"seconds": …, "waited": …, "parameters": …}`, leaves out the `settle` first steps. The end of stdin ends it.
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Iterator

import open_clip
import torch
from open_clip_train import main as openclip_main
from open_clip_train.data import DataInfo
from open_clip_train.train import train_one_epoch
from torch.utils.data import DataLoader


def synchronise() -> None:
    """Waits until the accelerator is done; a CPU always is."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def endless(loader: DataLoader) -> Iterator:
    """Batches of one epoch after the other."""
    while True:
        yield from loader


class TimedLoader:
    """
    What `train_one_epoch` asks of a loader, over so many batches, and how long they take.

    Args:
        batches (`Iterator`): Where the batches come from.
        batch_size (`int`): Pairs of a batch.
        settle (`int`): Steps before the clock starts.
        steps (`int`): Steps on the clock.
    """

    def __init__(self, batches: Iterator, batch_size: int, settle: int, steps: int):
        self.batches, self.settle, self.num_batches = batches, settle, settle + steps
        self.num_samples = batch_size * self.num_batches
        self.began = self.waited = 0.0

    def __iter__(self) -> Iterator:
        for number in range(self.num_batches):
            if number == self.settle:
                synchronise()
                self.began, self.waited = time.perf_counter(), 0.0
            asked = time.perf_counter()
            batch = next(self.batches)
            self.waited += time.perf_counter() - asked
            yield batch

    def times(self) -> dict[str, float]:
        """Seconds from the first step on the clock until now, and those spent waiting for batches."""
        synchronise()
        return {"seconds": time.perf_counter() - self.began, "waited": self.waited}


class Turns:
    """
    Takes the place of `train_one_epoch` in OpenCLIP's loop over epochs; every epoch is one request.

    Args:
        answers (`io.TextIOBase`): Where answers go.
    """

    def __init__(self, answers):
        self.answers, self.batches = answers, None

    def __call__(self, model, data, loss, epoch, optimizer, scaler, scheduler, dist_model, args, tb_writer=None):
        """Waits for a request and trains for so many steps."""
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        request = json.loads(line)
        self.batches = self.batches or endless(data["train"].dataloader)
        loader = TimedLoader(self.batches, args.batch_size, request["settle"], request["steps"])
        data = {"train": DataInfo(loader)}
        train_one_epoch(model, data, loss, epoch, optimizer, scaler, scheduler, dist_model, args, tb_writer)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self.answers.write(json.dumps({**loader.times(), "parameters": parameters}) + "\n")
        self.answers.flush()


def main() -> None:
    """Starts OpenCLIP's training command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # else OpenCLIP's --model would be taken for the beginning of --model_config
    )
    parser.add_argument(
        "--model_config", required=True, help="a model configuration of OpenCLIP's; its name is --model"
    )
    parser.add_argument("--threads", type=int, help="threads on a CPU")
    own, arguments = parser.parse_known_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    if own.threads:
        torch.set_num_threads(own.threads)
    open_clip.add_model_config(own.model_config)
    # Random weights: the command would load those of the text tower, which the benchmark has no need of.
    openclip_main.create_model_and_transforms = functools.partial(
        open_clip.create_model_and_transforms, pretrained_text=False
    )
    openclip_main.train_one_epoch = Turns(answers)
    openclip_main.main(arguments)


if __name__ == "__main__":
    main()
