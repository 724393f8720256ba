"""Probes against scikit-learn used directly, splits and draws against what they promise, and bad input."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_info, threadpool_limits

from rsmclip.eval import probes
from rsmclip.eval.probes import few_shot_probe, knn_probe, linear_probe, split_rows

NAMES = np.array(["airport", "bare land", "river", "école"])


def example(seed=0, images=240, dim=10, noise=2.0):
    """Train and test images of four classes, unevenly many and far from separable."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(4, images, p=[0.4, 0.3, 0.2, 0.1])
    embeds = rng.standard_normal((4, dim))[classes] + noise * rng.standard_normal((images, dim))
    half = images // 2
    labels = NAMES[classes].tolist()
    return embeds[:half], labels[:half], embeds[half:], labels[half:]


def assert_figures(result, labels, predicted):
    assert result["hits"].tolist() == (np.array(labels) == predicted).tolist()
    assert result["accuracy"] == pytest.approx(100 * accuracy_score(labels, predicted))
    assert result["mean_per_class_recall"] == pytest.approx(100 * balanced_accuracy_score(labels, predicted))


def fitted(train, labels, c):
    return LogisticRegression(C=c, tol=1e-6, max_iter=1000).fit(normalize(train), labels)


def test_linear_probe_is_the_logistic_regression_of_the_chosen_c_on_all_of_train():
    train, train_labels, test, test_labels = example()
    result = linear_probe(train, train_labels, test, test_labels)
    assert_figures(result, test_labels, fitted(train, train_labels, result["C"]).predict(normalize(test)))
    assert 30 < result["accuracy"] < 95


@pytest.mark.parametrize("seed", [0, 1])
def test_no_c_of_a_coarse_sweep_nor_beside_the_chosen_one_is_better_on_validation(seed):
    train, train_labels, test, test_labels = example()
    chosen = math.log10(linear_probe(train, train_labels, test, test_labels, seed=seed)["C"])
    assert 8 * chosen == pytest.approx(round(8 * chosen))  # eight steps a decade
    fit, validation = split_rows(train_labels, seed, 0.2)
    labels = np.array(train_labels)
    accuracy = {
        exponent: fitted(train[fit], labels[fit], 10**exponent).score(normalize(train[validation]), labels[validation])
        for exponent in [chosen, *range(-6, 7, 2), chosen - 1 / 8, chosen + 1 / 8]
    }
    assert accuracy[chosen] == max(accuracy.values()) > min(accuracy.values())
    assert accuracy[chosen - 1 / 8] < accuracy[chosen]  # of equal ones the smallest


def test_c_is_chosen_without_the_test_images():
    train, train_labels, test, test_labels = example()
    chosen = linear_probe(train, train_labels, test, test_labels)["C"]
    assert linear_probe(train, train_labels, train, train_labels)["C"] == chosen
    assert linear_probe(train, train_labels, -test, test_labels)["C"] == chosen


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_weighted_neighbours_equal_scikit_learn(temperature):
    train, train_labels, test, test_labels = example(1)
    neighbours = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    )
    predicted = neighbours.fit(train, train_labels).predict(test)
    assert_figures(knn_probe(train, train_labels, test, test_labels, temperature=temperature), test_labels, predicted)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_without_temperature_every_neighbour_has_one_vote_as_in_scikit_learn(k):
    train, train_labels, test, test_labels = example(2)
    neighbours = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, train_labels)
    shares = neighbours.predict_proba(test)
    own = shares[np.arange(len(test)), np.searchsorted(neighbours.classes_, test_labels)]
    alone = (shares >= own[:, None]).sum(axis=1) == 1  # scikit-learn gives a tie to the first class
    hits = knn_probe(train, train_labels, test, test_labels, k=k, temperature=math.inf)["hits"]
    assert hits.tolist() == alone.tolist()
    assert 0.2 < hits.mean() < 0.95


