"""The card of a training run shows what was recorded, and the output of its code."""

import dataclasses
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load, model_index_to_eval_results
from PIL import Image, ImageOps

from rsmclip import train
from rsmclip.core.errors import UserError
from rsmclip.data.card import recorded_facts
from rsmclip.data.demo.corpus import demo_example
from rsmclip.data.demo.scene import KINDS
from rsmclip.eval.__main__ import main as evaluate
from rsmclip.eval.protocol import load_benchmark
from rsmclip.eval.run_results import RunResults
from rsmclip.hub.card import write_card
from rsmclip.hub.evaluations import Evaluation, model_index
from rsmclip.hub.examples import write_examples
from rsmclip.hub.limits import limits, not_measured
from rsmclip.hub.snippets import make_examples, make_snippets
from rsmclip.models.folder import PUBLISHED, is_model_folder, save_model_folder
from rsmclip.training.config import TrainingConfig
from tests.conftest import TINY_RUN


@pytest.fixture(scope="module")
def finished(corpus_folder, tmp_path_factory) -> Path:
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("run") / "tiny-clip"
    data = {"dataset": str(corpus_folder), "benchmarks": ["demo"], "languages": ["en", "pt", "zh"]}
    steps = {"max_train_steps": 2, "num_workers": 0}
    train.train(TrainingConfig(output_dir=str(folder), **TINY_RUN | steps | data))
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "tiny-clip", ignore=shutil.ignore_patterns("checkpoints"))


@pytest.fixture
def results(finished) -> dict:
    return json.loads((finished / "eval_results.json").read_text())


def change(folder: Path, **values: object) -> None:
    """Change what a run recorded; `None` removes a field."""
    path = folder / "eval_results.json"
    results = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: results[name] for name in results if values.get(name, "kept") is not None}))


def test_the_model_index_has_every_figure_of_retrieval_and_zero_shot(finished, results):
    data = metadata_load(finished / "README.md")
    name, entries = model_index_to_eval_results(data["model-index"])
    assert name == "tiny-clip"
    zero_shot = "zero-shot-image-classification"
    read = {
        (entry.dataset_config, ("zero_shot_" if entry.task_type == zero_shot else "") + entry.metric_type): entry
        for entry in entries
    }
    assert len(read) == len(entries) == len(results["figures"]) > 60
    for record in results["figures"]:
        entry = read[record["language"], record["metric"]]
        assert entry.metric_value == pytest.approx(record["value"], abs=5e-5)
        assert (entry.dataset_name, entry.dataset_split) == ("tiny", "test")
        assert entry.dataset_args == {"fingerprint": results["fingerprint"]}


def test_the_metadata_is_what_the_hub_reads(finished):
    data = ModelCard.load(finished / "README.md").data
    assert data.language == ["en", "pt", "zh"] and data.license == "mit" and data.library_name == "transformers"
    assert data.pipeline_tag == "zero-shot-image-classification" and data.metrics == ["recall", "accuracy"]
    assert "custom_code" in data.tags and data.base_model is None and data.datasets is None
    assert ModelCard(str(ModelCard.load(finished / "README.md"))).data.to_dict() == data.to_dict()


def test_tables_and_limits_show_the_recorded_figures(finished, results):
    text = ModelCard.load(finished / "README.md").text
    for language in ("en", "pt", "zh"):
        (cells,) = re.findall(rf"^\| {language} \| (\d.*) \|$", text.partition("**More by")[0], re.MULTILINE)
        metrics = results["metrics"][language]
        figures = {r["metric"]: r for r in results["figures"] if r["language"] == language}
        low, high = figures["mean_recall"]["interval"]
        assert cells.split(" | ")[6] == f"{metrics['mean_recall']:.1f}&nbsp;({low:.1f}–&NoBreak;{high:.1f})"
        assert cells.split(" | ")[0] == f"{metrics['image_to_text_recall@1']:.1f}"
    untrained = [values["mean_recall"] for values in results["untrained"].values()]
    (floor,) = re.findall(r"^\| start .*$", text, re.MULTILINE)
    assert f"| {sum(untrained) / 3:.1f} |" in floor
    recall = {language: metrics["mean_recall"] for language, metrics in results["metrics"].items()}
    worst = min(recall, key=recall.get)
    assert f"The mean recall is lowest in `{worst}`: {recall[worst]:.1f}" in text
    assert "| demo | MIT |" in text and results["command"] in text
    assert all(f"| {label} | {value} |" in text for label, value in results["hyperparameters"])
    assert "{{" not in text and "None" not in text.replace("None: a grammar", "")
    for picture in re.findall(r"\]\((\w+\.png)\)", text):
        assert (finished / picture).is_file()


