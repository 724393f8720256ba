"""Checks of machine translations.

A check is a function of the English caption, its translation and the language code. It returns `True` to reject the
translation. The key of a check in `CHECKS` is the reason in reports. The last check compares the length of a
translation with the usual length, so it needs all translations into the language.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from statistics import median
from typing import NamedTuple

from rsmclip.core.errors import extra
from rsmclip.core.languages import LANGUAGES

NAMES = ("English", "Portuguese", "Spanish", "French", "German", "Dutch", "Italian", "Chinese", "Korean", "Russian")
LANGUAGE_NAMES = dict(zip(LANGUAGES, NAMES, strict=True))
SCRIPTS = {"zh": "CJK", "ko": "HANGUL", "ru": "CYRILLIC"}  # Unicode's names of scripts; other languages are LATIN

# Introductions that a chat model writes before a translation. "Voici" alone is not an introduction: "Voici une
# rivière" is a right translation of "Here is a river".
INTRODUCTION = re.compile(
    r"^\W*(sure|certainly|of course|here is|here's|as an ai|i'm sorry|i cannot|assistant\b|note\b"
    r"|claro|com certeza|por supuesto|desde luego|bien sûr|certainement"
    r"|natürlich|gerne|selbstverständlich|natuurlijk|uiteraard"
    r"|(aqui está|aquí está|voici|hier ist|hier is|ecco)( \w+){0,3} (tradu|übersetzung|vertaling)\w*"
    r"|certo|certamente|конечно|разумеется|вот перевод)\b"
    r"|^\W*(当然|好的|以下是|물론|다음은)"  # a longer word may begin with these: 当然可以, 물론입니다
    r"|\((note|nota|anmerkung|opmerking|remarque|примечание)\b",
    re.IGNORECASE,
)
# Characters of chat templates and Markdown. Half a character decodes to the last one.
MARKS = frozenset("<>*#`{}[]|\\_~=\ufffd")

# Greedy decoding may repeat a part of a sentence forever. A part may come twice in a row if it is short, never three
# times. It consists of whole words ("golven en enkele" does not repeat "en"), in Chinese of characters.
REPETITION = re.compile(r"\b(\w[^\n]{0,60}?)(?:[\s,.;:!?]+\1\b){2}|\b(\w[^\n]{15,120}?)[\s,.;:!?]+\2\b")
REPETITION_IN_HAN = re.compile(r"([^\W\d]{2,30}?)(?:[\s，。、；]*\1){2}|([^\W\d][^\n]{5,60}?)[\s，。、；]*\2")
TIMES_AS_LIKELY = 4  # reject if another language is more than four times as likely
WIDTH_OF_LENGTHS = 4.0  # reject if the length differs from the usual length by more standard deviations
FEWEST_LENGTHS = 30  # with fewer translations, the usual length is unknown
# Captions from one template have almost no deviation. Captions of RSICD have 0.8 (Dutch) to 1.3 (Russian).
LEAST_DEVIATION = 1.2


def is_empty(english: str, translation: str, language: str) -> bool:
    """Return whether the translation has no letter."""
    return not any(map(str.isalpha, translation))


def has_chat_residue(english: str, translation: str, language: str) -> bool:
    """Return whether the text has several lines, an introduction, a label with a colon, or marks of a template."""
    text = translation.strip().replace("’", "'")
    new = set(unicodedata.normalize("NFKC", text)) - set(english)
    return "\n" in text or ":" in new or bool(new & MARKS) or bool(INTRODUCTION.search(text))


def is_untranslated_copy(english: str, translation: str, language: str) -> bool:
    """Return whether caption and translation have equal words. One single word may be equal in both languages."""
    words = re.findall(r"\w+", english.lower())
    return len(words) > 1 and words == re.findall(r"\w+", translation.lower())


def is_in_wrong_script(english: str, translation: str, language: str) -> bool:
    """
    Return whether the translation has letters of a foreign script, other than in names from the English caption.

    Text in Han, Hangul or Cyrillic may have up to 30 % Latin letters ("T-shaped").
    """
    own = SCRIPTS.get(language, "LATIN")
    text = unicodedata.normalize("NFKC", translation)  # full-width letters, and the º of an ordinal number
    for name in re.findall(r"\w*[A-Z]\w*[A-Z]\w*|(?<=\s)[A-Z]\w+", english):  # UCLA, or Boeing after another word
        text = text.replace(name, "")
    scripts = Counter(script_of(letter) for letter in text if letter.isalpha())
    foreign = sum(scripts.values()) - scripts[own] - scripts["LATIN"] * (own != "LATIN")
    return foreign > 0 or scripts[own] < 0.7 * sum(scripts.values())


@cache
def script_of(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]  # LATIN, CJK, HANGUL, CYRILLIC


def is_in_other_language(english: str, translation: str, language: str) -> bool:
    """Return whether another of the ten languages is more than four times as likely."""
    # Short captions are ambiguous between related languages. For the Portuguese "Um rio seco fica em um deserto." the
    # detector gives 0.34 to Italian and 0.30 to Portuguese. The most likely language would reject right translations.
    if language in SCRIPTS:  # the script alone identifies the language
        return False
    likely = language_confidences(translation)
    return max(likely.values()) > TIMES_AS_LIKELY * likely[language]


def language_confidences(text: str) -> dict[str, float]:
    found = language_detector().compute_language_confidence_values(text)
    return {confidence.language.iso_code_639_1.name.lower(): confidence.value for confidence in found}


@cache
def language_detector():
    with extra("translate"):
        from lingua import IsoCode639_1, LanguageDetectorBuilder
    codes = [getattr(IsoCode639_1, language.upper()) for language in LANGUAGES]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def has_repeated_ngrams(english: str, translation: str, language: str) -> bool:
    """Return whether the translation repeats a part, and the English caption does not."""
    repetition = REPETITION_IN_HAN if language == "zh" else REPETITION
    return bool(repetition.search(translation)) and not REPETITION.search(english)


def loses_numbers(english: str, translation: str, language: str) -> bool:
    """Return whether the translation lacks a number in digits. Separators may differ; 30万 is 300,000."""
    return bool(numbers(english) - numbers(translation))


def numbers(text: str) -> Counter:
    # Convert to one notation: 1,500 and 1.500 and 1 500 are 1500; 3,5 is 3.5.
    found = Counter()
    spaced = unicodedata.normalize("NFKC", text)
    for number, myriads in re.findall(r"(\d+(?:[., ]\d{3}(?!\d))*(?:[.,]\d+)?)\s*([万만]?)", spaced):
        plain = re.sub(r"[., ](?=\d{3}(?!\d))", "", number).replace(",", ".")
        found[f"{float(plain) * (10_000 if myriads else 1):.6g}"] += 1
    return found


CHECKS: dict[str, Callable[[str, str, str], bool]] = {
    "empty": is_empty,
    "chat residue": has_chat_residue,
    "untranslated copy": is_untranslated_copy,
    "wrong script": is_in_wrong_script,
    "repeated n-grams": has_repeated_ngrams,
    "numbers lost": loses_numbers,
    "other language": is_in_other_language,
}
LENGTH = "length ratio"


class Lengths(NamedTuple):
    """
    Usual length of translations into a language, relative to English.

    The standard deviation of log(characters of the translation / characters of the caption) is proportional to
    1 / sqrt(characters of the caption) (Gale and Church 1993, section 3).
    """

    middle: float  # median of the logarithm
    deviation: float  # standard deviation of the logarithm for a caption of one character

    def distance(self, english: str, translation: str) -> float:
        """Return the difference from the usual length, in standard deviations."""
        ratio = math.log(max(len(translation), 1) / len(english))
        return abs(ratio - self.middle) * math.sqrt(len(english)) / self.deviation


ANY_LENGTH = Lengths(0.0, math.inf)


def usual_lengths(pairs: Mapping[str, str]) -> Lengths:
    if len(pairs) < FEWEST_LENGTHS:
        return ANY_LENGTH
    ratios = {english: math.log(len(translation) / len(english)) for english, translation in pairs.items()}
    middle = median(ratios.values())
    deviation = median(abs(ratio - middle) * math.sqrt(len(english)) for english, ratio in ratios.items())
    # 1.4826 times the median of absolute deviations estimates the standard deviation and ignores outliers.
    return Lengths(middle, max(1.4826 * deviation, LEAST_DEVIATION))


class Judgement(NamedTuple):
    """Result of judging translations into one language."""

    reasons: dict[str, str | None]  # English caption to the name of the check that rejects it; `None` if accepted
    lengths: Lengths  # usual length that the translations were compared with


def judge(pairs: Mapping[str, str | None], language: str, lengths: Lengths | None = None) -> Judgement:
    """
    Judge translations into one language.

    Args:
        pairs (`Mapping[str, str]`): English caption to its translation; `None` if it has none.
        language (`str`): Language code.
        lengths ([`Lengths`], *optional*): Usual length; by default measured on these translations.

    Raises:
        [`~rsmclip.core.errors.UserError`]: Lingua is not installed.
    """
    texts = {english: translation or "" for english, translation in pairs.items()}
    reasons = {english: first_objection(english, text, language) for english, text in texts.items()}
    passed = {english: text for english, text in texts.items() if reasons[english] is None}
    lengths = lengths or usual_lengths(passed)
    for english, text in passed.items():
        if lengths.distance(english, text) > WIDTH_OF_LENGTHS:
            reasons[english] = LENGTH
    return Judgement(reasons, lengths)


def first_objection(english: str, translation: str, language: str) -> str | None:
    return next((name for name, check in CHECKS.items() if check(english, translation, language)), None)


def doubt(english: str, translation: str, language: str, lengths: Lengths) -> float:
    """
    Return how close an accepted translation is to rejection, which is at 1.

    Doubt is the larger of the probability of other languages, and the difference from the usual length over its limit.
    """
    confidence = language_confidences(translation)[language]
    return max(1 - confidence, lengths.distance(english, translation) / WIDTH_OF_LENGTHS)
