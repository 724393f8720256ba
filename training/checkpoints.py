"""Checkpoints: everything that a run needs to continue. A checkpoint is complete or absent, and is checked when read.

A checkpoint is written in a hidden folder beside the other checkpoints. The last file is a manifest with the size and
the checksum of every file. Then all files are forced to the disk, and the folder is renamed. So a killed process or
a power failure leaves a complete checkpoint or none. When a run resumes, the manifest shows later damage of the disk,
and the run continues from the checkpoint before.

The checksum is CRC-32, which is fast: it reads 3 GB/s on one core (SHA-256: 1.6 GB/s).

Reading a checkpoint runs no code from it. Accelerate reads optimizer, scheduler and random states with
`weights_only=True`. The states of other parts are safetensors and JSON, written and read here: Accelerate would read
them as pickles of any content.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, load, set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rsmclip.core.errors import UserError, user_errors
from rsmclip.training.processes import once

FORMER_STATES = "custom_checkpoint_*.pkl"  # by Accelerate, in checkpoints of earlier versions of this project
MANIFEST = "manifest.json"
UNFINISHED = (".writing-*", ".deleting-*")  # folders that a killed run can leave


class Stateful(Protocol):
    """A part of a run. Its state has tensors alone if it is a module, else values of JSON."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


def register_states(accelerator: Accelerator, **parts: Stateful | None) -> None:
    """
    Make checkpoints contain parts that Accelerate does not prepare, as `<name>.safetensors` or `<name>.json`.

    Args:
        accelerator (`Accelerator`): The processes of the run. Its `load_state` raises [`UserError`] for a bad file.
        parts: The parts by name. `None` is left out.
    """
    parts = {name: part for name, part in parts.items() if part is not None}

    def write(models: list, weights: list, folder: str) -> None:
        for name, part in parts.items() if accelerator.is_main_process else ():
            path, state = state_file(Path(folder), name, part), part.state_dict()
            if isinstance(part, torch.nn.Module):
                save_file({key: value.contiguous() for key, value in state.items()}, path)
            else:
                path.write_text(json.dumps(state), encoding="utf-8")

    def read(models: list, folder: str) -> None:
        for name, part in parts.items():
            path = state_file(Path(folder), name, part)
            with user_errors(OSError, SafetensorError, json.JSONDecodeError, prefix=f"{path} cannot be read"):
                state = load_file(path) if isinstance(part, torch.nn.Module) else json.loads(path.read_bytes())
            part.load_state_dict(state)

    accelerator.register_save_state_pre_hook(write)
    accelerator.register_load_state_pre_hook(read)


