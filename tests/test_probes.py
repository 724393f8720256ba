"""Probes against scikit-learn, properties of splits and draws, and bad input."""

import math

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
    # Train and test images of four classes, of uneven numbers and far from separable.
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


def test_linear_probe_is_the_logistic_regression_with_the_chosen_c_on_all_of_train():
    train, train_labels, test, test_labels = example()
    result = linear_probe(train, train_labels, test, test_labels)
    assert_figures(result, test_labels, fitted(train, train_labels, result["C"]).predict(normalize(test)))
    assert 30 < result["accuracy"] < 95


@pytest.mark.parametrize("seed", [0, 1])
def test_the_chosen_c_is_best_on_validation(seed):
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
    assert accuracy[chosen - 1 / 8] < accuracy[chosen]  # the smallest of equally good ones


def test_c_is_chosen_without_the_test_images():
    train, train_labels, test, test_labels = example()
    chosen = linear_probe(train, train_labels, test, test_labels)["C"]
    assert linear_probe(train, train_labels, -test, test_labels)["C"] == chosen


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_weighted_neighbors_equal_scikit_learn(temperature):
    train, train_labels, test, test_labels = example(1)
    neighbors = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    )
    predicted = neighbors.fit(train, train_labels).predict(test)
    assert_figures(knn_probe(train, train_labels, test, test_labels, temperature=temperature), test_labels, predicted)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_with_infinite_temperature_every_neighbor_has_one_vote_as_in_scikit_learn(k):
    train, train_labels, test, test_labels = example(2)
    neighbors = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, train_labels)
    shares = neighbors.predict_proba(test)
    own = shares[np.arange(len(test)), np.searchsorted(neighbors.classes_, test_labels)]
    alone = (shares >= own[:, None]).sum(axis=1) == 1  # scikit-learn gives a tie to the first class
    hits = knn_probe(train, train_labels, test, test_labels, k=k, temperature=math.inf)["hits"]
    assert hits.tolist() == alone.tolist()
    assert 0.2 < hits.mean() < 0.95


@pytest.mark.parametrize("entries", [1, 500, 2**24])
def test_neighbors_do_not_depend_on_chunks_or_the_order_of_duplicates(monkeypatch, entries):
    train, train_labels, test, test_labels = example(3)
    train, test = np.round(train), np.round(test)  # many equal similarities
    train, train_labels = np.concatenate([train, train[:60]]), train_labels + train_labels[30:90]
    expected = knn_probe(train, train_labels, test, test_labels, k=7)["hits"]
    order = np.random.default_rng(0).permutation(len(train))
    monkeypatch.setattr(probes, "CHUNK_ENTRIES", entries)
    shuffled = knn_probe(train[order], np.array(train_labels)[order], test, test_labels, k=7)["hits"]
    assert shuffled.tolist() == expected.tolist()


def test_a_tie_of_votes_is_an_error_and_all_ties_at_the_last_neighbor_vote():
    train = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    test = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    result = knn_probe(train, ["a", "b", "b"], test, ["a", "b", "b"], k=1)
    assert result["hits"].tolist() == [False, False, True]
    assert knn_probe([train[0]] * 3, ["a", "b", "b"], test[:2], ["a", "b"], k=1)["hits"].tolist() == [False, True]


@pytest.mark.parametrize("entries", [1, 2**24])
def test_images_in_two_classes_never_decide_for_one(monkeypatch, entries):
    monkeypatch.setattr(probes, "CHUNK_ENTRIES", entries)
    rng = np.random.default_rng(0)
    images, test = rng.standard_normal((103, 67)), rng.standard_normal((50, 67))
    order = rng.permutation(206)
    labels = np.repeat(["a", "b"], 103)[order]
    assert not knn_probe(np.tile(images, (2, 1))[order], labels, test, ["a", "b"] * 25)["hits"].any()
    # Rows that differ only in the order of their coordinates are equally near to a constant row, but for rounding.
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
            assert figures[name] == pytest.approx(np.mean([100 * score(test_labels, run) for run in runs]))
    assert result[1]["accuracy"] + 5 < result[8]["accuracy"]


