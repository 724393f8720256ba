"""Training as users start it: whole runs in processes of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import LANGUAGES, features
from rsmclip.data.write import write_corpus
from tests.conftest import TINY

ROOT = Path(__file__).parents[2]
STEPS = 12


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, corpus_folder) -> Path:
    """A recipe that trains in seconds."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    fields = {
        "dataset": str(corpus_folder),
        "benchmark": "demo",
        "model_config": TINY,
        "vocab_size": 1000,
        "short_side": 64,
        "num_local_views": 2,
        "local_size": 16,
        "max_train_steps": STEPS,
        "batch_size": 12,
        "learning_rate": 0.001,
        "warmup_steps": 2,
        "num_workers": 1,
        "checkpoint_steps": 4,
        "evaluation_steps": 100,
        "logging_steps": 1,
        "cpu_threads": 1,
        "run_card_examples": False,
    }
    path.write_text(yaml.safe_dump(fields))
    return path


def command(config_file: Path, output: Path, *options: object, launch: tuple = ()) -> list[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *launch]
    return [
        *launcher,
        str(ROOT / "train.py"),
        "--config",
        str(config_file),
        "--output_dir",
        str(output),
        *map(str, options),
    ]


def train(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments, **options), capture_output=True, text=True, cwd=ROOT, timeout=300)


def losses(output: Path) -> list[float]:
    records = [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.fixture(scope="module")
def finished(config_file, tmp_path_factory) -> tuple[Path, str]:
    """A run from start to end: its folder and what it printed."""
    output = tmp_path_factory.mktemp("run") / "model"
    run = train(config_file, output)
    assert run.returncode == 0, run.stderr
    return output, run.stdout


def test_a_run_leaves_a_hub_repository_and_prints_its_table(finished):
    output, printed = finished
    names = {path.name for path in output.iterdir()}
    assert {"README.md", "eval_results.json", "model.safetensors", "config.json", "training_config.yaml"} <= names
    assert {"modeling_rsmclip.py", "configuration_rsmclip.py", "tokenizer.json", "train_log.jsonl"} <= names
    results = json.loads((output / "eval_results.json").read_text())
    assert list(results["metrics"]) == ["en", "pt", "es", "fr", "de", "nl", "it", "zh", "ko", "ru"]
    table = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    for language, metrics in results["metrics"].items():
        assert table[language][-2:] == [f"{metrics['mean_recall']:.1f}", f"{metrics['zero_shot_accuracy']:.1f}"]
    assert {"mean", "untrained", "chance"} <= set(table)
    records = [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    for record in records:
        assert record["loss"] == pytest.approx(record["contrastive"] + record["distillation"], abs=1e-4)


def test_two_processes_log_the_losses_of_one(finished, config_file, tmp_path):
    options = ("--keep_self_distillation_head", "false")
    run = train(config_file, tmp_path / "two", *options, launch=("--num_processes", "2", "--cpu"))
    assert run.returncode == 0, run.stderr
    devices = [
        json.loads((folder / "eval_results.json").read_text())["device"] for folder in (finished[0], tmp_path / "two")
    ]
    assert [device.split(" (")[0] for device in devices] == ["1 × CPU", "2 × CPU"]
    assert losses(tmp_path / "two") == pytest.approx(losses(finished[0]), abs=1e-4)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (finished[0], tmp_path / "two")]
    assert [config["self_distillation"] is None for config in configs] == [False, True]


def test_without_self_distillation(config_file, tmp_path):
    run = train(config_file, tmp_path / "clip", "--self_distillation_weight", 0, "--max_train_steps", 2)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "clip" / "config.json").read_text())["self_distillation"] is None
    record = json.loads((tmp_path / "clip" / "train_log.jsonl").read_text().splitlines()[0])
    assert "distillation" not in record and record["loss"] == record["contrastive"]


def test_a_tracker_gets_the_losses_of_the_log(config_file, tmp_path):
    run = train(config_file, tmp_path / "run", "--log_with", "tensorboard", "--max_train_steps", 3)
    assert run.returncode == 0, run.stderr
    events = EventAccumulator(str(tmp_path / "run" / "trackers" / "rsmclip")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(tmp_path / "run"))
    assert "trackers/" in (tmp_path / "run" / ".gitignore").read_text()


def test_training_continues_from_a_model_folder(finished, config_file, tmp_path):
    run = train(config_file, tmp_path / "finetuned", "--model", finished[0], "--max_train_steps", 2)
    assert run.returncode == 0, run.stderr
    first, untrained = (
        json.loads((folder / "eval_results.json").read_text()) for folder in (finished[0], tmp_path / "finetuned")
    )
    assert untrained["untrained"]["en"]["mean_recall"] == pytest.approx(first["metrics"]["en"]["mean_recall"])


LOAD_ADAPTER = """
import sys
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
ids = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)(text=["um porto"], return_tensors="pt")
print(model.get_text_features(**ids).pooler_output.tolist())
"""


