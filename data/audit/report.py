"""Reports of a leakage audit: a summary for the dataset card, JSON for programs, Markdown with pictures for people."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from urllib.parse import quote

from datasets import DatasetDict
from PIL import Image

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import read_json, write_whole
from rsmclip.core.images import image_bytes
from rsmclip.data.audit.leaks import AuditedRow, AuditReport, Pair, picture_sets
from rsmclip.data.faults import load_image

SHOWN_PAIRS = 100  # pairs, and sets of equal captions, in the Markdown
SHOWN_ROWS = 10  # rows per set of equal captions


def summary(report: AuditReport) -> str:
    """Return the counts of a report and a table of pairs by split, in Markdown."""
    crossing = sum(map(report.leaks, report.caption_sets))
    lines = [
        f"{sum(report.rows.values()):,} rows audited, {len(report.pairs):,} pairs show the same picture. "
        f"Rows of `train` that show a picture of an evaluation row: {len(report.to_remove):,}. "
        f"Sets of rows with equal captions: {len(report.caption_sets):,}, from `train` to evaluation {crossing:,}."
    ]
    if report.pairs:
        lines += ["", "| same picture in | and in | pairs |", "| --- | --- | ---: |"]
    counts = Counter((pair.first[:2], pair.second[:2]) for pair in report.pairs)
    for places in combinations_with_replacement(report.rows, 2):  # in the order of datasets and splits
        if counts[places]:
            lines.append("".join(f"| {dataset}, {split} " for dataset, split in places) + f"| {counts[places]:,} |")
    return "\n".join(lines)


def write_report(report: AuditReport, datasets: Mapping[str, DatasetDict], path: Path) -> None:
    """
    Write `REPORT.json`, `REPORT.md` and the pictures `REPORT_pairs/*.jpg`, replacing an earlier report.

    Raises:
        [`UserError`]: `REPORT_pairs` has other files, or a file cannot be written.
    """
    path = path.resolve()
    folder = path.with_name(f"{path.stem}_pairs")
    if folder.exists() and any(file.suffix != ".jpg" for file in folder.iterdir()):
        raise UserError(f"{folder} is not overwritten, because it has files of another program")
    with user_errors(OSError, prefix=f"{folder} cannot be written"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    write_whole(path, json.dumps(as_json(report), indent=1, ensure_ascii=False) + "\n")
    write_whole(path.with_suffix(".md"), as_markdown(report, quote(folder.name)))
    for number, image in enumerate(draw_pairs(report.pairs[:SHOWN_PAIRS], datasets), start=1):
        with user_errors(OSError, prefix=f"{folder} cannot be written"):
            image.save(folder / f"{number:03}.jpg", quality=90)


def as_json(report: AuditReport) -> dict:
    return {
        "audited": report.audited,
        "rows": [
            {"dataset": place[0], "split": place[1], "rows": count, "evaluated": place in report.evaluated}
            for place, count in report.rows.items()
        ],
        "pairs": [
            pair._asdict() | {"first": pair.first._asdict(), "second": pair.second._asdict()} for pair in report.pairs
        ],
        "to_remove": [row._asdict() for row in report.to_remove],
        "caption_sets": [[row._asdict() for row in group] for group in report.caption_sets],
    }


def same_pictures(path: Path, image_ids: Sequence[str]) -> list[list[int]]:
    """
    Return the sets of rows that show one picture, by the pairs in `REPORT.json`. Rows of other splits are left out.

    Args:
        path (`Path`): The report.
        image_ids (`Sequence[str]`): Ids of the rows. The sets have indices of this sequence.

    Raises:
        [`UserError`]: The file does not exist or is not a report.
    """
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    fields = read_json(path)
    with user_errors(KeyError, TypeError, prefix=f"{path} is not a report of rsmclip data audit"):
        pairs = [(pair["first"]["image_id"], pair["second"]["image_id"]) for pair in fields["pairs"]]
    found = [(row_of[one], row_of[other]) for one, other in pairs if one in row_of and other in row_of]
    return [rows for rows in picture_sets(found, len(image_ids)) if len(rows) > 1]


def as_markdown(report: AuditReport, folder: str) -> str:
    parts = [f"# Audit of {report.audited}", summary(report)]
    if report.pairs:
        parts.append("## The same picture")
    for number, pair in enumerate(report.pairs[:SHOWN_PAIRS], start=1):
        leak = "**leak**, " if report.leaks(pair[:2]) else ""
        how = f"{leak}similarity {pair.similarity:.3f}, transform: {pair.transform}, crop {pair.crop:.2f}"
        parts.append(f"{number}. {in_words(pair.first)} and {in_words(pair.second)}: {how}")
        parts.append(f"![pair {number}]({folder}/{number:03}.jpg)")
    if len(report.pairs) > SHOWN_PAIRS:
        parts.append(f"… and {len(report.pairs) - SHOWN_PAIRS:,} more pairs, in the JSON file.")
    if report.caption_sets:
        parts.append("## The same captions")
    for group in report.caption_sets[:SHOWN_PAIRS]:
        more = f" … and {len(group) - SHOWN_ROWS:,} more" if len(group) > SHOWN_ROWS else ""
        parts.append(f"- {len(group):,} rows: " + "; ".join(map(in_words, group[:SHOWN_ROWS])) + more)
    if len(report.caption_sets) > SHOWN_PAIRS:
        parts.append(f"… and {len(report.caption_sets) - SHOWN_PAIRS:,} more sets, in the JSON file.")
    return "\n\n".join(parts) + "\n"


def in_words(row: AuditedRow) -> str:
    return f"{row.dataset}, {row.split}, `{row.image_id}`"


def draw_pairs(pairs: Sequence[Pair], datasets: Mapping[str, DatasetDict]) -> Iterator[Image.Image]:
    shown = {row for pair in pairs for row in pair[:2]}
    places = {
        AuditedRow(name, split, image_id): index
        for name, split in {row[:2] for row in shown}
        for index, image_id in enumerate(datasets[name][split]["image_id"])
    }
    for pair in pairs:
        encoded = [image_bytes(datasets[row.dataset][row.split][places[row]]["image"]) for row in pair[:2]]
        yield side_by_side([load_image(picture).convert("RGB") for picture in encoded])


def side_by_side(images: Sequence[Image.Image], height: int = 240, gap: int = 8) -> Image.Image:
    images = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    sheet = Image.new("RGB", (sum(image.width for image in images) + gap, height), "white")
    for image, left in zip(images, (0, images[0].width + gap), strict=True):
        sheet.paste(image, (left, 0))
    return sheet
