"""Rows of several corpora: their shares, and an order that depends on seed and step only."""

from collections import Counter

import numpy as np
import pytest
from accelerate import Accelerator

from rsmclip.core.errors import UserError
from rsmclip.training.batches import CaptionedViews, CaptionSampling, StepSampler
from rsmclip.training.config import TrainingConfig
from rsmclip.training.dry_run import describe_data
from rsmclip.training.loading import load_splits
from rsmclip.training.source_sampling import SourceOrder, source_shares
from rsmclip.training.views import ViewSpec

SOURCES = ["small"] * 5 + ["large"] * 40 + ["middle"] * 15
BATCH = 8  # 60 rows: 7 steps an epoch, 56 draws


def steps(sampling: str, first_step: int = 0, processes: int = 1, rank: int = 0, seed: int = 4) -> list:
    order = SourceOrder(SOURCES, sampling, 56, seed)
    sampler = StepSampler(60, BATCH // processes, 70, first_step, seed, rank, processes, order)
    assert sampler.steps_per_epoch == 7
    return list(sampler)


def drawn(batches: list) -> list[str]:
    return [SOURCES[row] for batch in batches for _, row in batch]


def test_every_epoch_has_the_shares_of_the_weights():
    batches = steps("small=1,middle=2,large=4")
    for epoch in range(10):
        assert Counter(drawn(batches[7 * epoch : 7 * epoch + 7])) == {"small": 8, "middle": 16, "large": 32}
    first = Counter(drawn(batches[:3]))
    assert len(first) == 3 and set(drawn(steps("small=1,middle=0,large=1"))) == {"small", "large"}


def test_a_temperature_near_0_draws_the_largest_corpus_alone():
    assert set(drawn(steps("1e-320"))) == {"large"}


def test_a_temperature_flattens_the_sizes():
    sizes = {"a": 100, "b": 400}
    assert source_shares("1", sizes) == pytest.approx([0.2, 0.8])
    assert source_shares("2", sizes) == pytest.approx([1 / 3, 2 / 3])
    assert source_shares("inf", sizes) == pytest.approx([0.5, 0.5])
    assert source_shares("0.0001", sizes) == pytest.approx([0, 1])


@pytest.mark.parametrize("sampling", ["small=1,middle=1,large=1", "3"])
def test_no_row_repeats_before_all_rows_of_its_corpus_were_drawn(sampling):
    batches = steps(sampling)
    for source in set(SOURCES):
        size, rows = SOURCES.count(source), [row for batch in batches for _, row in batch if SOURCES[row] == source]
        assert len(rows) > size
        rounds = [rows[start : start + size] for start in range(0, len(rows), size)]
        assert all(len(set(part)) == len(part) for part in rounds)
        assert rounds[0] != rounds[1]


def test_a_row_that_comes_again_has_another_number_and_so_other_views(corpus):
    pairs = [pair for batch in steps("small=9") for pair in batch]
    assert len(set(pairs)) == len(pairs) == 70 * BATCH
    again = [pair for pair in pairs[:56] if pair[1] == 0]
    specs = {"global": ViewSpec(2, 32, (0.4, 1.0))}
    views = CaptionedViews(corpus["train"], CaptionSampling.parse("uniform", ["en"], 1), specs, 48)
    boxes = [views[pair]["views"]["global"]["box"] for pair in again]
    assert len(boxes) > 4 and not any(np.array_equal(boxes[0], box) for box in boxes[1:])


def test_it_is_a_function_of_seed_and_step():
    whole = steps("2")
    assert steps("2", first_step=33) == whole[33:] and steps("2") == whole != steps("2", seed=5)
    parts = [steps("2", processes=2, rank=rank) for rank in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole


def test_the_corpora_are_shuffled_together():
    first_half = Counter(drawn(steps("small=1,middle=1,large=1")[:70:7]))  # the first steps of ten epochs
    assert min(first_half.values()) > 10


@pytest.mark.parametrize("sampling", ["rsicd=1", "small=x", "small=-1", "small=0,middle=0,large=0", "0", "-2", "nan"])
def test_a_bad_sampling_is_refused_by_name(sampling):
    with pytest.raises(UserError, match="source_sampling"):
        SourceOrder(SOURCES, sampling, 56, 0)


def test_a_run_is_refused_before_it_starts_and_a_dry_run_prints_the_draws(corpus, corpus_folder):
    fields = {"dataset": str(corpus_folder), "batch_size": 12}
    with pytest.raises(UserError, match="source_sampling.*rsicd.*demo"):
        load_splits(TrainingConfig(**fields, source_sampling="rsicd=2"), Accelerator(cpu=True))
    names = np.array(["one", "two"])[np.arange(60) % 4 // 3]
    rows = corpus["train"].remove_columns("source").add_column("source", names.tolist())
    printed = describe_data(TrainingConfig(**fields, source_sampling="one=1"), {"train": rows})
    table = [line.split() for line in printed.splitlines()]
    assert ["one", "45", "30"] in table and ["two", "15", "30"] in table
