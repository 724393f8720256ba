"""Builds a corpus: sources joined with translations, written as parquet shards with a dataset card.

The folder is written beside its final place and renamed, so it is complete or absent. Rows stream through a writer
that holds one row group, so memory does not grow with the corpus.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Features
from datasets.arrow_writer import ParquetWriter
from huggingface_hub import DatasetCard, DatasetCardData
from rsmclip.data.schema import LANGUAGES, corpus_features
from rsmclip.data.sources import SPLITS, Source, SourceError, SourceRow, encode_image, fault, normalise_caption
from tqdm.auto import tqdm

ROWS_PER_SHARD = 5000
ROWS_PER_GROUP = 100  # encoded images held in memory, and read at once


@dataclass
class BuildReport:
    """
    What a build saw.

    Args:
        rows (`Counter`): Rows by split.
        captions (`Counter`): Captions by (split, language), nulls not counted.
        faults (`list[tuple[str, str]]`): Image id and what is wrong, of rows that were dropped.
    """

    rows: Counter = field(default_factory=Counter)
    captions: Counter = field(default_factory=Counter)
    faults: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> str:
        """Rows and captions per split, in Markdown."""
        languages = [code for code in LANGUAGES if any(key[1] == code for key in self.captions)]
        lines = ["| split | images | " + " | ".join(languages) + " |", "| --- |" + " ---: |" * (len(languages) + 1)]
        for split in (split for split in SPLITS if self.rows[split]):
            counts = [f"{self.captions[split, language]:,}" for language in languages]
            lines.append(f"| {split} | {self.rows[split]:,} | " + " | ".join(counts) + " |")
        return "\n".join(lines)


def read_translations(folder: Path) -> dict[str, dict[str, str]]:
    """
    Ready translations: every `*.jsonl` in a folder, one object a line, `{"en": …, "pt": …}`.

    Returns:
        `dict[str, dict[str, str]]`: English caption, stripped, to language code to translation.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise SourceError(f"no *.jsonl with translations in {folder}")
    translations: dict[str, dict[str, str]] = {}
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                english = entry.pop("en").strip()
            except (json.JSONDecodeError, KeyError, AttributeError) as error:
                raise SourceError(f"{path}, line {number}: {type(error).__name__}: {error}") from None
            if unknown := set(entry) - set(LANGUAGES):
                raise SourceError(f"{path}, line {number}: unknown language code {sorted(unknown)[0]!r}")
            translations.setdefault(english, {}).update({code: text for code, text in entry.items() if text})
    return translations


def translated_captions(
    raw: Sequence[str], translations: dict[str, dict[str, str]], languages: Sequence[str]
) -> dict[str, list[str | None]]:
    """Captions in every language, aligned; null where there is no translation."""
    captions: dict[str, list[str | None]] = {"en": [normalise_caption(text) for text in raw]}
    for language in languages[1:]:
        found = [translations.get(text.strip(), {}).get(language) for text in raw]
        captions[language] = [text and normalise_caption(text) for text in found]
    return captions


def usable_rows(sources: Iterable[Source], report: BuildReport) -> Iterator[tuple[SourceRow, bytes]]:
    """Rows with their encoded image; the others go to `report.faults`."""
    seen: set[str] = set()
    for source in sources:
        for row in source.rows():
            problem = fault(row, seen)
            if problem is None:
                try:
                    encoded = encode_image(row.path)
                except OSError:
                    problem = "image undecodable"
            if problem is not None:
                report.faults.append((row.image_id, problem))
                continue
            seen.add(row.image_id)
            yield row, encoded


