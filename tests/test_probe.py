"""Training the projections alone, on stored embeddings."""

import math

import pytest
import torch
from datasets import List, Value

from rsmclip.core.errors import UserError
from rsmclip.eval.embed import Embedder
from rsmclip.training import probe
from rsmclip.training.batches import PICTURE_SENTENCES, sentence_id
from rsmclip.training.config import TrainingConfig
from rsmclip.training.losses import clip_loss
from rsmclip.training.probe import new_layers, train_new_layers, without_projections


def embedders(model, processor):
    embedder = Embedder(without_projections(model), processor)
    return embedder.images, embedder.texts


def test_features_without_projections_are_the_pooled_outputs_of_the_towers(tiny_model, tiny_processor, corpus):
    rows, texts = corpus["train"].select(range(4)), ["a river", "um rio"]
    images, captions = (
        embed(items) for embed, items in zip(embedders(tiny_model, tiny_processor), (rows, texts), strict=True)
    )
    whole = Embedder(tiny_model.eval(), tiny_processor)
    with torch.no_grad():
        torch.testing.assert_close(tiny_model.visual_projection(images), whole.images(rows))
        torch.testing.assert_close(tiny_model.text_projection(captions), whole.texts(texts))


def test_a_probe_changes_the_new_layers_alone_and_lowers_the_loss(tiny_model, tiny_processor, corpus):
    rows = corpus["train"]
    config = TrainingConfig(languages=["en", "pt"], probe_steps=40, probe_learning_rate=0.01)
    texts = sorted({text for row in rows["captions"] for code in ("en", "pt") for text in row[code] if text})
    embed_images, embed_texts = embedders(tiny_model, tiny_processor)
    pooled = embed_images(rows), embed_texts(texts)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}

    def loss() -> float:
        first = torch.tensor([texts.index(row["en"][0]) for row in rows["captions"]])
        with torch.no_grad():
            images, captions = tiny_model.visual_projection(pooled[0]), tiny_model.text_projection(pooled[1][first])
            images, captions = (torch.nn.functional.normalize(embeds, dim=-1)[None] for embeds in (images, captions))
            return float(clip_loss(images, captions, tiny_model.logit_scale.exp()))

    untrained = loss()
    train_new_layers(tiny_model, *embedders(tiny_model, tiny_processor), rows, config)
    assert loss() < untrained - 0.1
    changed = {name for name, value in tiny_model.state_dict().items() if not torch.equal(value, before[name])}
    trained = {id(parameter) for parameter in new_layers(tiny_model)}
    assert changed == {name for name, parameter in tiny_model.named_parameters() if id(parameter) in trained}


def test_a_probe_trains_projections_that_are_frozen_in_the_training(tiny_model, tiny_processor, corpus):
    tiny_model.requires_grad_(False)
    before = tiny_model.visual_projection.weight.clone()
    config = TrainingConfig(languages=["en"], probe_steps=1)
    train_new_layers(tiny_model, *embedders(tiny_model, tiny_processor), corpus["train"], config)
    assert not tiny_model.visual_projection.weight.equal(before)
    assert not any(parameter.requires_grad for parameter in tiny_model.parameters())


def test_a_probe_that_diverges_is_refused(tiny_model, tiny_processor, corpus):
    config = TrainingConfig(languages=["en"], probe_steps=5, probe_learning_rate=1e30)
    with pytest.raises(UserError, match="probe_learning_rate.* 1e.30"):
        train_new_layers(tiny_model, *embedders(tiny_model, tiny_processor), corpus["train"], config)


def test_a_probe_repeats_with_its_seed(tiny_model, tiny_processor, corpus):
    rows, start = corpus["train"], {name: value.clone() for name, value in tiny_model.state_dict().items()}
    found = []
    for seed in (1, 1, 2):
        tiny_model.load_state_dict(start)
        config = TrainingConfig(languages=["en"], probe_steps=3, seed=seed)
        train_new_layers(tiny_model, *embedders(tiny_model, tiny_processor), rows, config)
        found.append(tiny_model.visual_projection.weight.detach().clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.fixture
def batches(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """The arguments of the loss in each step of a probe."""
    seen = []
    monkeypatch.setattr(probe, "clip_loss", lambda **given: seen.append(given) or clip_loss(**given))
    return seen


def test_a_probe_draws_the_corpora_by_their_weights(tiny_model, tiny_processor, corpus, batches):
    sources = ["one"] * 20 + ["two"] * 40
    rows = corpus["train"].remove_columns("source").add_column("source", sources)
    config = TrainingConfig(languages=["en"], probe_steps=2, source_sampling="one=1,two=0", batch_size=12)
    train_new_layers(tiny_model, *embedders(tiny_model, tiny_processor), rows, config)
    own = {sentence_id(text) for row in rows["captions"][:20] for text in row["en"]}
    assert len(batches) == 2 and all(set(batch["sentence_ids"].flatten().tolist()) <= own for batch in batches)


def test_a_probe_counts_the_sentences_of_other_rows_with_the_picture(tiny_model, tiny_processor, corpus, batches):
    ids = [[7, 8] if row == 3 else [] for row in range(60)]
    rows = corpus["train"].add_column(PICTURE_SENTENCES, ids, feature=List(Value("int64")))
    config = TrainingConfig(languages=["en"], probe_steps=1)
    train_new_layers(tiny_model, *embedders(tiny_model, tiny_processor), rows, config)
    of_images = batches[0]["image_sentence_ids"].t().tolist()
    assert sum({7, 8} <= set(sentences) for sentences in of_images) == 1


def test_a_probe_keeps_the_logit_scale_below_its_limit(tiny_model, tiny_processor, corpus):
    tiny_model.logit_scale.data.fill_(5.0)
    config = TrainingConfig(languages=["en"], probe_steps=1)
    train_new_layers(tiny_model, *embedders(tiny_model, tiny_processor), corpus["train"], config)
    assert tiny_model.logit_scale.item() <= math.log(100) + 1e-6
