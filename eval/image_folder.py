"""Classification datasets as they lie on disk: one folder of images a class, matched with a benchmark's classes."""

import difflib
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from rsmclip.eval.protocol import DEFAULT_PROMPTS, Benchmark, known_benchmarks, load_benchmark, load_prompts

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


def read_image_folder(folder: Path) -> Dataset:
    """
    Images and labels of a folder.

    Args:
        folder (`Path`):
            Holds a folder for each class, whose name is the label; or, if its folders hold only folders, one for each
            category with the classes in it.

    Returns:
        `datasets.Dataset`: `image` (the path of its file), `image_id` (its path in the folder) and `label`, ordered
        by label and file name.

    Raises:
        `ValueError`: If a class has no images or lies in two categories.
    """
    files = [(name, file) for name, place in sorted(class_folders(folder).items()) for file in images_of(place)]
    types = Features({"image": Image(decode=False), "image_id": Value("string"), "label": Value("string")})
    rows = {
        "image": [{"bytes": None, "path": str(file.absolute())} for _, file in files],
        "image_id": [file.relative_to(folder).as_posix() for _, file in files],
        "label": [label for label, _ in files],
    }
    return Dataset.from_dict(rows, features=types)


def class_folders(folder: Path) -> dict[str, Path]:
    """The folder of each class in a folder, from its first or, under categories, its second level."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    places = [place for place in visible(folder) if place.is_dir()]
    if not places:
        raise ValueError(f"{folder} holds no folders: expected {folder}/<class>/<image>")
    inner = [visible(place) for place in places]
    if all(entries and all(entry.is_dir() for entry in entries) for entries in inner):
        places = [place for entries in inner for place in entries]
    found: dict[str, Path] = {}
    for place in places:
        if place.name in found:
            raise ValueError(f"class {place.name!r} lies in two folders: {found[place.name]} and {place}")
        found[place.name] = place
    return found


def visible(folder: Path) -> list[Path]:
    """What a folder holds but for hidden files, such as those that macOS leaves (`._a.jpg`)."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def images_of(folder: Path) -> list[Path]:
    """The images of a class."""
    files = [file for file in visible(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise ValueError(f"class folder {folder} holds no images; remove it if it is no class")
    return files


def benchmark_for(name: str, labels: Iterable[str], prompts: str = DEFAULT_PROMPTS) -> Benchmark:
    """
    The benchmark of that name with its classes spelt as the labels are, so that labels and classes can be compared.

    Without a file of that name the classes are the labels, with English names read from them: `baseball_diamond`,
    `DenseResidential` and `aGrass` are a baseball diamond, a dense residential and grass. With a file, a class that no
    image has stays a candidate, since published figures have all classes; a warning tells it.

    Args:
        name (`str`): Name of the benchmark.
        labels (`Iterable[str]`): Class folders.
        prompts (`str`, *optional*, defaults to `"small"`): Prompt set.

    Raises:
        `ValueError`: If a label is no class of the benchmark, or two labels are the same class.
    """
    labels = sorted(set(labels))
    if name not in known_benchmarks():
        return unnamed_benchmark(name, labels, prompts)
    benchmark = load_benchmark(name, prompts)
    spelt = {label: on_disk for on_disk, label in match_labels(labels, benchmark).items()}
    if absent := [label for label in benchmark.labels if label not in spelt]:
        candidates = len(benchmark.labels)
        warnings.warn(
            f"benchmark {name!r}: no images of {', '.join(absent)}; all {candidates} classes stay candidates",
            stacklevel=2,
        )
    return replace(
        benchmark,
        labels=[spelt.get(label, label) for label in benchmark.labels],
        class_names={
            code: {spelt.get(label, label): name for label, name in names.items()}
            for code, names in benchmark.class_names.items()
        },
    )


def unnamed_benchmark(name: str, labels: list[str], prompts: str) -> Benchmark:
    """A benchmark without a file: English names read from the labels."""
    names: dict[str, str] = {}
    for label in labels:
        if (words := english_name(label)) in names.values():
            first = next(other for other, taken in names.items() if taken == words)
            raise ValueError(
                f"class folders {first!r} and {label!r} have the same name, {words!r}: merge or rename one"
            )
        names[label] = words
    return Benchmark(name, labels, {"en": names}, {"en": load_prompts(prompts)["en"]}, prompts)


def match_labels(labels: Iterable[str], benchmark: Benchmark) -> dict[str, str]:
    """
    The class of the benchmark that each label is. Case and signs don't count: `storage_tank`, `StorageTank` and
    `storage tank` are one.

    Args:
        labels (`Iterable[str]`): Labels as a folder or a dataset spells them.
        benchmark ([`Benchmark`]): The benchmark.

    Returns:
        `dict[str, str]`: Label to the benchmark's spelling.
    """
    if not benchmark.labels:
        raise ValueError(f"benchmark {benchmark.name!r} has no classes: it is for retrieval alone")
    known = {bare(label): label for label in benchmark.labels}
    known |= {bare(alias): label for alias, label in benchmark.aliases.items()}
    matched: dict[str, str] = {}
    taken: dict[str, str] = {}
    for label in sorted(set(labels)):
        if bare(label) not in known:
            nearest = known[difflib.get_close_matches(bare(label), known, n=1, cutoff=0.0)[0]]
            raise ValueError(
                f"{label!r} is not a class of benchmark {benchmark.name!r}; the nearest of its classes is {nearest!r}"
            )
        matched[label] = known[bare(label)]
        if (first := taken.setdefault(matched[label], label)) != label:
            raise ValueError(f"{first!r} and {label!r} are the same class of benchmark {benchmark.name!r}: merge them")
    return matched


def bare(label: str) -> str:
    """A label without case and signs: `harbor&port` and `Harbor_Port` are the same."""
    return re.sub(r"[\W_]+", "", label.casefold())


def english_name(label: str) -> str:
    """A class name from the name of its folder."""
    label = re.sub(r"^[a-z](?=[A-Z])", "", label)  # aGrass
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).replace("_", " ").replace("-", " ").split()
    return " ".join(words).lower()
