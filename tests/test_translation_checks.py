"""Checks of translations: right ones in nine languages pass, and every kind of wrong one is rejected."""

import json
import math
import re
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from rsmclip.core.languages import LANGUAGES
from rsmclip.data.demo.corpus import demo_examples
from rsmclip.data.translation import checks
from rsmclip.data.translation.checks import LENGTH, Judgement, Lengths, doubt, first_objection, judge
from rsmclip.data.translation.wording import WORDING
from tests.captions import CAPTIONS

OTHERS = LANGUAGES[1:]
DATA = Path(__file__).with_name("translations")
every_translation = pytest.mark.parametrize("row", CAPTIONS, ids=lambda row: row["en"][:20])


@cache
def rows_of_the_demo() -> list[dict]:
    return [row for _, row in demo_examples(rows={"train": 54})]


def captions_of_the_demo(language: str) -> dict[str, str]:
    """Map English captions of the demo corpus to those of another language."""
    pairs: dict[str, str] = {}
    for row in rows_of_the_demo():
        pairs |= dict(zip(row["captions"]["en"], row["captions"][language], strict=True))
    return pairs


def read_lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").split("\n") if line]


def right_pairs(language: str) -> dict[str, str]:
    """Map captions to right translations: 190, and 48 joined from two of them."""
    rows = read_lines("right/captions.jsonl")
    joint = "" if language == "zh" else " "
    couples = zip(rows[0::4], rows[1::4], strict=True)
    joined = {f"{a['en']} {b['en']}": f"{a[language]}{joint}{b[language]}" for a, b in couples}
    return {row["en"]: row[language] for row in rows} | joined


@pytest.fixture(scope="module", params=OTHERS)
def judged(request) -> tuple[str, Judgement]:
    return request.param, judge(right_pairs(request.param), request.param)


@pytest.mark.parametrize("english", ["x" * 1_000_000, "A road."])
def test_a_text_that_is_no_caption_is_rejected_at_once(english):
    began = time.process_time()
    assert judge({english: "Uma estrada. " * 100_000}, "pt").reasons == {english: LENGTH}
    assert time.process_time() - began < 5


def test_all_of_two_thousand_right_translations_are_accepted(judged):
    _, judgement = judged
    assert len(judgement.reasons) * len(OTHERS) > 2000
    assert not {english: reason for english, reason in judgement.reasons.items() if reason}


# Translations that are accepted although they are wrong, of 88 and about 138 a language. Most have the meaning of
# another caption, or of a part of the caption, which the checks cannot see.
@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("before", {"pt": 7, "es": 2, "fr": 1, "de": 1, "nl": 2, "it": 2, "zh": 4, "ko": 3, "ru": 4}),
        ("after", {"pt": 10, "es": 7, "fr": 7, "de": 8, "nl": 4, "it": 10, "zh": 5, "ko": 7, "ru": 5}),
    ],
)
def test_of_two_thousand_wrong_translations_few_are_accepted(judged, name, accepted):
    language, (_, lengths) = judged
    wrong = [line for line in read_lines(f"wrong/{name}_the_rules.jsonl") if line["language"] == language]
    missed = [
        line for line in wrong if judge({line["en"]: line["text"]}, language, lengths).reasons[line["en"]] is None
    ]
    assert len(missed) <= accepted[language], Counter(line["fault"] for line in missed)


@every_translation
def test_right_translations_have_no_objection(row):
    assert not any(first_objection(row["en"], row[language], language) for language in OTHERS)


@pytest.mark.parametrize("language", OTHERS)
def test_the_captions_of_a_whole_corpus_are_accepted(language):
    pairs = captions_of_the_demo(language)
    rejected = {english: reason for english, reason in judge(pairs, language).reasons.items() if reason}
    assert len(pairs) > 150 and len(rejected) <= len(pairs) // 100, rejected


@pytest.mark.parametrize("text", ["", " ", ".", "…", "12", "？"])
def test_a_text_without_letters_is_empty(text):
    assert checks.is_empty("a road.", text, "zh")
    assert not checks.is_empty("a road.", "路", "zh")


# "↵" stands for a line break
RESIDUES = """
Sure! {} | Here is the translation: {} | Portuguese: {} | Translation: {} | Übersetzung: {} | 翻译：{} | 번역: {}
Перевод: {} | {}<|im_end|> | <|im_start|>assistant {} | assistant↵{} | [INST] {} [/INST] | {}↵English: a road
{} (Note: literal) | ### {} | I'm sorry, I cannot translate this. {} | Note: {} | I’m sorry. {} | Here’s it. {}
{}<end_of_turn> | <think></think>{} | **{}** | {} </s | {}\ufffd | ¡Claro! {} | ¡Por supuesto! {} | 当然可以！{}
以下是翻译。{} | 물론입니다! {} | “Sure! {}” | Claro! {} | Aqui está a tradução: {} | La traducción es: {}
Voici la traduction : {} | Gerne. {} | Natuurlijk! {} | Ecco la traduzione: {} | Вот перевод: {}
"""


