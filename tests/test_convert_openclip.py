"""Conversion from OpenCLIP's layout and back: tensors, configuration, preprocessing, and refused inputs."""

import copy
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor

from rsmclip import RSMCLIPConfig, RSMCLIPImageProcessor, RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.core.files import new_folder
from rsmclip.hub.__main__ import main
from rsmclip.hub.convert_openclip import convert_openclip
from rsmclip.models.folder import save_model_folder
from rsmclip.models.openclip import describe, export_openclip, model_fields
from tests.openclip_by_hand import OpenCLIPByHand, write_openclip


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    input_ids = torch.randint(4, 300, (3, 9), generator=generator)
    input_ids[1, 5:], input_ids[2, 2:] = 1, 1
    return {"input_ids": input_ids, "pixel_values": torch.randn(3, 3, 32, 32, generator=generator)}


TOWERS = {
    "as released": {},
    "cls and linear": {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_proj_type": "linear"},
    "pooler and none": {"hf_pooler_type": "cls_pooler", "hf_proj_type": None, "embed_dim": 24},
    "max": {"hf_pooler_type": "max_pooler"},
    "quick gelu, wide heads": {"quick_gelu": True, "head_width": 24, "patch_size": 8, "mlp_ratio": 2.0},
    "tanh, eps": {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}},
}


