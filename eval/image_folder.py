"""Classification datasets as they lie on disk: one folder of images a class."""

import re
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from rsmclip.eval.protocol import BENCHMARKS, Benchmark, load_benchmark

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


def read_image_folder(folder: Path) -> Dataset:
    """
    Images and labels of a folder.

    Args:
        folder (`Path`): Holds a folder for each class; the folder's name is the label.

    Returns:
        `datasets.Dataset`: `image` (encoded), `image_id` (its path) and `label`, ordered by label and file name.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    files = [path for path in sorted(folder.glob("*/*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise ValueError(f"{folder} holds no folders with images: expected {folder}/<class>/<image>")
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": None} for path in files],
        "image_id": [str(path) for path in files],
        "label": [path.parent.name for path in files],
    }
    types = {"image": Image(decode=False), "image_id": Value("string"), "label": Value("string")}
    return Dataset.from_dict(columns, features=Features(types))


def benchmark_for(name: str, labels: list[str]) -> Benchmark:
    """The benchmark of that name; without a file for it, English names read from the labels: `baseball_diamond`,
    `DenseResidential` and `aGrass` are a baseball diamond, a dense residential and grass."""
    if (BENCHMARKS / f"{name}.yaml").is_file():
        return load_benchmark(name)
    names = {label: english_name(label) for label in sorted(set(labels))}
    return Benchmark(name, list(names), {"en": names}, {"en": load_benchmark("rsicd").templates["en"]})


def english_name(label: str) -> str:
    """A class name from the name of its folder."""
    label = re.sub(r"^[a-z](?=[A-Z])", "", label)  # aGrass
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).replace("_", " ").replace("-", " ").split()
    return " ".join(words).lower()
