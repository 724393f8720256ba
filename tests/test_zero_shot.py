"""Zero-shot metrics against scikit-learn, class embeddings against their definition in the paper."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from rsmclip.eval.zero_shot import class_embeddings, zero_shot_metrics


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_equals_scikit_learn():
    rng = np.random.default_rng(0)
    classes = rng.standard_normal((7, 12))
    labels = rng.choice(7, 90, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1, 0.0])  # uneven, and one class that never occurs
    images = classes[labels] + 1.5 * rng.standard_normal((90, 12))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, classes)]
    predicted = (unit[0] @ unit[1].T).argmax(axis=1)
    metrics = zero_shot_metrics(images, classes, labels)
    assert metrics["accuracy"] == pytest.approx(100 * accuracy_score(labels, predicted))
    assert metrics["mean_per_class_recall"] == pytest.approx(100 * balanced_accuracy_score(labels, predicted))


def test_a_tie_is_an_error():
    classes = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert zero_shot_metrics(np.array([[1.0, 0.0], [0.0, 1.0]]), classes, [0, 2])["accuracy"] == 50


def test_class_embedding_is_the_mean_of_unit_embeddings():
    asked = []

    def embed(texts):
        asked.extend(texts)
        return torch.tensor([[len(text), text.count("a"), 1.0] for text in texts])

    embeds = class_embeddings(embed, ["area", "b"], ["a {}.", "{}"])
    assert asked == ["a area.", "area", "a b.", "b"]
    rows = np.array([[len(t), t.count("a"), 1.0] for t in asked])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    means = rows.reshape(2, 2, 3).mean(axis=1)
    np.testing.assert_allclose(embeds.numpy(), means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no place for a name"):
        class_embeddings(lambda texts: torch.ones(len(texts), 2), ["a"], ["no place for a name"])
    with pytest.raises(ValueError, match="2 labels for 3 images"):
        zero_shot_metrics(np.ones((3, 2)), np.ones((2, 2)), [0, 1])
    with pytest.raises(ValueError, match="labels .* 2 classes"):
        zero_shot_metrics(np.ones((1, 2)), np.ones((2, 2)), [2])
