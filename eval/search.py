"""Search the images of an index by text, by image, or by both: `rsmclip search INDEX "TEXT" --image FILE`."""

import argparse
import json
import reprlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from rsmclip.core.arguments import check_count, check_type
from rsmclip.core.command_line import printable
from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError, foreign_errors, user_errors
from rsmclip.core.images import check_size, decode_image
from rsmclip.eval.embed import Embedder
from rsmclip.eval.image_folder import is_unicode
from rsmclip.eval.image_sources import Source, entry_image, source_of
from rsmclip.eval.index import BadIndex, Index, nearest, open_index
from rsmclip.eval.index_files import read_entry
from rsmclip.eval.models import as_embedder
from rsmclip.eval.retrieval import unit_rows
from rsmclip.eval.sheet import contact_sheet, shorten
from rsmclip.image_processing_rsmclip import as_image

DRAWN = 100  # most images of a contact sheet
MAX_CHARACTERS = 10_000  # of a text; the tokenizer then cuts it at the model's maximum length

QueryImage = str | Path | Image.Image | np.ndarray


class Found(NamedTuple):
    """A search result."""

    score: float  # cosine similarity of image and query
    entry: dict[str, Any]  # see [`~rsmclip.eval.index.Index.entry`]


def search(
    index: str | Path | Index,
    text: str | None = None,
    image: QueryImage | None = None,
    top: int = 20,
    model: str | Path | Embedder | None = None,
) -> list[Found]:
    """
    Find the entries of an index that fit a query best.

    Args:
        index (`str`, `Path` or [`~rsmclip.eval.index.Index`]): Folder of an index, or an open index.
        text (`str`, *optional*): A text in any language of the model.
        image (`str`, `Path`, `PIL.Image.Image` or `np.ndarray`, *optional*): An image or its file; an array as for
            [`~rsmclip.image_processing_rsmclip.as_image`]. With a text, the sum of both unit embeddings is searched.
        top (`int`, *optional*, defaults to 20): Number of results.
        model (`str`, `Path` or [`~rsmclip.eval.embed.Embedder`], *optional*): Folder or Hub id of the model, or the
            loaded model. By default the model that the index names is loaded. For many searches, load it once with
            [`~rsmclip.eval.models.load_embedder`].

    Returns:
        `list[Found]`: Results, best first. Entries with equal scores have the order of the index.

    Raises:
        [`UserError`]: There is no query, the index is damaged, the image or the model cannot be read, another model
            made the index, or an argument has another type.
    """
    check_query(text, image)
    index, top = as_index(index), check_count("top", top)
    query = embed_query(model_of(index, model), text, image)
    return [
        Found(score, read_entry(index, row)) for row, score in zip(*nearest(index.embeds, query, top), strict=True)
    ]


def embed_query(embedder: Embedder, text: str | None, image: QueryImage | None) -> np.ndarray:
    parts = [] if text is None else [embedder.texts([text])]
    if image is not None:
        inputs = embedder.processor.image_processor([read_query(image)], return_tensors="pt")
        parts.append(embedder.run(embedder.model.get_image_features, inputs))
    return unit_rows(unit_rows(torch.cat(parts), "query").sum(dim=0, keepdim=True), "query")[0].cpu().numpy()


def check_query(text: str | None, image: QueryImage | None) -> None:
    if text is None and image is None:
        raise UserError("nothing to search for: give a text, an image or both")
    if text is not None:
        check_text(text, "the text")
    check_type("image", image, QueryImage | None, "a file, a PIL image or an array")
    if isinstance(image, str | Path) and not Path(image).is_file():
        raise UserError(f"image {image}: there is no such file")


def check_text(text: object, name: str) -> None:
    """Raise [`UserError`] if a value is not a text that a model can read. `name` begins the error line."""
    if not isinstance(text, str):
        raise UserError(f"{name} is {reprlib.repr(text)}, not a text")
    if not text.strip():
        raise UserError(f"{name} is empty")
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{name} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are accepted")
    if not is_unicode(text):
        raise UserError(f"{name} {text!r} has bytes that are not UTF-8: set the terminal to UTF-8")


def read_query(image: QueryImage) -> Image.Image:
    if not isinstance(image, str | Path):
        with foreign_errors("image cannot be used (a PIL image must be open)"):
            image = as_image(image).convert("RGB")
        check_size(*image.size)  # an embedding is no image
        return image
    with user_errors(OSError, prefix=f"{image} cannot be read"):
        encoded = Path(image).read_bytes()
    return decode_image({"bytes": encoded}, str(image))


def as_index(index: str | Path | Index) -> Index:
    """Open an index. An open index is returned unchanged. Raises [`UserError`] if there is none or it is damaged."""
    check_type("index", index, str | Path | Index, "the folder of an index, or an open index")
    if isinstance(index, Index):
        return index
    with user_errors(BadIndex):
        return open_index(Path(index))


def model_of(index: Index, model: str | Path | Embedder | None = None, revision: str | None = None) -> Embedder:
    """Return the model of an index; by default load the one that it names. Raises [`UserError`] for another model."""
    record = index.record
    if model is None:
        model, revision = record["model"], record["revision"]
        if Path(model).is_absolute() and not Path(model).exists():
            raise UserError(f"{index.folder} was made by the model {model}, which is gone: give its folder (--model)")
    embedder = as_embedder(model, dtype=record["dtype"], revision=revision)
    if embedder.hash != record["model_hash"]:
        raise UserError(
            f"{index.folder} was made by {record['model']} (hash {record['model_hash']}), and {embedder.name} has "
            f"hash {embedder.hash}: use the model of the index, or index again"
        )
    return embedder


def run(arguments: argparse.Namespace) -> None:
    """Search, print the results, and draw them if asked."""
    transformers_logging.disable_progress_bar()
    index = as_index(arguments.index)
    found = search(index, arguments.text, arguments.image, arguments.top, arguments.model)
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
