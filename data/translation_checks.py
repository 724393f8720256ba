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

from rsmclip.data.schema import LANGUAGES

LANGUAGE_NAMES = {
    "en": "English", "pt": "Portuguese", "es": "Spanish", "fr": "French", "de": "German", "nl": "Dutch",
    "it": "Italian", "zh": "Chinese", "ko": "Korean", "ru": "Russian",
}  # fmt: skip
SCRIPTS = {"zh": "CJK", "ko": "HANGUL", "ru": "CYRILLIC"}  # as Unicode names letters; the other languages: LATIN

# What a chat model says around a translation: tokens of its template, an introduction, a remark, a label.
LABELS = "|".join(LANGUAGE_NAMES.values())
CHAT_RESIDUE = re.compile(
    r"<\|?/?(im_start|im_end|s|pad|unk|eot_id|assistant|user)\|?>|\[/?INST\]|^#+\s|```|^assistant\b"
    r"|^(sure|certainly|of course|here is|here's|as an ai|i'm sorry|i cannot|note:)\b"
    rf"|\b(translation|translated text|{LABELS})\s*[:：]"
    r"|^(tradução|traducción|traduction|übersetzung|vertaling|traduzione|перевод|翻译|译文|번역)\s*[:：]"
    r"|\((note|nota|anmerkung|opmerking|примечание)\b",
    re.IGNORECASE,
)

# Three times in a row, or twice where the part is long: what greedy decoding falls into. Chinese has no spaces, so its
# parts are of characters; elsewhere they are whole words ("golven en enkele" does not repeat "en").
REPETITION = re.compile(r"\b(\w[^\n]{0,60}?)(?:[\s,.;:!?]+\1\b){2}|\b(\w[^\n]{15,120}?)[\s,.;:!?]+\2\b")
REPETITION_IN_HAN = re.compile(r"(\w{2,30}?)(?:[\s，。、；]*\1){2}|(\w[^\n]{5,60}?)[\s，。、；]*\2")
TIMES_AS_LIKELY = 4  # is another language of a text that is rejected for it
WIDTH_OF_LENGTHS = 4.5  # standard deviations of the logarithm of the ratio of lengths
FEWEST_LENGTHS = 30  # translations from which a distribution can be told


def is_empty(english: str, translation: str, language: str) -> bool:
    """There is no letter."""
    return not any(map(str.isalpha, translation))


def has_chat_residue(english: str, translation: str, language: str) -> bool:
    """More than the translation: several lines, an introduction, a label, a remark, tokens of a chat template."""
    return "\n" in translation.strip() or bool(CHAT_RESIDUE.search(translation))


def is_untranslated_copy(english: str, translation: str, language: str) -> bool:
    """The English caption came back, perhaps with other punctuation. One word may be the same in both languages."""
    words = re.findall(r"\w+", english.lower())
    return len(words) > 1 and words == re.findall(r"\w+", translation.lower())


def is_in_wrong_script(english: str, translation: str, language: str) -> bool:
    """
    Letters of a script that is not the language's. Latin letters may stand in Han, Hangul and Cyrillic (a T-shaped
    building), where they are at most 30 %.
    """
    own = SCRIPTS.get(language, "LATIN")
    scripts = Counter(script_of(letter) for letter in translation if letter.isalpha())
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
    """A number in digits is missing. Separators of decimals and thousands may differ."""
    return bool(numbers(english) - numbers(translation))


def numbers(text: str) -> Counter:
    """Numbers in digits, without separators: 1,500 and 1.500 and 1 500 are 1500."""
    joined = re.sub(r"(?<=\d)[.,\u00a0\u202f ](?=\d)", "", unicodedata.normalize("NFKC", text))
    return Counter(re.findall(r"\d+", joined))


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


def length_bounds(pairs: Mapping[str, str]) -> tuple[float, float]:
    """
    Lowest and highest ratio of characters of translation to English that are usual among the pairs: the median of the
    logarithm and 4.5 robust standard deviations around it; no bounds where there are too few pairs to tell.
    """
    if len(pairs) < FEWEST_LENGTHS:
        return 0.0, math.inf
    ratios = [math.log(len(translation) / len(english)) for english, translation in pairs.items()]
    middle = median(ratios)
    deviation = 1.4826 * median(abs(ratio - middle) for ratio in ratios)  # of a normal distribution, from the MAD
    width = WIDTH_OF_LENGTHS * max(deviation, 0.1)  # captions after one template have hardly a deviation
    return math.exp(middle - width), math.exp(middle + width)


def judge(
    pairs: Mapping[str, str | None], language: str, bounds: tuple[float, float] | None = None
) -> dict[str, str | None]:
    """
    Judges translations into one language.

    Args:
        pairs (`Mapping[str, str]`): English caption to its translation, `None` where there is none.
        language (`str`): Language code.
        bounds (`tuple[float, float]`, *optional*):
            What [`length_bounds`] gave for other translations; by default, those of these translations.

    Returns:
        `dict[str, str | None]`: English caption to the name of the check that rejects it; `None` if accepted.

    Raises:
        `ImportError`: Lingua is not installed.
    """
    texts = {english: translation or "" for english, translation in pairs.items()}
    reasons = {english: first_objection(english, text, language) for english, text in texts.items()}
    passed = {english: text for english, text in texts.items() if reasons[english] is None}
    low, high = bounds or length_bounds(passed)
    for english, text in passed.items():
        if not low <= len(text) / len(english) <= high:
            reasons[english] = LENGTH
    return reasons


def first_objection(english: str, translation: str, language: str) -> str | None:
    """Name of the first check of one sentence that rejects a translation."""
    return next((name for name, check in CHECKS.items() if check(english, translation, language)), None)


def doubt(english: str, translation: str, language: str, bounds: tuple[float, float]) -> float:
    """
    How near an accepted translation is to being rejected: its length on the way from the middle of the bounds to
    their edge, or what language identification leaves to other languages, whichever is more.
    """
    low, high = bounds
    confidence = language_confidences(translation)[language]
    if not 0 < low < high < math.inf:
        return 1 - confidence
    middle, width = (math.log(high) + math.log(low)) / 2, (math.log(high) - math.log(low)) / 2
    return max(1 - confidence, abs(math.log(len(translation) / len(english)) - middle) / width)
