"""Retrieval metrics against their definition, with ties, duplicates and bad input."""

import numpy as np
import pytest
import torch

from rsmclip.core.errors import UserError
from rsmclip.eval import retrieval
from rsmclip.eval.retrieval import chance_metrics, retrieval_metrics, retrieval_ranks, unit_rows


def by_definition(images, texts, owner, ks=(1, 5, 10)):
    # Recall by sorting in float64, as CLIP_benchmark defines it, for data without ties.
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))
    similarity, right = images @ texts.T, np.arange(len(images))[:, None] == owner
    metrics = {}
    for direction, scores, hits in (("image_to_text", similarity, right), ("text_to_image", similarity.T, right.T)):
        ranked = np.take_along_axis(hits, np.argsort(-scores, axis=1), axis=1)
        metrics |= {f"{direction}_recall@{k}": 100 * np.mean(ranked[:, :k].any(axis=1)) for k in ks}
    return metrics | {"mean_recall": np.mean(list(metrics.values()))}


def example(rng, images=40, captions=(1, 6), dim=16, noise=1.5):
    counts = rng.integers(*captions, images)
    owner = np.repeat(np.arange(images), counts)
    image_embeds = rng.standard_normal((images, dim))
    texts = image_embeds[owner] + noise * rng.standard_normal((len(owner), dim))
    order = rng.permutation(len(owner))
    return image_embeds, texts[order], owner[order]


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_equals_the_definition_for_any_chunk(monkeypatch, chunk):
    monkeypatch.setattr(retrieval, "TILE", chunk)
    images, texts, owner = example(np.random.default_rng(0))
    expected = by_definition(images, texts, owner)
    metrics = retrieval_metrics(images, texts, owner)
    assert list(metrics) == list(expected)
    assert metrics == pytest.approx(expected, abs=1e-9)
    assert 5 < metrics["mean_recall"] < 95


def ranks_in_whole_numbers(images, texts, right):
    # Ranks by definition, in arithmetic without rounding; `right` is a boolean matrix (images, texts).
    images, texts = (
        np.round(unit_rows(rows, "any").double().numpy() * 2**26).astype(np.int64) for rows in (images, texts)
    )
    similarity = images @ texts.T
    lowest = np.iinfo(np.int64).min

    def ranks(similarity, right):
        best = np.where(right, similarity, lowest).max(axis=1, keepdims=True)
        return ((similarity >= best) & ~right).sum(axis=1)

    return ranks(similarity, right), ranks(similarity.T, right.T)


def adversarial(kind, rng):
    images, texts, owner = example(rng, images=60, dim=24)
    if kind == "nearly equal":  # differences are below the resolution of float32
        texts = np.ones((len(texts), 24)) + 2e-7 * rng.standard_normal(texts.shape)
    if kind == "all equal":
        texts = np.ones_like(texts)
    if kind == "few directions":  # ties everywhere
        images, texts = np.sign(images[:, :3]), np.sign(texts[:, :3])
    if kind == "equal captions":
        texts = texts[rng.integers(0, 8, len(texts))]
    return images, texts, owner


@pytest.mark.parametrize("kind", ["random", "nearly equal", "all equal", "few directions", "equal captions"])
@pytest.mark.parametrize("tile", [5, 64, 2048])
def test_ranks_are_exact_for_any_tile(monkeypatch, kind, tile):
    monkeypatch.setattr(retrieval, "TILE", tile)
    images, texts, owner = adversarial(kind, np.random.default_rng(3))
    right = owner == np.arange(len(images))[:, None]
    expected = ranks_in_whole_numbers(images, texts, right)
    for found, ranks in zip(retrieval_ranks(images, texts, owner), expected, strict=True):
        np.testing.assert_array_equal(found, ranks)


def test_lower_precision_of_matrix_products_and_the_order_of_rows_change_nothing(monkeypatch):
    images, texts, owner = adversarial("nearly equal", np.random.default_rng(4))
    expected = retrieval_ranks(images, texts, owner)
    order = np.random.default_rng(5).permutation(len(texts))
    shuffled = retrieval_ranks(images, texts[order], owner[order])
    np.testing.assert_array_equal(shuffled[0], expected[0])
    np.testing.assert_array_equal(shuffled[1], expected[1][order])
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    for found, ranks in zip(retrieval_ranks(images, texts, owner), expected, strict=True):
        np.testing.assert_array_equal(found, ranks)


