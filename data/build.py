"""Build a corpus in the project's schema: check the rows of its sources and join them with translations."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from rsmclip.core.errors import UserError
from rsmclip.data.card import corpus_card
from rsmclip.data.faults import Fault, encode_image, fault_summary, find_fault
from rsmclip.data.schema import RAW_CAPTIONS, features
from rsmclip.data.sources import Source, SourceRow
from rsmclip.data.translation.translations import Translations
from rsmclip.data.write import write_corpus


class UnusableRows(UserError):
    """Rows that stop a build. The command line prints the table of `faults` before the error line."""

    def __init__(self, faults: Sequence[Fault]):
        super().__init__(f"{fault_summary(faults)}: correct them, or leave them out with --skip_bad")
        self.faults = faults


@dataclass
class BuildReport:
    """Counts of a build."""

    rows: Counter = field(default_factory=Counter)  # by (source, split)
    captions: Counter = field(default_factory=Counter)  # by (split, language), without nulls
    words: Counter = field(default_factory=Counter)  # English captions by number of words
    faults: list[Fault] = field(default_factory=list)  # rows that were left out

    def add(self, source: str, split: str, captions: dict[str, list[str | None]]) -> None:
        """Count a row that is written."""
        self.rows[source, split] += 1
        for language, texts in captions.items():
            known = [text for text in texts or () if text is not None]
            self.captions[split, language] += len(known)
            if language == "en":
                self.words.update(len(text.split()) for text in known)


def build_corpus(
    sources: Sequence[Source],
    output: Path,
    translations: Translations | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> BuildReport:
    """
    Write a corpus in English and in every language of the translations.

    Args:
        sources (`Sequence[Source]`):
            Corpora, which are concatenated in this order and keep their official splits.
        output (`Path`):
            Folder to make.
        translations ([`~rsmclip.data.translation.translations.Translations`], *optional*):
            Translations as [`~rsmclip.data.translation.translations.load_translations`] returned them.
        skip_bad (`bool`, *optional*, defaults to `False`):
            Leave unusable rows out and report them. By default, an unusable row is an error and nothing is written.
        overwrite (`bool`, *optional*, defaults to `False`):
            Replace a corpus in `output`.

    Returns:
        [`BuildReport`]

    Raises:
        [`UnusableRows`]: Rows are unusable, and `skip_bad` is not set.
        [`UserError`]: A corpus cannot be read, or `output` is not empty and may not be overwritten.
    """
    names = Counter(source.name for source in sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"two sources have the name {twice[0]}, so their ids would collide: rename one folder")
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
            raise UnusableRows(report.faults)

    columns = features(["en", *translations.languages], raw=True)
    write_corpus(examples(), columns, output, overwrite, lambda: corpus_card(sources, report, translations))
    return report


def usable_rows(sources: Iterable[Source], faults: list[Fault]) -> Iterator[tuple[SourceRow, bytes]]:
    seen: set[str] = set()
    for row in (row for source in sources for row in source.rows()):
        if fault := find_fault(row, seen):
            faults.append(fault)
            continue
        try:
            encoded = encode_image(row["image"])
        except UserError as error:
            faults.append(Fault(str(error), row["image_id"], row["file"]))
            continue
        seen.add(row["image_id"])
        yield row, encoded
