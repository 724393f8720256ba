"""Embeddings and the evaluation of a corpus, against the processor and metrics called by hand."""

import io

import pytest
import torch
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import (
    check_labels,
    embed_captions,
    embed_corpus,
    evaluate_corpus,
    measure_corpus,
    measure_retrieval,
    measure_transductive,
)
from rsmclip.eval.protocol import load_benchmark
from rsmclip.eval.report import as_markdown, as_text, mean_over_languages, result_table
from rsmclip.eval.retrieval import retrieval_metrics
from rsmclip.eval.zero_shot import class_embeddings, transductive_assignments


@pytest.fixture
def embedder(tiny_model, tiny_processor):
    return Embedder(tiny_model, tiny_processor, batch_size=5)


def test_embeddings_equal_one_by_one_and_keep_their_order(embedder, corpus):
    encoded = [image["bytes"] for image in corpus["val"]["image"][:7]]
    texts = ["An airport.", "Два серых моста через реку.", "An airport.", "공항에 흰색 비행기 한 대가 있다.", "x"]
    images, embeds = embedder.images(corpus["val"].select(range(7))), embedder.texts(texts)
    for row, data in enumerate(encoded):
        inputs = embedder.processor(images=Image.open(io.BytesIO(data)), return_tensors="pt")
        alone = embedder.model.get_image_features(inputs["pixel_values"]).pooler_output
        torch.testing.assert_close(images[row], alone[0], atol=1e-5, rtol=1e-4)
    for row, text in enumerate(texts):
        inputs = embedder.processor(text=[text], return_tensors="pt")
        alone = embedder.model.get_text_features(**inputs).pooler_output
        torch.testing.assert_close(embeds[row], alone[0], atol=1e-5, rtol=1e-4)


def test_corpus_is_evaluated_in_every_language(embedder, corpus):
    results = evaluate_corpus(embedder, corpus["val"], LANGUAGES, load_benchmark("demo"))
    assert list(results) == list(LANGUAGES)
    texts = [text for row in corpus["val"]["captions"] for text in row["ru"]]
    owner = [row for row in range(18) for _ in range(5)]
    images = embedder.images(corpus["val"])
    expected = retrieval_metrics(images, embedder.texts(texts), owner)
    assert {name: results["ru"][name] for name in expected} == expected
    assert results["ru"]["images"] == 18 and results["ru"]["texts"] == 90
    assert 0 <= results["zh"]["zero_shot_accuracy"] <= 100
    assert results["zh"]["chance_zero_shot_accuracy"] == pytest.approx(100 / 18)


def test_without_labels_there_is_no_zero_shot_figure(embedder, corpus):
    rows = corpus["val"].select(range(4)).remove_columns("label").add_column("label", [None] * 4)
    assert "zero_shot_accuracy" not in evaluate_corpus(embedder, rows, ["en"], load_benchmark("demo"))["en"]
    with pytest.raises(UserError, match="'quarry'.*'demo'"):
        check_labels(["airport", None, "quarry"], load_benchmark("demo"))


def test_labeled_rows_are_classified_together(embedder, corpus):
    benchmark, embeds = load_benchmark("demo"), embedder.images(corpus["val"])
    labels = list(corpus["val"]["label"])
    labels[2:5] = [None] * 3
    found = measure_transductive(embedder, embeds, labels, benchmark, ["en", "pt"])
    rows = [row for row, label in enumerate(labels) if label]
    for language in ("en", "pt"):
        names = [benchmark.class_names[language][label] for label in benchmark.labels]
        classes = class_embeddings(embedder.texts, names, benchmark.templates[language])
        assigned = transductive_assignments(embeds[rows], classes).argmax(dim=1).tolist()
        assert found[language].rows.tolist() == rows and found[language].predicted.tolist() == assigned
        right = [benchmark.labels[choice] == labels[row] for choice, row in zip(assigned, rows, strict=True)]
        assert found[language].hits.tolist() == right


def test_rows_without_a_caption_in_the_language_are_left_out(embedder):
    images = torch.randn(3, 16)
    captions = embed_captions(embedder, [["a"], None, ["b", None]], "en")
    retrieval = measure_retrieval(images, captions.embeds, captions.rows)
    assert retrieval.rows.tolist() == retrieval.text_rows.tolist() == [0, 2]
    with pytest.raises(UserError, match="'nl'"):
        embed_captions(embedder, [None, [None], []], "nl")


def test_the_gap_to_english_is_measured_over_one_gallery(embedder, corpus):
    rows = corpus["val"].select(range(8))
    captions = list(rows["captions"])
    for row in range(4, 8):
        captions[row] = captions[row] | {"en": None, "fr": None}  # pt has more images than en, fr has as many
        captions[row - 4] = captions[row - 4] | {"de": None}
    rows = rows.remove_columns("captions").add_column("captions", captions, feature=rows.features["captions"])
    rows = rows.remove_columns("label").add_column("label", [None] * 8)
    embedded = embed_corpus(embedder, rows, ["en", "pt", "fr", "de"])
    outcomes = measure_corpus(embedder, rows, embedded, thorough=True)
    assert outcomes.english.keys() == {"fr"} and outcomes.english["fr"].rows.tolist() == [0, 1, 2, 3]


def test_the_table_has_languages_mean_and_floors():
    metrics = {
        "mean_recall": 30.0,
        "chance_mean_recall": 2.0,
        "zero_shot_accuracy": 70.0,
        "chance_zero_shot_accuracy": 5.0,
    }
    results = {"en": metrics, "zh": metrics | {"mean_recall": 20.0}}
    header, rows = result_table(results, untrained={"en": {"mean_recall": 1.5}})
    assert header == ["language", "mean recall", "zero-shot"]
    assert rows[0] == ["en", "30.0", "70.0"] and rows[2] == ["mean", "25.0", "70.0"]
    assert rows[3] == ["start", "1.5", "–"] and rows[4] == ["chance", "2.0", "5.0"]
    assert mean_over_languages(results, "absent") is None
    assert as_markdown(header, rows).splitlines()[2] == "| en | 30.0 | 70.0 |"
    lines = as_text(header, rows).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 8
    wide = as_text(["label", "images"], [["항구", "3"], ["a\u0301 port", "12"]]).splitlines()
    assert wide[2:] == ["항구" + " " * 9 + "3", "a\u0301 port" + " " * 6 + "12"]
