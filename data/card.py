"""The dataset card of a corpus: counts of the build, and the summary of the leakage audit."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, hf_hub_download
from huggingface_hub.errors import HTTPError  # of httpx or requests

from rsmclip.core.languages import LANGUAGES
from rsmclip.data.faults import SPLITS, Fault, fault_table
from rsmclip.data.sources.protocol import Source
from rsmclip.data.translation.report import acceptance_table
from rsmclip.data.translation.translations import Translations

SOURCES_HEADING, SPLITS_HEADING = "Sources", "Splits and languages"
TRANSLATION_HEADING, AUDIT_HEADING = "Translation", "Leakage audit"
NOT_AUDITED = "Not run: `rsmclip data audit DIR --output REPORT.json`."


@dataclass
class BuildReport:
    """Settings and counts of a build."""

    stretch: tuple[float, float] | None = None  # percentiles of images of more than 8 bits per channel
    rows: Counter = field(default_factory=Counter)  # by (source, split)
    captions: Counter = field(default_factory=Counter)  # by (split, language), without nulls
    words: Counter = field(default_factory=Counter)  # English captions by number of words
    faults: list[Fault] = field(default_factory=list)  # rows that were left out
    unstated: int = 0  # rows whose source states no split
    division: str | None = None  # options that divided these rows; `None`: they are `train`
    given: set[str] = field(default_factory=set)  # languages of captions that are stored as the sources have them
    translated: int = 0  # sentences with an accepted translation
    unused: dict[str, None] = field(default_factory=dict)  # of these, those that are no caption of the corpus

    def add(self, source: str, split: str, captions: dict[str, list[str | None]]) -> None:
        """Count a row that is written."""
        self.rows[source, split] += 1
        for language, texts in captions.items():
            known = [text for text in texts or () if text is not None]
            self.captions[split, language] += len(known)
            if language == "en":
                self.words.update(len(text.split()) for text in known)


def corpus_card(sources: Sequence[Source], report: BuildReport, translations: Translations) -> DatasetCard:
    """Return the dataset card of a corpus. Call it after all rows are counted in the report."""
    languages = [code for code in LANGUAGES if any(report.captions[split, code] for split in SPLITS)]
    metadata = DatasetCardData(
        language=languages,
        license="other",
        license_name="see-sources",
        task_categories=["zero-shot-image-classification", "image-to-text"],
        tags=["remote-sensing", "image-captioning"],
    )
    sections = {
        SOURCES_HEADING: f"{source_section(sources)}\n\n{split_origin(report)}",
        SPLITS_HEADING: split_section(report),
        TRANSLATION_HEADING: translation_section(translations, report),
        "Left out": f"```\n{fault_table(report.faults)}\n```" if report.faults else "Nothing.",
        AUDIT_HEADING: NOT_AUDITED,
    }
    if report.stretch:
        low, high = report.stretch
        sections["Stretched images"] = (
            f"Images of more than 8 bits per channel were stretched to 8 bits: percentiles {low:g} and {high:g} of "
            "all bands of an image together became 0 and 255."
        )
    text = (
        f"# Captions of {', '.join(dict.fromkeys(source.name for source in sources))} in {', '.join(languages)}\n\n"
        "One row per image. `captions` has a list for each language. The lists are aligned, and a caption that is "
        "missing in a language is null. `raw_captions` are the English captions as published. In `captions`, repeated "
        "white space and, in English, spaces before punctuation are removed. Made by `rsmclip data build`.\n"
    )
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n{with_sections(text, sections)}")


def source_section(sources: Sequence[Source]) -> str:
    licenses = {source.name: source.license or "none stated" for source in sources}
    citations = {source.name: source.citation for source in sources if source.citation}
    lines = ["| source | license |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in licenses.items())]
    lines += ["", "Images and captions stay under the terms of their sources. Where none are stated, ask the"]
    lines += ["authors before you publish the data again." + (" Please cite:" if citations else "")]
    return "\n".join([*lines, "", *(f"- {name}: {text}" for name, text in citations.items())]).rstrip()


def split_origin(report: BuildReport) -> str:
    texts = []
    if stated := report.rows.total() - report.unstated:
        texts.append(f"The sources state the split of {stated:,} images.")
    if report.unstated:
        texts.append(f"No split is stated for {report.unstated:,} images.")
        drawn = f"`{report.division}` divided them. Images that show the same picture are in one split."
        texts.append(drawn if report.division else "They are `train`.")
    return " ".join(texts)


def split_note(report: BuildReport) -> str | None:
    """Return a line about images without a stated split that `--split` could divide, or about a `--split` in vain."""
    if report.division and not report.unstated:
        return "the sources state the split of every image, so --split divided none"
    if report.division or not report.unstated:
        return None
    which = (
        "everything"
        if report.unstated == report.rows.total()
        else f"what states no split ({report.unstated:,} images)"
    )
    return f"{which} is train; --split 80/10/10 makes train, val and test"


def translation_note(report: BuildReport) -> str | None:
    """Return a line about translations of sentences that are no caption of the corpus."""
    if not report.unused:
        return None
    count = f"{len(report.unused):,} of {report.translated:,} translated sentences are no caption of the corpus"
    return f"{count}, so their translations are not used; the first: {next(iter(report.unused))!r}"


def split_section(report: BuildReport) -> str:
    """Return the section of a card that counts rows, captions and words."""
    by_source: Counter = Counter()
    for (source, _), count in report.rows.items():
        by_source[source] += count
    images = ", ".join(f"{name} {count:,}" for name, count in by_source.items())
    table = f"Images, and captions in each language:\n\n{split_table(report)}"
    text = f"{table}\n\nImages by source: {images}."
    if report.words:
        mean = sum(length * count for length, count in report.words.items()) / report.words.total()
        text += f" English captions have {min(report.words)} to {max(report.words)} words, {mean:.1f} on average."
    return text


def split_table(report: BuildReport) -> str:
    """Return a Markdown table of rows and captions by split and language."""
    languages = [code for code in LANGUAGES if any(language == code for _, language in report.captions)]
    lines = [f"| split | images | {' | '.join(languages)} |", "| --- |" + " ---: |" * (len(languages) + 1)]
    for split in dict.fromkeys((*SPLITS, *(split for _, split in report.rows))):
        images = sum(count for (_, found), count in report.rows.items() if found == split)
        counts = [f"{report.captions[split, language]:,}" for language in languages]
        lines += [f"| {split} | {images:,} | {' | '.join(counts)} |"] if images else []
    return "\n".join(lines)


def translation_section(translations: Translations, report: BuildReport) -> str:
    texts = []
    if not any(report.captions[split, "en"] for split in SPLITS):
        texts.append("No caption is in English: these lists are null.")
    if given := [code for code in LANGUAGES if code in report.given - {"en"}]:
        texts.append(f"Captions in {', '.join(given)} are from the sources. They were not checked.")
    if translations.counts:
        origin = "Translations of unknown origin."
        if translations.model:
            origin = f"Translations by `{translations.model}`, revision `{translations.revision}`."
        explanation = "Distinct English captions, with accepted translations and those rejected by each check of"
        table = acceptance_table(translations.counts)
        texts.append(f"{origin} {explanation} `rsmclip.data.translation.checks`:\n\n{table}")
    return "\n\n".join(texts) or "None: the captions are in English."


def with_sections(text: str, sections: Mapping[str, str]) -> str:
    """Return the text of a card with sections replaced, or added at the end."""
    for heading, body in sections.items():
        pattern = rf"^## {re.escape(heading)}$.*?(?=^## |\Z)"
        section = f"## {heading}\n\n{body}\n\n"
        text, found = re.subn(pattern, lambda _, section=section: section, text, flags=re.MULTILINE | re.DOTALL)
        text = text if found else f"{text.rstrip()}\n\n{section}"
    return text.rstrip() + "\n"


def recorded_facts(dataset: str, revision: str | None = None) -> dict[str, str | None]:
    """
    Return provenance sections of a corpus card, for the cards of models trained on the corpus.

    Args:
        dataset (`str`): Folder or Hub id of the corpus.
        revision (`str`, *optional*): Branch, tag or commit of a Hub id.

    Returns:
        `dict[str, str | None]`: `license` (an identifier) and the sections `sources`, `splits`, `translation` and
        `audit` in Markdown. A value is `None` if the card does not have it or cannot be read.
    """
    headings = {"sources": SOURCES_HEADING, "splits": SPLITS_HEADING, "translation": TRANSLATION_HEADING}
    headings["audit"] = AUDIT_HEADING
    card = load_card(dataset, revision)
    if card is None:
        return dict.fromkeys(("license", *headings))
    sections = dict(re.findall(r"^## (.+?)$\s*(.*?)\s*(?=^## |\Z)", card.text, flags=re.MULTILINE | re.DOTALL))
    return {"license": card.data.license} | {name: sections.get(heading) for name, heading in headings.items()}


def load_card(dataset: str, revision: str | None = None) -> DatasetCard | None:
    """Return the card of a folder or a dataset on the Hub; `None` if it is missing, unreachable or malformed."""
    path = Path(dataset) / "README.md"
    try:
        if not Path(dataset).is_dir():
            path = hf_hub_download(dataset, "README.md", repo_type="dataset", revision=revision)
        return DatasetCard.load(path)
    except (HTTPError, OSError, ValueError, yaml.YAMLError):
        return None
