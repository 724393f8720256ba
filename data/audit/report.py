"""Reports of a leakage audit: a summary for the dataset card, JSON for programs, Markdown with pictures to look at."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from urllib.parse import quote

from datasets import DatasetDict
from PIL import Image, ImageDraw, ImageFont

from rsmclip.core.images import image_bytes, open_encoded
from rsmclip.data.audit.leaks import AuditedRow, AuditReport, Pair

SHOWN_PAIRS = 100  # in the Markdown, and as many sets of captions
SHOWN_ROWS = 10  # of a set of captions


def summary(report: AuditReport) -> str:
    """What was found in a few lines of Markdown, with a table of pairs by split."""
    crossing = sum(map(report.leaks, report.caption_sets))
    lines = [
        f"{sum(report.rows.values()):,} rows audited, {len(report.pairs):,} pairs show the same picture. "
        f"Rows of `train` that show what is evaluated on: {len(report.to_remove):,}. "
        f"Sets of captions at several rows: {len(report.caption_sets):,}, from `train` to evaluation {crossing:,}."
    ]
    if report.pairs:
        lines += ["", "| same picture in | and in | pairs |", "| --- | --- | ---: |"]
    counts = Counter((pair.first[:2], pair.second[:2]) for pair in report.pairs)
    for places in combinations_with_replacement(report.rows, 2):  # in the order of the datasets, as in each pair
        if counts[places]:
            lines.append("".join(f"| {dataset}, {split} " for dataset, split in places) + f"| {counts[places]:,} |")
    return "\n".join(lines)


def write_report(report: AuditReport, datasets: Mapping[str, DatasetDict], path: Path) -> None:
    """
    Writes a report as JSON, as Markdown beside it, and a folder of shown pairs. A report that is there is replaced,
    each part once the new one is complete.

    Args:
        report ([`AuditReport`]): What [`audit`] found.
        datasets (`dict[str, DatasetDict]`): What it was given, for the pictures.
        path (`Path`): The JSON file, `REPORT.json`; Markdown goes to `REPORT.md`, pictures to `REPORT_pairs`.

    Raises:
        `FileExistsError`: There is a folder of that name with something else in it.
    """
    path = path.resolve()
    text, folder = path.with_suffix(".md"), path.with_name(f"{path.stem}_pairs")
    if folder.exists() and any(file.suffix != ".jpg" for file in folder.iterdir()):
        raise FileExistsError(f"{folder} holds more than pictures of pairs, so it is not overwritten")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        (aside / "pairs").mkdir(parents=True)
        shown = report.pairs[:SHOWN_PAIRS]
        for number, image in enumerate(draw_pairs(shown, datasets), start=1):
            image.save(aside / "pairs" / f"{number:03}.jpg", quality=90)
        (aside / "json").write_text(json.dumps(as_json(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (aside / "md").write_text(as_markdown(report, quote(folder.name)), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        (aside / "pairs").rename(folder)
        (aside / "md").replace(text)
        (aside / "json").replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def as_json(report: AuditReport) -> dict:
    """A report, complete."""
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


def as_markdown(report: AuditReport, folder: str) -> str:
    """A report to read: the first pairs with their pictures, and the first groups with their first rows."""
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
    """A row as it is named in text."""
    return f"{row.dataset}, {row.split}, `{row.image_id}`"


def draw_pairs(pairs: Sequence[Pair], datasets: Mapping[str, DatasetDict]) -> Iterator[Image.Image]:
    """Pairs side by side, with the names of the rows below."""
    shown = {row for pair in pairs for row in pair[:2]}
    places = {
        AuditedRow(name, split, image_id): index
        for name, split in {row[:2] for row in shown}
        for index, image_id in enumerate(datasets[name][split]["image_id"])
    }
    for pair in pairs:
        encoded = [image_bytes(datasets[row.dataset][row.split][places[row]]["image"]) for row in pair[:2]]
        yield draw_pair([open_encoded(picture).convert("RGB") for picture in encoded], pair[:2])


def draw_pair(images: Sequence[Image.Image], rows: Sequence[AuditedRow]) -> Image.Image:
    """Two pictures at the same height, side by side, with the names of their rows below."""
    height, gap, line, font = 240, 8, 16, ImageFont.load_default(12)
    images = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    captions = [f"{row.dataset}, {row.split}\n{row.image_id}" for row in rows]
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    texts = [pen.multiline_textbbox((0, 0), caption, font=font)[2] for caption in captions]
    widths = [max(image.width, int(text) + 1) for image, text in zip(images, texts, strict=True)]
    sheet = Image.new("RGB", (sum(widths) + gap, height + 2 * line + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for image, caption, left in zip(images, captions, (0, widths[0] + gap), strict=True):
        sheet.paste(image, (left, 0))
        pen.multiline_text((left, height + 2), caption, fill=(40, 40, 40), font=font)
    return sheet
