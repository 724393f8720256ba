"""Checkpoints are complete or absent, the newest are kept, damage is found."""

import errno
import json
import os
import re
import resource
import shutil
import zlib
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from rsmclip.core.errors import UserError
from rsmclip.training import checkpoints as module
from rsmclip.training.checkpoints import (
    candidates,
    checkpoint_step,
    checkpoints,
    damage,
    find_checkpoint,
    load_checkpoint,
    register_states,
    save_checkpoint,
)
from tests.process import make_run, one_of_two


@pytest.fixture
def run():
    return make_run()


@contextmanager
def file_limit(size: int):
    # The system refuses larger files, as on a full disk. Only inside the block, because pytest writes too.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_restores_weights_optimizer_and_random_states(run, tmp_path):
    accelerator, layer, optimizer = run
    weights = {name: value.clone() for name, value in layer.state_dict().items()}
    moments = {name: value.clone() for name, value in optimizer.state_dict()["state"][0].items()}
    path = save_checkpoint(accelerator, tmp_path, step=7, keep=2)
    drawn = torch.rand(5), np.random.rand(5)
    layer(torch.randn(4, 300)).sum().backward()
    optimizer.step()
    assert load_checkpoint(accelerator, path, seed=0) == 7
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in weights.items())
    assert all(torch.equal(value, optimizer.state_dict()["state"][0][name]) for name, value in moments.items())
    assert torch.equal(torch.rand(5), drawn[0]) and np.array_equal(np.random.rand(5), drawn[1])


def test_the_manifest_lists_every_file_with_size_and_checksum(run, tmp_path):
    path = save_checkpoint(run[0], tmp_path, step=7, keep=2)
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["step"], manifest["processes"]) == (7, 1)
    assert {*manifest["files"], "manifest.json"} == {file.name for file in path.iterdir()}
    for name, entry in manifest["files"].items():
        content = (path / name).read_bytes()
        assert entry == {"bytes": len(content), "crc32": f"{zlib.crc32(content):08x}"}


