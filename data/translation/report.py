"""Reports of translations, for a person to read: how many were accepted, why others were not, and examples."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from rsmclip.core.files import write_whole
from rsmclip.data.schema import LANGUAGES
from rsmclip.data.translation.checks import CHECKS, LANGUAGE_NAMES, LENGTH, Lengths, doubt

SHOWN = 20
NOT_TRANSLATED = "not translated yet"


def acceptance_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """
    Accepted and rejected translations by language, in Markdown.

    Args:
        counts (`Mapping[str, Mapping[str, int]]`): For each language `accepted` and the names of checks to numbers.
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
    Writes the report of one language.

    Args:
        path (`Path`): Markdown file to write.
        language (`str`): Language code.
        accepted (`Mapping[str, str]`): English caption to translation.
        rejected (`Mapping[str, tuple[str, str]]`): English caption to greedy translation and why it was rejected.
        counts (`Mapping[str, int]`): `accepted` and the names of checks to numbers.
        lengths ([`~rsmclip.data.translation.checks.Lengths`]): The lengths they were judged by.
    """
    doubts = {text: doubt(text, given, language, lengths) for text, given in accepted.items()}
    worst = sorted(doubts, key=lambda text: (-doubts[text], text))[:SHOWN]
    drawn = random.Random(0).sample(sorted(accepted), min(SHOWN, len(accepted)))
    refused = random.Random(0).sample(sorted(rejected), min(SHOWN, len(rejected)))
    parts = [
        f"# Translations into {LANGUAGE_NAMES[language]}",
        acceptance_table({language: counts}),
        f"## {len(worst)} worst of the accepted",
        "Doubt is 1 where a translation would be rejected, by its length or by the language it seems to be in.",
        table(["English", LANGUAGE_NAMES[language], "doubt"], [(t, accepted[t], f"{doubts[t]:.2f}") for t in worst]),
        f"## {len(drawn)} at random",
        table(["English", LANGUAGE_NAMES[language]], [(text, accepted[text]) for text in drawn]),
        f"## {len(refused)} of the rejected, at random",
        table(["English", "rejected twice; the first answer", "why"], [(text, *rejected[text]) for text in refused]),
    ]
    write_whole(path, "\n\n".join(parts) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whatever is in its cells."""
    if not rows:
        return "None."
    cells = [[" ".join(text.split()).replace("|", "\\|") for text in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells)]
    return "\n".join(lines)
