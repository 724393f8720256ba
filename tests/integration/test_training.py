"""Whole runs of train.py in processes of their own, started as users start them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModel, AutoProcessor

from rsmclip.core.languages import LANGUAGES
from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import features
from rsmclip.data.write import write_corpus
from rsmclip.train import main
from tests.conftest import TINY_RUN

ROOT = Path(__file__).parents[2]
STEPS = 12
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, corpus_folder) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    fields = {"dataset": str(corpus_folder), "benchmarks": ["demo"], "max_train_steps": STEPS, "num_workers": 1}
    path.write_text(yaml.safe_dump(TINY_RUN | fields))
    return path


def run(config_file: Path, output: Path, *options: object, launcher: tuple = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, ROOT / "train.py", "--config", config_file, "--output_dir", output, *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT, timeout=300, env=environment)


def train(*arguments, **options) -> str:
    ended = run(*arguments, **options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def read_json(folder: Path, name: str = "eval_results.json") -> dict:
    return json.loads((folder / name).read_text())


def log_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]


def losses(output: Path) -> list[float]:
    return [record["loss"] for record in log_of(output) if "loss" in record]


@pytest.fixture(scope="module")
def finished(config_file, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run from start to end, and what the run printed."""
    output = tmp_path_factory.mktemp("run") / "model"
    return output, train(config_file, output)


def test_a_run_leaves_a_hub_repository_and_prints_its_table(finished):
    output, printed = finished
    names = {path.name for path in output.iterdir()}
    assert {"README.md", "eval_results.json", "model.safetensors", "config.json", "training_config.yaml"} <= names
    assert {"modeling_rsmclip.py", "configuration_rsmclip.py", "tokenizer.json", "train_log.jsonl"} <= names
    results = read_json(output)
    assert list(results["metrics"]) == ["en", "pt", "es", "fr", "de", "nl", "it", "zh", "ko", "ru"]
    table = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    for language, metrics in results["metrics"].items():
        assert table[language][-2:] == [f"{metrics['mean_recall']:.1f}", f"{metrics['zero_shot_accuracy']:.1f}"]
    assert {"mean", "start", "chance"} <= set(table)
    assert [record["step"] for record in log_of(output)] == list(range(1, STEPS + 1))
    for record in log_of(output):
        assert record["loss"] == pytest.approx(record["contrastive"] + record["distillation"], abs=1e-4)


def test_chunks_in_two_processes_log_the_losses_of_one_process(finished, config_file, tmp_path):
    chunks = ("--gradient_accumulation_chunks", 3, "--loss_chunk_size", 2)
    options = (*chunks, "--keep_self_distillation_head", "false")
    train(config_file, tmp_path / "two", *options, launcher=TWO_PROCESSES)
    folders = (finished[0], tmp_path / "two")
    assert [read_json(folder)["device"].split(" (")[0] for folder in folders] == ["1 × CPU", "2 × CPU"]
    assert losses(tmp_path / "two") == pytest.approx(losses(finished[0]), abs=1e-4)
    heads = [read_json(folder, "config.json")["self_distillation"] for folder in folders]
    assert heads[0] is not None and heads[1] is None


def test_two_processes_probe_as_one_process_does(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))  # of embeddings
    options = ("--probe_steps", 5, "--max_train_steps", 1, "--evaluate_start", "false", "--languages", "en")
    weights = []
    for name, launcher in (("one", ()), ("two", TWO_PROCESSES)):
        train(config_file, tmp_path / name, *options, launcher=launcher)
        weights.append(load_file(tmp_path / name / "checkpoints" / "step-0" / "model.safetensors"))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-4, msg=name)


def test_two_processes_agree_on_the_best_step_and_on_an_early_stop(config_file, tmp_path):
    options = ("--best_figure", "mean_recall", "--early_stop_evaluations", 1, "--evaluation_steps", 1)
    printed = train(config_file, tmp_path, *options, launcher=TWO_PROCESSES)
    evaluations = {r["step"]: r["validation_mean_recall"] for r in log_of(tmp_path) if "validation" in r}
    kept = read_json(tmp_path)["kept"]
    assert kept["value"] == evaluations[kept["step"]] == max(evaluations.values())
    assert kept["last_step"] == max(evaluations) and len(losses(tmp_path)) == kept["last_step"]
    assert f"step {kept['step']} of {kept['last_step']}" in printed


def test_without_self_distillation_the_log_and_the_tracker_get_the_contrastive_loss(config_file, tmp_path):
    options = ("--self_distillation_weight", 0, "--log_with", "tensorboard", "--max_train_steps", 3)
    train(config_file, tmp_path, *options)
    assert read_json(tmp_path, "config.json")["self_distillation"] is None
    assert all("distillation" not in record and record["loss"] == record["contrastive"] for record in log_of(tmp_path))
    events = EventAccumulator(str(tmp_path / "trackers" / "rsmclip")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(tmp_path))
    assert "trackers/" in (tmp_path / ".gitignore").read_text()