def test_a_lora_run_leaves_an_adapter_or_the_merged_model(finished, config_file, tmp_path):
    fields = json.dumps({"r": 2, "target_modules": r".*\.(q_proj|v_proj|query|value)"})
    options = ("--model", finished[0], "--max_train_steps", 4, "--lora", fields)
    sizes, embeddings = {}, {}
    for name, merge in (("adapter", "false"), ("merged", "true")):
        card = ("--run_card_examples", "true" if name == "adapter" else "false")
        run = train(config_file, tmp_path / name, *options, "--merge_adapter", merge, *card)
        assert run.returncode == 0, run.stderr
        sizes[name] = {path.name: path.stat().st_size for path in (tmp_path / name).glob("*.safetensors")}
        command = [sys.executable, "-c", LOAD_ADAPTER, str(tmp_path / name)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        loaded = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert loaded.returncode == 0, loaded.stderr
        embeddings[name] = json.loads(loaded.stdout.splitlines()[-1])[0]
    assert list(sizes["adapter"]) == ["adapter_model.safetensors"] and list(sizes["merged"]) == ["model.safetensors"]
    assert sizes["adapter"]["adapter_model.safetensors"] < sizes["merged"]["model.safetensors"] / 4
    assert embeddings["adapter"] == pytest.approx(embeddings["merged"], abs=1e-5)
    metrics = [json.loads((tmp_path / name / "eval_results.json").read_text())["metrics"] for name in sizes]
    assert metrics[0] == metrics[1]
    card = ModelCard.load(tmp_path / "adapter" / "README.md")
    assert card.data.library_name == "peft" and str(tmp_path) not in str(card)
    printed = r'PeftModel.from_pretrained\(base, "USER/NAME"[^`]*```\n\n```\n0\.\d+  '
    assert len(re.findall(printed, card.text)) == 3
    (checkpoint,) = (tmp_path / "adapter" / "checkpoints").glob("step-*")
    assert all(
        "lora_" in name or "self_distillation_head" in name for name in load_file(checkpoint / "model.safetensors")
    )


def refusal(config_file: Path, output: Path, *options: object) -> str:
    """What a refused run says: one line, before any training."""
    arguments = [sys.executable, str(ROOT / "train.py"), "--config", str(config_file), "--output_dir", str(output)]
    run = subprocess.run([*arguments, *map(str, options)], capture_output=True, text=True, cwd=ROOT, timeout=120,
                         env=os.environ | {"HF_HUB_OFFLINE": "1"})  # fmt: skip
    return one_line(run)


def one_line(run: subprocess.CompletedProcess) -> str:
    """The one line in which a run says why it stopped."""
    assert run.returncode == 2 and "Traceback" not in run.stderr, run.stderr
    said = [line for line in run.stderr.splitlines() if line.startswith("train.py: error: ")]
    assert len(said) == 1, run.stderr
    return said[0]


def write(folder: Path, languages=LANGUAGES, rows: int = 60, broken: int = 0) -> Path:
    """A demo corpus in some languages, the first `broken` training images cut off."""

    def examples():
        for number, (split, row) in enumerate(demo_examples(rows={"train": rows, "val": 18, "test": 18})):
            row["captions"] = {language: row["captions"][language] for language in languages}
            if number < broken:
                row["image"]["bytes"] = row["image"]["bytes"][:300]
            yield split, row

    write_corpus(examples(), features(languages), folder, False, demo_card)
    return folder


def test_bad_input_is_refused_in_one_line(config_file, tmp_path):
    def refused(*options):
        return refusal(config_file, tmp_path / "refused", *options)

    assert "unrecognized arguments: --learning_rat 1" in refused("--learning_rat", "1")
    assert "no folder ./missing" in refused("--dataset", "./missing")
    assert "has no split 'dev'" in refused("--validation_split", "dev")
    assert "at least two pairs" in refused("--batch_size", "1")
    assert "only 60 rows" in refused("--batch_size", "61")
    assert "nowhere" in refused("--model", "./nowhere") and "nowhere" in refused("--tokenizer", "./nowhere")
    assert "unknown benchmark 'nope'" in refused("--benchmark", "nope")
    assert "no captions in pt" in refused("--dataset", write(tmp_path / "english", ["en"]))
    Dataset.from_dict({"picture": ["a"]}).to_parquet(tmp_path / "other" / "train.parquet")
    assert "no column 'image'" in refused("--dataset", tmp_path / "other", "--validation_split", "train")
    assert not (tmp_path / "refused").exists()


def test_an_undecodable_image_is_named_and_replaced(config_file, tmp_path):
    run = train(config_file, tmp_path / "run", "--dataset", write(tmp_path / "corpus", rows=110, broken=1))
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("image demo/train_0 cannot be decoded; another row takes its place") == 1
    assert json.loads((tmp_path / "run" / "eval_results.json").read_text())["undecodable_images"] == ["demo/train_0"]
    assert '"undecodable": ["demo/train_0"]' in (tmp_path / "run" / "train_log.jsonl").read_text()


def test_too_many_undecodable_images_stop_the_run(config_file, tmp_path):
    arguments = command(config_file, tmp_path / "run", "--dataset", write(tmp_path / "corpus", rows=60, broken=59))
    run = subprocess.run([sys.executable, *arguments[4:]], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert "of 60 training images cannot be decoded, more than 1%: demo/train_" in one_line(run)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_another_runs_model_is_not_overwritten(finished, config_file):
    before = (finished[0] / "model.safetensors").stat().st_mtime_ns
    run = train(config_file, finished[0])
    assert run.returncode != 0 and "holds another run's model; give --overwrite_output_dir" in run.stderr
    assert (finished[0] / "model.safetensors").stat().st_mtime_ns == before
