"""OpenCLIP's side of the training benchmark: OpenCLIP's own training command, which trains on request.

    PYTHON benchmarks/openclip_training.py --model_config FILE.json --threads 2 [options of open_clip_train.main]

The script runs in an environment with OpenCLIP (`pip install 'open_clip_torch[training]'`) and imports nothing of this
package. `open_clip_train.main` runs unchanged: model, data, optimizer, schedule and the loop over epochs. Only its
call of `train_one_epoch` is replaced. The replacement waits for a request on stdin, such as
`{"do": "steps", "settle": 1, "steps": 4}`, and trains for that number of steps. The next request continues with the
next batches. The answer on stdout is `{"seconds": …, "waited": …, "parameters": …}`; the first `settle` steps are not
measured. The end of stdin ends the process.
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


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def endless(loader: DataLoader) -> Iterator:
    while True:
        yield from loader


class TimedLoader:
    """
    A loader for `train_one_epoch` that ends after a number of batches and measures their time.

    Args:
        batches (`Iterator`): The batches.
        batch_size (`int`): Pairs in a batch.
        settle (`int`): Number of unmeasured steps at the start.
        steps (`int`): Number of measured steps.
    """

    def __init__(self, batches: Iterator, batch_size: int, settle: int, steps: int):
        self.batches, self.settle, self.num_batches = batches, settle, settle + steps
        self.num_samples = batch_size * self.num_batches
        self.began = self.waited = 0.0

    def __iter__(self) -> Iterator:
        for number in range(self.num_batches):
            if number == self.settle:
                synchronize()
                self.began, self.waited = time.perf_counter(), 0.0
            asked = time.perf_counter()
            batch = next(self.batches)
            self.waited += time.perf_counter() - asked
            yield batch

    def times(self) -> dict[str, float]:
        """Return the seconds since the first measured step, and the seconds of waiting for batches."""
        synchronize()
        return {"seconds": time.perf_counter() - self.began, "waited": self.waited}


class Turns:
    """
    The replacement of `train_one_epoch` in OpenCLIP's loop over epochs: every epoch is one request.

    Args:
        answers (`io.TextIOBase`): File for the answers.
    """

    def __init__(self, answers):
        self.answers, self.batches = answers, None

    def __call__(self, model, data, loss, epoch, optimizer, scaler, scheduler, dist_model, args, tb_writer=None):
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
    """Start OpenCLIP's training command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # argparse would read OpenCLIP's --model as --model_config
    )
    parser.add_argument("--model_config", required=True, help="model configuration of OpenCLIP, named by --model")
    parser.add_argument("--threads", type=int, help="CPU threads")
    own, arguments = parser.parse_known_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stderr from here on, so that stdout holds answers only
    if own.threads:
        torch.set_num_threads(own.threads)
    open_clip.add_model_config(own.model_config)
    # The benchmark needs no pretrained weights of the text tower, which the command would load.
    openclip_main.create_model_and_transforms = functools.partial(
        open_clip.create_model_and_transforms, pretrained_text=False
    )
    openclip_main.train_one_epoch = Turns(answers)
    openclip_main.main(arguments)


if __name__ == "__main__":
    main()