@pytest.mark.parametrize("options", TOWERS.values(), ids=TOWERS)
def test_every_tower_gives_the_outputs_of_its_formulas_and_comes_back_whole(options, inputs, tmp_path):
    weights = write_openclip(tmp_path / "source", **options)
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    model = RSMCLIPModel.from_pretrained(tmp_path / "ours").eval()
    expected = OpenCLIPByHand(tmp_path / "source")
    with torch.no_grad():
        image = model.get_image_features(inputs["pixel_values"]).pooler_output
        text = model.get_text_features(inputs["input_ids"]).pooler_output
    torch.testing.assert_close(image.double(), expected.image(inputs["pixel_values"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.double(), expected.text(inputs["input_ids"]), atol=1e-5, rtol=1e-5)

    export_openclip(str(tmp_path / "ours"), tmp_path / "back")
    back = load_file(tmp_path / "back" / "open_clip_model.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) and back[name].dtype == weights[name].dtype for name in weights)
    convert_openclip(str(tmp_path / "back"), tmp_path / "again")
    first, second = (RSMCLIPConfig.from_pretrained(tmp_path / name).to_dict() for name in ("ours", "again"))
    assert first == second


def test_old_buffers_prefixes_checkpoints_and_half_precision_pass(inputs, tmp_path):
    weights = write_openclip(tmp_path / "source")
    plain = {name: tensor.half() if tensor.ndim == 2 else tensor for name, tensor in weights.items()}
    checkpoint = {f"module.{name}": tensor for name, tensor in plain.items()}
    checkpoint["module.text.transformer.embeddings.position_ids"] = torch.arange(40)[None]
    (tmp_path / "source" / "open_clip_model.safetensors").unlink()
    torch.save({"epoch": 3, "state_dict": checkpoint}, tmp_path / "source" / "open_clip_pytorch_model.bin")
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    export_openclip(str(tmp_path / "ours"), tmp_path / "back")
    back = load_file(tmp_path / "back" / "open_clip_model.safetensors")
    assert all(torch.equal(back[name], plain[name]) and back[name].dtype == plain[name].dtype for name in plain)
    model = RSMCLIPModel.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert torch.isfinite(model(**inputs).logits_per_image).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"visual.ln_post.bias": None}, "visual.ln_post.bias is missing"),
        ({"visual.extra": torch.zeros(1)}, "visual.extra is surplus"),
        ({"visual.proj": torch.zeros(3, 3)}, r"visual.proj has shape \(3, 3\), not \(48, 16\)"),
        ({"logit_scale": torch.tensor(1)}, "logit_scale has type torch.int64"),
        ({"logit_scale": torch.tensor(float("nan"))}, "logit_scale has values .* NaN"),
        ({"text.proj.0.weight": torch.full((20, 24), -torch.inf).half()}, "text.proj.0.weight has values .* NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(changes, message, tmp_path):
    weights = write_openclip(tmp_path / "source") | changes
    weights = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(weights, tmp_path / "source" / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=message):
        convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "part, field, value",
    [
        ("vision_cfg", "timm_model_name", "vit_base"),
        ("vision_cfg", "pool_type", "avg"),
        ("vision_cfg", "global_average_pool", True),
        ("vision_cfg", "layers", [3, 4, 6, 3]),
        ("vision_cfg", "image_size", [32, 64]),
        ("vision_cfg", "head_width", 0),
        ("vision_cfg", "width", "768"),
        ("vision_cfg", "width", 10**400),
        ("vision_cfg", "mlp_ratio", float("inf")),
        ("vision_cfg", "mlp_ratio", float("nan")),
        ("text_cfg", "hf_model_name", "x" * 5000),
        ("text_cfg", "hf_model_name", None),
        ("text_cfg", "hf_pooler_type", "median_pooler"),
        ("text_cfg", "hf_proj_type", None),
        ("model_cfg", "init_logit_bias", -10),
        ("model_cfg", "embed_dim", None),
        ("model_cfg", "vision_cfg", "ViT"),
        ("preprocess_cfg", "resize_mode", "stretch"),
        ("preprocess_cfg", "interpolation", "nearest"),
        ("preprocess_cfg", "mean", [0.5, 0.5]),
    ],
)
def test_a_field_without_a_counterpart_is_named(part, field, value, tmp_path):
    write_openclip(tmp_path / "source")
    path = tmp_path / "source" / "open_clip_config.json"
    described = json.loads(path.read_text())
    (described if part in described else described["model_cfg"])[part][field] = value
    path.write_text(json.dumps(described))
    named = {"layers": "ResNet", "hf_proj_type": "projection_dim"}.get(field, field)
    with pytest.raises(UserError, match=named):
        convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    write_openclip(tmp_path / "source")
    (tmp_path / "source" / "open_clip_model.safetensors").unlink()
    torch.save({"state_dict": Exploit()}, tmp_path / "source" / "open_clip_pytorch_model.bin")
    check_refusal(str(tmp_path / "source"), tmp_path, "open_clip_pytorch_model.bin", capsys)


class Exploit:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "mode, size, crop",
    [
        ("shortest", {"shortest_edge": 32}, True),
        ("longest", {"shortest_edge": 32, "longest_edge": 32}, True),
        ("squash", {"height": 32, "width": 32}, False),
    ],
)
def test_preprocessing_converts_both_ways(mode, size, crop, tmp_path):
    options = {"resize_mode": mode, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3}
    write_openclip(tmp_path / "source", **options)
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    processor = RSMCLIPImageProcessor.from_pretrained(tmp_path / "ours")
    assert {name: value for name, value in dict(processor.size).items() if value} == size
    assert processor.do_center_crop is crop and processor.resample == 2
    export_openclip(str(tmp_path / "ours"), tmp_path / "back")
    assert json.loads((tmp_path / "back" / "open_clip_config.json").read_text())["preprocess_cfg"] == options


def test_the_tokenizer_is_converted_both_ways(tokenizer, tmp_path):
    write_openclip(tmp_path / "source", vocab_size=1000, positions=120)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours", tokenizer=str(tmp_path / "tokenizer"))
    command = [sys.executable, "-m", "rsmclip.hub", "export-openclip", str(tmp_path / "ours"), str(tmp_path / "back")]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0 and "[y/N]" not in run.stdout + run.stderr, run.stderr
    described = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())
    assert described["model_cfg"]["text_cfg"]["context_length"] == 77  # OpenCLIP's own where it names none
    convert_openclip(str(tmp_path / "back"), tmp_path / "again")
    loaded = AutoProcessor.from_pretrained(tmp_path / "again", trust_remote_code=True).tokenizer
    assert loaded("a forest")["input_ids"] == tokenizer("a forest")["input_ids"]
    assert loaded.model_max_length == 77


