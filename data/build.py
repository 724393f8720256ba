"""Build a corpus in the project's schema: check the rows of its sources and join them with translations."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from tqdm.auto import tqdm

from rsmclip.core.errors import UserError
from rsmclip.core.files import check_links, links_in
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.card import BuildReport, corpus_card
from rsmclip.data.faults import Fault, encode_image, fault_summary, find_fault, without_empty_captions
from rsmclip.data.schema import RAW_CAPTIONS, features
from rsmclip.data.sources import named_source
from rsmclip.data.sources.protocol import Source, SourceRow
from rsmclip.data.split import Division, divide
from rsmclip.data.stretch import check_stretch
from rsmclip.data.translation.translations import Translations, load_translations, normalize_caption
from rsmclip.data.write import check_output, write_corpus


class UnusableRows(UserError):
    """Rows that stop a build. The command line prints `faults` as a table before the error line."""

    def __init__(self, faults: Sequence[Fault]):
        super().__init__(f"{fault_summary(faults)}: correct them, or leave them out with --skip_bad")
        self.faults = faults


def build_corpus(
    sources: str | Sequence[str | Source],
    output: str | Path,
    translations: str | Path | Translations | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    split: str | None = None,
    seed: int = 0,
    stretch: tuple[float, float] | None = None,
    follow_links: bool = False,
) -> BuildReport:
    """
    Write a corpus with the captions of its sources and their translations.

    Args:
        sources (`Sequence[str | Source]`): Corpora, concatenated in this order. They keep the splits that they state.
            A string is written as for `rsmclip data build --source`: `"NAME=DIR"`. One string is a list of one.
        output (`str` or `Path`): Folder to write.
        translations (`str`, `Path` or `Translations`, *optional*): Folder of translations, or the output of
            `load_translations`. Captions that a source has in another language come first.
        skip_bad (`bool`, *optional*, defaults to `False`):
            Whether to leave out unusable rows, and empty captions of other rows. By default, they are an error and
            nothing is written.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace a corpus in `output`.
        split (`str`, *optional*):
            Percent of train, val and test (`"80/10/10"`) among the images that state no split. By default they are
            `train`.
        seed (`int`, *optional*, defaults to 0): Seed of the drawn splits.
        stretch (`tuple[float, float]`, *optional*):
            Percentiles that become 0 and 255 in images of more than 8 bits per channel. By default these images are
            unusable.
        follow_links (`bool`, *optional*, defaults to `False`):
            Whether the folder of a source may have links out of the folder. By default they are an error: the folder
            may be another person's, and the corpus is made to be published.

    Returns:
        [`~rsmclip.data.card.BuildReport`]: Counts of rows and captions, and the rows that were left out.

    Raises:
        [`UnusableRows`]: Rows are unusable, and `skip_bad` is not set.
        [`UserError`]: A corpus cannot be read or has a link out of its folder, `split` is malformed, or `output` is
            not empty and may not be overwritten.
    """
    listed = [sources] if isinstance(sources, str | Path) else sources
    sources = [source if hasattr(source, "rows") else named_source(source) for source in listed]
    check_sources(sources, follow_links)
    if stretch is not None:
        check_stretch(*stretch)
    output = Path(output)
    check_output(output, overwrite)  # before minutes of reading
    if isinstance(translations, str | Path):
        translations = load_translations(Path(translations))
    translations = translations or Translations()
    division = Division.parse(split, seed) if split else None
    report = BuildReport(stretch=stretch, division=str(division) if division else None)
    report.unused = dict.fromkeys(english for english, texts in translations.captions.items() if texts)
    report.translated = len(report.unused)
    known = {*translations.languages, *(language for source in sources for language in source.languages)}
    languages = [language for language in LANGUAGES[1:] if language in known]

    def rows(step: str, faults: list[Fault]) -> Iterator[tuple[SourceRow, bytes]]:
        return tqdm(usable_rows(sources, faults, skip_bad, stretch), unit=" images", desc=step, disable=None)

    def examples() -> Iterator[tuple[str, dict]]:
        drawn = divide(rows("read", []), division) if division else {}
        for row, encoded in rows("build", report.faults):
            captions = join_captions(row, translations, languages)
            for english in map(normalize_caption, filter(None, captions["en"] or ())):
                report.unused.pop(english, None)
            split = row["split"] or drawn.get(row["image_id"], "train")
            report.add(row["source"], split, captions)
            report.unstated += row["split"] is None
            report.given |= {language for language, texts in row["given"].items() if any(texts)}
            published = {column: row[column] for column in ("image_id", "source", "label")}
            published[RAW_CAPTIONS] = row["captions_en"] if captions["en"] else None
            yield split, {"image": {"bytes": encoded, "path": None}, "captions": captions, **published}

    columns = features(["en", *languages], raw=True)
    write_corpus(examples(), columns, output, overwrite, lambda: corpus_card(sources, report, translations))
    return report


def check_sources(sources: Sequence[Source], follow_links: bool) -> None:
    """Raise [`UserError`] if two sources have one name, or a folder has a link out of it that may not be followed."""
    names = Counter(source.name for source in sources)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"two sources have the name {twice[0]}, so their image ids would be equal: rename one folder")
    for source in sources:
        if source.root and not source.chosen and not follow_links:
            check_links(links_in(source.root), source.root, "--follow_links reads it")


def usable_rows(
    sources: Iterable[Source], faults: list[Fault], skip_bad: bool, stretch: tuple[float, float] | None
) -> Iterator[tuple[SourceRow, bytes]]:
    """Yield usable rows with their images, and add what is left out to `faults`. Faults are an error at the end."""
    seen: set[str] = set()
    for origin, row in ((source, row) for source in sources for row in source.rows()):
        if isinstance(row, UserError):
            # The dataset card shows the place, so it is not the local path.
            place = str(row).removeprefix(f"{origin.root}/")
            faults.append(Fault("malformed annotation", origin.name, place))
            continue
        if fault := find_fault(row, seen):
            faults.append(fault)
            continue
        try:
            encoded = encode_image(row["image"], stretch)
        except UserError as error:
            problem, _, reason = str(error).partition(": ")
            faults.append(Fault(problem, row["image_id"], f"{row['file']}: {reason}"))
            continue
        seen.add(row["image_id"])
        row, empty = without_empty_captions(row)
        faults += empty
        yield row, encoded
    if faults and not skip_bad:
        raise UnusableRows(faults)


def join_captions(
    row: SourceRow, translations: Translations, languages: Sequence[str]
) -> dict[str, list[str | None] | None]:
    """Return aligned captions by language, of the source or else translations. English is `None` if there is none."""
    captions = translations.aligned(row["captions_en"] or [], languages)
    for language, texts in row["given"].items():
        folded = [" ".join((text or "").split()) or None for text in texts]
        captions[language] = [own or other for own, other in zip_longest(folded, captions[language])]
    count = max(map(len, captions.values()))
    captions = {language: texts or [None] * count for language, texts in captions.items()}
    return captions | {"en": captions["en"] if any(captions["en"]) else None}
