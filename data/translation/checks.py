"""Judges machine translations: small checks, each with the name under which its rejections are reported.

A check takes the English caption, its translation and the language, and is true if the translation is to be rejected.
All but one look at one sentence; the length is judged against that of the other translations into the language.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from statistics import median
from typing import NamedTuple

from rsmclip.data.schema import LANGUAGES

LANGUAGE_NAMES = {
    "en": "English", "pt": "Portuguese", "es": "Spanish", "fr": "French", "de": "German", "nl": "Dutch",
    "it": "Italian", "zh": "Chinese", "ko": "Korean", "ru": "Russian",
}  # fmt: skip
SCRIPTS = {"zh": "CJK", "ko": "HANGUL", "ru": "CYRILLIC"}  # as Unicode names letters; the other languages: LATIN

# What a chat model says around a translation: an introduction, and marks of a template or of Markdown. "Voici" alone
# is none: captions begin with "Here is a river" and "This is a river", right translations with "Voici une rivière".
INTRODUCTION = re.compile(
    r"^\W*(sure|certainly|of course|here is|here's|as an ai|i'm sorry|i cannot|assistant\b|note\b"
    r"|claro|com certeza|por supuesto|desde luego|bien sûr|certainement"
    r"|natürlich|gerne|selbstverständlich|natuurlijk|uiteraard"
    r"|(aqui está|aquí está|voici|hier ist|hier is|ecco)( \w+){0,3} (tradu|übersetzung|vertaling)\w*"
    r"|certo|certamente|конечно|разумеется|вот перевод)\b"
    r"|^\W*(当然|好的|以下是|물론|다음은)"  # a word may go on: 当然可以, 물론입니다
    r"|\((note|nota|anmerkung|opmerking|remarque|примечание)\b",
    re.IGNORECASE,
)
MARKS = frozenset("<>*#`{}[]|\\_~=\ufffd")  # the last is what half a character decodes to

# Three times in a row, or twice where the part is long: what greedy decoding falls into. Chinese has no spaces, so its
# parts are of characters; elsewhere they are whole words ("golven en enkele" does not repeat "en").
REPETITION = re.compile(r"\b(\w[^\n]{0,60}?)(?:[\s,.;:!?]+\1\b){2}|\b(\w[^\n]{15,120}?)[\s,.;:!?]+\2\b")
REPETITION_IN_HAN = re.compile(r"([^\W\d]{2,30}?)(?:[\s，。、；]*\1){2}|([^\W\d][^\n]{5,60}?)[\s，。、；]*\2")
TIMES_AS_LIKELY = 4  # is another language of a text that is rejected for it
WIDTH_OF_LENGTHS = 4.0  # standard deviations
FEWEST_LENGTHS = 30  # translations from which a distribution can be told
LEAST_DEVIATION = 1.2  # captions after one template hardly scatter; those of RSICD do by 0.8 (Dutch) to 1.3 (Russian)


def is_empty(english: str, translation: str, language: str) -> bool:
    """There is no letter."""
    return not any(map(str.isalpha, translation))


def has_chat_residue(english: str, translation: str, language: str) -> bool:
    """More than the translation: several lines, an introduction, a label with a colon, marks of a template."""
    text = translation.strip().replace("’", "'")
    new = set(unicodedata.normalize("NFKC", text)) - set(english)
    return "\n" in text or ":" in new or bool(new & MARKS) or bool(INTRODUCTION.search(text))


def is_untranslated_copy(english: str, translation: str, language: str) -> bool:
    """The English caption came back, perhaps with other punctuation. One word may be the same in both languages."""
    words = re.findall(r"\w+", english.lower())
    return len(words) > 1 and words == re.findall(r"\w+", translation.lower())


def is_in_wrong_script(english: str, translation: str, language: str) -> bool:
    """
    Letters of a script that is not the language's. Latin letters may stand in Han, Hangul and Cyrillic (a T-shaped
    building), where they are at most 30 %, names of the English caption not counted.
    """
    own = SCRIPTS.get(language, "LATIN")
    text = unicodedata.normalize("NFKC", translation)  # full-width letters, and the º of an ordinal number
    for name in re.findall(r"\w*[A-Z]\w*[A-Z]\w*|(?<=\s)[A-Z]\w+", english):  # Boeing, but not the first word
        text = text.replace(name, "")
    scripts = Counter(script_of(letter) for letter in text if letter.isalpha())
    foreign = sum(scripts.values()) - scripts[own] - scripts["LATIN"] * (own != "LATIN")
    return foreign > 0 or scripts[own] < 0.7 * sum(scripts.values())


@cache
def script_of(letter: str) -> str:
    """First word of a letter's name in Unicode: LATIN, CJK, HANGUL, CYRILLIC."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


