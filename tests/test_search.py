"""The search index against brute force in numpy, and its command line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rsmclip
from rsmclip.core.errors import UserError
from rsmclip.eval.__main__ import main
from rsmclip.eval.embed import Embedder
from rsmclip.eval.models import load_embedder
from rsmclip.eval.search import nearest, open_index, search_index, write_index
from rsmclip.models.folder import save_model_folder


@pytest.fixture
def embedder(tiny_model, tiny_processor):
    return Embedder(tiny_model, tiny_processor)


@pytest.fixture(scope="module")
def index_folder(model_folder, corpus, tmp_path_factory):
    """An index of the test split by that model."""
    folder = tmp_path_factory.mktemp("indexes") / "index"
    embedder = load_embedder(str(model_folder))
    write_index(folder, corpus["test"], embedder.images(corpus["test"]), str(model_folder), embedder.hash)
    return folder


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_search_equals_brute_force_with_ties_in_the_order_of_the_rows(corpus, tmp_path):
    rng = np.random.default_rng(0)
    rows = corpus["test"]
    embeds = rng.standard_normal((36, 20))
    embeds[[3, 30, 17, 35, 9]] = embeds[12]
    embeds[5:8] = embeds[20]
    write_index(tmp_path / "index", rows, embeds * 3, "a model", "a hash")
    index = open_index(tmp_path / "index")
    assert (index.model, index.model_hash) == ("a model", "a hash")
    assert index.rows["image_id"][:] == rows["image_id"][:]
    assert index.rows[7]["image"]["bytes"] == rows[7]["image"]["bytes"]
    for vector in unit(np.concatenate([rng.standard_normal((10, 20)), embeds[[12, 20]]])).astype(np.float32):
        expected = unit(embeds) @ vector
        order = sorted(range(36), key=lambda row: (-round(float(expected[row]), 9), row))
        for top in (1, 2, 4, 10, 36, 99):
            scores, places = nearest(index.rows, vector, top)
            assert places == order[:top]
            np.testing.assert_allclose(scores, expected[order[:top]], atol=1e-6)


def test_a_text_finds_what_its_embedding_is_nearest_to(embedder, corpus, index_folder):
    texts, images = unit(embedder.texts(["река у леса"]).numpy()), unit(embedder.images(corpus["test"]).numpy())
    order = np.argsort(-(images @ texts[0]))[:4]
    found = search_index(open_index(index_folder), embedder, "река у леса", top=4)
    assert [answer.image_id for answer in found] == [corpus["test"][int(row)]["image_id"] for row in order]
    np.testing.assert_allclose([answer.score for answer in found], (images @ texts[0])[order], atol=1e-6)
    assert all(answer.image.mode == "RGB" for answer in found)


def test_an_image_finds_itself(embedder, corpus, index_folder, tmp_path):
    index = open_index(index_folder)
    for row in (0, 21, 35):
        path = tmp_path / f"{row}.jpg"
        path.write_bytes(corpus["test"][row]["image"]["bytes"])
        for query in (path, str(path)):
            best = search_index(index, embedder, query)[0]
            assert best.image_id == corpus["test"][row]["image_id"] and best.score == pytest.approx(1, abs=1e-5)


def test_a_folder_always_holds_a_complete_index(corpus, tmp_path, monkeypatch):
    folder, rows = tmp_path / "index", corpus["test"]

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("datasets.Dataset.save_faiss_index", fail)
        with pytest.raises(UserError, match="disk full"):
            write_index(folder, rows, np.eye(36), "first", "a hash")
        assert not list(tmp_path.iterdir())
    write_index(folder, rows, np.eye(36), "first", "a hash")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="disk full"):
        patch.setattr("datasets.Dataset.save_faiss_index", fail)
        write_index(folder, rows, np.eye(36), "second", "a hash")
    assert open_index(folder).model == "first"
    write_index(folder, rows.select(range(20)), np.eye(20), "third", "a hash")
    assert open_index(folder).model == "third" and len(open_index(folder).rows) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_another_folder_is_not_overwritten(corpus, tmp_path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match=str(tmp_path)):
        write_index(tmp_path, corpus["test"], np.eye(36), "a model", "a hash")
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


def test_a_damaged_index_and_embeddings_of_another_length_are_named(embedder, corpus, tmp_path):
    folder = tmp_path / "index"
    write_index(folder, corpus["test"], np.eye(36), "a model", "a hash")
    with pytest.raises(UserError, match="36 .* 16"):
        search_index(open_index(folder), embedder, "a port")
    (folder / "images.faiss").write_bytes((folder / "images.faiss").read_bytes()[:500])
    with pytest.raises(UserError, match=str(folder)):
        open_index(folder)


def test_the_command_prints_the_best_and_draws_them(index_folder, embedder, tmp_path):
    query = "um rio ao lado de uma floresta"
    command = [sys.executable, "-m", "rsmclip.eval", "search"]
    environment = os.environ | {"PYTHONPATH": str(Path(rsmclip.__file__).parent.parent), "HF_HUB_OFFLINE": "1"}
    command += [str(index_folder), query, "--top", "7"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    *lines, last = result.stdout.splitlines()
    assert last.endswith(" search.png")
    found = search_index(open_index(index_folder), embedder, query, top=7)
    expected = [f"{n}  {answer.score:.4f}  {answer.image_id}" for n, answer in enumerate(found, start=1)]
    assert lines == expected
    with Image.open(tmp_path / "search.png") as image:
        assert image.width == 1200 and np.asarray(image.convert("L")).std() > 20


def test_a_search_loads_the_revision_and_type_that_made_the_index(model_folder, corpus, tmp_path, monkeypatch, capsys):
    from huggingface_hub import constants

    commits = {"v1": "1" * 40, "main": "2" * 40}
    repository = tmp_path / "hub" / "models--lab--tiny"
    (repository / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(model_folder, repository / "snapshots" / commit)
    config = repository / "snapshots" / commits["main"] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"logit_scale_init_value": 1.0}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    embedder = load_embedder("lab/tiny", dtype="bfloat16", revision="v1")
    made_by = ("lab/tiny", embedder.hash, "v1", "bfloat16")
    write_index(tmp_path / "index", corpus["test"], embedder.images(corpus["test"]), *made_by)
    main(["search", str(tmp_path / "index"), "a port", "--output", str(tmp_path / "one.png")])
    assert str(tmp_path / "one.png") in capsys.readouterr().out


def test_another_model_is_refused(model_folder, index_folder, tiny_model, tiny_processor, tmp_path, capsys):
    tiny_model.logit_scale.data += 1
    save_model_folder(tiny_model, tiny_processor, tmp_path / "other")
    arguments = ["search", str(index_folder), "a port", "--output", str(tmp_path / "made" / "one.png"), "--model"]
    main([*arguments, str(model_folder)])
    assert (tmp_path / "made" / "one.png").is_file()
    with pytest.raises(SystemExit):
        main([*arguments, str(tmp_path / "other")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(model_folder) in error and str(tmp_path / "other") in error


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["nowhere", "a port"], "nowhere"),
        (["INDEX", "  "], "empty"),
        (["INDEX", "a port", "--top", "0"], "--top"),
        (["INDEX", "missing.jpg"], "missing.jpg"),
        (["INDEX", "README.txt"], "README.txt"),
        (["INDEX", "a port", "--output", "sheet.pdf"], "--output"),
        (["INDEX", "a port", "--model", "nowhere"], "nowhere"),
        (["INDEX"], "QUERY"),
    ],
)
def test_bad_input_is_one_line(arguments, culprit, index_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.txt").write_text("no image")
    with pytest.raises(SystemExit) as stop:
        main(["search", *(str(index_folder) if argument == "INDEX" else argument for argument in arguments)])
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and culprit in printed and "\n" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["README.txt"]


def test_without_faiss_the_error_names_the_extra(index_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SystemExit):
        main(["search", str(index_folder), "a port"])
    assert "[search]" in capsys.readouterr().err