def test_a_tokenizer_is_cut_where_the_tower_ends(tokenizer, tmp_path):
    write_openclip(tmp_path / "source", vocab_size=1000)  # 40 positions
    tokenizer.save_pretrained(tmp_path / "source")
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    assert AutoProcessor.from_pretrained(tmp_path / "ours", trust_remote_code=True).tokenizer.model_max_length == 38


def test_an_export_warns_of_nothing_lacks_the_head_and_names_a_damaged_tokenizer(
    tiny_model, tiny_processor, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    folder = tmp_path / "ours"
    save_model_folder(tiny_model, tiny_processor, folder)
    export_openclip(str(folder), tmp_path / "theirs")
    assert not caplog.records
    assert not [name for name in load_file(tmp_path / "theirs" / "open_clip_model.safetensors") if "head" in name]
    (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:2000])
    with pytest.raises(UserError, match=f"{folder}/tokenizer.json"):
        export_openclip(str(folder), tmp_path / "none")


def test_the_card_names_the_source_and_keeps_its_license(tmp_path):
    write_openclip(tmp_path / "source")
    (tmp_path / "source" / "README.md").write_text(
        "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\nlanguage: [en, pt]\n---\nA model.\n"
    )
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "license: other\nlicense_name: mine\nlicense_link: LICENSE" in card and "- pt" in card
    assert "`source`, converted" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_the_code_in_the_card_runs_and_is_pinned_once_it_is_pushed(has_tokenizer, tokenizer, tmp_path):
    write_openclip(tmp_path / "source", vocab_size=len(tokenizer))
    if has_tokenizer:
        tokenizer.save_pretrained(tmp_path / "source")
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    card = ModelCard.load(tmp_path / "ours" / "README.md")
    task = "zero-shot-image-classification" if has_tokenizer else "image-feature-extraction"
    assert card.data.pipeline_tag == task
    code = card.text.split("```python\n")[1].split("```")[0]
    assert code.count('"USER/NAME", trust_remote_code=True, revision="REVISION"') == 2
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    command = [sys.executable, "-c", code.replace("USER/NAME", "ours").replace(', revision="REVISION"', "")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0 and run.stdout.startswith("tensor([["), run.stderr


@pytest.mark.parametrize("place", [".", "link", "new/one"])
def test_the_output_may_be_an_empty_folder(place, tmp_path, monkeypatch):
    write_openclip(tmp_path / "source")
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    monkeypatch.chdir(tmp_path / "here" if place == "." else tmp_path)
    main(["convert-openclip", str(tmp_path / "source"), place])
    assert not {path for path in tmp_path.rglob(".*") if path.is_dir()}
    names = {".": "here", "link": "elsewhere", "new/one": "one"}
    assert f"# {names[place]}\n" in Path(place, "README.md").read_text()
    assert (tmp_path / "link").is_symlink() and RSMCLIPModel.from_pretrained(Path.cwd() / place)


def test_what_came_into_an_empty_folder_meanwhile_is_left_alone(tmp_path):
    with pytest.raises(UserError, match=tmp_path.name), new_folder(tmp_path) as unfinished:
        (unfinished / "config.json").write_text("ours")
        (tmp_path / "config.json").write_text("theirs")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("tower", ["visual", "text"])
def test_a_model_of_absurdly_many_layers_is_refused_before_it_is_built(tower, tmp_path):
    write_openclip(tmp_path / "source")
    path = tmp_path / "source" / ("open_clip_config.json" if tower == "visual" else "text_model/config.json")
    fields = json.loads(path.read_text())
    changed = fields["model_cfg"]["vision_cfg"] if tower == "visual" else fields
    changed["layers" if tower == "visual" else "num_hidden_layers"] = 100_000
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match="open_clip_config.json.*num_hidden_layers.*100,000"):
        convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    write_openclip(tmp_path / "source")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit):
        main(["convert-openclip", str(tmp_path / "source"), str(tmp_path / "ours")])
    assert str(tmp_path / "ours") in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "name, width, layers, heads",
    [
        ("xlm-roberta-base", 768, 12, 12),
        ("FacebookAI/xlm-roberta-base", 768, 12, 12),
        ("xlm-roberta-large", 1024, 24, 16),
    ],
)
def test_the_text_towers_openclip_names_are_known_without_the_hub(name, width, layers, heads, tmp_path):
    model_cfg = {"embed_dim": 512, "vision_cfg": {"patch_size": 32}, "text_cfg": {"hf_model_name": name}}
    config = RSMCLIPConfig(**model_fields(model_cfg, tmp_path))
    text = config.text_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (width, layers, heads)
    assert (text.intermediate_size, text.vocab_size) == (4 * width, 250002)
    assert describe(config, RSMCLIPImageProcessor())["model_cfg"]["text_cfg"]["hf_model_name"] == name.split("/")[-1]
    if width == 768:
        assert config.to_dict() == RSMCLIPConfig(self_distillation=None).to_dict()  # the released architecture