def is_in_other_language(english: str, translation: str, language: str) -> bool:
    """
    Another of the ten languages is four times as likely. Short captions are ambiguous between neighbours ("Um rio seco
    fica em um deserto." is Italian by 0.34 to 0.30), so the likeliest language alone would reject right ones.
    """
    if language in SCRIPTS:  # none of the others is written so
        return False
    likely = language_confidences(translation)
    return max(likely.values()) > TIMES_AS_LIKELY * likely[language]


def language_confidences(text: str) -> dict[str, float]:
    """How likely a text is in each of the ten languages."""
    found = language_detector().compute_language_confidence_values(text)
    return {confidence.language.iso_code_639_1.name.lower(): confidence.value for confidence in found}


@cache
def language_detector():
    """Lingua's detector of the ten languages."""
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder
    except ImportError as error:
        raise ImportError("checking translations needs lingua: pip install -e '.[translate]'") from error
    codes = [getattr(IsoCode639_1, language.upper()) for language in LANGUAGES]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def has_repeated_ngrams(english: str, translation: str, language: str) -> bool:
    """A part comes three times in a row, or a long one twice, and nothing like it does in English."""
    repetition = REPETITION_IN_HAN if language == "zh" else REPETITION
    return bool(repetition.search(translation)) and not REPETITION.search(english)


def loses_numbers(english: str, translation: str, language: str) -> bool:
    """A number in digits is missing. Separators of decimals and thousands may differ, and 30万 is 300,000."""
    return bool(numbers(english) - numbers(translation))


def numbers(text: str) -> Counter:
    """Numbers in digits, in one notation: 1,500 and 1.500 and 1 500 are 1500; 3,5 is 3.5."""
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
    How long translations into a language usually are.

    The logarithm of the ratio of characters scatters the more the shorter the caption: like one over the square root
    of its length (Gale and Church 1993, section 3).

    Args:
        middle (`float`): Median of the logarithm of the ratio of translation to English.
        deviation (`float`): Its standard deviation, for a caption of one character.
    """

    middle: float
    deviation: float

    def distance(self, english: str, translation: str) -> float:
        """Standard deviations between the length of a translation and the usual one."""
        ratio = math.log(max(len(translation), 1) / len(english))
        return abs(ratio - self.middle) * math.sqrt(len(english)) / self.deviation


ANY_LENGTH = Lengths(0.0, math.inf)


def usual_lengths(pairs: Mapping[str, str]) -> Lengths:
    """How long the translations of the pairs are; any length, where there are too few pairs to tell."""
    if len(pairs) < FEWEST_LENGTHS:
        return ANY_LENGTH
    ratios = {english: math.log(len(translation) / len(english)) for english, translation in pairs.items()}
    middle = median(ratios.values())
    deviation = median(abs(ratio - middle) * math.sqrt(len(english)) for english, ratio in ratios.items())
    # Robust, from the median; not below what other captions have, for those after one template hardly scatter.
    return Lengths(middle, max(1.4826 * deviation, LEAST_DEVIATION))


class Judgement(NamedTuple):
    """
    Translations into one language, judged.

    Args:
        reasons (`dict[str, str | None]`):
            English caption to the name of the check that rejects its translation; `None` if accepted.
        lengths ([`Lengths`]):
            The lengths they were judged by.
    """

    reasons: dict[str, str | None]
    lengths: Lengths


def judge(pairs: Mapping[str, str | None], language: str, lengths: Lengths | None = None) -> Judgement:
    """
    Judges translations into one language.

    Args:
        pairs (`Mapping[str, str]`): English caption to its translation, `None` where there is none.
        language (`str`): Language code.
        lengths ([`Lengths`], *optional*): Usual lengths; by default, those of these translations.

    Returns:
        [`Judgement`]

    Raises:
        `ImportError`: Lingua is not installed.
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
    """Name of the first check of one sentence that rejects a translation."""
    return next((name for name, check in CHECKS.items() if check(english, translation, language)), None)


def doubt(english: str, translation: str, language: str, lengths: Lengths) -> float:
    """
    How near an accepted translation is to being rejected: how far its length is on the way to being unusual, or what
    language identification leaves to other languages, whichever is more.
    """
    confidence = language_confidences(translation)[language]
    return max(1 - confidence, lengths.distance(english, translation) / WIDTH_OF_LENGTHS)
