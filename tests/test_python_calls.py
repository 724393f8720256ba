"""The calls of a notebook: docs/python.md runs as it is written, and the package is light until it is used."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rsmclip
from rsmclip.core.errors import UserError
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.eval.results import EvalResults

ROOT = Path(rsmclip.__file__).parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.fixture
def workplace(corpus, model_folder, tmp_path, monkeypatch, own_cache):
    """The files that the page names, in the working directory."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rsmclip.eval.run.EmbeddingCache", lambda: EmbeddingCache(tmp_path / "cache"))
    shutil.copytree(model_folder, "outputs/demo")
    lines = []
    for place in ("PICTURES", "FOLDER"):
        Path(place).mkdir()
    for split, rows in corpus.items():
        for number, row in enumerate(rows):
            name = f"{split} {number}.jpg"
            Path("PICTURES", name).write_bytes(row["image"]["bytes"])
            lines.append({"file_name": name, "captions": row["captions"]["en"]})
            if split == "val":
                Path("FOLDER", name).write_bytes(row["image"]["bytes"])
    Path("PICTURES", "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copy("FOLDER/val 3.jpg", "photo.jpg")
    yield tmp_path
    torch.set_num_threads(threads)


def test_every_snippet_of_the_page_runs(workplace, capsys):
    Path("page.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S)), encoding="utf-8")
    names = runpy.run_path("page.py")
    printed = capsys.readouterr().out
    assert names["results"].metrics["corpus"].keys() == {"en"} and "mean recall" in printed
    assert EvalResults.read(workplace / "outputs" / "tuned_results").metrics == names["results"].metrics
    assert "differences are real" in printed
    assert names["report"].new == 18 and names["similar"][0].entry["path"] == "val 3.jpg"
    assert names["found"].scores.shape == (18, 3)


def test_a_process_trains_in_one_precision_after_the_other(workplace):
    rsmclip.build_corpus(["imagefolder=PICTURES"], "corpus", split="80/10/10")
    small = {"dataset": Path("corpus"), "model": "outputs/demo", "languages": ["en"], "max_train_steps": 1}
    small |= {"batch_size": 4, "num_workers": 0, "evaluate_start": False}
    for number, precision in enumerate(("no", "bf16", "no")):
        results = rsmclip.train_model("finetune", mixed_precision=precision, output_dir=f"run {number}", **small)
        assert results.mixed_precision == precision


BAD_NUMBERS = (0, -1, 2.5, "256", True)
BAD_CALLS = [
    (lambda: rsmclip.build_corpus(["imagefolder"], "out"), "NAME=DIR.*'imagefolder'"),
    (lambda: rsmclip.build_corpus("imagefolder=nowhere", "out"), "nowhere"),
    (lambda: rsmclip.build_corpus([Path("d/m")], "out"), "NAME=DIR.*d/m"),
    (lambda: rsmclip.build_corpus([{"imagefolder": "d"}], "out"), "NAME=DIR.*'d'"),
    (lambda: rsmclip.build_corpus(["imagefolder=PICTURES"], "out", split=0.8), "split.*80/10/10.*0.8"),
    (lambda: rsmclip.build_index(["a.jpg"], "outputs/demo", "out"), "images.*list.*folder"),
    (lambda: rsmclip.build_index(np.zeros(3), "outputs/demo", "out"), "images.*ndarray.*folder"),
    (lambda: rsmclip.build_index(None, "outputs/demo", "out"), "images.*folder"),
    (lambda: rsmclip.build_index("FOLDER", "outputs/demo", None), "output.*folder"),
    (lambda: rsmclip.build_index("FOLDER", nn.Linear(1, 1), "out"), "model.*Linear.*load_embedder"),
    *[(lambda side=side: rsmclip.build_index("FOLDER", "m", "out", tile=side), "tile.*1") for side in BAD_NUMBERS],
    *[(lambda side=side: rsmclip.build_index("FOLDER", "m", "out", stride=side), "stride.*1") for side in BAD_NUMBERS],
    (lambda: rsmclip.build_index("FOLDER", "outputs/demo", "out", tile=-1), "tile"),
    (lambda: rsmclip.build_index("FOLDER", "outputs/demo", "out", batch_size=0), "batch_size is 0"),
    (lambda: rsmclip.build_index("FOLDER", "outputs/demo", "out", batch_size="8"), "batch_size.*'8'"),
    (lambda: rsmclip.classify("FOLDER", "outputs/demo", (label for label in "aa")), "'a'"),
    (lambda: rsmclip.classify(["a.jpg"], "outputs/demo", ["a", "b"]), "images.*list.*folder"),
    (lambda: rsmclip.classify(Image.new("L", (9, 9)), "outputs/demo", ["a", "b"]), "images.*Image.*folder"),
    (lambda: rsmclip.classify("FOLDER", "outputs/demo", None), "labels.*None.*list"),
    (lambda: rsmclip.classify("FOLDER", "outputs/demo", "a, b"), "labels.*'a, b'.*list"),
    (lambda: rsmclip.compare("a", "b", samples=0), "samples is 0"),
    (lambda: rsmclip.compare("a", "b", samples="10"), "samples.*'10'"),
    (lambda: rsmclip.compare("outputs/demo", "b"), "outputs/demo"),
    (lambda: rsmclip.evaluate("outputs/demo"), "dataset"),
    (lambda: rsmclip.evaluate("outputs/demo", np.zeros(3)), "dataset.*ndarray.*corpus"),
    (lambda: rsmclip.evaluate("outputs/demo", zero_shot=["a=FOLDER"]), "zero_shot.*list.*dict"),
    (lambda: rsmclip.evaluate("outputs/demo", "corpus", caption_style="title"), "'title'"),
    (lambda: rsmclip.evaluate("outputs/demo", "corpus", samples=0), "samples is 0"),
    (lambda: rsmclip.evaluate("outputs/demo", zero_shot={"a/b": "FOLDER"}), "'a/b'"),
    (lambda: rsmclip.search("FOLDER", "a port"), "FOLDER"),
    (lambda: rsmclip.train_model("fine"), "fine.yaml.*finetune"),
    (lambda: rsmclip.train_model("finetune", datset="x"), "'datset'.*'dataset'"),
]


@pytest.mark.parametrize(("call", "culprit"), BAD_CALLS)
def test_bad_input_raises_an_error_of_one_line_and_writes_nothing(workplace, call, culprit):
    before = sorted(workplace.rglob("*"))
    with pytest.raises(UserError, match=culprit) as error:
        call()
    assert "\n" not in str(error.value) and sorted(workplace.rglob("*")) == before


def test_every_function_that_the_page_names_exists():
    table = PAGE[PAGE.index("## Commands as functions") :]
    named = re.findall(r"`(rsmclip(?:\.\w+)+)`", table)
    assert len(named) > 10
    for name in named:
        module, _, function = name.rpartition(".")
        assert callable(getattr(import_module(module), function)), name


def test_the_package_names_what_it_gives_and_imports_it_at_the_first_use():
    code = "import sys, rsmclip; assert set(rsmclip.__all__) <= set(dir(rsmclip)); print('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert all(callable(getattr(rsmclip, name)) for name in rsmclip.__all__)
    with pytest.raises(AttributeError, match="evaluated"):
        rsmclip.evaluated  # noqa: B018


def test_what_the_commands_of_the_readme_write_lies_under_outputs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    written = re.findall(r"--(?:output|output_dir|sheet|csv|index) (\S+)", readme)
    assert len(written) >= 6 and all(place.startswith("outputs/") for place in written), written