def test_recall_of_a_class_is_that_of_its_images(results):
    assert sum(found["images"] for found in results["class_recall"].values()) == results["images"]
    for language in ("en", "pt", "zh"):
        recalls = [found["recall"][language] for found in results["class_recall"].values()]
        expected = results["metrics"][language]["zero_shot_mean_per_class_recall"]
        assert sum(recalls) / len(recalls) == pytest.approx(expected)
    for label, found in results["class_recall"].items():
        assert found["taken_for"] != label


def test_every_file_of_a_run_is_known_to_a_run_that_overwrites_it(finished):
    files = {path for path in finished.rglob("*") if path.is_file() and "checkpoints" not in path.parts}
    known = {path for pattern in PUBLISHED for path in finished.glob(pattern)}
    assert files - known == {finished / ".gitignore"}
    assert len(list(finished.glob("examples/*.jpg"))) == 3


def same_picture(path: Path, image: dict) -> bool:
    ours, theirs = (
        np.asarray(each.convert("RGB"), dtype=np.float32)
        for each in (Image.open(path), Image.open(io.BytesIO(image["bytes"])))
    )
    return ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 4


def invert(image: dict) -> dict:
    negative = io.BytesIO()
    ImageOps.invert(Image.open(io.BytesIO(image["bytes"])).convert("RGB")).save(negative, "PNG")
    return {"bytes": negative.getvalue(), "path": None}


@pytest.fixture
def run_evaluation(folder, corpus, tmp_path, monkeypatch):
    """Evaluate the model on a split of a copy of its corpus with another name."""

    def run(split: str) -> Path:
        corpus.save_to_disk(tmp_path / "copy")
        command = ["eval", str(folder), "--dataset", str(tmp_path / "copy"), "--split", split, "--samples", "20"]
        more = ["--languages", "en", "pt", "zh", "--no_cache", "--output", str(tmp_path / split)]
        monkeypatch.setattr(sys, "argv", [*command, *more])
        evaluate()
        return tmp_path / split

    return run


def test_an_evaluation_of_the_runs_own_images_adds_only_what_is_new(folder, run_evaluation):
    before = ModelCard.load(folder / "README.md")
    write_card(folder, [run_evaluation("test")])
    after = ModelCard.load(folder / "README.md")
    assert after.data.eval_results == before.data.eval_results
    assert after.text.count("| language | i→t R@1 |") == before.text.count("| language | i→t R@1 |") == 1
    (section,) = re.findall(r"^### tiny, split test$(.*?)^## Limits", after.text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\*\*(.*)\*\*$", section, re.MULTILINE) == [
        "A sentence finds its translation, recall@1, from (row) to (column)"
    ]


def test_further_evaluations_of_the_model_go_into_tables_and_index(folder, run_evaluation, tmp_path):
    write_card(folder, [run_evaluation("val")])
    card, found = ModelCard.load(folder / "README.md"), json.loads((tmp_path / "val/eval_results.json").read_text())
    assert "### copy, split val" in card.text and "A sentence finds its translation" in card.text
    (entry,) = [e for e in card.data.eval_results if e.dataset_split == "val" and e.metric_name == "mean_recall (pt)"]
    assert entry.metric_value == pytest.approx(found["metrics"]["corpus"]["pt"]["mean_recall"], abs=5e-5)
    assert entry.dataset_args == {"fingerprint": found["datasets"]["corpus"]["fingerprint"]}
    assert str(tmp_path) not in str(card)
    (tmp_path / "val" / "eval_results.json").write_text(json.dumps(found | {"model_hash": "of another model"}))
    with pytest.raises(ValueError, match="weights"):
        write_card(folder, [tmp_path / "val"])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: change(folder, figures=None, device=None), "figures, device"),
        (lambda folder: (folder / "training_curve.png").unlink(), "training_curve.png"),
        (lambda folder: (folder / "eval_results.json").unlink(), "eval_results.json"),
    ],
)
def test_a_missing_record_is_named(folder, spoil, named):
    spoil(folder)
    before = (folder / "README.md").read_bytes()
    with pytest.raises(UserError, match=named):
        write_card(folder)
    assert (folder / "README.md").read_bytes() == before


