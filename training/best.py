"""Figures of the validation by name, and the step where a figure is highest.

mean_recall                   mean over the languages, on the validation split
en/mean_recall                in one language
rsscn7/zero_shot_accuracy     mean over the languages, on the folder of `--benchmarks rsscn7=FOLDER`
rsscn7/en/zero_shot_accuracy  in one language
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from rsmclip.core.errors import UserError
from rsmclip.training.config import OutputSettings

CORPUS = "corpus"
SHOWN = ("mean_recall", "zero_shot_accuracy")

Metrics = dict[str, dict[str, dict[str, float]]]  # by dataset ("corpus" or the name of a folder), language and metric


def shown(found: dict[str, float]) -> dict[str, float]:
    """Return the figures of one language that are written to the log."""
    return {metric: found[metric] for metric in SHOWN if metric in found}


def mean_figures(metrics: Metrics) -> dict[str, float]:
    """Return the means over languages of an evaluation by name."""
    figures = {}
    for dataset, by_language in metrics.items():
        for metric in SHOWN:
            if values := [found[metric] for found in by_language.values() if metric in found]:
                figures[figure_name(dataset, metric)] = float(np.mean(values))
    return figures


def named_figures(metrics: Metrics) -> dict[str, float]:
    """Return all figures of an evaluation by name, the means first."""
    return mean_figures(metrics) | {
        figure_name(dataset, language, metric): value
        for dataset, by_language in metrics.items()
        for language, found in by_language.items()
        for metric, value in shown(found).items()
    }


def figure_name(dataset: str, *parts: str) -> str:
    return "/".join(parts if dataset == CORPUS else (dataset, *parts))


def check_figure(name: str | None, known: Iterable[str]) -> None:
    """Raise [`UserError`] if no figure has this name."""
    if name is not None and name not in (known := list(known)):
        raise UserError(f"best_figure: the validation has no figure {name!r}; its figures: {', '.join(known)}")


@dataclass(frozen=True)
class BestStep:
    """The first step with the highest value of a figure."""

    step: int
    value: float
    waited: int = 0  # number of evaluations since

    def ends(self, settings: OutputSettings) -> bool:
        """Return whether the figure has not risen for `early_stop_evaluations` evaluations."""
        return settings.early_stop_evaluations is not None and self.waited >= settings.early_stop_evaluations

    def describe(self, figure: str, last_step: int) -> dict:
        """Return the facts that the results of a run record."""
        return {"figure": figure, "last_step": last_step} | asdict(self)


def better(best: BestStep | None, step: int, value: float) -> BestStep:
    """Return the best step after one more evaluation."""
    if best is None or value > best.value:
        return BestStep(step, value)
    return BestStep(best.step, best.value, best.waited + 1)
