"""Names of figures, and the step where one is highest."""

import pytest

from rsmclip.core.errors import UserError
from rsmclip.training.best import BestStep, better, check_figure, mean_figures, named_figures
from rsmclip.training.config import TrainingConfig

METRICS = {
    "corpus": {"en": {"mean_recall": 10.0, "zero_shot_accuracy": 50.0, "images": 9}, "pt": {"mean_recall": 8.0}},
    "rsscn7": {"en": {"zero_shot_accuracy": 60.0}, "pt": {"zero_shot_accuracy": 50.0}},
}


def test_a_figure_is_named_by_benchmark_and_language_and_without_a_language_is_the_mean():
    means = {"mean_recall": 9.0, "zero_shot_accuracy": 50.0, "rsscn7/zero_shot_accuracy": 55.0}
    assert mean_figures(METRICS) == means
    assert named_figures(METRICS) == means | {
        "en/mean_recall": 10.0,
        "en/zero_shot_accuracy": 50.0,
        "pt/mean_recall": 8.0,
        "rsscn7/en/zero_shot_accuracy": 60.0,
        "rsscn7/pt/zero_shot_accuracy": 50.0,
    }


def test_an_unknown_figure_is_refused_with_the_known_ones():
    check_figure("pt/mean_recall", named_figures(METRICS))
    check_figure(None, [])
    with pytest.raises(UserError, match="'recall'.* mean_recall, .*rsscn7/pt/zero_shot_accuracy"):
        check_figure("recall", named_figures(METRICS))


def test_the_first_of_equal_steps_is_the_best_and_the_others_are_waited_for():
    best = None
    for step, value in ((10, 3.0), (20, 5.0), (30, 5.0), (40, 4.0)):
        best = better(best, step, value)
    assert best == BestStep(20, 5.0, waited=2)
    assert better(best, 50, 5.1) == BestStep(50, 5.1, waited=0)


def test_a_run_ends_after_as_many_evaluations_without_a_rise():
    settings = {"best_figure": "mean_recall", "early_stop_evaluations": 2}
    assert [BestStep(5, 1.0, waited).ends(TrainingConfig(**settings)) for waited in (1, 2, 3)] == [False, True, True]
    assert not BestStep(5, 1.0, waited=99).ends(TrainingConfig(best_figure="mean_recall"))
