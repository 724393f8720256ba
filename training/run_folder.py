"""The folder of a run, which becomes a model repository: check it, clear it, and write the settings.

A `.gitignore` keeps `checkpoints/`, `trackers/` and the picture of a dry run out of a git repository.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

from accelerate import Accelerator

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import published_name, read_json, write_whole
from rsmclip.models.folder import LOCK, PICTURE, PRIVATE, PUBLISHED, is_model_folder
from rsmclip.training.checkpoints import candidates, find_checkpoint_once
from rsmclip.training.command_line import read_yaml
from rsmclip.training.config import SOURCES, VALIDATION, TrainingConfig
from rsmclip.training.processes import once
from rsmclip.training.run_lock import hold

START = "checkpoints/start_metrics.json"  # of the model before training


def check_run_folder(config: TrainingConfig, accelerator: Accelerator) -> None:
    """
    Check that the run may use its `output_dir`. No file of the folder is changed or deleted, except its lock.

    Raises:
        [`UserError`]: The folder has a run that has not ended, another run or foreign files, or the resumed run has
            other settings.
    """
    once(accelerator, lambda: hold(Path(config.output_dir), create=False))
    check_content(config)


def check_content(config: TrainingConfig) -> None:
    folder = Path(config.output_dir)
    if not folder.resolve().name:
        raise UserError(f"output_dir {folder} is the root of the file system, not a folder of a run")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir {folder} is a file, not a folder")
    if config.resume_from_checkpoint:
        check_same_run(config, folder)
        return
    if not is_model_folder(folder) and not (folder / "checkpoints").is_dir():
        if foreign := next(written_paths(folder), None):
            raise UserError(
                f"the run would replace {foreign} in a folder of no earlier run; choose another --output_dir"
            )
        return
    if not config.overwrite_output_dir:
        raise UserError(
            f"{folder} has the model of another run; give --overwrite_output_dir to delete it, "
            "--resume_from_checkpoint latest to continue it, or another --output_dir"
        )
    for name in SOURCES:
        source = Path(getattr(config, name) or "")
        if getattr(config, name) and source.exists() and source.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--overwrite_output_dir would delete the {name} of this run: {source}")


def check_same_run(config: TrainingConfig, folder: Path) -> None:
    checkpoint = candidates(folder / "checkpoints", config.resume_from_checkpoint)[0]
    if checkpoint.resolve().parent != (folder / "checkpoints").resolve():
        raise UserError(f"{checkpoint} is not in {folder / 'checkpoints'}: give the --output_dir of its run")
    # The file has whole numbers of steps. Epochs and shares can be compared when the training rows are known.
    started = TrainingConfig(**read_yaml(folder / "checkpoints" / "training_config.yaml"))
    for spec in fields(TrainingConfig):
        before, now = getattr(started, spec.name), getattr(config, spec.name)
        unknown = now is None if spec.name == "max_train_steps" else spec.metadata["steps"] and 0 < now < 1
        may_change = spec.metadata["may_change"] and not (config.best_figure and spec.name in VALIDATION)
        if before != now and not unknown and not may_change:
            raise UserError(
                f"the run in {folder} was started with {spec.name} {before!r}, not {now!r}, and a resumed run cannot "
                "change it. To train its model differently, give this folder as --model and another --output_dir"
            )


def with_checkpoint(config: TrainingConfig, accelerator: Accelerator) -> TrainingConfig:
    """
    Return the configuration with the folder of the checkpoint to resume from, if any, in place of `latest`.

    Raises:
        [`UserError`]: The resumed run has another number of steps or other settings, or there is no checkpoint.
    """
    if not config.resume_from_checkpoint:
        return config
    check_same_run(config, Path(config.output_dir))
    folder = Path(config.output_dir) / "checkpoints"
    checkpoint = find_checkpoint_once(accelerator, folder, config.resume_from_checkpoint)
    return replace(config, resume_from_checkpoint=str(checkpoint))


def written_paths(folder: Path) -> Iterator[Path]:
    return (path for pattern in (*PRIVATE, *PUBLISHED, ".gitignore") for path in folder.glob(pattern))


def prepare_run_folder(config: TrainingConfig, accelerator: Accelerator) -> None:
    """
    Create the folder that [`check_run_folder`] has checked, and save the settings.

    A new run deletes the files of an earlier run. `checkpoints/training_config.yaml` has the settings of the run, and
    `training_config.yaml` has the settings for publication.

    Raises:
        [`UserError`]: The folder cannot be written.
    """

    def prepare() -> None:
        folder = Path(config.output_dir)
        with user_errors(OSError, prefix=f"output_dir {folder} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
            hold(folder, create=True)
            check_content(config)  # again: another run may have begun and ended since the first check
            write_settings(config, folder)

    accelerator.wait_for_everyone()  # all processes must have checked the folder before it changes
    once(accelerator, prepare)


def write_settings(config: TrainingConfig, folder: Path) -> None:
    published = published_config(config)  # before anything changes: it can refuse a setting
    if not config.resume_from_checkpoint:
        for path in written_paths(folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (folder / "checkpoints").mkdir(parents=True)
        config.save(folder / "checkpoints" / "training_config.yaml")
    (folder / ".gitignore").write_text("".join(f"{name}/\n" for name in PRIVATE) + f"{PICTURE}\n{LOCK}\n")
    published.save(folder / "training_config.yaml")


def stored_start(config: TrainingConfig, accelerator: Accelerator) -> dict | None:
    """Return the metrics of the model before training that [`store_start`] wrote for this test split, or `None`."""

    def read() -> dict | None:
        path = Path(config.output_dir) / START
        stored = read_json(path) if path.is_file() else {}
        return stored["metrics"] if stored.get("settings") == evaluated_settings(config) else None

    return once(accelerator, read)


def store_start(config: TrainingConfig, metrics: dict) -> None:
    """Store the metrics of the model before training, for a resumed run. Rank 0 calls it."""
    stored = {"settings": evaluated_settings(config), "metrics": metrics}
    write_whole(Path(config.output_dir) / START, json.dumps(stored, ensure_ascii=False))


def evaluated_settings(config: TrainingConfig) -> dict:
    return {name: getattr(config, name) for name in ("test_split", "evaluated_languages", "benchmarks")}


def published_config(config: TrainingConfig) -> TrainingConfig:
    """Return the settings for publication: local paths are reduced to their last part, and nothing is pushed."""
    values = asdict(config) | {"overwrite_output_dir": False, "resume_from_checkpoint": None, "push_to_hub": False}
    for name in (*SOURCES, "output_dir"):
        values[name] = published_name(values[name])
    entries = [entry.partition("=") for entry in config.benchmarks]
    values["benchmarks"] = [f"{name}={published_name(folder)}" if sign else name for name, sign, folder in entries]
    return TrainingConfig(**values)
