"""Uploads of a training run, during the run and at its end, against a server on loopback."""

import json
import re
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from rsmclip import train
from rsmclip.core.errors import UserError
from rsmclip.hub.push import push_model
from rsmclip.hub.run_upload import RunUpload
from rsmclip.models.folder import save_model_folder
from rsmclip.training.config import TrainingConfig
from tests.conftest import TINY_RUN
from tests.hub_server import Fault, HubServer, use_hub

MODEL = "user/run"
LORA = {"r": 2, "target_modules": r".*\.(q_proj|v_proj)"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(root=tmp_path / "hub") as server:
        use_hub(monkeypatch, server.endpoint)
        yield server


@pytest.fixture
def config(corpus_folder, tmp_path):
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)

    def make(**fields) -> TrainingConfig:
        steps = {"max_train_steps": 3, "checkpoint_steps": 1, "keep_checkpoints": 9, "num_workers": 0}
        folders = {"dataset": str(corpus_folder), "output_dir": str(tmp_path / "run")}
        pushed = {"push_to_hub": True, "hub_model_id": MODEL}
        return TrainingConfig(**TINY_RUN | steps | folders | pushed | fields)

    yield make
    torch.set_num_threads(threads)


def names(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != "checkpoints"}


def test_by_default_the_finished_folder_is_pushed_once(hub, config, tmp_path):
    train.train(config(hub_private=True))
    assert [commit.revision for commit in hub.commits] == ["main"] and hub.private == {MODEL}
    assert hub.commits[0].added == sorted(names(tmp_path / "run") - {".gitignore"})
    assert {"README.md", "eval_results.json", "model.safetensors"} <= set(hub.commits[0].added)


def test_every_save_pushes_each_checkpoints_model_to_main_and_a_resumed_run_goes_on(hub, config, tmp_path):
    train.train(config(hub_strategy="every_save"))
    assert [commit.summary for commit in hub.commits] == ["Model after 1 steps", "Model after 2 steps", "Upload model"]
    assert "README.md" not in hub.commits[0].added and "README.md" in hub.commits[-1].added
    for step, commit in enumerate(hub.commits, 1):
        pushed = load_file(hub.revisions[MODEL][commit.sha] / "model.safetensors")
        saved = load_file(tmp_path / "run" / "checkpoints" / f"step-{step}" / "model.safetensors")
        assert len(pushed) > 50 and all(weight.equal(saved[f"model.{name}"]) for name, weight in pushed.items())
    resumed = config(resume_from_checkpoint=str(tmp_path / "run" / "checkpoints" / "step-1"))
    train.train(resumed)  # the strategy may change
    assert hub.commits[-1].summary == "Upload model" and len(hub.commits) == 4
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_checkpoint_that_cannot_be_pushed_is_a_warning_and_the_run_goes_on(hub, config, capsys):
    hub.faults.append(Fault("POST .*/commit/checkpoint-2", 403))
    train.train(config(hub_strategy="checkpoint"))
    assert {ref for ref in hub.revisions[MODEL] if "checkpoint" in ref} == {f"checkpoint-{step}" for step in (1, 2, 3)}
    assert [commit.revision for commit in hub.commits] == ["checkpoint-1", "checkpoint-3", "main"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: the model")]
    assert len(warnings) == 1 and "step 2 " in warnings[0] and "403 Forbidden" in warnings[0]


def test_a_model_that_cannot_be_saved_is_a_warning(hub, tmp_path, capsys):
    upload = RunUpload(tmp_path / "run", MODEL, Accelerator(cpu=True), strategy="checkpoint")

    def on_a_full_disk(folder: Path) -> None:
        folder.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    upload.checkpoint(1, on_a_full_disk, is_last=False)
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and "step 1 " in said and "No space left" in said
    assert not upload.snapshot(1).exists()


def test_training_does_not_wait_for_uploads_and_only_the_newest_waiting_model_is_pushed(
    hub, config, tiny_model, tiny_processor, tmp_path, capsys
):
    upload = RunUpload(tmp_path / "run", MODEL, Accelerator(cpu=True), strategy="every_save")
    snapshots = []

    def save(folder: Path) -> None:
        save_model_folder(tiny_model, tiny_processor, folder)
        snapshots.append(folder)

    with hub.lock:  # the server answers nothing
        began = time.perf_counter()
        upload.checkpoint(1, save, is_last=False)
        while not upload.waiting.empty():
            time.sleep(0.01)
        for step in (2, 3, 4):
            tiny_model.logit_scale.data.fill_(step)
            upload.checkpoint(step, save, is_last=False)
        assert time.perf_counter() - began < 5 and not hub.commits
    upload.waiting.put(None)
    upload.thread.join()
    assert [commit.summary for commit in hub.commits] == ["Model after 1 steps", "Model after 4 steps"]
    assert load_file(hub.repositories[MODEL] / "model.safetensors")["logit_scale"] == 4
    said = capsys.readouterr().err
    assert re.search("step 2 .*step 3 ", said) and re.search("step 3 .*step 4 ", said)
    assert len(snapshots) == 4 and not any(folder.exists() for folder in snapshots)


def test_a_run_that_may_not_push_ends_before_it_trains(hub, config, tmp_path):
    hub.faults.append(Fault("POST .*/preupload/", 403))
    with pytest.raises(UserError, match="user/run .*403 Forbidden"):
        train.train(config())
    assert not (tmp_path / "run").exists()


def test_a_last_push_that_fails_leaves_the_folder_and_says_how_to_push_it_later(hub, config, tmp_path):
    hub.faults.append(Fault("POST .*/commit/main", 403))
    folder = tmp_path / "run"
    later = f"rsmclip hub push {folder} user/run --private"
    with pytest.raises(UserError, match=f"{folder}.* user/run ") as raised:
        train.train(config(hub_private=True))
    assert str(raised.value).endswith(later)
    hub.faults.clear()
    push_model(folder, MODEL)
    assert hub.commits[0].added == sorted(names(folder) - {".gitignore"})


def test_an_adapter_is_pushed_merged_at_every_checkpoint_and_trains_as_if_it_were_not(hub, config, tmp_path):
    adapter = {"lora": LORA, "merge_adapter": True, "hub_strategy": "checkpoint"}
    train.train(config(**adapter))
    AcceleratorState._reset_state(True)
    train.train(config(**adapter, push_to_hub=False, output_dir=str(tmp_path / "alone")))
    logs = [(tmp_path / name / "train_log.jsonl").read_text().splitlines() for name in ("run", "alone")]
    losses = [[json.loads(line).get("loss") for line in log] for log in logs]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    branch = load_file(hub.revisions[MODEL]["checkpoint-3"] / "model.safetensors")
    main = load_file(tmp_path / "run" / "model.safetensors")
    assert branch.keys() == main.keys() and all(branch[name].equal(main[name]) for name in main)
    assert not any("lora" in name for name in branch)


def test_an_adapter_to_a_model_that_others_do_not_have_is_refused(hub, config):
    with pytest.raises(ValueError, match="adapter"):
        train.plan(config(lora=LORA))
    assert not hub.requests