@pytest.mark.parametrize("kind", ["random", "equal captions"])
def test_equal_sentences_are_right_for_each_others_images(kind):
    images, texts, owner = adversarial(kind, np.random.default_rng(6))
    sentences = np.random.default_rng(7).integers(0, 20, len(texts))
    right = np.zeros((len(images), len(texts)), dtype=bool)
    for image in range(len(images)):
        right[image] = np.isin(sentences, sentences[owner == image])
    found = retrieval_ranks(images, texts, owner, sentences)
    for ranks, expected in zip(found, ranks_in_whole_numbers(images, texts, right), strict=True):
        np.testing.assert_array_equal(ranks, expected)
    assert (found[1] <= retrieval_ranks(images, texts, owner)[1]).all()


@pytest.mark.parametrize("tile", [5, 2048])
def test_equal_texts_count_as_often_as_they_occur(monkeypatch, tile):
    monkeypatch.setattr(retrieval, "TILE", tile)
    rng = np.random.default_rng(9)
    images, texts, owner = example(rng, images=60, dim=24)
    sentences = rng.integers(0, 12, len(texts))
    texts = texts[sentences] + 1e-3 * rng.integers(0, 2, (len(texts), 1))  # two embeddings for each sentence
    right = np.array([np.isin(sentences, sentences[owner == image]) for image in range(len(images))])
    found = retrieval_ranks(images, texts, owner, sentences)
    for ranks, expected in zip(found, ranks_in_whole_numbers(images, texts, right), strict=True):
        np.testing.assert_array_equal(ranks, expected)
    assert max(ranks.max() for ranks in found) > 12


def test_cost_does_not_grow_with_the_square_of_equal_captions(monkeypatch):
    sizes = []
    exact = retrieval.dot_products
    monkeypatch.setattr(retrieval, "dot_products", lambda *items: sizes.append(items[2].shape[1]) or exact(*items))
    captions = np.random.default_rng(10).standard_normal((3, 8))
    owner = np.arange(600)
    images = captions[owner % 3] + np.random.default_rng(11).standard_normal((600, 8))
    retrieval_ranks(images, captions[owner % 3], owner, owner % 3)
    assert 600 <= sum(sizes) <= 3 * 600


def test_ties_count_against_the_model_whatever_the_order():
    same = np.ones((4, 3))
    metrics = retrieval_metrics(same, same, [0, 1, 2, 3], ks=(1, 2, 4))
    assert metrics["image_to_text_recall@1"] == metrics["text_to_image_recall@2"] == 0
    assert metrics["image_to_text_recall@4"] == 100


def test_scale_and_type_do_not_matter():
    images, texts, owner = example(np.random.default_rng(1))
    expected = retrieval_metrics(images, texts, owner)
    assert retrieval_metrics(torch.tensor(images) * 7, torch.tensor(texts) * 0.1, owner.tolist()) == expected


@pytest.mark.parametrize(
    ("message", "images", "texts", "owner"),
    [
        ("text embeddings .* row 1", np.ones((3, 2)), [[1, 1], [np.nan, 1], [1, 1]], [0, 1, 2]),
        ("image embeddings .* row 0", np.zeros((3, 2)), np.ones((3, 2)), [0, 1, 2]),
        ("every image", np.ones((3, 2)), np.ones((3, 2)), [0, 1, 1]),
        ("2 entries for 3 texts", np.ones((3, 2)), np.ones((3, 2)), [0, 1]),
        ("2 dimensions, text embeddings 4", np.ones((3, 2)), np.ones((3, 4)), [0, 1, 2]),
        ("text_to_image .* 3 images", np.ones((3, 2)), np.ones((3, 2)), [0, 1, 3]),
    ],
)
def test_bad_input_is_named(message, images, texts, owner):
    with pytest.raises(UserError if " row " in message else ValueError, match=message):
        retrieval_metrics(images, np.asarray(texts, dtype=float), owner)


def test_chance_is_what_random_rankings_give():
    rng = np.random.default_rng(2)
    owner = np.repeat(np.arange(30), rng.integers(1, 6, 30))
    runs = [
        retrieval_metrics(rng.standard_normal((30, 40)), rng.standard_normal((len(owner), 40)), owner)
        for _ in range(400)
    ]
    chance = chance_metrics(owner, 30)
    for name, value in chance.items():
        assert np.mean([run[name] for run in runs]) == pytest.approx(value, abs=1.2), name
    assert chance["text_to_image_recall@10"] == pytest.approx(100 / 3)


def test_autocast_does_not_change_ranks():
    images, texts, owner = example(np.random.default_rng(8), images=100)
    expected = retrieval_ranks(images, texts, owner)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = retrieval_ranks(images, texts, owner)
    assert [ranks.tolist() for ranks in found] == [ranks.tolist() for ranks in expected]
