"""The cache of embeddings: known ones are not computed, others have other keys, damaged files are not used."""

import copy

import pytest
import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPProcessor

from rsmclip.eval.cache import EmbeddingCache, cache_key, corpus_fingerprint, fingerprint, model_hash, text_fingerprint
from rsmclip.eval.embed import Embedder, TextInput
from rsmclip.eval.models import load_embedder
from rsmclip.models.folder import make_processor, save_model_folder

TEXTS = ["An airport.", "Ein Hafen.", "An airport.", "Два моста."]


@pytest.fixture
def rows(corpus):
    return corpus["val"].select(range(7))


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "cache")


@pytest.fixture
def calls(tiny_model):
    """Count the calls of the towers."""
    counts = {"images": 0, "texts": 0}
    tiny_model.vision_model.register_forward_pre_hook(lambda *_: counts.update(images=counts["images"] + 1))
    tiny_model.text_model.register_forward_pre_hook(lambda *_: counts.update(texts=counts["texts"] + 1))
    return counts


def changed(rows: Dataset, **columns) -> Dataset:
    return Dataset.from_dict({name: rows[name] for name in rows.column_names} | columns, features=rows.features)


def test_known_embeddings_are_not_computed_again(tiny_model, tiny_processor, rows, cache, calls):
    plain = Embedder(tiny_model, tiny_processor, 3)
    expected = plain.images(rows), plain.texts(TEXTS)
    assert calls == {"images": 3, "texts": 1}
    for computed in (2, 2):
        embedder = Embedder(tiny_model, tiny_processor, 3, cache=cache)
        assert torch.equal(embedder.images(rows), expected[0]) and torch.equal(embedder.texts(TEXTS), expected[1])
        assert torch.equal(embedder.texts(TEXTS[::-1]), expected[1].flip(0)), "neither order nor repetition matters"
        assert calls == {"images": 3 * computed, "texts": computed}
    assert len(list(cache.folder.iterdir())) == 2, "nothing unfinished is left"
    Embedder(tiny_model, tiny_processor, 4, cache=cache).images(rows)
    with torch.no_grad():
        tiny_model.visual_projection.weight[0, 0] += 1e-3
    Embedder(tiny_model, tiny_processor, 3, cache=cache).images(rows)
    assert calls["images"] == 6 + 2 + 3, "another batch size or model has another key"


@pytest.mark.parametrize("damage", ["cut off", "a bit", "other rows", "empty"])
def test_a_damaged_file_is_reported_and_computed_again(damage, tiny_model, tiny_processor, rows, cache, calls, capsys):
    embedder = Embedder(tiny_model, tiny_processor, 3, cache=cache)
    expected = embedder.images(rows)
    (path,) = cache.folder.iterdir()
    whole = path.read_bytes()
    if damage == "other rows":
        with safe_open(path, "pt") as file:
            save_file({"embeds": expected[:-1]}, path, file.metadata())
    else:
        flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
        path.write_bytes({"cut off": whole[:-1], "a bit": flipped, "empty": b""}[damage])
    capsys.readouterr()
    assert torch.equal(embedder.images(rows), expected)
    assert str(path) in capsys.readouterr().err
    assert calls["images"] == 6 and path.read_bytes() == whole


def test_embeddings_that_cannot_be_kept_are_still_returned(tiny_model, tiny_processor, rows, tmp_path, capsys):
    (tmp_path / "file").touch()
    embedder = Embedder(tiny_model, tiny_processor, 3, cache=EmbeddingCache(tmp_path / "file" / "cache"))
    assert embedder.images(rows).shape == (7, 16)
    assert str(tmp_path / "file" / "cache") in capsys.readouterr().err


