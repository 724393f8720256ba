"""The `evaluate.Metric`s against the functions that they wrap: in batches, in two processes, on bad input."""

import doctest
import json
import socket
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

import rsmclip
from rsmclip.eval.metrics import CrossModalRecall, MultilingualRecall, ZeroShotClassification
from rsmclip.eval.metrics.cross_modal_recall import cross_modal_recall
from rsmclip.eval.metrics.multilingual_recall import multilingual_recall
from rsmclip.eval.metrics.zero_shot_classification import zero_shot_classification
from rsmclip.eval.retrieval import retrieval_metrics
from rsmclip.eval.zero_shot import zero_shot_metrics

ROOT = Path(rsmclip.__file__).parent
OTHER_PROCESS = """
import json, sys
import evaluate
folder, cache, examples = sys.argv[1:]
metric = evaluate.load(folder, num_process=2, process_id=1, experiment_id="shared", cache_dir=cache)
images, captions = json.loads(open(examples).read())
metric.add_batch(predictions=images, references=captions)
assert metric.compute() is None
"""


def recall(images, captions):
    # tests/test_retrieval.py compares this function with the definition of CLIP_benchmark.
    owner = [row for row, texts in enumerate(captions) for _ in texts]
    return retrieval_metrics(images, np.concatenate(captions), owner)


def example(images=40, dim=16, noise=1.5, seed=0):
    rng = np.random.default_rng(seed)
    embeds = rng.standard_normal((images, dim))
    return embeds, [embed + noise * rng.standard_normal((rng.integers(1, 6), dim)) for embed in embeds]


@pytest.fixture
def cache(tmp_path):
    return {"cache_dir": str(tmp_path)}


@pytest.mark.parametrize("module", [cross_modal_recall, zero_shot_classification, multilingual_recall])
def test_examples_in_the_descriptions_run_in_the_repository_root_without_network(monkeypatch, module):
    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(ROOT)
    failed, attempted = doctest.testmod(module)
    assert failed == 0 < attempted
    metric = evaluate.load(str(Path(module.__file__).parent))
    assert metric.name == Path(module.__file__).stem and metric.description and metric.citation


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_cross_modal_recall_equals_the_function_for_batches_in_any_order(cache, batch):
    images, captions = example()
    metric = CrossModalRecall(**cache)
    order = np.random.default_rng(batch).permutation(40)
    for start in range(0, 40, batch):
        rows = order[start : start + batch]
        metric.add_batch(predictions=torch.tensor(images[rows]), references=[captions[row] for row in rows])
    result = metric.compute()
    expected = recall(images, captions)
    assert list(result) == list(expected)
    assert result == pytest.approx(expected, abs=1e-9)
    assert 5 < result["mean_recall"] < 95


def test_two_processes_give_the_figures_of_one(tmp_path):
    images, captions = example()
    (tmp_path / "examples.json").write_text(json.dumps([images[25:].tolist(), [c.tolist() for c in captions[25:]]]))
    folder = str(ROOT / "eval/metrics/cross_modal_recall")
    arguments = [folder, str(tmp_path / "cache"), str(tmp_path / "examples.json")]
    other = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, *arguments], cwd=tmp_path)
    try:
        metric = evaluate.load(folder, num_process=2, experiment_id="shared", cache_dir=str(tmp_path / "cache"))
        metric.add_batch(predictions=images[:25], references=captions[:25])
        result = metric.compute()
        assert other.wait(60) == 0
    finally:
        other.kill()
    assert result == pytest.approx(recall(images, captions), abs=1e-9)


def test_zero_shot_in_batches_equals_the_function(cache):
    rng = np.random.default_rng(0)
    classes, labels = rng.standard_normal((6, 12)), rng.integers(0, 6, 90)
    images = classes[labels] + 1.5 * rng.standard_normal((90, 12))
    metric = ZeroShotClassification(**cache)
    metric.add_batch(predictions=images[:31], references=labels[:31])
    metric.add_batch(predictions=images[31:], references=labels[31:])
    result = metric.compute(class_embeds=torch.tensor(classes))
    assert result == pytest.approx(zero_shot_metrics(images, classes, labels)) and 20 < result["accuracy"] < 95


