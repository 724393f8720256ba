"""Benchmarks and prompt sets, read from YAML files.

`benchmarks/NAME.yaml` describes one dataset: source, images of published figures, classes with their names in every
language, known traps. `prompts.yaml` contains the prompt sets.

    load_benchmark("eurosat")                  # the set `small`, in every language
    load_benchmark("eurosat", prompts="en18")  # English only, as many templates as CLIP has for RESISC45
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rsmclip.core.errors import UserError

BENCHMARKS = Path(__file__).parent / "benchmarks"
PROMPTS = Path(__file__).parent / "prompts.yaml"
DEFAULT_PROMPTS = "small"
CAPTION_STYLES = ("raw", "capitalize")  # of an evaluation


@dataclass(frozen=True)
class Benchmark:
    """Classes, prompts and provenance of a dataset."""

    name: str  # of the YAML file
    labels: list[str]  # classes in the spelling of the dataset; empty for a retrieval corpus without classes
    class_names: dict[str, dict[str, str]]  # language code to class to its name in that language
    templates: dict[str, list[str]]  # language code to prompt templates, each with one {} for the name
    prompts: str = "own"  # name of the prompt set; "own" for templates of the benchmark file
    title: str | None = None
    task: str = "classification"  # or "retrieval"
    hub_id: str | None = None  # of a copy on the Hub
    source: str | None = None  # web page of the authors
    layout: str | None = None  # folders of the archive, or the command that reads the archive
    split: str | None = None  # images that published figures are computed on
    images: int | None = None  # number of images in that split
    citation: str | None = None
    license: str | None = None
    traps: list[str] = field(default_factory=list)  # causes of wrong or incomparable figures
    aliases: dict[str, str] = field(default_factory=dict)  # spelling in some copies to spelling in `labels`


def known_benchmarks() -> list[str]:
    """Return the names of all benchmark files."""
    return sorted(file.stem for file in BENCHMARKS.glob("*.yaml"))


def load_benchmark(name: str, prompts: str = DEFAULT_PROMPTS) -> Benchmark:
    """
    Read `eval/benchmarks/<name>.yaml` and a prompt set.

    Args:
        name (`str`): Name of the file.
        prompts (`str`, *optional*, defaults to `"small"`): A set of `eval/prompts.yaml`. A benchmark with templates of
            its own uses these instead of the default set.

    Raises:
        [`UserError`]: The benchmark or the prompt set is unknown, or the file is incomplete.
    """
    if name not in known_benchmarks():
        raise UserError(f"unknown benchmark {name!r}; choose one of: {', '.join(known_benchmarks())}")
    path = BENCHMARKS / f"{name}.yaml"
    facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    classes = {str(label): names for label, names in facts.pop("classes", {}).items()}  # YAML reads `1` as a number
    templates = facts.pop("templates", None)
    if templates and prompts == DEFAULT_PROMPTS:
        prompts = "own"
    else:
        templates = load_prompts(prompts)
    for label, names in classes.items():
        if missing := [code for code in templates if not names.get(code)]:
            raise UserError(f"benchmarks/{path.name}: class {label!r} has no name in {', '.join(missing)}")
    class_names = {code: {label: names[code] for label, names in classes.items()} for code in templates}
    return Benchmark(name, list(classes), class_names, templates, prompts, **facts)


def benchmark_texts() -> Iterator[str]:
    """Yield the class names of all benchmarks in every language, alone and in the default prompts."""
    for name in known_benchmarks():
        benchmark = load_benchmark(name)
        for language, templates in benchmark.templates.items():
            for class_name in benchmark.class_names[language].values():
                yield class_name
                yield from (template.replace("{}", class_name) for template in templates)


def load_prompts(name: str) -> dict[str, list[str]]:
    """Return the templates of a set of `eval/prompts.yaml` by language code."""
    sets = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    if name not in sets:
        raise UserError(f"unknown prompt set {name!r}; choose one of: {', '.join(sets)}")
    return sets[name]
