"""Code that goes to the Hub opens no files, connections or processes, and nothing in the project unpickles."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rsmclip
from rsmclip.models.folder import save_model_folder

ROOT = Path(rsmclip.__file__).parent
REMOTE = ("configuration_rsmclip.py", "modeling_rsmclip.py", "image_processing_rsmclip.py")
NOT_OURS = {".venv", ".venv-oldest", "outputs"}
SOURCES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in NOT_OURS)

# Loads model folders in a process without the package. Then imports their code again and runs it, and an audit hook
# records every opened file, started process and connection.
WATCHED = """
import importlib, json, sys
sys.modules["rsmclip"] = None  # importing the package is an error here
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

seen = None

def watch(event, arguments):
    if seen is not None and event.startswith(("open", "os.", "socket.", "subprocess.", "shutil.", "ctypes.dlopen")):
        seen.append([event, *map(str, arguments)])

def run(model_module, image_module, described):
    config = model_module.RSMCLIPConfig(**described)
    model = model_module.RSMCLIPModel(config)
    processor = image_module.RSMCLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor([Image.new("RGB", (40, 50)), Image.new("P", (9, 9))], return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[0, 5, 2], [0, 6, 2]])
    model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), return_loss=True).loss.backward()
    model.get_prototype_logits(pixels)

sys.addaudithook(watch)
for folder in sys.argv[1:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    names = [type(part).__module__ for part in (model.config, model, processor.image_processor)]
    described = json.loads(model.config.to_json_string(use_diff=False))
    fields = ("vision_config", "text_config", "projection_dim", "self_distillation")
    described = {name: described[name] for name in fields}
    run(sys.modules[names[1]], sys.modules[names[2]], described)  # loads the lazy parts of libraries
    files = [sys.modules.pop(name).__file__ for name in names]
    seen = []
    _, model_module, image_module = map(importlib.import_module, names)
    run(model_module, image_module, described)
    done, seen = seen, None
    print(json.dumps({"seen": done, "files": files, "libraries": [sys.prefix, sys.base_prefix]}))
"""
UNPICKLERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
SABOTAGE = """
import os, socket, subprocess
open(__file__ + ".txt", "w").close()
open("/etc/hostname").close()
os.system("true")
subprocess.run(["true"])
socket.socket().connect_ex(("127.0.0.1", 9))
"""


def suspicious(report: dict) -> list[list[str]]:
    # Reading files of Python, of libraries and of the remote code is harmless.
    own = {str(Path(file).parent) for file in report["files"]}
    harmless = []
    for event in report["seen"]:
        name, *arguments = event
        reads = name == "open" and not set(arguments[1]) & set("wax+")
        if name in ("os.listdir", "os.scandir") or (reads and arguments[0].startswith((*report["libraries"], *own))):
            harmless.append(event)
    return [event for event in report["seen"] if event not in harmless]


def test_remote_code_opens_no_file_no_connection_and_no_process(tiny_model, tiny_processor, tmp_path):
    save_model_folder(tiny_model, tiny_processor, tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "sabotaged")
    with (tmp_path / "sabotaged" / "modeling_rsmclip.py").open("a") as file:
        file.write(SABOTAGE)
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}  # Python would write these files
    run = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path / "model"), str(tmp_path / "sabotaged")],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    ours, sabotaged = map(json.loads, run.stdout.splitlines())
    assert any("modeling_rsmclip" in str(event) for event in ours["seen"]), "the import itself is seen"
    assert not suspicious(ours), suspicious(ours)
    caught = {event[0] for event in suspicious(sabotaged)}
    assert {"os.system", "subprocess.Popen", "socket.connect"} <= caught
    opened = [event[1] for event in suspicious(sabotaged) if event[0] == "open"]
    assert len(opened) == 2 and opened[0].endswith("modeling_rsmclip.py.txt") and opened[1] == "/etc/hostname"


@pytest.mark.parametrize("name", REMOTE)
def test_remote_code_imports_torch_transformers_and_what_these_need(name):
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(f"{node.module}.py" if node.level else node.module.split(".")[0])
    assert imported <= {"torch", "transformers", "numpy", "PIL", "dataclasses", *REMOTE}


def calls(path: Path) -> Iterator[tuple[str, dict[str, str], str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield ast.unparse(node.func), keywords, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_nothing_in_the_repository_unpickles_or_runs_what_it_reads():
    loads = 0
    for path in SOURCES:
        for called, keywords, where in calls(path):
            if called == "torch.load":
                loads += 1
                assert keywords.get("weights_only") == "True", where
            if path.name != "snippet_process.py":  # it runs the examples of a new card
                assert called not in ("eval", "exec"), where
            assert called not in ("pickle.load", "pickle.loads", "yaml.load", "joblib.load"), where
            assert keywords.get("allow_pickle") != "True" and keywords.get("shell") != "True", where
    assert loads >= 5


def test_nothing_imports_a_module_that_unpickles():  # except the class of its error
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            found = UNPICKLERS & {name.split(".")[0] for name in modules}
            if found and "tests" not in path.relative_to(ROOT).parts:
                assert isinstance(node, ast.ImportFrom) and names == ["UnpicklingError"], f"{path}:{node.lineno}"


def test_weights_are_loaded_from_safetensors_alone():
    loads = 0
    for path in SOURCES:
        if not {"tests", "benchmarks"} & set(path.relative_to(ROOT).parts):
            for called, keywords, where in calls(path):
                if called in ("AutoModel.from_pretrained", "RSMCLIPModel.from_pretrained"):
                    loads += 1
                    assert keywords.get("use_safetensors") == "True", where
    assert loads >= 4
