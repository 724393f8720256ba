"""The pictures in a model's folder that its card classifies: of the test split where its licence allows that, else
drawn ones of the demo corpus, which anybody may publish."""

import re
from pathlib import Path

import numpy as np
from datasets import Dataset

from rsmclip.core.images import image_bytes, open_encoded
from rsmclip.data.demo.corpus import demo_example
from rsmclip.data.demo.scene import KINDS
from rsmclip.image_processing_rsmclip import as_image

OPEN_LICENCES = (
    "mit",
    "apache-2.0",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "odc-by",
    "pddl",
    "unlicense",
)
PICTURES = 3
LARGEST_SIDE = 384  # pixels


def write_examples(folder: Path, rows: Dataset, benchmark: str | None, license: str | None) -> dict:
    """
    Writes `examples/<label>.jpg`: the first picture of each of three classes that are drawn by lot.

    Args:
        folder (`Path`): The model's folder.
        rows (`datasets.Dataset`): The test split, images not decoded.
        benchmark (`str`, *optional*): Class names for its labels.
        license (`str`, *optional*): Identifier of its licence.

    Returns:
        `dict`: `labels` by the name of the file, the `benchmark` that names them in every language, and whether they
        are `drawn` in place of the split's.
    """
    labels = list(rows["label"])
    drawn = benchmark is None or license not in OPEN_LICENCES or not any(labels)
    known = list(KINDS) if drawn else sorted({label for label in labels if label is not None})
    chosen = np.random.default_rng(0).permutation(known)[:PICTURES].tolist()
    written = {}
    (folder / "examples").mkdir(exist_ok=True)
    for old in (folder / "examples").glob("*.jpg"):  # of another split, before the run went on
        old.unlink()
    for place, label in enumerate(chosen):
        row = demo_example(0, "test", 2, known.index(label))[1] if drawn else rows[labels.index(label)]
        name = f"examples/{re.sub(r'[^a-z0-9]+', '_', label.lower()).strip('_') or f'class_{place}'}.jpg"
        image = as_image(open_encoded(image_bytes(row["image"]))).convert("RGB")
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        image.save(folder / name, quality=92)
        written[name] = label
    return {"labels": written, "benchmark": "demo" if drawn else benchmark, "drawn": drawn}
