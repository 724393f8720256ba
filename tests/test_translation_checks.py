"""Checks of translations: right ones in nine languages pass, and every way of spoiling them is found by a check."""

import json
import math
from pathlib import Path

import pytest

from rsmclip.data.demo import demo_examples
from rsmclip.data.schema import LANGUAGES
from rsmclip.data.translation_checks import (
    CHECKS,
    LENGTH,
    doubt,
    first_objection,
    has_chat_residue,
    has_repeated_ngrams,
    is_empty,
    is_in_other_language,
    is_in_wrong_script,
    is_untranslated_copy,
    judge,
    length_bounds,
    loses_numbers,
)

LINES = (Path(__file__).parent / "captions_in_ten_languages.jsonl").read_text(encoding="utf-8").splitlines()
CAPTIONS = [json.loads(line) for line in LINES]
OTHERS = LANGUAGES[1:]
every_translation = pytest.mark.parametrize("row", CAPTIONS, ids=lambda row: row["en"][:20])


def captions_of_the_demo(language: str) -> dict[str, str]:
    """English captions of the demo corpus with their translation by its grammar."""
    pairs: dict[str, str] = {}
    for _, row in demo_examples(rows={"train": 54}):
        pairs |= dict(zip(row["captions"]["en"], row["captions"][language], strict=True))
    return pairs


@every_translation
def test_right_translations_have_no_objection(row):
    assert {language: first_objection(row["en"], row[language], language) for language in OTHERS} == dict.fromkeys(
        OTHERS
    )


@pytest.mark.parametrize("language", OTHERS)
def test_the_captions_of_a_whole_corpus_are_accepted(language):
    pairs = captions_of_the_demo(language)
    rejected = {english: reason for english, reason in judge(pairs, language).items() if reason}
    assert len(pairs) > 150 and len(rejected) <= len(pairs) // 100, rejected


@pytest.mark.parametrize("text", ["", " ", ".", "…", "12", "？"])
def test_nothing_to_read_is_empty(text):
    assert is_empty("a road.", text, "zh")
    assert not is_empty("a road.", "路", "zh")


RESIDUES = [
    "Sure! {}", "Here is the translation: {}", "Portuguese: {}", "Translation: {}", "Übersetzung: {}", "翻译：{}",
    "번역: {}", "Перевод: {}", "{}<|im_end|>", "<|im_start|>assistant {}", "assistant\n{}", "[INST] {} [/INST]",
    "{}\nEnglish: a road", "{} (Note: literal)", "### {}", "I'm sorry, I cannot translate this. {}",
]  # fmt: skip


@pytest.mark.parametrize("residue", RESIDUES)
@pytest.mark.parametrize("language", OTHERS)
def test_what_a_chat_model_says_around_a_translation_is_found(language, residue):
    row = CAPTIONS[1]
    assert first_objection(row["en"], residue.format(row[language]), language) == "chat residue"
    assert has_chat_residue(row["en"], residue.format(row[language]), language)


@every_translation
@pytest.mark.parametrize("change", [str, str.lower, str.upper, lambda text: text.rstrip(".") + " !"])
def test_english_that_came_back_is_a_copy(row, change):
    assert all(is_untranslated_copy(row["en"], change(row["en"]), language) for language in OTHERS)


def test_one_word_may_be_the_same_in_two_languages():
    assert not is_untranslated_copy("Water.", "Water.", "nl")
    assert not is_untranslated_copy("A park.", "Ein Park.", "de")


@every_translation
@pytest.mark.parametrize("language", OTHERS)
def test_another_script_is_found(row, language):
    script = {"zh": "Han", "ko": "Hangul", "ru": "Cyrillic"}
    for other in LANGUAGES:
        if script.get(other) != script.get(language):
            assert is_in_wrong_script(row["en"], row[other], language), other
        else:
            assert not is_in_wrong_script(row["en"], row[other], language), other


@pytest.mark.parametrize(
    ("language", "text", "wrong"),
    [
        ("zh", "T形码头空无一物。", False),
        ("zh", "一条河流在 trees and houses 之间流过。", True),
        ("zh", "一条강流过。", True),
        ("ko", "강이 나무 사이로 흐른다.", False),
        ("ko", "강이 树木 사이로 흐른다.", True),
        ("ru", "Т-образный пирс пуст.", False),
        ("ru", "Пирс is empty.", True),
        ("pt", "O píer está пуст.", True),
        ("de", "Der Pier ist 空.", True),
    ],
)
def test_mixed_scripts_are_found_but_a_t_shape_is_not(language, text, wrong):
    assert is_in_wrong_script("The T-shaped pier is empty.", text, language) == wrong


