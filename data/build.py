"""Builds a corpus: sources, checked and joined with translations, in the project's schema."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from rsmclip.data.card import corpus_card
from rsmclip.data.faults import Fault, encode_image, fault_table, find_fault
from rsmclip.data.schema import RAW_CAPTIONS, features
from rsmclip.data.sources import Source, SourceError, SourceRow
from rsmclip.data.translation.translations import Translations
from rsmclip.data.write import write_corpus


@dataclass
class BuildReport:
    """
    What a build saw.

    Args:
        rows (`Counter`): Rows by (source, split).
        captions (`Counter`): Captions by (split, language), nulls not counted.
        words (`Counter`): Captions in English by their number of words.
        faults (`list[Fault]`): Rows that were dropped, and why.
    """

    rows: Counter = field(default_factory=Counter)
    captions: Counter = field(default_factory=Counter)
    words: Counter = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def add(self, source: str, split: str, captions: dict[str, list[str | None]]) -> None:
        """Counts a row that is written."""
        self.rows[source, split] += 1
        for language, texts in captions.items():
            known = [text for text in texts or () if text is not None]
            self.captions[split, language] += len(known)
            self.words.update(len(text.split()) for text in known if language == "en")


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
        translations ([`~rsmclip.data.translation.translations.Translations`], *optional*):
            What [`~rsmclip.data.translation.translations.load_translations`] gave.
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
    names = Counter(source.name for source in sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise SourceError(f"two sources are called {twice[0]}, so their ids would be the same: rename one folder")
    translations = translations or Translations()
    report = BuildReport()

    def examples() -> Iterator[tuple[str, dict]]:
        for row, encoded in tqdm(usable_rows(sources, report.faults), unit=" images", desc="build", disable=None):
            captions = translations.of(row["captions_en"], translations.languages)
            report.add(row["source"], row["split"], captions)
            published = {column: row[column] for column in ("image_id", "source", "label")}
            published[RAW_CAPTIONS] = row["captions_en"]
            yield row["split"], {"image": {"bytes": encoded, "path": None}, "captions": captions, **published}
        if report.faults and not skip_bad:
            raise SourceError(fault_table(report.faults) + "\n--skip_bad leaves them out")

    columns = features(["en", *translations.languages], raw=True)
    write_corpus(examples(), columns, output, overwrite, lambda: corpus_card(sources, report, translations))
    return report
