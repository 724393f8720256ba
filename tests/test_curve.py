"""The training curve: one panel for each series of the log."""

import json

import numpy as np
import pytest
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.training.curve import curve_figure, draw_training_curve, moving_average


def step(number: int, **scalars) -> dict:
    rates = {"learning_rate": {"image": 1e-4 * number, "text": 1e-4 * number}}
    record = {"step": number, "loss": 1 / number, "contrastive": 1 / number, "gradient_norm": 2.0, "logit_scale": 14.0}
    return record | rates | {"seconds": 1.0} | scalars


def write(tmp_path, records: list[dict]):
    path = tmp_path / "train_log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def panels(tmp_path, records: list[dict]) -> dict[str, object]:
    return {axes.get_title(): axes for axes in curve_figure(write(tmp_path, records)).axes}


def test_the_picture_has_the_promised_size_and_shows_something(tmp_path):
    draw_training_curve(write(tmp_path, [step(number) for number in range(1, 200)]), tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.width == 1200 and image.height % 282 == 0
        assert np.asarray(image.convert("L")).std() > 5


def test_a_run_of_one_step_has_only_the_panels_of_what_it_logged(tmp_path):
    drawn = panels(tmp_path, [step(1)])
    assert list(drawn) == ["training loss", "learning rate", "gradient norm, unclipped", "logit scale"]
    assert [line.get_label() for line in drawn["training loss"].lines] == ["contrastive"]


def test_skipped_steps_are_marked_and_leave_a_hole(tmp_path):
    records = [step(number, distillation=3.0) for number in range(1, 9)]
    lost = {"loss": None, "contrastive": None, "gradient_norm": None}
    for number in (3, 7):
        records[number - 1] |= lost | {"skipped": ["a"]}
    records.insert(4, {"step": 4, "undecodable": ["b"]})
    lines = {line.get_label(): line for line in panels(tmp_path, records)["training loss"].lines}
    assert list(lines["skipped step"].get_xdata()) == [3, 7]
    assert list(lines["contrastive"].get_xdata()) == [1, 2, 4, 5, 6, 8]
    assert len(lines["distillation"].get_xdata()) == 8


def evaluation(number: int, languages: list[str], **benchmarks: dict) -> dict:
    recalls = {language: {"mean_recall": 20.0 + index} for index, language in enumerate(languages)}
    return {"step": number, "validation": recalls, **({"benchmarks": benchmarks} if benchmarks else {})}


def legend(axes) -> list[str]:
    """The texts of a legend that is inside its panel."""
    axes.figure.canvas.draw()
    box, frame = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_each_of_few_languages_is_a_line(tmp_path):
    records = [step(1), evaluation(1, ["en", "pt"]), step(2), evaluation(2, ["en", "pt"])]
    axes = panels(tmp_path, records)["validation: mean recall, %"]
    assert [list(line.get_ydata()) for line in axes.lines] == [[20.0, 20.0], [21.0, 21.0]]
    assert legend(axes) == ["en", "pt"]


def test_many_languages_are_a_mean_a_range_and_english(tmp_path):
    axes = panels(tmp_path, [step(1), evaluation(1, list(LANGUAGES))])["validation: mean recall, %"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {"mean": [24.5], "en": [20.0]}
    band = axes.collections[0].get_datalim(axes.transData)
    assert (band.y0, band.y1) == (20.0, 29.0)
    assert legend(axes) == ["range of 10 languages", "mean", "en"]


def test_a_benchmark_has_a_panel_that_begins_before_training_and_shows_the_kept_step(tmp_path):
    accuracy = {"en": {"zero_shot_accuracy": 66.0}}
    path = write(tmp_path, [step(1), step(2), evaluation(2, ["en"], rsscn7=accuracy)])
    drawn = curve_figure(path, kept=2, start={"rsscn7": {"en": {"zero_shot_accuracy": 59.0}}})
    axes = {axes.get_title(): axes for axes in drawn.axes}["rsscn7: zero-shot accuracy, %"]
    line, kept = axes.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 2], [59.0, 66.0])
    assert list(kept.get_xdata()) == [2, 2] and legend(axes) == ["en", "the model"]


def test_parts_with_one_learning_rate_share_a_line(tmp_path):
    assert len(panels(tmp_path, [step(1), step(2)])["learning rate"].lines) == 1
    records = [step(number, learning_rate={"image": 1e-5, "text": 1e-5, "head": 1e-3}) for number in (1, 2)]
    lines = panels(tmp_path, records)["learning rate"].lines
    assert [line.get_label() for line in lines] == ["image, text", "head"]


def test_a_log_without_steps_is_an_error(tmp_path):
    with pytest.raises(UserError, match="train_log.jsonl"):
        draw_training_curve(write(tmp_path, []), tmp_path / "curve.png")


def test_moving_averages_are_means_of_the_neighbors():
    values = np.random.default_rng(0).normal(size=30)
    expected = [values[max(0, index - 4) : index + 5].mean() for index in range(30)]
    np.testing.assert_allclose(moving_average(values, 4), expected)
