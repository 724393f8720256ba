"""The configuration: YAML, command line, and refusals in one line."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.training.adapter import add_adapter
from rsmclip.training.command_line import RECIPES, parse_config, read_config, read_yaml
from rsmclip.training.config import GROUPS, SOURCES, TrainingConfig
from rsmclip.training.initial_model import check_sizes


@pytest.fixture
def config_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_the_home_folder_is_expanded_in_every_field_that_names_a_path(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("seed: 7\n")
    path = config_file("base: ~/base.yaml\ndataset: ~/corpus\noutput_dir: ~/out\nbenchmarks: [rsscn7=~/rsscn7]\n")
    for argument in (path, "~/config.yaml"):
        config = parse_config([f"--config={argument}", "--model=~/model", "--resume_from_checkpoint", "~/out/step-1"])
        found = [config.dataset, config.output_dir, config.model, config.resume_from_checkpoint, *config.benchmarks]
        places = [f"{tmp_path}/{name}" for name in ("corpus", "out", "model", "out/step-1", "rsscn7")]
        assert found == [*places[:4], f"rsscn7={places[4]}"] and config.seed == 7


def test_without_arguments_it_is_the_demo():
    config = parse_config([])
    assert config.dataset == "demo" and config.output_dir == "outputs/demo"
    expected = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    config = parse_config(["--config", str(path)])
    given = read_yaml(path)
    assert {name: getattr(config, name) for name in given} == given
    with torch.device("meta"):
        towers = {"vision_config": {"image_size": 84, "patch_size": 14}} if "towers" in path.stem else {}  # options
        model = RSMCLIPModel(RSMCLIPConfig(**config.model_config | towers))
        if config.lora:
            add_adapter(model, config.lora)
    specs = config.view_specs(model.config.vision_config.image_size)
    check_sizes(model.config, config.max_length, specs)
    for spec in specs.values():
        pixels = torch.empty(1, 3, spec.size, spec.size, device="meta")
        assert model.get_prototype_logits(pixels).shape == (1, model.config.self_distillation["num_prototypes"])


def test_the_papers_recipe_freezes_prototypes_for_an_epoch_and_validates_each_one():
    config = parse_config(["--config", str(RECIPES / "rs_m_clip.yaml")])
    for rows in (8_734, 40_402, 400_000):
        whole, epoch = config.with_whole_steps(rows), rows // 256
        steps = whole.freeze_prototypes_steps, whole.self_distillation_warmup_steps, whole.evaluation_steps
        assert whole.max_train_steps == 7 * epoch and set(steps) == {epoch}
    assert config.head_learning_rate == 5e-4 * config.batch_size / 256


def test_fine_tuning_counts_epochs_and_inherits_no_benchmark():
    config = read_config("finetune", languages=["en"])
    assert config.num_train_epochs and config.max_train_steps is None and config.benchmarks == []
    assert config.evaluated_languages == ["en"]
    assert read_yaml(RECIPES / "finetune.yaml")["benchmarks"] == []  # also if a base has some


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: !!python/object/apply:os.mkdir [run]", "odd.yaml.*python/object/apply:os.mkdir"),
        ("seed: !!python/name:os.system", "odd.yaml.*python/name:os.system"),
        ("seed: !!binary aGk=", "seed.*int"),
        ("languages: &a [*a]", "languages"),
        ("? [a]\n: b", "odd.yaml.*unhashable"),
        ("seed: \x1b", "odd.yaml.*special characters"),
        ('output_dir: "a\\e[31m"', "output_dir.*control characters"),
        ('dataset: "a\\nb"', "dataset.*control characters"),
    ],
)
def test_tags_and_control_characters_of_a_file_are_refused_in_one_line(tmp_path, monkeypatch, text, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        parse_config(["--config", "odd.yaml"])
    assert re.search(named, " ".join(str(error.value).split())) and not (tmp_path / "run").exists()


def test_a_recipe_says_only_what_it_changes_of_another(tmp_path):
    (tmp_path / "whole.yaml").write_text("batch_size: 8\nlearning_rate: 3e-4\nlanguages: [en, pt]\n")
    (tmp_path / "part.yaml").write_text("base: whole.yaml\nlanguages: [en]\n")
    assert read_yaml(tmp_path / "part.yaml") == {"batch_size": 8, "learning_rate": 3e-4, "languages": ["en"]}
    assert parse_config(["--config", str(tmp_path / "part.yaml"), "--batch_size", "6"]).batch_size == 6
    (tmp_path / "lost.yaml").write_text("base: missing.yaml\n")
    with pytest.raises(ValueError, match="missing.yaml"):
        parse_config(["--config", str(tmp_path / "lost.yaml")])
    (tmp_path / "circle.yaml").write_text("base: circle.yaml\n")
    with pytest.raises(ValueError, match="circle.yaml.*base"):
        parse_config(["--config", str(tmp_path / "circle.yaml")])


def test_python_reads_a_recipe_as_the_command_line_does(config_file):
    path = config_file("learning_rate: 3e-4\nmax_train_steps: 8\nlanguages: [en, pt]\n")
    options = ["--config", path, "--num_train_epochs", "2", "--hue", "0", "--dataset", "a b"]
    assert read_config(path, num_train_epochs=2, hue=0, dataset=Path("a b")) == parse_config(options)
    assert read_config("demo") == parse_config([]) == parse_config(["--config", "demo"])
    for bad in ({"lerning_rate": 1.0}, {"batch_size": "8"}, {"num_train_epochs": 1, "max_train_steps": 2}):
        with pytest.raises(UserError, match=next(iter(bad))):
            read_config(path, **bad)
    with pytest.raises(UserError, match="'x'"):
        read_config(config_file("learning_rate: x"))


def test_an_unknown_recipe_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="demos.yaml.*demo, .*rs_m_clip"):
        read_config("demos")


def test_command_line_overrides_the_file(config_file):
    path = config_file("learning_rate: 3e-4\nbatch_size: 8\nlanguages: [en, pt]\n")
    config = parse_config(
        ["--config", path, "--batch_size", "10", "--model_config", '{"projection_dim": 8}', "--hue", "0"]
    )
    assert config.learning_rate == 3e-4 and config.batch_size == 10 and config.languages == ["en", "pt"]
    assert config.model_config == {"projection_dim": 8} and config.hue == 0.0
    assert parse_config(["--config", path, "--languages", "de", "ru"]).languages == ["de", "ru"]


LENGTHS = [  # whole.yaml, part.yaml with the base whole.yaml, command line, epochs and steps
    ("max_train_steps: 8", "seed: 1", [], (None, 8)),
    ("max_train_steps: 8", "num_train_epochs: 1.5", [], (1.5, None)),
    ("num_train_epochs: 3", "max_train_steps: 9", [], (None, 9)),
    ("num_train_epochs: 3", "max_train_steps: 9", ["--num_train_epochs", "2"], (2.0, None)),
    ("num_train_epochs: 3", "seed: 1", ["--max_train_steps", "7"], (None, 7)),
    ("max_train_steps: null", "num_train_epochs: 2", ["--max_train_steps", "null"], (2.0, None)),
    ("seed: 1", "seed: 2", [], (None, 1000)),
]


@pytest.mark.parametrize(("whole", "part", "options", "expected"), LENGTHS)
def test_a_length_of_the_run_clears_the_other_one_of_the_levels_below(tmp_path, whole, part, options, expected):
    (tmp_path / "whole.yaml").write_text(whole)
    (tmp_path / "part.yaml").write_text(f"base: whole.yaml\n{part}")
    config = parse_config(["--config", str(tmp_path / "part.yaml"), *options])
    assert (config.num_train_epochs, config.max_train_steps) == expected


def test_a_length_given_twice_or_never_is_refused(config_file):
    both = "num_train_epochs.*max_train_steps"
    with pytest.raises(UserError, match=f"config.yaml.*{both}"):
        parse_config(["--config", config_file("num_train_epochs: 1\nmax_train_steps: 5")])
    with pytest.raises(UserError, match=both):
        parse_config(["--num_train_epochs", "1", "--max_train_steps", "5"])
    with pytest.raises(UserError, match=both):
        parse_config(["--config", config_file("num_train_epochs: null\nmax_train_steps: null")])
    with pytest.raises(UserError, match=both):
        parse_config(["--config", config_file("max_train_steps: 5"), "--max_train_steps", "null"])


def test_epochs_and_shares_become_whole_numbers_of_steps():
    shares = {"warmup_steps": 0.07, "freeze_prototypes_steps": 0.001, "evaluation_steps": 0.5, "checkpoint_steps": 1}
    config = TrainingConfig(num_train_epochs=2.5, max_train_steps=None, batch_size=10, **shares)
    whole = config.with_whole_steps(num_rows=409)
    assert (whole.num_train_epochs, whole.max_train_steps) == (None, 100)  # 40 steps an epoch
    assert (whole.warmup_steps, whole.freeze_prototypes_steps) == (7, 1)  # rounded up, at least one step
    assert (whole.evaluation_steps, whole.checkpoint_steps, whole.self_distillation_warmup_steps) == (50, 1, 0)
    assert all(isinstance(value, int) for name, value in vars(whole).items() if name.endswith("_steps"))
    assert whole.with_whole_steps(num_rows=9999) == whole


def test_whole_steps_of_the_command_line_are_integers():
    steps = parse_config(["--warmup_steps", "20"]).warmup_steps
    assert steps == 20 and isinstance(steps, int)


def test_a_precision_of_no_needs_no_quotes(config_file):
    assert parse_config(["--config", config_file("mixed_precision: no")]).mixed_precision == "no"


def test_a_temperature_needs_no_quotes(config_file):
    assert parse_config(["--config", config_file("source_sampling: 2")]).source_sampling == "2"


def test_settings_of_an_earlier_version_can_be_resumed(config_file):
    assert parse_config(["--config", config_file("run_card_examples: false\nseed: 3")]).seed == 3


def test_the_card_shows_settings_and_none_of_a_teacher_that_does_not_train():
    rows = dict(TrainingConfig(seed=7).card_rows())
    assert rows["`seed`"] == "7" and "`teacher_momentum`" in rows and all(value != "None" for value in rows.values())
    assert "`teacher_momentum`" not in dict(TrainingConfig(self_distillation_weight=0).card_rows())


def test_help_has_every_field_in_a_group(capsys):
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{spec.name} " in printed for spec in fields(TrainingConfig))
    assert all(f"\n{group.title}:\n" in printed for group in GROUPS)


def test_a_saved_configuration_reads_back(tmp_path):
    config = parse_config(["--batch_size", "10", "--seed", "3"])
    config.save(tmp_path / "saved.yaml")
    assert parse_config(["--config", str(tmp_path / "saved.yaml")]) == config


@pytest.mark.parametrize(
    "text, named",
    [
        ("learning_rat: 1", "learning_rat.*learning_rate"),
        ("batch_size: many", "batch_size.*many"),
        ("batch_size: [1]", "batch_size.*int"),
        ("overwrite_output_dir: 3", "overwrite_output_dir.*bool"),
        ("batch_size: 1", "batch_size is 1.*2"),
        ("warmup_steps: 1.5", "warmup_steps is 1.5.*whole"),
        ("evaluation_steps: 0", "evaluation_steps is 0"),
        ("checkpoint_steps: .inf", "checkpoint_steps is inf"),
        ("num_train_epochs: 0", "num_train_epochs is 0"),
        ("logging_steps: 0.5", "logging_steps.*int"),
        ("languages: [en, xx]", "languages.*xx"),
        ("languages: [en, en]", "languages"),
        ("evaluation_languages: [en, xx]", "evaluation_languages.*xx"),
        ("evaluation_languages: []", "evaluation_languages"),
        ("global_scale: [0.9, 0.4]", "global_scale"),
        ("contrastive_scale: [0.9, 1.4]", "contrastive_scale"),
        ("learning_rate: 0", "learning_rate is 0"),
        ("mixed_precision: int8", "mixed_precision.*int8"),
        ("teacher_momentum: 1.5", "teacher_momentum is 1.5.* 0 and 1"),
        ("num_local_views: -1", "num_local_views is -1.* 0"),
        ("learning_rate: .nan", "learning_rate is nan"),
        ("output_dir: ''", "output_dir"),
        ("dataset: ''", "dataset"),
        *((f'{name}: "a\\0b"', name) for name in ("dataset", "model", "tokenizer", "output_dir")),
        ('output_dir: "\\ud800"', "output_dir"),
        ("cpu_threads: 100000", "cpu_threads.*1024"),
        ("model: a/b\ntokenizer: c/d", "model or tokenizer"),
        ("log_with: pencil", r"log_with.*pencil.*\[trackers\]"),
        ("language_sampling: en=x", "language_sampling.*x"),
        ("source_sampling: 2\nstreaming: true\ntokenizer: a/b", "source_sampling.*streaming"),
        ("freeze: (", "freeze.*[(]"),
        ("merge_adapter: true", "merge_adapter.*lora"),
        ("lora: {r: 2}\nmodel: a/b\nprobe_steps: 5", "probe_steps.*lora"),
        ("lora: {r: 2}\nmerge_adapter: true\nimage_tower: a/b\ntext_tower: a/b", "image_tower.*lora"),
        ("early_stop_evaluations: 3", "early_stop_evaluations.*best_figure"),
        ("push_to_hub: true\nhub_model_id: a/b/c", "hub_model_id.*a/b/c"),
        ("push_to_hub: true\nhub_model_id: a/b\nlora: {r: 2}\nmodel: ./here", "merge_adapter.*model"),
        ("model_config: {projecton_dim: 8}", "model_config.*projecton_dim.*projection_dim"),
        ("model_config: {text_config: {layers: 8}}", "model_config.text_config.*layers"),
        ("base: 5", "base is 5"),
        ("- a list", "config.yaml.*list"),
        ("a: " + 10_000 * "[", "config.yaml.*YAML"),
        ("a: [", "config.yaml.*YAML"),
        ("learning_rate: 2001-99-99", "config.yaml.*YAML"),
        ("learning_rate: !!bool 3", "config.yaml.*YAML"),
        ("learning_rate: !!timestamp x", "config.yaml.*YAML"),
        ("learning_rate: !!int ''", "config.yaml.*YAML"),
        ("learning_rate: " + "1" * 5000, "config.yaml.*YAML"),
        ("learning_rate: 1" + "0" * 400, "learning_rate"),
        ("batch_size: 1" + "0" * 400, "batch_size"),
        ("base: " + "x" * 5000, "xxx"),
    ],
)
def test_bad_files_are_refused_in_one_line(config_file, capsys, text, named):
    with pytest.raises((UserError, SystemExit)) as refusal:
        parse_config(["--config", config_file(text)])
    said = str(refusal.value) if refusal.type is UserError else capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert re.search(named, said), said


def test_unknown_option_and_missing_file_are_refused(capsys):
    with pytest.raises(SystemExit) as refusal:
        parse_config(["--learning_rates", "1"])
    assert refusal.value.code == 2 and "--learning_rates" in capsys.readouterr().err
    with pytest.raises(ValueError, match="nowhere.yaml"):
        parse_config(["--config", "nowhere.yaml"])


@pytest.mark.parametrize("name", SOURCES)
def test_an_empty_name_is_refused_and_does_not_mean_null(name):
    with pytest.raises(UserError, match=f"{name} is empty"):
        TrainingConfig(**{name: ""})


def test_lora_without_probed_projections_in_its_checkpoints_is_refused():
    with pytest.raises(UserError, match="probe_steps.*lora"):
        TrainingConfig(lora={"r": 2}, model="folder", probe_steps=3)


def test_null_on_the_command_line_is_none():
    assert parse_config(["--best_figure", "null", "--model", "null"]).best_figure is None
    assert parse_config(["--evaluation_languages", "null"]).evaluation_languages is None
    assert parse_config(["--evaluation_languages", "en", "pt"]).evaluation_languages == ["en", "pt"]
    with pytest.raises(SystemExit):
        parse_config(["--model_config", "nonsense"])


def test_a_model_is_evaluated_in_its_languages_or_in_others():
    english = ["--languages", "en", "--evaluation_languages"]
    assert parse_config(["--languages", "en", "pt"]).evaluated_languages == ["en", "pt"]
    assert parse_config([*english, "en", "de"]).evaluated_languages == ["en", "de"]


def test_no_values_on_the_command_line_are_an_empty_list():
    assert parse_config([]).benchmarks == ["demo"] and parse_config(["--benchmarks"]).benchmarks == []


def test_the_benchmark_of_an_earlier_run_is_read(config_file):
    assert parse_config(["--config", config_file("benchmark: rsicd")]).benchmarks == ["rsicd"]
    assert parse_config(["--config", config_file("benchmark: null")]).benchmarks == []


def test_views_follow_the_configuration():
    config = TrainingConfig(num_local_views=3, local_size=32, local_scale=[0.1, 0.3], brightness=0.1)
    specs = config.view_specs(image_size=64)
    assert specs["global"].count == 2 and specs["global"].size == 64
    assert specs["local"].count == 3 and specs["local"].scale == (0.1, 0.3) and specs["local"].brightness == 0.1
    assert list(TrainingConfig(self_distillation_weight=0).view_specs(64)) == ["global"]
    chances = {"flip": 0.1, "quarter_turn": 0.2, "jitter": 0.3}
    for spec in TrainingConfig(**chances, num_contrastive_views=1).view_specs(64).values():
        assert {name: getattr(spec, name) for name in chances} == chances


def test_contrastive_views_are_mild_and_leave_the_global_ones_to_the_self_distillation():
    mild = {"num_contrastive_views": 1, "contrastive_scale": [0.6, 0.9], "hue": 0.05, "solarize": 0.2}
    specs = TrainingConfig(**mild).view_specs(64)
    assert sorted(specs) == ["contrastive", "global", "local"] and specs["global"].solarize == 0.2
    spec = specs["contrastive"]
    assert (spec.count, spec.size, spec.scale, spec.hue) == (1, 64, (0.6, 0.9), 0.05)
    assert spec.grayscale == spec.blur == spec.solarize == 0
    assert TrainingConfig(**mild, self_distillation_weight=0).view_specs(64) == {"contrastive": spec}
    with pytest.raises(UserError, match="self-distillation.*views"):  # they are no views of the self-distillation
        TrainingConfig(**mild, num_global_views=1, num_local_views=0)


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"rr": 2}, "lora.*'rr'"),
        ({"target_modules": 3}, "lora.*target_modules"),
        ({"target_modules": "("}, "lora.*target_modules"),
        ({"target_modules": "query", "r": 0}, "lora.*'r': 0"),
        ({"target_modules": "query", "r": "x"}, "lora: r "),
        ({"target_modules": "query", "lora_alpha": "x"}, "lora: lora_alpha"),
        ({"target_modules": ["nowhere"]}, "lora.*nowhere"),
    ],
)
def test_fields_of_lora_that_fit_nothing_are_refused(tiny_model, fields, named):
    with pytest.raises(UserError, match=named):
        add_adapter(tiny_model, fields)
