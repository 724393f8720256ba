"""What a leakage audit does to a built corpus: rows taken out, and a section of its card."""

from collections.abc import Collection, Iterator
from pathlib import Path

from datasets import DatasetDict, Features, Image
from huggingface_hub import DatasetCard

from rsmclip.core.files import write_whole
from rsmclip.data.build import BuildReport
from rsmclip.data.card import AUDIT_HEADING, counted_sections, with_sections
from rsmclip.data.write import write_corpus


def remove_rows(folder: Path, corpus: DatasetDict, dropped: Collection[str], audit_summary: str) -> None:
    """
    Writes a corpus again without some rows of its split `train`, and its card with what is left.

    Args:
        folder (`Path`): The corpus; it is replaced when the new one is complete.
        corpus (`DatasetDict`): The same, as [`~rsmclip.data.schema.load_corpus`] gave it.
        dropped (`Collection[str]`): Values of `image_id` to leave out.
        audit_summary (`str`): Section of the card on the audit, in Markdown.

    Raises:
        `FileExistsError`: The folder holds more than a corpus.
    """
    dropped, report = frozenset(dropped), BuildReport()
    card = DatasetCard.load(folder / "README.md")

    def kept() -> Iterator[tuple[str, dict]]:
        for split, rows in corpus.items():
            for row in rows:
                if split != "train" or row["image_id"] not in dropped:
                    report.add(row["source"], split, row["captions"] or {})
                    yield split, row

    def new_card() -> DatasetCard:
        card.text = with_sections(card.text, {**counted_sections(report), AUDIT_HEADING: audit_summary})
        return card

    columns = Features({**next(iter(corpus.values())).features, "image": Image()})
    write_corpus(kept(), columns, folder, True, new_card)


def note_audit(folder: Path, audit_summary: str) -> None:
    """Puts the result of an audit into the card of a corpus that stays as it is."""
    path = folder / "README.md"
    write_whole(path, with_sections(path.read_text(encoding="utf-8"), {AUDIT_HEADING: audit_summary}))
