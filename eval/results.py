"""What an evaluation leaves in its folder: figures, tables, outcomes of each image, and pictures.

eval_results.json     every figure with its interval, and what it was measured on and with (docs/evaluation.md)
eval_results.md       the tables
outcomes/NAME.npz     ranks, hits and predictions of each image, for `compare`
plots/                recall by language, recall@k, confusion matrices, retrieved examples
"""

import json
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rsmclip.core.drawing import save
from rsmclip.eval.evaluate import metrics_by_language
from rsmclip.eval.intervals import figures
from rsmclip.eval.outcomes import Outcomes, confusion
from rsmclip.eval.plots import confusion_matrix, recall_by_language, recall_curves
from rsmclip.eval.protocol import Benchmark
from rsmclip.eval.report import as_markdown, as_text, figure_tables
from rsmclip.eval.sheet import Query, retrieved_sheet

SCHEMA = 1  # of eval_results.json
VERSIONS = ("torch", "transformers", "datasets", "numpy", "scikit-learn")


@dataclass
class Measured:
    """
    A dataset that was evaluated.

    Args:
        name (`str`): Its name in the results.
        facts (`dict`): What it is: `dataset`, `split`, `rows`, `fingerprint`, `languages`, `prompts` …
        outcomes (`Outcomes`): What the model did with each image.
        benchmark (`Benchmark`, *optional*): Its classes.
        sentences (`Outcomes`, *optional*): What it did with each sentence.
        examples (`dict[str, list[Query]]`): Queries and what they retrieved, by language.
    """

    name: str
    facts: dict
    outcomes: Outcomes
    benchmark: Benchmark | None = None
    sentences: Outcomes | None = None
    examples: dict[str, list[Query]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What stands above its tables; of a folder its name alone."""
        split = f", split {self.facts['split']}" if self.facts["split"] else ""
        return f"{self.name}: {Path(self.facts['dataset']).name}{split}"


def make_results(model: str, model_hash: str, command: str, measured: list[Measured], samples: int) -> dict:
    """
    What `eval_results.json` holds.

    Args:
        model (`str`): Folder or Hub id of the model.
        model_hash (`str`): Hash of its weights and of how it takes its input.
        command (`str`): The command that was given.
        measured (`list[Measured]`): The datasets.
        samples (`int`): Draws of the bootstrap.
    """
    records = []
    for each in measured:
        found = figures(each.outcomes, samples)
        found += figures(each.sentences, samples) if each.sentences is not None else []
        records += [{"dataset": each.name} | record for record in found]
    return {
        "schema": SCHEMA,
        "model": model,
        "model_hash": model_hash,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("rsmclip", *VERSIONS)},
        "bootstrap_samples": samples,
        "datasets": {each.name: each.facts for each in measured},
        "figures": records,
        "metrics": {each.name: metrics_by_language(each.outcomes) for each in measured},
    }


def write_results(folder: Path, results: dict, measured: list[Measured]) -> None:
    """Prints the tables and writes everything."""
    (folder / "outcomes").mkdir(parents=True, exist_ok=True)
    (folder / "eval_results.json").unlink(missing_ok=True)  # an older one would not fit what is written first
    markdown = [f"# {Path(results['model']).name}\n\n`{results['command']}`\n"]
    for each in measured:
        own = [record for record in results["figures"] if record["dataset"] == each.name]
        markdown.append(f"## {each.title}\n\n{told(each)}\n")
        for title, table in figure_tables(own).items():
            print(f"\n{each.title}\n{title}\n\n{as_text(*table)}")
            markdown.append(f"### {title}\n\n{as_markdown(*table)}\n")
        each.outcomes.save(folder / "outcomes" / f"{each.name}.npz")
        draw_plots(folder / "plots", each, results["model"], own)
    (folder / "eval_results.md").write_text("\n".join(markdown), encoding="utf-8")
    text = json.dumps(results, indent=2, ensure_ascii=False)
    (folder / "eval_results.json").write_text(text + "\n", encoding="utf-8")  # last: where it is, the rest is too


def told(each: Measured) -> str:
    """What a reader of the tables has to know of a dataset."""
    facts = each.facts
    lines = [f"{facts['rows']} images; figures in percent, 95 % bootstrap intervals over images in brackets."]
    if each.benchmark is not None:
        lines.append(f"Zero-shot: {len(each.benchmark.labels)} classes, prompt set `{facts['prompts']}`.")
    if facts["capitalize"]:
        lines.append("Captions begin with a capital letter.")
    return " ".join([*lines, *facts["notes"]])


def draw_plots(folder: Path, each: Measured, model: str, records: list[dict]) -> None:
    """The pictures of a dataset."""
    folder.mkdir(exist_ok=True)
    retrieval = {
        language: (found.image_ranks, found.text_ranks) for language, found in each.outcomes.retrieval.items()
    }
    if retrieval:
        by_language = [record for record in records if record["language"] in retrieval]
        save(recall_by_language(by_language, Path(model).name), folder / f"{each.name}_recall_by_language.png")
        save(recall_curves(retrieval), folder / f"{each.name}_recall_curves.png")
    for language, classification in each.outcomes.zero_shot.items():
        names = [each.benchmark.class_names[language][str(label)] for label in classification.classes]
        figure = confusion_matrix(confusion(classification), names)
        save(figure, folder / f"{each.name}_confusion_{language}.png")
    for language, queries in each.examples.items():
        path = folder / f"{each.name}_retrieved_{language}.png"
        save(retrieved_sheet(queries, language, f"{each.title}: text to image, {language}"), path)