@pytest.mark.parametrize("entries", [1, 500, 2**24])
def test_neighbours_do_not_depend_on_chunks_or_the_order_of_duplicates(monkeypatch, entries):
    train, train_labels, test, test_labels = example(3)
    train, test = np.round(train), np.round(test)  # many equal similarities
    train, train_labels = np.concatenate([train, train[:60]]), train_labels + train_labels[30:90]
    expected = knn_probe(train, train_labels, test, test_labels, k=7)["hits"]
    order = np.random.default_rng(0).permutation(len(train))
    monkeypatch.setattr(probes, "CHUNK_ENTRIES", entries)
    shuffled = knn_probe(train[order], np.array(train_labels)[order], test, test_labels, k=7)["hits"]
    assert shuffled.tolist() == expected.tolist()


def test_a_tie_of_votes_is_an_error_and_ties_at_the_last_neighbour_all_vote():
    train = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    test = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    result = knn_probe(train, ["a", "b", "b"], test, ["a", "b", "b"], k=1)
    assert result["hits"].tolist() == [False, False, True]
    assert knn_probe([train[0]] * 3, ["a", "b", "b"], test[:2], ["a", "b"], k=1)["hits"].tolist() == [False, True]


@pytest.mark.parametrize("entries", [1, 1000, 2**24])
def test_images_that_lie_in_two_classes_never_decide_for_one(monkeypatch, entries):
    monkeypatch.setattr(probes, "CHUNK_ENTRIES", entries)
    rng = np.random.default_rng(0)
    images, test = rng.standard_normal((103, 67)), rng.standard_normal((50, 67))
    order = rng.permutation(206)
    labels = np.repeat(["a", "b"], 103)[order]
    assert not knn_probe(np.tile(images, (2, 1))[order], labels, test, ["a", "b"] * 25)["hits"].any()
    # To a constant test row also those are equal that differ in the order of their coordinates, but for rounding.
    images = rng.integers(-9, 10, (103, 67)).astype(float)
    train = np.concatenate([images, images[:, rng.permutation(67)]])[order]
    assert not knn_probe(train, labels, np.full((50, 67), 0.1), ["a", "b"] * 25)["hits"].any()


def test_a_small_temperature_does_not_lose_the_votes():
    train, train_labels, test, test_labels = example(4)
    nearest = knn_probe(train, train_labels, test, test_labels, k=1)["hits"]
    assert knn_probe(train, train_labels, test, test_labels, temperature=1e-9)["hits"].tolist() == nearest.tolist()


def test_few_shot_probe_is_the_logistic_regression_on_n_images_a_class_over_the_seeds():
    train, train_labels, test, test_labels = example(images=400)
    result = few_shot_probe(train, train_labels, test, test_labels, shots=(1, 8), seeds=3)
    assert list(result) == [1, 8]
    for number, figures in result.items():
        runs = []
        for seed in range(3):
            drawn = np.concatenate([r[:number] for r in probes.shuffled_rows(train_labels, seed, "few-shot").values()])
            drawn_labels = np.array(train_labels)[drawn]
            assert dict(zip(*np.unique(drawn_labels, return_counts=True), strict=True)) == dict.fromkeys(NAMES, number)
            runs.append(fitted(train[drawn], drawn_labels, figures["C"]).predict(normalize(test)))
        assert figures["hits"].tolist() == [(np.array(test_labels) == run).tolist() for run in runs]
        for name, score in (("accuracy", accuracy_score), ("mean_per_class_recall", balanced_accuracy_score)):
            values = [100 * score(test_labels, run) for run in runs]
            assert figures[name] == pytest.approx(np.mean(values))
            assert figures[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))
    assert result[1]["accuracy"] + 5 < result[8]["accuracy"]


def test_one_shot_of_many_classes_gives_no_warning():
    embeds, labels = np.random.default_rng(0).standard_normal((60, 8)), np.arange(60) % 30
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = few_shot_probe(embeds, labels, embeds, labels, shots=(1,))
    assert result[1]["hits"].sum(axis=1).min() >= 30  # of each class at least the image that it learnt


def test_split_takes_its_share_of_every_class():
    labels = ["a"] * 10 + ["b"] * 7 + ["c"] * 2
    train, test = split_rows(labels, test_share=0.2)
    assert sorted([*train, *test]) == list(range(19))
    assert np.unique(np.array(labels)[test], return_counts=True)[1].tolist() == [2, 1, 1]
    assert [rows.tolist() for rows in split_rows(labels, test_share=0.2)] == [train.tolist(), test.tolist()]
    assert split_rows(labels, seed=1, test_share=0.2)[1].tolist() != test.tolist()


