"""The demo corpus: overhead scenes drawn from a seed, with five captions each in ten languages.

`train.py` trains on it by default, so that the whole pipeline runs without downloads.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from datasets import config as datasets_config
from filelock import FileLock
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image, ImageDraw, ImageFont

from rsmclip.core.cores import cpu_count
from rsmclip.core.errors import user_errors
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.card import AUDIT_HEADING, NOT_AUDITED, SOURCES_HEADING, SPLITS_HEADING, TRANSLATION_HEADING
from rsmclip.data.demo.drawing import draw
from rsmclip.data.demo.grammar import captions_in_all_languages
from rsmclip.data.demo.scene import KINDS, draw_scene
from rsmclip.data.schema import features
from rsmclip.data.write import write_corpus

ROWS = {"train": 1200, "val": 200, "test": 300}


def demo_examples(
    seed: int = 0, rows: dict[str, int] = ROWS, mapper: Callable[..., Iterator] = map
) -> Iterator[tuple[str, dict]]:
    """
    Yield split and row of the demo corpus, in the project's schema.

    Row `i` of a split has class `i` modulo the number of classes. `rows` has the number of rows by split. With the
    `map` of a process pool as `mapper`, the rows are drawn in parallel.
    """
    places = [(split, number, index) for number, split in enumerate(rows) for index in range(rows[split])]
    yield from mapper(partial(demo_example, seed), *zip(*places, strict=True))


def demo_example(seed: int, split: str, split_number: int, index: int) -> tuple[str, dict]:
    rng = np.random.default_rng([seed, split_number, index])  # a row does not depend on other rows
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
    """Draw the demo corpus on all cores into a folder. `overwrite` replaces a corpus in this folder."""
    with ProcessPoolExecutor(cpu_count()) as pool:
        examples = demo_examples(seed, mapper=partial(pool.map, chunksize=20))
        write_corpus(examples, features(LANGUAGES), output, overwrite, demo_card)


def cached_demo(seed: int = 0) -> Path:
    """Return the folder of the demo corpus in the cache of `datasets`. Draw it if it is missing or outdated."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    folder = Path(datasets_config.HF_DATASETS_CACHE) / "rsmclip-demo" / f"{code.hexdigest()[:16]}-{seed}"
    if not folder.is_dir():
        with user_errors(OSError, prefix=f"cannot write to {folder.parent}"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{folder}.lock").acquire()
        with lock:  # two runs may start at once
            if not folder.is_dir():
                build_demo(folder, seed)
    return folder


def demo_contact_sheet(seed: int = 0) -> Image.Image:
    """Draw a grid with two enlarged pictures of every scene class and the name of the class below."""
    rows = [row for _, row in demo_examples(seed, {"train": 2 * len(KINDS)})]
    pairs = [row for kind in range(len(KINDS)) for row in rows[kind :: len(KINDS)]]
    columns, side, margin, text = 6, 128, 8, 18  # sizes in pixels
    width, height = side + margin, side + text + margin
    sheet = Image.new("RGB", (columns * width + margin, math.ceil(len(pairs) / columns) * height + margin), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, row in enumerate(pairs):
        left, top = margin + index % columns * width, margin + index // columns * height
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        pen.text((left, top + side + 2), row["label"].replace("_", " "), fill=(40, 40, 40), font=font)
    return sheet


def demo_card() -> DatasetCard:
    """Make the dataset card of the demo corpus."""
    metadata = DatasetCardData(language=list(LANGUAGES), license="mit", tags=["remote-sensing", "synthetic"])
    sections = {
        SOURCES_HEADING: "| source | license |\n| --- | --- |\n| demo | MIT |\n\nA program makes scenes and captions "
        "from random numbers. The corpus contains no photographs, maps or data of others.",
        SPLITS_HEADING: "| split | images | captions in each language |\n| --- | ---: | ---: |\n"
        + "\n".join(f"| {split} | {rows:,} | {5 * rows:,} |" for split, rows in ROWS.items()),
        TRANSLATION_HEADING: "None: a grammar of each language writes the captions.",
        AUDIT_HEADING: NOT_AUDITED,
    }
    text = f"# Demo corpus of RS-M-CLIP\n\n{sum(ROWS.values()):,} drawn overhead scenes of {len(KINDS)} classes, "
    text += f"five captions each in {len(LANGUAGES)} languages. Made by `rsmclip data demo`.\n"
    text += "".join(f"\n## {heading}\n\n{body}\n" for heading, body in sections.items())
    return DatasetCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")
