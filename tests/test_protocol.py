"""The benchmark files and prompt sets are complete and consistent, and errors name the file and the class."""

import re
from collections import defaultdict

import pytest
import yaml

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.sources.karpathy import UCM_CLASSES
from rsmclip.eval import protocol
from rsmclip.eval.protocol import BENCHMARKS, PROMPTS, known_benchmarks, load_benchmark, load_prompts

CLASSES_AND_IMAGES = {  # as the papers state them; retrieval: images of the test split
    "aid": (30, 10000),
    "demo": (18, None),
    "eurosat": (10, 27000),
    "mlrsnet": (46, 109161),
    "nwpu_captions": (45, 3150),
    "optimal31": (31, 1860),
    "patternnet": (38, 30400),
    "resisc45": (45, 31500),
    "rsc11": (11, 1232),
    "rsi_cb128": (45, 36707),
    "rsi_cb256": (35, 24747),
    "rsicd": (30, 1093),
    "rsitmd": (33, 452),
    "rsscn7": (7, 2800),
    "siri_whu": (12, 2400),
    "sydney_captions": (0, 58),
    "ucm_captions": (21, 210),
    "ucmerced": (21, 2100),
    "whu_rs19": (19, 1005),
}
SCRIPTS = {"zh": r"[\u4e00-\u9fff]+", "ko": r"[\uac00-\ud7a3 ]+", "ru": r"[\u0400-\u04ff -]+"}
LATIN = r"[A-Za-zÀ-ÿœŒ '-]+"


def test_every_benchmark_has_the_classes_and_images_of_its_paper():
    loaded = {name: load_benchmark(name) for name in known_benchmarks()}
    assert {name: (len(it.labels), it.images) for name, it in loaded.items()} == CLASSES_AND_IMAGES


@pytest.mark.parametrize("name", known_benchmarks())
def test_a_benchmark_has_all_facts(name):
    benchmark = load_benchmark(name)
    assert benchmark.title and benchmark.citation and benchmark.license and benchmark.split and benchmark.layout
    assert benchmark.task == ("retrieval" if name in RETRIEVAL else "classification")
    assert name == "demo" or re.fullmatch(r"https?://\S+", benchmark.source)
    assert benchmark.hub_id is None or re.fullmatch(r"[\w-]+/[\w.-]+", benchmark.hub_id)
    assert benchmark.traps and all(trap.endswith(".") for trap in benchmark.traps)
    assert set(benchmark.aliases.values()) <= set(benchmark.labels)


RETRIEVAL = ("demo", "rsicd", "rsitmd", "ucm_captions", "sydney_captions", "nwpu_captions")


@pytest.mark.parametrize("name", known_benchmarks())
def test_every_class_has_one_name_of_its_own_in_each_language_and_script(name):
    benchmark = load_benchmark(name)
    assert list(benchmark.class_names) == list(benchmark.templates) == list(LANGUAGES)
    assert all(text.count("{}") == 1 for texts in benchmark.templates.values() for text in texts)
    for language, names in benchmark.class_names.items():
        assert list(names) == benchmark.labels
        assert len({text.casefold() for text in names.values()}) == len(names)
        for text in names.values():
            assert text == text.strip() and re.fullmatch(SCRIPTS.get(language, LATIN), text), (language, text)


def test_the_same_english_name_is_translated_alike_in_all_files():
    """Except the demo: its names use the words of its captions (tests/test_demo.py)."""
    translations = defaultdict(set)
    for name in set(known_benchmarks()) - {"demo"}:
        names = load_benchmark(name).class_names
        for label, english in names["en"].items():
            translations[english].add(tuple(names[code][label] for code in LANGUAGES))
    assert len(translations) > 100
    assert {english: found for english, found in translations.items() if len(found) > 1} == {}


MASS_NOUNS = ("land", "farmland", "grassland", "shrubland", "vegetation", "chaparral", "ice", "water")


def test_english_names_have_the_article_that_a_sentence_needs():
    names = {name for each in known_benchmarks() for name in load_benchmark(each).class_names["en"].values()}
    for name in names:
        article, _, noun = name.partition(" ")
        head = re.split(" in | with ", name)[0].split()[-1]
        if article in ("a", "an"):
            assert (article == "an") == (noun[0].lower() in "aeiou"), name
        else:
            assert article == "the" or head in MASS_NOUNS or head.endswith("s"), name


@pytest.mark.parametrize("language", ["pt", "es", "fr", "de", "nl", "it", "ru"])
def test_a_name_without_article_and_case_comes_first_or_follows_a_colon(language):
    templates = load_prompts("single")[language] + load_prompts("small")[language]
    assert [text for text in templates if not re.search(r"^\{\}|: \{\}\.$", text)] == []


def test_datasets_over_the_same_images_have_the_same_classes():
    labels = {name: load_benchmark(name).labels for name in known_benchmarks()}
    assert labels["ucm_captions"] == labels["ucmerced"] == UCM_CLASSES
    assert labels["nwpu_captions"] == labels["resisc45"]
    assert [label.lower() for label in labels["aid"]] == labels["rsicd"]
    assert labels["rsitmd"] == [*labels["rsicd"], "boat", "intersection", "plane"]
    assert set(labels["optimal31"]) < set(labels["resisc45"])
    assert set(labels["rsi_cb256"]) - set(labels["rsi_cb128"]) == {"airplane"}


def test_prompt_sets_have_their_languages_and_sizes():
    sizes = {"single": 1, "small": 6, "en2": 2, "en3": 3, "en18": 18, "en105": 105}
    sets = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    assert list(sets) == list(sizes)
    for name, size in sizes.items():
        assert tuple(load_prompts(name)) == (LANGUAGES if name in ("single", "small") else ("en",))
        for language, templates in load_prompts(name).items():
            assert len(set(templates)) == len(templates) == size
            for template in templates:
                assert template.count("{}") == 1 and template[-1] in ("。" if language == "zh" else ".")


def test_the_choice_of_prompts_is_kept_and_a_benchmarks_own_come_before_the_default():
    assert (load_benchmark("eurosat").prompts, load_benchmark("demo").prompts) == ("small", "own")
    assert load_benchmark("demo").templates["de"] == ["Ein Luftbild: {}.", "Dieses Luftbild zeigt: {}.", "{}."]
    english = load_benchmark("demo", prompts="en18")
    assert english.prompts == "en18" and list(english.class_names) == list(english.templates) == ["en"]


def test_unknown_names_and_missing_class_names_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'nope'.*aid, demo, .*, whu_rs19"):
        load_benchmark("nope")
    with pytest.raises(UserError, match="'../prompts'"):
        load_benchmark("../prompts")
    with pytest.raises(UserError, match="'all'.*single, small, en2, en3, en18, en105"):
        load_benchmark("aid", prompts="all")
    content = yaml.safe_load((BENCHMARKS / "eurosat.yaml").read_text(encoding="utf-8"))
    del content["classes"]["Forest"]["ko"]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    monkeypatch.setattr(protocol, "BENCHMARKS", tmp_path)
    with pytest.raises(UserError, match="x.yaml.*'Forest'.*ko"):
        load_benchmark("x")
