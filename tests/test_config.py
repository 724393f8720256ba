"""The configuration: YAML, command line, and refusals in one line."""

import re

import pytest
import torch
import yaml

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.training.adapter import add_adapter
from rsmclip.training.config import DEFAULT_CONFIG, TrainingConfig, parse_config, read_yaml
from rsmclip.training.initial_model import check_sizes


@pytest.fixture
def config_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_without_arguments_it_is_the_demo():
    config = parse_config([])
    assert config.dataset == "demo" and config.output_dir == "outputs/demo"
    expected = yaml.safe_load(DEFAULT_CONFIG.read_text())
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("path", sorted(DEFAULT_CONFIG.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    config = parse_config(["--config", str(path)])
    given = read_yaml(path)
    assert {name: getattr(config, name) for name in given} == given
    with torch.device("meta"):
        model = RSMCLIPModel(RSMCLIPConfig(**config.model_config))
        if config.lora:
            add_adapter(model, config.lora)
    check_sizes(config, model.config)
    views = {name: torch.empty(1, 3, spec.size, spec.size, device="meta")
             for name, spec in config.view_specs(model.config.vision_config.image_size).items()}  # fmt: skip
    for pixels in views.values():
        assert model.get_prototype_logits(pixels).shape == (1, model.config.self_distillation["num_prototypes"])


def test_a_recipe_says_only_what_it_changes_of_another(tmp_path):
    (tmp_path / "whole.yaml").write_text("batch_size: 8\nlearning_rate: 3e-4\nlanguages: [en, pt]\n")
    (tmp_path / "part.yaml").write_text("base: whole.yaml\nlanguages: [en]\n")
    assert read_yaml(tmp_path / "part.yaml") == {"batch_size": 8, "learning_rate": "3e-4", "languages": ["en"]}
    assert parse_config(["--config", str(tmp_path / "part.yaml"), "--batch_size", "6"]).batch_size == 6
    (tmp_path / "lost.yaml").write_text("base: missing.yaml\n")
    with pytest.raises(ValueError, match="no configuration file at .*missing.yaml"):
        parse_config(["--config", str(tmp_path / "lost.yaml")])
    (tmp_path / "circle.yaml").write_text("base: circle.yaml\n")
    with pytest.raises(ValueError, match="circle.yaml is its own base"):
        parse_config(["--config", str(tmp_path / "circle.yaml")])


def test_command_line_overrides_the_file(config_file):
    path = config_file("learning_rate: 3e-4\nbatch_size: 8\nlanguages: [en, pt]\n")
    config = parse_config(
        ["--config", path, "--batch_size", "10", "--model_config", '{"projection_dim": 8}', "--hue", "0"]
    )
    assert config.learning_rate == 3e-4 and config.batch_size == 10 and config.languages == ["en", "pt"]
    assert config.model_config == {"projection_dim": 8} and config.hue == 0.0
    assert parse_config(["--config", path, "--languages", "de", "ru"]).languages == ["de", "ru"]


def test_a_precision_of_no_needs_no_quotes(config_file):
    assert parse_config(["--config", config_file("mixed_precision: no")]).mixed_precision == "no"


def test_a_saved_configuration_reads_back(tmp_path):
    config = parse_config(["--batch_size", "10", "--seed", "3"])
    config.save(tmp_path / "saved.yaml")
    assert parse_config(["--config", str(tmp_path / "saved.yaml")]) == config


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_rat: 1", "unknown field 'learning_rat'; did you mean 'learning_rate'"),
        ("batch_size: many", "invalid int value"),
        ("batch_size: [1]", "batch_size is \\[1\\], but must be of type int"),
        ("overwrite_output_dir: 3", "must be of type bool"),
        ("batch_size: 1", "at least two pairs"),
        ("languages: [en, xx]", "unknown language code 'xx'"),
        ("languages: [en, en]", "each once"),
        ("global_scale: [0.9, 0.4]", "global_scale takes two shares"),
        ("learning_rate: 0", "learning_rate is 0"),
        ("mixed_precision: int8", "mixed_precision is 'int8'"),
        ("teacher_momentum: 1.5", "teacher_momentum is 1.5: it must be between 0 and 1"),
        ("num_local_views: -1", "num_local_views is -1: it must be at least 0"),
        ("learning_rate: .nan", "learning_rate is nan"),
        ("output_dir: ''", "output_dir must name a folder"),
        ("model: a/b\ntokenizer: c/d", "give model or tokenizer, not both"),
        ("log_with: pencil", "no tracker 'pencil' for log_with is installed"),
        (
            "model_config: {projecton_dim: 8}",
            "model_config: unknown field 'projecton_dim'; did you mean 'projection_dim'",
        ),
        ("model_config: {text_config: {layers: 8}}", "model_config.text_config: unknown field 'layers'"),
        ("base: 5", "base is 5, but must be the name of a file"),
        ("- a list", "must hold fields and values"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_bad_files_are_refused_in_one_line(config_file, capsys, text, message):
    with pytest.raises((ValueError, SystemExit)) as refusal:
        parse_config(["--config", config_file(text)])
    said = str(refusal.value) if refusal.type is ValueError else capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert re.search(message, said), said


def test_unknown_option_and_missing_file_are_refused(capsys):
    with pytest.raises(SystemExit) as refusal:
        parse_config(["--learning_rates", "1"])
    assert refusal.value.code == 2 and "unrecognized arguments: --learning_rates" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no configuration file at nowhere.yaml"):
        parse_config(["--config", "nowhere.yaml"])


def test_null_on_the_command_line_is_none(config_file):
    assert parse_config(["--benchmark", "null", "--model", "null"]).benchmark is None
    with pytest.raises(SystemExit):
        parse_config(["--model_config", "nonsense"])


def test_views_follow_the_configuration():
    config = TrainingConfig(num_local_views=3, local_size=32, local_scale=[0.1, 0.3], brightness=0.1)
    specs = config.view_specs(image_size=64)
    assert specs["global"].count == 2 and specs["global"].size == 64
    assert specs["local"].count == 3 and specs["local"].scale == (0.1, 0.3) and specs["local"].brightness == 0.1
    assert list(TrainingConfig(self_distillation_weight=0).view_specs(64)) == ["global"]
