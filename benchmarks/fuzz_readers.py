"""The readers that `fuzz.py` tests: how each gets a valid folder, and how the commands read it."""

import csv
import json
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.core.images import decode_image
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.build import build_corpus
from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import check_schema, features, load_corpus
from rsmclip.data.translation.translations import load_translations
from rsmclip.data.write import write_corpus
from rsmclip.eval.build_index import build_index
from rsmclip.eval.class_file import read_class_file
from rsmclip.eval.index import nearest
from rsmclip.eval.index_files import read_entry
from rsmclip.eval.models import load_embedder
from rsmclip.eval.search import as_index
from rsmclip.hub.handler import EndpointHandler, InputError
from rsmclip.models.folder import make_processor, save_model_folder
from rsmclip.models.openclip import export_openclip, load_openclip
from rsmclip.training.command_line import read_config
from rsmclip.training.streaming import StreamedCorpus
from rsmclip.training.tokenizer import train_tokenizer

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
MODEL = {
    "projection_dim": 16,
    "vision_config": {**TOWER, "image_size": 32, "patch_size": 16},
    "text_config": {**TOWER, "max_position_embeddings": 80},
    "self_distillation": {"hidden_size": 16, "bottleneck_size": 8, "num_prototypes": 8},
}
CAPTIONS = ("A river and a bridge.", "Two planes stand near the terminal.", "A green forest beside a lake.")


class Reader(NamedTuple):
    """A reader to be tested."""

    make: Callable[[Path], None]  # writes a valid folder
    changed: tuple[str, ...]  # patterns of the files that are changed in turn
    read: Callable[[Path], object]  # reads the folder as the commands do
    refusals: tuple[type[Exception], ...] = (UserError,)


def write_model(folder: Path) -> None:
    """Write a tiny random model."""
    tokenizer = train_tokenizer(CAPTIONS, vocab_size=1000, max_length=77)
    torch.manual_seed(0)
    model = RSMCLIPModel(RSMCLIPConfig(**MODEL, vocab_size=len(tokenizer))).eval()
    save_model_folder(model, make_processor(tokenizer, 32), folder)


def write_openclip(folder: Path) -> None:
    """Write a tiny random model in OpenCLIP's layout."""
    with TemporaryDirectory() as place:
        write_model(Path(place, "model"))
        export_openclip(str(Path(place, "model")), folder)


def write_corpus_folder(folder: Path) -> None:
    """Write a corpus of three images in each split."""
    rows = {"train": 3, "val": 3}
    write_corpus(demo_examples(rows=rows), features(LANGUAGES), folder, False, demo_card)


def read_corpus(folder: Path) -> None:
    """Load a corpus and decode its images."""
    rows = check_schema(load_corpus(folder), "train", ("en", "pt"))
    for row in rows:
        decode_image(row["image"], row["image_id"])


def read_shards(folder: Path) -> None:
    """Read a corpus shard by shard."""
    files = sorted(map(str, folder.glob("data/train-*.parquet")))
    with TemporaryDirectory() as cache:
        corpus = StreamedCorpus(files, Path(cache), shuffle_buffer=100, seed=0)
        for row in range(len(corpus)):
            decode_image(corpus[row]["image"], str(row))


def write_images(folder: Path, *names: str) -> None:
    """Write small images. The ending of a name is the format."""
    noise = np.random.default_rng(0).integers(256, size=(24, 32, 3), dtype=np.uint8)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(folder / name)


def read_images(folder: Path) -> None:
    """Decode all images."""
    for path in sorted(folder.iterdir()):
        decode_image({"bytes": path.read_bytes(), "path": None}, path.name)


def write_rsicd(folder: Path) -> None:
    """Write a corpus in RSICD's layout."""
    write_images(folder, "RSICD_images/river_1.jpg", "RSICD_images/00002.jpg")
    entries = [
        {"filename": name, "split": "train", "sentences": [{"raw": text, "tokens": text.split()} for text in CAPTIONS]}
        for name in ("river_1.jpg", "00002.jpg")
    ]
    (folder / "dataset_rsicd.json").write_text(json.dumps({"images": entries}))


def write_table(folder: Path, name: str) -> None:
    """Write a folder of images with a table of captions."""
    write_images(folder, "a.png", "b.png")
    rows = [
        {"file_name": name, "text": text, "label": "river", "split": "train", "pt": "Um rio.", "zh": "一条河。"}
        for name in ("a.png", "b.png")
        for text in CAPTIONS
    ]
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        if name.endswith(".csv"):
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_source(name: str, folder: Path) -> None:
    """Build a corpus of a source."""
    with TemporaryDirectory() as output:
        build_corpus([f"{name}={folder}"], Path(output, "corpus"), skip_bad=True)


