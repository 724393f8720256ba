"""
Protocols as data: a benchmark is a YAML file in `benchmarks/` (where it comes from, which images count, its classes as
they are spelt on disk with their names in every language, its known traps), and `prompts.yaml` holds the prompt sets.

    load_benchmark("eurosat")                  # the small set of every language
    load_benchmark("eurosat", prompts="en18")  # English alone, as many templates as CLIP has for RESISC45
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

BENCHMARKS = Path(__file__).parent / "benchmarks"
PROMPTS = Path(__file__).parent / "prompts.yaml"
DEFAULT_PROMPTS = "small"
FACTS = ("title", "task", "hub_id", "source", "layout", "split", "images", "citation", "licence", "traps")


@dataclass(frozen=True)
class Benchmark:
    """
    What an evaluation needs to know of a dataset.

    Args:
        name (`str`):
            Name of the file.
        labels (`list[str]`):
            Classes as the dataset spells them; none for a retrieval corpus without classes.
        class_names (`dict[str, dict[str, str]]`):
            Language code to class to its name in that language.
        templates (`dict[str, list[str]]`):
            Language code to hypothesis templates, each with one `{}` for the name. Has the languages of `class_names`.
        prompts (`str`, *optional*, defaults to `"own"`):
            Name of the prompt set that `templates` is; `"own"` where they are the benchmark's own.
        title (`str`, *optional*):
            Name as people write it.
        task (`str`, *optional*):
            `"classification"` or `"retrieval"`; a retrieval corpus may have classes as well.
        hub_id (`str`, *optional*):
            A dataset on the Hub that holds it.
        source (`str`, *optional*):
            Page of its authors.
        layout (`str`, *optional*):
            What lies on the disk, or the command that reads it.
        split (`str`, *optional*):
            Which images the published figures are over.
        images (`int`, *optional*):
            How many they are.
        citation (`str`, *optional*):
            Paper.
        licence (`str`, *optional*):
            What is stated.
        traps (`list[str]`, *optional*):
            What makes figures on it wrong or incomparable.
        aliases (`dict[str, str]`, *optional*):
            Other spellings of a class in known copies, to the spelling in `labels`.
    """

    name: str
    labels: list[str]
    class_names: dict[str, dict[str, str]]
    templates: dict[str, list[str]]
    prompts: str = "own"
    title: str | None = None
    task: str = "classification"
    hub_id: str | None = None
    source: str | None = None
    layout: str | None = None
    split: str | None = None
    images: int | None = None
    citation: str | None = None
    licence: str | None = None
    traps: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

    def check_languages(self, languages: Sequence[str]) -> None:
        """Raises `ValueError` if it has no templates in one of the languages."""
        if unknown := [code for code in languages if code not in self.templates]:
            known = ", ".join(self.templates)
            raise ValueError(
                f"prompt set {self.prompts!r} of benchmark {self.name!r} has no {', '.join(unknown)}; it has {known}"
            )


def known_benchmarks() -> list[str]:
    """Names of the benchmarks that have a file."""
    return sorted(file.stem for file in BENCHMARKS.glob("*.yaml"))


def load_benchmark(name: str, prompts: str = DEFAULT_PROMPTS) -> Benchmark:
    """
    Reads `eval/benchmarks/<name>.yaml` and the prompt set.

    Args:
        name (`str`):
            Name of the file.
        prompts (`str`, *optional*, defaults to `"small"`):
            A set of `eval/prompts.yaml`. The default gives way to the benchmark's own templates where it has them.

    Returns:
        [`Benchmark`]: In the languages of the prompt set.
    """
    path = BENCHMARKS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"unknown benchmark {name!r}; there are: {', '.join(known_benchmarks())}")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if missing := [key for key in FACTS if key not in content]:
        raise ValueError(f"benchmarks/{path.name} does not say its {', '.join(missing)}")
    if "templates" in content and prompts == DEFAULT_PROMPTS:
        prompts, templates = "own", content["templates"]
        check_templates(templates, f"benchmarks/{path.name}")
    else:
        templates = load_prompts(prompts)
    classes = {str(label): names for label, names in content.get("classes", {}).items()}
    for label, names in classes.items():
        if missing := [code for code in templates if not names.get(code)]:
            raise ValueError(f"benchmarks/{path.name}: class {label!r} has no name in {', '.join(missing)}")
    return Benchmark(
        name=name,
        labels=list(classes),
        class_names={code: {label: names[code] for label, names in classes.items()} for code in templates},
        templates=templates,
        prompts=prompts,
        aliases=content.get("aliases", {}),
        **{key: content[key] for key in FACTS},
    )


def load_prompts(name: str) -> dict[str, list[str]]:
    """The templates of a set of `eval/prompts.yaml` by language code."""
    sets = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    if name not in sets:
        raise ValueError(f"unknown prompt set {name!r}; there are: {', '.join(sets)}")
    check_templates(sets[name], f"{PROMPTS.name}, set {name!r}")
    return sets[name]


def check_templates(templates: dict[str, list[str]], place: str) -> None:
    """Raises `ValueError` if a template has not exactly one place for the class name."""
    for code, sentences in templates.items():
        if bad := [sentence for sentence in sentences if sentence.count("{}") != 1]:
            raise ValueError(f"{place}: a template needs exactly one {{}} for the class name, not {bad[0]!r} ({code})")