def test_the_newest_are_kept_in_the_order_of_steps(run, tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(run[0], tmp_path, step, keep=2)
    assert [checkpoint_step(path) for path in checkpoints(tmp_path)] == [10, 100]
    assert find_checkpoint(tmp_path, "latest").name == "step-100"
    assert find_checkpoint(tmp_path, str(tmp_path / "step-10")).name == "step-10"
    save_checkpoint(run[0], tmp_path, 12, keep=2)  # the run went back to step 10 and continued
    assert [checkpoint_step(path) for path in checkpoints(tmp_path)] == [10, 12]


def test_the_best_is_kept_beside_the_newest(run, tmp_path):
    for step, best in ((5, None), (10, 5), (15, 5), (20, 5), (25, 20), (30, 20)):
        save_checkpoint(run[0], tmp_path, step, keep=1, best=best)
        assert [checkpoint_step(path) for path in checkpoints(tmp_path)] == sorted({step, best or step})


@pytest.mark.parametrize("moment", ["save_state", "write_manifest", "rename", "rmtree"])
def test_a_kill_inside_a_save_leaves_good_checkpoints_only(run, tmp_path, monkeypatch, moment):
    # An exception that nothing catches stops the save; test_survival.py kills processes.
    for step in (5, 10):
        save_checkpoint(run[0], tmp_path, step, keep=2)

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    place = {"save_state": run[0], "write_manifest": module, "rename": module.Path, "rmtree": module.shutil}[moment]
    monkeypatch.setattr(place, moment, killed)
    if moment == "rmtree":  # called for leftovers first: let it fail on a deletion only
        monkeypatch.setattr(place, moment, lambda path, **_: killed() if path.exists() else None)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(run[0], tmp_path, 15, keep=2)
    monkeypatch.undo()
    assert all(damage(path) is None for path in checkpoints(tmp_path))
    assert find_checkpoint(tmp_path, "latest").name == ("step-15" if moment == "rmtree" else "step-10")
    load_checkpoint(run[0], find_checkpoint(tmp_path, "latest"), seed=0)
    save_checkpoint(run[0], tmp_path, 20, keep=2)
    assert {path.name for path in tmp_path.iterdir()} <= {"step-10", "step-15", "step-20"}


def test_files_are_synced_before_the_folder_is_renamed(run, tmp_path, monkeypatch):
    done, rename, sync = [], module.Path.rename, module.sync

    def record_sync(path):
        done.append(str(path))
        sync(path)

    def record_rename(path, target):
        done.append(f"rename to {target}")
        return rename(path, target)

    monkeypatch.setattr(module, "sync", record_sync)
    monkeypatch.setattr(module.Path, "rename", record_rename)
    path = save_checkpoint(run[0], tmp_path, 5, keep=2)
    aside = tmp_path / ".writing-step-5"
    *files, manifest, folder, renamed, parent = done
    assert set(files) == {str(aside / file.name) for file in path.iterdir()} - {manifest}
    assert [manifest, folder, parent] == [str(aside / "manifest.json"), str(aside), str(tmp_path)]
    assert renamed == f"rename to {path}"


def cut(path):
    with path.open("r+b") as file:
        file.truncate(100)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "model.safetensors is missing": lambda folder: (folder / "model.safetensors").unlink(),
    "optimizer.bin is .*100": lambda folder: cut(folder / "optimizer.bin"),
    "model.safetensors is .*crc32": lambda folder: flip(folder / "model.safetensors"),
    "manifest.json is missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json": lambda folder: cut(folder / "manifest.json"),
    "manifest.json ": lambda folder: (folder / "manifest.json").write_text('{"step": 10}'),
    "manifest.json has 'a": lambda folder: (folder / "manifest.json").write_text(
        '{"step": 10, "processes": 1, "files": {"a\\u0000b": {}}}'
    ),
    "step-5": lambda folder: shutil.rmtree(folder) or shutil.copytree(folder.with_name("step-5"), folder),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(run, tmp_path, capsys, what):
    for step in (5, 10):
        save_checkpoint(run[0], tmp_path, step, keep=2)
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "step-10" and capsys.readouterr().out == ""
    DAMAGES[what](tmp_path / "step-10")
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "step-5"
    (line,) = capsys.readouterr().out.splitlines()
    named = f"{tmp_path / 'step-10'} is damaged: .*{what}"
    assert re.match(f"{named}.*step-5", line)
    with pytest.raises(UserError, match=named):
        find_checkpoint(tmp_path, str(tmp_path / "step-10"))


def test_without_a_good_checkpoint_all_damages_are_named(run, tmp_path):
    for step in (5, 10):
        save_checkpoint(run[0], tmp_path, step, keep=2)
        flip(tmp_path / f"step-{step}" / "optimizer.bin")
    with pytest.raises(UserError, match="step-10 .*optimizer.bin .*step-5 .*optimizer.bin"):
        find_checkpoint(tmp_path, "latest")


class Counter:
    """A part of a run that is not a module."""

    count = 3

    def state_dict(self) -> dict:
        return {"count": self.count}

    def load_state_dict(self, state: dict) -> None:
        self.count = state["count"]


def test_parts_of_a_run_are_stored_as_safetensors_and_json_and_restored(run, tmp_path):
    teacher, stream = torch.nn.Linear(3, 2), Counter()
    register_states(run[0], teacher=teacher, centering=None, stream=stream)
    path = save_checkpoint(run[0], tmp_path, 7, keep=2)
    stored = load_file(path / "teacher.safetensors")
    assert all(stored[name].equal(value) for name, value in teacher.state_dict().items())
    assert json.loads((path / "stream.json").read_text()) == {"count": 3}
    assert not list(path.glob("custom_checkpoint_*")) and not (path / "centering.safetensors").exists()
    with torch.no_grad():
        teacher.weight.zero_()
    stream.count = 0
    load_checkpoint(run[0], path, seed=0)
    assert teacher.weight.equal(stored["weight"]) and stream.count == 3
    for name, content in (("teacher.safetensors", b"{}"), ("stream.json", b"{")):
        before = (path / name).read_bytes()
        (path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_checkpoint(run[0], path, seed=0)
        (path / name).write_bytes(before)
    (path / "teacher.safetensors").unlink()
    with pytest.raises(UserError, match="teacher.safetensors"):
        load_checkpoint(run[0], path, seed=0)


class Exploit:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["optimizer.bin", "scheduler.bin", "random_states_0.pkl", "pytorch_model.bin"])
def test_a_checkpoint_with_code_is_refused_and_its_code_is_not_run(run, tmp_path, name, zipped):
    accelerator, _, optimizer = run
    accelerator.prepare(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))
    path = save_checkpoint(accelerator, tmp_path, 7, keep=2)
    if name == "pytorch_model.bin":  # accelerate reads it if there is no model.safetensors
        (path / "model.safetensors").unlink()
    torch.save({"step": Exploit(tmp_path / "run")}, path / name, _use_new_zipfile_serialization=zipped)
    (path / "manifest.json").unlink()
    module.write_manifest(path, 7, 1)
    with pytest.raises(UserError, match="step-7 .*could run code"):
        load_checkpoint(accelerator, find_checkpoint(tmp_path, "latest"), seed=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["sampler.bin", "dl_state_dict.bin", "scaler.pt"])
