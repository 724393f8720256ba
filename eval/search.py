"""Search images by text or by image: `rsmclip eval search INDEX QUERY`.

An index is a folder that `rsmclip eval … --index` writes. It contains `dataset` (encoded `image` and `image_id`),
`images.faiss` (unit embeddings; the search by inner product is exact) and `index.json` (the model of the embeddings).
"""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import datasets
import numpy as np
import torch
from datasets import Dataset, load_from_disk
from PIL import Image
from transformers.utils import logging as transformers_logging

from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError, extra, user_errors
from rsmclip.core.files import read_json
from rsmclip.core.images import IMAGE_SUFFIXES, decode_image
from rsmclip.eval.embed import Embedder
from rsmclip.eval.models import load_embedder
from rsmclip.eval.retrieval import unit_rows
from rsmclip.eval.sheet import contact_sheet

COLUMN = "image_embeds"  # name of the FAISS index in the dataset
FAISS_FILE, RECORD = "images.faiss", "index.json"
ID_LETTERS = 48  # of an image id on the contact sheet


class Found(NamedTuple):
    """A search result."""

    score: float  # cosine similarity of image and query
    image_id: str
    image: Image.Image  # RGB


@dataclass
class SearchIndex:
    """An open index."""

    folder: Path
    rows: Dataset  # `image` (encoded) and `image_id`, with the FAISS index
    model: str  # folder or Hub id of the model that computed the embeddings
    model_hash: str
    revision: str | None
    dtype: str


def import_faiss():
    """Return the module `faiss`. Raises [`UserError`] if it is not installed."""
    with extra("search"):
        import faiss
    return faiss


def is_index(folder: Path) -> bool:
    return (folder / RECORD).is_file() and (folder / FAISS_FILE).is_file()


def check_place(folder: Path) -> None:
    """Raise [`UserError`] unless a folder is new, empty, or an older index."""
    with user_errors(OSError, prefix=f"the index {folder} cannot be written"):
        is_taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if is_taken and not is_index(folder):
        raise UserError(f"{folder} exists and is not an index; choose another folder for the index")


