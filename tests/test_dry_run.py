"""A dry run: its output, the picture of the first batch, and no change of other files."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from rsmclip import outcome, train
from rsmclip.core.languages import LANGUAGES
from rsmclip.training.batch_picture import CELL, DOTS, GAP, HEAD, draw_batch, drawn_captions
from rsmclip.training.checkpoints import save_checkpoint
from rsmclip.training.config import TrainingConfig
from rsmclip.training.dry_run import (
    describe_data,
    describe_disk,
    describe_model,
    describe_schedule,
    repeated_sentences,
    shared_sentences,
    sizes_on_disk,
)
from rsmclip.training.run_folder import check_run_folder
from tests.conftest import TINY, TINY_RUN


@pytest.fixture
def config(corpus_folder, tmp_path):
    """A dry run of the tiny model on the tiny corpus."""
    AcceleratorState._reset_state(True)
    threads = torch.get_num_threads()
    folders = {"dataset": str(corpus_folder), "output_dir": str(tmp_path / "run")}
    fields = {"num_local_views": 3, "max_train_steps": 12, "warmup_steps": 4, "num_workers": 0, "dry_run": True}
    yield TrainingConfig(**TINY_RUN | folders | fields)
    torch.set_num_threads(threads)


def test_it_prints_what_the_run_would_be_and_writes_the_picture_alone(config, tmp_path, capsys):
    assert train.train(config) is None
    printed = capsys.readouterr().out
    schedule = r"12 steps, 2\.4 epochs of 5 steps"
    for expected in (r"train +60", r"validation +18", schedule, r"disk: .* free", "dry_run.png"):
        assert re.search(expected, printed), expected
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dry_run.png"]
    with Image.open(tmp_path / "run" / "dry_run.png") as image:
        assert image.height == pytest.approx((HEAD + 6 * (CELL + 2 * GAP)) * DOTS, abs=1)
        assert np.asarray(image.convert("L")).std() > 20


def test_a_run_that_ends_in_its_warm_up_shows_no_step_after_it(config, capsys):
    train.train(replace(config, max_train_steps=4, warmup_steps=8))
    (header,) = (line for line in capsys.readouterr().out.splitlines() if "first step" in line)
    assert header.split() == ["first", "step", "last", "step"]


def test_it_can_be_repeated_and_the_run_can_follow(config):
    train.train(config)
    train.train(config)
    check_run_folder(replace(config, dry_run=False), Accelerator(cpu=True))


def test_another_runs_folder_is_left_alone(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="overwrite_output_dir"):
        train.train(config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_its_first_batch_is_the_runs(config):
    dry, real = (
        train.make_batches(start(config), 0)
        for start in (train.plan, lambda c: train.start(train.plan(replace(c, dry_run=False))))
    )
    dry, real = next(dry), next(real)
    assert dry["image_ids"] == real["image_ids"] and dry["captions"] == real["captions"]
    assert torch.equal(dry["pixels"], real["pixels"]) and torch.equal(dry["input_ids"], real["input_ids"])


def test_the_picture_shows_the_batchs_boxes_views_and_captions(config):
    run = train.plan(config)
    batch = next(train.make_batches(run, 0))
    captions = drawn_captions(batch, run.splits["train"], config.languages)
    for number, texts in enumerate(captions):
        assert [text for _, text in texts] == [texts[number] for texts in batch["captions"]]
    figure = draw_batch(batch, run.view_specs, captions, "title")
    views = 2 + 3
    assert len(figure.axes) == 6 * (1 + views)
    for row in range(6):
        image, *panels = figure.axes[row * (1 + views) :][: 1 + views]
        boxes = torch.cat([batch["views"][name]["box"][row] for name in ("global", "local")])
        for patch, panel, (top, left, height, width) in zip(image.patches, panels, boxes.tolist(), strict=True):
            assert (*patch.get_xy(), patch.get_width(), patch.get_height()) == (left - 0.5, top - 0.5, width, height)
            assert patch.get_edgecolor() == panel.spines["left"].get_edgecolor()
        view = train.render_views(batch["pixels"], batch["views"]["local"], run.view_specs["local"])[2, row]
        np.testing.assert_allclose(panels[4].images[0].get_array(), view.permute(1, 2, 0), atol=1e-6)
    written = [text.get_text() for text in figure.texts]
    assert all(language in written for texts in captions for language, _ in texts)


def test_the_picture_has_all_kinds_of_views_without_overlap(config):
    for fields in ({}, {"self_distillation_weight": 0}):
        AcceleratorState._reset_state(True)
        run = train.plan(replace(config, num_contrastive_views=1, **fields))
        batch = next(train.make_batches(run, 0))
        figure = draw_batch(batch, run.view_specs, [[("en", "a lake")]], "title")
        assert len(figure.axes) == 1 + sum(spec.count for spec in run.view_specs.values())
        boxes = [axes.get_position() for axes in figure.axes]
        pairs = [(a, b) for number, a in enumerate(boxes) for b in boxes[:number]]
        assert all(min(a.x1, b.x1) <= max(a.x0, b.x0) or min(a.y1, b.y1) <= max(a.y0, b.y0) for a, b in pairs)


def test_nothing_that_is_written_leaves_the_picture(config):
    run = train.plan(config)
    batch = next(train.make_batches(run, 0))
    captions = [[(language, "Многоэтажные здания вдоль дороги " * 5) for language in ("ru", "en", "de")]] * 6
    figure = draw_batch(batch, run.view_specs, captions, "First batch")
    figure.canvas.draw()
    frame = figure.bbox
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    assert all(box.x1 <= frame.x1 and box.x0 >= 0 and box.y0 >= 0 and box.y1 <= frame.y1 for box in boxes)
    lines = [box for box in boxes if box.x0 > figure.axes[5].bbox.x1]
    lines = sorted({(round(box.y0), round(box.y1)) for box in lines})
    assert len(lines) == 1 + 6 * 9  # the heading; nine lines beside each image, the last one "…"


def test_shared_sentences_are_those_of_several_images():
    rows = [
        {"en": ["a port", "boats"], "de": ["ein Hafen", None]},
        {"en": ["a port", None], "de": ["der Hafen", "Boote"]},
        {"en": None, "de": ["Wald"]},
    ]
    # a port (4 times, at two images); boats, Boote (not known to be the same) and Wald at one
    assert shared_sentences(rows, ["en", "de"]) == pytest.approx(4 / 7)
    assert shared_sentences([{"en": ["twice", "twice"]}], ["en"]) == 0


def test_images_with_too_few_sentences_are_counted():
    rows = [{"en": ["a", "a"]}, {"en": ["a", "b"]}, {"en": ["a"], "de": ["A"]}, {"en": None, "de": ["A", "B"]}]
    assert repeated_sentences(rows, TrainingConfig(languages=["en", "de"])) == 0.5
    assert repeated_sentences(rows, TrainingConfig(languages=["en"])) == pytest.approx(2 / 3)
    assert repeated_sentences(rows, TrainingConfig(languages=["en"], captions_per_image=1)) == 0


def test_coverage_is_counted_by_language(config, corpus):
    def without_russian(row: dict) -> dict:
        return {"captions": row["captions"] | {"ru": None}} if row["image_id"] == row0 else {"label": None}

    row0 = corpus["train"][0]["image_id"]
    text = describe_data(config, {"train": corpus["train"].map(without_russian)})
    assert "train    60             59" in text
    assert "ru             295" in text and "98.3%" in text and text.count("100.0%") == len(LANGUAGES) - 1


def test_frozen_and_trained_parameters_and_the_teacher_add_up(config):
    run = train.plan(replace(config, freeze=r"vision_model\.", freeze_word_embeddings=True))
    lines = {line.strip().split("  ")[0]: line.split()[-3:] for line in describe_model(config, run.model).splitlines()}
    every, trained, frozen = (int(cell.replace(",", "")) for cell in lines["all"])
    assert every == sum(parameter.numel() for parameter in run.model.parameters()) == trained + frozen
    assert trained == sum(parameter.numel() for parameter in run.model.parameters() if parameter.requires_grad)
    assert lines["image tower"][1] == "0" and lines["text tower, word embeddings"][1] == "0"
    teacher = [run.model.vision_model, run.model.self_distillation_head]
    expected = sum(parameter.numel() for module in teacher for parameter in module.parameters())
    assert int(lines["teacher, a moving average"][0].replace(",", "")) == expected


WIDE = {"hidden_size": 192, "intermediate_size": 768}  # weights far outweigh the other files of a checkpoint
LORA = {"r": 32, "target_modules": r".*\.(q_proj|v_proj|query|value)"}


@pytest.mark.parametrize(
    "fields",
    [{}, {"self_distillation_weight": 0, "freeze": r"vision_model\."}, {"lora": LORA, "merge_adapter": True}],
    ids=["all weights", "frozen tower without teacher", "adapter"],
)
def test_the_disk_is_that_of_a_run(config, tmp_path, fields):
    towers = {name: TINY[name] | WIDE for name in ("vision_config", "text_config")}
    config = replace(config, model_config=TINY | towers, dry_run=False, **fields)
    run = train.start(train.plan(config))
    train.training_step(run, next(train.make_batches(run, 0)), 0)  # the optimizer makes its moments
    saved = save_checkpoint(run.accelerator, tmp_path / "checkpoints", 1, keep=1)
    outcome.save_model(run, tmp_path / "model")
    weights = (tmp_path / "model" / "model.safetensors").stat().st_size
    started, checkpoint, final = sizes_on_disk(config, run.model)
    assert (checkpoint, final) == pytest.approx((size_of(saved), weights), rel=0.1)
    assert started == pytest.approx(size_of(saved) - (saved / "optimizer.bin").stat().st_size, rel=0.1)


def test_a_full_disk_is_told_and_the_earlier_run_counts_as_free(config, monkeypatch):
    config = replace(config, max_train_steps=12, checkpoint_steps=4, keep_checkpoints=2)
    model = train.plan(config).model
    started, checkpoint, final = sizes_on_disk(config, model)
    (output := Path(config.output_dir)).mkdir()
    (output / "earlier").write_bytes(bytes(checkpoint))
    for free, enough in ((2 * checkpoint, True), (2 * checkpoint - 1, False)):  # beside the earlier run
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        line = describe_disk(config, model)
        needed, peak = f"{(2 * checkpoint + final) / 1e6:.1f} MB", f"{3 * checkpoint / 1e6:.1f} MB"
        assert f"{needed} (checkpoints 2 × {checkpoint / 1e6:.1f} MB" in line and f"{peak} while" in line
        assert ("too little" not in line) == enough
    line = describe_disk(replace(config, probe_steps=5, best_figure="mean_recall"), model)
    assert f"{(3 * checkpoint + started + final) / 1e6:.1f} MB (checkpoints 3 ×" in line and "probed start" in line


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_schedule_is_that_of_the_optimizer(config):
    config = replace(config, layer_decay=0.5, head_learning_rate=1e-2, dry_run=False)
    run = train.start(train.plan(config))
    text = describe_schedule(config, run.model, 60)
    rows = [line.split("  ") for line in text.splitlines()[2:]]
    shown = {cells[1]: [float(cell) for cell in cells[2:] if cell] for cells in rows if "learning rate" in cells[1]}
    peaks = {group["initial_lr"] for group in run.optimizer.param_groups}
    assert sorted({values[1] for values in shown.values()}) == pytest.approx(sorted(peaks))
    for _ in range(11):
        run.optimizer.step()
        run.scheduler.step()
    last = max(group["lr"] for group in run.optimizer.param_groups if group["part"] == "head")
    assert shown["learning rate, head"] == pytest.approx([1e-2 / 4, 1e-2, last], rel=1e-2)
