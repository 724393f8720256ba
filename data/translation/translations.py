"""A folder of translations: what `translate` wrote, or ready ones, which go through the same checks."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsmclip.data.schema import LANGUAGES
from rsmclip.data.sources import SourceError
from rsmclip.data.sources.protocol import describe, read_json_lines
from rsmclip.data.translation.checks import judge

RECORD = "translation.json"  # beside the captions that `translate` wrote


@dataclass
class Translations:
    """
    Accepted translations of captions.

    Args:
        captions (`dict[str, dict[str, str]]`): English caption, normalised, to language code to translation.
        counts (`dict[str, dict[str, int]]`):
            For each language how many distinct captions were accepted, and rejected by which check.
        model (`str`, *optional*): What translated them, if that is known.
        revision (`str`, *optional*): Its revision.
    """

    captions: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    model: str | None = None
    revision: str | None = None

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that have at least one translation, in the project's order."""
        having = {language for texts in self.captions.values() for language in texts}
        return [language for language in LANGUAGES if language in having]

    def of(self, raw: Sequence[str], languages: Sequence[str]) -> dict[str, list[str | None]]:
        """Captions in English and in the given languages, aligned; null where there is no translation."""
        english = [normalise_caption(text) for text in raw]
        known = [self.captions.get(text, {}) for text in english]
        return {"en": english} | {language: [texts.get(language) for texts in known] for language in languages}


def normalise_caption(raw: str) -> str:
    """White space folded, none before punctuation: `"a  red roof ."` to `"a red roof."`."""
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(raw.split()))


def load_translations(folder: Path) -> Translations:
    """
    The accepted translations of a folder. Those of `translate` have been judged; others are judged here.

    Args:
        folder (`Path`): A folder with `*.jsonl`, one object a line: `{"en": …, "pt": …}`.

    Raises:
        [`SourceError`]: There is no such file, or a line of it is wrong.
        `ImportError`: Lingua is not installed.
    """
    if (folder / RECORD).is_file():
        facts = read_record(folder / RECORD)
        return Translations(
            read_translations(folder, "captions.jsonl"), facts["counts"], facts["model"], facts["revision"]
        )
    given = read_translations(folder, "*.jsonl")
    accepted: dict[str, dict[str, str]] = {}
    counts: dict[str, dict[str, int]] = {}
    for language in LANGUAGES[1:]:
        pairs = {english: texts[language] for english, texts in given.items() if language in texts}
        reasons = judge(pairs, language).reasons if pairs else {}
        for english in (english for english, reason in reasons.items() if reason is None):
            accepted.setdefault(english, {})[language] = pairs[english]
        if pairs:
            counts[language] = dict(Counter(reason or "accepted" for reason in reasons.values()))
    return Translations(accepted, counts)


def read_record(path: Path) -> dict:
    """What `translate` noted of its translations: model, revision, what it was asked, counts."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        numbers = [number for found in facts["counts"].values() for number in found.values()]
        if not all(isinstance(facts[name], str) for name in ("model", "revision", "prompt")) or not all(
            isinstance(number, int) for number in numbers
        ):
            raise TypeError("a value of the wrong type")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} is damaged ({describe(error)}): delete it and run translate again") from None
    return facts


def read_translations(folder: Path, pattern: str) -> dict[str, dict[str, str]]:
    """
    The files of translations in a folder. Where two lines translate one caption into one language, the later is taken.

    Returns:
        `dict[str, dict[str, str]]`: English caption, normalised, to language code to translation.

    Raises:
        [`SourceError`]: There is no such file, or a line of it is wrong.
    """
    if not (files := sorted(folder.glob(pattern))):
        raise SourceError(f"no {pattern} with translations in {folder}")
    translations: dict[str, dict[str, str]] = {}
    for place, entry in (line for path in files for line in read_json_lines(path)):
        english = check_entry(place, entry)
        # Only white space is folded: a space before punctuation is a tokeniser's trace in English, right in French.
        texts = {code: " ".join(text.split()) for code, text in entry.items() if code != "en" and (text or "").strip()}
        translations.setdefault(english, {}).update(texts)
    return translations


def check_entry(place: str, entry: Mapping[str, object]) -> str:
    """The English caption of a line, normalised; a [`SourceError`] if the line is wrong."""
    if unknown := sorted(set(entry) - set(LANGUAGES)):
        raise SourceError(f"{place}: unknown language code {unknown[0]!r}; known are {', '.join(LANGUAGES)}")
    if wrong := [code for code, text in entry.items() if not isinstance(text, str | None)]:
        raise SourceError(f"{place}: {wrong[0]!r} is not a string")
    if not (english := normalise_caption(entry.get("en") or "")):
        raise SourceError(f"{place}: no English caption 'en'")
    return english
