"""Checkpoints: all that a run needs to continue. None is ever half-written, and none is trusted unread.

A checkpoint is written in a hidden folder beside the others. A manifest with the size and the checksum of every file
comes last, all of it is forced to the disk, and only then does the folder take its name: a process that is killed, or
a machine that loses its power, leaves the checkpoint complete or not at all. What a disk damages later is found by the
manifest when a run resumes, and the checkpoint before is taken.

The checksum is CRC-32: it comes with Python and reads 3 GB/s on one core, where SHA-256 reads 1.6 GB/s, so that a
checkpoint of 5 GB costs less than two seconds beside the time that a disk takes to write it.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from safetensors import SafetensorError

MANIFEST = "manifest.json"
UNFINISHED = (".writing-*", ".deleting-*")  # what a killed run can leave
# What a failed write raises: Python an OSError, safetensors its own class, and torch.save a bare RuntimeError.
WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int) -> Path:
    """
    Saves the whole state of the run after `step` steps to `folder/step-<step>` and keeps `keep - 1` earlier ones.

    Every process calls it. A process that cannot write tells the others, so that none waits for it.

    Args:
        accelerator (`Accelerator`): Holds model, optimiser, scheduler and what was registered for checkpointing.
        folder (`Path`): Folder of the checkpoints, on a disk that all processes share.
        step (`int`): Steps done.
        keep (`int`): Number of checkpoints to keep.

    Raises:
        `OSError`: It could not be written, the disk is full for example; earlier checkpoints are as they were.
    """
    target, aside = folder / f"step-{step}", folder / f".writing-step-{step}"
    if accelerator.is_main_process:
        remove_unfinished(folder)
    accelerator.wait_for_everyone()
    write_together(accelerator, aside, lambda: accelerator.save_state(str(aside)))

    def complete() -> None:
        if accelerator.is_main_process:
            write_manifest(aside, step, accelerator.num_processes)
            discard(target)
            aside.rename(target)
            sync(folder)

    write_together(accelerator, aside, complete)
    if accelerator.is_main_process:
        found = checkpoints(folder)
        done = found.index(target) + 1
        for old in found[: max(0, done - keep)] + found[done:]:  # later ones are of a course that was given up
            discard(old)
    return target


def write_together(accelerator: Accelerator, aside: Path, action: Callable[[], object]) -> None:
    """
    Runs a part of the saving on every process. If it fails on any, all of them raise, and none is left waiting.

    Args:
        accelerator (`Accelerator`): The processes.
        aside (`Path`): Folder of the unfinished checkpoint, deleted after a failure.
        action (`Callable`): What writes.

    Raises:
        `OSError`: What failed, how much room there is, and which checkpoint is intact.
    """
    failure = None
    try:
        action()
    except WRITE_ERRORS as error:
        failure = error
    reasons = [reason for reason in gather_object([failure and write_reason(failure)]) if reason]
    if reasons:
        message = [failed_write(aside, reasons[0]) if accelerator.is_main_process else ""]
        raise OSError(broadcast_object_list(message)[0]) from failure


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, seed: int) -> int:
    """
    Restores the state of the run. With another number of processes than the checkpoint was written by, all of it but
    the random states, of which every process has one of its own: these start anew, from the seed and the step.

    Args:
        accelerator (`Accelerator`): Holds what is restored.
        checkpoint (`Path`): A checkpoint from [`find_checkpoint`].
        seed (`int`): Seed of the run.

    Returns:
        `int`: Steps done.
    """
    step, wrote = checkpoint_step(checkpoint), read_manifest(checkpoint)["processes"]
    accelerator.load_state(str(checkpoint))
    if wrote != accelerator.num_processes:
        # load_state says nothing of a process whose random state is missing: it would go on as at the first step.
        set_seed(int(np.random.SeedSequence([seed, step, accelerator.process_index]).generate_state(1)[0]))
        accelerator.print(
            f"{checkpoint.name} was written by {wrote} processes and goes on in {accelerator.num_processes}: "
            "dropout draws other random numbers from here on, all else is the same"
        )
    if accelerator.is_main_process:
        remove_unfinished(checkpoint.parent)
    return step


def find_checkpoint(folder: Path, wanted: str) -> Path:
    """
    The checkpoint that `--resume_from_checkpoint` names, read whole and found to be good. With `"latest"`, damaged
    ones are named in a line each and the one before is taken.

    Args:
        folder (`Path`): Folder of the run's checkpoints.
        wanted (`str`): `"latest"`, or the path of a checkpoint.

    Raises:
        `ValueError`: There is none, or none that is good.
    """
    damaged = []
    for checkpoint in candidates(folder, wanted):
        if not (found := damage(checkpoint)):
            if damaged:
                print("; ".join(damaged) + f"; {checkpoint.name}, the one before, is taken")
            return checkpoint
        damaged.append(f"{checkpoint} is damaged: {found}")
    if wanted == "latest":
        raise ValueError(f"nothing to resume from: {'; '.join(damaged)}; there is no other checkpoint")
    good = last_good(folder)
    raise ValueError(f"{damaged[0]}; " + (f"{good} is good" if good else f"no checkpoint in {folder} is good"))


def find_checkpoint_once(accelerator: Accelerator, folder: Path, wanted: str) -> Path:
    """[`find_checkpoint`], by the main process for all of them: gigabytes need not be read by each."""
    found: list[Path | ValueError | None] = [None]
    if accelerator.is_main_process:
        try:
            found = [find_checkpoint(folder, wanted)]
        except ValueError as error:
            found = [error]
    checkpoint = broadcast_object_list(found)[0]
    if isinstance(checkpoint, ValueError):
        raise checkpoint
    return checkpoint


def candidates(folder: Path, wanted: str) -> list[Path]:
    """The checkpoints that may be meant, the first choice first, as their names tell; nothing in them is read."""
    if wanted != "latest":
        if not re.fullmatch(r"step-\d+", Path(wanted).name) or not Path(wanted).is_dir():
            raise ValueError(f"no checkpoint at {wanted}: expected a folder named step-<number>")
        return [Path(wanted)]
    if not (found := checkpoints(folder)):
        raise ValueError(f"nothing to resume from: no checkpoint in {folder}")
    return found[::-1]


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """Steps done when the checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def last_good(folder: Path) -> Path | None:
    """The newest checkpoint that is not damaged."""
    return next((checkpoint for checkpoint in reversed(checkpoints(folder)) if not damage(checkpoint)), None)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words; every byte of it is read."""
    try:
        manifest = read_manifest(checkpoint)
        if manifest["step"] != checkpoint_step(checkpoint):
            return f"it was written as step-{manifest['step']}"
        for name, expected in manifest["files"].items():
            if (size := (checkpoint / name).stat().st_size) != expected["bytes"]:
                return f"{name} has {size} of {expected['bytes']} bytes"
            if checksum(checkpoint / name) != expected["crc32"]:
                return f"{name} does not agree with its checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or checkpoint).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    return None


def read_manifest(checkpoint: Path) -> dict:
    """What [`write_manifest`] wrote."""
    return json.loads((checkpoint / MANIFEST).read_bytes())


def write_manifest(checkpoint: Path, step: int, num_processes: int) -> None:
    """
    Lists every file with size and checksum, and forces all of them to the disk.

    Args:
        checkpoint (`Path`): Folder of a checkpoint that lacks nothing else.
        step (`int`): Steps done.
        num_processes (`int`): Processes that wrote it.
    """
    files = {}
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        sync(path)
        name = path.relative_to(checkpoint).as_posix()
        files[name] = {"bytes": path.stat().st_size, "crc32": checksum(path)}
    manifest = {"step": step, "processes": num_processes, "torch": torch.__version__, "files": files}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (checkpoint / MANIFEST, *(path for path in checkpoint.rglob("*") if path.is_dir()), checkpoint):
        sync(path)


def checksum(path: Path) -> str:
    """CRC-32 of a file, in hexadecimal."""
    value, buffer = 0, memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            value = zlib.crc32(buffer[:count], value)
    return f"{value:08x}"


def sync(path: Path) -> None:
    """Returns when a file, or the names in a folder, are on the disk and no longer only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(checkpoint: Path) -> None:
    """Deletes a checkpoint, if it is there; a kill in between leaves nothing that looks like one."""
    hidden = checkpoint.with_name(f".deleting-{checkpoint.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    if checkpoint.exists():
        checkpoint.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Deletes what killed runs have left of checkpoints that they were writing or deleting."""
    for pattern in UNFINISHED:
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def write_reason(error: Exception) -> str:
    """Why a write failed, in a line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "inline_container" in str(error):  # all that torch.save says is that its file is shorter than it should be
        return "torch could not write a file"
    return " ".join(str(error).split())


def failed_write(aside: Path, reason: str) -> str:
    """Removes what was written of a checkpoint and says in one line what failed and what is left."""
    folder, written = aside.parent, size(aside)
    shutil.rmtree(aside, ignore_errors=True)
    free, good = shutil.disk_usage(folder).free, last_good(folder)
    needed = f"it needs {megabytes(size(good))}" if good else f"{megabytes(written)} of it were written"
    left = f"the checkpoint before, {good}, is intact" if good else "there is no checkpoint before it"
    return (
        f"the checkpoint {aside.name.removeprefix('.writing-')} could not be written ({reason}): {needed}, "
        f"{megabytes(free)} are free on the disk of {folder}; {left}"
        + ("; make room and continue with --resume_from_checkpoint latest" if good else "")
    )


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def megabytes(count: int) -> str:
    """A number of bytes to read."""
    return f"{count / 1e6:,.1f} MB"
