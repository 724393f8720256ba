"""Transductive assignments against a dense float64 reference written from the formulas, and their properties."""

import numpy as np
import pytest
import torch

from rsmclip.core.errors import UserError
from rsmclip.eval import zero_shot
from rsmclip.eval.zero_shot import (
    fit_classes,
    neighbor_affinities,
    score_ranks,
    transductive_assignments,
    zero_shot_metrics,
)


def scenes(images: int = 90, classes: int = 6, dim: int = 64, noise: float = 0.5, seed: int = 0):
    """Unit embeddings of images and of class texts, and labels. A text is far from the center of its images."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((classes, dim))
    labels = rng.integers(0, classes, images)
    embeds = centers[labels] + noise * rng.standard_normal((images, dim))
    texts = centers + 5 * rng.standard_normal((classes, dim))
    return unit(embeds), unit(texts), labels


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def reference(x: np.ndarray, t: np.ndarray, temperature: float) -> np.ndarray:
    """TransCLIP without labels, step by step."""
    n, d = x.shape
    y = softmax(temperature * x @ t.T)
    z = y.copy()

    means = np.zeros_like(t)
    for c in range(len(t)):
        top = np.argsort(-z[:, c], kind="stable")[:8]
        means[c] = sum(z[i, c] * x[i] for i in top)
    means, variances = unit(means), np.full(d, 1 / d)

    w = np.zeros((n, n))
    for i in range(n):
        cosines = x @ x[i]
        cosines[i] = -np.inf
        for j in np.argsort(-cosines, kind="stable")[: min(3, n - 1)]:
            w[i, j] = cosines[j]

    for round in range(11):
        likelihoods = np.array([[-0.5 * np.sum((xi - m) ** 2 / variances) for m in means] for xi in x])
        for _ in range(5):
            z = softmax(np.log(np.maximum(y, 1e-300)) + likelihoods / 50 + (w + w.T) @ z / 6)
        if round < 10:
            for c in range(len(t)):
                if z[:, c].sum() > 1e-300:
                    means[c] = z[:, c] @ x
                    means[c] /= np.linalg.norm(means[c])
            squares = [z[i, c] * (x[i] - means[c]) ** 2 for i in range(n) for c in range(len(t))]
            variances = np.maximum(sum(squares) / z.sum(), 1e-12)  # of images that are all alike it is 0
    return z


@pytest.mark.parametrize("temperature", [5.0, 15.0, 100.0])
@pytest.mark.parametrize("images", [2, 3, 4, 7, 8, 9, 90])
def test_equals_the_reference(images, temperature):
    x, t, _ = scenes(images, seed=images)
    found = transductive_assignments(torch.tensor(x), torch.tensor(t), temperature)
    assert found.dtype == torch.float32 and found.shape == (images, 6)
    np.testing.assert_allclose(found.numpy(), reference(x, t, temperature), atol=2e-6)


def test_more_images_are_classified_right_than_one_by_one():
    x, t, labels = scenes(300, dim=128, noise=1.0)
    ranks, _ = score_ranks(transductive_assignments(x, t, 15.0), labels)
    assert 100 * np.mean(ranks == 0) > zero_shot_metrics(x, t, labels)["accuracy"] + 10


@pytest.mark.parametrize("images", [1, 2, 3, 8, 90])
@pytest.mark.parametrize("classes", [1, 2, 6])
def test_rows_sum_to_one(images, classes):
    x, t, _ = scenes(images, classes)
    found = transductive_assignments(x, t)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(images))
    assert (found >= 0).all()


def test_a_single_image_has_the_probabilities_of_its_texts():
    x, t, _ = scenes(1)
    np.testing.assert_allclose(transductive_assignments(x, t, 10.0), softmax(10 * x @ t.T), atol=1e-6)


def test_the_order_of_images_and_classes_does_not_matter():
    x, t, _ = scenes()
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(x)), rng.permutation(len(t))
    found = transductive_assignments(x[rows], t[columns])
    np.testing.assert_allclose(found, transductive_assignments(x, t)[rows][:, columns], atol=1e-6)


def test_the_length_and_type_of_embeddings_do_not_matter():
    x, t, _ = scenes()
    expected = transductive_assignments(x, t)
    found = transductive_assignments(torch.tensor(7 * x, requires_grad=True), torch.tensor(t / 3), affinities=None)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("at_once", [1, 7 * 90, 90 * 90])
def test_the_size_of_blocks_changes_no_bit(at_once, monkeypatch):
    x, t, _ = scenes()
    x[40:50] = x[:10]  # ties
    expected = transductive_assignments(x, t)
    monkeypatch.setattr(zero_shot, "SIMILARITIES", at_once)
    assert torch.equal(transductive_assignments(x, t), expected)


def test_affinities_serve_several_lists_of_classes():
    x, t, _ = scenes()
    affinities = neighbor_affinities(x)
    for classes in (t, t[:3]):
        expected = transductive_assignments(x, classes)
        assert torch.equal(transductive_assignments(x, classes, affinities=affinities), expected)


def test_a_copy_is_a_neighbor_but_no_image_is_its_own():
    x, _, _ = scenes(20)
    x = np.concatenate([x, x[:1]])
    affinities = neighbor_affinities(x).to_dense().numpy()
    assert not affinities.diagonal().any()
    assert affinities[0, 20] == affinities[20, 0] == pytest.approx(2)  # in both directions
    np.testing.assert_array_equal(affinities, affinities.T)


@pytest.mark.parametrize("images", [2, 5, 40])
def test_copies_of_one_image_are_in_the_class_of_its_text(images):
    x, t, _ = scenes(1)
    found = transductive_assignments(x.repeat(images, axis=0), t)
    assert torch.isfinite(found).all() and (found.argmax(dim=1) == int((x @ t.T).argmax())).all()


def test_copies_of_two_images_are_kept_apart():
    _, t, _ = scenes()
    x = unit(t[[0, 3]] + 0.1).repeat(12, axis=0)  # dimensions without variance within a class
    found = transductive_assignments(x, t)
    assert found.argmax(dim=1).tolist() == [0] * 12 + [3] * 12 and torch.isfinite(found).all()


def test_a_dimension_that_never_changes_does_not_matter():
    x, t, _ = scenes()
    padded = [np.pad(rows, ((0, 0), (0, 8))) for rows in (x, t)]
    found = transductive_assignments(*padded)
    # The first variance is 1/d, so it depends on the number of dimensions; all later ones are fitted.
    assert torch.isfinite(found).all() and (found.argmax(1) == transductive_assignments(x, t).argmax(1)).all()


def test_a_class_without_images_gets_none():
    x, t, _ = scenes(200, noise=0.3)
    absent = unit(-x.mean(axis=0, keepdims=True))  # away from every image
    for temperature in (100.0, 20_000.0):  # with the second, its weights underflow
        found = transductive_assignments(x, np.concatenate([t, absent]), temperature)
        assert torch.isfinite(found).all() and found[:, -1].max() < 1e-6


def test_a_class_whose_weights_underflow_keeps_its_mean():
    x, t, _ = (torch.tensor(rows) for rows in scenes())
    assignments = torch.zeros(90, 6, dtype=torch.float64)
    assignments[:, 0], assignments[:, 1] = 1, 1e-250
    means, _ = fit_classes(x, assignments, t)
    expected = x.mean(dim=0) / x.mean(dim=0).norm()
    torch.testing.assert_close(means, torch.stack([expected, expected, *t[2:]]))


def test_opposite_images_whose_mean_is_zero_are_assigned():
    x, _, _ = scenes(1)
    found = transductive_assignments(np.concatenate([x, -x]), unit(np.ones((2, 64))))
    torch.testing.assert_close(found, torch.full((2, 2), 0.5))


def test_bad_input_is_named():
    x, t, _ = scenes(5)
    with pytest.raises(ValueError, match="64 dimensions, class embeddings 63"):
        transductive_assignments(x, t[:, 1:])
    with pytest.raises(ValueError, match="image embeddings"):
        transductive_assignments(x[:0], t)
    with pytest.raises(ValueError, match="class embeddings"):
        transductive_assignments(x, t[:0])
    x[3, 2] = np.nan
    with pytest.raises(UserError, match="row 3"):
        transductive_assignments(x, t)
