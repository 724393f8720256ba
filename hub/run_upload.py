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

from rsmclip.core.uploads import check_may_push
from rsmclip.hub.push import push_checkpoint, push_model

SNAPSHOT = ".pushing-step-"  # folders beside the checkpoints


class RunUpload:
    """
    What pushes a run to the Hub. Every process has one and makes the same calls, and the main process pushes.

    Args:
        folder (`Path`): The run's folder.
        repo_id (`str`): Repository, `"USER/NAME"`; made if it does not exist.
        accelerator (`Accelerator`): The run's processes.
        private (`bool`, *optional*, defaults to `False`): Whether a repository that is made is private.
        strategy (`str`, *optional*, defaults to `"end"`): `"end"`, `"every_save"` or `"checkpoint"`.

    Raises:
        `OSError`: The Hub cannot be reached, or does not let this run push.
    """

    def __init__(
        self, folder: Path, repo_id: str, accelerator: Accelerator, private: bool = False, strategy: str = "end"
    ):
        self.folder, self.repo_id, self.private, self.strategy = folder, repo_id, private, strategy
        self.is_main_process = accelerator.is_main_process
        self.lock = Lock()
        self.thread: Thread | None = None
        self.waiting: int | None = None  # step of the snapshot that is uploaded next
        refused = [None]
        if self.is_main_process:
            disable_progress_bars()  # they would break up the run's own
            for left in (self.folder / "checkpoints").glob(f"{SNAPSHOT}*"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            try:
                check_may_push(repo_id, private=private)
            except OSError as error:
                refused = [str(error)]
        if refusal := broadcast_object_list(refused)[0]:
            raise OSError(refusal)

    def checkpoint(self, step: int, save_model: Callable[[Path], None], is_last: bool) -> None:
        """
        Saves the model as of a checkpoint aside and starts to upload it, if the strategy has it so.

        Args:
            step (`int`): Steps done.
            save_model (`Callable`): Saves the model to a folder; every process calls it.
            is_last (`bool`): Whether the run ends here: its model goes to main in a moment, with its card.
        """
        if self.strategy == "end" or (self.strategy == "every_save" and is_last):
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
            branch = f"checkpoint-{step}" if self.strategy == "checkpoint" else None
            try:
                options = {"private": self.private, "revision": branch, "report": tqdm.write}
                push_checkpoint(self.snapshot(step), self.repo_id, step, **options)
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
            push_model(self.folder, self.repo_id, self.private)
        except (OSError, ValueError) as error:
            private = " --private" if self.private else ""
            command = f"python -m rsmclip.hub push {self.folder} {self.repo_id}{private}"
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