@pytest.mark.parametrize("residue", [text.replace("↵", "\n") for text in re.split(r" \| |\n", RESIDUES.strip())])
@pytest.mark.parametrize("language", OTHERS)
def test_text_of_a_chat_model_around_a_translation_is_found(language, residue):
    row = CAPTIONS[1]
    assert first_objection(row["en"], residue.format(row[language]), language) == "chat residue"


@pytest.mark.parametrize(
    ("language", "right", "introduction"),
    [
        ("es", "Aquí está un río.", "Aquí está la traducción. Un río."),
        ("fr", "Voici une rivière.", "Voici la traduction. Une rivière."),
        ("de", "Hier ist die Mündung eines Flusses.", "Hier ist die Übersetzung. Ein Fluss."),
        ("it", "Ecco un fiume.", "Ecco la tua traduzione. Un fiume."),
    ],
)
def test_translations_of_here_is_are_no_introduction(language, right, introduction):
    assert not checks.has_chat_residue("Here is a river.", right, language)
    assert checks.has_chat_residue("Here is a river.", introduction, language)


@every_translation
@pytest.mark.parametrize("change", [str, str.lower, str.upper, lambda text: text.rstrip(".") + " !"])
def test_the_english_caption_is_a_copy(row, change):
    assert all(checks.is_untranslated_copy(row["en"], change(row["en"]), language) for language in OTHERS)


def test_one_equal_word_is_no_copy():
    assert not checks.is_untranslated_copy("Water.", "Water.", "nl")


@every_translation
@pytest.mark.parametrize("language", OTHERS)
def test_another_script_is_found(row, language):
    script = {"zh": "Han", "ko": "Hangul", "ru": "Cyrillic"}
    for other in LANGUAGES:
        if script.get(other) != script.get(language):
            assert checks.is_in_wrong_script(row["en"], row[other], language), other
        else:
            assert not checks.is_in_wrong_script(row["en"], row[other], language), other


@pytest.mark.parametrize(
    ("language", "text", "wrong"),
    [
        ("zh", "T形码头空无一物。", False),
        ("zh", "一条河流在 trees and houses 之间流过。", True),
        ("ko", "강이 树木 사이로 흐른다.", True),
        ("ru", "Т-образный пирс пуст.", False),
        ("ru", "Пирс is empty.", True),
        ("de", "Der Pier ist 空.", True),
        ("pt", "O 1º edifício à esquerda.", False),
        ("zh", "Ｕ形游泳池。", False),
    ],
)
def test_mixed_scripts_are_found_but_a_t_shape_is_not(language, text, wrong):
    assert checks.is_in_wrong_script("The T-shaped pier is empty.", text, language) == wrong


@pytest.mark.parametrize("language", ["pt", "es", "fr", "de", "nl", "it"])
def test_a_neighboring_language_is_found(language):
    neighbors = [code for code in ("en", "pt", "es", "fr", "de", "nl", "it") if code != language]
    found = [checks.is_in_other_language(row["en"], row[code], language) for row in CAPTIONS for code in neighbors]
    assert sum(found) >= 0.9 * len(found)
    assert not any(checks.is_in_other_language(row["en"], row[language], language) for row in CAPTIONS)