def test_split_of_a_class_does_not_depend_on_what_lies_between_its_rows():
    labels = np.array(["a"] * 40 + ["b"] * 30)
    order = np.random.default_rng(0).permutation(70)
    mixed = np.concatenate([labels[order], ["c"] * 4])
    for name in "ab":
        places = [np.isin(np.flatnonzero(given == name), split_rows(given)[1]).tolist() for given in (labels, mixed)]
        assert places[0] == places[1]
        assert 0 < sum(places[0]) < len(places[0])


def test_type_of_labels_and_scale_of_embeddings_do_not_matter():
    train, train_labels, test, test_labels = example()
    numbers = {name: index for index, name in enumerate(NAMES)}
    as_numbers = [torch.tensor([numbers[name] for name in labels]) for labels in (train_labels, test_labels)]
    scaled = torch.tensor(train) * 7, as_numbers[0], torch.tensor(test) * 0.1, as_numbers[1]
    hits = knn_probe(train, train_labels, test, test_labels)["hits"]
    assert knn_probe(*scaled)["hits"].tolist() == hits.tolist()


def test_one_test_image_is_enough():
    train, train_labels, test, test_labels = example()
    for probe in (linear_probe, knn_probe):
        result = probe(train, train_labels, test[:1], test_labels[:1])
        assert result["accuracy"] == result["mean_per_class_recall"] == 100 * result["hits"][0]


@pytest.mark.parametrize("probe", [linear_probe, knn_probe, few_shot_probe])
def test_bad_input_is_named(probe):
    train, train_labels, test, test_labels = example()
    broken = train.copy()
    broken[5, 0] = np.nan
    for message, arguments in {
        "1 train embeddings are zero or not finite, the first in row 5": (broken, train_labels, test, test_labels),
        "the first in row 0": (train, train_labels, 0 * test, test_labels),
        "train embeddings have 9 dimensions, test embeddings 10": (train[:, 1:], train_labels, test, test_labels),
        "119 labels for 120 train images": (train, train_labels[1:], test, test_labels),
        "119 labels for 120 test images": (train, train_labels, test, test_labels[1:]),
        "at least two classes; train has only 'x'": (train, ["x"] * 120, test, ["x"] * 120),
        "class 'x' of test has no train images": (train, train_labels, test, [*test_labels[1:], "x"]),
        "test image in row 119 has no label": (train, train_labels, test, [*test_labels[1:], None]),
    }.items():
        with pytest.raises(ValueError, match=message):
            probe(*arguments)


def test_too_few_images_are_named():
    train, train_labels, test, test_labels = example()
    lonely = ["x", *train_labels[1:]]
    with pytest.raises(ValueError, match="class 'x' has one image and cannot be split"):
        linear_probe(train, lonely, test, test_labels)
    with pytest.raises(ValueError, match="class 'x' has one image and cannot be split"):
        split_rows(lonely)
    with pytest.raises(ValueError, match="2 shots need as many train images of each class; 'x' has 1"):
        few_shot_probe(train, lonely, test, test_labels, shots=(1, 2))
    with pytest.raises(ValueError, match="k must be from 1 to 120, the number of train images, not 121"):
        knn_probe(train, train_labels, test, test_labels, k=121)


def test_arguments_out_of_range_are_named():
    data = example()
    with pytest.raises(ValueError, match="temperature must be above 0"):
        knn_probe(*data, temperature=0)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        few_shot_probe(*data, seeds=1)
    with pytest.raises(ValueError, match="shots must be whole numbers from 1 on"):
        few_shot_probe(*data, shots=(0, 1))
    with pytest.raises(ValueError, match="test_share must lie between 0 and 1"):
        split_rows(data[1], test_share=1)


def test_fits_take_one_thread_whatever_the_process_has(monkeypatch):
    seen = []

    class Watched(LogisticRegression):
        def fit(self, *data):
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return super().fit(*data)

    monkeypatch.setattr(probes, "LogisticRegression", Watched)
    with threadpool_limits(2, "blas"):
        linear_probe(*example())
        assert max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas") == 2
    assert set(seen) == {1}
