"""Checkpoints: complete or absent, the newest kept."""

import pytest
import torch
from accelerate import Accelerator

from rsmclip.training.checkpoints import checkpoint_step, checkpoints, find_checkpoint, save_checkpoint


@pytest.fixture
def run():
    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    return accelerator, *accelerator.prepare(layer, optimizer)


def test_a_checkpoint_restores_weights_and_optimiser(run, tmp_path):
    accelerator, layer, optimizer = run
    layer(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    saved = {name: value.clone() for name, value in layer.state_dict().items()}
    path = save_checkpoint(accelerator, tmp_path, step=7, keep=2)
    with torch.no_grad():
        layer.weight.zero_()
    accelerator.load_state(str(path))
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in saved.items())


def test_the_newest_are_kept_in_the_order_of_steps(run, tmp_path):
    for step in (5, 10, 100):
        save_checkpoint(run[0], tmp_path, step, keep=2)
    assert [checkpoint_step(path) for path in checkpoints(tmp_path)] == [10, 100]
    assert find_checkpoint(tmp_path, "latest").name == "step-100"
    assert find_checkpoint(tmp_path, str(tmp_path / "step-10")).name == "step-10"


def test_checkpoints_of_a_course_that_was_given_up_go(run, tmp_path):
    for step in (5, 10, 15):
        save_checkpoint(run[0], tmp_path, step, keep=3)
    save_checkpoint(run[0], tmp_path, 8, keep=2)  # the run went back to step 5 and on from there
    assert [checkpoint_step(path) for path in checkpoints(tmp_path)] == [5, 8]


def test_a_half_written_checkpoint_is_never_found(run, tmp_path, monkeypatch):
    save_checkpoint(run[0], tmp_path, 5, keep=2)
    save = run[0].save_state

    def interrupted(folder):
        save(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(run[0], "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(run[0], tmp_path, 10, keep=2)
    assert find_checkpoint(tmp_path, "latest").name == "step-5"
    monkeypatch.undo()
    save_checkpoint(run[0], tmp_path, 10, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-5"]


def test_nothing_to_resume_from_is_said(tmp_path):
    with pytest.raises(ValueError, match="nothing to resume from: no checkpoint in"):
        find_checkpoint(tmp_path, "latest")
    with pytest.raises(ValueError, match="no checkpoint at"):
        find_checkpoint(tmp_path, "step-3")