def state_file(folder: Path, name: str, part: Stateful) -> Path:
    return folder / f"{name}.{'safetensors' if isinstance(part, torch.nn.Module) else 'json'}"


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int, best: int | None = None) -> Path:
    """
    Save the state of the run to `folder/step-<step>`, and keep `keep - 1` earlier checkpoints and that of step `best`.

    All processes must call it, with a folder on a disk that they share. If one process cannot write, all raise the
    error, so that none waits.

    Raises:
        [`UserError`]: The checkpoint could not be written, for example because the disk is full. Earlier checkpoints
            are unchanged.
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
        # Checkpoints of later steps are from before the run was resumed at an earlier step.
        for old in found[: max(0, done - keep)] + found[done:]:
            if checkpoint_step(old) not in (0, best):  # a probed start stays: a user can interpolate with it
                discard(old)
    return target


def write_together(accelerator: Accelerator, aside: Path, write: Callable[[], object]) -> None:
    # Every process runs `write`. All processes raise if one fails.
    failure = reason = None
    try:
        write()
    except (OSError, SafetensorError) as error:
        failure, reason = error, " ".join(str(error).split())
    except RuntimeError as error:
        if "inline_container" not in str(error):  # the part of torch.save that writes the file
            raise
        failure, reason = error, "torch.save could not write a file"
    if reasons := [reason for reason in gather_object([reason]) if reason]:
        if accelerator.is_main_process:
            shutil.rmtree(aside, ignore_errors=True)
        kept = checkpoints(aside.parent)
        advice = f"{kept[-1]} is intact: free space and add --resume_from_checkpoint latest" if kept else "free space"
        raise UserError(
            f"the checkpoint {aside.name.removeprefix('.writing-')} could not be written in {aside.parent}: "
            f"{reasons[0]}; {advice}"
        ) from failure


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, seed: int) -> int:
    """
    Restore the state of the run from a checkpoint of [`find_checkpoint_once`]. Returns the number of steps done.

    Every process has its own random state. If the number of processes has changed since the checkpoint, random states
    start anew from the seed and the step.

    Raises:
        [`UserError`]: A file cannot be read, or has objects that are not tensors or numbers, which could run code.
    """
    step, wrote = checkpoint_step(checkpoint), json.loads((checkpoint / MANIFEST).read_bytes())["processes"]
    try:
        with user_errors(OSError, EOFError, SafetensorError, prefix=f"{checkpoint} cannot be read"):
            if wrote == accelerator.num_processes:  # `load_state` ignores a random state that it cannot read
                load(checkpoint / f"random_states_{accelerator.process_index}.pkl")
            accelerator.load_state(str(checkpoint))
    except UnpicklingError as error:
        raise UserError(
            f"{checkpoint} has a file with objects that are not tensors or numbers, which could run code: "
            "no run has written it. Resume from another checkpoint, or start a new run"
        ) from error
    if wrote != accelerator.num_processes:
        # The process has no random state, or that of another share: it would draw numbers of earlier steps again.
        set_seed(int(np.random.SeedSequence([seed, step, accelerator.process_index]).generate_state(1)[0]))
        accelerator.print(
            f"{checkpoint.name} was written by {wrote} processes and is continued by {accelerator.num_processes}: "
            "from here on, dropout draws other random numbers"
        )
    if accelerator.is_main_process:
        remove_unfinished(checkpoint.parent)
    return step


def find_checkpoint_once(accelerator: Accelerator, folder: Path, wanted: str) -> Path:
    """
    Return the checkpoint that `--resume_from_checkpoint` names. Rank 0 reads and checks it for all processes.

    Args:
        accelerator (`Accelerator`): The processes of the run.
        folder (`Path`): Folder of the run's checkpoints.
        wanted (`str`): The path of a checkpoint, or `"latest"`: damaged checkpoints are printed and skipped.

    Raises:
        [`UserError`]: There is no such checkpoint, or it is damaged.
    """
    return once(accelerator, lambda: find_checkpoint(folder, wanted))


def find_checkpoint(folder: Path, wanted: str) -> Path:
    damaged = []
    for checkpoint in candidates(folder, wanted):
        if former := next(checkpoint.glob(FORMER_STATES), None):
            raise UserError(
                f"{former} is from an earlier version of this project. Such a file can run code, so it is not read: "
                "continue the run with that version, or give its model folder as --model and another --output_dir"
            )
        if not (found := damage(checkpoint)):
            if damaged:
                print("; ".join(damaged) + f"; the run continues from {checkpoint.name}")
            return checkpoint
        damaged.append(f"{checkpoint} is damaged: {found}")
    raise UserError("; ".join(damaged) + f"; choose another checkpoint in {folder}, or start a new run")


def candidates(folder: Path, wanted: str) -> list[Path]:
    """Return the checkpoints that `wanted` can mean, the newest first. Only names are checked."""
    if wanted != "latest":
        if not re.fullmatch(r"step-\d+", Path(wanted).name) or not Path(wanted).is_dir():
            raise UserError(f"no checkpoint at {wanted}: expected a folder named step-<number>")
        return [Path(wanted)]
    if not (found := checkpoints(folder)):
        raise UserError(f"nothing to resume from: no checkpoint in {folder}")
    return found[::-1]


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the number of steps done in a checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


def damage(checkpoint: Path) -> str | None:
    # Reads every byte of the checkpoint. Returns the first fault, or None.
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
    except (ValueError, RecursionError):
        return f"{MANIFEST} is not readable"
    except OSError as error:
        return f"{MANIFEST} is missing or cannot be read ({error.strerror})"
    match manifest:
        case {"step": step, "processes": int(), "files": dict(files)}:
            if step != checkpoint_step(checkpoint):
                return f"it was written as step-{step}"
        case _:
            return f"{MANIFEST} is not readable"
    for name, expected in files.items():
        try:
            found = describe(checkpoint / name)
        except OSError as error:
            return f"{name} is missing or cannot be read ({error.strerror})"
        except ValueError:  # from the system's call: the name has a NUL or half a surrogate pair
            return f"{MANIFEST} has {name!r}, which cannot be a file"
        if found != expected:
            return f"{name} is {found}, but the manifest says {expected}"
    return None


def write_manifest(checkpoint: Path, step: int, num_processes: int) -> None:
    files = {}
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        sync(path)
        files[path.relative_to(checkpoint).as_posix()] = describe(path)
    manifest = {"step": step, "processes": num_processes, "torch": torch.__version__, "files": files}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (checkpoint / MANIFEST, *(path for path in checkpoint.rglob("*") if path.is_dir()), checkpoint):
        sync(path)


def describe(path: Path) -> dict[str, int | str]:
    checksum, size, buffer = 0, 0, memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            checksum, size = zlib.crc32(buffer[:count], checksum), size + count
    return {"bytes": size, "crc32": f"{checksum:08x}"}


def sync(path: Path) -> None:
    """Force the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(checkpoint: Path) -> None:
    # Rename to a hidden name first, so that a kill during the deletion leaves no incomplete checkpoint.
    hidden = checkpoint.with_name(f".deleting-{checkpoint.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    if checkpoint.exists():
        checkpoint.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    for pattern in UNFINISHED:
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
