"""A model, an adapter and a corpus are pushed to the Hub and loaded again, in fresh processes."""

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
from safetensors.torch import load_file
from transformers import AutoProcessor

from rsmclip import RSMCLIPModel
from rsmclip.data.push import push_corpus
from tests.conftest import TINY_RUN
from tests.hub_server import CUT_OFF, Fault, HubServer, run_python, use_hub

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "aB3" * 11 + "x"  # in the form of a real one
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
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
adapted = AutoModel.from_pretrained("user/adapter", trust_remote_code=True).named_parameters()
adapter = sum(float(weight.abs().sum()) for name, weight in adapted if "lora_" in name)
stored = rows.cast_column("image", Image(decode=False))[0]["image"]["bytes"].hex()
print(json.dumps({"image": output.image_embeds.tolist(), "text": output.text_embeds.tolist(), "rows": len(rows),
                  "scores": {each["label"]: each["score"] for each in scores}, "stored": stored,
                  "adapter": adapter, "module": type(model).__module__}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[HubServer]:
    with HubServer(root=tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, corpus_folder) -> Path:
    steps = {"max_train_steps": 4, "checkpoint_steps": 2, "num_workers": 0}
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY_RUN | steps | {"dataset": str(corpus_folder), "push_to_hub": True}))
    return path


def call(server: HubServer, *arguments: object) -> str:
    done = run_python(server.endpoint, *arguments, token=TOKEN)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(server, config_file, corpus_folder, tmp_path_factory) -> Path:
    """A run of two processes, pushed to `user/run` with its checkpoints; the corpus is pushed to `user/captions`."""
    output = tmp_path_factory.mktemp("runs") / "run"
    options = ("--output_dir", output, "--hub_model_id", "user/run", "--hub_strategy", "checkpoint")
    printed = call(server, *LAUNCH, ROOT / "train.py", "--config", config_file, *options)
    assert f"{server.endpoint}/user/run/commit/{server.commits[-1].sha}" in printed
    with pytest.MonkeyPatch.context() as patch:
        use_hub(patch, server.endpoint)
        push_corpus(corpus_folder, "user/captions")
    return output


@pytest.fixture(scope="module")
def adapter(server, folder, config_file, tmp_path_factory) -> Path:
    """A run that trained an adapter to `user/run`, pushed to `user/adapter`."""
    output = tmp_path_factory.mktemp("runs") / "adapter"
    lora = json.dumps({"r": 2, "target_modules": r".*\.(q_proj|v_proj|query|value)"})
    options = ("--output_dir", output, "--hub_model_id", "user/adapter", "--max_train_steps", 2, "--lora", lora)
    call(server, ROOT / "train.py", "--config", config_file, *options, "--model", "user/run")
    return output


@pytest.fixture(scope="module")
def loaded(server, folder, adapter) -> dict:
    """Output of a fresh process that loads all three by name; the first download of the weights is cut off."""
    (tag,) = (name for name in server.revisions["user/run"] if name.startswith("v-"))
    server.faults.append(Fault("GET .*/user/run/resolve/.*/model.safetensors", CUT_OFF, times=2))  # after the HEAD
    found = json.loads(call(server, "-c", LOAD, "user/run", tag, json.dumps(LABELS)).splitlines()[-1])
    assert server.faults.pop().times == 0
    return found


def test_a_pushed_model_and_corpus_load_by_name_and_give_the_same_embeddings(folder, corpus_folder, loaded):
    assert loaded["module"].startswith("transformers_modules.user.run")
    row = load_dataset(str(corpus_folder), split="test")[0]
    model, processor = RSMCLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        inputs = processor(text=row["captions"]["ko"], images=row["image"], padding=True, return_tensors="pt")
        expected = model(**inputs)
        logits = model(**processor(text=LABELS, images=row["image"], padding=True, return_tensors="pt"))
    torch.testing.assert_close(torch.tensor(loaded["image"]), expected.image_embeds)
    torch.testing.assert_close(torch.tensor(loaded["text"]), expected.text_embeds)
    scores = torch.tensor([loaded["scores"][label] for label in LABELS])
    torch.testing.assert_close(scores, logits.logits_per_image.softmax(-1)[0], atol=1e-5, rtol=1e-4)
    assert loaded["rows"] == 36 and Image.open(io.BytesIO(bytes.fromhex(loaded["stored"]))).size == row["image"].size


def test_no_commit_of_a_run_holds_its_optimizer_a_pickle_a_token_or_a_path(server, folder):
    commits = [commit for commit in server.commits if commit.repository == "user/run"]
    assert [commit.revision for commit in commits] == ["checkpoint-2", "checkpoint-4", "main"]
    assert (folder / "checkpoints" / "step-4" / "optimizer.bin").is_file()
    files = {(path, content) for path, content in server.everything() if "datasets" not in path}
    assert len(files) > 30
    for path, content in files:
        assert not re.search(r"optimizer|\.(bin|pt|pkl|ckpt)$|checkpoints/|trackers/|events", path), path
        assert not content.startswith((b"\x80", b"PK\x03\x04")), path  # pickle, and what torch.save writes
        for secret in (TOKEN, str(folder), str(Path.home()) + "/", str(ROOT)):
            assert secret.encode() not in content, (path, secret)


def test_a_pushed_adapter_loads_onto_its_model_from_the_hub(server, adapter, loaded):
    pushed = {path.name for path in server.repositories["user/adapter"].iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= pushed
    assert not pushed & {"model.safetensors", "config.json"}
    trained = load_file(adapter / "adapter_model.safetensors")
    assert loaded["adapter"] == pytest.approx(sum(float(weight.abs().sum()) for weight in trained.values()))
