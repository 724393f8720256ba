"""Stop a run with SIGTERM (a scheduler) or SIGINT (Ctrl-C).

The run finishes its step, writes a checkpoint, and exits with status 128 + the number of the signal: 143 or 130.

Schedulers send a signal to some or all processes of a run, including the data loading workers. So the training
processes agree on the signal at the end of every step, and workers obey only the training process.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.utils.data import DataLoader

from rsmclip.core.errors import UserError


class Stopped(UserError):
    """End of a run by a signal, after a checkpoint was written. Its own class, for the exit status 128 + signal."""

    label = ""

    def __init__(self, number: signal.Signals, checkpoint: Path):
        super().__init__(
            f"stopped by {number.name}; the run is saved in {checkpoint}; "
            "run the command again with --resume_from_checkpoint latest to continue"
        )
        self.exit_status = 128 + number


class GivenUp(BaseException):
    """Signal inside [`StopSignal.gives_up`]. It is a `BaseException`, because libraries catch `Exception`."""


class StopSignal:
    """
    Context manager that records SIGTERM and SIGINT, so that they do not end the process.

    A second SIGINT has its usual effect: Ctrl-C twice ends the run at once. A signal that the process already ignores,
    such as SIGINT in the background of a script, stays ignored.
    """

    def __init__(self, accelerator: Accelerator):
        # A separate group on the CPUs: an exchange between GPUs would make every step wait for them.
        self.group = dist.new_group(backend="gloo") if accelerator.num_processes > 1 else None
        self.received = 0
        self.giving_up = False
        self.before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self.before[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.received = max(self.received, number)
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])
        if self.giving_up:
            self.giving_up = False
            raise GivenUp

    def agreed(self) -> signal.Signals | None:
        """Return the signal that any process received, or `None`. All processes must call it after every step."""
        received = self.received
        if self.group is not None:
            number = torch.tensor([received], dtype=torch.int32)
            dist.all_reduce(number, op=dist.ReduceOp.MAX, group=self.group)
            received = int(number)
        return signal.Signals(received) if received else None

    @contextmanager
    def gives_up(self) -> Iterator[None]:
        """End the block at a signal and continue after the block. For an evaluation, which does not change the run."""
        self.giving_up = True
        try:
            yield
        except GivenUp:
            pass
        finally:
            self.giving_up = False


def start_workers(loader: DataLoader) -> Iterator:
    """
    Return the batches of a loader. Its workers start with SIGTERM and SIGINT blocked.

    Its `worker_init_fn` must be [`end_with_the_training_process`]. Without blocking, a signal could end a worker
    before this function runs in it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])  # workers inherit it
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_the_training_process(worker: int) -> None:
    """
    Make a worker end only at a SIGTERM from the training process, or when the training process ends.

    Ctrl-C, `torchrun` and schedulers signal the workers too. If workers ended, the training process could not finish
    its step. This is a `worker_init_fn` for `DataLoader`; the index of the worker is not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not say who sent a signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # in all threads, so that the thread below gets it
    threading.Thread(target=wait_for_the_training_process, daemon=True).start()


def wait_for_the_training_process() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)  # status 0, as in torch's own handler: the parent would report another status as a crash
