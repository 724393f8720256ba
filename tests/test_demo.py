"""The demo corpus: deterministic pictures, different from each other, and grammars with right agreement."""

import hashlib
import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import itemgetter

import datasets
import numpy as np
import pytest

from rsmclip.core.languages import LANGUAGES
from rsmclip.data.demo import corpus as demo
from rsmclip.data.demo.corpus import cached_demo, demo_examples
from rsmclip.data.demo.drawing import draw, mountain
from rsmclip.data.demo.grammar import GRAMMARS, captions_in_all_languages
from rsmclip.data.demo.ground import COLORS, SOIL, Canvas
from rsmclip.data.demo.scene import KINDS, MANY, Scene, draw_scene
from rsmclip.eval.protocol import load_benchmark

SCRIPTS = {"zh": r"[\u4e00-\u9fff，。、]+", "ko": r"[\uac00-\ud7a3 .,]+", "ru": r"[а-яёА-ЯЁ ,.—]+"}


def all_scenes():
    for kind, spec in KINDS.items():
        for facts in itertools.product(spec.counts, spec.colors, spec.besides, spec.variants):
            yield Scene(kind, *facts)


def test_rows_are_a_function_of_seed_and_split():
    first, second = (list(demo_examples(seed=1, rows={"train": 20, "val": 4})) for _ in range(2))
    assert first == second
    assert len({row["image"]["bytes"] for _, row in first}) == len(first)
    longer = list(demo_examples(seed=1, rows={"train": 30, "val": 4}))
    assert longer[:20] == first[:20] and longer[30:] == first[20:]
    assert first[0] != next(demo_examples(seed=2, rows={"train": 1}))


def test_the_demo_takes_no_more_cores_than_its_job_has(tmp_path, monkeypatch, one_core):
    started = []
    monkeypatch.setattr(demo, "ProcessPoolExecutor", lambda *count: started.append(count) or ThreadPoolExecutor(1))
    monkeypatch.setattr(demo, "write_corpus", lambda *arguments: None)
    demo.build_demo(tmp_path)
    assert started == [(1,)]


def test_two_runs_that_start_at_once_draw_the_cached_corpus_once(tmp_path, monkeypatch):
    draw_corpus, drawn = demo.build_demo, []
    monkeypatch.setattr(demo, "build_demo", lambda *arguments: (drawn.append(arguments), draw_corpus(*arguments)))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in demo.ROWS:
        monkeypatch.setitem(demo.ROWS, split, 2)
    with ThreadPoolExecutor(2) as runs:
        folders = list(runs.map(cached_demo, [3, 3]))
    assert len(drawn) == 1 and drawn[0] == (folders[0], 3) and folders[0] == folders[1]
    assert (folders[0] / "README.md").is_file()
    assert hashlib.sha256().hexdigest()[:16] not in folders[0].name  # the name depends on the code


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_drawn_with_every_neighbor_and_variant(kind):
    rng = np.random.default_rng(0)
    for beside, variant in itertools.product(KINDS[kind].besides, KINDS[kind].variants):
        scene = replace(draw_scene(kind, rng), beside=beside, variant=variant)
        pixels = np.asarray(draw(scene, rng))
        assert pixels.shape == (96, 96, 3) and pixels.std() > 15


def test_equal_facts_give_different_pictures():
    scene = Scene("harbour", 3, "white", "road", "long_pier")
    rng = np.random.default_rng(0)
    assert np.abs(np.asarray(draw(scene, rng), float) - np.asarray(draw(scene, rng), float)).mean() > 5


def test_bright_light_leaves_brown_peaks_brown():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        canvas = Canvas(96, rng, SOIL, 0.1)
        mountain(canvas, rng, Scene("mountain", 2, "brown", "road", "ridge"), COLORS["brown"])
        red, _, blue = np.moveaxis(np.asarray(canvas.image, int), -1, 0)
        assert red[red - blue > 60].max() < 1.3 * COLORS["brown"][0]  # rock differs less


