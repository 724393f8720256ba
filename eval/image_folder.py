"""Classification datasets on disk, with one folder of images per class, and the benchmarks that name their classes."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import visible_files
from rsmclip.core.images import IMAGE_SUFFIXES
from rsmclip.eval.protocol import DEFAULT_PROMPTS, Benchmark, known_benchmarks, load_benchmark, load_prompts


def read_image_folder(folder: Path) -> Dataset:
    """
    List the images and labels of a folder. The images are not read.

    Args:
        folder (`Path`): Folder with one folder per class. Category folders may contain the class folders; categories
            are ignored.

    Returns:
        `datasets.Dataset`: `image` (path of the file), `image_id` (path within the folder) and `label` (name of the
            class folder), ordered by label and file name.

    Raises:
        [`UserError`]: The folder has no class folders, a class has no images or has images beside a folder, or two
            folders have the same class.
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
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    places = [place for place in visible(folder) if place.is_dir()]
    if not places:
        raise UserError(f"{folder} contains no folders: expected {folder}/<class>/<image>")
    inner = [visible(place) for place in places]
    if all(entries and all(entry.is_dir() for entry in entries) for entries in inner):  # categories
        places = [place for entries in inner for place in entries]
    found: dict[str, Path] = {}
    for place in places:
        if place.name in found:
            raise UserError(f"class {place.name!r} has two folders: {found[place.name]} and {place}; merge them")
        found[place.name] = place
    return found


def visible(folder: Path) -> list[Path]:
    # Hidden files, such as `._a.jpg` of macOS, are left out.
    with user_errors(OSError, prefix=f"{folder} cannot be read"):
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if bad := [entry.name for entry in entries if not is_unicode(entry.name)]:
        raise UserError(f"{folder} contains {bad[0]!r}, a name that is not in UTF-8; rename it")
    return entries


def is_unicode(text: str) -> bool:
    # Python keeps other bytes of a file name as surrogates, which cannot be encoded.
    return text.encode(errors="ignore").decode() == text


def images_of(folder: Path) -> list[Path]:
    entries = visible(folder)
    files = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.is_dir()]
    inner = (entry.name for entry in entries if entry.is_dir() and any(visible_files(entry, IMAGE_SUFFIXES)))
    if files and (inner := next(inner, None)):
        raise UserError(
            f"class folder {folder} has images and the folder {inner!r}, which would be left out: move its images up"
        )
    if not files:
        raise UserError(f"class folder {folder} contains no images; remove it if it is not a class")
    return files


def benchmark_for(name: str, labels: Iterable[str], prompts: str = DEFAULT_PROMPTS) -> Benchmark:
    """
    Load a benchmark and spell its classes like the labels. [`match_labels`] has the errors.

    Classes without images remain candidates, because published figures are computed over all classes. If there is no
    benchmark file of that name, English class names are made from the labels: `baseball_diamond` becomes "baseball
    diamond", `DenseResidential` becomes "dense residential", `aGrass` becomes "grass".
    """
    labels = sorted(set(labels))
    if name not in known_benchmarks():
        return unnamed_benchmark(name, labels, prompts)
    benchmark = load_benchmark(name, prompts)
    spelled = {label: on_disk for on_disk, label in match_labels(labels, benchmark).items()}
    return replace(
        benchmark,
        labels=[spelled.get(label, label) for label in benchmark.labels],
        class_names={
            code: {spelled.get(label, label): name for label, name in names.items()}
            for code, names in benchmark.class_names.items()
        },
    )


def unnamed_benchmark(name: str, labels: list[str], prompts: str) -> Benchmark:
    return Benchmark(name, labels, {"en": english_names(labels)}, {"en": load_prompts(prompts)["en"]}, prompts)


def english_names(labels: Iterable[str]) -> dict[str, str]:
    """Return the English name of each class folder. Raises [`UserError`] if two folders have the same name."""
    label_of: dict[str, str] = {}
    for label in sorted(set(labels)):
        words = english_name(label)
        if (first := label_of.setdefault(words, label)) != label:
            raise UserError(f"class folders {first!r} and {label!r} have the same name {words!r}: merge or rename one")
    return {label: words for words, label in label_of.items()}


def match_labels(labels: Iterable[str], benchmark: Benchmark) -> dict[str, str]:
    """
    Return the class of the benchmark for each label. Case and punctuation are ignored: `storage_tank`, `StorageTank`
    and `storage tank` are one class.

    Raises:
        [`UserError`]: A label is not a class of the benchmark, or two labels are one class.
    """
    if not benchmark.labels:
        raise UserError(f"benchmark {benchmark.name!r} has no classes: it is for retrieval only; use another name")
    known = {bare(label): label for label in benchmark.labels}
    known |= {bare(alias): label for alias, label in benchmark.aliases.items()}
    label_of: dict[str, str] = {}
    for label in sorted(set(labels)):
        if bare(label) not in known:
            closest = nearest(label, known)
            raise UserError(
                f"{label!r} is not a class of benchmark {benchmark.name!r}; the nearest class is {closest!r}"
            )
        if (first := label_of.setdefault(known[bare(label)], label)) != label:
            raise UserError(f"{first!r} and {label!r} are the same class of benchmark {benchmark.name!r}: merge them")
    return {label: known_label for known_label, label in label_of.items()}


def nearest(label: str, known: dict[str, str]) -> str:
    """Return the known label with the most similar spelling. `known` has labels by their bare form."""
    return known[difflib.get_close_matches(bare(label), known, n=1, cutoff=0.0)[0]]


def bare(label: str) -> str:
    # `harbor&port` and `Harbor_Port` have one bare form.
    return re.sub(r"[\W_]+", "", label.casefold())


def english_name(label: str) -> str:
    label = re.sub(r"^[a-z](?=[A-Z])", "", label)  # aGrass
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).replace("_", " ").replace("-", " ").split()
    return " ".join(words).lower() or label
