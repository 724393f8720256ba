"""The words of the Space in each of its languages, from `texts.yaml`."""

from itertools import islice
from pathlib import Path

import yaml

CONTENT = yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))
LANGUAGES: dict[str, str] = CONTENT["languages"]  # code: its own name
QUERIES: dict[str, dict[str, str]] = CONTENT["queries"]  # thing: language: name
SENTENCES: dict[str, str] = CONTENT["sentences"]  # language: a sentence with {} for a label
DEFAULT = "en"
LABELS = 8  # how many of QUERIES are prepared labels


def say(language: str, name: str, /, **values: object) -> str:
    """
    A text.

    Args:
        language (`str`): One of `LANGUAGES`.
        name (`str`): Which of `texts`.
        **values (`object`): What its words in braces stand for. Other braces stay.
    """
    text = CONTENT["texts"][name][language]
    for word, value in values.items():
        text = text.replace(f"{{{word}}}", str(value))
    return text


def prepared_labels(language: str) -> str:
    """The names of the first things of `QUERIES`, as one writes labels."""
    comma = "，" if language == "zh" else ", "
    return comma.join(names[language] for names in islice(QUERIES.values(), LABELS))


def preferred_language(accepted: str) -> str:
    """
    The language for a browser.

    Args:
        accepted (`str`): Its header `Accept-Language`, like `pt-BR,pt;q=0.9,en;q=0.8`.
    """
    weights = {}
    for entry in accepted.split(","):
        tag, _, weight = entry.partition(";")
        code = tag.strip().lower().split("-")[0]
        try:
            weights.setdefault(code, float(weight.strip().lower().removeprefix("q=") or 1))
        except ValueError:  # not a weight: whoever sends that gets no say
            continue
    known = [code for code in weights if code in LANGUAGES and weights[code] > 0]
    return max(known, key=weights.__getitem__, default=DEFAULT)
