"""One run at a time in a folder, until it ends or is killed."""

import multiprocessing as mp
import os
import signal
import time
from pathlib import Path

import pytest
from accelerate import Accelerator

from rsmclip.core.errors import UserError
from rsmclip.training.config import TrainingConfig
from rsmclip.training.run_folder import check_run_folder, prepare_run_folder
from rsmclip.training.run_lock import HELD, hold, releases

FORK = mp.get_context("fork")  # as the workers of a data loader


def runs(folder: Path, ready) -> None:
    """Begin a run, start a worker that outlives it, and wait to be killed."""
    HELD.clear()
    prepare_run_folder(TrainingConfig(output_dir=str(folder)), Accelerator(cpu=True))
    (folder / "model.safetensors").touch()
    worker = FORK.Process(target=time.sleep, args=(30,))
    worker.start()
    ready.send(worker.pid)
    time.sleep(60)


@pytest.fixture
def living_run(tmp_path):
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=runs, args=(tmp_path / "run", sender))
    process.start()
    worker = receiver.recv() if receiver.poll(60) else pytest.fail("the run did not begin")
    yield process
    process.kill()
    process.join()
    os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("fields", [{}, {"overwrite_output_dir": True}, {"resume_from_checkpoint": "latest"}], ids=str)
def test_a_second_run_in_the_folder_of_a_living_one_is_one_line_and_changes_nothing(living_run, tmp_path, fields):
    config, accelerator = TrainingConfig(output_dir=str(tmp_path / "run"), **fields), Accelerator(cpu=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for begin in (check_run_folder, prepare_run_folder):  # the other run may begin after the check
        with pytest.raises(
            UserError, match=rf"{tmp_path / 'run'} .*process {living_run.pid} on .*--output_dir"
        ) as error:
            begin(config, accelerator)
        assert "\n" not in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_killed_run_has_released_its_folder_although_a_worker_lives(living_run, tmp_path):
    config = TrainingConfig(output_dir=str(tmp_path / "run"), overwrite_output_dir=True)
    living_run.kill()
    living_run.join()
    with releases():
        prepare_run_folder(config, Accelerator(cpu=True))
        assert not (tmp_path / "run" / "model.safetensors").exists()
        assert f"process {os.getpid()} " in (tmp_path / "run" / ".lock").read_text()
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_that_ended_between_check_and_start_is_not_deleted(tmp_path):
    config, accelerator = TrainingConfig(output_dir=str(tmp_path / "run")), Accelerator(cpu=True)
    check_run_folder(config, accelerator)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").touch()  # of the other run
    with releases(), pytest.raises(UserError, match="another run"):
        prepare_run_folder(config, accelerator)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_one_process_trains_twice_and_a_check_creates_nothing(tmp_path):
    hold(tmp_path / "new", create=False)
    assert not (tmp_path / "new").exists() and not HELD
    with releases():
        for _ in range(2):
            hold(tmp_path, create=True)
        assert len(HELD) == 1
    assert not list(tmp_path.iterdir()) and not HELD


def test_a_folder_whose_lock_cannot_be_opened_is_one_line(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "gone" / "file")
    with pytest.raises(UserError, match=str(tmp_path)):
        hold(tmp_path, create=True)
