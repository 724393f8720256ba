"""Search by text or image in an index that an evaluation left: `python -m rsmclip.eval search INDEX QUERY`.

An index is a folder: `dataset` (`image`, encoded, and `image_id`), `images.faiss` (their unit embeddings, searched
exactly by inner product) and `index.json` (the model that made them, and of what).
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import datasets
import numpy as np
import torch
import transformers
from datasets import Dataset, load_from_disk
from PIL import Image
from transformers.utils import logging as transformers_logging

import rsmclip
from rsmclip.core.command_line import OneLineParser
from rsmclip.core.drawing import save
from rsmclip.core.files import read_json
from rsmclip.core.images import decode_image
from rsmclip.eval.embed import Embedder
from rsmclip.eval.image_folder import IMAGE_SUFFIXES
from rsmclip.eval.models import load_embedder
from rsmclip.eval.retrieval import unit_rows
from rsmclip.eval.sheet import contact_sheet

COLUMN = "image_embeds"  # what the FAISS index is called in the dataset
FAISS_FILE, RECORD = "images.faiss", "index.json"
ID_LETTERS = 48  # of an image's id on the contact sheet


class Found(NamedTuple):
    """
    An image that was found.

    Args:
        score (`float`): Cosine of the angle between its embedding and the query's.
        image_id (`str`): Its id.
        image (`PIL.Image.Image`): The image in RGB.
    """

    score: float
    image_id: str
    image: Image.Image


@dataclass
class SearchIndex:
    """
    An open index.

    Args:
        folder (`Path`): Where it lies.
        rows (`datasets.Dataset`): `image` (encoded) and `image_id`, with the FAISS index.
        model (`str`): Folder or Hub id of the model that made it.
        model_hash (`str`): Hash of that model.
        dimension (`int`): Length of an embedding.
        revision (`str`, *optional*): Branch, tag or commit of a Hub id.
        dtype (`str`, *optional*, defaults to `"float32"`): What the model computed in.
    """

    folder: Path
    rows: Dataset
    model: str
    model_hash: str
    dimension: int
    revision: str | None = None
    dtype: str = "float32"


def import_faiss():
    """The `faiss` module; `ValueError` says how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ValueError(f"an index needs FAISS: pip install -e '.[search]' ({error})") from error
    return faiss


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index."""
    return (folder / RECORD).is_file() and (folder / FAISS_FILE).is_file()


def check_place(folder: Path) -> None:
    """Raises `ValueError` unless an index can go there: a new or an empty folder, or an older index."""
    if folder.exists() and not is_index(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no index; choose another folder for the index")


def write_index(
    folder: Path,
    rows: Dataset,
    image_embeds: torch.Tensor | np.ndarray,
    model: str,
    model_hash: str,
    fingerprint: str,
    revision: str | None = None,
    dtype: str = "float32",
) -> None:
    """
    Writes an index: whole, or not at all. An older index in the folder is replaced.

    Args:
        folder (`Path`):
            Where it goes: a new or an empty folder, or an index.
        rows (`datasets.Dataset`):
            Columns `image` and `image_id`.
        image_embeds (`torch.Tensor` of shape `(rows, dim)`):
            The images' embeddings; they are normalised here.
        model (`str`):
            Folder or Hub id of the model that made them, loaded again to search.
        model_hash (`str`):
            Its hash.
        fingerprint (`str`):
            Of the rows.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub id.
        dtype (`str`, *optional*, defaults to `"float32"`):
            What the model computed in, as [`~rsmclip.eval.models.load_embedder`] takes it.

    Raises:
        `ValueError`: If the folder holds something else, FAISS is missing, or rows and embeddings don't fit.
    """
    faiss, folder = import_faiss(), folder.absolute()
    check_place(folder)
    embeds = unit_rows(image_embeds, "image").cpu().numpy()
    if len(embeds) != len(rows):
        raise ValueError(f"{len(embeds)} embeddings for {len(rows)} images")
    modules = (rsmclip, datasets, faiss, torch, transformers)
    record = {
        "model": model,
        "model_hash": model_hash,
        "revision": revision,
        "dtype": dtype,
        "rows": len(rows),
        "dimension": embeds.shape[1],
        "fingerprint": fingerprint,
        "versions": {module.__name__: module.__version__ for module in modules},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
        fill_index(Path(aside) / "new", rows, embeds, record)
        if folder.exists():
            folder.rename(Path(aside) / "old")
        (Path(aside) / "new").rename(folder)


def fill_index(folder: Path, rows: Dataset, embeds: np.ndarray, record: dict) -> None:
    """Writes the three parts of an index into a new folder; `embeds` are unit rows in float32, `(rows, dim)`."""
    faiss = import_faiss()
    rows = rows.select_columns(["image", "image_id"]).cast_column("image", datasets.Image(decode=False))
    rows.save_to_disk(folder / "dataset")
    rows.add_faiss_index_from_external_arrays(embeds, COLUMN, metric_type=faiss.METRIC_INNER_PRODUCT)
    rows.save_faiss_index(COLUMN, folder / FAISS_FILE)
    (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def open_index(folder: Path) -> SearchIndex:
    """
    Opens an index.

    Args:
        folder (`Path`): What [`write_index`] wrote.

    Raises:
        `ValueError`: If it is none, is damaged, or FAISS is missing.
    """
    import_faiss()
    if not is_index(folder):
        raise ValueError(
            f"{folder} is no index: it lacks {RECORD} and {FAISS_FILE}; an evaluation with --index makes one"
        )
    record = read_json(folder / RECORD)
    rows = load_from_disk(folder / "dataset")
    try:
        rows.load_faiss_index(COLUMN, folder / FAISS_FILE)
    except RuntimeError as error:
        raise ValueError(f"{folder / FAISS_FILE} is damaged, make the index again: {error}") from error
    vectors = rows.get_index(COLUMN).faiss_index
    if not len(rows) == vectors.ntotal == record["rows"] or vectors.d != record["dimension"]:
        raise ValueError(
            f"{folder} is damaged, make the index again: {len(rows)} images and {vectors.ntotal} embeddings of length "
            f"{vectors.d} where {RECORD} says {record['rows']} of length {record['dimension']}"
        )
    made = {name: record[name] for name in ("model", "model_hash", "dimension", "revision", "dtype") if name in record}
    return SearchIndex(folder, rows, **made)


def search_index(index: SearchIndex, embedder: Embedder, query: str | Path, top: int = 10) -> list[Found]:
    """
    The images that a query fits best, best first; equal scores in the order of the rows.

    Args:
        index ([`SearchIndex`]):
            The index.
        embedder ([`~rsmclip.eval.embed.Embedder`]):
            The model that made it.
        query (`str` or `Path`):
            A text in any of the model's languages, or an image's file.
        top (`int`, *optional*, defaults to 10):
            Number of images; all if there are fewer.

    Raises:
        `ValueError`: If the query is empty or no image, or the model's embeddings have another length.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}")
    vector = unit_rows(embed_query(embedder, query), "query")[0].numpy()
    if len(vector) != index.dimension:
        raise ValueError(
            f"{index.folder} holds embeddings of length {index.dimension} by {index.model}; this model's have "
            f"length {len(vector)}"
        )
    scores, places = nearest(index.rows, vector, top)
    columns = index.rows[places]
    return [
        Found(score, image_id, decode_image(image, image_id))
        for score, image_id, image in zip(scores, columns["image_id"], columns["image"], strict=True)
    ]


