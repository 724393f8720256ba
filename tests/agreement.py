"""Checkers of agreement, articles, contractions, numerals and particles, from the rules of each language.

They share nothing with the grammars of the demo, but know its words (`agreement.yaml`). `faults(language, sentence)`
returns a line for each fault.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
FORMS = [("m", "sg"), ("f", "sg"), ("m", "pl"), ("f", "pl")]  # of adjectives and determiners, in this order
Forms = dict[str, set[tuple[str, str]]]  # what a form of a word can be

FORBIDDEN = {  # missing contractions and elisions, wrong forms before a vowel
    "en": [r"\ba [aeiou]", r"\ban [^aeiou]"],
    # Both "num" and "em um" are right.
    "pt": [r"\b(de|em) (o|a|os|as)\b", r"\b(por|a) (o|os|as)\b", r"\bde (esta|este)\b"],
    "es": [r"\b(a|de) el\b", r"\by h?i", r"\bla agua\b"],
    "fr": [
        r"\b(le|la|de|se|ne|que|ce) [aeéèêiîou]",
        r"\b(la|de) herbe",
        r"\b[ldsn]'(?![aeéèêiîouh])",
        r"\b(à|de) les?\b",
    ],
    "it": [
        r"\b(di|a|da|in|su) (il|lo|la|i|gli|le|l')(?!\w)",
        r"\b(un|il|i|del|dei|nel|al|dal) (s[^aeiou]|z)",
        r"\b(uno|lo|gli|dello|degli) (?!s[^aeiou]|z)[^aeiou\W]",
        r"\b(una|la|lo|della|nella|alla|sulla|dalla|il|del|nel|al|dal|dei|i) [aeiou]",
    ],
}


def faults(language: str, sentence: str) -> list[str]:
    """Return a line for each fault that the checkers find in a sentence."""
    found = [re.search(rule, sentence, re.IGNORECASE) for rule in FORBIDDEN.get(language, [])]
    more = romance_faults(language, sentence) if language in ROMANCE else CHECKERS[language](sentence)
    return [*(f"not allowed: {match[0]}" for match in found if match), *more]


# Portuguese, Spanish, French, Italian
PREPOSITIONS = {"es": ("junto a", "ante"), "it": ("lungo strade", "presso strade")}  # of the form of an adjective
ELSEWHERE = {("el", "agua")}  # feminine, with el before a stressed a


def romance_faults(language: str, sentence: str) -> Iterator[str]:
    """Check adjectives and determiners beside a noun, and adjectives after "to be" that describe the first noun."""
    nouns, adjectives, determiners = ROMANCE[language]
    sentence = sentence.lower().replace(*PREPOSITIONS.get(language, ("", "")))
    words = re.findall(r"\w+'|[\w-]+", sentence)
    for place, noun in enumerate(words):
        if noun not in nouns or (noun in adjectives and words[place - 1] in nouns):
            continue
        before, after = place, place + 1
        while before and words[before - 1] in adjectives and words[before - 1] not in determiners:
            before -= 1
        while after < len(words) and words[after] in adjectives and words[after] not in nouns:
            after += 1
        beside = [*words[before:place], *words[place + 1 : after]]
        wanted = [adjectives[word] for word in beside]
        if before and words[before - 1] in determiners and (words[before - 1], noun) not in ELSEWHERE:
            wanted.append(determiners[words[before - 1]])
        described = [noun]  # in "pista de atletismo vermelha" the adjective describes the first noun
        if place > 1 and words[place - 1] in ("de", "di", "da") and words[place - 2] in nouns:
            described.append(words[place - 2])
        if not any(set.intersection(nouns[word], *wanted) for word in described):
            yield f"no agreement: {' '.join(words[max(before - 1, 0) : after])}"
    subject = next((nouns[word] for word in words if word in nouns), set(FORMS))
    adverbs = WORDS[language].get("adverbs", "").split()
    for place, word in enumerate(words):
        said = next((word for word in words[place + 1 :] if word not in adverbs), None)
        if word in WORDS[language]["to_be"].split() and said in adjectives and not adjectives[said] & subject:
            yield f"no agreement with the subject: {word} {said}"


def romance_words(language: str) -> tuple[Forms, Forms, Forms]:
    """Return nouns, adjectives and determiners: gender and number of every form."""
    facts = WORDS[language]
    nouns = (
        (form, (gender[0], number))
        for gender in ("masculine", "feminine")
        for word in facts[gender].split()
        for number, form in zip(("sg", "pl"), word.split("/"), strict=False)
    )
    adjectives = [romance_adjective(language, lemma) for lemma in facts["adjectives"].split()]
    adjectives += [[form] * 4 for form in facts.get("invariable", "").split()]
    determiners = (
        (form, what) for forms, what in zip(facts["determiners"], FORMS, strict=True) for form in forms.split()
    )
    pairs = ((form, what) for forms in adjectives for form, what in zip(forms, FORMS, strict=True))
    return collected(nouns), collected(pairs), collected(determiners)


def collected(pairs: Iterable[tuple[str, tuple[str, str]]]) -> Forms:
    found: Forms = {}
    for form, what in pairs:
        found.setdefault(form, set()).add(what)
    return found


def romance_adjective(language: str, lemma: str) -> list[str]:
    """Return the forms of an adjective in the order of `FORMS`."""
    masculine, _, feminine = lemma.partition("/")
    stem, last = lemma[:-1], lemma[-1]
    if language == "fr":
        feminine = feminine or (masculine if masculine.endswith("e") else masculine + "e")
        return [masculine, feminine, masculine if masculine[-1] in "sx" else masculine + "s", feminine + "s"]
    if lemma == "nu":
        return ["nu", "nua", "nus", "nuas"]
    if language == "it" and last == "o":
        hard = "h" if stem[-1] in "cg" else ""  # lungo, lunghi
        return [lemma, stem + "a", stem if stem[-1] == "i" else stem + hard + "i", stem + hard + "e"]
    if language == "it":
        return [lemma, lemma, stem + "i", stem + "i"]
    if last == "o":
        return [lemma, stem + "a", lemma + "s", stem + "as"]
    plural = lemma.replace("ón", "on") + ("s" if last in "aeiou" else "es")
    if language == "pt" and last in "lm":
        plural = stem + {"l": "is", "m": "ns"}[last]  # azul, azuis; marrom, marrons
    return [lemma, lemma, plural, plural]


ROMANCE = {language: romance_words(language) for language in ("pt", "es", "fr", "it")}


# German
CASES = ("nom", "acc", "dat", "gen")
CONTRACTED = {"im": "dem", "am": "dem", "ins": "das"}
GERMAN = WORDS["de"]
GERMAN_ADJECTIVE = rf"({GERMAN['adjectives'].replace(' ', '|')})(e[rsnm]?)?"


def german_faults(sentence: str) -> Iterator[str]:
    """Check article, adjectives and form of every noun, in the case that a preposition or verb wants."""
    words = re.findall(r"\w+", sentence)
    lower = [words[0][0].lower() + words[0][1:], *words[1:]]
    for place, noun in enumerate(words):
        if not (readings := german_readings(noun)):
            continue
        before = place
        while before and re.fullmatch(GERMAN_ADJECTIVE, lower[before - 1]):
            before -= 1
        first, second = [*lower[max(before - 2, 0) : before][::-1], "", ""][:2]
        article, numeral = CONTRACTED.get(first, first), first in GERMAN["numerals"].split()
        kinds = [kind for kind, columns in GERMAN["articles"].items() if article in " ".join(columns).split()]
        governor = first if first in CONTRACTED or not (kinds or numeral) else second
        wanted = (GERMAN["prepositions"].get(governor) or GERMAN["verbs"].get(governor) or " ".join(CASES)).split()
        if not any(
            case in wanted
            and (not kinds or GERMAN["articles"][kind][column].split()[CASES.index(case)] == article)
            and (not numeral or number_fits(first, column, case))
            and all(ending_fits(kind, column, case, word) for word in lower[before:place])
            for column, case in readings
            for kind in kinds or ["none"]
        ):
            yield f"wrong case or ending: {' '.join(words[max(before - 2, 0) : place + 1])}"


def german_readings(noun: str) -> set[tuple[int, str]]:
    """Return columns of the tables (three genders and plural) and cases that a form of a noun can have."""
    found = set()
    for column, gender in enumerate(("masculine", "feminine", "neuter")):
        for singular, genitive, plural in (entry.split("/") for entry in GERMAN[gender].split()):
            if noun == singular:
                found |= {(column, case) for case in (CASES if gender == "feminine" else CASES[:3])}
            if noun == genitive:
                found.add((column, "gen"))
            if noun == plural:
                found |= {(3, case) for case in CASES if case != "dat"}
            if noun == (plural if plural[-1] in "ns" else plural + "n"):
                found.add((3, "dat"))
    return found


def number_fits(number: str, column: int, case: str) -> bool:
    """Return whether a number above one fits: "viele" and "mehrere" have a dative of their own."""
    inflected = number.startswith(("viel", "mehr"))
    return column == 3 and (not inflected or (case == "dat") == number.endswith("n"))


def ending_fits(kind: str, column: int, case: str, adjective: str) -> bool:
    stem, ending = re.fullmatch(GERMAN_ADJECTIVE, adjective).groups()
    if ending is None:
        return stem in ("dicht", "locker", "kreisförmig")  # adverbs: "dicht bebautes Wohngebiet"
    kind = {"kein": "ein", "dieser": "der"}.get(kind, kind)
    return ending == GERMAN["endings"][kind][column].split()[CASES.index(case)]


def dutch_faults(sentence: str) -> Iterator[str]:
    """Check "de" and "het", the ending of colors, and the number of what is counted."""
    neuter, common, numbers = (WORDS["nl"][name].split() for name in ("het", "de", "numbers"))
    short, long = zip(*(color.split("/") for color in WORDS["nl"]["colors"].split()), strict=True)
    words = re.findall(r"[\w']+", sentence.lower())
    for word, following in itertools.pairwise(words):
        wrong_article = (word == "de" and following in neuter) or (word in ("het", "dit") and following in common)
        wrong_ending = (word in short and following not in neuter) or (word in long and following in neuter)
        if wrong_article or wrong_ending:
            yield f"no agreement: {word} {following}"
    for number, noun in re.findall(rf"\b({'|'.join(numbers)}) (?:\w+e )?([\w']+)", sentence.lower()):
        if noun in neuter + common:
            yield f"singular after a number: {number} {noun}"


# Russian
RUSSIAN = {entry.split()[1]: (entry.split()[0], entry.split()[1:]) for entry in WORDS["ru"]}  # gender and forms
ONE, FEW = {"один": "m", "одна": "f", "одно": "n"}, {"два": "mn", "две": "f", "три": "mfn", "четыре": "mfn"}
MANY = ("пять", "шесть", "семь", "восемь", "девять", "много", "множеством")
WITH_ONE = {"одним": "mn", "одной": "f"}
WITH_SOME = ("двумя", "тремя", "четырьмя", "пятью", "шестью", "семью", "восемью", "девятью")
SEEN = {"один": "виден", "одна": "видна"} | dict.fromkeys(FEW, "видны")  # "видно" of neuter things and of many
ENDINGS = {
    "m": "ый ий",
    "f": "ая яя",
    "n": "ое ее",
    "plural": "ые ие",
    "genitive": "ых их",
    "with": "ым им ой ей ыми ими",
}
INSTRUMENTAL = ("ом", "ем", "ой", "ей", "ью", "ым", "им", "ами", "ями", "мя", "ю")


def russian_faults(sentence: str) -> Iterator[str]:
    """Check gender and case of what a number counts, "is seen" before a number, and the instrumental after «с»."""
    words = re.findall(r"\w+", sentence.lower())
    for place, number in enumerate(words):
        if number not in (*ONE, *FEW, *MANY, *WITH_ONE, *WITH_SOME):
            continue
        noun = next((word for word in words[place + 1 : place + 4] if russian_readings(word)), None)
        end = words.index(noun, place) if noun else place
        if not any(counted_fits(number, *reading, words[place + 1 : end]) for reading in russian_readings(noun)):
            yield f"wrong form after a number: {' '.join(words[place : end + 1])}"
        seen = words[place - 1] if place else ""
        if seen.startswith("вид") and seen != SEEN.get(number, "видно"):
            yield f"no agreement: {seen} {number}"
    for after in re.findall(r"\bсо? (\w+)", sentence):
        if not after.endswith(INSTRUMENTAL):
            yield f"no instrumental after «с»: {after}"


def russian_readings(word: str | None) -> list[tuple[str, int]]:
    """Return gender and place (singular, after 2 to 4, after 5, instrumentals) of each noun that has a form."""
    return [(gender, forms.index(word)) for gender, forms in RUSSIAN.values() if word in forms]


def counted_fits(number: str, gender: str, form: int, adjectives: list[str]) -> bool:
    if number in ONE:
        right, endings = form == 0 and ONE[number] == gender, ENDINGS[gender]
    elif number in FEW:
        right, endings = form == 1 and gender in FEW[number], ENDINGS["genitive"]
        if gender == "f":
            endings += " " + ENDINGS["plural"]
    elif number in MANY:
        right, endings = form == 2, ENDINGS["genitive"]
    else:
        right, endings = (
            form == (3 if number in WITH_ONE else 4) and gender in WITH_ONE.get(number, gender),
            ENDINGS["with"],
        )
    return right and all(adjective.endswith(tuple(endings.split())) for adjective in adjectives)


def chinese_faults(sentence: str) -> Iterator[str]:
    """Check the classifier of every counted thing: 两 before it and not 二, and none after 许多."""
    things = WORDS["zh"]
    counted = rf"([一两三四五六七八九]|许多)([{''.join(things.values())}]?)(?:.色的)?({'|'.join(things)})"
    for number, classifier, thing in re.findall(counted, sentence):
        if classifier != ("" if number == "许多" else things[thing]):
            yield f"wrong classifier: {number}{classifier} {thing}"
    if re.search(r"二|的的|，，|[一两三四五六七八九].色", sentence):
        yield "二, 的的 or no classifier"


def korean_faults(sentence: str) -> Iterator[str]:
    """Check the form of every particle, the counter of every counted thing, and native numerals before counters."""
    for word, particle in re.findall(r"([가-힣]*[가-힣])([이가은는을를과와])(?![가-힣])", sentence):
        pair = next(pair for pair in ("이가", "은는", "을를", "과와") if particle in pair)
        after_vowel = (ord(word[-1]) - ord("가")) % 28 == 0
        if word + particle not in NO_PARTICLE and particle != pair[after_vowel]:
            yield f"wrong particle: {word}{particle}"
    things = WORDS["ko"]
    for thing, counter in re.findall(rf"({'|'.join(things)}) (?:[한두세네]|[다여일아][섯덟곱홉]) (\w)", sentence):
        if counter != things[thing]:
            yield f"wrong counter: {thing} {counter}"
    if re.search(rf"\b(하나|둘|셋|넷|[일이삼사오육칠팔구]) ({'|'.join(things.values())})", sentence):
        yield "no native numeral before a counter"


NO_PARTICLE = ("있는", "없는")  # adjectives that end like a word with a particle


def english_faults(sentence: str) -> Iterator[str]:
    """Check the number of what is counted."""
    numbers = "one|two|three|four|five|six|seven|eight|nine|many"
    colors = "white|grey|black|red|blue|green|yellow|brown|circular|solar"
    for number, noun in re.findall(rf"\b({numbers}) (?:(?:{colors}) )*(\w+)", sentence.lower()):
        if (noun in WORDS["en"].split()) != (number != "one"):
            yield f"wrong number: {number} {noun}"


CHECKERS = {
    "en": english_faults,
    "de": german_faults,
    "nl": dutch_faults,
    "zh": chinese_faults,
    "ko": korean_faults,
    "ru": russian_faults,
}