def test_facts_that_a_corpus_does_not_state_are_not_recorded(folder, tmp_path):
    assert set(recorded_facts(str(tmp_path)).values()) == {None}
    change(folder, data=recorded_facts(str(tmp_path)))
    write_card(folder)
    card = ModelCard.load(folder / "README.md")
    assert card.text.count("Not recorded.") == 4
    assert card.data.license == "other" and card.data.to_dict()["license_name"] == "see-training-data"


def test_sections_of_the_corpus_are_quoted_whole(tmp_path):
    text = "## Sources\n\n| a | b |\n\n## Translation\n\nBy `m`.\n\nTwo.\n\n## Leakage audit\n\nNone.\n"
    (tmp_path / "README.md").write_text(f"---\nlicense: cc-by-4.0\n---\n\n# C\n\n{text}")
    assert recorded_facts(str(tmp_path)) == {
        **{"license": "cc-by-4.0", "sources": "| a | b |", "splits": None},
        **{"translation": "By `m`.\n\nTwo.", "audit": "None."},
    }


TOWERS = {"image_tower": "org/dino", "text_tower": "org/e5"}


@pytest.mark.parametrize(
    ("license", "start", "expected", "told"),
    [
        ("cc-by-4.0", {}, "cc-by-4.0", "from a random start"),
        ("cc-by-4.0", {"model": "org/clip"}, "other", "from `org/clip`"),
        ("cc-by-4.0", TOWERS, "other", "`org/dino` and `org/e5`"),
        ("other", {}, "other", "from a random start"),
    ],
)
def test_weights_have_the_license_of_the_data_if_it_is_open_and_the_start_was_random(
    folder, results, license, start, expected, told
):
    change(folder, data=results["data"] | {"license": license}, training=results["training"] | start)
    write_card(folder)
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == expected and told in card.text


def test_a_model_has_the_languages_that_it_was_trained_on(folder, results):
    change(folder, training=results["training"] | {"languages": ["en"]})
    write_card(folder)
    card = ModelCard.load(folder / "README.md")
    assert card.data.language == ["en"] and "one language only (en)" in card.text and "| pt |" in card.text
    assert "multilingual" not in card.text.partition("##")[0]


def test_pictures_come_from_the_split_only_if_its_license_allows_it(corpus, tmp_path):
    own = write_examples(tmp_path, corpus["test"], "demo", "mit")
    labels = list(corpus["test"]["label"])
    assert not own["drawn"] and len(own["labels"]) == 3
    for name, label in own["labels"].items():
        assert same_picture(tmp_path / name, corpus["test"][labels.index(label)]["image"])
    inverted = corpus["test"].map(lambda row: {"image": invert(row["image"])}, features=corpus["test"].features)
    for benchmark, license in (("rsicd", "other"), (None, "mit"), ("rsicd", None)):
        drawn = write_examples(tmp_path, inverted, benchmark, license)
        assert drawn["drawn"] and drawn["benchmark"] == "demo"
        assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg")} == set(drawn["labels"])
        for name, label in drawn["labels"].items():
            row = demo_example(0, "test", 2, list(KINDS).index(label))[1]
            assert same_picture(tmp_path / name, row["image"])
            assert not any(same_picture(tmp_path / name, image) for image in inverted["image"])


def test_each_language_has_an_example_among_names_in_it():
    recorded = {"benchmark": "rsicd", "labels": {"examples/a.jpg": "airport", "examples/b.jpg": "beach"}}
    examples = make_examples(recorded, ["en", "de", "ko", "xx"])
    names = load_benchmark("rsicd").class_names
    assert [example.language for example in examples] == ["en", "de", "ko"]
    assert [example.file for example in examples] == ["examples/a.jpg", "examples/b.jpg", "examples/a.jpg"]
    for example, label in zip(examples, ("airport", "beach", "airport"), strict=True):
        assert example.right == names[example.language][label] and example.right in example.labels
        assert len(set(example.labels)) == 5 and set(example.labels) <= set(names[example.language].values())
    english = make_examples(recorded, ["en"])
    assert list(make_snippets(english)) == ["AutoModel", "A pipeline", "sentence-transformers"]


