"""Upload of a training run: a check at the start, the models of checkpoints, and the finished folder at the end.

The model of a checkpoint is saved into a folder of its own, which takes as long as saving the weights. A thread
uploads this folder. One upload runs and one waits; a newer checkpoint replaces the waiting one, so a slow network
neither delays the training nor fills the disk. Unlike `transformers.Trainer`, the state of the optimizer is not
uploaded: it is pickled, has twice the size of the weights, and only this run can use it.
"""

import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub.utils import disable_progress_bars
from safetensors import SafetensorError
from tqdm.auto import tqdm

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.uploads import check_may_push
from rsmclip.hub.push import push_checkpoint, push_model

SNAPSHOT = ".pushing-step-"  # folders in checkpoints/


class RunUpload:
    """
    Uploader of a training run. Every process creates one and makes the same calls; the main process uploads.

    Args:
        folder (`Path`): Folder of the run.
        repo_id (`str`): Repository, `"USER/NAME"`; created if it does not exist.
        accelerator (`Accelerator`): Processes of the run.
        private (`bool`, *optional*, defaults to `False`): Whether a new repository is private.
        strategy (`str`, *optional*, defaults to `"end"`): `"end"`, `"every_save"` or `"checkpoint"`.

    Raises:
        [`UserError`]: The Hub cannot be reached, or refuses.
    """

    def __init__(
        self, folder: Path, repo_id: str, accelerator: Accelerator, private: bool = False, strategy: str = "end"
    ):
        self.folder, self.repo_id, self.private, self.strategy = folder, repo_id, private, strategy
        self.is_main_process = accelerator.is_main_process
        self.waiting: SimpleQueue[int | None] = SimpleQueue()  # at most one step; `None` ends the thread
        self.thread: Thread | None = None
        refused = [None]
        if self.is_main_process:
            disable_progress_bars()  # they would interrupt the bar of the run
            for left in (self.folder / "checkpoints").glob(f"{SNAPSHOT}*"):  # a run that was killed leaves them
                shutil.rmtree(left, ignore_errors=True)
            try:
                check_may_push(repo_id, private)
            except UserError as error:
                refused = [str(error)]
        if refusal := broadcast_object_list(refused)[0]:
            raise UserError(refusal)

    def checkpoint(self, step: int, save_model: Callable[[Path], None], is_last: bool) -> None:
        """
        Save the model of a checkpoint and start its upload, if the strategy asks for it. Failures are warnings.

        Args:
            step (`int`): Steps done.
            save_model (`Callable`): Saves the model into a folder; every process calls it.
            is_last (`bool`): Whether the run ends after this step; `finish` then pushes the model with its card.
        """
        if self.strategy == "end" or (self.strategy == "every_save" and is_last):
            return
        try:
            with user_errors(OSError, SafetensorError, prefix="it could not be saved"):
                save_model(self.snapshot(step))
        except UserError as error:
            self.drop(step, str(error))
            return
        if not self.is_main_process:
            return
        # Use a daemon thread: with `HfApi.run_as_future`, a run that was stopped would wait for its uploads.
        if self.thread is None:
            self.thread = Thread(target=self.work, daemon=True)
            self.thread.start()
        with suppress(Empty):
            self.drop(self.waiting.get_nowait(), f"step {step} replaced it while it waited for another upload")
        self.waiting.put(step)

    def work(self) -> None:
        while (step := self.waiting.get()) is not None:
            branch = f"checkpoint-{step}" if self.strategy == "checkpoint" else None
            try:
                message = f"Model after {step} steps"
                push_checkpoint(self.snapshot(step), self.repo_id, message, private=self.private, revision=branch)
            except UserError as error:
                self.drop(step, str(error))
            else:
                self.discard(step)

    def finish(self) -> None:
        """
        Wait for uploads of checkpoints, then push the finished folder.

        Raises:
            [`UserError`]: The folder could not be pushed; the line ends with the command that pushes it later.
        """
        if self.thread is not None:
            print("waiting for uploads of checkpoints")
            self.waiting.put(None)
            self.thread.join()
        try:
            push_model(self.folder, self.repo_id, self.private)
        except UserError as error:
            private = " --private" if self.private else ""
            later = f"rsmclip hub push {self.folder} {self.repo_id}{private}"
            raise UserError(f"the model is finished in {self.folder}, but {error}; later: {later}") from error

    def snapshot(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"{SNAPSHOT}{step}"

    def discard(self, step: int) -> None:
        shutil.rmtree(self.snapshot(step), ignore_errors=True)

    def drop(self, step: int, reason: str) -> None:
        tqdm.write(f"warning: the model of step {step} was not pushed: {' '.join(reason.split())}", file=sys.stderr)
        self.discard(step)
