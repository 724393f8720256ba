"""The folder of a run, in the end a model repository: who may write there, and what the run's settings were.

`checkpoints/`, `trackers/` and a dry run's picture belong to the run alone, and a `.gitignore` keeps them out of an
upload; everything beside them is the repository.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

from accelerate import Accelerator

from rsmclip.core.files import published_name
from rsmclip.models.folder import PICTURE, PRIVATE, PUBLISHED, is_model_folder
from rsmclip.training.checkpoints import candidates
from rsmclip.training.config import TrainingConfig, read_yaml

# A continued run may differ from its start in these; any other change would make it a different run.
MAY_CHANGE = {
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "num_workers", "cpu_threads"),
    *("evaluation_steps", "evaluation_batch_size", "checkpoint_steps", "keep_checkpoints"),
    "keep_self_distillation_head",
    *("logging_steps", "log_with", "validation_split", "test_split", "benchmark", "max_skipped_steps", "dry_run"),
    *("push_to_hub", "hub_model_id", "hub_private", "hub_strategy", "run_card_examples"),
    *("loss_chunk_size", "gradient_accumulation_chunks", "merge_adapter"),  # the same up to rounding
}


def check_run_folder(config: TrainingConfig) -> None:
    """
    Raises `ValueError` unless the run may use its `output_dir`. Nothing is written or deleted.

    Args:
        config ([`TrainingConfig`]): The run.
    """
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir {folder} is a file, not a folder")
    if config.resume_from_checkpoint:
        check_same_run(config, folder)
        return
    if not is_used(folder):
        if foreign := next(written_paths(folder), None):
            raise ValueError(f"the run would replace {foreign}, which is no run's; choose another --output_dir")
        return
    if not config.overwrite_output_dir:
        raise ValueError(
            f"{folder} holds another run's model; give --overwrite_output_dir to delete it, "
            "--resume_from_checkpoint latest to continue it, or another --output_dir"
        )
    for name in ("model", "tokenizer", "dataset"):
        source = Path(getattr(config, name) or "")
        if getattr(config, name) and source.exists() and source.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"--overwrite_output_dir would delete the {name} that the run reads from {source}")


def check_same_run(config: TrainingConfig, folder: Path) -> None:
    """A run continues in its own folder, with the settings it was started with."""
    checkpoint = candidates(folder / "checkpoints", config.resume_from_checkpoint)[0]
    if checkpoint.resolve().parent != (folder / "checkpoints").resolve():
        raise ValueError(f"{checkpoint} is no checkpoint of the run in {folder}: give that run's --output_dir")
    started = TrainingConfig(**read_yaml(folder / "checkpoints" / "training_config.yaml"))
    for spec in fields(TrainingConfig):
        before, now = getattr(started, spec.name), getattr(config, spec.name)
        if spec.name not in MAY_CHANGE and before != now:
            raise ValueError(
                f"the run in {folder} was started with {spec.name} {before!r}, not {now!r}; it continues as it was "
                "started. To train its model in another way, give its folder as --model and another --output_dir"
            )


def is_used(folder: Path) -> bool:
    """Whether a folder holds a model or an unfinished run."""
    return is_model_folder(folder) or (folder / "checkpoints").is_dir()


def written_paths(folder: Path) -> Iterator[Path]:
    """What is in a folder under the names that a run writes."""
    return (path for pattern in (*PRIVATE, *PUBLISHED, ".gitignore") for path in folder.glob(pattern))


def prepare_run_folder(config: TrainingConfig, accelerator: Accelerator) -> None:
    """
    Makes the folder, deletes what an earlier run wrote there unless the run continues, and saves the settings: with
    the checkpoints as they are, beside the model as others can use them.

    Args:
        config ([`TrainingConfig`]): The run, which [`check_run_folder`] allows.
        accelerator (`Accelerator`): Its processes; only the main one writes.
    """
    accelerator.wait_for_everyone()  # every process has checked the folder as it was
    if accelerator.is_main_process:
        folder = Path(config.output_dir)
        if not config.resume_from_checkpoint:
            for path in written_paths(folder):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            (folder / "checkpoints").mkdir(parents=True)
            config.save(folder / "checkpoints" / "training_config.yaml")
        (folder / ".gitignore").write_text("".join(f"{name}/\n" for name in PRIVATE) + f"{PICTURE}\n")
        published_config(config).save(folder / "training_config.yaml")
    accelerator.wait_for_everyone()


def published_config(config: TrainingConfig) -> TrainingConfig:
    """The settings without what only this run has: of local folders the last name remains, and nothing is pushed."""
    values = asdict(config) | {"overwrite_output_dir": False, "resume_from_checkpoint": None, "push_to_hub": False}
    for name in ("dataset", "model", "tokenizer", "output_dir"):
        values[name] = published_name(values[name])
    return TrainingConfig(**values)