def test_every_language_has_five_aligned_sentences_of_every_scene():
    for scene in all_scenes():
        for language, captions in captions_in_all_languages(scene).items():
            assert len(captions) == 5
            for caption in captions:
                assert caption[-1] in ("。" if language == "zh" else ".")
                assert caption[0] == caption[0].upper() and "  " not in caption and " ." not in caption
                assert re.fullmatch(SCRIPTS.get(language, r"[^\u0400-\uffff]+"), caption), caption
    assert tuple(GRAMMARS) == LANGUAGES


@pytest.mark.parametrize(
    "language", [code for code in LANGUAGES if code not in ("zh", "ko")]
)  # no spaces between words
def test_prompts_are_in_the_words_of_the_captions(language):
    """A model that was trained on captions knows no other forms of words."""
    captions = [caption for scene in all_scenes() for caption in GRAMMARS[language](scene)]
    benchmark = load_benchmark("demo")
    prompts = [*benchmark.templates[language], *benchmark.class_names[language].values()]
    words, known = (set(re.findall(r"\w+", "\n".join(texts).lower())) for texts in (prompts, captions))
    assert words <= known


def test_captions_tell_scenes_apart():
    """Two scenes of different number, color, kind or neighbor have different captions."""
    for language, captions in GRAMMARS.items():
        facts = {(s.kind, s.count, s.color, s.beside) for s in all_scenes()}
        sentences = {itemgetter(0, 4)(captions(scene)) for scene in all_scenes()}
        assert len(sentences) == len(facts), language


AGREEMENT = [  # language, scene, index of the caption, caption
    ("en", ("airport", 1, "white", "forest", "one_runway"), 0, "One white airplane at an airport."),
    ("pt", ("river", 2, "grey", "road", "winding"), 0, "Duas pontes cinzentas sobre um rio."),
    ("pt", ("airport", 1, "blue", "lake", "one_runway"), 4, "Vê-se um avião azul e há um lago por perto."),
    ("es", ("forest", MANY, "green", "lake", "path"), 0, "Muchos árboles verdes en un bosque."),
    ("fr", ("parking_lot", 4, "white", "river", "lines"), 0, "Quatre voitures blanches sur un parking."),
    ("de", ("stadium", 1, "red", "forest", "track"), 0, "Eine rote Tribüne in einem Stadion."),
    ("de", ("stadium", 1, "red", "lake", "track"), 1, "Ein Stadion neben einem See."),
    ("de", ("harbour", 2, "red", "road", "long_pier"), 2, "Dieses Luftbild zeigt einen Hafen mit zwei Booten."),
    ("nl", ("airport", 1, "white", "road", "one_runway"), 0, "Een wit vliegtuig op een luchthaven."),
    ("nl", ("roundabout", 1, "white", "road", "lawn"), 0, "Een witte auto op een rotonde."),
    ("it", ("stadium", 2, "white", "river", "track"), 0, "Due tribune bianche in uno stadio."),
    ("zh", ("airport", 2, "white", "forest", "one_runway"), 0, "机场上有两架白色的飞机。"),
    ("ko", ("harbour", 3, "white", "forest", "long_pier"), 0, "항구에 흰색 배 세 척이 있다."),
    ("ru", ("airport", 1, "white", "forest", "one_runway"), 0, "Один белый самолёт в аэропорту."),
    ("ru", ("airport", 5, "white", "forest", "one_runway"), 0, "Пять белых самолётов в аэропорту."),
    ("ru", ("harbour", 2, "white", "forest", "long_pier"), 0, "Две белые лодки в порту."),
    ("ru", ("harbour", 4, "white", "forest", "long_pier"), 2, "На этом аэроснимке — порт с четырьмя лодками."),
]


@pytest.mark.parametrize(("language", "scene", "index", "expected"), AGREEMENT)
def test_agreement(language, scene, index, expected):
    assert GRAMMARS[language](Scene(*scene))[index] == expected


def test_the_contact_sheet_has_two_pictures_of_each_class():
    assert demo.demo_contact_sheet().size == (6 * 136 + 8, 6 * 154 + 8)
