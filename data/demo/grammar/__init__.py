"""Captions of the demo scenes. Each language has a module with a grammar written by hand."""

from collections.abc import Callable

from rsmclip.data.demo.grammar import de, en, es, fr, it, ko, nl, pt, ru, zh
from rsmclip.data.demo.scene import Scene

GRAMMARS: dict[str, Callable[[Scene], list[str]]] = {
    grammar.__name__.rsplit(".", 1)[-1]: grammar.captions for grammar in (en, pt, es, fr, de, nl, it, zh, ko, ru)
}


def captions_in_all_languages(scene: Scene) -> dict[str, list[str]]:
    """Return the five captions of a scene by language code. Caption `k` has the same meaning in all languages."""
    return {language: captions(scene) for language, captions in GRAMMARS.items()}