def test_an_adapters_code_names_and_pins_its_base_where_that_is_known():
    examples = make_examples({"benchmark": "rsicd", "labels": {"examples/a.jpg": "airport"}}, ["en", "pt"])
    codes = make_snippets(examples, is_adapter=True)
    base = 'from_pretrained("BASE/MODEL", trust_remote_code=True, revision="BASE_REVISION")'
    assert all(base in code for code in codes.values())
    for code in make_snippets(examples, is_adapter=True, base="org/clip", base_revision="0a1b").values():
        assert 'from_pretrained("org/clip", trust_remote_code=True, revision="0a1b")' in code
        assert 'PeftModel.from_pretrained(base, "USER/NAME", revision="REVISION")' in code


def test_evaluations_of_the_same_split_give_a_figure_once():
    record = {"metric": "mean_recall", "value": 12.34567, "language": "de"}
    more = [{"metric": "knn_probe_accuracy", "value": 1.0, "language": None}]
    more += [{"metric": "text_to_text_recall@1", "value": 1.0, "language": "de", "to": "en"}]
    more += [{"metric": "text_to_text_recall@1", "value": 1.0, "language": "mean"}]
    first = Evaluation("org/corpus", "test", 9, [record], "abc", "f" * 40)
    again = Evaluation("org/corpus", "test", 9, [record | {"value": 12.3}, *more], "of fewer languages", "f" * 40)
    other = Evaluation("rsscn7", None, 9, [record | {"metric": "zero_shot_accuracy"}])
    other.figures.append(record | {"metric": "transductive_accuracy"})
    one, two, three = model_index([first, again, other])
    assert (one.metric_value, one.dataset_revision, one.dataset_config) == (12.3457, "f" * 40, "de")
    assert two.task_type == three.task_type == "zero-shot-image-classification"
    assert (two.dataset_type, two.metric_type) == ("rsscn7", "accuracy")
    assert (three.dataset_type, three.metric_type) == ("rsscn7", "transductive_accuracy")
    with pytest.raises(UserError, match=r"org/corpus, split test.*mean_recall.*12\.3.*1\.0.*prompts"):
        model_index([first, replace(again, figures=[record | {"value": 1.0}])])


def test_the_limits_in_the_card_come_from_the_figures():
    def figure(language: str, metric: str, value: float) -> dict:
        interval = [value - 2, value + 2]
        return {"language": language, "metric": metric, "value": value, "interval": interval, "chance": 39.0}

    figures = [figure(code, "mean_recall", value) for code, value in (("en", 50), ("de", 47), ("fr", 49), ("ko", 40))]
    figures += [figure(code, "mean_recall_gap_to_english", value) for code, value in (("de", 1), ("ko", 10))]
    figures += [figure("mean", "mean_recall", 45), figure("mean", "mean_recall_duplicates_right", 60)]
    figures += [figure("en", "mean_recall_duplicates_right", 60)]  # and not in the others
    classes = {
        "pond": {"images": 30, "recall": {"en": 20.0, "ko": 10.0}, "taken_for": "lake"},
        "lake": {"images": 10, "recall": {"en": 90.0, "ko": 80.0}, "taken_for": "pond"},
    }
    fields = {spec.name: None for spec in dataclasses.fields(RunResults)} | {"languages": ["en", "de", "fr", "ko"]}
    fields |= {"training": {"train_split": "train", "validation_split": "val"}, "undecodable_images": []}
    fields |= {"untrained": {}, "benchmarks": {}}
    results = RunResults(**fields | {"figures": figures, "class_recall": classes, "split": "val"})
    sentences = limits(dataclasses.replace(results, undecodable_images=["a"]))
    told = ["mean recall is not above a random answer by more than chance explains in `ko`."]
    told += [
        "`ko`: 40.0 (95 % interval 38.0 to 42.0)",
        "10.0 (95 % interval 8.0 to 12.0) points above `ko`",
        ": `ko`.",
        "Not compared, because some of their captions have no English original: `fr`.",
    ]
    told += ["\n    - `pond`: 15 % of 30 images, from 10 in `ko` to 20 in `en`; most often taken for `lake`", "1 of 2"]
    told += ["in English is 60.0 (95 % interval 58.0 to 62.0) instead of 50.0", "`val`", "1."]
    assert len(sentences) == len(told)
    assert all(part in sentence for part, sentence in zip(told, sentences, strict=True)), sentences
    nothing = dataclasses.replace(results, figures=[], class_recall={}, split="test")
    assert limits(nothing) == []
    (trained,) = limits(dataclasses.replace(nothing, split="train"))
    assert "`train`" in trained