@every_translation
@pytest.mark.parametrize("language", OTHERS)
def test_repetition_is_found(row, language):
    text, bare = row[language], row[language].rstrip(".。")
    part = bare[: len(bare) // 2] if language == "zh" else " ".join(bare.split()[:2])
    joint = "" if language == "zh" else " "
    assert checks.has_repeated_ngrams(row["en"], joint.join([bare, *[part] * 3]), language)
    if len(text) > 16:  # a shorter part must come three times
        assert checks.has_repeated_ngrams(row["en"], f"{text}{joint}{text}", language)
    assert not checks.has_repeated_ngrams(row["en"], text, language)


def test_repeated_letters_and_repetition_in_english_are_accepted():
    assert not checks.has_repeated_ngrams("waves and some plants", "golven en enkele planten", "nl")
    assert not checks.has_repeated_ngrams("rows of trees", "一排排排列整齐的树木", "zh")
    english = "a road and a road and a road and a road."
    assert not checks.has_repeated_ngrams(english, "uma estrada e uma estrada e uma estrada e uma estrada.", "pt")


@pytest.mark.parametrize(
    ("english", "translation", "lost"),
    [
        ("12 lanes", "12 faixas", False),
        ("12 lanes", "13 faixas", True),
        ("two lanes", "2 faixas", False),
        ("1,500 cars", "1 500 voitures", False),
        ("3.5 m", "3,5 m", False),
        ("2 and 2", "2", True),
        ("12 lanes", "１２车道", False),
        ("3.5 m", "35 m", True),
        ("300,000 people", "30万人", False),
        ("35,000 people", "3.5万人", False),
    ],
)
def test_numbers_are_kept(english, translation, lost):
    assert checks.loses_numbers(english, translation, "pt") == lost


@pytest.mark.parametrize("language", OTHERS)
def test_length_is_judged_against_the_other_translations(language):
    pairs = captions_of_the_demo(language)
    english = max(pairs, key=len)
    too_long = f"{pairs[english]} {' '.join(text for text in list(pairs.values())[:6])}"
    too_short = pairs[min(pairs, key=lambda text: len(pairs[text]))][:4]
    for spoiled in (too_long, too_short):
        assert checks.usual_lengths(pairs).distance(english, spoiled) > checks.WIDTH_OF_LENGTHS
    judged = judge(pairs | {english: too_long}, language).reasons
    assert judged[english] in (checks.LENGTH, "repeated n-grams")
    assert sum(reason is not None for reason in judged.values()) <= 1 + len(pairs) // 100


def test_few_translations_have_no_usual_length():
    assert checks.usual_lengths({"a road.": "x" * 500}) == checks.ANY_LENGTH
    text = "Uma estrada muito comprida entre os campos da aldeia."
    assert judge({"a road.": text}, "pt").reasons == {"a road.": None}


def test_length_is_judged_against_given_lengths():
    lengths = Lengths(math.log(0.2), 0.8)
    assert judge({"A road.": "Uma estrada."}, "pt", lengths) == ({"A road.": checks.LENGTH}, lengths)

    lengths = Lengths(0.0, 1.0)  # short captions may deviate more than long ones
    assert lengths.distance("a" * 9, "b" * 18) < checks.WIDTH_OF_LENGTHS < lengths.distance("a" * 100, "b" * 200)


def test_the_first_objection_is_reported():
    assert judge({"a road.": None}, "pt").reasons == {"a road.": "empty"}
    assert first_objection("a road.", "Sure! 路", "pt") == "chat residue"


def test_doubt_grows_towards_rejection():
    row, lengths = CAPTIONS[1], Lengths(0.0, 1.0)
    usual, odd = (doubt(row["en"], text, "de", lengths) for text in (row["de"], row["de"] * 2))
    assert 0 <= usual < 0.5 < odd
    assert doubt("it is a coast.", "Esta es una costa.", "es", checks.ANY_LENGTH) > 0.5  # Italian or Spanish, perhaps


@pytest.mark.parametrize(
    ("english", "language", "text"),
    [
        ("Several Boeing planes are parked.", "zh", "停着几架Boeing飞机。"),
        ("An IKEA store.", "ko", "IKEA 매장."),
        ("A Boeing 747 plane.", "ru", "Самолёт Boeing 747."),
        ("Rows and rows of houses.", "de", "Reihe um Reihe von Häusern."),
        ("1,000,000 trees.", "zh", "1000000棵树。"),
    ],
)
def test_names_and_figures_may_stay_unchanged(english, language, text):
    assert first_objection(english, text, language) is None


@pytest.mark.parametrize(
    ("english", "language", "text"),
    [
        ("natural grassland is beside a river.", "nl", "Natuurlijk grasland ligt naast een rivier."),
        ("a clearing in the dense forest.", "es", "Claro en medio del bosque denso."),
        ("some houses were built along the railway.", "it", "Certo numero di case è costruito lungo la ferrovia."),
        ("naturally curved banks.", "de", "Natürlich gekrümmte Flussufer sind mit Gras bewachsen."),
        ("the border between Germany and France.", "de", "Deutsch-französische Grenze an einem Fluss."),
        (
            "a bridge over a river with trees and boats.",
            "ru",
            "Мост через реку: с одной стороны деревья, с другой — лодки.",
        ),
        ("three or four buildings on the left.", "ko", "왼쪽에 건물이 3~4채 있다."),
        ("a dock with 10 to 20 yachts.", "zh", "停有10～20艘游艇的码头。"),
        ("an S shaped road.", "zh", "S形路。"),
        ("there are 2 tennis courts.", "ko", "테니스장 두 면이 있다."),
        ("a 4 lane road.", "de", "Eine vierspurige Straße."),
        ("terraced fields.", "pt", "Campos em socalcos."),
        ("a plain in a desolate country.", "fr", "Une plaine dans un pays désolé."),
        ("a lookout tower.", "zh", "一座瞭望塔。"),
        ("a railway switch.", "ru", "Стрелочный перевод."),
        ("an English garden.", "fr", "Un jardin anglais."),
        ("a street for cars in Sao Paulo.", "de", "Eine Straße für Autos in São Paulo."),
        ("roads that divide the fields.", "de", "Straßen, die die Felder teilen."),
        ("little by little the sand moves.", "ko", "모래가 조금씩 조금씩 움직인다."),
        ("a new bridge with two lanes.", "fr", "Un pont neuf à deux voies."),
        ("a crossroads with houses all around.", "zh", "十字路口四周都是房屋。"),
        ("beach volleyball courts.", "fr", "Des terrains de beach-volley."),
        ("the houses stand in rows, one by one.", "es", "Las casas están en hileras, una a una."),
    ],
)
def test_right_translations_that_look_wrong_are_accepted(english, language, text):
    assert first_objection(english, text, language) is None


@pytest.mark.parametrize(
    ("english", "language", "text", "reason"),
    [
        ("a road.", "de", "Es tut mir leid, aber dabei kann ich nicht helfen.", "chat residue"),
        ("a road.", "zh", "作为一个人工智能语言模型，我看不到图片。", "chat residue"),
        ("a road.", "fr", "Veuillez fournir le texte à traduire.", "chat residue"),
        ("a road.", "ko", "도로. 더 필요한 것이 있나요?", "chat residue"),
        ("a road.", "ru", "Дорога. Надеюсь, это поможет.", "chat residue"),
        ("a road.", "pt", "Tradução - Uma estrada.", "chat residue"),
        ("a road.", "it", "1. Una strada.", "chat residue"),
        ("a road.", "zh", "一条路。（直译）", "chat residue"),
        ("many buildings.", "es", "Muchos edificios/inmuebles.", "chat residue"),
        ("a house.", "fr", "Une maison est &agrave; c&ocirc;t&eacute;.", "chat residue"),
        ("a road.", "nl", '"Een weg.', "chat residue"),
        ("many buildings near a river.", "pt", "Many buildings near a river. Há prédios.", "English words"),
        ("an airport terminal.", "ko", "airport 터미널.", "wrong script"),
        ("planes at an airport.", "de", "Zwei Flugzeuge auf einem Airport.", "English words"),
        ("many cars.", "ko", "많은 car가 있다.", "English words"),
        ("two planes.", "ru", "Два літаки стоять поруч.", "foreign letters"),
        ("a house beside the road.", "ru", "Къща е до пътя и реката.", "other language"),
        ("many buildings.", "zh", "許多建築物在河邊。", "foreign letters"),
        ("two planes.", "es", "Dos aviones estÃ¡n estacionados.", "foreign letters"),
        ("a road.", "pt", "Um aviao esta na pista.", "accents lost"),
        ("beside the road.", "es", "Junto a la la carretera.", "repeated n-grams"),
        ("a house beside the road.", "zh", "路边路边有一座房子。", "repeated n-grams"),
        ("a road.", "pt", "Uma estraaaaaada.", "repeated n-grams"),
        ("trees and houses.", "ko", "나무, 집, 나무, 집, 나무, 집과 도로.", "repeated n-grams"),
        ("four trees.", "fr", "Trois arbres.", "numbers lost"),
        ("two trees.", "de", "Drei Bäume.", "other numbers"),
        ("a dozen trees.", "pt", "10 árvores.", "other numbers"),
        ("a lake with trees.", "es", "Un lago con", "cut off"),
    ],
)
def test_wrong_translations_are_rejected_for_their_reason(english, language, text, reason):
    assert first_objection(english, text, language) == reason


def test_a_translation_without_the_full_stop_that_all_others_have_is_cut_off():
    pairs = {f"{row['en']} {number}.": f"{row['de']} {number}." for row in CAPTIONS for number in range(20, 30)}
    (english, text), *_ = pairs.items()
    assert judge(pairs | {english: text[:-1]}, "de").reasons[english] == "cut off"
    without = {english: text.rstrip(".") for english, text in pairs.items()}
    assert not any(judge(without, "de").reasons.values())


def test_every_language_has_words_for_the_numbers_from_two_to_twelve():
    for language, wording in WORDING.items():
        assert len(wording.numbers.split()) == len((wording.implied or wording.numbers).split()) == 11, language
    assert tuple(WORDING) == tuple(LANGUAGES)


def test_english_words_that_are_no_names_are_in_the_wrong_script():
    assert first_objection("an airport beside a river.", "airport旁边有river。", "zh") == "wrong script"