def embed_query(embedder: Embedder, query: str | Path) -> torch.Tensor:
    """A text's embedding, or an image's if the query is its file, `(1, dim)`."""
    check_query(query)
    if os.path.isfile(query):
        image = {"bytes": Path(query).read_bytes(), "path": None}
        features = datasets.Features({"image": datasets.Image(decode=False), "image_id": datasets.Value("string")})
        return embedder.images(Dataset.from_dict({"image": [image], "image_id": [str(query)]}, features=features))
    return embedder.texts([query])


def check_query(query: str | Path) -> None:
    """Raises `ValueError` if a query is empty or the name of an image that isn't there."""
    if not str(query).strip():
        raise ValueError("the query is empty: give a text or an image's file")
    is_name = isinstance(query, Path) or Path(query).suffix.lower() in IMAGE_SUFFIXES
    if is_name and not os.path.isfile(query):
        raise ValueError(f"there is no image {query}")


def nearest(rows: Dataset, vector: np.ndarray, top: int) -> tuple[list[float], list[int]]:
    """Scores and places of the best rows. FAISS leaves open which of several equal ones it gives, so all are asked."""
    count = min(top + 1, len(rows))
    while True:
        scores, places = rows.search(COLUMN, vector, k=count)
        if count == len(rows) or scores[-1] < scores[top - 1]:
            break
        count = min(2 * count, len(rows))
    order = np.lexsort((places, -scores))[:top]
    return scores[order].tolist(), places[order].tolist()


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = OneLineParser(prog="python -m rsmclip.eval search", description="Searches an index by text or image.")
    parser.add_argument("index", type=Path, metavar="INDEX", help="folder that an evaluation with --index wrote")
    parser.add_argument("query", metavar="QUERY", help="a text in any of the model's languages, or an image's file")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="images to find (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("search.png"), metavar="FILE.png",
                        help="contact sheet to write (default: %(default)s)")  # fmt: skip
    parser.add_argument("--model", metavar="MODEL", help="where the model is now (default: where it was)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Searches, prints what was found and draws it."""
    query, output, top = arguments.query, arguments.output, arguments.top
    if top < 1:
        raise ValueError(f"--top must be 1 or more, not {top}")
    check_query(query)
    if output.suffix.lower() != ".png" or output.is_dir():
        raise ValueError(f"--output writes a PNG: give a name that ends in .png, not {output}")
    index = open_index(arguments.index)
    name, revision = (arguments.model, None) if arguments.model else (index.model, index.revision)
    embedder = load_embedder(name, dtype=index.dtype, revision=revision)
    if embedder.hash != index.model_hash:
        raise ValueError(
            f"the index {index.folder} is by {index.model} with hash {index.model_hash}, but {name} has hash "
            f"{embedder.hash}: name the same model with --model, or make the index again"
        )
    found = search_index(index, embedder, query, top)
    titles = []
    for place, (score, image_id, _) in enumerate(found, start=1):
        print(f"{place:>{len(str(len(found)))}}  {score:.4f}  {image_id}")
        shown = image_id if len(image_id) <= ID_LETTERS else "…" + image_id[-ID_LETTERS:]  # its end tells most
        titles.append(f"{place}   {score:.3f}\n{shown}")
    output.parent.mkdir(parents=True, exist_ok=True)
    heading = f"images like {Path(query).name}" if os.path.isfile(query) else query
    save(contact_sheet([answer.image for answer in found], titles, heading), output)
    print(f"contact sheet: {output}")


def main(arguments: list[str]) -> None:
    """
    Runs a search; bad input is one clear line and exit status 2.

    Args:
        arguments (`list[str]`): What stands on the command line after `search`.
    """
    transformers_logging.disable_progress_bar()
    try:
        run(make_parser().parse_args(arguments))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
