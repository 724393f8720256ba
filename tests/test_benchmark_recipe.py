"""The corpora of the experiment's arms, and the interval of a difference between two arms."""

import json
import re

import numpy as np
import pytest
import torch.nn.functional as F

from rsmclip.benchmarks import recipe, recipe_tables
from rsmclip.benchmarks.recipe_floors import STRENGTHS, caption_means, save_ridge_regression
from rsmclip.benchmarks.recipe_tables import differences, mean_and_interval
from rsmclip.core.files import write_whole
from rsmclip.data.schema import load_corpus
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.eval.embed import Embedder
from rsmclip.eval.models import load_embedder
from rsmclip.training.batches import CaptionSampling
from rsmclip.training.probe import without_projections


@pytest.fixture
def corpora(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "DEV_IMAGES", 6)
    corpus.save_to_disk(tmp_path / "corpus")
    recipe.make_corpora(str(tmp_path / "corpus"), tmp_path / "corpora")
    return {folder.name: load_corpus(folder) for folder in (tmp_path / "corpora").iterdir()}


def test_arms_have_the_same_images_and_differ_in_the_captions_of_train_alone(corpora, corpus):
    ten = corpora["ten"]
    train, dev = set(ten["train"]["image_id"]), set(ten["dev"]["image_id"])
    assert len(dev) >= 6 and not train & dev and train | dev == set(corpus["train"]["image_id"])
    assert corpora["all"]["train"][:] == corpus["train"][:] and corpora["all"]["val"][:] == corpus["val"][:]
    for other in (corpora[name] for name in corpora if name != "all"):
        assert other["train"]["image_id"][:] == ten["train"]["image_id"][:]
        assert other["dev"][:] == ten["dev"][:] and other["val"][:] == ten["val"][:]
    assert ten["train"]["captions"][:] != corpora["english"]["train"]["captions"][:]
    assert not any(row["pt"][0] for row in corpora["english_only"]["train"]["captions"])


def test_the_english_arm_draws_the_originals_of_the_captions_that_the_ten_languages_draw(corpora):
    sampling = CaptionSampling.parse("uniform", ["en", "pt", "ko"], 1)
    pairs = zip(corpora["ten"]["train"]["captions"], corpora["english"]["train"]["captions"], strict=True)
    translated = 0
    for number, (ten, english) in enumerate(pairs):
        texts, ids = sampling.draw(ten, np.random.default_rng(number))
        originals, same = sampling.draw(english, np.random.default_rng(number))
        assert ids == same and originals[0] in english["en"]
        translated += texts != originals
    assert translated > 0


def test_a_share_of_the_captions_keeps_its_translations(corpora):
    rows = corpora["ten"]["train"]
    total = sum(len(captions["en"]) for captions in rows["captions"])
    for share in recipe.SHARES:
        kept = sum(bool(t) for row in corpora[f"translated_{share}"]["train"]["captions"] for t in row["pt"] or [])
        assert 0 < kept <= total * share / 100


