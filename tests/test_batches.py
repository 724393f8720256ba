"""Batches: the same rows, captions and views whatever the number of processes, workers and resumptions."""

import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from rsmclip.data.schema import LANGUAGES
from rsmclip.training.batches import (
    CaptionedViews,
    Collate,
    StepSampler,
    UndecodableImagesError,
    decode_image,
    draw_captions,
)
from rsmclip.training.views import ViewSpec

SPECS = {"global": ViewSpec(2, 32, (0.4, 1.0)), "local": ViewSpec(3, 16, (0.1, 0.4))}


def batches(corpus, tokenizer, workers=0, **sampling):
    sampler = StepSampler(num_rows=len(corpus), max_steps=12, **sampling)
    dataset = CaptionedViews(corpus, list(LANGUAGES), SPECS, short_side=48, seed=3)
    return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=Collate(tokenizer, 77), num_workers=workers))


def test_every_epoch_is_a_permutation_without_its_last_incomplete_batch():
    steps = list(StepSampler(num_rows=23, batch_size=5, max_steps=8, seed=1))
    for epoch in range(2):
        rows = [row for batch in steps[4 * epoch : 4 * epoch + 4] for _, row in batch]
        assert len(rows) == len(set(rows)) == 20
        assert {e for batch in steps[4 * epoch : 4 * epoch + 4] for e, _ in batch} == {epoch}
    assert steps[0] != steps[4]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_global_batch_of_one_process(processes):
    whole = list(StepSampler(num_rows=50, batch_size=6, max_steps=20, seed=4))
    parts = [
        list(StepSampler(50, 6 // processes, 20, seed=4, rank=rank, world_size=processes)) for rank in range(processes)
    ]
    for step, batch in enumerate(whole):
        assert batch == [row for part in parts for row in part[step]]


def test_a_resumed_sampler_continues():
    whole = list(StepSampler(num_rows=30, batch_size=4, max_steps=15, seed=2))
    assert list(StepSampler(30, 4, 15, first_step=9, seed=2)) == whole[9:]


def test_workers_change_nothing(corpus, tokenizer):
    alone, shared = (batches(corpus["train"], tokenizer, workers, batch_size=8) for workers in (0, 2))
    for a, b in zip(alone, shared, strict=True):
        assert a["image_ids"] == b["image_ids"]
        assert torch.equal(a["input_ids"], b["input_ids"]) and torch.equal(a["pixels"], b["pixels"])
        assert all(torch.equal(a["views"][s][k], b["views"][s][k]) for s in SPECS for k in a["views"][s])


def test_a_batch_has_a_caption_for_each_global_view(corpus, tokenizer):
    batch = batches(corpus["train"], tokenizer, batch_size=8)[0]
    assert batch["input_ids"].shape[:2] == (2, 8)
    assert batch["views"]["global"]["box"].shape == (8, 2, 4) and batch["views"]["local"]["box"].shape == (8, 3, 4)
    assert batch["pixels"].dtype == torch.uint8
    captions = {row["image_id"]: row["captions"] for row in corpus["train"].remove_columns("image")}
    for view in range(2):
        for image_id, ids in zip(batch["image_ids"], batch["input_ids"][view], strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            assert text in [t for texts in captions[image_id].values() for t in texts]


def test_captions_of_an_image_come_from_different_languages():
    captions = {"en": ["a", "b"], "pt": ["c", None], "ko": None, "de": [None, None]}
    rng = np.random.default_rng(0)
    drawn = [draw_captions(captions, ["en", "pt", "ko", "de"], 2, rng) for _ in range(400)]
    assert all((first in "ab") != (second in "ab") for first, second in drawn)
    firsts = [first for first, _ in drawn]
    assert 150 < firsts.count("c") < 250  # languages are drawn uniformly, then captions
    assert set(draw_captions({"en": ["a"]}, ["en", "pt"], 3, rng)) == {"a"}


def break_images(corpus, count):
    """The corpus with the images of its first `count` rows cut off."""

    def broken(row, index):
        if index < count:
            row["image"] = {"bytes": row["image"]["bytes"][:200], "path": None}
        return row

    return corpus.map(broken, with_indices=True, load_from_cache_file=False)


def test_an_undecodable_image_is_named_and_replaced(corpus):
    rows = break_images(corpus["train"], 1)
    example = CaptionedViews(rows, ["en"], SPECS, 48)[(0, 0)]
    assert example["undecodable"] == ["demo/train_0"]
    assert example["image_id"] != "demo/train_0" and example["pixels"].shape == (3, 48, 48)
    assert CaptionedViews(rows, ["en"], SPECS, 48)[(0, 0)]["image_id"] == example["image_id"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corpus_of_broken_images_says_so_instead_of_a_batch(corpus, tokenizer, workers):
    rows = break_images(corpus["train"], 60)
    error = batches(rows, tokenizer, workers, batch_size=8)[0]
    assert isinstance(error, UndecodableImagesError)
    assert re.match(r"2 of 60 training images cannot be decoded, more than 1%: demo/train_\d+, demo", str(error))


def test_the_short_side_is_reduced_once(corpus):
    encoded = corpus["train"][0]["image"]["bytes"]
    assert decode_image(encoded, 40).shape == (3, 40, 40)
    assert decode_image(encoded, 500).shape == (3, 96, 96)
