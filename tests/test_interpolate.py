"""`rsmclip hub interpolate` leaves an average that loads, or the best of several, and nothing after bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.eval.evaluate import evaluate_corpus, metrics_by_language
from rsmclip.eval.models import load_embedder
from rsmclip.eval.tasks import measure_folder
from rsmclip.hub.__main__ import main
from rsmclip.hub.interpolate import RULES, Point, read_tasks
from rsmclip.hub.push import published_files
from rsmclip.models.folder import make_processor, save_model_folder
from tests.conftest import TINY

ALPHAS = ["1", "0.25", "0"]


@pytest.fixture(scope="module")
def tuned(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tuned"
    torch.manual_seed(1)
    save_model_folder(RSMCLIPModel(RSMCLIPConfig(**TINY)).eval(), make_processor(tokenizer, 32), folder)
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Noise of three classes."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for number in range(15):
        (place := folder / ("airport", "beach", "forest")[number % 3]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def measured(model_folder, tuned, corpus_folder, scenes, tmp_path_factory):
    """The folder of the best of three averages."""
    out = tmp_path_factory.mktemp("best") / "out"
    data = ["--dataset", corpus_folder, "--languages", "en", "pt", "--benchmarks", "demo", f"scenes={scenes}"]
    options = [str(each) for each in (*data, "--choose", "in_domain")]
    main(["interpolate", str(model_folder), str(tuned), str(out), "--alphas", *ALPHAS, *options])
    return out


def test_interpolated_weights_are_a_model_folder(model_folder, tmp_path):
    main(["interpolate", str(model_folder), str(model_folder), "--alpha", "0.5", str(tmp_path / "mid")])
    one, two = (AutoModel.from_pretrained(f, trust_remote_code=True) for f in (model_folder, tmp_path / "mid"))
    assert all(one.state_dict()[name].equal(tensor) for name, tensor in two.state_dict().items())


@pytest.mark.parametrize("alpha, named", [("1.5", "alpha is 1.5"), ("nan", "alpha is nan")])
def test_a_share_that_is_none_is_one_line_and_leaves_nothing(model_folder, tmp_path, capsys, alpha, named):
    with pytest.raises(SystemExit, match="2"):
        main(["interpolate", str(model_folder), str(model_folder), str(tmp_path / "out"), "--alpha", alpha])
    error = capsys.readouterr().err
    assert named in error and len(error.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_the_best_average_is_left_with_the_figures_that_an_evaluation_gives_it(
    measured, model_folder, tuned, corpus_folder, scenes
):
    record = json.loads((measured / "alphas.json").read_text())
    points = {point["alpha"]: point for point in record["points"]}
    assert list(points) == [0.0, 0.25, 1.0]
    tasks = read_tasks(str(corpus_folder), "val", ["en", "pt"], ["demo", f"scenes={scenes}"])
    for alpha, folder in ((0.0, model_folder), (1.0, tuned), (record["alpha"], measured)):
        embedder = load_embedder(str(folder))
        corpus = evaluate_corpus(embedder, tasks[0].rows, ["en", "pt"], tasks[0].benchmark)
        other = metrics_by_language(measure_folder(embedder, tasks[1])[1])
        assert points[alpha]["metrics"] == {"corpus": corpus, "scenes": other}
        assert points[alpha]["in_domain"] == np.mean([corpus[code]["mean_recall"] for code in ("en", "pt")])
        assert points[alpha]["out_of_domain"] == other["en"]["zero_shot_accuracy"]
    assert points[record["alpha"]]["in_domain"] == max(point["in_domain"] for point in points.values())
    with Image.open(measured / "alphas.png") as plot:
        assert plot.width == 1200
    assert not {"alphas.json", "alphas.png"} & published_files(measured).keys()


def test_the_table_has_a_row_for_each_alpha_and_names_the_best(
    model_folder, tuned, corpus_folder, scenes, tmp_path, capsys
):
    options = ["--dataset", str(corpus_folder), "--languages", "en", "pt", "--benchmarks", f"scenes={scenes}", "demo"]
    main(["interpolate", str(model_folder), str(tuned), "--alphas", "0", "1", *options, "--", str(tmp_path / "out")])
    header, _, *rows, best, last = capsys.readouterr().out.splitlines()
    for title in ("alpha", "mean recall en", "mean recall mean of 2", "demo en", "demo mean of 2", "scenes en"):
        assert title in header
    assert [row.split()[0] for row in rows] == ["0", "1"] and len({len(row) for row in rows}) == 1
    record = json.loads((tmp_path / "out" / "alphas.json").read_text())
    assert f"alpha {record['alpha']:g}" in best and last == str(tmp_path / "out")
    recalls = [point["in_domain"] for point in record["points"]]
    assert [f"{recall:.1f}" for recall in recalls] == [row.split()[2] for row in rows]


def test_weights_are_read_once(model_folder, tuned, corpus_folder, scenes, tmp_path, monkeypatch):
    from rsmclip.models import average

    read, load_file = [], average.load_file
    monkeypatch.setattr(average, "load_file", lambda path: read.append(path) or load_file(path))
    options = ["--dataset", str(corpus_folder), "--languages", "en", "--benchmarks", f"scenes={scenes}"]
    main(["interpolate", str(model_folder), str(tuned), str(tmp_path / "out"), "--alphas", *ALPHAS, *options])
    assert read == [folder / "model.safetensors" for folder in (model_folder, tuned)]


@pytest.mark.parametrize("rule", ["in_domain", "nearly_in_domain"])
def test_a_rule_without_folders_needs_none(rule, model_folder, tuned, corpus_folder, tmp_path, capsys):
    options = ["--dataset", str(corpus_folder), "--languages", "en", "--choose", rule, "--alphas", "0", "1"]
    main(["interpolate", str(model_folder), str(tuned), str(tmp_path / "out"), *options])
    record = json.loads((tmp_path / "out" / "alphas.json").read_text())
    recalls = [each["in_domain"] for each in record["points"]]
    assert recalls[[0.0, 1.0].index(record["alpha"])] >= (0.99 if rule == "nearly_in_domain" else 1) * max(recalls)
    assert record["folders"] == {} and [each["out_of_domain"] for each in record["points"]] == [None, None]
    assert (tmp_path / "out" / "model.safetensors").is_file() and not (tmp_path / "out" / "alphas.png").exists()


def point(alpha, recall, *accuracies):
    folders = {f"folder {n}": {"en": {"zero_shot_accuracy": value}} for n, value in enumerate(accuracies)}
    recalls = {"en": {"mean_recall": recall + 1, "zero_shot_accuracy": 0.0}, "pt": {"mean_recall": recall - 1}}
    return Point(alpha, {"corpus": recalls, **folders})


@pytest.mark.parametrize("rule, best", [("mean", 0.5), ("in_domain", 1.0), ("nearly_in_domain", 0.8)])
def test_a_rule_chooses_by_the_mean_over_languages_and_folders(rule, best):
    points = [point(0.0, 10, 70, 60), point(0.5, 17, 72, 56), point(0.8, 17.9, 60, 50), point(1.0, 18, 60, 50)]
    assert [each.out_of_domain for each in points] == [65, 64, 55, 55]
    assert [each.in_domain for each in points] == [10, 17, 17.9, 18]
    assert RULES[rule](points).alpha == best


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["--alphas", "0", "1"], "--dataset"),
        (["--alphas", "0", "1", "--benchmarks", "scenes=SCENES"], "--dataset"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "demo"], "NAME=FOLDER"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "demo", "rsicd", "s=SCENES"], "'rsicd'"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "nope", "s=SCENES"], "'nope'"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "s=nowhere"], "nowhere"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "eurosat=SCENES"], "airport"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "s=SCENES", "--split", "dev"], "'dev'"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "s=SCENES", "--languages", "ja"], "ja"),
        (["--alphas", "0", "1.5", "--dataset", "CORPUS", "--benchmarks", "s=SCENES"], "alpha is 1.5"),
        (["--alphas", "0", "1", "--dataset", "CORPUS", "--benchmarks", "s=SCENES", "--choose", "best"], "--choose"),
        (["--alphas", "0", "x"], "alpha is x"),
        (["--alphas", "0", "--alpha", "1"], "--alpha"),
        (["--alphas", "0", "--soup", "TUNED"], "--soup"),
        (["--alpha", "0.5", "--benchmarks", "s=SCENES"], "--alphas"),
        (["--alpha", "0.5", "--split", "test"], "--split"),
        (["--choose", "in_domain"], "--choose"),
        (["--soup", "TUNED", "--batch_size", "8"], "--batch_size"),
    ],
)
def test_bad_input_is_one_line_before_any_evaluation(
    options, culprit, model_folder, tuned, corpus_folder, scenes, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("rsmclip.hub.interpolate.measure", None)
    places = {"CORPUS": corpus_folder, "SCENES": scenes, "TUNED": tuned}
    for name, place in places.items():
        options = [option.replace(name, str(place)) for option in options]
    with pytest.raises(SystemExit, match="2"):
        main(["interpolate", str(model_folder), str(tuned), str(tmp_path / "out"), *options])
    error = capsys.readouterr().err
    assert culprit in error and len(error.splitlines()) == 1 and not any(tmp_path.iterdir())


def test_a_folder_with_files_and_models_that_differ_are_found_before_any_evaluation(
    model_folder, tuned, corpus_folder, scenes, tokenizer, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("rsmclip.hub.interpolate.measure", None)
    other, full = tmp_path / "other", tmp_path / "full"
    config = RSMCLIPConfig(**(TINY | {"projection_dim": 8}))
    save_model_folder(RSMCLIPModel(config).eval(), make_processor(tokenizer, 32), other)
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    options = ["--alphas", "0", "1", "--dataset", str(corpus_folder), "--benchmarks", f"s={scenes}"]
    for second, out, culprit in ((tuned, full, "full"), (other, tmp_path / "out", "text_projection")):
        with pytest.raises(SystemExit, match="2"):
            main(["interpolate", str(model_folder), str(second), str(out), *options])
        *_, error = capsys.readouterr().err.splitlines()
        assert culprit in error
    assert {path.name for path in tmp_path.iterdir()} == {"other", "full"}
