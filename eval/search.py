"""Search the images of an index by text, by image, or by both: `rsmclip search INDEX "TEXT" --image FILE`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from rsmclip.core.command_line import printable
from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.images import decode_image
from rsmclip.eval.embed import Embedder
from rsmclip.eval.image_sources import Source, entry_image, source_of
from rsmclip.eval.index import BadIndex, Index, nearest, open_index
from rsmclip.eval.models import load_embedder
from rsmclip.eval.retrieval import unit_rows
from rsmclip.eval.sheet import contact_sheet, shorten

DRAWN = 100  # most images of a contact sheet


class Found(NamedTuple):
    """A search result."""

    score: float  # cosine similarity of image and query
    entry: dict[str, Any]  # see [`~rsmclip.eval.index.Index.entry`]


def search_index(
    index: Index, embedder: Embedder, text: str | None = None, image: str | Path | None = None, top: int = 20
) -> list[Found]:
    """
    Find the entries of an index that fit a query best.

    Args:
        index ([`~rsmclip.eval.index.Index`]): An open index.
        embedder ([`~rsmclip.eval.embed.Embedder`]): The model of the index.
        text (`str`, *optional*): A text in any language of the model.
        image (`str` or `Path`, *optional*): An image file. With a text, the sum of both unit embeddings is searched.
        top (`int`, *optional*, defaults to 20): Number of results.

    Returns:
        `list[Found]`: Results, best first. Entries with equal scores have the order of the index.

    Raises:
        [`UserError`]: There is no query, the image cannot be read, or the model has embeddings of another length.
    """
    query = embed_query(embedder, text, image)
    if len(query) != (dim := index.embeds.shape[1]):
        raise UserError(f"{index.folder} has embeddings of length {dim}, but those of the model have {len(query)}")
    return [Found(score, index.entry(row)) for row, score in zip(*nearest(index.embeds, query, top), strict=True)]


def embed_query(embedder: Embedder, text: str | None, image: str | Path | None) -> np.ndarray:
    check_query(text, image)
    parts = [] if text is None else [embedder.texts([text])]
    if image is not None:
        with user_errors(OSError, prefix=f"{image} cannot be read"):
            encoded = Path(image).read_bytes()
        picture = decode_image({"bytes": encoded}, str(image))
        inputs = embedder.processor.image_processor([picture], return_tensors="pt")
        parts.append(embedder.run(embedder.model.get_image_features, inputs))
    return unit_rows(unit_rows(torch.cat(parts), "query").sum(dim=0, keepdim=True), "query")[0].cpu().numpy()


def check_query(text: str | None, image: str | Path | None) -> None:
    if text is None and image is None:
        raise UserError("nothing to search for: give a text, --image FILE or both")
    if text is not None and not text.strip():
        raise UserError("the text is empty")
    if image is not None and not Path(image).is_file():
        raise UserError(f"--image {image}: there is no such file")


def open_with_model(folder: Path, model: str | None = None) -> tuple[Index, Embedder]:
    """
    Open an index and load its model.

    Args:
        folder (`Path`): The index.
        model (`str`, *optional*): Folder or Hub id of the model; by default the name in the index.

    Raises:
        [`UserError`]: The index is damaged, or the model is not the one of the index.
    """
    with user_errors(BadIndex):
        index = open_index(folder)
    record = index.record
    name, revision = (model, None) if model else (record["model"], record["revision"])
    embedder = load_embedder(name, dtype=record["dtype"], revision=revision)
    check_model(index, embedder, name)
    return index, embedder


def check_model(index: Index, embedder: Embedder, name: str) -> None:
    """Raise [`UserError`] if an index was made by another model."""
    if embedder.hash != index.record["model_hash"]:
        raise UserError(
            f"{index.folder} was made by {index.record['model']} (hash {index.record['model_hash']}), and {name} has "
            f"hash {embedder.hash}: use the model of the index, or index again"
        )


def run(arguments: argparse.Namespace) -> None:
    """Search, print the results, and draw them if asked."""
    transformers_logging.disable_progress_bar()
    check_query(arguments.text, arguments.image)
    index, embedder = open_with_model(arguments.index, arguments.model)
    found = search_index(index, embedder, arguments.text, arguments.image, arguments.top)
    if arguments.json:
        print("[\n " + ",\n ".join(json.dumps(as_json(*result)) for result in found) + "\n]")
    else:
        for place, result in enumerate(found, start=1):
            print(f"{place:>{len(str(len(found)))}}  {result.score:.4f}  {describe(result.entry)}")
    if arguments.sheet:
        asked = [arguments.text, arguments.image and f"images like {arguments.image.name}"]
        draw(index, found, " + ".join(filter(None, asked)), arguments.sheet)
        print(f"contact sheet: {arguments.sheet}", file=sys.stderr if arguments.json else sys.stdout)


def draw(index: Index, found: list[Found], heading: str, path: Path) -> None:
    """Draw the first `DRAWN` results on a contact sheet."""
    found = found[:DRAWN]
    images = pictures_of(source_of(index), [result.entry for result in found])
    titles = [f"{place}   {score:.3f}\n{image_title(entry)}" for place, (score, entry) in enumerate(found, start=1)]
    save(contact_sheet([(printable(heading), images, titles)]), path)


def as_json(score: float, entry: dict[str, Any]) -> dict[str, Any]:
    shown = {name: entry[name] for name in ("box", "coordinates") if name in entry}
    return {"path": entry["path"], "score": round(score, 6)} | shown


def describe(entry: dict[str, Any]) -> str:
    """Return the path of an entry with box and coordinates, in one printable line."""
    line = printable(entry["path"])
    if "box" in entry:
        line += "  {} {} {} {}".format(*entry["box"])
    if "coordinates" in entry:
        line += "  {:.5f} {:.5f}".format(*entry["coordinates"])
    return line


def image_title(entry: dict[str, Any]) -> str:
    """Return the path of an entry for a contact sheet, shortened from the left, and the box of a tile in a line."""
    box = "\n{}, {} – {}, {}".format(*entry["box"]) if "box" in entry else ""
    return shorten(printable(entry["path"]), 48 if not box else 26) + box


def pictures_of(source: Source, entries: list[dict[str, Any]]) -> list[Image.Image | None]:
    """Return the images of entries. `None` stands for an image that is gone, which is named on standard error."""
    images: list[Image.Image | None] = []
    for entry in entries:
        try:
            images.append(entry_image(source, entry))
        except UserError as error:
            print(f"not drawn: {printable(entry['path'])}: {error}", file=sys.stderr)
            images.append(None)
    return images