def test_lora_starts_from_a_model_and_leaves_an_adapter_or_the_merged_model(finished, config_file, tmp_path):
    fields = json.dumps({"r": 2, "target_modules": r".*\.(q_proj|v_proj|query|value)"})
    sizes, embeddings = {}, {}
    for name, merge in (("adapter", "false"), ("merged", "true")):
        options = ("--model", finished[0], "--max_train_steps", 4, "--lora", fields, "--merge_adapter", merge)
        train(config_file, tmp_path / name, *options)
        sizes[name] = {path.name: path.stat().st_size for path in (tmp_path / name).glob("*.safetensors")}
        model = AutoModel.from_pretrained(tmp_path / name, trust_remote_code=True)
        processor = AutoProcessor.from_pretrained(tmp_path / name, trust_remote_code=True)
        with torch.no_grad():
            inputs = processor(text=["um porto"], return_tensors="pt")
            embeddings[name] = model.get_text_features(**inputs).pooler_output
    assert list(sizes["adapter"]) == ["adapter_model.safetensors"] and list(sizes["merged"]) == ["model.safetensors"]
    assert sizes["adapter"]["adapter_model.safetensors"] < sizes["merged"]["model.safetensors"] / 4
    torch.testing.assert_close(embeddings["adapter"], embeddings["merged"], atol=1e-5, rtol=0)
    start, adapter, merged = map(read_json, (finished[0], tmp_path / "adapter", tmp_path / "merged"))
    assert adapter["metrics"] == merged["metrics"]
    assert adapter["untrained"]["en"]["mean_recall"] == pytest.approx(start["metrics"]["en"]["mean_recall"])
    (checkpoint,) = (tmp_path / "adapter" / "checkpoints").glob("step-*")
    names = load_file(checkpoint / "model.safetensors")
    assert all("lora_" in name or "self_distillation_head" in name for name in names)


def write(folder: Path, languages=LANGUAGES, rows: int = 60, broken: int = 0) -> Path:
    """Write a demo corpus with the images of the first `broken` training rows cut off."""

    def examples():
        for number, (split, row) in enumerate(demo_examples(rows={"train": rows, "val": 18, "test": 18})):
            row["captions"] = {language: row["captions"][language] for language in languages}
            if number < broken:
                row["image"]["bytes"] = row["image"]["bytes"][:300]
            yield split, row

    write_corpus(examples(), features(languages), folder, False, demo_card)
    return folder


def test_bad_input_is_refused_in_one_line(finished, config_file, tmp_path, capsys):
    Dataset.from_dict({"picture": ["a"]}).to_parquet(tmp_path / "other" / "train.parquet")
    for options, culprit in (
        (("--learning_rat", "1"), "--learning_rat"),
        (("--dataset", "./missing"), "./missing"),
        (("--validation_split", "dev"), "'dev'"),
        (("--batch_size", "61"), "61"),
        (("--model", "./nowhere"), "nowhere"),
        (("--benchmarks", "nope"), "'nope'"),
        (("--benchmarks", "demo", "aid=./missing"), "missing"),
        (("--best_figure", "mean_recal"), "de/mean_recall"),
        (("--output_dir", finished[0]), "--overwrite_output_dir"),
        (("--dataset", write(tmp_path / "english", ["en"])), " pt"),
        (("--dataset", tmp_path / "other", "--validation_split", "train"), "'image'"),
    ):
        arguments = ["--config", config_file, "--output_dir", tmp_path / "refused", *options]
        with pytest.raises(SystemExit, match="2"):
            main([str(argument) for argument in arguments])
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert culprit in line
    assert not (tmp_path / "refused").exists()


def test_an_undecodable_image_is_named_and_replaced(config_file, tmp_path):
    printed = train(config_file, tmp_path / "run", "--dataset", write(tmp_path / "corpus", rows=110, broken=1))
    assert printed.count("demo/train_0 ") == 1
    assert read_json(tmp_path / "run")["undecodable_images"] == ["demo/train_0"]
    assert ["demo/train_0"] in [record.get("undecodable") for record in log_of(tmp_path / "run")]


def test_too_many_undecodable_images_stop_the_run(config_file, tmp_path):
    broken = write(tmp_path / "corpus", rows=60, broken=59)
    ended = run(config_file, tmp_path / "run", "--dataset", broken)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    assert re.search("error: .*demo/train_", ended.stderr)
    assert not (tmp_path / "run" / "model.safetensors").exists()
