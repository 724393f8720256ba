"""Builds a corpus: sources joined with translations, written as parquet shards with a dataset card.

The folder is written beside its final place and renamed, so it is complete or absent. Rows stream through writers that
hold one row group for each split, so memory does not grow with the corpus.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetInfo, Features, SplitInfo
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from huggingface_hub import DatasetCard, DatasetCardData, HfApi
from huggingface_hub.errors import HTTPError  # of the HTTP client, which differs between versions of huggingface_hub
from tqdm.auto import tqdm

from rsmclip.data.schema import LANGUAGES, features
from rsmclip.data.sources import (
    SPLITS,
    Fault,
    Source,
    SourceError,
    SourceRow,
    encode_image,
    fault_table,
    find_fault,
    normalise_caption,
    read_json_lines,
)

ROWS_PER_GROUP = 100  # encoded images held in memory while writing, and read at once
ROWS_PER_SHARD = 50 * ROWS_PER_GROUP

Translations = dict[str, dict[str, str]]  # English caption, stripped → language code → translation


@dataclass
class BuildReport:
    """
    What a build saw.

    Args:
        rows (`Counter`): Rows by split.
        captions (`Counter`): Captions by (split, language), nulls not counted.
        faults (`list[Fault]`): Rows that were dropped, and why.
    """

    rows: Counter = field(default_factory=Counter)
    captions: Counter = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def add(self, split: str, captions: dict[str, list[str | None]]) -> None:
        """Counts a row that is written."""
        self.rows[split] += 1
        for language, texts in captions.items():
            self.captions[split, language] += sum(text is not None for text in texts)

    def table(self) -> str:
        """Rows and captions per split and language, in Markdown."""
        languages = [code for code in LANGUAGES if any(language == code for _, language in self.captions)]
        lines = [f"| split | images | {' | '.join(languages)} |", "| --- |" + " ---: |" * (len(languages) + 1)]
        for split in (split for split in SPLITS if self.rows[split]):
            counts = [f"{count:,}" for count in (self.captions[split, language] for language in languages)]
            lines.append(f"| {split} | {self.rows[split]:,} | {' | '.join(counts)} |")
        return "\n".join(lines)


def read_translations(folder: Path) -> Translations:
    """
    Ready translations: every `*.jsonl` in a folder, one object a line, `{"en": …, "pt": …}`. Where two lines translate
    one caption into one language, the later is taken.

    Returns:
        `dict[str, dict[str, str]]`: English caption, stripped, to language code to translation.

    Raises:
        [`SourceError`]: There is no such file, or a line of it is wrong.
    """
    if not (files := sorted(folder.glob("*.jsonl"))):
        raise SourceError(f"no *.jsonl with translations in {folder}")
    translations: Translations = {}
    for place, entry in (line for path in files for line in read_json_lines(path)):
        if unknown := sorted(set(entry) - set(LANGUAGES)):
            raise SourceError(f"{place}: unknown language code {unknown[0]!r}; known are {', '.join(LANGUAGES)}")
        if wrong := [code for code, text in entry.items() if not isinstance(text, str | None)]:
            raise SourceError(f"{place}: {wrong[0]!r} is not a string")
        if not (english := (entry.pop("en", None) or "").strip()):
            raise SourceError(f"{place}: no English caption 'en'")
        accepted = {code: text for code, text in entry.items() if text and text.strip()}
        translations.setdefault(english, {}).update(accepted)
    return translations


def translated_captions(
    raw: Sequence[str], translations: Translations, languages: Sequence[str]
) -> dict[str, list[str | None]]:
    """Captions in every language, aligned; null where there is no translation."""
    captions: dict[str, list[str | None]] = {"en": [normalise_caption(text) for text in raw]}
    for language in languages[1:]:
        found = [translations.get(text.strip(), {}).get(language) for text in raw]
        # Only white space is folded: a space before punctuation is a tokeniser's trace in English, right in French.
        captions[language] = [text and " ".join(text.split()) for text in found]
    return captions


def usable_rows(sources: Iterable[Source], faults: list[Fault]) -> Iterator[tuple[SourceRow, bytes]]:
    """Rows with their image as it is stored; what is wrong with the others goes to `faults`."""
    seen: set[str] = set()
    for row in (row for source in sources for row in source.rows()):
        if fault := find_fault(row, seen):
            faults.append(fault)
            continue
        try:
            encoded = encode_image(row["image"])
        except SourceError as error:
            faults.append(Fault(str(error), row["image_id"], row["file"]))
            continue
        seen.add(row["image_id"])
        yield row, encoded


def build_corpus(
    sources: Sequence[Source],
    output: Path,
    translations: Translations | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> BuildReport:
    """
    Writes a corpus in English and every language of the translations.

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
            Replace a dataset that is there.

    Returns:
        [`BuildReport`]

    Raises:
        [`SourceError`]: A corpus cannot be read, or has unusable rows: then with a table of them.
        `FileExistsError`: `output` is not empty and not to be overwritten.
    """
    translations = translations or {}
    translated = {language for entry in translations.values() for language in entry}
    languages = ["en", *(language for language in LANGUAGES if language in translated)]
    report = BuildReport()

    def examples() -> Iterator[tuple[str, dict]]:
        for row, encoded in tqdm(usable_rows(sources, report.faults), unit=" images", desc="build", disable=None):
            captions = translated_captions(row["captions_en"], translations, languages)
            report.add(row["split"], captions)
            image = {"bytes": encoded, "path": None}
            published = {column: row[column] for column in ("image_id", "source", "label")}
            yield row["split"], {"image": image, "captions": captions, **published}
        if report.faults and not skip_bad:
            raise SourceError(fault_table(report.faults) + "\n--skip_bad leaves them out")

    write_corpus(examples(), features(languages), output, overwrite, lambda: corpus_card(sources, report, languages))
    return report


def write_corpus(
    examples: Iterable[tuple[str, dict]],
    features: Features,
    output: Path,
    overwrite: bool,
    make_card: Callable[[], DatasetCard],
) -> None:
    """
    Writes rows as `data/<split>-<shard>-of-<shards>.parquet` and a dataset card, aside first and then renamed.

    Args:
        examples (`Iterable[tuple[str, dict]]`): Split and row.
        features (`Features`): Columns.
        output (`Path`): Folder to make.
        overwrite (`bool`): Replace a dataset that is there.
        make_card (`Callable[[], DatasetCard]`):
            Called when all rows are written; what `load_dataset` needs is added to the card.

    Raises:
        [`SourceError`]: There are no rows.
        `FileExistsError`: `output` is not empty and not to be overwritten.
    """
    output = output.resolve()
    check_output(output, overwrite)
    aside = output.with_name(f".{output.name}.{os.getpid()}")  # its own, should two runs write at once
    try:
        (aside / "data").mkdir(parents=True)
        splits = write_shards(examples, features, aside / "data")
        card = make_card()
        describe_files(card, features, splits)
        card.save(aside / "README.md")
        put_in_place(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_output(output: Path, overwrite: bool) -> None:
    """Raises `FileExistsError` unless a dataset may be put at `output`."""
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file, not a folder")
    if not output.exists() or not any(output.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{output} exists and is not empty; choose another or give --overwrite_output_dir")
    ours = (path.suffix == ".parquet" or path.name == "README.md" or path.is_dir() for path in output.rglob("*"))
    if not all(ours):  # a folder of sources, say, or a home directory
        raise FileExistsError(f"{output} holds more than a dataset, so it is not overwritten; empty it yourself")


def put_in_place(aside: Path, output: Path) -> None:
    """Renames a finished folder to its place; a dataset that is there goes only once the new one is in place."""
    if not output.exists() or not any(output.iterdir()):
        aside.rename(output)
        return
    old = aside.with_name(f"{aside.name}.old")
    output.rename(old)
    aside.rename(output)
    shutil.rmtree(old)


def write_shards(examples: Iterable[tuple[str, dict]], features: Features, folder: Path) -> list[SplitInfo]:
    """Writes rows into a folder, every split into its own shards, and tells how large the splits are."""
    writers: dict[str, SplitWriter] = {}
    for split, row in examples:
        if split not in writers:
            writers[split] = SplitWriter(folder, split, features)
        writers[split].write(row)
    if not writers:
        raise SourceError("no usable rows: nothing to write")
    return [writers[split].finish() for split in sorted(writers, key=SPLITS.index)]


class SplitWriter:
    """
    Writer of one split in shards of `ROWS_PER_SHARD` rows.

    Args:
        folder (`Path`): Where the shards go.
        split (`str`): Name of the split.
        features (`Features`): Columns.
    """

    def __init__(self, folder: Path, split: str, features: Features):
        self.folder, self.split, self.schema = folder, split, features.arrow_schema
        self.waiting: list[dict] = []
        self.shards: list[pq.ParquetWriter] = []
        self.num_rows, self.num_bytes = 0, 0

    def write(self, row: dict) -> None:
        """Appends a row."""
        self.waiting.append(row)
        if len(self.waiting) == ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Writes the waiting rows as one row group."""
        if self.num_rows % ROWS_PER_SHARD == 0:
            self.close_shard()
            self.shards.append(pq.ParquetWriter(self.folder / f"{self.split}-{len(self.shards):05d}", self.schema))
        table = pa.Table.from_pylist(self.waiting, schema=self.schema)
        self.shards[-1].write_table(table)
        self.num_rows, self.num_bytes = self.num_rows + table.num_rows, self.num_bytes + table.nbytes
        self.waiting.clear()

    def close_shard(self) -> None:
        """Finishes the shard that is being written, if there is one."""
        if self.shards:
            self.shards[-1].close()

    def finish(self) -> SplitInfo:
        """Writes what waits and names the shards, now that their number is known."""
        if self.waiting:
            self.flush()
        self.close_shard()
        for number in range(len(self.shards)):
            path = self.folder / f"{self.split}-{number:05d}"
            path.rename(f"{path}-of-{len(self.shards):05d}.parquet")
        return SplitInfo(self.split, num_bytes=self.num_bytes, num_examples=self.num_rows)


