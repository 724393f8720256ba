"""Build a corpus in the project's schema: check the rows of its sources and join them with translations."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from rsmclip.core.errors import UserError
from rsmclip.data.card import BuildReport, corpus_card
from rsmclip.data.faults import Fault, encode_image, fault_summary, find_fault
from rsmclip.data.schema import RAW_CAPTIONS, features
from rsmclip.data.sources import named_source
from rsmclip.data.sources.protocol import Source, SourceRow
from rsmclip.data.translation.translations import Translations, load_translations
from rsmclip.data.write import write_corpus


class UnusableRows(UserError):
    """Rows that stop a build. The command line prints `faults` as a table before the error line."""

    def __init__(self, faults: Sequence[Fault]):
        super().__init__(f"{fault_summary(faults)}: correct them, or leave them out with --skip_bad")
        self.faults = faults


def build_corpus(
    sources: Sequence[str | Source],
    output: str | Path,
    translations: str | Path | Translations | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> BuildReport:
    """
    Write a corpus in English and in every language of the translations.

    Args:
        sources (`Sequence[str | Source]`): Corpora, concatenated in this order. They keep their official splits. A
            string is written as for `rsmclip data build --source`: `"NAME=DIR"`.
        output (`str` or `Path`): Folder to write.
        translations (`str`, `Path` or `Translations`, *optional*): Folder of translations, or the output of
            `load_translations`.
        skip_bad (`bool`, *optional*, defaults to `False`):
            Whether to leave unusable rows out. By default, an unusable row is an error and nothing is written.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace a corpus in `output`.

    Raises:
        [`UnusableRows`]: Rows are unusable, and `skip_bad` is not set.
        [`UserError`]: A corpus cannot be read, or `output` is not empty and may not be overwritten.
    """
    sources = [named_source(source) if isinstance(source, str) else source for source in sources]
    names = Counter(source.name for source in sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"two sources have the name {twice[0]}, so their image ids would be equal: rename one folder")
    if isinstance(translations, str | Path):
        translations = load_translations(Path(translations))
    translations = translations or Translations()
    languages, report = translations.languages, BuildReport()

    def examples() -> Iterator[tuple[str, dict]]:
        for row, encoded in tqdm(usable_rows(sources, report.faults), unit=" images", desc="build", disable=None):
            captions = translations.aligned(row["captions_en"], languages)
            report.add(row["source"], row["split"], captions)
            published = {column: row[column] for column in ("image_id", "source", "label")}
            published[RAW_CAPTIONS] = row["captions_en"]
            yield row["split"], {"image": {"bytes": encoded, "path": None}, "captions": captions, **published}
        if report.faults and not skip_bad:
            raise UnusableRows(report.faults)

    columns = features(["en", *languages], raw=True)
    write_corpus(examples(), columns, Path(output), overwrite, lambda: corpus_card(sources, report, translations))
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
            problem, _, reason = str(error).partition(": ")
            faults.append(Fault(problem, row["image_id"], f"{row['file']}: {reason}"))
            continue
        seen.add(row["image_id"])
        yield row, encoded
