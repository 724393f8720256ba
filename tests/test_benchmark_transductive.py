"""The folders that the benchmark of transductive classification draws, and its summary."""

import numpy as np
import pytest
import torch

from rsmclip.benchmarks.transductive import DRAWS, measure_situation, situations, summarize
from rsmclip.eval.zero_shot import label_ranks, score_ranks, transductive_assignments

TARGETS = np.repeat(np.arange(4), [40, 30, 35, 50])


def test_folders_have_the_images_and_the_list_of_their_name():
    found = dict(situations(TARGETS, np.random.default_rng(0)))
    for folders in found.values():
        assert all(len(np.unique(rows)) == len(rows) for rows, _ in folders)
    ((rows, listed),) = found["all images"]
    assert len(rows) == len(TARGETS) and listed.tolist() == [0, 1, 2, 3]

    def counts(name: str) -> list[list[int]]:
        assert len(found[name]) == DRAWS
        return [np.bincount(TARGETS[rows], minlength=4).tolist() for rows, _ in found[name]]

    assert counts("5 images of each class") == [[5] * 4] * DRAWS
    assert {tuple(sorted(each)) for each in counts("one class with 10 times the images")} == {(3, 3, 3, 30)}
    assert {each.count(0) for each in counts("no images of half of the classes")} == {2}
    assert {len(listed) for _, listed in found["one class not in the list"]} == {3}
    assert {len(rows) for rows, _ in found["one class not in the list"]} == {len(TARGETS)}


def test_images_of_a_class_that_is_not_in_the_list_take_part_but_do_not_count():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((4, 16))
    images = torch.tensor(centers[TARGETS] + rng.standard_normal((len(TARGETS), 16)))
    texts = {code: torch.tensor(centers + rng.standard_normal((4, 16))) for code in ("en", "pt")}
    listed, everything = np.array([0, 2, 3]), np.arange(len(TARGETS))
    outcomes = measure_situation([(everything, listed)], images, texts, TARGETS, own=10.0)
    summary = summarize(outcomes["own"], outcomes["own"].zero_shot)["accuracy"]

    kept = TARGETS != 1
    labels = np.searchsorted(listed, TARGETS[kept])
    alone = [label_ranks(images[kept], texts[code][listed], labels)[0] == 0 for code in texts]
    assigned = [transductive_assignments(images, texts[code][listed], 10.0)[kept] for code in texts]
    together = [score_ranks(each, labels)[0] == 0 for each in assigned]
    assert summary["alone"] == pytest.approx(100 * np.mean(alone))
    assert summary["together"] == pytest.approx(100 * np.mean(together))
    assert summary["interval"][0] <= summary["difference"] <= summary["interval"][1]
