"""The words of the Space in each of its languages, read from `texts.yaml`."""

import re
from itertools import islice
from pathlib import Path

import yaml

CONTENT = yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))
LANGUAGES: dict[str, str] = CONTENT["languages"]  # code: name of the language in that language
QUERIES: dict[str, dict[str, str]] = CONTENT["queries"]  # thing: language: name
SENTENCES: dict[str, str] = CONTENT["sentences"]  # language: a sentence with {} in place of the label
DEFAULT = "en"
LABELS = 8  # the first entries of QUERIES are the prepared labels


def say(language: str, name: str, /, **values: object) -> str:
    """
    Return the text `name` of `texts.yaml` in a language.

    `values` replace the words in braces. Other braces are left unchanged.
    """
    text = CONTENT["texts"][name][language]
    for word, value in values.items():
        text = text.replace(f"{{{word}}}", str(value))
    return text


def prepared_labels(language: str) -> str:
    """Return the names of the first `LABELS` things of `QUERIES` in one language, separated by commas."""
    comma = "，" if language == "zh" else ", "
    return comma.join(names[language] for names in islice(QUERIES.values(), LABELS))


def preferred_language(accepted: str) -> str:
    """Return the first known language of a header `Accept-Language`, such as `pt-BR,pt;q=0.9,en;q=0.8`."""
    codes = [re.split("[-;]", entry.strip().lower())[0] for entry in accepted.split(",")]  # the preferred one first
    return next((code for code in codes if code in LANGUAGES), DEFAULT)
