"""Checks of machine translations.

A check is a function of the English caption, its translation and the language code. It returns `True` to reject the
translation. The key of a check in `CHECKS` is the reason in reports. The last checks compare the length and
the end of a translation with those of the other translations into the language. `wording.py` has the letters and
words of each language.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from statistics import median
from string import ascii_lowercase
from typing import NamedTuple

from rsmclip.core.errors import extra
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.translation import wording
from rsmclip.data.translation.wording import WORDING

LANGUAGE_NAMES = {language: WORDING[language].name for language in LANGUAGES}
SCRIPTS = {"zh": "CJK", "ko": "HANGUL", "ru": "CYRILLIC"}  # Unicode's names of scripts; other languages are LATIN

# Characters of chat templates, Markdown and talk. Half a character decodes to the last one.
MARKS = frozenset("<>*#`{}[]|\\_~=()→?!\ufffd")
SYMBOLS = ("So", "Cc", "Co")  # Unicode's categories of pictures, control characters and private characters
PAIRS = ("()", "«»", "《》", "「」", "『』")
# An HTML entity, an address, two words to choose from, the first item of a list.
MARKUP = (
    r"&#?\w+;|https?:|www\.|[^\W\d][.。]?\s?/\s?[^\W\d](?<!\bkm/h)(?<!\bкм/ч)"
    r"|^\W*(\d{1,2}|[a-z])[.)、]\s|^\W*[-–—•·]\s"
)
MOJIBAKE = r"[ÃÂ][\x80-¿]|â€|√"  # UTF-8 that was read as Latin-1, Windows-1252 or Mac Roman
# In Chinese, Korean and Russian, Latin letters are single capitals ("S形路"), abbreviations, units or names.
LATIN_WORD = r"[A-Za-z][a-z]{3,}|[A-Z]{5,}"

# Greedy decoding may repeat a part of a sentence forever. A part may come twice in a row if it is short, never three
# times. It consists of whole words ("golven en enkele" does not repeat "en"), in Chinese of characters. Some words
# come twice in a row in right sentences: "Straßen, die die Felder teilen", "조금씩 조금씩", "一排一排".
REPETITION = re.compile(
    r"\b(\w[^\n]{0,60}?)(?:[\s,.;:!?]+\1\b){2}|\b(\w[^\n]{11,120}?)[\s,.;:!?]+\2\b"
    r"|\b(?!(?:nous|vous|die|der|das|dem|den|dat|\w*씩) )([^\W\d]+) \3\b"
    r"|\b([가-힣][^\n]{2,60}?)(?:[\s,.;:!?]+\4){2}|\b([가-힣][^\n]{5,60}?)[\s,.;:!?]+\5\b",
    re.IGNORECASE,
)
REPETITION_IN_HAN = re.compile(r"(?!一)([^\W\d]{2,30}?)\1|([^\W\d]{2,30}?)(?:\W*\2){2}|([^\W\d][^\n]{5,60}?)\W*\3")
# The same letters or signs in a row, and words whose letters are apart
REPEATED_SIGNS = re.compile(
    r"([^\W\d])\1{3,}|([^\W\d]{2,3})\2{3,}|([^\w\s.…])\3{2,}|[.…]{7,}|(?:\b[a-zà-ÿа-я] ){4}", re.IGNORECASE
)
TIMES_AS_LIKELY = 4  # reject if another language is more than four times as likely
# In captions of two or three words ("Campos em socalcos"), 12 times. One word ("Meer") may be in several languages.
FEWEST_WORDS, TIMES_AS_LIKELY_IF_FEWER = 4, 12
WIDTH_OF_LENGTHS = 4.0  # reject if the length differs from the usual length by more standard deviations
SHORTER = 0.9  # weight of missing characters: "it is a piece of bareland" may be one word
FEWEST_LENGTHS = 30  # with fewer translations, the usual length is unknown
ALMOST_ALL = 0.95  # if so many translations keep the full stop of the caption, one without it is cut off
# Captions from one template have almost no deviation. Captions of RSICD have 0.8 (Dutch) to 1.3 (Russian).
LEAST_DEVIATION = 1.2


def is_empty(english: str, translation: str, language: str) -> bool:
    """Return whether the translation has no letter."""
    return not any(map(str.isalpha, translation))


def has_chat_residue(english: str, translation: str, language: str) -> bool:
    """Return whether the text has several lines, marks of a template, a label, or words about the task."""
    text = translation.strip().replace("’", "'")
    plain = re.sub(r"(?<=\w)\s?~\s?(?=\d)", "-", unicodedata.normalize("NFKC", text))  # 3~4 is a range
    return "\n" in text or has_marks(english, plain) or has_label(english, plain) or talks(english, text, language)


def has_marks(english: str, text: str) -> bool:
    """Return whether the text has markup or symbols, new brackets, or only one of two quotation marks."""
    new = set(text) - set(english)
    symbols = {sign for sign in new - set("°№") if unicodedata.category(sign) in SYMBOLS}
    found = bool(new & MARKS or symbols) or (is_unpaired(text) and not is_unpaired(english))
    return found or bool(pattern(MARKUP).search(text) and not pattern(MARKUP).search(english))


def is_unpaired(text: str) -> bool:
    return any(text.count(first) != text.count(last) for first, last in PAIRS) or sum(map(text.count, '"“”„')) % 2 > 0


def has_label(english: str, text: str) -> bool:
    """Return whether the text before a new colon is no clause. After a clause, an explanation begins in lower case."""
    before, _, after = text.partition(":")
    words, after = re.split(r"[.!?。！？]\s?", before.strip())[-1], after.strip()
    is_clause = " " in words or len(re.findall(r"[\u3400-\u9fff]", words)) > 5
    return text.count(":") > english.count(":") and (not is_clause or not after or after[0].isupper())


def talks(english: str, text: str, language: str) -> bool:
    """Return whether a chat model talks about its task. A caption about people or words may have such words."""
    if pattern(wording.INTRODUCTION).search(text):
        return True
    own = WORDING[language].talk
    known = pattern(own) if language == "zh" else whole_words(own)
    found = known.search(text) or whole_words(wording.TALK).search(text)
    return bool(found) and not whole_words(wording.SPEAKS).search(english)


@cache
def pattern(text: str) -> re.Pattern:
    return re.compile(text, re.IGNORECASE)


def whole_words(text: str) -> re.Pattern:
    return pattern(rf"(?<![\w-])(?:{text})(?![\w-])")


def is_untranslated_copy(english: str, translation: str, language: str) -> bool:
    """Return whether caption and translation have equal words. One single word may be equal in both languages."""
    words = words_of(english)
    return len(words) > 1 and words == words_of(translation)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def is_in_wrong_script(english: str, translation: str, language: str) -> bool:
    """Return whether the translation has letters of a foreign script, other than in names from the English caption."""
    own = SCRIPTS.get(language, "LATIN")
    text = unicodedata.normalize("NFKC", without_names(english, translation))  # full-width letters, and the º of 1º
    scripts = {script_of(letter) for letter in text if letter.isalpha()}
    has_latin_words = own != "LATIN" and re.search(LATIN_WORD, text) is not None
    return bool(scripts - {own, "LATIN"}) or (bool(scripts) and own not in scripts) or has_latin_words


def without_names(english: str, text: str) -> str:
    """Remove the names of the English caption from a text: UCLA, or Boeing after another word."""
    for name in re.findall(r"\w*[A-Z]\w*[A-Z]\w*|(?<=\s)[A-Z]\w+", english):
        text = text.replace(name, "")
    return text


@cache
def script_of(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]  # LATIN, CJK, HANGUL, CYRILLIC


def has_foreign_letters(english: str, translation: str, language: str) -> bool:
    """Return whether the translation has letters that its language lacks, or letters in a wrong encoding."""
    text = unicodedata.normalize("NFKC", translation)
    names = (word for word in re.findall(r"\w+", text) if word[0].isupper())  # "São Paulo" in German
    others = set(filter(str.isalpha, text.lower())) - set(ascii_lowercase + english.lower() + "".join(names).lower())
    own = pattern(f"[{WORDING[language].letters}]")
    if re.search(MOJIBAKE, translation) and not re.search(MOJIBAKE, english):
        return True
    return any(not own.match(letter) or (language == "zh" and is_traditional(letter)) for letter in others)


@cache
def is_traditional(letter: str) -> bool:
    """Return whether a letter is in the character set of Taiwan and not in that of China, which lacks 瞭 and 昇."""
    in_taiwan, in_china = (bool(letter.encode(name, "ignore")) for name in ("big5", "gb2312"))
    return in_taiwan and not in_china and letter not in "瞭昇"


def has_english_words(english: str, translation: str, language: str) -> bool:
    """Return whether the translation has a word of the caption that exists in English only."""
    text = re.sub(wording.LOANS, "", without_names(english, translation).lower())
    given = set(re.findall(r"[a-zß-ž-]+", text))  # "Beach-Volleyball" is one word
    forms = {form for word in words_of(english) for form in (word, word + "s", word.removesuffix("s"))}
    return bool(given & (forms | set(wording.ENGLISH_ALWAYS.split())) & english_words(language))


@cache
def english_words(language: str) -> frozenset[str]:
    loans = WORDING[language].loans.split()
    return frozenset(f"{wording.ENGLISH_WORDS} {wording.ENGLISH_ALWAYS}".split()).difference(loans)


def has_lost_accents(english: str, translation: str, language: str) -> bool:
    """Return whether words lack their accents or umlauts."""
    plain = WORDING[language].plain
    found = whole_words(plain).finditer(translation) if plain else ()
    return any(match[0].lower() not in english.lower() for match in found)


def is_in_other_language(english: str, translation: str, language: str) -> bool:
    """Return whether a neighboring language is more than four times as likely."""
    # Short captions are ambiguous between related languages. For the Portuguese "Um rio seco fica em um deserto." the
    # detector gives 0.34 to Italian and 0.30 to Portuguese. The most likely language would reject right translations.
    words = len(translation.split())
    if words < 2 or set(WORDING[language].telling) & set(translation):
        return False
    times = TIMES_AS_LIKELY if words >= FEWEST_WORDS else TIMES_AS_LIKELY_IF_FEWER
    likely = language_confidences(translation, language)
    return max(likely.values()) > times * likely[language]


def language_confidences(text: str, language: str) -> dict[str, float]:
    """Return the probabilities of a language and its neighbors, by code."""
    neighbors = WORDING[language].neighbors.split()
    if not neighbors:  # the script alone identifies the language
        return {language: 1.0}
    found = language_detector(language, *neighbors).compute_language_confidence_values(text)
    return {confidence.language.iso_code_639_1.name.lower(): confidence.value for confidence in found}


@cache
def language_detector(*languages: str):
    with extra("translate"):
        from lingua import IsoCode639_1, LanguageDetectorBuilder
    codes = [getattr(IsoCode639_1, language.upper()) for language in languages]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()


def has_repeated_ngrams(english: str, translation: str, language: str) -> bool:
    """Return whether the translation repeats a part, and the English caption does not."""
    repetition = REPETITION_IN_HAN if language == "zh" else REPETITION
    found = repetition.search(translation) or REPEATED_SIGNS.search(translation)
    return bool(found) and not REPETITION.search(english)


def is_cut_off(english: str, translation: str, language: str) -> bool:
    """Return whether the translation ends with a comma or a word that cannot end a sentence, unlike the caption."""
    text, caption = translation.strip(" .。!"), english.strip(" .")
    words = text.split()
    is_pair = bool(set(words[-1:]) & set(words[-3:-1]))  # "una a una"
    return ends_open(text, language) and not is_pair and not ends_open(caption, "en")


def ends_open(text: str, language: str) -> bool:
    known = WORDING[language].open_ends
    return re.search(rf"[,;:、，；：–—-]$|(?:^|[\s'’]|(?<=[\u3400-\u9fff]))(?:{known})$", text) is not None


def loses_numbers(english: str, translation: str, language: str) -> bool:
    """Return whether the translation lacks a number in digits, or one of three to twelve in words."""
    # These may become other words: 1st, nine-hole, "three or four". "Two sides" may become "both sides".
    plain = re.sub(r"\d+(st|nd|rd|th)\b|[a-z]+-[a-z]+|[a-z]+ or [a-z]+", "", english)
    given = set(numbers(translation))
    lost = set(numbers(plain) - numbers(translation)) | spelled_numbers(plain, "en") - {"2"} - given
    return bool(lost - {"1"} - spelled_numbers(translation, language, loosely=True))


def has_other_numbers(english: str, translation: str, language: str) -> bool:
    """Return whether the translation has a number in digits that the caption lacks, or another number in words."""
    known = set(numbers(english)) | spelled_numbers(english, "en", loosely=True)
    digits, words = set(numbers(translation)), spelled_numbers(translation, language)
    if digits - known - {"1"} and not whole_words(wording.LARGE_NUMBERS).search(english):
        return True
    return bool(words - known) and bool(spelled_numbers(english, "en") - digits - words)


def numbers(text: str) -> Counter:
    # Convert to one notation: 1,500 and 1.500 and 1 500 are 1500; 3,5 is 3.5.
    found = Counter()
    spaced = unicodedata.normalize("NFKC", text)
    for number, myriads in re.findall(r"(\d+(?:[., ]\d{3}(?!\d))*(?:[.,]\d+)?)\s*([万만]?)", spaced):
        plain = re.sub(r"[., ](?=\d{3}(?!\d))", "", number).replace(",", ".")
        found[f"{float(plain) * (10_000 if myriads else 1):.6g}"] += 1
    return found


def spelled_numbers(text: str, language: str, loosely: bool = False) -> set[str]:
    """Return the numbers from 2 to 12 in words. Loosely, a longer word may begin with them, or imply them ("both")."""
    return {match.lastgroup[1:] for match in number_words(language, loosely).finditer(text)}


@cache
def number_words(language: str, loosely: bool) -> re.Pattern:
    # Numbers in Chinese come before measure words: 十字路口 and 四周 have no numbers.
    begin, end = (wording.NO_NUMERAL, wording.MEASURE_WORD) if language == "zh" else (r"(?<!\w)", r"(?!\w)")
    if loosely:
        begin, end = "" if language == "zh" else begin, ""
    known = WORDING[language]
    values = zip(range(2, 13), known.numbers.split(), (known.implied or known.numbers).split(), strict=True)
    groups = [f"(?P<n{value}>{words}{f'|{implied}' if loosely else ''})" for value, words, implied in values]
    return pattern(f"{begin}(?:{'|'.join(reversed(groups))}){end}")  # 十二 before 二


LENGTH, CUT_OFF = "length ratio", "cut off"
LONGEST = 5000  # characters; no caption is so long, and a check may take the square of the length
CHECKS: dict[str, Callable[[str, str, str], bool]] = {
    "empty": is_empty,
    "chat residue": has_chat_residue,
    "untranslated copy": is_untranslated_copy,
    "wrong script": is_in_wrong_script,
    "foreign letters": has_foreign_letters,
    "English words": has_english_words,
    "accents lost": has_lost_accents,
    "repeated n-grams": has_repeated_ngrams,
    CUT_OFF: is_cut_off,
    "numbers lost": loses_numbers,
    "other numbers": has_other_numbers,
    "other language": is_in_other_language,
}


class Lengths(NamedTuple):
    """
    Usual length and end of translations into a language, relative to English.

    The standard deviation of log(characters of the translation / characters of the caption) is proportional to
    1 / sqrt(characters of the caption) (Gale and Church 1993, section 3).
    """

    middle: float  # median of the logarithm
    deviation: float  # standard deviation of the logarithm for a caption of one character
    keeps_stop: bool = False  # whether almost all translations end with a sign if the caption ends with one

    def distance(self, english: str, translation: str) -> float:
        """Return the difference from the usual length, in standard deviations; `SHORTER` times if it is shorter."""
        difference = math.log(max(len(translation), 1) / len(english)) - self.middle
        return max(difference, -SHORTER * difference) * math.sqrt(len(english)) / self.deviation


ANY_LENGTH = Lengths(0.0, math.inf)


def usual_lengths(pairs: Mapping[str, str]) -> Lengths:
    if len(pairs) < FEWEST_LENGTHS:
        return ANY_LENGTH
    ratios = {english: math.log(len(translation) / len(english)) for english, translation in pairs.items()}
    middle = median(ratios.values())
    deviation = median(abs(ratio - middle) * math.sqrt(len(english)) for english, ratio in ratios.items())
    stops = [ends_with_sign(translation) for english, translation in pairs.items() if ends_with_sign(english)]
    keeps_stop = len(stops) >= FEWEST_LENGTHS and sum(stops) >= ALMOST_ALL * len(stops)
    # 1.4826 times the median of absolute deviations estimates the standard deviation and ignores outliers.
    return Lengths(middle, max(1.4826 * deviation, LEAST_DEVIATION), keeps_stop)


def ends_with_sign(text: str) -> bool:
    return not text.rstrip()[-1:].isalnum()


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
        elif lengths.keeps_stop and ends_with_sign(english) and not ends_with_sign(text):
            reasons[english] = CUT_OFF
    return Judgement(reasons, lengths)


def first_objection(english: str, translation: str, language: str) -> str | None:
    if max(len(english), len(translation)) > LONGEST:
        return LENGTH
    return next((name for name, check in CHECKS.items() if check(english, translation, language)), None)


def doubt(english: str, translation: str, language: str, lengths: Lengths) -> float:
    """
    Return how close an accepted translation is to rejection, which is at 1.

    Doubt is the larger of the probability of other languages, and the difference from the usual length over its limit.
    """
    confidence = language_confidences(translation, language)[language]
    return max(1 - confidence, lengths.distance(english, translation) / WIDTH_OF_LENGTHS)
