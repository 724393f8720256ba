"""One Portuguese: no text has a word of Portugal where Brazil, whose variety the translations have, says another."""

import re

import pytest

from rsmclip.data.demo.grammar import GRAMMARS
from rsmclip.eval.protocol import known_benchmarks, load_benchmark, load_prompts
from rsmclip.hub.space.texts import CONTENT
from tests.test_demo import all_scenes

EUROPEAN = re.compile(
    r"\b(aterragem|bancadas?|basebol|basquetebol|castanh\w+|chavetas?|contentor\w*|dete[cç]ão|desportiv\w+|ecrã|"
    r"estância|ficheiros?|húmid\w+|parques? de estacionamento|passadeiras?|percentage\w+|píxe\w+|relv\w+|rotundas?|"
    r"socalcos|ténis|termoelétric\w+|tubage\w+)\b",
    re.IGNORECASE,
)
TEXTS = {
    "names": [name for each in known_benchmarks() for name in load_benchmark(each).class_names["pt"].values()],
    "prompts": [text for name in ("single", "small") for text in load_prompts(name)["pt"]],
    "demo": [caption for scene in all_scenes() for caption in GRAMMARS["pt"](scene)],
    "Space": [texts["pt"] for texts in CONTENT["texts"].values()],
}


@pytest.mark.parametrize("where", TEXTS)
def test_no_text_has_a_word_that_only_portugal_says(where):
    assert TEXTS[where] and not {word[0] for text in TEXTS[where] if (word := EUROPEAN.search(text))}


def test_such_words_are_found():
    assert EUROPEAN.search("Imagem de deteção remota: parque de estacionamento.")
