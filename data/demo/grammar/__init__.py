"""Captions of the demo scenes, from grammars written by hand for each language."""

from collections.abc import Callable

from rsmclip.data.demo.grammar import de, en, es, fr, it, ko, nl, pt, ru, zh
from rsmclip.data.demo.scene import Scene

GRAMMARS: dict[str, Callable[[Scene], list[str]]] = {
    grammar.__name__.rsplit(".", 1)[-1]: grammar.captions for grammar in (en, pt, es, fr, de, nl, it, zh, ko, ru)
}


def captions_in_all_languages(scene: Scene) -> dict[str, list[str]]:
    """Five captions of a scene in each language; caption `k` says the same in all of them."""
    return {language: captions(scene) for language, captions in GRAMMARS.items()}
