"""Classification of a folder by labels against the zero-shot functions, and the command line."""

import csv
import os

import numpy as np
import pytest
import torch
from PIL import Image

from rsmclip.__main__ import main
from rsmclip.core.errors import UserError
from rsmclip.eval import build_index as building
from rsmclip.eval.build_index import build_index
from rsmclip.eval.classify import classify, logit_scale, split_labels
from rsmclip.eval.embed import Embedder
from rsmclip.eval.index import open_index
from rsmclip.eval.protocol import load_prompts
from rsmclip.eval.zero_shot import class_embeddings, label_ranks, transductive_assignments

LABELS = ["porto", "floresta densa", "rio"]


@pytest.fixture
def embedder(tiny_model, tiny_processor):
    return Embedder(tiny_model, tiny_processor)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Keep the indexes of this test out of the user's cache."""
    monkeypatch.setattr(building, "KEPT", tmp_path / "kept")


@pytest.fixture
def folder(corpus, tmp_path):
    """Twelve images and a broken one."""
    place = tmp_path / "tiles" / "sub folder"
    place.mkdir(parents=True)
    for row in range(12):
        (place / f"{row}.jpg").write_bytes(corpus["test"][row]["image"]["bytes"])
    (place / "broken.jpg").write_text("no image")
    return tmp_path / "tiles"


@pytest.fixture
def index(corpus_folder, embedder, tmp_path):
    build_index(corpus_folder, embedder, tmp_path / "index", split="test")
    return open_index(tmp_path / "index")


def test_scores_are_the_softmax_of_scaled_cosines_and_the_best_is_the_zero_shot_class(index, embedder, corpus):
    scores = classify(index, embedder, LABELS, "pt").scores
    assert scores.shape == (36, 3) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    images = embedder.images(corpus["test"])
    classes = class_embeddings(embedder.texts, LABELS, load_prompts("small")["pt"])
    assert (label_ranks(images, classes, scores.argmax(axis=1))[0] == 0).all()
    cosines = torch.nn.functional.normalize(images.double(), dim=1) @ classes.double().T
    scale = embedder.model.logit_scale.double().exp()
    np.testing.assert_allclose(scores, (scale * cosines).softmax(dim=1).detach().numpy(), atol=1e-5)


def test_the_rows_are_computed_in_parts(index, embedder, monkeypatch):
    whole = classify(index, embedder, LABELS, "pt").scores
    monkeypatch.setattr("rsmclip.eval.classify.ROWS", 7)
    np.testing.assert_allclose(classify(index, embedder, LABELS, "pt").scores, whole, atol=1e-6)


def test_transductive_scores_are_those_of_the_function(index, embedder):
    classes = class_embeddings(embedder.texts, LABELS, load_prompts("small")["pt"])
    expected = transductive_assignments(np.array(index.embeds), classes)
    found = classify(index.folder, embedder, LABELS, "pt", transductive=True)
    np.testing.assert_array_equal(found.scores, expected)


def test_a_model_without_a_scale_gets_the_scale_of_clip(embedder):
    assert logit_scale(embedder.model) == pytest.approx(float(embedder.model.logit_scale.detach().exp()))
    del embedder.model.logit_scale
    assert logit_scale(embedder.model) == 100


@pytest.mark.parametrize("text", ["a b,c", "a b ; c;", "a  b，c", "a b、c、", "\na b\nc\n"])
def test_labels_are_split_at_commas_of_any_script(text):
    assert split_labels(text) == ["a b", "c"]


@pytest.mark.parametrize("labels", [[], ["a"], "a, b", ["a", "b", "a"], ["a", " "], ["a", "b\udcff"]])
def test_fewer_than_two_labels_and_repeated_or_empty_ones_are_errors(labels, tmp_path):
    with pytest.raises(UserError, match="labels"):
        classify(tmp_path, "no model", labels)


def test_a_language_without_templates_is_refused_before_the_model_is_loaded(tmp_path):
    with pytest.raises(UserError, match="'sw'.* en, pt"):
        classify(tmp_path, "no model", LABELS, "sw")


def test_a_model_in_the_place_of_the_images_is_refused(index, embedder):
    with pytest.raises(UserError, match="images.*Embedder.*index"):
        classify(embedder, index, LABELS)


def test_a_folder_is_classified_in_one_call(folder, model_folder):
    found = classify(folder, model_folder, LABELS, "pt")
    rows = list(found)
    assert len(found) == len(rows) == 12 and list(found.left_out) == ["sub folder/broken.jpg"]
    for (label, score, entry), scores in zip(rows, found.scores, strict=True):
        assert label == LABELS[scores.argmax()] and score == scores.max() and (folder / entry["path"]).is_file()