@pytest.mark.parametrize("language", ["pt", "es", "fr", "de", "nl", "it"])
def test_a_neighbouring_language_is_found(language):
    neighbours = [code for code in ("en", "pt", "es", "fr", "de", "nl", "it") if code != language]
    found = [is_in_other_language(row["en"], row[code], language) for row in CAPTIONS for code in neighbours]
    assert sum(found) >= 0.9 * len(found)
    assert not any(is_in_other_language(row["en"], row[language], language) for row in CAPTIONS)


@every_translation
@pytest.mark.parametrize("language", OTHERS)
def test_repetition_is_found(row, language):
    text, bare = row[language], row[language].rstrip(".。")
    part = bare[: len(bare) // 2] if language == "zh" else " ".join(bare.split()[:2])
    joint = "" if language == "zh" else " "
    assert has_repeated_ngrams(row["en"], joint.join([bare, *[part] * 3]), language)
    assert has_repeated_ngrams(row["en"], f"{text}{joint}{text}", language) or len(text) < 16
    assert not has_repeated_ngrams(row["en"], text, language)


def test_letters_that_repeat_across_words_are_no_repetition():
    assert not has_repeated_ngrams("waves and some plants", "golven en enkele planten", "nl")
    assert not has_repeated_ngrams("rows of trees", "一排排排列整齐的树木", "zh")


def test_repetition_that_is_in_english_may_stay():
    english = "a road and a road and a road and a road."
    assert not has_repeated_ngrams(english, "uma estrada e uma estrada e uma estrada e uma estrada.", "pt")


@pytest.mark.parametrize(
    ("english", "translation", "lost"),
    [
        ("12 lanes", "12 faixas", False),
        ("12 lanes", "13 faixas", True),
        ("12 lanes", "doze faixas", True),
        ("two lanes", "2 faixas", False),
        ("1,500 cars", "1.500 carros", False),
        ("1,500 cars", "1 500 voitures", False),
        ("3.5 m", "3,5 m", False),
        ("2 of 3", "3 de 2", False),
        ("2 and 2", "2", True),
        ("12 lanes", "１２车道", False),
    ],
)
def test_numbers_are_kept(english, translation, lost):
    assert loses_numbers(english, translation, "pt") == lost


@pytest.mark.parametrize("language", OTHERS)
def test_length_is_judged_against_the_other_translations(language):
    pairs = captions_of_the_demo(language)
    english = max(pairs, key=len)
    too_long = f"{pairs[english]} {' '.join(text for text in list(pairs.values())[:6])}"
    too_short = pairs[min(pairs, key=lambda text: len(pairs[text]))][:4]
    for spoilt in (too_long, too_short):
        low, high = length_bounds(pairs)
        assert not low <= len(spoilt) / len(english) <= high
    judged = judge(pairs | {english: too_long}, language)
    assert judged[english] in (LENGTH, "repeated n-grams")
    assert sum(reason is not None for reason in judged.values()) <= 1 + len(pairs) // 100


def test_few_translations_have_no_usual_length():
    assert length_bounds({"a road.": "x" * 500}) == (0.0, math.inf)
    assert judge({"a road.": "Uma estrada muito, muito comprida entre os campos da aldeia."}, "pt") == {
        "a road.": None
    }


def test_bounds_of_others_can_be_given():
    assert judge({"A road.": "Uma estrada."}, "pt", (0.1, 0.2)) == {"A road.": LENGTH}


def test_a_missing_translation_is_empty():
    assert judge({"a road.": None}, "pt") == {"a road.": "empty"}


def test_the_first_objection_is_reported():
    assert list(CHECKS)[:4] == ["empty", "chat residue", "untranslated copy", "wrong script"]
    assert first_objection("a road.", "Sure! 路", "pt") == "chat residue"


def test_doubt_grows_towards_rejection():
    row, bounds = CAPTIONS[1], (0.5, 2.0)
    usual, odd = doubt(row["en"], row["de"], "de", bounds), doubt(row["en"], row["de"] * 2, "de", bounds)
    assert 0 <= usual < 0.5 < odd
    assert doubt("it is a coast.", "Esta es una costa.", "es", (0.0, math.inf)) > 0.5  # Italian or Spanish, perhaps
