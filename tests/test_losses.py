"""The losses against float64 numpy written from the papers."""

import numpy as np
import pytest
import torch

from rsmclip.training.losses import SelfDistillationLoss, clip_loss


def unit(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def tensor(array):
    return torch.tensor(array, dtype=torch.float32)


def test_clip_loss_equals_radford_et_al_figure_3():
    rng = np.random.default_rng(0)
    images, texts, scale = unit(rng, 7, 5), unit(rng, 7, 5), 12.5
    logits = scale * images @ texts.T
    rows = -np.mean(np.diag(log_softmax(logits)))
    columns = -np.mean(np.diag(log_softmax(logits.T)))
    loss = clip_loss(tensor(images), tensor(texts), torch.tensor(scale))
    assert loss.item() == pytest.approx((rows + columns) / 2, abs=1e-5)


def test_clip_loss_of_perfect_pairs_is_small_and_of_equal_embeddings_is_log_n():
    eye = torch.eye(6)
    assert clip_loss(eye, eye, torch.tensor(100.0)).item() < 1e-6
    same = torch.ones(6, 4) / 2
    assert clip_loss(same, same, torch.tensor(30.0)).item() == pytest.approx(np.log(6), abs=1e-5)


def test_self_distillation_loss_equals_dino_algorithm_1():
    rng = np.random.default_rng(1)
    student, teacher, center = rng.standard_normal((5, 4, 9)), rng.standard_normal((2, 4, 9)), rng.standard_normal(9)
    pairs = []
    for t in range(2):
        target = np.exp(log_softmax((teacher[t] - center) / 0.04))
        for s in range(5):
            if s != t:
                pairs.append(-(target * log_softmax(student[s] / 0.1)).sum(axis=-1).mean())
    loss = SelfDistillationLoss(9)
    loss.center.copy_(tensor(center))
    value = loss(tensor(student), tensor(teacher), teacher_temperature=0.04)
    assert value.item() == pytest.approx(np.mean(pairs), rel=1e-5)


def test_a_view_is_never_compared_with_itself():
    student = torch.zeros(2, 3, 4, requires_grad=True)
    teacher = torch.full((2, 3, 4), 0.0)
    teacher[0, :, 0] = 9.0  # only the first view is sure of anything
    SelfDistillationLoss(4)(student, teacher, 0.1).backward()
    assert torch.allclose(student.grad[0], torch.zeros(3, 4), atol=1e-7)
    assert student.grad[1, :, 0].max() < 0


def test_center_is_a_moving_average_of_the_teacher():
    rng = np.random.default_rng(2)
    loss, expected = SelfDistillationLoss(6, center_momentum=0.8), np.zeros(6)
    for _ in range(3):
        logits = rng.standard_normal((2, 5, 6))
        loss.update_center(tensor(logits))
        expected = 0.8 * expected + 0.2 * logits.mean(axis=(0, 1))
    np.testing.assert_allclose(loss.center.numpy(), expected, atol=1e-6)
    assert "center" in loss.state_dict()
