"""Plots of the evaluation, checked on their drawn elements."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.font_manager import fontManager
from PIL import Image
from sklearn.metrics import top_k_accuracy_score

from rsmclip.core.drawing import FONT, fonts_for, save
from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.eval.plots import confusion_matrix, recall_by_language, recall_curves, trade_off
from rsmclip.eval.protocol import load_benchmark


def figures(languages):
    return [
        {"metric": metric, "value": 20.0 - place, "interval": [18.5 - place, 22.0 - place], "language": language}
        | ({} if language == "mean" else {"chance": 0.6})
        for place, language in enumerate(languages)
        for metric in ("median_rank", "mean_recall")
    ]


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def test_values_and_intervals_are_those_of_the_figures():
    records = figures(["en", "pt", "ru", "mean"])
    expected = {record["language"]: record for record in records}
    axes = recall_by_language(records, "ours").axes[0]
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    assert names == ["en", "pt", "ru", "mean"]
    intervals, chance = axes.collections
    for place, value, segment in zip(*line(axes, "ours").get_data(), intervals.get_segments(), strict=True):
        record = expected[names[round(place)]]
        assert value == record["value"]
        np.testing.assert_allclose(segment, [[place, record["interval"][0]], [place, record["interval"][1]]])
    assert [text.get_text() for text in axes.texts] == ["20.0", "19.0", "18.0", "17.0"]
    np.testing.assert_allclose(chance.get_segments(), [[[n - 0.5, 0.6], [n + 0.5, 0.6]] for n in range(3)])
    assert axes.get_ylim()[0] == 0


def test_a_model_without_mean_recall_is_named():
    with pytest.raises(UserError, match="ours .* mean_recall"):
        recall_by_language([{"metric": "accuracy", "value": 1.0}], "ours")


def test_curves_are_recall_at_every_k():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((300, 300)) + 2 * np.eye(300)
    ranks = [(scores > np.diag(scores)[:, None]).sum(axis=1), (scores > np.diag(scores)).sum(axis=0)]
    figure = recall_curves({"pt": tuple(ranks)})
    for axes, matrix in zip(figure.axes, (scores, scores.T), strict=True):
        places, curve = line(axes, "pt").get_data()
        assert places.tolist() == list(range(1, 101))
        for k in (1, 2, 10, 100):
            expected = 100 * top_k_accuracy_score(np.arange(300), matrix, k=k)
            assert curve[k - 1] == pytest.approx(expected)


def test_english_and_the_mean_are_highlighted_among_many_languages():
    rng = np.random.default_rng(1)
    ranks = {language: (rng.integers(0, 150, 30), rng.integers(0, 30, 150)) for language in LANGUAGES}
    for direction, axes in enumerate(recall_curves(ranks).axes):
        assert len(axes.lines) == 11
        ks = range(1, (101, 31)[direction])
        every = [[100 * np.mean(ranks[language][direction] < k) for k in ks] for language in LANGUAGES]
        np.testing.assert_allclose(line(axes, "English").get_ydata(), every[0])
        np.testing.assert_allclose(line(axes, "mean of the 10 languages").get_ydata(), np.mean(every, axis=0))
        np.testing.assert_allclose(sorted(axes.lines[1].get_ydata()), every[2])


def test_bad_ranks_and_counts_are_named():
    with pytest.raises(ValueError, match="ranks of 3 items"):
        recall_curves({"en": (np.array([0, 3]), np.array([0, 1, 1]))})
    with pytest.raises(ValueError, match=r"2 classes .* \(2, 3\)"):
        confusion_matrix(np.ones((2, 3)), ["a", "b"])


def test_dollar_signs_in_class_names_are_no_formula():
    figure = confusion_matrix(np.eye(2), ["$\\no{$", "5 $"])
    figure.canvas.draw()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [r"\$\no{\$", r"5 \$"]


def test_rows_of_the_confusion_matrix_are_percentages_and_an_empty_class_is_gray():
    counts = np.array([[3, 1, 0], [0, 0, 0], [999, 0, 1]])
    axes = confusion_matrix(counts, ["a", "b", "c"]).axes[0]
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn[[0, 2]], [[75, 25, 0], [99.9, 0, 0.1]])
    assert drawn.mask[1].all() and not drawn.mask[[0, 2]].any()
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "75", (0, 1): "25", (2, 0): "100", (2, 2): "<1"}


@pytest.mark.parametrize(("classes", "language"), [(7, "en"), (30, "ru"), (46, "en")])
def test_class_names_neither_overlap_nor_leave_the_picture(classes, language):
    names = list(load_benchmark("rsicd").class_names[language].values())
    names = (names + [f"{name} 2" for name in names])[:classes]
    figure = confusion_matrix(np.eye(classes) * 5, names)
    figure.canvas.draw()
    axes, frame = figure.axes[0], figure.bbox
    for labels, low, high in ((axes.get_xticklabels(), "x0", "x1"), (axes.get_yticklabels(), "y0", "y1")):
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) == classes
        assert all(frame.x0 <= box.x0 and frame.y0 <= box.y0 and box.x1 <= frame.x1 for box in boxes)
        boxes.sort(key=lambda box: getattr(box, low))
        assert all(getattr(a, high) <= getattr(b, low) + 1 for a, b in pairwise(boxes))
    assert figure.get_figwidth() * figure.dpi == 1200
    cell = axes.get_window_extent().width / classes
    assert all(text.get_window_extent().width < cell for text in axes.texts)
    assert bool(axes.texts) == (classes == 7)


def test_names_that_no_font_has_become_numbers():
    axes = confusion_matrix(np.eye(2), ["\U0010fffd", "b"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]


def test_equal_figures_are_equal_files_of_1200_pixels(tmp_path):
    for name in ("a.png", "b.png"):
        save(recall_by_language(figures(LANGUAGES), "ours"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1200 and set(image.info) == {"dpi"}


def test_fonts_have_all_letters():
    assert fonts_for("Ein Hafen,\nпорт") == [FONT]
    assert fonts_for("\U0010fffd") is None


def test_a_font_that_was_installed_after_matplotlib_listed_the_fonts_is_found(monkeypatch):
    letter = "\ue09c"  # in no other font
    _, name = fonts_for(letter)
    own = [font for font in fontManager.ttflist if font.name == name]
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font.name != name])
    assert fonts_for(letter) is None
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [font.fname for font in own])
    assert fonts_for(letter) == [FONT, name]


def test_averages_are_points_with_their_alphas_and_the_chosen_one_is_marked():
    points = [(0.0, 5.0, 60.0), (0.5, 17.0, 68.0), (1.0, 16.0, 61.0)]
    axes = trade_off(points, 0.5, ["eurosat", "rsscn7"]).axes[0]
    curve, marked = axes.lines
    assert curve.get_xydata().tolist() == [[5, 60], [17, 68], [16, 61]]
    assert marked.get_xydata().tolist() == [[17, 68]]
    labels = {text.get_text(): text.xy for text in axes.texts}
    assert labels == {"0": (5, 60), "0.5": (17, 68), "1": (16, 61)}
    assert "eurosat, rsscn7" in axes.get_ylabel()
