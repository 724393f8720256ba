"""Measure how many right translations the checks accept, and how many wrong and spoiled ones they reject.

    python -m rsmclip.benchmarks.translation_checks --translations DIR [--wrong DIR] --output FILE

The folder of `--translations` contains `*.jsonl` files with right translations, `{"en": …, "pt": …}` a line. Captions
without all languages are left out. For each way of spoiling, one in 25 translations is spoiled and judged with
the others. The folder of `--wrong` contains wrong ones, `{"language": "pt", "fault": …, "en": …, "text": …}` a line.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time

from rsmclip.benchmarks.machine import describe_run
from rsmclip.data.sources.protocol import read_json_lines
from rsmclip.data.translation.checks import judge, usual_lengths
from rsmclip.data.translation.translations import read_translations

INTRODUCTIONS = {
    "pt": "Claro! Aqui está a tradução: ",
    "es": "La traducción es: ",
    "fr": "Voici la traduction : ",
    "de": "Gerne, hier ist die Übersetzung: ",
    "nl": "Natuurlijk! De vertaling is: ",
    "it": "Ecco la traduzione: ",
    "zh": "以下是翻译：",
    "ko": "번역은 다음과 같습니다: ",
    "ru": "Вот перевод: ",
}
ONE_IN = 25  # translations is spoiled
Texts = Mapping[str, Mapping[str, str]]
WAYS: dict[str, Callable[[random.Random, Texts, str, str], str]] = {
    "English came back": lambda rng, texts, english, language: english,
    "another language": lambda rng, texts, english, language: texts[english][
        rng.choice([code for code in texts[english] if code != language])
    ],
    "an introduction before it": lambda rng, texts, english, language: f"Sure! {texts[english][language]}",
    "one in its own language": lambda rng, texts, english, language: (
        INTRODUCTIONS[language] + texts[english][language]
    ),
    "its beginning four times": lambda rng, texts, english, language: repeated_beginning(texts[english][language]),
    "itself twice": lambda rng, texts, english, language: " ".join([texts[english][language]] * 2),
    "two other sentences after it": lambda rng, texts, english, language: " ".join(
        texts[text][language] for text in (english, *rng.sample(list(texts), 2))
    ),
    "its second half missing": lambda rng, texts, english, language: first_half(texts[english][language]),
}


def repeated_beginning(text: str) -> str:
    """Repeat the first three words, or four characters of Chinese, four times."""
    return " ".join(text.split()[:3] * 4) if " " in text else text[:4] * 4


def first_half(text: str) -> str:
    return text[: len(text) // 2]


def measure(texts: Texts, language: str, seed: int) -> dict:
    """Count accepted translations into a language, and measure the rejected part of spoiled ones in percent."""
    pairs = translations_into(language, texts)
    judge(pairs, language)  # loads the language models
    start = process_time()
    right = Counter(judge(pairs, language).reasons.values())
    cost = round(1000 * (process_time() - start) / len(pairs), 3)
    result = {"translations": len(pairs), "accepted": right.pop(None, 0), "rejected": dict(right), "ms each": cost}
    result["found"] = {}
    for way, spoil in WAYS.items():
        rng = random.Random(f"{seed} {language} {way}")
        spoiled = rng.sample(sorted(pairs), max(1, len(pairs) // ONE_IN))
        judged = judge(pairs | {text: spoil(rng, texts, text, language) for text in spoiled}, language).reasons
        result["found"][way] = round(100 * sum(judged[text] is not None for text in spoiled) / len(spoiled), 1)
    return result


def translations_into(language: str, texts: Texts) -> dict[str, str]:
    return {english: known[language] for english, known in texts.items()}


def find_faults(path: Path, texts: Texts) -> dict[str, str]:
    """Count the wrong translations in a file that the checks reject, by fault: "found of all"."""
    wrong = [line for _, line in read_json_lines(path)]
    usual = {code: usual_lengths(translations_into(code, texts)) for code in {line["language"] for line in wrong}}
    found: dict[str, list[bool]] = {}
    for line in wrong:
        language, english = line["language"], line["en"]
        reason = judge({english: line["text"]}, language, usual[language]).reasons[english]
        found.setdefault(line["fault"], []).append(reason is not None)
    found["all"] = [each for known in found.values() for each in known]
    return {fault: f"{sum(each)} of {len(each)}" for fault, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--translations", type=Path, required=True, metavar="DIR", help="folder of right translations")
    parser.add_argument("--wrong", type=Path, metavar="DIR", help="folder of wrong translations")
    parser.add_argument("--seed", type=int, default=0, help="seed of the spoiling (defaults to 0)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    arguments = parser.parse_args()
    given = read_translations(arguments.translations, "*.jsonl")
    languages = sorted({language for known in given.values() for language in known})
    texts = {english: known for english, known in given.items() if len(known) == len(languages)}
    if len(languages) < 2 or len(texts) < 10:
        parser.error(f"{arguments.translations} needs at least ten captions, each in the same two or more languages")
    results = {language: measure(texts, language, arguments.seed) for language in languages}
    mean = {way: round(sum(found["found"][way] for found in results.values()) / len(results), 1) for way in WAYS}
    files = sorted(arguments.wrong.glob("*.jsonl")) if arguments.wrong else []
    wrong = {path.stem: find_faults(path, texts) for path in files}
    folders = f"--translations DIR {'--wrong DIR ' if files else ''}--seed {arguments.seed}"
    command = f"python -m rsmclip.benchmarks.translation_checks {folders} --output FILE"
    run = describe_run(command, "lingua-language-detector")
    report = {**run, "languages": results, "found, mean over languages": mean, "wrong translations found": wrong}
    arguments.output.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"found, mean over languages": mean, "wrong translations found": wrong}, indent=2))


if __name__ == "__main__":
    main()
