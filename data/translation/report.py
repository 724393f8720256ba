"""Markdown reports of translations: numbers and examples of accepted and rejected translations."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from rsmclip.core.files import write_whole
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.translation.checks import CHECKS, LANGUAGE_NAMES, LENGTH, Lengths, doubt

SHOWN = 20  # examples per table
NOT_TRANSLATED = "not translated yet"


def acceptance_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """
    Return a Markdown table of accepted and rejected translations by language.

    `counts` maps a language code to numbers, by `accepted` and by the name of the check that rejects.
    """
    known = (*CHECKS, LENGTH, NOT_TRANSLATED)
    reasons = [name for name in known if any(found.get(name) for found in counts.values())]
    header = ["language", "sentences", "accepted", "%", *reasons]
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1)]
    for language in (code for code in LANGUAGES if code in counts):
        found = counts[language]
        total, accepted = sum(found.values()), found.get("accepted", 0)
        numbers = [f"{total:,}", f"{accepted:,}", f"{100 * accepted / max(total, 1):.1f}"]
        lines.append(f"| {language} | {' | '.join([*numbers, *(f'{found.get(name, 0):,}' for name in reasons)])} |")
    return "\n".join(lines)


def write_report(
    path: Path,
    language: str,
    accepted: Mapping[str, str],
    rejected: Mapping[str, tuple[str, str]],
    counts: Mapping[str, int],
    lengths: Lengths,
) -> None:
    """
    Write the report of one language to a Markdown file.

    `accepted` maps an English caption to its translation. `rejected` maps it to the greedy translation and the reason.
    """
    doubts = {text: doubt(text, given, language, lengths) for text, given in accepted.items()}
    worst = sorted(doubts, key=lambda text: (-doubts[text], text))[:SHOWN]
    drawn = random.Random(0).sample(sorted(accepted), min(SHOWN, len(accepted)))
    refused = random.Random(0).sample(sorted(rejected), min(SHOWN, len(rejected)))
    name = LANGUAGE_NAMES[language]
    parts = [
        f"# Translations into {name}",
        acceptance_table({language: counts}),
        f"## The {len(worst)} most doubtful accepted translations",
        "Doubt grows with an unusual length and with the probability of other languages. The limit is 1.",
        table(["English", name, "doubt"], [(text, accepted[text], f"{doubts[text]:.2f}") for text in worst]),
        f"## {len(drawn)} random accepted translations",
        table(["English", name], [(text, accepted[text]) for text in drawn]),
        f"## {len(refused)} random rejected translations",
        table(["English", "first of two rejected answers", "reason"], [(text, *rejected[text]) for text in refused]),
    ]
    write_whole(path, "\n\n".join(parts) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "None."
    cells = [[" ".join(text.split()).replace("|", "\\|") for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells))
