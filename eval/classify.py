"""Give each image of a folder one of your labels: `rsmclip classify MODEL FOLDER --labels "A, B, C"`."""

import argparse
import csv
import io
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import disable_progress_bars
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from rsmclip.core.arguments import check_type
from rsmclip.core.command_line import printable
from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError
from rsmclip.core.files import write_whole
from rsmclip.eval.build_index import build_index, kept_index
from rsmclip.eval.embed import Embedder
from rsmclip.eval.image_sources import open_source, source_of
from rsmclip.eval.index import RECORD, Index, open_index
from rsmclip.eval.index_command import print_left_out
from rsmclip.eval.index_files import read_entry
from rsmclip.eval.models import as_embedder
from rsmclip.eval.protocol import DEFAULT_PROMPTS, load_prompts
from rsmclip.eval.report import as_text, cells, pad
from rsmclip.eval.search import as_index, check_text, describe, image_title, model_of, pictures_of
from rsmclip.eval.sheet import COLUMNS, contact_sheet
from rsmclip.eval.zero_shot import class_embeddings, transductive_assignments

LIST_AS_TEXT = re.compile(r"\s*\[.*\]\s*", re.DOTALL)  # ["a", "b"]
ROWS = 65_536  # of the scores that are computed at once


class Labeled(NamedTuple):
    """The label of an image or tile with the highest score."""

    label: str
    score: float
    entry: dict[str, Any]  # see [`~rsmclip.eval.index.Index.entry`]


@dataclass
class Classified:
    """The scores of labels for the entries of an index. Iteration yields [`Labeled`] in the order of the index."""

    index: Index
    labels: list[str]
    scores: np.ndarray  # (entries, labels) float32, rows sum to 1
    left_out: dict[str, str] = field(default_factory=dict)  # path: reason, of images that could not be read

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Labeled]:
        for row, label in enumerate(self.best):
            yield Labeled(self.labels[label], float(self.scores[row, label]), read_entry(self.index, row))

    @property
    def best(self) -> np.ndarray:
        """Return the number of the label with the highest score for each entry, `(entries,)`."""
        return self.scores.argmax(axis=1)


def classify(
    images: str | Path | Index,
    model: str | Path | Embedder,
    labels: Iterable[str],
    language: str = "en",
    transductive: bool = False,
    revision: str | None = None,
) -> Classified:
    """
    Give each image of a folder or of an index one of some labels.

    Args:
        images (`str`, `Path` or [`~rsmclip.eval.index.Index`]): A folder of images, with any folders inside; a corpus;
            the folder of an index by this model; or an open index. The embeddings of a folder are kept in
            `HF_HOME/rsmclip/indexes`.
        model (`str`, `Path` or [`~rsmclip.eval.embed.Embedder`]): Folder or Hub id of a model; or a loaded model, the
            result of [`~rsmclip.eval.models.load_embedder`].
        labels (`Iterable[str]`): Two or more labels in one language. The prompt templates of this language are used.
        language (`str`, *optional*, defaults to `"en"`): Language of the labels.
        transductive (`bool`, *optional*, defaults to `False`): Whether to classify all images together, with
            [`~rsmclip.eval.zero_shot.transductive_assignments`].
        revision (`str`, *optional*): Branch, tag or commit of a Hub id.

    Raises:
        [`UserError`]: The labels are fewer than two or not distinct, the language has no templates, no image can be
            read, the model does not exist, or another model made the index.
    """
    labels, templates = check_labels(labels), load_prompts(DEFAULT_PROMPTS)
    if language not in list(templates):  # a list of languages has no hash
        raise UserError(f"language {language!r} has no prompt templates: choose from {', '.join(templates)}")
    index, embedder, left_out = open_images(images, model, revision)
    classes = class_embeddings(embedder.texts, labels, templates[language])
    if transductive:
        scores = transductive_assignments(np.array(index.embeds), classes).numpy()
    else:
        scores = softmax_scores(index, classes, logit_scale(embedder.model))
    return Classified(index, labels, scores, left_out)


def open_images(
    images: str | Path | Index, model: str | Path | Embedder, revision: str | None
) -> tuple[Index, Embedder, dict[str, str]]:
    """Open an index, or embed a folder. Returns index, model, and the images of a folder that are left out."""
    check_type("images", images, str | Path | Index, "a folder of images, a corpus, or an index")
    if isinstance(images, Index) or (Path(images) / RECORD).is_file():
        index = as_index(images)
        return index, model_of(index, model, revision), {}
    source = open_source(str(images))
    embedder = as_embedder(model, revision=revision)
    folder = kept_index(source, embedder)
    report = build_index(source, embedder, folder)
    return open_index(folder), embedder, report.left_out


