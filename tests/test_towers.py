"""A model out of pretrained towers: their outputs are unchanged, and a smaller vocabulary changes no text."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, CLIPVisionModel, Dinov2Model, XLMRobertaModel

from rsmclip.core.errors import UserError
from rsmclip.models.towers import assemble, load_image_tower, load_text_tower, trim_vocabulary
from tests.conftest import TINY


def test_the_towers_give_what_they_gave_alone(towers):
    model, processor = assemble(*towers, {"projection_dim": 16, "self_distillation": TINY["self_distillation"]})
    model.eval()
    pixels = torch.rand(2, 3, 32, 32)
    alone = CLIPVisionModel.from_pretrained(towers[0]).eval()
    assert model.vision_model(pixels).pooler_output.equal(alone(pixels).pooler_output)
    inputs = processor(text=["a port", "two boats on a lake"], padding=True, return_tensors="pt")
    alone = XLMRobertaModel.from_pretrained(towers[1]).eval()
    assert model.text_model(**inputs).last_hidden_state.equal(alone(**inputs).last_hidden_state)
    assert model.self_distillation_head.prototypes.weight.shape[0] == TINY["self_distillation"]["num_prototypes"]
    assert processor.image_processor.crop_size["height"] == 32 and processor.tokenizer.model_max_length == 77


@pytest.mark.parametrize("number", [0, 1])
def test_a_tower_with_weights_that_are_not_finite_is_named(towers, number):
    path = Path(towers[number]) / "model.safetensors"
    weights = load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].view(-1)[5] = torch.inf
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=f"{path.parent.name}: .*infinite"):
        assemble(*towers, {"projection_dim": 16})


def test_the_image_tower_of_a_clip_is_taken(tmp_path):
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    clip = CLIPModel(CLIPConfig(vision_config=TINY["vision_config"], text_config=text)).eval()
    clip.save_pretrained(tmp_path)
    tower, _ = load_image_tower(str(tmp_path))
    pixels = torch.rand(1, 3, 32, 32)
    assert tower.eval()(pixels).pooler_output.equal(clip.vision_model(pixels).pooler_output)


def test_an_image_tower_in_both_layouts_is_read_in_that_of_transformers(towers):
    (Path(towers[0]) / "open_clip_config.json").write_text("{}")  # also of a text tower that is not XLM-RoBERTa
    assert load_image_tower(towers[0])[0].config.image_size == 32
    (Path(towers[0]) / "model.safetensors").unlink()
    with pytest.raises(UserError, match="open_clip"):  # only that layout may have the weights
        load_image_tower(towers[0])


def test_a_text_pooling_that_needs_weights_which_are_not_loaded_is_refused(towers):
    with pytest.raises(UserError, match="text_pooling pooler"):
        assemble(*towers, {"projection_dim": 16, "text_pooling": "pooler"})


@pytest.mark.parametrize("size", [12, 20])
def test_a_dinov2_gives_its_class_token_also_at_another_image_size(dinov2_folder, size):
    if size != 12:
        settings = {"size": {"shortest_edge": 24}, "crop_size": {"height": size, "width": size}}
        (dinov2_folder / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": [0.5, 0.5, 0.5]}))
    tower, processor = load_image_tower(str(dinov2_folder))
    pixels = torch.randn(4, 3, size, size)
    expected = Dinov2Model.from_pretrained(dinov2_folder).eval()(pixels).pooler_output
    assert torch.allclose(tower.eval()(pixels).pooler_output, expected, atol=5e-3)  # of values up to 4
    assert tower.config.image_size == processor.crop_size["height"] == size
    assert processor.image_mean[0] == (0.5 if size == 20 else 0.485)  # ImageNet's without preprocessing


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_swiglu_ffn": True}, "SwiGLU"),
        ({"num_hidden_layers": 3}, "encoder.layer.2"),
        ({"patch_size": 5}, "5"),
        ({"hidden_size": 32}, "shape"),
    ],
)
def test_a_dinov2_that_is_no_clip_is_refused(dinov2_folder, change, named):
    config = json.loads((dinov2_folder / "config.json").read_text())
    (dinov2_folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=f"dinov2.*{named}"):
        load_image_tower(str(dinov2_folder))


def test_a_bert_gives_what_it_gave_alone(tokenizer, tmp_path):
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY["text_config"].items() if name != "max_position_embeddings"}
    bert = BertModel(BertConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=40)).eval()
    bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tower, _ = load_text_tower(str(tmp_path))
    inputs = tokenizer(["a port", "two boats on a lake"], padding=True, return_tensors="pt")
    found, expected = (each.eval()(**inputs).last_hidden_state for each in (tower, bert))
    words = inputs["attention_mask"].bool()
    assert torch.allclose(found[words], expected[words], atol=1e-5)
    longest = torch.full((1, 40), 10)
    assert torch.allclose(tower(longest).last_hidden_state, bert(longest).last_hidden_state, atol=1e-5)


def test_the_preprocessing_of_an_image_tower_is_taken(towers, tmp_path):
    settings = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32}
    settings |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "image" / "preprocessor_config.json").write_text(json.dumps(settings))
    assert tuple(load_image_tower(towers[0])[1].image_mean) == (0.5, 0.5, 0.5)


def test_towers_of_another_type_or_without_a_tokenizer_are_refused(towers, tmp_path):
    image, text = towers
    with pytest.raises(UserError, match="image_tower.*xlm-roberta"):
        load_image_tower(text)
    with pytest.raises(UserError, match="text_tower.*clip_vision_model"):
        load_text_tower(image)
    shutil.copytree(text, tmp_path / "silent")
    for path in (tmp_path / "silent").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="text_tower.*tokenizer"):
        load_text_tower(str(tmp_path / "silent"))
    with pytest.raises(UserError, match="nowhere"):
        load_image_tower(str(tmp_path / "nowhere"))


def change_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))


@pytest.mark.parametrize(
    ("file", "fields", "named"),
    [
        ("config.json", {"hidden_act": "unknown"}, "hidden_act"),
        ("config.json", {"patch_size": 0}, "patch_size"),
        ("config.json", {"hidden_size": 64}, "(32,).*(64,)"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 64}, "crop_size": 64}, "64, 64.*32"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 32}, "crop_size": 32, "image_std": [0, 1, 1]}, "std"),
    ],
)
def test_an_image_tower_that_does_not_fit_its_description_is_refused(towers, file, fields, named):
    change_json(Path(towers[0], file), **fields)
    with pytest.raises(UserError, match=f"image_tower .*{named}"):
        load_image_tower(towers[0])


@pytest.mark.parametrize(("fields", "named"), [({"hidden_size": 64}, "shape"), ({"pad_token_id": 5}, "1, .* 5")])
def test_a_text_tower_that_does_not_fit_its_description_is_refused(towers, fields, named):
    change_json(Path(towers[1], "config.json"), **fields)
    with pytest.raises(UserError, match=f"text_tower .*{named}"):
        load_text_tower(towers[1])


def test_damaged_and_missing_descriptions_of_a_tower_are_refused(towers, tmp_path):
    change_json(Path(towers[1], "tokenizer.json"), model=None)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_text_tower(towers[1])
    Path(towers[0], "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json contains a list"):
        load_image_tower(towers[0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json in .*empty"):
        load_image_tower(str(tmp_path / "empty"))


def test_added_tokens_outside_of_the_vocabulary_stay(towers, tokenizer):
    model, processor = assemble(*towers, {"projection_dim": 16, "self_distillation": None})
    processor.tokenizer.add_tokens(["<sensor>"])
    rows = len(processor.tokenizer)
    model.text_model.embeddings.word_embeddings = torch.nn.Embedding(rows, TINY["text_config"]["hidden_size"], 1)
    last = model.text_model.embeddings.word_embeddings.weight[-1].clone()
    kept = trim_vocabulary(model, processor, ["a port <sensor>"])
    assert processor.tokenizer.convert_tokens_to_ids("<sensor>") == kept - 1 == len(processor.tokenizer) - 1
    assert kept < rows and model.text_model.embeddings.word_embeddings.weight[-1].equal(last)


def test_a_trimmed_vocabulary_embeds_its_texts_as_before_and_can_write_others(towers):
    model, processor = assemble(*towers, {"projection_dim": 16, "self_distillation": None})
    model.eval()
    texts = ["two boats on a lake", "ein Hafen"]
    size = len(processor.tokenizer)

    def embed() -> torch.Tensor:
        inputs = processor(text=texts, padding=True, return_tensors="pt")
        return model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output

    before = embed()
    kept = trim_vocabulary(model, processor, texts)
    assert kept == len(processor.tokenizer) == model.config.text_config.vocab_size < size
    assert embed().equal(before)
    unknown = processor.tokenizer.unk_token_id
    assert unknown not in processor.tokenizer("a forest beside a river")["input_ids"]
    assert (
        processor.tokenizer.decode(processor.tokenizer("a forest")["input_ids"], skip_special_tokens=True)
        == "a forest"
    )