@pytest.mark.filterwarnings("error::UserWarning")
def test_one_shot_of_many_classes_gives_no_warning():
    embeds, labels = np.random.default_rng(0).standard_normal((60, 8)), np.arange(60) % 30
    result = few_shot_probe(embeds, labels, embeds, labels, shots=(1,))
    assert result[1]["hits"].sum(axis=1).min() >= 30  # at least the image of each class in train


def test_split_takes_its_share_of_every_class():
    labels = ["a"] * 10 + ["b"] * 7 + ["c"] * 2
    train, test = split_rows(labels, test_share=0.2)
    assert sorted([*train, *test]) == list(range(19))
    assert np.unique(np.array(labels)[test], return_counts=True)[1].tolist() == [2, 1, 1]
    assert [rows.tolist() for rows in split_rows(labels, test_share=0.2)] == [train.tolist(), test.tolist()]
    assert split_rows(labels, seed=1, test_share=0.2)[1].tolist() != test.tolist()


def test_split_of_a_class_does_not_depend_on_other_rows():
    labels = np.array(["a"] * 40 + ["b"] * 30)
    order = np.random.default_rng(0).permutation(70)
    mixed = np.concatenate([labels[order], ["c"] * 4])
    for name in "ab":
        places = [np.isin(np.flatnonzero(given == name), split_rows(given)[1]).tolist() for given in (labels, mixed)]
        assert places[0] == places[1]
        assert 0 < sum(places[0]) < len(places[0])


def test_type_of_labels_and_scale_of_embeddings_do_not_matter():
    data = example()
    numbers = [torch.tensor(np.searchsorted(NAMES, labels)) for labels in data[1::2]]
    scaled = knn_probe(torch.tensor(data[0]) * 7, numbers[0], torch.tensor(data[2]) * 0.1, numbers[1])
    assert scaled["hits"].tolist() == knn_probe(*data)["hits"].tolist()


@pytest.mark.parametrize("probe", [linear_probe, knn_probe, few_shot_probe])
def test_bad_input_is_named(probe):
    train, train_labels, test, test_labels = example()
    broken = train.copy()
    broken[5, 0] = np.nan
    for message, arguments in {
        "train embeddings .* row 5": (broken, train_labels, test, test_labels),
        "test embeddings .* row 0": (train, train_labels, 0 * test, test_labels),
        "9 dimensions, test embeddings 10": (train[:, 1:], train_labels, test, test_labels),
        "119 labels for 120 train images": (train, train_labels[1:], test, test_labels),
        "119 labels for 120 test images": (train, train_labels, test, test_labels[1:]),
        "two classes.* 'x'": (train, ["x"] * 120, test, ["x"] * 120),
        "class 'x'": (train, train_labels, test, [*test_labels[1:], "x"]),
        "test image in row 119": (train, train_labels, test, [*test_labels[1:], None]),
    }.items():
        with pytest.raises(ValueError, match=message):
            probe(*arguments)


def test_too_few_images_and_arguments_out_of_range_are_named():
    train, train_labels, test, test_labels = data = example()
    lonely = ["x", *train_labels[1:]]
    for message, call in {
        "class 'x'": lambda: linear_probe(train, lonely, test, test_labels),
        "'x'": lambda: split_rows(lonely),
        "2 shots .* 'x'": lambda: few_shot_probe(train, lonely, test, test_labels, shots=(1, 2)),
        "k .* 120": lambda: knn_probe(*data, k=121),
        "temperature": lambda: knn_probe(*data, temperature=0),
        "seeds": lambda: few_shot_probe(*data, seeds=0),
        "shots": lambda: few_shot_probe(*data, shots=(0, 1)),
        "test_share": lambda: split_rows(train_labels, test_share=1),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_fits_take_one_thread(monkeypatch):
    seen = []

    class Watched(LogisticRegression):
        def fit(self, *data):
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return super().fit(*data)

    monkeypatch.setattr(probes, "LogisticRegression", Watched)
    with threadpool_limits(2, "blas"):
        linear_probe(*example())
    assert set(seen) == {1}
