"""`interpolate`: model folders of averaged weights, and the best average of a start and a tuned model.

Between two models, the figures in domain and out of domain are a curve (WiSE-FT, Wortsman et al. 2021, arXiv
2109.01903, figure 1). A rule chooses a point of it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError
from rsmclip.core.files import new_folder, write_whole
from rsmclip.eval.embed import Embedder, processes
from rsmclip.eval.evaluate import evaluate_corpus, metrics_by_language
from rsmclip.eval.models import text_input_of
from rsmclip.eval.plots import trade_off
from rsmclip.eval.report import Table, decimal, mean_over_languages
from rsmclip.eval.tasks import Task, measure_folder, named_folders, read_corpus, read_folder
from rsmclip.models.average import Ingredients, read_ingredients
from rsmclip.models.folder import save_model_folder

RECALL, ACCURACY = "mean_recall", "zero_shot_accuracy"
FIGURES, PLOT = "alphas.json", "alphas.png"  # beside the chosen model; a push leaves them out


@dataclass(frozen=True)
class Point:
    """Figures of the average of two models at one alpha."""

    alpha: float
    metrics: dict[str, dict[str, dict[str, float]]]  # `metrics_by_language` of each dataset; the first is the corpus

    @property
    def in_domain(self) -> float:
        """Return the mean recall on the corpus, over its languages."""
        return mean_over_languages(next(iter(self.metrics.values())), RECALL)

    @property
    def out_of_domain(self) -> float | None:
        """Return the zero-shot accuracy over the folders and their languages; `None` without folders."""
        _, *folders = self.metrics.values()
        if not folders:
            return None
        return float(np.mean([mean_over_languages(languages, ACCURACY) for languages in folders]))


def nearly_best(points: Sequence[Point]) -> Point:
    """Return the point with the smallest alpha that has at least 99 % of the highest mean recall in domain."""
    highest = max(point.in_domain for point in points)
    return next(point for point in points if point.in_domain >= 0.99 * highest)


RULES = {  # `--choose` documents them; points are sorted, so that of equal points the smallest alpha is chosen
    "mean": lambda points: max(points, key=lambda point: (point.in_domain + point.out_of_domain) / 2),
    "in_domain": lambda points: max(points, key=lambda point: point.in_domain),
    "nearly_in_domain": nearly_best,
}


def interpolate(start: Path, tuned: Path, folder: Path, alpha: float = 0.5, soup: Sequence[Path] = ()) -> None:
    """
    Write a model folder with averaged weights: `(1 - alpha) * start + alpha * tuned`.

    Args:
        start (`Path`): Folder of the model before fine-tuning; 0 gives its weights bit for bit.
        tuned (`Path`): Folder of the tuned model; 1 gives its weights bit for bit.
        folder (`Path`): New or empty folder.
        alpha (`float`, *optional*, defaults to 0.5): Share of the tuned model, from 0 to 1.
        soup (`Sequence[Path]`, *optional*): Further models or checkpoints. If given, all models have equal shares.

    Raises:
        [`UserError`]: The models differ in shapes or tokenizer, or the folder is not empty.
    """
    models = [start, tuned, *soup]
    shares = [1 / len(models)] * len(models) if soup else [1 - alpha, alpha]
    with new_folder(folder) as unfinished:
        ingredients = read_ingredients(models)
        save_model_folder(ingredients.average(shares), ingredients.processor, unfinished)


def interpolate_best(
    start: Path, tuned: Path, folder: Path, alphas: Sequence[float], tasks: list[Task], rule: str, batch_size: int
) -> tuple[Point, Table]:
    """
    Measure the average at each alpha, and write the model folder of the best one with a JSON file.

    With folders out of domain, a plot is written too.

    Args:
        start, tuned, folder: See [`interpolate`].
        alphas (`Sequence[float]`): Shares of the tuned model, from 0 to 1.
        tasks (`list[Task]`): Datasets of [`read_tasks`].
        rule (`str`): Key of `RULES`. Of alphas with equal figures, the smallest is the best.
        batch_size (`int`): Images or texts per batch.

    Returns:
        `tuple[Point, Table]`: The best point, and a table of all.

    Raises:
        [`UserError`]: As [`interpolate`], or the rule `"mean"` has no folder out of domain; nothing is left.
    """
    if rule == "mean" and len(tasks) == 1:
        raise UserError(
            "--choose mean needs images out of domain: give --benchmarks NAME=FOLDER, or --choose nearly_in_domain"
        )
    with new_folder(folder) as unfinished:
        ingredients = read_ingredients([start, tuned])
        points = [measure(ingredients, alpha, tasks, batch_size) for alpha in sorted(set(alphas))]
        best = RULES[rule](points)
        save_model_folder(ingredients.average([1 - best.alpha, best.alpha]), ingredients.processor, unfinished)

        # Leave the figures and, with figures out of domain, their plot beside the model.
        corpus, *folders = tasks
        facts = {"start": str(start), "tuned": str(tuned), "rule": rule, "alpha": best.alpha}
        facts |= {"dataset": corpus.dataset, "split": corpus.split, "folders": {t.name: t.dataset for t in folders}}
        fields = ("alpha", "in_domain", "out_of_domain", "metrics")
        values = [{field: getattr(point, field) for field in fields} for point in points]
        text = json.dumps(facts | {"points": values}, indent=2, ensure_ascii=False)
        write_whole(unfinished / FIGURES, text + "\n")
        if folders:
            curve = [(point.alpha, point.in_domain, point.out_of_domain) for point in points]
            save(trade_off(curve, best.alpha, [task.name for task in folders]), unfinished / PLOT)
    return best, point_table(points, tasks)


def read_tasks(dataset: str | None, split: str, languages: list[str] | None, benchmarks: Sequence[str]) -> list[Task]:
    """
    Read the datasets to measure averages on: a corpus in domain, then folders of images by class out of domain.

    Args:
        dataset (`str`, *optional*): Folder or Hub id of the corpus.
        split (`str`): Split of the corpus.
        languages (`list[str]`, *optional*): By default every language with captions in the split.
        benchmarks (`Sequence[str]`): `NAME=FOLDER` for each folder; `NAME` for the classes of the corpus.

    Raises:
        [`UserError`]: A dataset or benchmark does not exist, or the corpus is missing.
    """
    named = [entry for entry in benchmarks if "=" not in entry]
    folders = named_folders([entry for entry in benchmarks if "=" in entry], "--benchmarks")
    if not dataset:
        raise UserError("--alphas needs a corpus in domain: give --dataset")
    if len(named) > 1:
        raise UserError(f"--benchmarks: {named[0]!r} and {named[1]!r} have no folder; the corpus takes one of them")
    corpus = read_corpus(dataset, split, languages, named[0] if named else None)
    return [corpus, *(read_folder(name, folder, corpus.languages) for name, folder in folders.items())]


def measure(ingredients: Ingredients, alpha: float, tasks: list[Task], batch_size: int) -> Point:
    # In float32, as `rsmclip eval` measures a folder. The ingredients keep their precision.
    model, processor = ingredients.average([1 - alpha, alpha]).float().to(processes().device), ingredients.processor
    embedder = Embedder(model, processor, batch_size, text_input_of(model, processor.tokenizer))
    corpus, *folders = tasks
    metrics = {corpus.name: evaluate_corpus(embedder, corpus.rows, corpus.languages, corpus.benchmark)}
    for task in folders:
        metrics[task.name] = metrics_by_language(measure_folder(embedder, task)[1])
    return Point(alpha, metrics)


def point_table(points: list[Point], tasks: list[Task]) -> Table:
    # A row for each alpha. Each figure has a column for English and one for the mean over its languages.
    corpus, *folders = tasks
    figures = [("mean recall", corpus.name, RECALL)]
    if corpus.benchmark is not None:
        figures.append((corpus.benchmark.name, corpus.name, ACCURACY))
    figures += [(task.name, task.name, ACCURACY) for task in folders]
    header, columns = ["alpha"], [[f"{point.alpha:g}" for point in points]]
    for title, name, metric in figures:
        found = [{code: m for code, m in point.metrics[name].items() if metric in m} for point in points]
        if "en" in found[0]:
            header.append(f"{title} en")
            columns.append([decimal(values["en"][metric]) for values in found])
        if found[0].keys() != {"en"}:
            header.append(f"{title} mean of {len(found[0])}")
            columns.append([decimal(mean_over_languages(values, metric)) for values in found])
    return header, [list(row) for row in zip(*columns, strict=True)]
