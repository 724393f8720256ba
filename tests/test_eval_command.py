"""`rsmclip eval`: its results against the functions that it calls; and one line for bad input."""

import dataclasses
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
from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.eval.__main__ import main
from rsmclip.eval.compare import compare
from rsmclip.eval.evaluate import embed_corpus, measure_agreement, measure_corpus, measure_transductive
from rsmclip.eval.intervals import figures
from rsmclip.eval.models import load_embedder
from rsmclip.eval.outcomes import Outcomes
from rsmclip.eval.protocol import load_benchmark
from rsmclip.eval.results import EvalResults
from rsmclip.models.folder import make_processor, save_model_folder
from tests.conftest import TINY

ROOT = Path(rsmclip.__file__).parent
CLASSES = ("airport", "denseResidential", "golf_course")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A folder of images by class without a benchmark file."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for shift, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(6):
            pixels = rng.integers(0, 100, (40, 40, 3), dtype=np.uint8) + 60 * np.uint8(shift)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def command(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def options(model_folder, corpus_folder, scenes, tmp_path_factory) -> list[object]:
    cache = ("--cache_dir", tmp_path_factory.mktemp("cache"))
    corpus = ("--dataset", corpus_folder, "--split", "val", "--languages", "en", "pt", "--benchmark", "demo")
    more = ("--zero_shot", f"scenes={scenes}", "--transductive", "--samples", 40, "--probes")
    return [model_folder, *corpus, *more, *cache]


@pytest.fixture(scope="module")
def output(options, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "out"
    command(*options, "--index", folder.parent / "index", "--output", folder)
    return folder


def test_one_language_is_a_list_of_one(model_folder, corpus_folder):
    model = load_embedder(model_folder)
    results = rsmclip.evaluate(model, corpus_folder, split="val", languages="pt", samples=2)
    assert results.metrics["corpus"].keys() == {"pt"}


def test_the_results_are_those_of_the_functions_beneath(output, model_folder, corpus):
    results = json.loads((output / "eval_results.json").read_text())
    embedder, rows, benchmark = load_embedder(str(model_folder)), corpus["val"], load_benchmark("demo")
    assert results["model_hash"] == embedder.hash and results["command"].startswith("rsmclip eval ")
    assert results["datasets"]["corpus"]["prompts"] == "own" and results["datasets"]["scenes"]["prompts"] == "small"
    embedded = embed_corpus(embedder, rows, ["en", "pt"])
    outcomes = measure_corpus(embedder, rows, embedded, benchmark, thorough=True)
    classified = embedder, embedded.image_embeds, list(rows["label"]), benchmark
    outcomes.transductive = measure_transductive(*classified, ["en", "pt"])
    expected = figures(outcomes, samples=40)
    expected += figures(measure_agreement(embedder, rows, ["en", "pt"]), samples=40)
    found = [record for record in results["figures"] if record.pop("dataset") == "corpus"]
    assert [record for record in found if "probe" not in record["metric"]] == json.loads(json.dumps(expected))
    assert {record["metric"] for record in found if record["language"] is None} >= {"linear_probe_accuracy"}
    assert set(results["versions"]) >= {"python", "torch", "transformers", "rsmclip"}
    assert dataclasses.asdict(EvalResults.read(output)) == json.loads((output / "eval_results.json").read_text())
    assert set(results["datasets"]["scenes"]) == {
        *("dataset", "split", "revision", "rows", "fingerprint", "languages", "capitalize", "notes"),
        *("benchmark", "prompts", "templates", "class_names", "probed_on", "citation", "license"),
    }


def test_tables_outcomes_pictures_and_index_are_left(output, corpus):
    text = (output / "eval_results.md").read_text()
    assert text.count("TransCLIP") == 2 and text.count("| zero-shot | transductive |") == 2  # corpus and folder
    assert "| pt |" in text and "knn_probe_accuracy" in text and "(" in text
    names = {path.name for path in (output / "plots").iterdir() if path.suffix == ".png"}
    assert {"corpus_recall_by_language.png", "corpus_recall_curves.png", "corpus_retrieved_pt.png"} <= names
    assert {"corpus_confusion_pt.png", "scenes_confusion_en.png"} <= names
    assert Outcomes.load(output / "outcomes" / "corpus.npz").ids == list(corpus["val"]["image_id"])
    assert (output.parent / "index" / "index.json").is_file()


def test_an_index_of_other_images_is_refused_before_the_evaluation(
    model_folder, corpus_folder, scenes, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("rsmclip.eval.evaluate.embed_corpus", None)  # so that a call would fail
    rsmclip.build_index(scenes, model_folder, tmp_path / "index")
    before = sorted((tmp_path / "index").iterdir())
    data = ("--dataset", corpus_folder, "--split", "val", "--index", tmp_path / "index")
    with pytest.raises(SystemExit):
        command(model_folder, *data, "--output", tmp_path / "out")
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(scenes) in error and str(corpus_folder) in error
    assert sorted((tmp_path / "index").iterdir()) == before


def test_a_second_run_computes_no_embedding_and_says_the_same(options, output, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rsmclip.eval.embed.Embedder.compute", None)  # so that a call would fail
    command(*options, "--output", tmp_path / "again")
    first, again = (json.loads((folder / "eval_results.json").read_text()) for folder in (output, tmp_path / "again"))
    assert first["figures"] == again["figures"]
    assert str(tmp_path / "again") in capsys.readouterr().out


def test_results_that_are_cut_off_leave_no_older_figures(options, output, tmp_path, monkeypatch):
    folder = shutil.copytree(output, tmp_path / "again")
    monkeypatch.setattr("rsmclip.eval.results.recall_curves", None)  # fails where the disk may be full
    with pytest.raises(TypeError):
        command(*options, "--output", folder)
    assert (folder / "outcomes" / "corpus.npz").is_file() and not (folder / "eval_results.json").exists()


def test_capital_letters_and_languages_without_prompts_are_recorded(model_folder, corpus_folder, tmp_path):
    data = ("--dataset", corpus_folder, "--split", "val", "--languages", "en", "pt", "--benchmark", "demo")
    options = ("--prompts", "en2", "--caption_style", "capitalize", "--no_cache", "--samples", 5)
    command(model_folder, *data, *options, "--output", tmp_path)
    results = EvalResults.read(tmp_path)
    assert results.datasets["corpus"].capitalize
    (note,) = results.datasets["corpus"].notes
    assert "'en2'" in note and "pt" in note
    metrics = results.metrics["corpus"]
    assert [language for language in metrics if "zero_shot_accuracy" in metrics[language]] == ["en"]


def evaluate_folder(folder: Path, output: Path, *options: object) -> EvalResults:
    command(*options, "--zero_shot", f"rsscn7={folder}", "--no_cache", "--samples", 5, "--output", output)
    return EvalResults.read(output)


def test_a_class_file_gives_the_figures_of_a_benchmark_with_equal_names(model_folder, scenes, tmp_path):
    names, own = load_benchmark("rsscn7").class_names, dict(zip(CLASSES, ("007", "its: b", "no"), strict=True))
    labels = list(names["pt"])
    for scene, label in zip(CLASSES, labels, strict=False):
        shutil.copytree(scenes / scene, tmp_path / "known" / label)
        shutil.copytree(scenes / scene, tmp_path / "own" / own[scene])
    rows = [(label, names["ko"][label], names["pt"][label]) for label in labels[3:]]
    rows += [
        (own[scene], names["ko"][label], names["pt"][label]) for scene, label in zip(CLASSES, labels, strict=False)
    ]
    text = "\n".join(";".join(row) for row in [("folder", "ko", "pt"), *rows])
    (tmp_path / "own.csv").write_text(text, encoding="utf-8")

    expected = evaluate_folder(tmp_path / "known", tmp_path / "a", model_folder, "--languages", "ko", "pt")
    found = evaluate_folder(tmp_path / "own", tmp_path / "b", model_folder, "--classes", tmp_path / "own.csv")
    assert sorted(found.figures, key=str) == sorted(expected.figures, key=str)
    facts = found.datasets["rsscn7"]
    assert facts.benchmark == "own.csv" and facts.class_names["pt"]["no"] == names["pt"]["cIndustry"]
    assert facts.citation is None and "eForest" in facts.notes[0]


def test_a_printed_class_file_gives_the_figures_of_no_class_file(model_folder, scenes, output, tmp_path, capsys):
    command("classes", scenes)
    (tmp_path / "classes.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    found = evaluate_folder(scenes, tmp_path / "out", model_folder, "--classes", tmp_path / "classes.yaml")
    expected = EvalResults.read(output).metrics["scenes"]["en"]
    together = {name for name in expected if name.startswith("transductive")}  # not asked for here
    assert found.metrics["rsscn7"] == {"en": {name: expected[name] for name in expected.keys() - together}}


def test_two_evaluations_are_compared(output, options, tmp_path, capsys, tokenizer):
    other = RSMCLIPModel(RSMCLIPConfig(**TINY))
    save_model_folder(other, make_processor(tokenizer, 32), tmp_path / "other")
    command(tmp_path / "other", *options[1:], "--output", tmp_path / "out")
    capsys.readouterr()
    command("compare", output, tmp_path / "out", "--samples", 50, "--output", tmp_path / "new" / "comparison")
    printed = capsys.readouterr().out
    assert "mean_recall" in printed and "transductive_accuracy" in printed and " 95 %" in printed
    found = compare(output, tmp_path / "out", samples=50)
    assert printed.startswith(str(found)) and len(found.differences) > 4
    written = tmp_path / "new" / "comparison"
    assert json.loads((written / "comparison.json").read_text()) == json.loads(json.dumps(dataclasses.asdict(found)))
    table = [line for line in (written / "comparison.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(found.differences) and {line.count("|") for line in table} == {9}
    command("compare", output, output, "--samples", 50, "--all")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("0 of ") and len(lines) > 40
    with pytest.raises(SystemExit):
        command("compare", output, output, "--samples", 0)
    assert "--samples" in capsys.readouterr().err
    (output_without_figures := tmp_path / "cut").mkdir()
    (output_without_figures / "eval_results.json").write_text('{"schema": 1}')
    with pytest.raises(SystemExit):
        command("compare", output, output_without_figures)
    assert "figures" in capsys.readouterr().err


def test_processes_share_the_work_and_write_the_same_figures(options, output, tmp_path):
    arguments = [str(each) for each in (*options[:-2], "--no_cache", "--output", tmp_path / "two")]
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"ACCELERATE_USE_CPU": "true"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "rsmclip.eval", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(str(tmp_path / "two")) == 1
    one, two = (json.loads((folder / "eval_results.json").read_text()) for folder in (output, tmp_path / "two"))
    assert two["figures"] == one["figures"]


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ([], "dataset"),
        (["--dataset", "CORPUS", "--split", "nope"], "nope"),
        (["--dataset", "CORPUS", "--languages", "ja"], "ja"),
        (["--dataset", "CORPUS", "--benchmark", "nope"], "'nope'"),
        (["--dataset", "CORPUS", "--benchmark", "rsicd"], "'rsicd'"),
        (["--dataset", "CORPUS", "--prompts", "nope", "--benchmark", "demo"], "'nope'"),
        (["--zero_shot", "scenes"], "NAME=DIR"),
        (["--zero_shot", "a/b=SCENES"], "'a/b'"),
        (["--zero_shot", "corpus=SCENES"], "'corpus'"),
        (["--zero_shot", "eurosat=SCENES"], "airport"),
        (["--zero_shot", "s=SCENES", "--languages", "pt"], "pt"),
        (["--zero_shot", "s=EMPTY"], "airport"),
        (["--zero_shot", "s=ONE"], "'airport'"),
        (["--zero_shot", "s=SCENES", "t=SCENES", "--classes", "a.csv"], "classes"),
        (["--dataset", "CORPUS", "--classes", "a.csv"], "classes"),
        (["--zero_shot", "s=SCENES", "--classes", "missing.csv"], "missing.csv"),
        (["--zero_shot", "s=SCENES", "--index", "i"], "index"),
        (["--dataset", "CORPUS", "--split", "train", "--probes"], "train_split"),
        (["--dataset", "CORPUS", "--benchmark", "demo", "--prompts", "en2", "--languages", "pt"], "pt"),
        (["--zero_shot", "s=SCENES", "--batch_size", "0"], "--batch_size"),
        (["--dataset", "CORPUS", "--transductive"], "benchmark"),
    ],
)
def test_bad_input_is_one_line(arguments, culprit, model_folder, corpus_folder, scenes, tmp_path, capsys):
    (tmp_path / "empty" / "airport").mkdir(parents=True)
    shutil.copytree(scenes / "airport", tmp_path / "one" / "airport")
    places = {"CORPUS": corpus_folder, "SCENES": scenes, "EMPTY": tmp_path / "empty", "ONE": tmp_path / "one"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        command(model_folder, *arguments, "--output", tmp_path / "out")
    printed = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and printed.startswith("error: ") and culprit in printed and "\n" not in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--index", "--output"])
def test_a_place_that_is_taken_is_reported_before_the_model_is_loaded(option, corpus_folder, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    places = {"--index": tmp_path / "index", "--output": tmp_path / "out"} | {option: tmp_path / "taken"}
    with pytest.raises(SystemExit):
        command("no model", "--dataset", corpus_folder, *(each for pair in places.items() for each in pair))
    printed = capsys.readouterr().err
    assert str(tmp_path / "taken") in printed and printed.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