def test_ridge_regression_leaves_a_model_that_loads_and_maps_images_to_their_captions(
    corpora, model_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("rsmclip.eval.tasks.EmbeddingCache", lambda: EmbeddingCache(tmp_path / "cache"))
    splits = corpora["ten"]
    strength = save_ridge_regression(model_folder, splits["train"], splits["dev"], ["en", "pt"], tmp_path / "ridge")
    assert strength in STRENGTHS
    embedder, start = load_embedder(str(tmp_path / "ridge")), load_embedder(str(model_folder))
    images = F.normalize(embedder.images(splits["train"]), dim=-1)
    towers = Embedder(without_projections(start.model), start.processor)
    targets = F.normalize(caption_means(towers.texts, splits["train"]).float(), dim=-1)
    assert images.shape == targets.shape
    assert (images * targets).sum(-1).mean() > 0.9


def test_the_interval_of_a_difference_covers_images_and_seeds():
    rng = np.random.default_rng(0)
    images = rng.normal(size=recipe.SAMPLES + 1)  # what both arms share cancels

    def arm(offsets):
        return {seed: {"recall": 20 + offset + images} for seed, offset in enumerate(offsets)}

    mean, (low, high) = mean_and_interval(differences(arm([1.0, 1.0, 4.0]), arm([0.0, 0.0, 0.0]), "recall"))
    assert mean == pytest.approx(2.0) and low == pytest.approx(1.0) and high == pytest.approx(4.0)
    (only,) = differences(arm([1.0, 1.0]), {1: arm([0.0, 0.5])[1]}, "recall")
    assert only == pytest.approx(np.full(recipe.SAMPLES + 1, 0.5))
    assert differences(arm([1.0]), {}, "recall") == []


@pytest.mark.parametrize(
    ("offsets", "holds"), [([1.0, 2.0, 3.0], "yes"), ([-1.0, 2.0, 3.0], "no"), ([2.0], "no"), ([-9.0, -8.0], "yes")]
)
def test_a_claim_holds_if_the_interval_excludes_zero_and_several_seeds_agree(offsets, holds, monkeypatch):
    one, other, figure = recipe_tables.CLAIMS[0]
    monkeypatch.setattr(recipe_tables, "CLAIMS", [(one, other, figure)])
    noise = np.append(0, np.random.default_rng(0).normal(size=recipe.SAMPLES) / 9)
    draws = {one: {seed: {figure: 20 + offset + noise} for seed, offset in enumerate(offsets)}}
    draws[other] = {seed: {figure: np.full(recipe.SAMPLES + 1, 20.0)} for seed in range(3)}
    (row,) = recipe_tables.claim_table(draws).splitlines()[2:]
    cells = row.strip("| ").split(" | ")
    assert cells[1] == f"{np.mean(offsets):+.2f}" and cells[3].count(".") == len(offsets) and cells[4] == holds


def test_an_exploratory_arm_is_compared_on_the_seeds_that_both_have():
    def arm(offsets):
        values = {seed: np.full(recipe.SAMPLES + 1, 20.0 + offset) for seed, offset in offsets.items()}
        return {seed: dict.fromkeys(recipe_tables.FIGURES, value) for seed, value in values.items()}

    draws = {"b": arm({0: 0.0, 1: 5.0}), "b_long": arm({1: 7.0}), "c_mild": arm({0: 1.0})}
    (row,) = recipe_tables.exploratory_table(draws, {"b_long": "b, longer"}).splitlines()[2:]
    assert row.startswith("| b, longer − b | 1 | +2.0 (+2.0 … +2.0) |")


def test_arms_whose_names_begin_alike_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_tables, "RESULTS", tmp_path)
    for name in ("b-0", "b-2x-0", "b-10", "probes", "pilots.json"):
        (tmp_path / name).mkdir()
    assert {arm: sorted(seeds) for arm, seeds in recipe_tables.results().items()} == {"b": [0, 10], "b-2x": [0]}


def test_table_and_plot_have_each_arm_with_its_mean_and_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_tables, "RESULTS", tmp_path)
    rng = np.random.default_rng(0)
    draws = {}
    for arm, level in (("b", 20.0), ("f_b", 30.0)):
        values = {figure: level + np.append(0, rng.normal(size=recipe.SAMPLES)) for figure in recipe_tables.FIGURES}
        draws[arm] = dict.fromkeys((0, 1), values)
        for seed in (0, 1):
            write_whole(tmp_path / f"{arm}-{seed}" / "run.json", json.dumps({"minutes": 4 + 2 * seed}))
    lines = recipe_tables.arm_table(draws, {"b": "ten languages"}).splitlines()[2:]
    assert [line.split(" | ")[:3] for line in lines] == [["| ten languages", "2", "5"], ["| f_b", "2", "5"]]
    assert re.search(r"\b20\.0 ± (1\.9|2\.0)", lines[0]) and "30.0 ±" in lines[1]
    panels = recipe_tables.arm_plot(draws, {"b": "ten languages"}).axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["ten languages", "f_b"]
    for panel in panels:
        assert [sorted(line.get_xdata()) for line in panel.lines] == [[20.0, 30.0]] * 2
