"""All captions of the demo keep the rules of their languages, and the checkers of these rules find faults."""

import itertools

import pytest

from rsmclip.core.languages import LANGUAGES
from rsmclip.data.demo.grammar import GRAMMARS
from rsmclip.data.demo.scene import KINDS, Scene
from tests.agreement import faults

FAULTS = {  # a right sentence, and wrong ones
    "en": (
        "One white airplane at an airport.",
        "Two white airplane at an airport.",
        "An beach next to a lake.",
        "A oil depot.",
    ),
    "pt": (
        "Duas pontes cinzentas em um rio.",
        "Dois pontes cinzentas sobre um rio.",
        "Duas pontes cinzentos sobre um rio.",
        "Um avião brancos num aeroporto.",
        "As casas estão dispersos.",
        "O vento na areia de o deserto.",
        "Muitos casas marrons numa área residencial.",
    ),
    "es": (
        "Un muelle se adentra en el agua.",
        "Tres coches blancas en un aparcamiento.",
        "El cuadro interior de el campo.",
        "Una larga muelle.",
        "Las casas están muy separados.",
        "Muchas árboles verdes.",
        "Árboles y hierba.",
    ),
    "fr": (
        "Une longue jetée s'avance dans l'eau.",
        "Quatre voitures blancs sur un parking.",
        "Une plage à côté de un lac.",
        "La eau est calme.",
        "Le long de les rues droites.",
        "Un réservoir verte.",
        "De nombreuses arbres verts.",
    ),
    "it": (
        "Un'auto bianca in uno stadio.",
        "Una auto bianca in uno stadio.",
        "Due tribune bianche in un stadio.",
        "Due tribune bianchi in uno stadio.",
        "Tra gli case sparse.",
        "Nella sabbia di il deserto.",
        "I campi sono quadrate.",
    ),
    "de": (
        "Eine rote Tribüne in einem Stadion neben einem See.",
        "Ein rote Tribüne in einem Stadion.",
        "Eine rote Tribüne in ein Stadion mit einem Boote.",
        "Ein Stadion neben einen See.",
        "Dieses Luftbild zeigt ein Hafen mit zwei Booten.",
        "Dieses Luftbild zeigt einen Hafen mit zwei Boote.",
        "Man sieht ein weißen Flugzeug.",
    ),
    "nl": (
        "Een wit vliegtuig op een luchthaven.",
        "Een witte vliegtuig op een luchthaven.",
        "Een wit auto op een rotonde.",
        "Het rivier stroomt.",
        "De strand is wit.",
        "Drie witte brug over een rivier.",
    ),
    "zh": (
        "机场上有两架白色的飞机。",
        "机场上有二架白色的飞机。",
        "机场上有两辆白色的飞机。",
        "许多座白色的桥。",
        "有两白色的飞机。",
    ),
    "ko": (
        "항구에 흰색 배 세 척이 있다.",
        "항구에 흰색 배 세 척가 있다.",
        "항구에 흰색 배 세 대가 있다.",
        "흰색 배 삼 척이 있다.",
        "강가 있다.",
        "나무이 많다.",
    ),
    "ru": (
        "Видны две белые лодки, а рядом с лесом — порт с четырьмя лодками.",
        "Два белые лодки в порту.",
        "Две белых лодок в порту.",
        "Пять белых самолёта в аэропорту.",
        "Один белая машина.",
        "Порт с пятью лодок.",
        "Видна пять белых самолётов.",
        "Порт рядом с лес.",
    ),
}


def all_captions(language: str) -> set[str]:
    scenes = (
        Scene(kind, *facts)
        for kind, spec in KINDS.items()
        for facts in itertools.product(spec.counts, spec.colors, spec.besides, spec.variants)
    )
    return {caption for scene in scenes for caption in GRAMMARS[language](scene)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_caption_of_the_demo_breaks_a_rule_of_its_language(language):
    found = {caption: faults(language, caption) for caption in all_captions(language)}
    assert len(found) > 1700 and {caption: lines for caption, lines in found.items() if lines} == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_checkers_accept_a_right_sentence_and_find_every_wrong_one(language):
    right, *wrong = FAULTS[language]
    assert faults(language, right) == []
    assert [sentence for sentence in wrong if not faults(language, sentence)] == []
