"""The datasets of an evaluation: the benchmarks of a training run, and names of folders."""

import shutil
from math import isnan

import numpy as np
import pytest
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import evaluate_corpus, measure_zero_shot
from rsmclip.eval.protocol import load_benchmark
from rsmclip.eval.tasks import load_run_tasks, metrics_by_dataset, named_folders, read_folder


@pytest.fixture
def folder(tmp_path):
    """Images of two classes of RSSCN7."""
    rng = np.random.default_rng(0)
    for label in ("aGrass", "eForest"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    return tmp_path / "images"


def test_a_run_measures_its_corpus_and_the_folders(corpus, folder, tiny_model, tiny_processor):
    tasks = load_run_tasks(["demo", f"rsscn7={folder}"], ["en", "pt"], {"test": corpus["test"]})
    metrics = metrics_by_dataset(tasks.measure(tiny_model, tiny_processor, 16, "test"))
    embedder = Embedder(tiny_model, tiny_processor, 16)
    assert metrics["corpus"] == evaluate_corpus(embedder, corpus["test"], ["en", "pt"], load_benchmark("demo"))
    (task,) = tasks.folders
    embeds, labels = embedder.images(task.rows), list(task.rows["label"])
    for language in ("en", "pt"):
        hits = measure_zero_shot(embedder, embeds, labels, task.benchmark, language).hits
        assert metrics["rsscn7"][language]["zero_shot_accuracy"] == pytest.approx(100 * hits.mean())


def test_the_expected_figures_are_those_that_are_measured(corpus, folder, tiny_model, tiny_processor):
    for benchmarks in (["demo", f"mine={folder}"], [f"rsscn7={folder}"], []):
        tasks = load_run_tasks(benchmarks, ["en", "pt"], {"validation": corpus["val"]})
        expected = tasks.expected("validation")
        measured = metrics_by_dataset(tasks.measure(tiny_model, tiny_processor, 16, "validation"))
        shown = ("mean_recall", "zero_shot_accuracy")
        assert {
            (dataset, language, metric)
            for dataset, by_language in measured.items()
            for language, found in by_language.items()
            for metric in found
            if metric in shown
        } == {
            (dataset, language, metric)
            for dataset, by_language in expected.items()
            for language, found in by_language.items()
            for metric, value in found.items()
            if isnan(value)
        }


@pytest.mark.parametrize(
    "benchmarks, named",
    [
        (["nowhere"], "'nowhere'"),
        (["rsicd"], "label .*'rsicd'"),
        (["demo", "aid"], "aid=FOLDER"),
        (["aid=missing"], "missing"),
        (["=images"], "benchmarks.*'=images'"),
        (["pt={folder}"], "'pt' is a language"),
        (["aid={folder}"], "'aGrass'.*'aid'"),
    ],
)
def test_benchmarks_that_cannot_be_read_are_refused(corpus, folder, benchmarks, named):
    with pytest.raises(UserError, match=named):
        filled = [entry.format(folder=folder) for entry in benchmarks]
        load_run_tasks(filled, ["en", "pt"], {"validation": corpus["val"]})


def test_a_folder_without_names_in_the_languages_of_the_run_is_refused(corpus, folder):
    with pytest.raises(UserError, match="'mine' has no pt class names.*'small'.* en;.*--classes"):
        load_run_tasks([f"mine={folder}"], ["pt"], {})


def test_one_class_is_refused_unless_there_are_other_candidates(folder):
    shutil.rmtree(folder / "eForest")
    with pytest.raises(UserError, match="'aGrass'"):
        read_folder("mine", str(folder), None)
    assert len(read_folder("rsscn7", str(folder), None).benchmark.labels) == 7
    (folder.parent / "c.csv").write_text("folder,pt\naGrass,relva\nsea,mar")
    task = read_folder("mine", str(folder), None, class_file=folder.parent / "c.csv")
    assert task.benchmark.labels == ["aGrass", "sea"] and task.languages == ["pt"] and "sea" in task.notes[0]


def test_names_of_folders_are_distinct_and_can_be_names_of_files():
    assert named_folders(["aid=a", "mine=b=c"], "--zero_shot") == {"aid": "a", "mine": "b=c"}
    for entries in (["aid"], ["corpus=a"], ["aid=a", "aid=b"], ["a/b=c"]):
        with pytest.raises(UserError, match="--zero_shot"):
            named_folders(entries, "--zero_shot")
