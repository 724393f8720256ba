"""Checkpoints: all that a run needs to continue, written aside and renamed, so that none is ever half-written."""

import re
import shutil
from pathlib import Path

from accelerate import Accelerator


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int) -> Path:
    """
    Saves the whole state of the run after `step` steps to `folder/step-<step>` and keeps `keep - 1` earlier ones.

    Args:
        accelerator (`Accelerator`): Holds model, optimiser, scheduler and what was registered for checkpointing.
        folder (`Path`): Folder of the checkpoints.
        step (`int`): Steps done.
        keep (`int`): Number of checkpoints to keep.
    """
    target = folder / f"step-{step}"
    aside = folder / f".writing-step-{step}"
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(aside))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        found = checkpoints(folder)
        done = found.index(target) + 1
        for old in found[: max(0, done - keep)] + found[done:]:  # later ones are of a course that was given up
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """Steps done when the checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def find_checkpoint(folder: Path, wanted: str) -> Path:
    """
    The checkpoint that `--resume_from_checkpoint` names.

    Args:
        folder (`Path`): Folder of the run's checkpoints.
        wanted (`str`): `"latest"`, or the path of a checkpoint.
    """
    if wanted != "latest":
        if not re.fullmatch(r"step-\d+", Path(wanted).name) or not Path(wanted).is_dir():
            raise ValueError(f"no checkpoint at {wanted}: expected a folder named step-<number>")
        return Path(wanted)
    found = checkpoints(folder)
    if not found:
        raise ValueError(f"nothing to resume from: no checkpoint in {folder}")
    return found[-1]