def test_the_card_says_where_a_figure_is_lower_than_before_the_training(folder, results):
    def raised(metrics: dict, metric: str, by: float) -> dict:
        return metrics | {metric: metrics[metric] + by}

    metrics, scenes = results["metrics"], results["figures"]
    start = {code: raised(metrics[code], "mean_recall", by) for code, by in (("en", -1), ("pt", 0), ("zh", 2.5))}
    elsewhere = {"images": 9, "fingerprint": "f", "prompts": "small", "notes": [], "metrics": metrics}
    accuracy = raised(metrics["pt"], "zero_shot_accuracy", 3)
    elsewhere |= {"figures": scenes, "untrained": {"pt": raised(accuracy, "mean_recall", -1)}}
    change(folder, untrained=start, benchmarks={"scenes": elsewhere})
    write_card(folder)
    section = ModelCard.load(folder / "README.md").text.partition("## Limits")[2].partition("## Training data")[0]
    recall, zero_shot = re.findall(r"^- The .* before training .*$", section, re.MULTILINE)
    assert "`tiny`" in recall and f": `zh` {metrics['zh']['mean_recall']:.1f}" in recall
    assert f"{metrics['zh']['mean_recall'] + 2.5:.1f} before" in recall and "`en`" not in recall + zero_shot
    assert f"`pt` {metrics['pt']['zero_shot_accuracy']:.1f}" in zero_shot and "`scenes`" in zero_shot


@pytest.mark.parametrize("weight, without", [(0.0, True), (0.2, False)])
def test_the_card_names_the_method_of_the_run(folder, results, weight, without):
    change(folder, training=results["training"] | {"self_distillation_weight": weight})
    write_card(folder)
    opening = ModelCard.load(folder / "README.md").text.partition("| part |")[0]
    assert ("without its self-distillation" in opening) == without


def test_the_card_says_what_was_not_measured(folder, results):
    def written(**values: object) -> str:
        change(folder, **values)
        write_card(folder)
        return ModelCard.load(folder / "README.md").text

    text = written()
    assert "other datasets" in text and f"accuracy over {results['classes']} classes" in text
    assert "before this training:" not in text and "Zero-shot classification" not in text.partition("Not measured:")[2]
    figures = [record for record in results["figures"] if "zero_shot" not in record["metric"]]
    figures = [record for record in figures if record["language"] != "zh"]
    text = written(figures=figures, untrained={}, languages=["en", "pt"], class_recall={})
    assert "accuracy over" not in text and "zero-shot |" not in text
    section = text.partition("Not measured:")[2].partition("##")[0]
    assert "Zero-shot classification" in section and "`zh`" in section and "before this training" in section
    other = Evaluation("rsscn7", None, 9, [{"metric": "zero_shot_accuracy", "language": "en"}])
    sentences = not_measured(RunResults.read(folder), [other])
    assert "Zero-shot classification on `tiny`." in sentences and not any("other datasets" in s for s in sentences)


def test_a_model_folder_has_every_file_that_the_hub_needs(tiny_model, tiny_processor, tmp_path):
    assert not is_model_folder(tmp_path)
    save_model_folder(tiny_model, tiny_processor, tmp_path)
    assert is_model_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_rsmclip.RSMCLIPConfig",
        "AutoModel": "modeling_rsmclip.RSMCLIPModel",
        "AutoModelForZeroShotImageClassification": "modeling_rsmclip.RSMCLIPModel",
    }
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "modeling_rsmclip.py", "configuration_rsmclip.py", "processor_config.json"} <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names and not list(tmp_path.glob("*.bin"))