def describe_files(card: DatasetCard, features: Features, splits: Sequence[SplitInfo]) -> None:
    """Adds to a card's metadata which files are which split, how large they are, and their columns."""
    files = [{"split": split.name, "path": f"data/{split.name}-*.parquet"} for split in splits]
    card.data["configs"] = [{"config_name": "default", "data_files": files}]
    size = sum(split.num_bytes for split in splits)
    info = DatasetInfo(features=features, splits=SplitDict({split.name: split for split in splits}), dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(card.data)


def corpus_card(sources: Sequence[Source], report: BuildReport, languages: Sequence[str]) -> DatasetCard:
    """The dataset card: what the corpus is made of, rows per split and language, and what was left out."""
    metadata = DatasetCardData(
        language=list(languages),
        task_categories=["zero-shot-image-classification", "image-to-text"],
        tags=["remote-sensing", "image-captioning"],
    )
    names = ", ".join(source.name for source in sources)
    text = [
        f"# Captions of {names} in {', '.join(languages)}",
        "One row per image; `captions` holds a list for each language, aligned with each other. "
        "A caption without a translation is null. Made by `python -m rsmclip.data build`.",
        "Images, and captions in each language:",
        report.table(),
    ]
    if report.faults:
        text += ["Left out:", f"```\n{fault_table(report.faults)}\n```"]
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(text) + "\n")


def push_corpus(folder: Path, repo_id: str) -> None:
    """
    Pushes a built corpus to the Hub as it is, and removes the shards of an earlier one from there.

    Args:
        folder (`Path`): What [`build_corpus`] wrote.
        repo_id (`str`): Dataset repository; made if it does not exist.

    Raises:
        `OSError`: The Hub cannot be reached or refuses.
    """
    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, repo_type="dataset", exist_ok=True).repo_id
        api.upload_folder(folder_path=folder, repo_id=repo_id, repo_type="dataset", delete_patterns="data/*.parquet")
    except HTTPError as error:
        raise OSError(f"{repo_id} was built but not pushed: {error}") from error