@pytest.mark.parametrize(
    "options",
    [{"size": {"shortest_edge": 40}}, {"do_normalize": False}, {"crop_size": {"height": 24, "width": 24}}],
)
def test_preprocessing_that_openclip_cannot_say_is_refused(options, tmp_path):
    write_openclip(tmp_path / "source")
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    path = tmp_path / "ours" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    with pytest.raises(UserError, match=next(iter(options))):
        export_openclip(str(tmp_path / "ours"), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_sharded_models_export_by_their_index(tmp_path):
    weights = write_openclip(tmp_path / "source")
    convert_openclip(str(tmp_path / "source"), tmp_path / "ours")
    model = RSMCLIPModel.from_pretrained(tmp_path / "ours")
    (tmp_path / "ours" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "ours", max_shard_size="50KB")
    save_file({"logit_scale": torch.tensor(9.0)}, tmp_path / "ours" / "model_old.safetensors")
    export_openclip(str(tmp_path / "ours"), tmp_path / "back")
    back = load_file(tmp_path / "back" / "open_clip_model.safetensors")
    assert back.keys() == weights.keys() and all(torch.equal(back[name], weights[name]) for name in weights)

    path = tmp_path / "ours" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"projection_dim": 20}))
    with pytest.raises(UserError, match="visual_projection.weight .*.16, 48..*.20, 48."):
        export_openclip(str(tmp_path / "ours"), tmp_path / "no")


PICKLES = {
    "not a pickle": None,
    "a list": [torch.zeros(1)],
    "names that are numbers": {1: torch.zeros(1)},
    "a tensor twice": {"module.logit_scale": torch.zeros(()), "logit_scale": torch.ones(())},
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_without_the_weights_is_one_line(kind, tmp_path, capsys):
    write_openclip(tmp_path / "source")
    (tmp_path / "source" / "open_clip_model.safetensors").unlink()
    pickled = tmp_path / "source" / "open_clip_pytorch_model.bin"
    pickled.write_bytes(b"garbage") if PICKLES[kind] is None else torch.save(PICKLES[kind], pickled)
    check_refusal(str(tmp_path / "source"), tmp_path, str(tmp_path / "source"), capsys)


@pytest.mark.parametrize(
    "name, content",
    [
        ("open_clip_model.safetensors", b""),
        ("open_clip_model.safetensors", b"cut off"),
        ("open_clip_config.json", b"{"),
        ("open_clip_config.json", b"[1]"),
        ("open_clip_config.json", b'{"model_cfg": []}'),
    ],
)
def test_a_damaged_file_is_one_line(name, content, tmp_path, capsys):
    write_openclip(tmp_path / "source")
    (tmp_path / "source" / name).write_bytes(content)
    check_refusal(str(tmp_path / "source"), tmp_path, name, capsys)


@pytest.mark.parametrize("source", ["source/open_clip_model.safetensors", "nowhere/at/all", "empty"])
def test_a_source_without_a_model_is_named(source, tmp_path, capsys, monkeypatch):
    write_openclip(tmp_path / "source")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    check_refusal(source, tmp_path, source, capsys)


def check_refusal(source, tmp_path, named, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["convert-openclip", source, str(tmp_path / "ours")])
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and named in error
    assert not (tmp_path / "ours").exists()