def test_multilingual_recall_is_cross_modal_recall_over_the_images_of_each_language(cache):
    images, english = example(seed=1)
    german = [texts + np.random.default_rng(row).standard_normal(texts.shape) for row, texts in enumerate(english)]
    korean = [texts[:1] for texts in german]
    has = {"en": range(0, 30), "de": range(40), "ko": range(5, 25)}
    by_language = {"en": english, "de": german, "ko": korean}
    rows = [[(text, code) for code in has for text in by_language[code][row] if row in has[code]] for row in range(40)]
    result = MultilingualRecall(**cache).compute(
        predictions=images,
        references=[[text for text, _ in row] for row in rows],
        languages=[[code for _, code in row] for row in rows],
    )

    def over(code, chosen):
        return recall(images[list(chosen)], [by_language[code][row] for row in chosen])

    alone = {code: over(code, has[code]) for code in has}
    expected = {f"{code}_{name}": value for code in has for name, value in alone[code].items()}
    expected |= {name: np.mean([alone[code][name] for code in has]) for name in alone["en"]}
    for code, shared in (("de", range(30)), ("ko", range(5, 25))):
        gap = over("en", shared)["mean_recall"] - over(code, shared)["mean_recall"]
        expected[f"{code}_gap_to_english"] = gap
    expected["gap_to_english"] = (expected["de_gap_to_english"] + expected["ko_gap_to_english"]) / 2
    assert result == pytest.approx(expected, abs=1e-9)
    codes = [["pt"] * len(texts) for texts in english]
    without_english = MultilingualRecall(**cache).compute(predictions=images, references=english, languages=codes)
    assert not [name for name in without_english if "gap" in name]
    assert expected["de_gap_to_english"] != alone["en"]["mean_recall"] - alone["de"]["mean_recall"]


def test_a_metric_can_be_used_again_after_an_error(cache):
    metric, (images, captions) = CrossModalRecall(**cache), example()
    with pytest.raises(ValueError, match="row 0"):
        metric.compute(predictions=images, references=[[], *captions[1:]])
    expected = pytest.approx(recall(images, captions))
    assert metric.compute(predictions=images, references=captions) == expected


def test_bad_captions_are_named():
    images, captions = example(images=4)
    metric = CrossModalRecall(keep_in_memory=True)
    broken = images.copy()
    broken[2, 3] = np.nan
    before = sum(len(texts) for texts in captions[:3])
    for message, predictions, references in (
        ("image embeddings .* row 2", broken, captions),
        (f"text embeddings .* row {before}", images, [*captions[:3], np.full((1, 16), np.nan)]),
        ("row 3 has no captions", images, [*captions[:3], []]),
        ("dimensions: 15, 16", images, [texts[:, 1:] for texts in captions]),
    ):
        with pytest.raises(ValueError, match=message):
            metric.compute(predictions=predictions, references=references)


def test_bad_languages_are_named():
    images, captions = example(images=4)
    metric = MultilingualRecall(keep_in_memory=True)
    languages = [["ru"] * len(texts) for texts in captions]
    for message, references, codes in (
        (f"row 1 has {len(captions[1])} captions but 0 languages", captions, [languages[0], [], *languages[2:]]),
        ("'ru'.* row 0", [0 * texts for texts in captions], languages),
        ("references", [[]] * 4, [[]] * 4),
    ):
        with pytest.raises(ValueError, match=message):
            metric.compute(predictions=images, references=references, languages=codes)


def test_bad_classes_are_named():
    images = np.random.default_rng(0).standard_normal((4, 3))
    metric = ZeroShotClassification(keep_in_memory=True)
    for message, labels, class_embeds in (
        ("labels .* 2 classes", [0, 1, 2, 0], np.eye(3)[:2]),
        ("class embeddings .* row 1", [0] * 4, [[1, 0, 0], [0, np.nan, 0]]),
        ("dimensions: 2, 3", [0] * 4, np.eye(2)),
    ):
        with pytest.raises(ValueError, match=message):
            metric.compute(predictions=images, references=labels, class_embeds=class_embeds)
