"""The folder of a run: files that may be overwritten, runs that may continue, and published settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator

from rsmclip.training.command_line import parse_config
from rsmclip.training.config import TrainingConfig
from rsmclip.training.run_folder import (
    check_run_folder,
    prepare_run_folder,
    published_config,
    store_start,
    stored_start,
    with_checkpoint,
    write_settings,
)


def check(config: TrainingConfig) -> None:
    check_run_folder(config, Accelerator(cpu=True))


@pytest.fixture
def folder(tmp_path):
    """The folder of a run with a checkpoint, a model and a file that the run did not write."""
    folder = tmp_path / "run"
    prepare_run_folder(TrainingConfig(output_dir=str(folder)), Accelerator(cpu=True))
    (folder / "checkpoints" / "step-4").mkdir()
    for name in ("config.json", "model.safetensors", "thesis.txt"):
        (folder / name).write_text(name)
    return folder


def test_another_runs_model_is_refused(folder):
    with pytest.raises(ValueError, match="overwrite_output_dir.*resume_from_checkpoint"):
        check(TrainingConfig(output_dir=str(folder)))
    assert (folder / "model.safetensors").exists()


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(folder):
    config = TrainingConfig(output_dir=str(folder), overwrite_output_dir=True, seed=3)
    check(config)
    assert (folder / "model.safetensors").exists()  # a check deletes nothing
    prepare_run_folder(config, Accelerator(cpu=True))
    left = sorted(path.name for path in folder.iterdir())
    assert left == [".gitignore", ".lock", "checkpoints", "thesis.txt", "training_config.yaml"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["training_config.yaml"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_no_run_wrote_are_not_replaced(tmp_path, overwrite):
    (tmp_path / "README.md").write_text("of another project")
    with pytest.raises(ValueError, match="README.md.*output_dir"):
        check(TrainingConfig(output_dir=str(tmp_path), overwrite_output_dir=overwrite))


@pytest.mark.parametrize("name", ["model", "tokenizer", "dataset"])
def test_folders_that_the_run_reads_are_not_deleted(folder, name):
    config = TrainingConfig(output_dir=str(folder), overwrite_output_dir=True, **{name: str(folder)})
    with pytest.raises(ValueError, match=f"overwrite_output_dir.*{name}"):
        check(config)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="output_dir.*file"):
        check(TrainingConfig(output_dir=str(tmp_path / "file")))


def test_the_root_is_no_folder_of_a_run(monkeypatch):
    config = TrainingConfig(output_dir="/", overwrite_output_dir=True)
    with pytest.raises(ValueError, match="output_dir /"):
        check(config)
    with pytest.raises(ValueError, match="output_dir"):
        monkeypatch.setattr("pathlib.Path.mkdir", lambda *arguments, **options: pytest.fail("it writes"))
        write_settings(config, Path("/"))


def test_a_run_continues_with_its_own_settings(folder, tmp_path):
    def resumed(**changed):
        check(TrainingConfig(output_dir=str(folder), **({"resume_from_checkpoint": "latest"} | changed)))

    resumed(num_workers=0, logging_steps=3)
    with pytest.raises(ValueError, match="learning_rate 0.0001, not 0.5"):
        resumed(learning_rate=0.5)
    with pytest.raises(ValueError, match="other/step-4"):
        (tmp_path / "other" / "step-4").mkdir(parents=True)
        resumed(resume_from_checkpoint=str(tmp_path / "other" / "step-4"))


def test_a_run_that_a_figure_chooses_from_continues_with_what_it_is_measured_on(tmp_path):
    fields = {"output_dir": str(tmp_path / "run"), "best_figure": "mean_recall"}
    prepare_run_folder(TrainingConfig(**fields), Accelerator(cpu=True))
    (tmp_path / "run" / "checkpoints" / "step-4").mkdir()
    fields["resume_from_checkpoint"] = "latest"
    check(TrainingConfig(**fields, test_split="dev"))
    for changed in ({"validation_split": "dev"}, {"evaluation_languages": ["en"]}, {"benchmarks": ["rsicd"]}):
        with pytest.raises(ValueError, match=next(iter(changed))):
            check(TrainingConfig(**fields, **changed))


def test_a_run_of_epochs_continues_with_epochs_or_with_as_many_steps(tmp_path):
    def config(**changed):
        fields = {"max_train_steps": None, "num_train_epochs": 2, "warmup_steps": 0.1, "batch_size": 10}
        return TrainingConfig(output_dir=str(tmp_path / "run"), **fields | changed)

    accelerator = Accelerator(cpu=True)
    prepare_run_folder(config().with_whole_steps(300), accelerator)
    saved = yaml.safe_load((tmp_path / "run" / "training_config.yaml").read_text())
    assert (saved["num_train_epochs"], saved["max_train_steps"], saved["warmup_steps"]) == (None, 60, 6)

    checkpoint = tmp_path / "run" / "checkpoints" / "step-4"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text('{"step": 4, "processes": 1, "files": {}}')

    def resume(**changed):
        given = config(resume_from_checkpoint="latest", **changed)
        check(given)
        return with_checkpoint(given.with_whole_steps(300), accelerator)

    assert resume().resume_from_checkpoint == str(checkpoint)
    resume(num_train_epochs=None, max_train_steps=60, warmup_steps=6)
    with pytest.raises(ValueError, match="max_train_steps 60, not 90"):
        resume(num_train_epochs=3)
    with pytest.raises(ValueError, match="warmup_steps 6, not 12"):
        resume(warmup_steps=0.2)


def test_published_settings_name_no_place_on_this_machine_and_start_a_new_run(folder, tmp_path):
    config = TrainingConfig(
        dataset=str(folder), output_dir=str(tmp_path / "new"), tokenizer="org/tokenizer", overwrite_output_dir=True
    )
    published = published_config(config)
    assert (published.dataset, published.output_dir, published.tokenizer) == ("run", "new", "org/tokenizer")
    prepare_run_folder(config, Accelerator(cpu=True))
    text = (tmp_path / "new" / "training_config.yaml").read_text()
    assert str(tmp_path) not in text and yaml.safe_load(text)["overwrite_output_dir"] is False
    assert parse_config(["--config", str(tmp_path / "new" / "training_config.yaml")]) == published
    assert (tmp_path / "new" / ".gitignore").read_text().split() == [
        "checkpoints/",
        "trackers/",
        "dry_run.png",
        ".lock",
    ]


def test_published_benchmarks_have_no_local_path(tmp_path):
    (tmp_path / "images").mkdir()
    config = TrainingConfig(benchmarks=["rsicd", f"aid={tmp_path / 'images'}"])
    assert published_config(config).benchmarks == ["rsicd", "aid=images"]


def test_metrics_before_training_are_read_again_for_what_they_were_measured_on_only(folder):
    config, accelerator = TrainingConfig(output_dir=str(folder)), Accelerator(cpu=True)
    assert stored_start(config, accelerator) is None
    metrics = {"corpus": {"en": {"mean_recall": 1.5}}}
    store_start(config, metrics)
    assert stored_start(config, accelerator) == metrics
    assert stored_start(replace(config, test_split="val"), accelerator) is None
    assert stored_start(replace(config, benchmarks=["rsicd"]), accelerator) is None
    prepare_run_folder(replace(config, overwrite_output_dir=True), accelerator)
    assert stored_start(config, accelerator) is None  # of another run
