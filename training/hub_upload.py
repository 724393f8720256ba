"""A run on the Hub: a check at its start, its checkpoints' models while it goes on, the finished folder at its end.

A checkpoint's model is saved aside, which costs a step what saving the weights costs, and uploaded by a thread from
there. One upload runs and one waits; a newer one takes the place of the one that waits, so that a slow network neither
holds the training up nor fills the disk. One that fails is a warning. Unlike with transformers' Trainer, the
optimiser's state never goes up: it is pickled, twice the size of the weights, and of use to this run alone.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub.utils import disable_progress_bars
from safetensors import SafetensorError
from tqdm.auto import tqdm

from rsmclip.data.upload import check_may_push
from rsmclip.hub.folder import is_local
from rsmclip.hub.push import push_checkpoint, push_model
from rsmclip.training.config import TrainingConfig

SNAPSHOT = ".pushing-step-"  # folders beside the checkpoints


class HubUpload:
    """
    What pushes a run to the Hub. Every process has one and makes the same calls, and the main process pushes.

    Args:
        config ([`TrainingConfig`]): The run, which has a `hub_model_id`.
        accelerator (`Accelerator`): Its processes.

    Raises:
        `ValueError`: What the run makes would be of no use to others.
        `OSError`: The Hub cannot be reached, or does not let this run push.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator):
        if config.lora and not config.merge_adapter and (not config.model or is_local(config.model)):
            raise ValueError(
                "push_to_hub: others could not load an adapter to a model that only this machine has; "
                "give --merge_adapter true, or push that model and give its repository as --model"
            )
        self.config, self.is_main_process = config, accelerator.is_main_process
        self.folder = Path(config.output_dir)
        self.lock = Lock()
        self.thread: Thread | None = None
        self.waiting: int | None = None  # step of the snapshot that is uploaded next
        refused = [None]
        if self.is_main_process:
            disable_progress_bars()  # they would break up the run's own
            for left in (self.folder / "checkpoints").glob(f"{SNAPSHOT}*"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            try:
                check_may_push(config.hub_model_id, private=config.hub_private)
            except OSError as error:
                refused = [str(error)]
        if refusal := broadcast_object_list(refused)[0]:
            raise OSError(refusal)

    def checkpoint(self, step: int, save_model: Callable[[Path], None]) -> None:
        """
        Saves the model as of a checkpoint aside and starts to upload it, if the strategy has it so.

        Args:
            step (`int`): Steps done.
            save_model (`Callable`): Saves the model to a folder; every process calls it.
        """
        last = step == self.config.max_train_steps  # its model goes to main in a moment, with its card
        if self.config.hub_strategy == "end" or (self.config.hub_strategy == "every_save" and last):
            return
        try:
            save_model(self.snapshot(step))
        except (OSError, SafetensorError) as error:
            self.warn(step, f"it could not be saved aside: {error}")
            self.discard(step)
            return
        if not self.is_main_process:
            return
        with self.lock:
            overtaken, self.waiting = self.waiting, step
            if self.thread is None:
                self.thread = Thread(target=self.work, daemon=True)  # a run that is stopped does not wait for it
                self.thread.start()
        if overtaken is not None:
            self.warn(overtaken, f"step {step} overtook it while it waited for an upload to end")
            self.discard(overtaken)

    def work(self) -> None:
        """What the thread does: uploads snapshots until none waits."""
        while True:
            with self.lock:
                step, self.waiting = self.waiting, None
                if step is None:
                    self.thread = None
                    return
            branch = f"checkpoint-{step}" if self.config.hub_strategy == "checkpoint" else None
            try:
                options = {"private": self.config.hub_private, "revision": branch, "report": tqdm.write}
                push_checkpoint(self.snapshot(step), self.config.hub_model_id, step, **options)
            except Exception as error:  # whatever it is, the training goes on, and the next upload too
                self.warn(step, str(error))
            self.discard(step)

    def finish(self) -> None:
        """
        Pushes the finished folder, after what is still on its way.

        Raises:
            `OSError`: It could not be pushed; the line says how to do so later.
        """
        if (thread := self.thread) is not None:
            print("waiting for the upload of checkpoints")
            thread.join()
        try:
            push_model(self.folder, self.config.hub_model_id, self.config.hub_private)
        except (OSError, ValueError) as error:
            private = " --private" if self.config.hub_private else ""
            command = f"python -m rsmclip.hub push {self.folder} {self.config.hub_model_id}{private}"
            raise OSError(f"the model is finished in {self.folder}, but {error}; later: {command}") from error

    def snapshot(self, step: int) -> Path:
        """Where the model as of a step lies until it is uploaded."""
        return self.folder / "checkpoints" / f"{SNAPSHOT}{step}"

    def discard(self, step: int) -> None:
        """Deletes a snapshot."""
        shutil.rmtree(self.snapshot(step), ignore_errors=True)

    def warn(self, step: int, reason: str) -> None:
        """Says in one line why the model as of a step is not on the Hub."""
        tqdm.write(f"warning: the model of step {step} was not pushed: {' '.join(reason.split())}", file=sys.stderr)
