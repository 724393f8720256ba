"""Folders of translations: the output of `rsmclip data translate`, or your own translations."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from rsmclip.core.errors import UserError
from rsmclip.core.files import read_json
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.faults import HALF_CHARACTER
from rsmclip.data.sources.protocol import read_json_lines
from rsmclip.data.translation.checks import judge

RECORD = "translation.json"  # only `rsmclip data translate` writes it


@dataclass
class Translations:
    """
    Accepted translations of captions.

    Args:
        captions (`dict[str, dict[str, str]]`): Normalized English caption to language code to translation.
        counts (`dict[str, dict[str, int]]`):
            Language code to numbers of distinct captions: `accepted`, and rejected by the name of the check.
        model (`str`, *optional*): Name of the translation model, if it is known.
        revision (`str`, *optional*): Revision of the translation model.
    """

    captions: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    model: str | None = None
    revision: str | None = None

    @property
    def languages(self) -> list[str]:
        """Language codes with at least one translation, in the order of `LANGUAGES`."""
        having = {language for texts in self.captions.values() for language in texts}
        return [language for language in LANGUAGES if language in having]

    def aligned(self, raw: Sequence[str | None], languages: Sequence[str]) -> dict[str, list[str | None]]:
        """Return aligned captions in English and the given languages; `None` replaces a missing text."""
        english = [normalize_caption(text or "") or None for text in raw]
        known = [self.captions.get(text, {}) for text in english]
        return {"en": english} | {language: [texts.get(language) for texts in known] for language in languages}


def normalize_caption(raw: str) -> str:
    """Fold white space and remove it before punctuation: `"a  red roof ."` becomes `"a red roof."`."""
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(raw.split()))


def load_translations(folder: Path) -> Translations:
    """
    Return the accepted translations in a folder. Translations that `translate` did not write are checked first.

    Args:
        folder (`Path`): Folder with `*.jsonl` files, one object per line: `{"en": …, "pt": …}`.

    Raises:
        [`~rsmclip.core.errors.UserError`]: No such file, a malformed line, or Lingua is not installed.
    """
    if (folder / RECORD).is_file():
        facts = read_record(folder / RECORD)
        captions = read_translations(folder, "captions.jsonl")
        return Translations(captions, facts["counts"], facts["model"], facts["revision"])
    given = read_translations(folder, "*.jsonl")
    translations = Translations()
    for language in LANGUAGES[1:]:
        pairs = {english: texts[language] for english, texts in given.items() if language in texts}
        if not pairs:
            continue
        reasons = judge(pairs, language).reasons
        translations.counts[language] = dict(Counter(reason or "accepted" for reason in reasons.values()))
        for english in (english for english, reason in reasons.items() if reason is None):
            translations.captions.setdefault(english, {})[language] = pairs[english]
    return translations


def read_record(path: Path) -> dict:
    """Read model, revision, prompt and counts from the record that `translate` wrote."""
    facts = read_json(path)
    names = ("model", "revision", "prompt")
    counts = facts.get("counts")
    tables = counts.values() if isinstance(counts, dict) else [None]
    numbers_only = all(isinstance(table, dict) and all(isinstance(n, int) for n in table.values()) for table in tables)
    if not numbers_only or not all(isinstance(facts.get(name), str) for name in names):
        raise UserError(f"{path} is damaged: delete it and run translate again")
    return facts


def read_translations(folder: Path, pattern: str) -> dict[str, dict[str, str]]:
    # A later line replaces an earlier line with an equal English caption. A note counts different translations.
    if folder.is_file():
        raise UserError(f"{folder} is a file: give its folder")
    if not (files := sorted(folder.glob(pattern))):
        raise UserError(f"no {pattern} with translations in {folder}")
    translations: dict[str, dict[str, str]] = {}
    replacing: list[str] = []  # places
    for place, entry in (line for path in files for line in read_json_lines(path)):
        english = check_entry(place, entry)
        # Keep a space before punctuation: it is right in French.
        texts = {code: " ".join(text.split()) for code, text in entry.items() if code != "en" and (text or "").strip()}
        known = translations.setdefault(english, {})
        replacing += [f"{place} ({code})" for code, text in texts.items() if known.get(code, text) != text]
        known.update(texts)
    if replacing:
        found = f"{len(replacing):,} translations differ from an earlier one of the same sentence"
        tqdm.write(f"note: {folder}: {found}, and replace it; the first: {replacing[0]}", file=sys.stderr)
    return translations


def check_entry(place: str, entry: Mapping[str, object]) -> str:
    if unknown := sorted(set(entry) - set(LANGUAGES)):
        raise UserError(f"{place}: unknown language code {unknown[0]!r}; known are {', '.join(LANGUAGES)}")
    if wrong := [code for code, text in entry.items() if not isinstance(text, str | None)]:
        raise UserError(f"{place}: {wrong[0]!r} is not a string")
    if wrong := [code for code, text in entry.items() if HALF_CHARACTER.search(text or "")]:
        raise UserError(f"{place}: {wrong[0]!r} is not Unicode: it has half of a surrogate pair")
    if not (english := normalize_caption(entry.get("en") or "")):
        raise UserError(f"{place}: no English caption 'en'")
    return english
