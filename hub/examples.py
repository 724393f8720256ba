"""The pictures in `examples/`, which the card classifies.

They come from the test split if its license is open, else they are drawn scenes of the demo corpus.
"""

import re
from pathlib import Path

import numpy as np
from datasets import Dataset

from rsmclip.core.errors import user_errors
from rsmclip.core.images import decode_image
from rsmclip.data.demo.corpus import demo_example
from rsmclip.data.demo.scene import KINDS

OPEN_LICENSES = (
    *("mit", "apache-2.0", "bsd-3-clause", "unlicense"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "odc-by", "pddl"),
)
PICTURES = 3
LARGEST_SIDE = 384  # pixels


def write_examples(folder: Path, rows: Dataset, benchmark: str | None, license: str | None) -> dict:
    """
    Write `examples/<label>.jpg`: the first picture of each of three random classes.

    Args:
        folder (`Path`): Model folder.
        rows (`datasets.Dataset`): Test split with encoded images.
        benchmark (`str`, *optional*): Benchmark that names the classes.
        license (`str`, *optional*): Identifier of the license of the split.

    Returns:
        `dict`: `labels` (label by file), `benchmark` (it names the labels in every language) and `drawn` (`True` if
        the pictures are drawn scenes).
    """
    labels = list(rows["label"])
    drawn = benchmark is None or license not in OPEN_LICENSES or not any(labels)
    known = list(KINDS) if drawn else sorted({label for label in labels if label is not None})
    chosen = np.random.default_rng(0).permutation(known)[:PICTURES].tolist()
    # Delete pictures of a resumed run first: it may have had another split.
    with user_errors(OSError):
        (folder / "examples").mkdir(exist_ok=True)
        for old in (folder / "examples").glob("*.jpg"):
            old.unlink()
    written = {}
    for place, label in enumerate(chosen):
        row = demo_example(0, "test", 2, known.index(label))[1] if drawn else rows[labels.index(label)]
        name = f"examples/{re.sub(r'[^a-z0-9]+', '_', label.lower()).strip('_') or f'class_{place}'}.jpg"
        image = decode_image(row["image"], row["image_id"])
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        with user_errors(OSError):
            image.save(folder / name, quality=92)
        written[name] = label
    return {"labels": written, "benchmark": "demo" if drawn else benchmark, "drawn": drawn}