def test_fingerprints_depend_on_content_and_order(rows, tmp_path):
    original = fingerprint(rows)
    rows.to_parquet(tmp_path / "elsewhere.parquet")
    elsewhere = Dataset.from_parquet(str(tmp_path / "elsewhere.parquet"), features=rows.features)
    assert fingerprint(elsewhere.select(range(7))) == original
    assert fingerprint(changed(rows, label=["x"] * 7)) == original
    pictures, ids = rows["image"][:], rows["image_id"][:]
    other_picture = [{"bytes": pictures[0]["bytes"] + b"\0", "path": None}, *pictures[1:]]
    others = [
        changed(rows, image=other_picture),
        changed(rows, image_id=["other", *ids[1:]]),
        rows.select(range(6)),
        rows.select([1, 0, *range(2, 7)]),
    ]
    assert len({original, *map(fingerprint, others)}) == 5


def test_the_fingerprint_of_a_corpus_depends_on_images_and_captions_only(rows, monkeypatch):
    original = corpus_fingerprint(rows, ["a", "b"])
    others = {corpus_fingerprint(rows.select(range(6)), ["a", "b"]), corpus_fingerprint(rows, ["ab"])}
    assert len({original} | others) == 3
    monkeypatch.setattr("rsmclip.eval.cache.version", lambda library: "99.0")
    assert corpus_fingerprint(rows, ["a", "b"]) == original


def test_different_texts_and_keys_have_different_hashes(monkeypatch):
    lists = [["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "c", ""], ["ab c"], []]
    assert len({text_fingerprint(texts) for texts in lists}) == len(lists)
    keys = {cache_key("images", "a", "b"), cache_key("texts", "a", "b"), cache_key("images", "b", "a")}
    monkeypatch.setattr("rsmclip.eval.cache.version", lambda name: "0")
    assert len(keys | {cache_key("images", "a", "b")}) == 4


def test_the_hash_of_a_model_does_not_depend_on_its_folder(tiny_model, tiny_processor, tmp_path):
    expected = model_hash(tiny_model, tiny_processor, TextInput(context_length=77))
    for name in ("here", "there"):
        save_model_folder(tiny_model, tiny_processor, tmp_path / name)
        embedder = load_embedder(str(tmp_path / name), device="cpu")
        embedder.texts(["A text before the hash, which sets the tokenizer's padding."])
        assert embedder.hash == expected


def test_everything_that_an_embedding_depends_on_changes_the_hash(tiny_model, tiny_processor, tokenizer):
    def processor_with(**options):
        other = copy.deepcopy(tiny_processor)
        vars(other.image_processor).update(options)
        return other

    def model_with(**fields):
        other = copy.deepcopy(tiny_model)
        for name, value in fields.items():
            setattr(other.config, name, value)
        return other

    cut = copy.deepcopy(tokenizer)
    cut.model_max_length = 5
    with_token = copy.deepcopy(tokenizer)
    with_token.add_tokens(["<new>"])
    moved = copy.deepcopy(tiny_model)
    with torch.no_grad():
        moved.logit_scale += 1e-6
    text = TextInput()
    hashes = [
        model_hash(tiny_model, tiny_processor, text),
        model_hash(moved, tiny_processor, text),
        model_hash(copy.deepcopy(tiny_model).bfloat16(), tiny_processor, text),
        model_hash(model_with(text_pooling="cls"), tiny_processor, text),
        model_hash(tiny_model, make_processor(tokenizer, 48), text),
        model_hash(tiny_model, processor_with(resample=2), text),
        model_hash(tiny_model, processor_with(image_mean=[0.5, 0.5, 0.5]), text),
        model_hash(tiny_model, CLIPProcessor(tiny_processor.image_processor, cut), text),
        model_hash(tiny_model, CLIPProcessor(tiny_processor.image_processor, with_token), text),
        model_hash(tiny_model, tiny_processor, TextInput(lower_case=True)),
    ]
    assert len(set(hashes)) == len(hashes)
    assert model_hash(copy.deepcopy(tiny_model), copy.deepcopy(tiny_processor), text) == hashes[0]