def write_index(
    folder: Path,
    rows: Dataset,
    image_embeds: torch.Tensor | np.ndarray,
    model: str,
    model_hash: str,
    revision: str | None = None,
    dtype: str = "float32",
) -> None:
    """
    Write an index. An older index of the folder is replaced when the new one is complete.

    `rows` has the columns `image` and `image_id`; `image_embeds` has shape `(rows, dim)`. A search loads the model
    again with `model`, `revision` and `dtype`.

    Raises:
        [`UserError`]: The folder has other content, FAISS is not installed, or the index cannot be written.
    """
    faiss, folder = import_faiss(), folder.absolute()
    check_place(folder)
    embeds = unit_rows(image_embeds, "image").cpu().numpy()
    if len(embeds) != len(rows):
        raise ValueError(f"{len(embeds)} embeddings for {len(rows)} images")
    record = {"model": model, "model_hash": model_hash, "revision": revision, "dtype": dtype}
    rows = rows.select_columns(["image", "image_id"]).cast_column("image", datasets.Image(decode=False))

    # Write beside the folder and rename: the folder always contains a complete index. FAISS raises RuntimeErrors.
    with user_errors(OSError, RuntimeError, prefix=f"the index {folder} cannot be written"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
            new, old = Path(aside) / "new", Path(aside) / "old"
            rows.save_to_disk(new / "dataset")
            rows.add_faiss_index_from_external_arrays(embeds, COLUMN, metric_type=faiss.METRIC_INNER_PRODUCT)
            rows.save_faiss_index(COLUMN, new / FAISS_FILE)
            (new / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)


def open_index(folder: Path) -> SearchIndex:
    """Open an index that [`write_index`] wrote. Raises [`UserError`] if it is damaged or FAISS is not installed."""
    import_faiss()
    if not is_index(folder):
        raise UserError(f"{folder} has no {RECORD} or no {FAISS_FILE}; write an index with rsmclip eval --index")
    record, names = read_json(folder / RECORD), ("model", "model_hash", "revision", "dtype")
    if missing := [name for name in names if name not in record]:
        raise UserError(f"{folder / RECORD} has no {', '.join(missing)}; write the index again")
    # pyarrow raises ValueErrors and FAISS RuntimeErrors for damaged files.
    with user_errors(OSError, ValueError, RuntimeError, prefix=f"{folder} is damaged, write it again"):
        rows = load_from_disk(folder / "dataset")
        rows.load_faiss_index(COLUMN, folder / FAISS_FILE)
    return SearchIndex(folder, rows, **{name: record[name] for name in names})


def search_index(index: SearchIndex, embedder: Embedder, query: str | Path, top: int = 10) -> list[Found]:
    """
    Find the `top` images that fit a query best. Images with equal scores are in the order of the rows.

    The query is a text in any language of the model, or an image file. `embedder` is the model of the index.

    Raises:
        [`UserError`]: The query is empty or cannot be read, or the embeddings of the model have another length.
    """
    vector = unit_rows(embed_query(embedder, query), "query")[0].numpy()
    if len(vector) != (dimension := index.rows.get_index(COLUMN).faiss_index.d):
        raise UserError(
            f"{index.folder} has embeddings of length {dimension} by {index.model}, but the embeddings of this model "
            f"have length {len(vector)}: use the model of the index"
        )
    scores, places = nearest(index.rows, vector, top)
    columns = index.rows[places]
    return [
        Found(score, image_id, decode_image(image, image_id))
        for score, image_id, image in zip(scores, columns["image_id"], columns["image"], strict=True)
    ]


def embed_query(embedder: Embedder, query: str | Path) -> torch.Tensor:
    check_query(query)
    if not os.path.isfile(query):
        return embedder.texts([query])
    with user_errors(OSError, prefix=f"{query} cannot be read"):
        image = {"bytes": Path(query).read_bytes(), "path": None}
    features = datasets.Features({"image": datasets.Image(decode=False), "image_id": datasets.Value("string")})
    return embedder.images(Dataset.from_dict({"image": [image], "image_id": [str(query)]}, features=features))


def check_query(query: str | Path) -> None:
    if not str(query).strip():
        raise UserError("the query is empty: give a text or an image file")
    is_name = isinstance(query, Path) or Path(query).suffix.lower() in IMAGE_SUFFIXES
    if is_name and not os.path.isfile(query):
        raise UserError(f"there is no image {query}")


def nearest(rows: Dataset, vector: np.ndarray, top: int) -> tuple[list[float], list[int]]:
    # FAISS returns equal scores in any order: fetch more until the last score is lower, then sort.
    count = min(top + 1, len(rows))
    while True:
        scores, places = rows.search(COLUMN, vector, k=count)
        if count == len(rows) or scores[-1] < scores[top - 1]:
            break
        count = min(2 * count, len(rows))
    order = np.lexsort((places, -scores))[:top]
    return scores[order].tolist(), places[order].tolist()


def run(arguments: argparse.Namespace) -> None:
    """Search, print the results and draw a contact sheet."""
    transformers_logging.disable_progress_bar()
    query, output = arguments.query, arguments.output
    check_query(query)
    if output.suffix.lower() != ".png" or output.is_dir():
        raise UserError(f"--output {output} must be a file name that ends in .png")

    # The query must be embedded by the model of the index.
    index = open_index(arguments.index)
    name, revision = (arguments.model, None) if arguments.model else (index.model, index.revision)
    embedder = load_embedder(name, dtype=index.dtype, revision=revision)
    if embedder.hash != index.model_hash:
        raise UserError(
            f"the index {index.folder} is of {index.model} with hash {index.model_hash}, but {name} has hash "
            f"{embedder.hash}: give the model of the index with --model, or write the index again"
        )

    found = search_index(index, embedder, query, arguments.top)
    titles = []
    for place, (score, image_id, _) in enumerate(found, start=1):
        print(f"{place:>{len(str(len(found)))}}  {score:.4f}  {image_id}")
        shown = image_id if len(image_id) <= ID_LETTERS else "…" + image_id[-ID_LETTERS:]  # the end differs most
        titles.append(f"{place}   {score:.3f}\n{shown}")
    heading = f"images like {Path(query).name}" if os.path.isfile(query) else query
    with user_errors(OSError, prefix=f"{output} cannot be written"):
        output.parent.mkdir(parents=True, exist_ok=True)
    save(contact_sheet([answer.image for answer in found], titles, heading), output)
    print(f"contact sheet: {output}")
