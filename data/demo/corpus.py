"""The demo corpus: overhead scenes drawn from a seed, with five captions each in ten languages. Nothing is downloaded.

It is the embedded default of `train.py`, so that the whole path from captions to a trained model runs anywhere.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from datasets import config as datasets_config
from filelock import FileLock
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image

from rsmclip.data.card import AUDIT_HEADING, NOT_AUDITED, SOURCES_HEADING, SPLITS_HEADING, TRANSLATION_HEADING
from rsmclip.data.demo.drawing import contact_sheet, draw
from rsmclip.data.demo.grammar import captions_in_all_languages
from rsmclip.data.demo.scene import KINDS, draw_scene
from rsmclip.data.schema import LANGUAGES, features
from rsmclip.data.write import write_corpus

ROWS = {"train": 1200, "val": 200, "test": 300}


def demo_examples(
    seed: int = 0, rows: dict[str, int] = ROWS, mapper: Callable[..., Iterator] = map
) -> Iterator[tuple[str, dict]]:
    """
    Rows of the demo corpus, the classes taking turns.

    Args:
        seed (`int`, *optional*, defaults to 0): Seed.
        rows (`dict[str, int]`, *optional*): Rows by split.
        mapper (`Callable`, *optional*, defaults to `map`): That of a pool of processes draws in parallel.

    Returns:
        `Iterator[tuple[str, dict]]`: Split and row in the project's schema.
    """
    places = [(split, number, index) for number, split in enumerate(rows) for index in range(rows[split])]
    yield from mapper(partial(demo_example, seed), *zip(*places, strict=True))


def demo_example(seed: int, split: str, split_number: int, index: int) -> tuple[str, dict]:
    """One row, from a generator of its own, so that it depends on no other row and on no process."""
    rng = np.random.default_rng([seed, split_number, index])
    scene = draw_scene(list(KINDS)[index % len(KINDS)], rng)
    buffer = io.BytesIO()
    draw(scene, rng).save(buffer, "JPEG", quality=92)
    return split, {
        "image": {"bytes": buffer.getvalue(), "path": None},
        "image_id": f"demo/{split}_{index}",
        "source": "demo",
        "label": scene.kind,
        "captions": captions_in_all_languages(scene),
    }


def build_demo(output: Path, seed: int = 0, overwrite: bool = False) -> None:
    """
    Draws the demo corpus into a folder that [`~rsmclip.data.schema.load_corpus`] reads, on all cores.

    Args:
        output (`Path`): Folder to make.
        seed (`int`, *optional*, defaults to 0): Seed.
        overwrite (`bool`, *optional*, defaults to `False`): Replace a folder that is there.
    """
    with ProcessPoolExecutor() as pool:
        examples = demo_examples(seed, mapper=partial(pool.map, chunksize=20))
        write_corpus(examples, features(LANGUAGES), output, overwrite, demo_card)


def cached_demo(seed: int = 0) -> Path:
    """The folder of the demo corpus in the cache of `datasets`; drawn if it isn't there or its code has changed."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("demo*/*.py")) + sorted(Path(__file__).parent.glob("demo*.py")):
        code.update(path.read_bytes())
    folder = Path(datasets_config.HF_DATASETS_CACHE) / "rsmclip-demo" / f"{code.hexdigest()[:16]}-{seed}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # of two runs that start at once, one draws it
            if not folder.is_dir():
                build_demo(folder, seed)
    return folder


def demo_contact_sheet(seed: int = 0) -> Image.Image:
    """Two pictures of every scene class, enlarged, with their class below."""
    rows = [row for _, row in demo_examples(seed, {"train": 2 * len(KINDS)})]
    pictures = [
        Image.open(io.BytesIO(row["image"]["bytes"])).resize((128, 128), Image.Resampling.BICUBIC) for row in rows
    ]
    order = [index for kind in range(len(KINDS)) for index in (kind, kind + len(KINDS))]
    labels = [rows[index]["label"].replace("_", " ") for index in order]
    return contact_sheet([pictures[index] for index in order], labels, columns=6)


def demo_card() -> DatasetCard:
    """The dataset card of the demo corpus."""
    metadata = DatasetCardData(
        language=list(LANGUAGES),
        license="mit",
        tags=["remote-sensing", "synthetic"],
    )
    text = f"# Demo corpus of RS-M-CLIP\n\n{sum(ROWS.values()):,} drawn overhead scenes of {len(KINDS)} classes, "
    text += f"five captions each in {len(LANGUAGES)} languages. Made by `python -m rsmclip.data demo`.\n"
    sections = {
        SOURCES_HEADING: "| source | licence |\n| --- | --- |\n| demo | MIT |\n\nScenes and captions are made by a "
        "program from random numbers. No photograph or map, and nobody else's data, is in them.",
        SPLITS_HEADING: "| split | images | captions in each language |\n| --- | ---: | ---: |\n"
        + "\n".join(f"| {split} | {rows:,} | {5 * rows:,} |" for split, rows in ROWS.items()),
        TRANSLATION_HEADING: "None: a grammar of each language puts the facts of a scene into words.",
        AUDIT_HEADING: NOT_AUDITED,
    }
    text += "".join(f"\n## {heading}\n\n{body}\n" for heading, body in sections.items())
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")
