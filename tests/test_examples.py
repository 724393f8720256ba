"""The scripts and the notebook of examples/ run as they are, with a tiny model and a tiny demo corpus."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import rsmclip
from rsmclip.core.images import decode_image
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.hub.export_onnx import export_onnx

EXAMPLES = Path(rsmclip.__file__).parent / "examples"
SCRIPTS = {"classify_folder", "search_folder", "finetune_csv", "lora", "onnx_search"}
NO_TORCH = """
import runpy, sys
sys.modules |= dict.fromkeys(["torch", "transformers", "rsmclip"])  # an import of them fails
runpy.run_path("examples/onnx_search.py")
"""


@pytest.fixture
def checkout(corpus_folder, corpus, model_folder, tmp_path, monkeypatch, own_cache):
    """A working directory with examples/ and the folder of the demo run."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLES, "examples")
    shutil.copytree(model_folder, "outputs/demo")
    Path("outputs/demo/examples").mkdir()
    for row in range(4):
        Path(f"outputs/demo/examples/{row}.jpg").write_bytes(corpus["test"][row]["image"]["bytes"])
    cache = tmp_path / "embeddings"
    monkeypatch.setattr("rsmclip.data.demo.corpus.cached_demo", lambda: corpus_folder)
    monkeypatch.setattr("rsmclip.eval.build_index.KEPT", tmp_path / "kept")
    monkeypatch.setattr("rsmclip.eval.run.EmbeddingCache", lambda: EmbeddingCache(cache))
    monkeypatch.syspath_prepend(str(tmp_path / "examples"))
    monkeypatch.delitem(sys.modules, "demo_pictures", raising=False)
    yield tmp_path
    sys.modules.pop("demo_pictures", None)
    torch.set_num_threads(threads)


def test_these_are_all_examples():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SCRIPTS | {"demo_pictures"}


def test_a_folder_is_classified(checkout, capsys):
    runpy.run_path("examples/classify_folder.py")
    printed = capsys.readouterr().out.splitlines()
    assert sum(int(count) for count in re.findall(r", (\d+)\)", printed[-1])) == 36
    assert Path("outputs/pictures", printed[0].split()[-1]).is_file()


def test_a_folder_is_searched(checkout, capsys):
    runpy.run_path("examples/search_folder.py")
    found = capsys.readouterr().out.split("\n\n")
    assert "36 new" in found[0] and [part.split(":")[0] for part in found[1:]] == ["text", "image", "text and image"]
    first = found[2].splitlines()
    assert Path(first[0].rpartition(" ")[2]).name == first[1].split()[1] and "1.000" in first[1]


@pytest.fixture
def folder_of_folders(corpus):
    """A folder of a user: three images, none of which is a JPEG in the folder itself."""
    place = Path("mine") / "more of them"
    place.mkdir(parents=True)
    for row, name in enumerate(("a.tif", "b.png", "c.webp")):
        decode_image(corpus["test"][row]["image"], name).save(place / name)
    return 'Path("mine")'


def test_the_search_takes_a_folder_with_folders(checkout, folder_of_folders, capsys):
    script = Path("examples/search_folder.py")
    script.write_text(re.sub(r"(?m)^FOLDER = .*", f"FOLDER = {folder_of_folders}", script.read_text()))
    runpy.run_path(str(script))
    printed = capsys.readouterr().out
    assert "3 new" in printed and printed.count("c.webp") >= 3


def test_the_notebook_takes_a_folder_with_folders(checkout, folder_of_folders, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    book = json.loads(Path("examples/rsmclip.ipynb").read_text(encoding="utf-8"))
    first, search = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"][:2]
    first = re.sub(r"(?m)^FOLDER = .*", f"FOLDER = {folder_of_folders}", first)
    Path("cells.py").write_text("\n".join((first, search)), encoding="utf-8")
    assert len(runpy.run_path("cells.py")["found"]) == 3


def test_a_csv_of_captions_fine_tunes_a_model(checkout, capsys):
    runpy.run_path("examples/finetune_csv.py")
    assert re.search(r"\d+\.\d before, \d+\.\d after", capsys.readouterr().out)
    assert Path("outputs/finetuned/README.md").is_file()


def test_an_adapter_is_trained_and_loaded(checkout, capsys):
    runpy.run_path("examples/lora.py")
    printed = capsys.readouterr().out.splitlines()
    assert sum(float(line.split()[0]) for line in printed[-3:]) == pytest.approx(1, abs=2e-3)
    assert Path("outputs/adapter/adapter_model.safetensors").is_file()


def test_onnx_graphs_search_without_torch_as_the_model_does(checkout):
    with Image.open("outputs/demo/examples/0.jpg") as image:
        image.crop((0, 0, 96, 71)).save("outputs/demo/examples/wide.png")
        image.crop((0, 0, 51, 96)).save("outputs/demo/examples/high.jpg")
    export_onnx("outputs/demo", Path("outputs/onnx"), int8=False, dataset="demo", split="test")
    done = subprocess.run([sys.executable, "-c", NO_TORCH], capture_output=True, text=True, check=True)
    lines = dict(line.split(": ") for line in done.stdout.splitlines())
    assert len(lines) == 3
    rsmclip.build_index("outputs/demo/examples", "outputs/demo", "index")
    for query, found in lines.items():
        scores = dict(one.rsplit(" ", 1) for one in found.split(", "))
        expected = {entry["path"]: score for score, entry in rsmclip.search("index", query)}
        assert {name: float(score) for name, score in scores.items()} == pytest.approx(expected, abs=1e-3)


def test_the_notebook_runs_from_top_to_bottom_and_holds_no_outputs(checkout, monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "agg")
    book = json.loads(Path("examples/rsmclip.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    monkeypatch.chdir("examples")  # where Jupyter starts
    Path("cells.py").write_text("\n".join("".join(cell["source"]) for cell in cells), encoding="utf-8")
    names = runpy.run_path("cells.py")
    assert "mean recall" in capsys.readouterr().out and Path.cwd() == checkout
    assert len(names["found"]) == 5 and len(names["classified"]) == 36
