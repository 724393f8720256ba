"""Models and corpora on their way to a server that speaks the Hub's protocol and back, by commands in fresh processes."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from datasets import load_dataset
from PIL import Image
from transformers import AutoProcessor

from rsmclip import RSMCLIPModel
from tests.conftest import TINY
from tests.hub_server import CUT_OFF, Fault, HubServer, run_python

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "aB3" * 11 + "x"  # in the form of a real one
LAUNCH = ("-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "--cpu")
LABELS = ["аэропорт", "лес"]
LOAD = """
import io, json, sys
sys.modules["rsmclip"] = None  # importing the package is an error here
import torch
from datasets import Image, load_dataset
from transformers import AutoModel, AutoProcessor, pipeline

name, revision, labels = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
rows = load_dataset("user/captions", split="test")
model = AutoModel.from_pretrained(name, trust_remote_code=True, revision=revision)
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True, revision=revision)
with torch.no_grad():
    inputs = processor(text=rows[0]["captions"]["ko"], images=rows[0]["image"], padding=True, return_tensors="pt")
    output = model(**inputs)
classifier = pipeline("zero-shot-image-classification", model=name, trust_remote_code=True, revision=revision)
scores = classifier(rows[0]["image"], candidate_labels=labels, hypothesis_template="{}")
stored = rows.cast_column("image", Image(decode=False))[0]["image"]["bytes"].hex()
print(json.dumps({"image": output.image_embeds.tolist(), "text": output.text_embeds.tolist(), "rows": len(rows),
                  "scores": {each["label"]: each["score"] for each in scores}, "stored": stored,
                  "module": type(model).__module__}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[HubServer]:
    """A server without repositories."""
    with HubServer(root=tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, corpus_folder) -> Path:
    """A recipe that trains in seconds."""
    sizes = {"model_config": TINY, "vocab_size": 1000, "short_side": 64, "num_local_views": 2, "local_size": 16}
    steps = {"max_train_steps": 6, "checkpoint_steps": 2, "batch_size": 12, "num_workers": 1, "cpu_threads": 1}
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(sizes | steps | {"dataset": str(corpus_folder), "push_to_hub": True}))
    return path


def call(server: HubServer, *arguments: object) -> str:
    """What a command prints that succeeds."""
    done = run_python(server.endpoint, *arguments, token=TOKEN)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(server, config_file, corpus_folder, tmp_path_factory) -> Path:
    """A run of two processes that pushed its checkpoints and its end to `user/run`; its corpus is `user/captions`."""
    output = tmp_path_factory.mktemp("runs") / "run"
    options = ("--output_dir", output, "--hub_model_id", "user/run", "--hub_strategy", "checkpoint")
    printed = call(server, *LAUNCH, ROOT / "train.py", "--config", config_file, *options)
    assert f"{server.endpoint}/user/run/commit/{server.commits[-1].sha}" in printed
    assert "corpus" in call(server, "-m", "rsmclip.hub", "push-dataset", corpus_folder, "user/captions") or True
    return output


def test_a_pushed_model_and_corpus_load_by_name_and_give_the_same_embeddings(server, folder, corpus_folder):
    (tag,) = (name for name in server.revisions["user/run"] if name.startswith("v-"))
    server.faults.append(Fault("GET .*/resolve/.*model.safetensors", CUT_OFF, times=1))
    found = json.loads(call(server, "-c", LOAD, "user/run", tag, json.dumps(LABELS)).splitlines()[-1])
    assert server.faults.pop().times == 0 and found["module"].startswith("transformers_modules.user.run")

    row = load_dataset(str(corpus_folder), split="test")[0]
    model, processor = RSMCLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        inputs = processor(text=row["captions"]["ko"], images=row["image"], padding=True, return_tensors="pt")
        expected = model(**inputs)
        logits = model(**processor(text=LABELS, images=row["image"], padding=True, return_tensors="pt"))
    torch.testing.assert_close(torch.tensor(found["image"]), expected.image_embeds)
    torch.testing.assert_close(torch.tensor(found["text"]), expected.text_embeds)
    scores = torch.tensor([found["scores"][label] for label in LABELS])
    torch.testing.assert_close(scores, logits.logits_per_image.softmax(-1)[0], atol=1e-5, rtol=1e-4)
    assert found["rows"] == 36 and Image.open(io.BytesIO(bytes.fromhex(found["stored"]))).size == row["image"].size


def test_no_commit_of_a_run_holds_its_optimiser_a_pickle_a_token_or_a_path(server, folder):
    commits = [commit for commit in server.commits if commit.repository == "user/run"]
    assert [commit.revision for commit in commits] == ["checkpoint-2", "checkpoint-4", "checkpoint-6", "main"]
    assert (folder / "checkpoints" / "step-6" / "optimizer.bin").is_file()
    files = {(path, content) for path, content in server.everything() if "datasets" not in path}
    assert len(files) > 40
    for path, content in files:
        assert not re.search(r"optimizer|\.(bin|pt|pkl|ckpt)$|checkpoints/|trackers/|events", path), path
        assert not content.startswith((b"\x80", b"PK\x03\x04")), path  # pickle, and what torch.save writes
        for secret in (TOKEN, str(folder), str(Path.home()) + "/", str(ROOT)):
            assert secret.encode() not in content, (path, secret)


def test_an_adapter_is_pushed_and_loads_onto_its_model_from_the_hub(server, folder, config_file, tmp_path):
    lora = json.dumps({"r": 2, "target_modules": r".*\.(q_proj|v_proj|query|value)"})
    options = ("--output_dir", tmp_path / "adapter", "--hub_model_id", "user/adapter", "--max_train_steps", 2)
    call(server, ROOT / "train.py", "--config", config_file, *options, "--model", "user/run", "--lora", lora)
    pushed = {path.name for path in server.repositories["user/adapter"].iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= pushed
    assert not pushed & {"model.safetensors", "config.json"}
    load = """
import sys
from transformers import AutoModel
model = AutoModel.from_pretrained("user/adapter", trust_remote_code=True)
print(sum("lora_B" in name and bool(weight.any()) for name, weight in model.named_parameters()))
"""
    assert int(call(server, "-c", load).splitlines()[-1]) > 0


def test_a_refused_command_is_one_line_and_status_2(server, folder):
    server.faults.append(Fault("POST /api/models/user/other/commit/", 403))
    done = run_python(server.endpoint, "-m", "rsmclip.hub", "push", folder, "user/other", token=TOKEN)
    server.faults.clear()
    assert done.returncode == 2 and done.stderr.startswith("error: user/other was not pushed: 403 Forbidden: injected")
    assert done.stderr.count("\n") == 1 and not done.stdout
