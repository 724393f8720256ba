"""The dataset card of a corpus, made from what its build saw: sources, splits, languages, lengths, translation, faults
and, once it has run, the leakage audit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, hf_hub_download
from huggingface_hub.errors import HTTPError  # of the HTTP client, which differs between versions of huggingface_hub

from rsmclip.data.faults import SPLITS, fault_table
from rsmclip.data.schema import LANGUAGES
from rsmclip.data.sources import Source
from rsmclip.data.translation.report import acceptance_table
from rsmclip.data.translation.translations import Translations

if TYPE_CHECKING:
    from rsmclip.data.build import BuildReport

SOURCES_HEADING, TRANSLATION_HEADING = "Sources", "Translation"
SPLITS_HEADING, LENGTHS_HEADING, AUDIT_HEADING = "Splits and languages", "Length of the captions", "Leakage audit"
NOT_AUDITED = "Not run: `python -m rsmclip.data audit DIR --output REPORT.json`."
BAR = 40  # characters of the longest bar of the histogram


def corpus_card(sources: Sequence[Source], report: BuildReport, translations: Translations) -> DatasetCard:
    """
    The dataset card of a corpus that has just been written.

    Args:
        sources (`Sequence[Source]`): What it is made of.
        report ([`~rsmclip.data.build.BuildReport`]): What the build saw.
        translations ([`~rsmclip.data.translation.translations.Translations`]): What it was joined with.
    """
    languages = [code for code in LANGUAGES if any(report.captions[split, code] for split in SPLITS)]
    metadata = DatasetCardData(
        language=languages,
        license="other",
        license_name="see-sources",
        task_categories=["zero-shot-image-classification", "image-to-text"],
        tags=["remote-sensing", "image-captioning"],
    )
    sections = {
        SOURCES_HEADING: source_section(sources),
        **counted_sections(report),
        TRANSLATION_HEADING: translation_section(translations),
        "Left out": f"```\n{fault_table(report.faults)}\n```" if report.faults else "Nothing.",
        AUDIT_HEADING: NOT_AUDITED,
    }
    text = (
        f"# Captions of {', '.join(dict.fromkeys(source.name for source in sources))} in {', '.join(languages)}\n\n"
        "One row per image. `captions` holds a list for each language, aligned with each other; a caption without an "
        "accepted translation is null. `raw_captions` are the English captions as published; in `captions` white "
        "space is folded and there is none before punctuation. Made by `python -m rsmclip.data build`.\n"
    )
    text += "".join(f"\n## {heading}\n\n{body}\n" for heading, body in sections.items())
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")


def source_section(sources: Sequence[Source]) -> str:
    """Licence and citation of every source."""
    licences = {source.name: source.licence or "none stated" for source in sources}
    citations = {source.name: source.citation for source in sources if source.citation}
    lines = ["| source | licence |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in licences.items())]
    lines += ["", "Images and captions stay under the terms of their sources. Where none are stated, ask the authors "]
    lines[-1] += "before you publish them again. Please cite:" if citations else "before you publish them again."
    return "\n".join([*lines, "", *(f"- {name}: {text}" for name, text in citations.items())]).rstrip()


def counted_sections(report: BuildReport) -> dict[str, str]:
    """The sections of a card that depend on which rows there are."""
    by_source = Counter()
    for (source, _), count in report.rows.items():
        by_source[source] += count
    sources = ", ".join(f"{name} {count:,}" for name, count in by_source.items())
    tables = f"Official splits. Images, and captions in each language:\n\n{split_table(report)}\n\nImages by source: "
    return {
        SPLITS_HEADING: f"{tables}{sources}.",
        LENGTHS_HEADING: f"English captions by their number of words:\n\n```\n{histogram(report.words)}\n```",
    }


def split_table(report: BuildReport) -> str:
    """Rows and captions per split and language, in Markdown."""
    languages = [code for code in LANGUAGES if any(language == code for _, language in report.captions)]
    lines = [f"| split | images | {' | '.join(languages)} |", "| --- |" + " ---: |" * (len(languages) + 1)]
    for split in dict.fromkeys((*SPLITS, *(split for _, split in report.rows))):
        images = sum(count for (_, found), count in report.rows.items() if found == split)
        counts = [f"{report.captions[split, language]:,}" for language in languages]
        lines += [f"| {split} | {images:,} | {' | '.join(counts)} |"] if images else []
    return "\n".join(lines)


def histogram(words: Counter, width: int = 5) -> str:
    """How many captions have how many words, in bars of text."""
    if not words:
        return "none"
    bins: Counter = Counter()
    for length, count in words.items():
        bins[min(length, 40) // width] += count
    longest = max(bins.values())
    lines = []
    for number in range(max(bins) + 1):
        first = number * width
        label = f"{max(first, 1)}-{first + width - 1}" if first < 40 else "40 and more"
        bar = "#" * round(BAR * bins[number] / longest)
        lines.append(f"{label:>11} words  {bar:<{BAR}}  {bins[number]:>9,}".rstrip())
    return "\n".join(lines)


def translation_section(translations: Translations) -> str:
    """Who translated, and how many translations were accepted."""
    if not translations.counts:
        return "None: the captions are in English."
    origin = "Ready translations; what made them is not on record."
    if translations.model:
        origin = f"By `{translations.model}`, revision `{translations.revision}`."
    return (
        f"{origin} Distinct English captions, and how many of their translations were accepted or rejected by which "
        f"check of `rsmclip.data.translation.checks`:\n\n{acceptance_table(translations.counts)}"
    )


def with_sections(text: str, sections: Mapping[str, str]) -> str:
    """The text of a card with some of its sections replaced, or added at the end."""
    for heading, body in sections.items():
        pattern = rf"^## {re.escape(heading)}$.*?(?=^## |\Z)"
        section = f"## {heading}\n\n{body}\n\n"
        text, found = re.subn(pattern, lambda _, section=section: section, text, flags=re.MULTILINE | re.DOTALL)
        text = text if found else f"{text.rstrip()}\n\n{section}"
    return text.rstrip() + "\n"


def recorded_facts(dataset: str, revision: str | None = None) -> dict[str, str | None]:
    """
    What the card of a corpus says of where it comes from, for the cards of models that learn from it.

    Args:
        dataset (`str`): Folder or Hub id of the corpus.
        revision (`str`, *optional*): Branch, tag or commit of a Hub id.

    Returns:
        `dict[str, str | None]`: `license`, its identifier; and the sections `sources`, `splits`, `translation` and
        `audit` in Markdown. `None` where the card says nothing, or there is none that can be read.
    """
    headings = {"sources": SOURCES_HEADING, "splits": SPLITS_HEADING, "translation": TRANSLATION_HEADING}
    headings["audit"] = AUDIT_HEADING
    try:
        path = Path(dataset) / "README.md"
        if not Path(dataset).is_dir():
            path = Path(hf_hub_download(dataset, "README.md", repo_type="dataset", revision=revision))
        card = DatasetCard.load(path)
    except (HTTPError, OSError, ValueError, yaml.YAMLError):  # no card, not reachable, or not readable
        return dict.fromkeys(("license", *headings))
    sections = dict(re.findall(r"^## (.+?)$\s*(.*?)\s*(?=^## |\Z)", card.text, flags=re.MULTILINE | re.DOTALL))
    return {"license": card.data.license} | {name: sections.get(heading) for name, heading in headings.items()}
