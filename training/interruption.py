"""SIGTERM and SIGINT, with which a scheduler or Ctrl-C end a run: the step ends, a checkpoint is written, and the exit
status is 128 + the signal's number, 143 or 130, as the shell has it for a process that a signal has ended.

Schedulers send the signal to some processes of a run or to all, those that load data included. So the processes agree
on the signal at the end of every step, and the loaders take it from the training process only.
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
    """
    The run ends early, all of it saved.

    Args:
        number (`signal.Signals`): Signal that ended it.
        checkpoint (`Path`): Checkpoint that was written.
    """

    label = ""

    def __init__(self, number: signal.Signals, checkpoint: Path):
        super().__init__(
            f"stopped by {number.name}; the run is saved in {checkpoint}; "
            "the same command with --resume_from_checkpoint latest continues it"
        )
        self.exit_status = 128 + number


class GivenUp(BaseException):
    """Raised by a signal in a block that [`StopSignal.gives_up`] guards."""


class StopSignal:
    """
    Takes note of SIGTERM and SIGINT while it is entered, instead of ending the process. A second SIGINT does what it
    does without, so that Ctrl-C twice ends the run at once. A signal that the process was started to ignore, such as
    SIGINT under `nohup` or in a script's background, stays ignored.

    Args:
        accelerator (`Accelerator`): The processes that are to agree.
    """

    def __init__(self, accelerator: Accelerator):
        # A group of its own on the hosts: to agree over the GPUs' would make every step wait for them.
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
        """The handler."""
        self.received = max(self.received, number)
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])
        if self.giving_up:
            self.giving_up = False
            raise GivenUp

    def agreed(self) -> signal.Signals | None:
        """The signal that any process has received, the same for all; every process calls it after every step."""
        received = self.received
        if self.group is not None:
            number = torch.tensor([received], dtype=torch.int32)
            dist.all_reduce(number, op=dist.ReduceOp.MAX, group=self.group)
            received = int(number)
        return signal.Signals(received) if received else None

    @contextmanager
    def gives_up(self) -> Iterator[None]:
        """A block that changes nothing of the run, as an evaluation: a signal ends it, and what follows goes on."""
        self.giving_up = True
        try:
            yield
        except GivenUp:
            pass
        finally:
            self.giving_up = False


def start_workers(loader: DataLoader) -> Iterator:
    """
    The batches of a loader. SIGTERM and SIGINT are held back from its workers until
    [`end_with_the_training_process`] has told them what to do; else one that comes while they start would end them.

    Args:
        loader (`DataLoader`): Has that function as its `worker_init_fn`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])  # workers inherit it
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_the_training_process(worker: int) -> None:
    """
    `worker_init_fn` of a `DataLoader` that [`start_workers`] starts. Ctrl-C, `torchrun` and
    schedulers send their signal to the workers too; if these ended by it, the training process could not end its step.
    So they end when the training process tells them, by a SIGTERM of its own, or is no more.

    Args:
        worker (`int`): Number of the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # in all threads, so that the one below gets it
    threading.Thread(target=wait_for_the_training_process, daemon=True).start()


def wait_for_the_training_process() -> None:
    """Ends this process at a SIGTERM from its parent."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)  # what torch's own handler does, so that the parent does not take it for a crash
