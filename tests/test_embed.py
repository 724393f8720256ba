"""Embeddings over batches, threads and processes: the order of the rows, equal bits, and errors that name the row."""

import io
import time

import pytest
import torch
import torch.multiprocessing as mp
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.eval import embed
from rsmclip.eval.embed import Embedder, TextInput, ahead
from rsmclip.models.folder import save_model_folder
from tests.process import embed_twice, embeds_its_share


@pytest.fixture
def embedder(tiny_model, tiny_processor):
    return Embedder(tiny_model, tiny_processor, batch_size=5)


@pytest.fixture
def rows(corpus):
    return corpus["val"]


def as_rows(images: list[dict]) -> Dataset:
    columns = {"image": images, "image_id": [f"x/{index}" for index in range(len(images))]}
    return Dataset.from_dict(columns, Features({"image": ImageFeature(decode=False), "image_id": Value("string")}))


@pytest.mark.parametrize("piece", [1, 3, 64])
def test_the_pieces_that_threads_prepare_do_not_matter(piece, embedder, rows, monkeypatch):
    pictures = [Image.open(io.BytesIO(image["bytes"])) for image in rows["image"]]
    expected = []
    with torch.inference_mode():
        for start in range(0, 18, 5):
            inputs = embedder.processor(images=pictures[start : start + 5], return_tensors="pt")
            expected.append(embedder.model.get_image_features(inputs["pixel_values"]).pooler_output)
    monkeypatch.setattr(embed, "PIECE", piece)
    assert torch.equal(embedder.images(rows), torch.cat(expected))


def test_ahead_keeps_the_order_and_does_not_run_away():
    started, taken = [], []

    def slow(number):
        time.sleep(0.02 / (number + 1))
        return number

    def numbers():
        for number in range(12):
            started.append(number)
            assert len(started) - len(taken) <= 5, "four in work and the one that is asked for"
            yield number

    for number in ahead(slow, numbers(), 4):
        taken.append(number)
    assert taken == list(range(12))


def test_equal_texts_are_embedded_once_and_come_back_in_order(embedder):
    seen = []
    embedder.model.text_model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(len(inputs["input_ids"])), with_kwargs=True
    )
    texts = ["a harbor", "b", "a harbor", "c d e", "b", "a harbor"]
    embeds = embedder.texts(texts)
    assert sum(seen) == 3 and embeds.shape == (6, 16)
    assert torch.equal(embeds[0], embeds[2]) and torch.equal(embeds[1], embeds[4])
    assert not torch.equal(embeds[0], embeds[1]) and not torch.equal(embeds[1], embeds[3])


def test_texts_are_tokenized_with_the_settings_of_the_model(tiny_model, tiny_processor):
    given = {}
    tiny_model.text_model.register_forward_pre_hook(lambda _, args, inputs: given.update(inputs), with_kwargs=True)
    tokenizer = tiny_processor.tokenizer
    settings = TextInput("max_length", padding_side="left", context_length=9, lower_case=True)
    Embedder(tiny_model, tiny_processor, text_input=settings).texts(["An AIRPORT"])
    own = tokenizer("an airport")["input_ids"]
    assert given["input_ids"].tolist() == [[tokenizer.pad_token_id] * (9 - len(own)) + own]
    assert given["attention_mask"].tolist() == [[0] * (9 - len(own)) + [1] * len(own)]
    Embedder(tiny_model, tiny_processor, text_input=TextInput(context_length=4)).texts(["a b c d e f g h"])
    assert given["input_ids"].shape == (1, 4) and given["input_ids"][0, -1] == tokenizer.eos_token_id


def test_embeddings_are_float32_on_the_cpu_for_every_type_of_the_model(embedder, rows):
    images, texts = embedder.images(rows), embedder.texts(["a harbor", "Ein Hafen"])
    embedder.model.bfloat16()
    for expected, found in ((images, embedder.images(rows)), (texts, embedder.texts(["a harbor", "Ein Hafen"]))):
        assert found.dtype == torch.float32 and not found.requires_grad
        assert torch.equal(found, found.bfloat16().float()), "computed in bfloat16"
        assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.99


def test_errors_name_the_image_or_text(embedder, rows):
    good = rows["image"][0]
    with pytest.raises(UserError, match="x/1"):
        embedder.images(as_rows([good, {"bytes": good["bytes"][:200], "path": None}]))
    with pytest.raises(UserError, match="x/2"):
        embedder.images(as_rows([good, good, {"bytes": None, "path": "nowhere.png"}]))
    with pytest.raises(UserError, match="no images"):
        embedder.images(rows.select([]))
    with pytest.raises(UserError, match="no texts"):
        embedder.texts([])
    with torch.no_grad():
        word = embedder.processor.tokenizer("x")["input_ids"][1]
        embedder.model.text_model.embeddings.word_embeddings.weight[word] = torch.nan
    with pytest.raises(UserError, match="'x'.*not finite"):
        embedder.texts(["An airport.", "x"])
    embedder.model.vision_model.embeddings.patch_embedding.weight.data[:] = 1e30
    with pytest.raises(UserError, match="x/0.*not finite"):
        embedder.images(as_rows([good, good]))


def test_an_image_beside_the_table_is_read(embedder, rows, tmp_path):
    (tmp_path / "a.png").write_bytes(rows["image"][3]["bytes"])
    found = embedder.images(as_rows([{"bytes": None, "path": str(tmp_path / "a.png")}]))
    assert torch.equal(found, embedder.images(rows.select([3])))


def test_any_number_of_processes_gives_the_same_bits(tiny_model, tiny_processor, rows, tmp_path):
    save_model_folder(tiny_model, tiny_processor, tmp_path / "model")
    rows.select(range(17)).to_parquet(tmp_path / "rows.parquet")
    pictures = [{"bytes": b"x", "path": None} if row == 6 else image for row, image in enumerate(rows["image"])]
    broken = Dataset.from_dict({"image": pictures, "image_id": rows["image_id"]})
    broken.to_parquet(tmp_path / "broken.parquet")
    alone = embed_twice(tmp_path, shared=False)
    mp.spawn(embeds_its_share, (2, tmp_path), nprocs=2)
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert alone["images"].shape == (17, 16) and len(alone["texts"]) == 17 * 5
    assert alone["computed"] == 4 and [share["computed"] for share in shares] == [2, 2]
    for share in shares:
        for name in ("images", "texts", "one batch"):
            assert torch.equal(share[name].view(torch.int32), alone[name].view(torch.int32)), name
        assert torch.equal(share["images again"], alone["images"]) and share["computed again"] == 0
        assert share["error"] == alone["error"] and "demo/val_6" in alone["error"]
    kept = [sorted(path.name for path in (tmp_path / f"cache-{shared}").iterdir()) for shared in (True, False)]
    assert kept[0] == kept[1] and len(kept[0]) == 3, "images, texts and the one batch, under the same keys"
