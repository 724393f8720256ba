"""Batches do not depend on processes, workers or resumption. Bad images are replaced, and bugs are not hidden."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.image_processing_rsmclip import RSMCLIPImageProcessor, scale_to_8_bit
from rsmclip.training.batches import (
    MOST_SENTENCES,
    CaptionedViews,
    CaptionSampling,
    Collate,
    StepSampler,
    decode_image,
    group_by_length,
    image_sentence_ids,
    sentence_id,
)
from rsmclip.training.views import ViewSpec

CAPTIONS = CaptionSampling.parse("uniform", list(LANGUAGES), count=2)
SPECS = {"global": ViewSpec(2, 32, (0.4, 1.0)), "local": ViewSpec(3, 16, (0.1, 0.4))}


def batches(corpus, tokenizer, workers=0, **sampling):
    sampler = StepSampler(num_rows=len(corpus), max_steps=12, **sampling)
    dataset = CaptionedViews(corpus, CAPTIONS, SPECS, short_side=48, seed=3)
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
        assert a["captions"] == b["captions"] and torch.equal(a["sentence_ids"], b["sentence_ids"])
        assert all(torch.equal(a["views"][s][k], b["views"][s][k]) for s in SPECS for k in a["views"][s])


def test_a_batch_has_two_captions_of_each_image(corpus, tokenizer):
    batch = batches(corpus["train"], tokenizer, batch_size=8)[0]
    assert batch["input_ids"].shape[:2] == (2, 8)
    assert batch["views"]["global"]["box"].shape == (8, 2, 4) and batch["views"]["local"]["box"].shape == (8, 3, 4)
    assert batch["pixels"].dtype == torch.uint8
    captions = {row["image_id"]: row["captions"] for row in corpus["train"].remove_columns("image")}
    assert batch["sentence_ids"].shape == (2, 8) and batch["image_sentence_ids"].shape == (MOST_SENTENCES, 8)
    assert torch.isin(batch["sentence_ids"][:, 3], batch["image_sentence_ids"][:, 3]).all()
    for drawn, tokens in zip(batch["captions"], batch["input_ids"], strict=True):
        for image_id, caption, ids in zip(batch["image_ids"], drawn, tokens, strict=True):
            assert tokenizer.decode(ids, skip_special_tokens=True) == caption
            assert caption in [text for texts in captions[image_id].values() for text in texts]


def draws(sampling: str, languages: list[str], count: int, captions: dict, times: int = 400) -> list:
    parsed, rng = CaptionSampling.parse(sampling, languages, count), np.random.default_rng(0)
    return [parsed.draw(captions, rng) for _ in range(times)]


TEXTS = {"en": ["a", "b"], "pt": ["c", None], "ko": None, "de": [None, None], "fr": ["e", "f"]}


def test_captions_of_an_image_come_from_different_languages():
    drawn = [texts for texts, _ in draws("uniform", ["en", "pt", "ko", "de"], 2, TEXTS)]
    assert all((first in "ab") != (second in "ab") for first, second in drawn)
    firsts = [first for first, _ in drawn]
    assert 150 < firsts.count("c") < 250  # languages are drawn uniformly, then captions
    assert {text for texts, _ in draws("uniform", ["en", "pt"], 3, {"en": ["a"]}) for text in texts} == {"a"}


def test_english_anchor_is_english_first_and_another_language():
    drawn = [texts for texts, _ in draws("english_anchor", ["pt", "en", "fr"], 2, TEXTS)]
    assert all(first in "ab" and second in "cef" for first, second in drawn)
    assert 150 < [second for _, second in drawn].count("c") < 250
    without = [texts for texts, _ in draws("english_anchor", ["pt", "en"], 2, {"pt": ["c", "d"], "en": [None, None]})]
    assert {text for texts in without for text in texts} == {"c", "d"}


def test_captions_of_a_step_are_different_sentences_where_there_are_such():
    twice = {"en": ["a", "a", "b"], "pt": ["A", "A", None], "fr": ["A'", None, None]}
    sentence = {"A": "a", "A'": "a"}
    for sampling, languages in (
        ("uniform", ["en"]),
        ("uniform", ["pt", "fr", "en"]),
        ("english_anchor", ["fr", "en"]),
    ):
        drawn = [texts for texts, _ in draws(sampling, languages, 2, twice)]
        assert all(sorted(sentence.get(text, text) for text in texts) == ["a", "b"] for texts in drawn)
    assert all(texts[0] == "b" and texts[1] == "A'" for texts in drawn)  # English first, and the other language stays
    three = [ids for _, ids in draws("uniform", ["en"], 3, twice)]
    assert all(len(set(ids)) == 2 for ids in three)
    few = [texts for texts, _ in draws("uniform", ["pt", "fr"], 2, twice)]
    assert {tuple(sorted(texts)) for texts in few} == {("A", "A'")}  # one sentence: two languages


def test_languages_are_drawn_by_their_weights():
    firsts = [texts[0] for texts, _ in draws("en=6, fr=3", ["en", "pt", "fr"], 1, TEXTS, 2000)]
    shares = [sum(first in texts for first in firsts) / 2000 for texts in ("ab", "c", "ef")]
    np.testing.assert_allclose(shares, [0.6, 0.1, 0.3], atol=0.04)
    assert {texts[0] for texts, _ in draws("en=0", ["en", "pt"], 1, TEXTS)} == {"c"}


@pytest.mark.parametrize("sampling", ["englsh_anchor", "xx=2", "en=much", "en=-1", "en=0,pt=0", "en=nan"])
def test_a_bad_sampling_is_refused_by_name(sampling):
    with pytest.raises(UserError, match="language_sampling"):
        CaptionSampling.parse(sampling, ["en", "pt"], 2)
    with pytest.raises(UserError, match="captions_per_image"):
        CaptionSampling.parse("english_anchor", ["en", "pt"], 1)


def test_weights_also_choose_the_language_of_a_caption_more_than_there_are_languages():
    captions = {"en": ["one", "two", "three"], "pt": ["um", "dois", "três"]}

    def share(sampling: str) -> float:
        rng, parsed = np.random.default_rng(0), CaptionSampling.parse(sampling, ["en", "pt"], 3)
        return np.mean([text in captions["en"] for _ in range(500) for text in parsed.draw(captions, rng)[0]])

    assert share("uniform") == pytest.approx(0.5, abs=0.03)
    assert share("en=30") > 0.62


def test_translations_of_a_sentence_share_its_number():
    captions = {"en": ["a lake", "a sea", None], "pt": ["um lago", "um mar", "um rio"]}
    other = {"en": ["a lake"], "de": ["ein See"]}
    numbers = {}
    for texts, ids in [*draws("uniform", ["en", "pt"], 2, captions), *draws("uniform", ["de"], 1, other)]:
        numbers |= dict(zip(texts, ids, strict=True))
    assert numbers["a lake"] == numbers["um lago"] == numbers["ein See"]
    assert len(set(numbers.values())) == 3  # lake, sea, and the river that has no English caption
    assert all(-(2**63) <= number < 2**63 for number in numbers.values())


def test_all_sentences_of_an_image_travel_with_it_and_padding_is_one_of_them():
    captions = {"en": ["a lake", "a sea", None], "pt": ["um lago", "um mar", "um rio"], "de": None}
    (_, drawn), *_ = draws("uniform", ["pt"], 2, captions)
    known = image_sentence_ids(captions, drawn)
    assert len(known) == MOST_SENTENCES and known[:2] == drawn  # drawn ones first
    assert set(known) == {sentence_id(text) for text in ("a lake", "a sea", "um rio")}
    many = {"en": [f"sentence {number}" for number in range(40)]}
    drawn = [sentence_id("sentence 39"), sentence_id("sentence 38")]
    known = image_sentence_ids(many, drawn)
    assert len(set(known)) == len(known) == MOST_SENTENCES and known[:2] == drawn
    assert len(image_sentence_ids(many, list(range(20)))) == 20  # drawn ones are never left out


def test_captions_are_grouped_by_length_in_multiples():
    mask = (torch.arange(24) < torch.tensor([[20], [3], [9], [4], [17], [8], [2], [11]])).long()
    groups = group_by_length(mask, groups=4, multiple=8)
    assert [length for _, length in groups] == [8, 8, 16, 24]
    assert sorted(row for rows, _ in groups for row in rows.tolist()) == list(range(8))
    assert [length for _, length in group_by_length(mask, groups=1)] == [20]


def test_lengths_are_padded_to_multiples(corpus, tokenizer):
    examples = [CaptionedViews(corpus["train"], CAPTIONS, SPECS, 48)[(0, row)] for row in range(6)]
    batch = Collate(tokenizer, 77, groups=2, multiple=8)(examples)
    assert batch["input_ids"].shape[-1] % 8 == 0
    assert all(length % 8 == 0 and length <= batch["input_ids"].shape[-1] for _, length in batch["text_groups"])
    plain = Collate(tokenizer, 77, groups=2)(examples)
    width = plain["input_ids"].shape[-1]
    assert batch["input_ids"][..., :width].equal(plain["input_ids"]) and not batch["attention_mask"][..., width:].any()
    short = Collate(tokenizer, 5, multiple=8)(examples)  # never longer than the text tower takes
    assert short["input_ids"].shape[-1] == 5 and {length for _, length in short["text_groups"]} == {5}


def break_images(corpus, count):
    def broken(row, index):
        return {"image": {"bytes": row["image"]["bytes"][: 200 if index < count else None], "path": None}}

    return corpus.map(broken, with_indices=True, load_from_cache_file=False)


def test_an_undecodable_image_is_named_and_replaced(corpus):
    rows = break_images(corpus["train"], 1)
    example = CaptionedViews(rows, CAPTIONS, SPECS, 48)[(0, 0)]
    assert example["undecodable"] == ["demo/train_0"]
    assert example["image_id"] != "demo/train_0" and example["pixels"].shape == (3, 48, 48)
    assert CaptionedViews(rows, CAPTIONS, SPECS, 48)[(0, 0)]["image_id"] == example["image_id"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_broken_images_is_an_error_that_names_them(corpus, tokenizer, workers):
    rows = break_images(corpus["train"], 60)
    error = batches(rows, tokenizer, workers, batch_size=8)[0]
    expected = r"2 of 60 .* demo/train_\d+, demo/train_\d+ \(Truncated .*\)"
    assert isinstance(error, UserError) and re.search(expected, str(error))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_our_code_is_no_undecodable_image(corpus, tokenizer, workers, monkeypatch):
    def broken(image):
        raise TypeError("a bug of ours")

    monkeypatch.setattr("rsmclip.image_processing_rsmclip.as_image", broken)
    with pytest.raises(TypeError, match="a bug of ours"):
        batches(corpus["train"], tokenizer, workers, batch_size=8)


def test_values_of_unknown_range_are_an_undecodable_image(corpus, monkeypatch):
    unknown = "rsmclip.image_processing_rsmclip.as_image"
    monkeypatch.setattr(unknown, lambda image: scale_to_8_bit(np.array([300.0])))
    assert isinstance(CaptionedViews(corpus["train"], CAPTIONS, SPECS, 48)[(0, 0)], UserError)


def encode(image: Image.Image) -> bytes:
    image.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


IMAGES = {
    "16 bits": Image.fromarray(np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)),
    "transparent": Image.new("RGBA", (64, 64), (200, 0, 0, 0)),
    "half transparent": Image.new("LA", (64, 64), (0, 100)),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_pixels_are_those_that_the_models_processor_takes(image):
    expected = RSMCLIPImageProcessor(do_resize=False, do_center_crop=False, do_normalize=False, rescale_factor=1 / 255)
    pixels = expected(image, return_tensors="pt")["pixel_values"][0] * 255
    torch.testing.assert_close(decode_image(encode(image), 64).float(), pixels, atol=0.01, rtol=0)


SIZES = [((96, 96), 40, (40, 40)), ((96, 96), 500, (96, 96)), ((300, 96), 48, (48, 150)), ((4800, 96), 96, (8, 384))]


@pytest.mark.parametrize(("size", "short_side", "expected"), SIZES)
def test_the_short_side_is_reduced_and_strips_more(size, short_side, expected):
    assert decode_image(encode(Image.new("RGB", size)), short_side).shape == (3, *expected)


def test_an_image_beside_the_table_is_read(corpus, tmp_path):
    (tmp_path / "image.png").write_bytes(corpus["train"][0]["image"]["bytes"])
    beside = {"image": {"bytes": None, "path": str(tmp_path / "image.png")}}
    rows = corpus["train"].select([0]).map(lambda row: beside, load_from_cache_file=False)
    example, expected = (CaptionedViews(table, CAPTIONS, SPECS, 48)[(0, 0)] for table in (rows, corpus["train"]))
    assert not example["undecodable"] and torch.equal(example["pixels"], expected["pixels"])
