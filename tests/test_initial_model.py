"""The initial model of a run: published weights or random weights."""

import json
import shutil

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.data.schema import captions_of
from rsmclip.models.folder import save_model_folder
from rsmclip.models.openclip import export_openclip
from rsmclip.training.config import TrainingConfig
from rsmclip.training.initial_model import check_sizes
from rsmclip.training.initial_model import make_model as make_from_settings
from tests.conftest import TINY


def make_model(config: TrainingConfig, rows):
    """Make the model of a run and check its sizes, as a run does."""
    captions = captions_of(rows, config.languages)
    model, processor = make_from_settings(config, captions, captions_of(rows), config.self_distillation_weight > 0)
    check_sizes(model.config, config.max_length, config.view_specs(model.config.vision_config.image_size))
    return model, processor


def test_a_random_start_takes_the_ids_of_its_tokenizer(corpus):
    config = TrainingConfig(model_config=TINY, vocab_size=1000, local_size=16)
    model, processor = make_model(config, corpus["train"])
    assert model.config.text_config.vocab_size == len(processor.tokenizer) <= 1000
    assert model.config.text_config.pad_token_id == processor.tokenizer.pad_token_id
    assert model.config.self_distillation == TINY["self_distillation"]


def test_published_weights_are_taken_in_float32(tiny_config, tiny_processor, corpus, tmp_path):
    saved = RSMCLIPModel(tiny_config).to(torch.bfloat16)
    save_model_folder(saved, tiny_processor, tmp_path)
    model, processor = make_model(TrainingConfig(model=str(tmp_path), local_size=16), corpus["train"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.equal(saved.state_dict()[name].float(), value) for name, value in model.state_dict().items())
    assert processor.tokenizer("An airport.") == tiny_processor.tokenizer("An airport.")


def test_published_weights_without_a_head_get_one_and_those_with_one_lose_it(corpus, tiny_processor, tmp_path):
    save_model_folder(RSMCLIPModel(RSMCLIPConfig(**(TINY | {"self_distillation": None}))), tiny_processor, tmp_path)
    head = {"num_prototypes": 20, "hidden_size": 16, "bottleneck_size": 8}
    config = TrainingConfig(model=str(tmp_path), model_config={"self_distillation": head}, local_size=16)
    model, processor = make_model(config, corpus["train"])
    assert model.config.self_distillation == head
    assert all(torch.isfinite(parameter).all() for parameter in model.self_distillation_head.parameters())
    save_model_folder(model, processor, tmp_path / "with")
    config = TrainingConfig(model=str(tmp_path / "with"), self_distillation_weight=0)
    assert make_model(config, corpus["train"])[0].self_distillation_head is None


def test_weights_that_are_no_rsmclip_or_lack_tensors_are_refused(tiny_model, tiny_processor, corpus, tmp_path):
    vision, text = TINY["vision_config"], {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match="'clip'.*'rsmclip'"):
        make_model(TrainingConfig(model=str(tmp_path / "clip")), corpus["train"])
    save_model_folder(tiny_model, tiny_processor, tmp_path / "cut")
    tiny_model.save_pretrained(
        tmp_path / "cut", state_dict={k: v for k, v in tiny_model.state_dict().items() if "visual_projection" not in k}
    )
    with pytest.raises(ValueError, match="visual_projection.weight"):
        make_model(TrainingConfig(model=str(tmp_path / "cut"), local_size=16), corpus["train"])
    wide = {name: torch.zeros(3, 3) if "visual" in name else value for name, value in tiny_model.state_dict().items()}
    tiny_model.save_pretrained(tmp_path / "cut", state_dict=wide)
    with pytest.raises(UserError, match="visual_projection.weight.*3, 3"):
        make_model(TrainingConfig(model=str(tmp_path / "cut"), local_size=16), corpus["train"])


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"local_size": 20}, "local_size 20.*16"),
        ({"max_length": 200}, "max_length is 200.*78"),
        ({"vocab_size": 20}, "vocab_size is 20"),
        ({"lora": {"r": 2}}, "lora.*model"),
        ({"model_config": TINY | {"projection_dim": "x"}}, "model_config"),
        ({"model_config": TINY | {"projection_dim": -1}}, "model_config"),
        ({"model_config": TINY | {"text_config": None}}, "model_config"),
        ({"model_config": TINY | {"self_distillation": 3}}, "model_config.self_distillation is 3"),
        ({"model_config": TINY | {"logit_scale_init_value": None}}, "model_config.*logit_scale_init_value"),
        ({"model_config": TINY | {"dtype": "foo"}}, "model_config.*dtype.*foo"),
        ({"model_config": TINY | {"id2label": 3}}, "model_config.*id2label"),
        ({"model_config": TINY | {"vision_config": {"num_attention_heads": 0}}}, "model_config"),
        ({"model_config": TINY | {"vision_config": {"patch_size": 0}}}, "model_config"),
        ({"model_config": TINY | {"vision_config": {"hidden_act": "foo"}}}, "model_config"),
    ],
)
def test_settings_that_do_not_fit_are_refused(corpus, changed, named):
    fields = {"model_config": TINY, "vocab_size": 1000, "local_size": 16} | changed
    with pytest.raises(UserError, match=named):
        make_model(TrainingConfig(**fields), corpus["train"])


