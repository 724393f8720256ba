"""Losses against float64 numpy written from the papers, and several processes against one process."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from rsmclip.training.losses import (
    Centering,
    clip_loss,
    effective_rank,
    entropy,
    kl_divergence,
    self_distillation_loss,
    sinkhorn_knopp,
)
from tests.process import one_of_several_processes


def unit(rng, *shape):
    rows = rng.standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def tensor(array):
    return torch.tensor(array, dtype=torch.float32)


def info_nce_by_hand(images, texts, scale, sentences=None, duplicates="positive", known=None):
    size, losses = len(images[0]), []
    sentences = np.tile(range(size), (len(texts), 1)) if sentences is None else sentences
    known = sentences if known is None else known
    for view in images:
        for number, captions in enumerate(texts):
            right = [[j for j in range(size) if sentences[number][j] in known[:, i]] for i in range(size)]
            for rows, same in (
                (scale * view @ captions.T, right),  # captions with a sentence of the image
                (scale * captions @ view.T, [[i for i in range(size) if j in right[i]] for j in range(size)]),
            ):
                for i, row in enumerate(rows):
                    if duplicates == "ignore":
                        row = np.array([-np.inf if j in same[i] and j != i else value for j, value in enumerate(row)])
                    losses.append(-np.mean(log_softmax(row)[same[i] if duplicates == "positive" else [i]]))
    return np.mean(losses)


def test_clip_loss_equals_radford_et_al_figure_3():
    rng = np.random.default_rng(0)
    images, texts, scale = unit(rng, 1, 7, 5), unit(rng, 1, 7, 5), 12.5
    logits = scale * images[0] @ texts[0].T
    rows = -np.mean(np.diag(log_softmax(logits)))
    columns = -np.mean(np.diag(log_softmax(logits.T)))
    loss = clip_loss(tensor(images), tensor(texts), torch.tensor(scale))
    assert loss.item() == pytest.approx((rows + columns) / 2, abs=1e-5)
    assert info_nce_by_hand(images, texts, scale) == pytest.approx((rows + columns) / 2)


@pytest.mark.parametrize("duplicates", ["positive", "ignore", "negative"])
@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("more", [None, [[9, 1, 22, 30, 7, 31, 2, 4], [9, 6, 20, 30, 30, 3, 2, 40]]])
def test_clip_loss_over_views_captions_and_equal_sentences(duplicates, chunk_size, more):
    rng = np.random.default_rng(1)
    images, texts, scale = unit(rng, 2, 8, 5), unit(rng, 3, 8, 5), 9.0
    sentences = np.array([[1, 2, 1, 3, 4, 1, 5, 6], [7, 7, 1, 7, 8, 9, 10, 8], [20, 21, 22, 2, 24, 7, 26, 27]])
    known = sentences if more is None else np.concatenate([sentences, more])
    expected = info_nce_by_hand(images, texts, scale, sentences, duplicates, known)
    if more is not None and duplicates != "negative":  # a caption that was not drawn counts
        assert abs(expected - info_nce_by_hand(images, texts, scale, sentences, duplicates)) > 0.01
    image_sentences = None if more is None else torch.tensor(known)
    choices = {"duplicate_captions": duplicates, "image_sentence_ids": image_sentences}
    image_embeds, text_embeds = tensor(images).requires_grad_(), tensor(texts).requires_grad_()
    arguments = torch.tensor(scale), torch.tensor(sentences)
    loss = clip_loss(image_embeds, text_embeds, *arguments, chunk_size=chunk_size, **choices)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    whole = [tensor(images).requires_grad_(), tensor(texts).requires_grad_()]
    clip_loss(*whole, *arguments, **choices).backward()
    torch.testing.assert_close(image_embeds.grad, whole[0].grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(text_embeds.grad, whole[1].grad, atol=1e-6, rtol=1e-5)


def test_chunks_hold_no_logits_of_the_whole_batch():
    embeds = torch.nn.functional.normalize(torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    sizes = []

    def note(saved):
        sizes.append(saved.numel())
        return saved

    for chunk_size in (None, 8):
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            images, texts = embeds.clone().requires_grad_(), embeds.clone().requires_grad_()
            clip_loss(images, texts, torch.tensor(5.0), chunk_size=chunk_size)
        assert (sum(sizes) >= 64 * 64) == (chunk_size is None)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_give_the_gradient_center_and_targets_of_one_process(processes, tmp_path):
    rng = np.random.default_rng(3)
    images, texts = tensor(unit(rng, 2, 12, 6)), tensor(unit(rng, 2, 12, 6))
    sentences = torch.tensor(rng.integers(0, 25, (2, 12)))
    known = torch.cat([sentences, torch.tensor(rng.integers(0, 25, (3, 12)))])
    logits = tensor(rng.uniform(-1, 1, (2, 12, 9)))
    torch.save((images, texts, sentences, known, logits), tmp_path / "inputs.pt")
    mp.spawn(one_of_several_processes, (processes, tmp_path), nprocs=processes)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(processes)]

    whole = [images.clone().requires_grad_(), texts.clone().requires_grad_(), torch.tensor(7.0, requires_grad=True)]
    loss = clip_loss(*whole, sentences, "positive", image_sentence_ids=known)
    loss.backward()
    centering = Centering(9)
    centering(logits, 0.1)
    # DistributedDataParallel averages the gradients of the weights over processes; so here those of the embeddings.
    assert sum(part["loss"] for part in parts) / processes == pytest.approx(loss.item(), abs=1e-6)
    for name, value in (("images", whole[0].grad), ("texts", whole[1].grad)):
        torch.testing.assert_close(torch.cat([p[name] for p in parts], 1) / processes, value, atol=1e-6, rtol=1e-5)
    assert sum(part["scale"] for part in parts) / processes == pytest.approx(whole[2].grad.item(), abs=1e-6)
    sinkhorn = sinkhorn_knopp(logits.flatten(0, 1) / 0.1).view(2, 12, 9)
    torch.testing.assert_close(torch.cat([p["sinkhorn"] for p in parts], 1), sinkhorn, atol=1e-6, rtol=1e-5)
    for part in parts:
        torch.testing.assert_close(part["center"], centering.center, atol=1e-6, rtol=1e-5)
        assert part["use"] == centering.prototype_use() and part["won"].equal(centering.ever_won)


def test_self_distillation_loss_equals_dino_algorithm_1():
    rng = np.random.default_rng(1)
    student, teacher, center = rng.standard_normal((5, 4, 9)), rng.standard_normal((2, 4, 9)), rng.standard_normal(9)
    pairs = []
    for t in range(2):
        target = np.exp(log_softmax((teacher[t] - center) / 0.04))
        for s in range(5):
            if s != t:
                pairs.append(-(target * log_softmax(student[s] / 0.1)).sum(axis=-1))
    centering = Centering(9)
    centering.center.copy_(tensor(center))
    losses = self_distillation_loss(tensor(student), centering(tensor(teacher), 0.04), 0.1)
    np.testing.assert_allclose(losses.numpy(), np.mean(pairs, axis=0), rtol=1e-5)


def test_sinkhorn_knopp_equals_dinov2_in_float64():
    # DINOv2's `sinkhorn_knopp_teacher`, line by line
    rng = np.random.default_rng(5)
    scores = rng.uniform(-1, 1, (30, 6)) / 0.07
    q = np.exp(scores).T  # prototypes x samples
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(axis=1, keepdims=True) * 6
        q /= q.sum(axis=0, keepdims=True) * 30
    expected = (q * 30).T
    np.testing.assert_allclose(sinkhorn_knopp(tensor(scores)).numpy(), expected, atol=1e-5)
    many = sinkhorn_knopp(tensor(scores), iterations=100)
    np.testing.assert_allclose(many.sum(dim=1).numpy(), 1, atol=1e-5)
    np.testing.assert_allclose(many.sum(dim=0).numpy(), 30 / 6, atol=1e-2)
    assert sinkhorn_knopp(tensor(rng.uniform(-1, 1, (4, 9)) / 0.01)).isfinite().all()


def test_center_is_a_moving_average_that_a_bad_batch_leaves_alone():
    rng = np.random.default_rng(2)
    centering, expected = Centering(6, momentum=0.8), np.zeros(6)
    for _ in range(3):
        logits = rng.standard_normal((2, 5, 6))
        targets = centering(tensor(logits), 0.1)
        np.testing.assert_allclose(targets.numpy(), np.exp(log_softmax((logits - expected) / 0.1)), atol=1e-5)
        expected = 0.8 * expected + 0.2 * logits.mean(axis=(0, 1))
    np.testing.assert_allclose(centering.center.numpy(), expected, atol=1e-6)
    centering(torch.full((2, 5, 6), torch.nan), 0.1)
    np.testing.assert_allclose(centering.center.numpy(), expected, atol=1e-6)
    assert {"center", "ever_won"} == set(centering.state_dict())


def test_entropy_is_a_share_of_the_largest():
    assert entropy(torch.full((2, 3, 8), 1 / 8)).item() == pytest.approx(1)
    assert entropy(torch.eye(8)[None]).item() == 0
    assert entropy(torch.tensor([[[0.5, 0.5, 0, 0]]])).item() == pytest.approx(0.5)


def test_kl_divergence_is_the_mean_over_pairs_of_views():
    rng = np.random.default_rng(4)
    student, targets = rng.standard_normal((4, 3, 6)), np.exp(log_softmax(rng.standard_normal((2, 3, 6))))
    log_probs = log_softmax(student / 0.5)
    pairs = [(targets[t] * (np.log(targets[t]) - log_probs[v])).sum(-1) for t in range(2) for v in range(4) if t != v]
    loss = self_distillation_loss(tensor(student), tensor(targets), 0.5).mean()
    assert kl_divergence(loss, tensor(targets)).item() == pytest.approx(np.mean(pairs), rel=1e-5)


def test_prototype_use_counts_those_that_ever_won():
    centering = Centering(8)
    for winner in (1, 1, 4):
        logits = torch.zeros(1, 3, 8)
        logits[..., winner] = 5
        centering.center.zero_()
        centering(logits, 0.1)
    assert centering.prototype_use().item() == pytest.approx(2 / 8)


def test_effective_rank_equals_rankme():
    assert effective_rank(torch.eye(16)[:5].repeat(4, 1)).item() == pytest.approx(5, rel=1e-4)
    rows = np.random.default_rng(0).standard_normal((20, 16))
    values = np.linalg.svd(rows, compute_uv=False)
    shares = values / values.sum()
    assert effective_rank(tensor(rows)).item() == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