def write_translations(folder: Path) -> None:
    """Write translations without a record, which are checked when they are read."""
    rows = [
        {"en": "A river and a bridge.", "pt": "Um rio e uma ponte.", "de": "Ein Fluss und eine Brücke."},
        {"en": "A green forest.", "zh": "一片绿色的森林。", "ru": "Зелёный лес."},
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


CLASSES = {
    "classes.yaml": """classes:
  river: {en: river, pt: rio, zh: 河流}
  forest: {en: forest, pt: floresta, zh: 森林}
templates:
  pt: ["uma imagem de {}."]
""",
    "classes.csv": "folder,en,pt\nriver,river,rio\nforest,forest,floresta\n",
}


def write_classes(folder: Path) -> None:
    """Write a file of class names in both formats."""
    for name, text in CLASSES.items():
        (folder / name).write_text(text, encoding="utf-8")


def read_classes(folder: Path) -> None:
    """Read both files of class names."""
    for name in CLASSES:
        read_class_file(folder / name, ["river", "forest"])


def write_recipe(folder: Path) -> None:
    """Write a recipe with fields of every type."""
    recipe = Path(__file__).parent.parent / "configs" / "demo.yaml"
    (folder / "recipe.yaml").write_bytes(recipe.read_bytes())


def write_index_folder(folder: Path) -> None:
    """Write an index of four images."""
    write_images(folder, "images/a.png", "images/b.png", "images/c.png", "images/d.png")
    write_model(folder / "model")
    build_index(folder / "images", folder / "model", folder / "index")


def read_index(folder: Path) -> None:
    """Open an index, rank it and read all entries."""
    index = as_index(folder / "index")
    nearest(index.embeds, np.ones(index.embeds.shape[1], np.float32), len(index))
    for place in range(len(index)):
        read_entry(index, place)


def write_request(folder: Path) -> None:
    """Write a request to an endpoint, and the model that answers it."""
    write_model(folder / "model")
    write_images(folder, "a.png")
    image = b64encode((folder / "a.png").read_bytes()).decode()
    parameters = {"candidate_labels": ["river", "forest"], "hypothesis_template": "a photo of a {}."}
    (folder / "request.json").write_text(json.dumps({"inputs": image, "parameters": parameters}))
    (folder / "text.json").write_text(json.dumps({"inputs": {"text": ["river", "forest"]}}))


@cache
def endpoint(folder: Path) -> EndpointHandler:
    return EndpointHandler(str(folder))


def read_request(folder: Path) -> None:
    """Answer all requests. A body that is not JSON does not reach the endpoint."""
    for path in folder.glob("*.json"):
        with suppress(json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            body = json.loads(path.read_bytes())
            endpoint(folder / "model")(body)


READERS = {
    "images": Reader(
        lambda folder: write_images(
            folder, *(f"a.{ending}" for ending in ("png", "jpg", "tif", "gif", "bmp", "webp", "jp2", "ppm"))
        ),
        ("*",),
        read_images,
    ),
    "annotations": Reader(write_rsicd, ("*.json",), partial(read_source, "rsicd")),
    "json lines": Reader(
        partial(write_table, name="metadata.jsonl"), ("*.jsonl",), partial(read_source, "imagefolder")
    ),
    "csv": Reader(partial(write_table, name="metadata.csv"), ("*.csv",), partial(read_source, "imagefolder")),
    "translations": Reader(write_translations, ("*.jsonl",), load_translations),
    "classes": Reader(write_classes, ("*",), read_classes),
    "recipe": Reader(write_recipe, ("*.yaml",), lambda folder: read_config(folder / "recipe.yaml")),
    "corpus": Reader(write_corpus_folder, ("data/train-*",), read_corpus),
    "shards": Reader(write_corpus_folder, ("data/train-*",), read_shards),
    "index": Reader(write_index_folder, ("index/*",), read_index),
    "model": Reader(write_model, ("*.json", "*.safetensors"), lambda folder: load_embedder(str(folder))),
    "openclip": Reader(write_openclip, ("*.json", "*.safetensors"), lambda folder: load_openclip(str(folder))),
    "requests": Reader(write_request, ("*.json",), read_request, (InputError,)),
}