def test_the_command_prints_a_line_per_image_and_a_table(folder, model_folder, capsys):
    main(["classify", str(model_folder), str(folder), "--labels", ", ".join(LABELS), "--language", "pt"])
    printed = capsys.readouterr()
    lines, table = printed.out.split("\n\n")
    assert len({line.index("sub folder/") for line in lines.splitlines()}) == 1  # aligned
    assert len(lines.splitlines()) == 12 and all("sub folder/" in line for line in lines.splitlines())
    counts = {label: sum(f"  {label}  " in line for line in lines.splitlines()) for label in LABELS}
    assert sum(counts.values()) == 12
    for label, count in counts.items():
        assert any(line.startswith(label) and line.split()[-2] == str(count) for line in table.splitlines())
    assert "broken.jpg" in printed.err


def test_csv_and_sheet_hold_every_image(folder, model_folder, tmp_path, capsys):
    with open(os.fsencode(folder) + b'/odd \xff,"\n.jpg', "wb") as file:
        Image.new("RGB", (9, 9)).save(file, "JPEG")
    table, sheet = tmp_path / "made" / "o.csv", tmp_path / "made" / "o.png"
    options = ["--csv", str(table), "--sheet", str(sheet), "--transductive"]
    main(["classify", str(model_folder), str(folder), "--labels", ", ".join(LABELS), *options])
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", "score", *LABELS] and len(rows) == 13
    assert 'odd \udcff,"\n.jpg' in {row[0] for row in rows}
    for row in rows:
        assert float(row[2]) == max(map(float, row[3:])) == float(row[3 + LABELS.index(row[1])])
    with Image.open(sheet) as image:
        assert image.width == 1200
    assert "sub folder" not in capsys.readouterr().out


def test_a_second_run_with_other_labels_embeds_nothing(folder, model_folder, monkeypatch):
    main(["classify", str(model_folder), str(folder), "--labels", "a, b"])
    (folder / "sub folder" / "broken.jpg").unlink()
    monkeypatch.setattr(building, "prepare", pytest.fail)
    main(["classify", str(model_folder), str(folder), "--labels", "c, d"])


def test_an_index_is_classified_by_its_own_model_only(folder, model_folder, tiny_model, tmp_path, capsys):
    main(["index", str(folder), "--model", str(model_folder), "--output", str(tmp_path / "index")])
    (folder / "sub folder" / "3.jpg").unlink()
    capsys.readouterr()
    main(["classify", str(model_folder), str(tmp_path / "index"), "--labels", "a, b"])
    assert len(capsys.readouterr().out.split("\n\n")[0].splitlines()) == 12
    record = (tmp_path / "index" / "index.json").read_text()
    (tmp_path / "index" / "index.json").write_text(record.replace('"model_hash": "', '"model_hash": "0'))
    with pytest.raises(SystemExit) as stop:
        main(["classify", str(model_folder), str(tmp_path / "index"), "--labels", "a, b"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("labels", "language", "named"),
    [
        ('["a", "b"]', "en", "two or more"),
        (["a", 3], "en", "3"),
        (["a", None], "en", "None"),
        (["a", ["b"]], "en", "'b'"),
        (["a", "x" * 10_000_000], "en", "10,000,000"),
        (["a", "b"], ["en"], "'en'"),
    ],
)
def test_labels_that_are_no_texts_are_refused_in_python_too(index, embedder, labels, language, named):
    with pytest.raises(UserError, match=named) as refusal:
        classify(index, embedder, labels, language)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["FOLDER", "--labels", "a"], "labels"),
        (["FOLDER", "--labels", '["a", "b"]'], "brackets"),
        (["FOLDER", "--labels", "a, " + 10_000_000 * "x"], "10,000,000"),
        (["FOLDER", "--labels", "a, b", "--language", "xx"], "--language"),
        (["FOLDER", "--labels", "a, b", "--sheet", "a.jpg"], "--sheet"),
        (["EMPTY", "--labels", "a, b"], "EMPTY"),
    ],
)
def test_bad_input_is_one_line(options, culprit, folder, model_folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "EMPTY").mkdir()
    monkeypatch.chdir(tmp_path)
    options = [str(folder) if option == "FOLDER" else option for option in options]
    with pytest.raises(SystemExit) as stop:
        main(["classify", str(model_folder), *options])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ") and culprit in error
