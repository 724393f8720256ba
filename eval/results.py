"""The files that `rsmclip eval` writes into its output folder.

eval_results.json     every figure with its interval; data, model and command (docs/evaluation.md)
eval_results.md       the tables
outcomes/NAME.npz     ranks, hits and predictions of each image, for `rsmclip eval compare`
plots/                recall by language, recall@k, confusion matrices, retrieved examples
"""

import platform
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from rsmclip.core.drawing import save
from rsmclip.core.errors import user_errors
from rsmclip.core.files import write_whole
from rsmclip.eval.evaluate import metrics_by_language
from rsmclip.eval.intervals import figures
from rsmclip.eval.outcomes import Outcomes, confusion
from rsmclip.eval.plots import confusion_matrix, recall_by_language, recall_curves
from rsmclip.eval.protocol import Benchmark
from rsmclip.eval.report import as_markdown, as_text, figure_tables
from rsmclip.eval.run_results import FILE_NAME, Results
from rsmclip.eval.sheet import Query, retrieved_sheet

SCHEMA = 1  # version of eval_results.json
LIBRARIES = ("rsmclip", "torch", "transformers", "datasets", "numpy", "scikit-learn")


@dataclass(kw_only=True)
class DatasetFacts(Results):
    """A dataset that a model was evaluated on."""

    dataset: str  # folder or Hub id
    split: str | None  # None for a folder of images
    revision: str | None  # commit of a dataset on the Hub
    rows: int
    fingerprint: str  # hash of the images and captions
    languages: list[str]
    capitalize: bool  # whether captions begin with a capital letter
    notes: list[str]  # remarks that a reader of the figures needs
    benchmark: str | None = None  # of the zero-shot figures
    prompts: str | None = None  # name of the prompt set
    templates: dict[str, list[str]] | None = None  # by language
    class_names: dict[str, dict[str, str]] | None = None  # by language and class, if they are from `--classes`
    probed_on: str | None = None  # hash of the rows of a corpus that probes learn from
    citation: str | None = None
    license: str | None = None

    def title(self, name: str) -> str:
        """Return the title of the tables of the dataset with this name."""
        split = f", split {self.split}" if self.split else ""
        return f"{name}: {Path(self.dataset).name}{split}"


@dataclass(kw_only=True)
class EvalResults(Results):
    """The file `eval_results.json` of `rsmclip eval`."""

    schema: int  # version of the file
    model: str  # folder or Hub id
    model_hash: str
    command: str  # that wrote the file
    date: str  # YYYY-MM-DD
    versions: dict[str, str]  # of Python and libraries
    bootstrap_samples: int
    datasets: dict[str, DatasetFacts]  # by name
    figures: list[dict]  # from eval/intervals.py `figures`, each with the name of its `dataset`
    metrics: dict[str, dict[str, dict[str, float]]]  # values by dataset, language and metric

    def __str__(self) -> str:
        """Return the tables of all datasets."""
        tables = (
            f"{facts.title(name)}\n{title}\n\n{as_text(*table)}"
            for name, facts in self.datasets.items()
            for title, table in figure_tables(self.figures_of(name)).items()
        )
        return "\n\n".join(tables)

    def figures_of(self, name: str) -> list[dict]:
        """Return the records of a dataset."""
        return [record for record in self.figures if record["dataset"] == name]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `eval_results.json` and check the fields of each dataset."""
        results = super().read(folder)
        facts = {name: DatasetFacts.from_fields(fields, folder) for name, fields in results.datasets.items()}
        return replace(results, datasets=facts)


@dataclass
class Measured:
    """The measurement of a dataset: the outcome of each image, and examples of retrieval."""

    name: str
    facts: DatasetFacts
    outcomes: Outcomes
    benchmark: Benchmark | None = None
    sentences: Outcomes | None = None  # of text-to-text retrieval
    examples: dict[str, list[Query]] = field(default_factory=dict)  # queries and retrieved images by language

    @property
    def title(self) -> str:
        """Title of the dataset's tables."""
        return self.facts.title(self.name)


def make_results(model: str, model_hash: str, command: str, measured: list[Measured], samples: int) -> EvalResults:
    """Compute the figures of all datasets. Intervals use `samples` draws of the bootstrap."""
    records = []
    for each in measured:
        found = figures(each.outcomes, samples)
        found += figures(each.sentences, samples) if each.sentences is not None else []
        records += [{"dataset": each.name} | record for record in found]
    return EvalResults(
        schema=SCHEMA,
        model=model,
        model_hash=model_hash,
        command=command,
        date=datetime.now(UTC).date().isoformat(),
        versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        bootstrap_samples=samples,
        datasets={each.name: each.facts for each in measured},
        figures=records,
        metrics={each.name: metrics_by_language(each.outcomes) for each in measured},
    )


def write_results(folder: Path, results: EvalResults, measured: list[Measured]) -> None:
    """Write all files of the output folder."""
    with user_errors(OSError, prefix=f"{folder} cannot be written"):
        for name in ("outcomes", "plots"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).unlink(missing_ok=True)  # of an older evaluation

    # Write tables, outcomes and plots of each dataset.
    markdown = [f"# {Path(results.model).name}\n\n`{results.command}`\n"]
    for each in measured:
        own = results.figures_of(each.name)
        markdown.append(f"## {each.title}\n\n{explanation(each)}\n")
        for title, table in figure_tables(own).items():
            markdown.append(f"### {title}\n\n{as_markdown(*table)}\n")
        each.outcomes.save(folder / "outcomes" / f"{each.name}.npz")
        draw_plots(folder / "plots", each, results.model, own)

    # Write eval_results.json last: a folder that has it is complete.
    write_whole(folder / "eval_results.md", "\n".join(markdown))
    results.write(folder)


def explanation(each: Measured) -> str:
    facts = each.facts
    lines = [f"{facts.rows} images; figures in percent, 95 % bootstrap intervals over images in brackets."]
    if each.benchmark is not None:
        lines.append(f"Zero-shot: {len(each.benchmark.labels)} classes, prompt set `{facts.prompts}`.")
    if facts.capitalize:
        lines.append("Captions begin with a capital letter.")
    return " ".join([*lines, *facts.notes])


def draw_plots(folder: Path, each: Measured, model: str, records: list[dict]) -> None:
    # Recall by language and recall@k.
    retrieval = {
        language: (found.image_ranks, found.text_ranks) for language, found in each.outcomes.retrieval.items()
    }
    if retrieval:
        by_language = [record for record in records if record["language"] in retrieval]
        save(recall_by_language(by_language, Path(model).name), folder / f"{each.name}_recall_by_language.png")
        save(recall_curves(retrieval), folder / f"{each.name}_recall_curves.png")

    # A confusion matrix and the retrieved images for each language.
    for language, classification in each.outcomes.zero_shot.items():
        names = [each.benchmark.class_names[language][str(label)] for label in classification.classes]
        figure = confusion_matrix(confusion(classification), names)
        save(figure, folder / f"{each.name}_confusion_{language}.png")
    for language, queries in each.examples.items():
        path = folder / f"{each.name}_retrieved_{language}.png"
        save(retrieved_sheet(queries, language, f"{each.title}: text to image, {language}"), path)
