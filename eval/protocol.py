"""Benchmarks as data: class names and hypothesis templates in every language, a YAML file each in `benchmarks/`."""

from dataclasses import dataclass
from pathlib import Path

import yaml

BENCHMARKS = Path(__file__).parent / "benchmarks"


@dataclass(frozen=True)
class Benchmark:
    """
    What zero-shot classification needs to know of a dataset.

    Args:
        name (`str`): Name of the file.
        labels (`list[str]`): Classes as the dataset spells them.
        class_names (`dict[str, dict[str, str]]`): Language code to class to its name in that language.
        templates (`dict[str, list[str]]`): Language code to hypothesis templates.
    """

    name: str
    labels: list[str]
    class_names: dict[str, dict[str, str]]
    templates: dict[str, list[str]]


def load_benchmark(name: str) -> Benchmark:
    """Reads `eval/benchmarks/<name>.yaml`."""
    path = BENCHMARKS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in BENCHMARKS.glob("*.yaml")))
        raise ValueError(f"unknown benchmark {name!r}; there are: {known}")
    languages = yaml.safe_load(path.read_text(encoding="utf-8"))["languages"]
    class_names = {code: {str(k): v for k, v in entry["class_names"].items()} for code, entry in languages.items()}
    return Benchmark(
        name=name,
        labels=list(class_names["en"]),
        class_names=class_names,
        templates={code: entry["templates"] for code, entry in languages.items()},
    )
