"""Figures of weighted images and their bootstrap, against figures computed directly from resampled rows."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from rsmclip.core.errors import UserError
from rsmclip.eval.compare import Comparison, check_same, differences
from rsmclip.eval.evaluate import metrics_by_language
from rsmclip.eval.intervals import draw_statistics, figures, interval, resamples
from rsmclip.eval.outcomes import Classification, Outcomes, Retrieval, confusion, statistics, weighted_median
from rsmclip.eval.results import DatasetFacts


def random_outcomes(seed: int, rows: int = 40, better: int = 0) -> Outcomes:
    # Retrieval in two languages, zero-shot classification and a probe; `better` is subtracted from the ranks.
    rng = np.random.default_rng(seed)
    outcomes = Outcomes([f"image_{row}" for row in range(rows)])
    for language, own in (("en", np.arange(rows)), ("pt", np.arange(0, rows, 2))):
        text_rows = np.repeat(own, rng.integers(1, 4, len(own)))
        ranks = [np.maximum(rng.integers(0, 15, len(each)) - better, 0) for each in (own, text_rows)]
        outcomes.retrieval[language] = Retrieval(own, ranks[0], text_rows, ranks[1])
    outcomes.english["pt"] = outcomes.retrieval["pt"]
    if better:
        outcomes.english["en"] = random_outcomes(seed, rows).retrieval["en"]
    labels, predicted = rng.integers(0, 4, (2, rows))
    classes = np.array(["a", "b", "c", "d"])
    hits = labels == predicted
    outcomes.zero_shot["en"] = Classification(np.arange(rows), labels, classes, hits, hits | (labels > 1), predicted)
    outcomes.probes["knn_probe"] = Classification(np.arange(rows), labels, classes, hits)
    hits = labels == rng.integers(0, 4, rows)
    outcomes.transductive["en"] = Classification(np.arange(rows), labels, classes, hits)
    return outcomes


def plainly(outcomes: Outcomes, drawn: np.ndarray) -> dict[tuple[str, str], float]:
    found = {}
    for language, retrieval in outcomes.retrieval.items():
        image_ranks = [rank for row in drawn for rank in retrieval.image_ranks[retrieval.rows == row]]
        text_ranks = [rank for row in drawn for rank in retrieval.text_ranks[retrieval.text_rows == row]]
        recalls = [100 * np.mean(np.array(ranks) < k) for ranks in (image_ranks, text_ranks) for k in (1, 5, 10)]
        found[language, "image_to_text_recall@5"], found[language, "text_to_image_recall@10"] = recalls[1], recalls[5]
        found[language, "mean_recall"] = np.mean(recalls)
        found[language, "text_to_image_median_rank"] = np.sort(text_ranks)[(len(text_ranks) - 1) // 2] + 1
    found["mean", "mean_recall"] = (found["en", "mean_recall"] + found["pt", "mean_recall"]) / 2
    zero_shot = outcomes.zero_shot["en"]
    found["en", "zero_shot_accuracy"] = 100 * zero_shot.hits[drawn].mean()
    found["en", "transductive_accuracy"] = 100 * outcomes.transductive["en"].hits[drawn].mean()
    balanced = balanced_accuracy_score(zero_shot.labels[drawn], zero_shot.predicted[drawn])
    found["en", "zero_shot_mean_per_class_recall"] = found["", "knn_probe_mean_per_class_recall"] = 100 * balanced
    return found


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_figures_of_a_resample_are_the_figures_of_the_drawn_rows():
    outcomes = random_outcomes(0)
    weights = next(resamples(len(outcomes.ids), 5))
    found = statistics(outcomes, weights)
    for draw in range(5):
        drawn = np.random.default_rng([0, draw]).integers(40, size=40)
        for key, value in plainly(outcomes, drawn).items():
            assert found[key][draw] == pytest.approx(value), key


def test_the_value_of_a_figure_counts_every_row_once():
    outcomes = random_outcomes(1)
    metrics = metrics_by_language(outcomes)
    for (language, metric), value in plainly(outcomes, np.arange(40)).items():
        if language in metrics:
            assert metrics[language][metric] == pytest.approx(value)
    assert metrics["pt"]["images"] == 20 and metrics["en"]["chance_zero_shot_accuracy"] == 25
    records = {(record["language"], record["metric"]): record for record in figures(outcomes, samples=50)}
    assert records["pt", "mean_recall"]["value"] == metrics["pt"]["mean_recall"]
    assert records["pt", "mean_recall"]["chance"] == metrics["pt"]["chance_mean_recall"]
    assert records["pt", "mean_recall_gap_to_english"]["value"] == 0
    assert records[None, "knn_probe_accuracy"]["chance"] == records["en", "transductive_accuracy"]["chance"] == 25
    for record in records.values():
        assert record["interval"][0] <= record["value"] <= record["interval"][1] or "median" in record["metric"]


def test_draws_do_not_depend_on_the_batch_of_draws(monkeypatch):
    outcomes = random_outcomes(2)
    expected = draw_statistics(outcomes, 30)
    monkeypatch.setattr("rsmclip.eval.intervals.AT_ONCE", 100)
    for key, draws in draw_statistics(outcomes, 30).items():
        np.testing.assert_allclose(draws, expected[key], rtol=1e-12)
    assert next(resamples(40, 1)).sum() == 40


def test_intervals_contain_the_truth_in_about_95_of_100_samples():
    rng, truth, held = np.random.default_rng(3), 30.0, 0
    for _ in range(200):
        hits = rng.random(150) < truth / 100
        outcomes = Outcomes([""] * 150, probes={"p": Classification(np.arange(150), hits * 1, np.arange(2), hits)})
        low, high = interval(draw_statistics(outcomes, 200)["", "p_accuracy"])
        held += low <= truth <= high
    assert 180 <= held <= 199


def test_the_lower_median_counts_weights():
    values, weights = np.array([5, 1, 3]), np.array([[1.0, 1, 1], [0, 3, 1], [2, 1, 1], [0, 0, 1]])
    assert weighted_median(values, weights).tolist() == [3, 1, 3, 3]


def test_outcomes_are_read_as_they_were_written(tmp_path):
    outcomes = random_outcomes(4)
    outcomes.save(tmp_path / "o.npz")
    read, ones = Outcomes.load(tmp_path / "o.npz"), np.ones((1, 40))
    assert read.ids == outcomes.ids
    assert statistics(read, ones).keys() == statistics(outcomes, ones).keys()
    for key, value in statistics(outcomes, ones).items():
        assert statistics(read, ones)[key] == value


def test_confusion_counts_true_and_predicted_classes():
    classification = Classification(
        np.arange(3), np.array([0, 2, 2]), np.array(["a", "b", "c"]), None, None, np.array([0, 1, 2])
    )
    assert confusion(classification).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]


def test_a_paired_difference_is_real_where_single_intervals_overlap():
    one, other = random_outcomes(5, rows=300), random_outcomes(5, rows=300, better=1)
    records = {(r["language"], r["metric"]): r for r in differences({"corpus": one}, {"corpus": other}, samples=300)}
    recall = records["en", "mean_recall"]
    assert recall["real"] and recall["difference"] > 0 and recall["interval"][0] > 0
    ones = np.ones((1, 300))
    assert statistics(other, ones)["en", "mean_recall_gap_to_english"] < 0  # `english` is the worse model
    accuracy = records["en", "zero_shot_accuracy"]
    assert accuracy["difference"] == 0 and accuracy["interval"] == [0, 0] and not accuracy["real"]
    assert ("", "knn_probe_accuracy") in records and ("en", "text_to_image_median_rank") not in records
    header, rows = Comparison(a="a", b="b", bootstrap_samples=300, differences=list(records.values())).table()
    assert len(header) == len(rows[0]) and {row[-1] for row in rows} == {"yes", "–"}
    paired = recall["interval"][1] - recall["interval"][0]
    alone = np.diff(interval(draw_statistics(one, 300)["en", "mean_recall"]))[0]
    assert paired < alone


def test_models_of_equal_skill_rarely_have_a_real_difference():
    real = 0
    for seed in range(60):
        one, other = random_outcomes(2 * seed, rows=100), random_outcomes(2 * seed + 1, rows=100)
        real += differences({"d": one}, {"d": other}, samples=200)[0]["real"]
    assert real <= 9  # of 60, at 5 %


@pytest.mark.parametrize(
    ("images", "samples", "real"), [(6, 40, True), (5, 40, False), (6, 39, False), (1, 1000, False), (300, 1, False)]
)
def test_few_images_or_draws_make_no_difference_real(images, samples, real):
    rows = np.arange(images)
    ids = [str(row) for row in range(300)]  # most have no label
    one, other = (
        Outcomes(ids, probes={"p_probe": Classification(rows, rows * 0, np.arange(1), np.full(images, hit))})
        for hit in (False, True)
    )
    records = differences({"d": one}, {"d": other}, samples)
    assert [record["real"] for record in records] == [real] and records[0]["difference"] == 100


def test_a_mean_over_languages_is_tested_on_the_images_of_the_language_with_the_fewest():
    ids = [str(row) for row in range(300)]

    def outcomes(hit: bool) -> Outcomes:
        found = {}
        for code, images in (("en", 100), ("pt", 3)):
            rows = np.arange(images)
            found[code] = Classification(rows, rows * 0, np.arange(1), np.full(images, hit))
        return Outcomes(ids, zero_shot=found)

    records = differences({"d": outcomes(False)}, {"d": outcomes(True)}, 100)
    real = {record["language"]: record["real"] for record in records if record["metric"] == "zero_shot_accuracy"}
    assert real == {"en": True, "pt": False, "mean": False}


@pytest.mark.parametrize("change", [lambda ids: ids[::-1], lambda ids: ids[:-1], lambda ids: [*ids[:-1], "another"]])
def test_rows_that_are_not_in_pairs_are_not_compared(change):
    one, other = random_outcomes(1), random_outcomes(2)
    other.ids = change(other.ids)
    with pytest.raises(UserError, match=r"row (0|39) of corpus .*same order"):
        differences({"corpus": one}, {"corpus": other}, samples=10)


def test_different_measurements_are_not_compared():
    fields = {"dataset": "x", "split": "test", "revision": None, "rows": 9, "fingerprint": "x", "languages": ["en"]}
    facts = DatasetFacts(**fields, capitalize=False, notes=[], prompts="small")
    with pytest.raises(UserError, match="prompts.*corpus"):
        check_same({"corpus": facts}, {"corpus": replace(facts, prompts="single")}, ("a", "b"))
    named = replace(facts, class_names={"pt": {"a": "rio"}})
    with pytest.raises(UserError, match="class_names.*corpus"):
        check_same({"corpus": facts}, {"corpus": named}, ("a", "b"))
    probed = replace(facts, probed_on="rows")
    check_same({"corpus": facts}, {"corpus": probed}, ("a", "b"))  # then no probe is compared
    with pytest.raises(UserError, match="train_split"):
        check_same({"corpus": probed}, {"corpus": replace(facts, probed_on="other rows")}, ("a", "b"))
    with pytest.raises(UserError, match="a and b"):
        check_same({"corpus": facts}, {"rsscn7": facts}, ("a", "b"))


@pytest.mark.filterwarnings("error")
def test_a_language_or_labels_of_few_images_have_intervals():
    few, outcomes = np.array([3, 150]), Outcomes([str(row) for row in range(200)])
    outcomes.retrieval["en"] = Retrieval(np.arange(200), np.zeros(200, int), np.arange(200), np.ones(200, int))
    outcomes.retrieval["pt"] = Retrieval(few, np.array([0, 1]), few, np.array([1, 0]))
    hits = np.array([True, False])
    outcomes.zero_shot["en"] = Classification(few, np.arange(2), np.array(["a", "b"]), hits, hits, np.zeros(2, int))
    drawn = draw_statistics(outcomes, 300)["pt", "mean_recall"]
    assert np.isnan(drawn).any()  # draws without either of the two images
    records = {(record["language"], record["metric"]): record for record in figures(outcomes, samples=300)}
    assert not [key for key, record in records.items() if not np.isfinite(record["interval"]).all()]
    assert records["en", "zero_shot_accuracy"]["interval"] == [0, 100]
    assert records["pt", "image_to_text_median_rank"]["interval"] == [1, 2]
    assert not any(
        np.isnan(r["interval"]).any() for r in differences({"d": outcomes}, {"d": outcomes}, 300, every=True)
    )