def softmax_scores(index: Index, classes: torch.Tensor, scale: float) -> np.ndarray:
    # Softmax of scaled cosines, in parts: the index may be larger than the memory.
    parts = range(0, len(index), ROWS)
    embeds = (torch.from_numpy(np.array(index.embeds[start : start + ROWS])) for start in parts)
    return torch.cat([(scale * part @ classes.cpu().T).softmax(dim=1) for part in embeds]).numpy()


def logit_scale(model: PreTrainedModel) -> float:
    """Return the factor of the cosines that a model was trained with; CLIP's largest, 100, if the model has none."""
    scale = dict(model.named_parameters()).get("logit_scale")
    return 100.0 if scale is None else float(scale.detach().exp())


def split_labels(text: str) -> list[str]:
    """Split labels at commas of any script, semicolons and line breaks. Raises [`UserError`] for a list in JSON."""
    if LIST_AS_TEXT.fullmatch(text):
        raise UserError("labels are in brackets: write them as a, b, c")
    labels = (" ".join(label.split()) for label in re.split(r"[,;\n，、；]", text))
    return [label for label in labels if label]


def check_labels(labels: Iterable[str]) -> list[str]:
    """Return the labels as a list. Raises [`UserError`] for fewer than two, and for labels that are not usable."""
    if isinstance(labels, str) or not isinstance(labels, Iterable) or len(labels := list(labels)) < 2:
        raise UserError(f"labels are {reprlib.repr(labels)}: give a list of two or more")
    for label in labels:
        check_text(label, "labels: one")
    if repeated := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"labels: {repeated!r} is there twice")
    return labels


def run(arguments: argparse.Namespace) -> None:
    """Classify, and print or write a line for each image and a line for each label."""
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    labels, options = split_labels(arguments.labels), (arguments.language, arguments.transductive, arguments.revision)
    found = classify(arguments.images, arguments.model, labels, *options)
    print_left_out(found.left_out)
    if arguments.csv:
        write_whole(arguments.csv, as_csv(found), errors="surrogateescape")
    else:
        width = max(map(cells, labels))
        for label, score, entry in found:
            print(f"{score:.3f}  {pad(label, width)}  {describe(entry)}")
    counts = np.bincount(found.best, minlength=len(labels))
    table = [[label, f"{count:,}", f"{count / len(found):.1%}"] for label, count in zip(labels, counts, strict=True)]
    print("\n" * (not arguments.csv) + as_text(["label", unit_of(found.index), "share"], table))
    if arguments.sheet:
        save(contact_sheet(list(sections(found))), arguments.sheet)
    for path in filter(None, [arguments.csv, arguments.sheet]):
        print(f"written: {path}")


def as_csv(found: Classified) -> str:
    """Return a table with a row per entry: path, box and coordinates of a tile, best label, its score, all scores."""
    tiles = ["left", "top", "right", "bottom", "longitude", "latitude"] if found.index.record["tile"] else []
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", *tiles, "label", "score", *found.labels])
    for (label, score, entry), scores in zip(found, found.scores, strict=True):
        where = [*entry.get("box", [""] * 4), *entry.get("coordinates", [""] * 2)] if tiles else []
        rows.writerow([entry["path"], *where, label, f"{score:.4f}", *(f"{value:.4f}" for value in scores)])
    return text.getvalue()


def sections(found: Classified) -> Iterator[tuple[str, list[Any], list[str]]]:
    """Yield heading, images and titles of each label that some image has: the images with the highest scores."""
    index, scores, best, source = found.index, found.scores, found.best, source_of(found.index)
    for number, label in enumerate(found.labels):
        rows = np.flatnonzero(best == number)
        first = rows[np.argsort(-scores[rows, number], kind="stable")][:COLUMNS]
        if len(rows):
            entries = [read_entry(index, row) for row in first]
            named = zip(scores[first, number], entries, strict=True)
            titles = [f"{score:.2f}\n{image_title(entry)}" for score, entry in named]
            yield printable(f"{label}: {len(rows):,} {unit_of(index)}"), pictures_of(source, entries), titles


def unit_of(index: Index) -> str:
    return "tiles" if index.record["tile"] else "images"
