"""Change a built corpus after a leakage audit: remove rows, and write the result of the audit into the card."""

from collections.abc import Collection, Iterator
from pathlib import Path

from datasets import DatasetDict, Features, Image
from huggingface_hub import DatasetCard
from yaml import YAMLError

from rsmclip.core.errors import user_errors
from rsmclip.core.files import write_whole
from rsmclip.data.card import AUDIT_HEADING, SPLITS_HEADING, BuildReport, split_section, with_sections
from rsmclip.data.write import write_corpus


def remove_rows(folder: Path, corpus: DatasetDict, dropped: Collection[str], audit_summary: str) -> None:
    """
    Write a built corpus again without some rows of `train`, and update its card.

    Args:
        folder (`Path`): Folder of the corpus. It is replaced when the new corpus is complete.
        corpus (`DatasetDict`): Rows of the corpus, as [`~rsmclip.data.schema.load_corpus`] returned them.
        dropped (`Collection[str]`): Values of `image_id` to remove.
        audit_summary (`str`): Markdown for the audit section of the card.
    """
    dropped, report = frozenset(dropped), BuildReport()
    with user_errors(OSError, ValueError, YAMLError, prefix=f"the card of {folder} cannot be read"):
        card = DatasetCard.load(folder / "README.md")

    def kept() -> Iterator[tuple[str, dict]]:
        for split, rows in corpus.items():
            for row in rows:
                if split != "train" or row["image_id"] not in dropped:
                    report.add(row["source"], split, row["captions"] or {})
                    yield split, row

    def new_card() -> DatasetCard:
        card.text = with_sections(card.text, {SPLITS_HEADING: split_section(report), AUDIT_HEADING: audit_summary})
        return card

    columns = Features({**next(iter(corpus.values())).features, "image": Image()})
    write_corpus(kept(), columns, folder, overwrite=True, make_card=new_card)


def note_audit(folder: Path, audit_summary: str) -> None:
    """Write the result of an audit into the card of a corpus."""
    path = folder / "README.md"
    with user_errors(OSError, ValueError, prefix=f"{path} cannot be read"):
        text = path.read_text(encoding="utf-8")
    write_whole(path, with_sections(text, {AUDIT_HEADING: audit_summary}))