def build_corpus(
    sources: Sequence[Source],
    output: Path,
    translations: dict[str, dict[str, str]] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> BuildReport:
    """
    Writes a corpus.

    Args:
        sources (`Sequence[Source]`):
            Corpora, concatenated in this order; their official splits are kept.
        output (`Path`):
            Folder to make.
        translations (`dict[str, dict[str, str]]`, *optional*):
            What [`read_translations`] gave.
        skip_bad (`bool`, *optional*, defaults to `False`):
            Drop unusable rows and report them. By default they are an error, and nothing is written.
        overwrite (`bool`, *optional*, defaults to `False`):
            Replace a folder that is there.

    Returns:
        [`BuildReport`]

    Raises:
        [`SourceError`]: With a table of what is wrong.
    """
    translations = translations or {}
    translated = {code for entry in translations.values() for code in entry}
    languages = ["en", *(code for code in LANGUAGES if code in translated)]
    report = BuildReport()

    def examples() -> Iterator[tuple[str, dict]]:
        for row, encoded in tqdm(usable_rows(sources, report), unit=" images", desc="build"):
            captions = translated_captions(row.captions, translations, languages)
            report.rows[row.split] += 1
            report.captions.update(
                {(row.split, code): sum(t is not None for t in texts) for code, texts in captions.items()}
            )
            image = {"bytes": encoded, "path": None}
            yield (
                row.split,
                {
                    "image": image,
                    "image_id": row.image_id,
                    "source": row.source,
                    "label": row.label,
                    "captions": captions,
                },
            )
        if report.faults and not skip_bad:
            raise SourceError(fault_table(report.faults))

    write_corpus(examples(), corpus_features(languages), output, overwrite, lambda: card(sources, report, languages))
    return report


def write_corpus(examples, features: Features, output: Path, overwrite: bool, make_card) -> None:
    """
    Writes examples as `data/<split>-<shard>.parquet` and a card, aside first and then renamed.

    Args:
        examples (`Iterator[tuple[str, dict]]`): Split and row.
        features (`Features`): Columns.
        output (`Path`): Folder to make.
        overwrite (`bool`): Replace a folder that is there.
        make_card (`Callable[[], DatasetCard]`): Called when all rows are written.
    """
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise SourceError(f"{output} exists and is not empty; choose another folder or give --overwrite_output_dir")
    aside = output.parent / f".writing-{output.name}"
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "data").mkdir(parents=True)
    try:
        writers: dict[str, ParquetShards] = {}
        for split, row in examples:
            if split not in writers:
                writers[split] = ParquetShards(aside / "data", split, features)
            writers[split].write(row)
        if not writers:
            raise SourceError("no rows: nothing to write")
        for writer in writers.values():
            writer.close()
        make_card().save(aside / "README.md")
        shutil.rmtree(output, ignore_errors=True)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class ParquetShards:
    """
    Writer of one split in shards of `ROWS_PER_SHARD` rows.

    Args:
        folder (`Path`): Where the shards go.
        split (`str`): Name of the split.
        features (`Features`): Columns.
    """

    def __init__(self, folder: Path, split: str, features: Features):
        self.folder, self.split, self.features = folder, split, features
        self.rows, self.writer = 0, None

    def write(self, row: dict) -> None:
        """Appends a row."""
        if self.rows % ROWS_PER_SHARD == 0:
            self.close()
            path = self.folder / f"{self.split}-{self.rows // ROWS_PER_SHARD:05d}.parquet"
            self.writer = ParquetWriter(path=str(path), features=self.features, writer_batch_size=ROWS_PER_GROUP)
        self.writer.write(self.features.encode_example(row))
        self.rows += 1

    def close(self) -> None:
        """Finishes the shard."""
        if self.writer is not None:
            self.writer.finalize()
            self.writer = None


def card(sources: Sequence[Source], report: BuildReport, languages: Sequence[str]) -> DatasetCard:
    """The dataset card: metadata that `load_dataset` needs, rows per split and language, and what was dropped."""
    splits = [split for split in SPLITS if report.rows[split]]
    metadata = DatasetCardData(
        language=list(languages),
        task_categories=["zero-shot-image-classification", "image-to-text"],
        tags=["remote-sensing", "image-captioning"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
    )
    names = ", ".join(source.name for source in sources)
    text = [
        f"# Captions of {names} in {len(languages)} languages",
        "One row per image; `captions` holds a list for each language, aligned with each other. "
        "A caption without a translation is null. Made by `python -m rsmclip.data build`.",
        "Captions per split and language:",
        report.table(),
    ]
    if report.faults:
        text += [f"{len(report.faults)} rows of the sources were unusable and left out:", fault_table(report.faults)]
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(text) + "\n")


def fault_table(faults: list[tuple[str, str]], shown: int = 20) -> str:
    """What is wrong and where, one line each, the first `shown` of them."""
    counts = Counter(problem for _, problem in faults)
    lines = [f"{len(faults)} unusable rows: " + ", ".join(f"{n} × {problem}" for problem, n in counts.most_common())]
    lines += [f"  {image_id}: {problem}" for image_id, problem in faults[:shown]]
    lines += [f"  … and {len(faults) - shown} more"] if len(faults) > shown else []
    return "\n".join(lines)