def test_files_that_a_run_does_not_have_are_not_read(run, tmp_path, name):
    path = save_checkpoint(run[0], tmp_path, 7, keep=2)
    torch.save(Exploit(tmp_path / "run"), path / name)
    assert load_checkpoint(run[0], find_checkpoint(tmp_path, "latest"), seed=0) == 7
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_an_earlier_version_is_named_and_its_pickles_are_not_read(run, tmp_path):
    for step in (5, 10):
        path = save_checkpoint(run[0], tmp_path, step, keep=2)
    torch.save(Exploit(tmp_path / "run"), path / "custom_checkpoint_0.pkl")
    for wanted in ("latest", str(path)):  # the checkpoint before is not taken instead
        with pytest.raises(UserError, match="step-10/custom_checkpoint_0.pkl .*--model"):
            find_checkpoint(tmp_path, wanted)
    assert not (tmp_path / "run").exists()


def test_nothing_to_resume_from_is_an_error(tmp_path):
    for search in (find_checkpoint, candidates):
        with pytest.raises(UserError, match=str(tmp_path)):
            search(tmp_path, "latest")
        with pytest.raises(UserError, match="step-3"):
            search(tmp_path, "step-3")


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (1_000, "File too large"),  # safetensors fails at the model, in an exception of its own
        (300_000, "torch.save"),  # the model passes, and torch fails at the optimizer
    ],
)
def test_a_full_disk_is_one_clear_error_and_earlier_checkpoints_stay(run, tmp_path, limit, reason):
    save_checkpoint(run[0], tmp_path, 5, keep=1)
    with pytest.raises(UserError, match=f"step-10 .*{reason}") as error, file_limit(limit):
        save_checkpoint(run[0], tmp_path, 10, keep=1)
    assert str(tmp_path / "step-5") in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-5"] and damage(tmp_path / "step-5") is None


def test_an_error_of_the_system_is_named_and_a_bug_is_not_converted(run, tmp_path, monkeypatch):
    for raised, expected in (
        (OSError(errno.ENOSPC, "No space left"), UserError),
        (RuntimeError("ours"), RuntimeError),
    ):
        monkeypatch.setattr(module, "sync", Mock(side_effect=raised))
        with pytest.raises(expected, match="No space left|ours"):
            save_checkpoint(run[0], tmp_path, 10, keep=1)
        assert not checkpoints(tmp_path)


def test_a_process_that_cannot_write_does_not_leave_the_other_waiting(tmp_path):
    mp.spawn(one_of_two, (tmp_path,), nprocs=2)
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert said[0] == said[1] and "step-10" in said[0] and "torch.save" in said[0]
    (good,) = (tmp_path / "checkpoints").iterdir()
    assert good.name == "step-5" and damage(good) is None
    assert json.loads((good / "manifest.json").read_text())["processes"] == 2
    assert {"random_states_0.pkl", "random_states_1.pkl"} <= {path.name for path in good.iterdir()}


def test_with_another_number_of_processes_random_states_start_anew_from_seed_and_step(run, tmp_path, capsys):
    path = save_checkpoint(run[0], tmp_path, 5, keep=2)
    stored = torch.rand(3)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"processes": 4}))
    drawn = []
    for seed in (0, 0, 1):
        load_checkpoint(run[0], path, seed)
        drawn.append(torch.rand(3))
    assert re.search("step-5 .* 4 .* 1", capsys.readouterr().out)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], stored)
