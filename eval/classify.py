"""Give each image of a folder one of your labels: `rsmclip classify MODEL FOLDER --labels "A, B, C"`."""

import argparse
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import disable_progress_bars
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from rsmclip.core.command_line import printable
from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import write_whole
from rsmclip.eval.build_index import build_index, kept_index
from rsmclip.eval.embed import Embedder
from rsmclip.eval.image_sources import open_source, source_of
from rsmclip.eval.index import RECORD, BadIndex, Index, open_index
from rsmclip.eval.index_command import print_left_out
from rsmclip.eval.models import load_embedder
from rsmclip.eval.protocol import DEFAULT_PROMPTS, load_prompts
from rsmclip.eval.report import as_text
from rsmclip.eval.search import check_model, describe, image_title, pictures_of
from rsmclip.eval.sheet import COLUMNS, contact_sheet
from rsmclip.eval.zero_shot import class_embeddings, transductive_assignments

ROWS = 65_536  # of the scores that are computed at once


def classify(
    index: Index, embedder: Embedder, labels: Sequence[str], language: str = "en", transductive: bool = False
) -> np.ndarray:
    """
    Return the score of each label for each entry of an index.

    Args:
        index ([`~rsmclip.eval.index.Index`]): Embeddings of images by the model.
        embedder ([`~rsmclip.eval.embed.Embedder`]): The model.
        labels (`Sequence[str]`): Labels in one language. The prompt templates of this language are used.
        language (`str`, *optional*, defaults to `"en"`): Language of the labels.
        transductive (`bool`, *optional*, defaults to `False`): Whether to classify all entries together, with
            [`~rsmclip.eval.zero_shot.transductive_assignments`].

    Returns:
        `np.ndarray` of shape `(entries, labels)`, float32. Rows sum to 1.
    """
    classes = class_embeddings(embedder.texts, labels, load_prompts(DEFAULT_PROMPTS)[language])
    if transductive:
        return transductive_assignments(np.array(index.embeds), classes).numpy()
    scale, parts = logit_scale(embedder.model), range(0, len(index), ROWS)
    embeds = (torch.from_numpy(np.array(index.embeds[start : start + ROWS])) for start in parts)
    return torch.cat([(scale * part @ classes.cpu().T).softmax(dim=1) for part in embeds]).numpy()


def logit_scale(model: PreTrainedModel) -> float:
    """Return the factor of the cosines that a model was trained with; CLIP's largest, 100, if the model has none."""
    scale = dict(model.named_parameters()).get("logit_scale")
    return 100.0 if scale is None else float(scale.detach().exp())


def split_labels(text: str) -> list[str]:
    """Split labels at commas of any script, semicolons and line breaks. Raises [`UserError`] for fewer than two."""
    labels = [" ".join(label.split()) for label in re.split(r"[,;\n，、；]", text)]
    labels = [label for label in labels if label]
    if repeated := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"--labels has {repeated!r} twice")
    if len(labels) < 2:
        raise UserError(f'--labels "{text}" has {len(labels)} labels: give two or more, separated by commas')
    return labels


def open_images(arguments: argparse.Namespace) -> tuple[Index, Embedder]:
    """Open an index, or embed a folder. Embeddings of a folder are kept in `HF_HOME/rsmclip/indexes`."""
    folder = Path(arguments.source)
    if (folder / RECORD).is_file():
        with user_errors(BadIndex):
            index = open_index(folder)
        embedder = load_embedder(arguments.model, dtype=index.record["dtype"], revision=arguments.revision)
        check_model(index, embedder, arguments.model)
        return index, embedder
    source = open_source(arguments.source)
    embedder = load_embedder(arguments.model, revision=arguments.revision)
    folder = kept_index(source, embedder)
    print_left_out(build_index(source, embedder, folder, arguments.model, arguments.revision))
    return open_index(folder), embedder


def run(arguments: argparse.Namespace) -> None:
    """Classify, and print or write a line for each image and a line for each label."""
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    labels = split_labels(arguments.labels)
    index, embedder = open_images(arguments)
    scores = classify(index, embedder, labels, arguments.language, arguments.transductive)
    best = scores.argmax(axis=1)
    if arguments.csv:
        write_whole(arguments.csv, as_csv(index, labels, scores), errors="surrogateescape")
    else:
        for row, label in enumerate(best):
            print(f"{scores[row, label]:.3f}  {labels[label]}  {describe(index.entry(row))}")
    counts = np.bincount(best, minlength=len(labels))
    table = [[label, f"{count:,}", f"{count / len(best):.1%}"] for label, count in zip(labels, counts, strict=True)]
    print("\n" * (not arguments.csv) + as_text(["label", unit_of(index), "share"], table))
    if arguments.sheet:
        save(contact_sheet(list(sections(index, labels, scores))), arguments.sheet)
    for path in filter(None, [arguments.csv, arguments.sheet]):
        print(f"written: {path}")


def as_csv(index: Index, labels: Sequence[str], scores: np.ndarray) -> str:
    """Return a table with a row per entry: path, box and coordinates of a tile, best label, its score, all scores."""
    tiles = ["left", "top", "right", "bottom", "longitude", "latitude"] if index.record["tile"] else []
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", *tiles, "label", "score", *labels])
    for place, best in enumerate(scores.argmax(axis=1)):
        entry = index.entry(place)
        where = [*entry["box"], *entry.get("coordinates", ["", ""])] if tiles else []
        values = [f"{score:.4f}" for score in scores[place]]
        rows.writerow([entry["path"], *where, labels[best], values[best], *values])
    return text.getvalue()


def sections(index: Index, labels: Sequence[str], scores: np.ndarray) -> Iterator[tuple[str, list[Any], list[str]]]:
    """Yield heading, images and titles of each label that some image has: the images with the highest scores."""
    source, best = source_of(index), scores.argmax(axis=1)
    for number, label in enumerate(labels):
        rows = np.flatnonzero(best == number)
        first = rows[np.argsort(-scores[rows, number], kind="stable")][:COLUMNS]
        if len(rows):
            entries = [index.entry(row) for row in first]
            named = zip(scores[first, number], entries, strict=True)
            titles = [f"{score:.2f}\n{image_title(entry)}" for score, entry in named]
            yield printable(f"{label}: {len(rows):,} {unit_of(index)}"), pictures_of(source, entries), titles


def unit_of(index: Index) -> str:
    return "tiles" if index.record["tile"] else "images"