DAMAGES = {  # file, path of a field and its value, what the error names
    "config.json is a list": ("config.json", [], [], "config.json"),
    "text_config": ("config.json", ["text_config"], 3, "config.json.*text_config is 3"),
    "vision_config": ("config.json", ["vision_config"], 3, "config.json.*vision_config is 3"),
    "head": ("config.json", ["self_distillation"], 3, "config.json.*self_distillation is 3"),
    "scale": ("config.json", ["logit_scale_init_value"], None, "config.json.*logit_scale_init_value is None"),
    "dtype": ("config.json", ["dtype"], "foo", "config.json.*dtype is 'foo'"),
    "dtype of a tower": ("config.json", ["text_config", "dtype"], "foo", "config.json.*text_config.*dtype is 'foo'"),
    "id2label": ("config.json", ["id2label"], 3, "config.json.*id2label is 3"),
    "quantization": ("config.json", ["quantization_config"], 3, "config.json.*quantization_config is 3"),
    "shape": ("config.json", ["text_config", "hidden_size"], 48, "has shape .*config.json"),
    "vocab_size": ("config.json", ["text_config", "vocab_size"], 20, "has shape .*config.json"),
    "tokenizer is empty": ("tokenizer.json", [], {}, "tokenizer.json.*model"),
    "tokenizer is a list": ("tokenizer.json", [], [], "tokenizer.json"),
    "tokenizer_config": ("tokenizer_config.json", [], [], "tokenizer_config.json"),
    "tokenizer_class": (
        "tokenizer_config.json",
        ["tokenizer_class"],
        3,
        "tokenizer_config.json.*tokenizer_class is 3",
    ),
    "processor is a list": ("processor_config.json", [], [], "processor_config.json"),
    "image_processor": (
        "processor_config.json",
        ["image_processor"],
        3,
        "processor_config.json.*image_processor is 3",
    ),
    "auto_map": ("processor_config.json", ["auto_map"], 3, "processor_config.json.*auto_map is 3"),
    "std": ("processor_config.json", ["image_processor", "image_std"], [0, 0, 0], "image_std"),
    "mean": ("processor_config.json", ["image_processor", "image_mean"], [1], "image_mean"),
    "crop": ("processor_config.json", ["image_processor", "crop_size"], {"height": 0, "width": 0}, "crop_size"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_model_is_named(model_folder, corpus, tmp_path, damage):
    file, path, value, named = DAMAGES[damage]
    folder = shutil.copytree(model_folder, tmp_path / "model")
    content = {"content": json.loads((folder / file).read_text())}
    inner = content
    *parents, last = ["content", *path]
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    (folder / file).write_text(json.dumps(content["content"]))
    with pytest.raises(UserError, match=named):
        make_model(TrainingConfig(model=str(folder), local_size=16), corpus["train"])


def test_a_model_without_its_tokenizer_or_with_too_many_tokens_is_refused(
    model_folder, tiny_processor, corpus, tmp_path
):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=f"{folder} has no tokenizer"):
        make_model(TrainingConfig(model=str(folder), local_size=16), corpus["train"])
    with pytest.raises(UserError, match=f"{folder} has no tokenizer"):
        export_openclip(str(folder), tmp_path / "exported")
    folder, small = tmp_path / "small", TINY | {"text_config": TINY["text_config"] | {"vocab_size": 20}}
    save_model_folder(RSMCLIPModel(RSMCLIPConfig(**small)), tiny_processor, folder)
    with pytest.raises(UserError, match="tokenizer .*vocab_size"):
        make_model(TrainingConfig(model=str(folder), local_size=16), corpus["train"])


def test_a_random_start_is_written_as_it_was_configured(corpus, tmp_path):
    model, processor = make_model(
        TrainingConfig(model_config=TINY, vocab_size=1000, local_size=16), corpus["train"].select(range(30))
    )
    save_model_folder(model, processor, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["projection_dim"] == 16 and saved["vision_config"]["image_size"] == 32
