"""Sheets of retrieved images: right images are framed, the order agrees with the metrics, all text is visible."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from rsmclip.core.drawing import DOTS, GREEN, wrap
from rsmclip.eval import sheet
from rsmclip.eval.retrieval import retrieval_metrics
from rsmclip.eval.sheet import Answer, Query, contact_sheet, retrieved_examples, retrieved_sheet
from tests.captions import CAPTIONS


def example(corpus, noise=1.0):
    # 36 images of the test split; the last two images have equal captions.
    rng = np.random.default_rng(0)
    rows = corpus["test"]
    texts = [f"{language} {number}" for number in range(36) for language in ("a", "b")]
    texts[-2:] = texts[-4:-2]
    owner = np.repeat(np.arange(36), 2)
    images = rng.standard_normal((36, 16))
    return rows, images, texts, images[owner] + noise * rng.standard_normal((72, 16)), owner


def queries_of(texts, right=(False, True, False, False, False)):
    picture = Image.new("RGB", (64, 48), "navy")
    answers = [Answer(f"image {number}", picture, 0.5 - number / 10, mark) for number, mark in enumerate(right)]
    return [Query(text, picture, 2, answers) for text in texts]


def is_framed(axes):
    ticks = [text.get_text() for text in axes.texts]
    frames = {spine.get_edgecolor() == to_rgba(GREEN) and spine.get_linewidth() > 2 for spine in axes.spines.values()}
    assert len(frames) == 1 and ticks == (["✓"] if frames == {True} else [])
    return frames == {True}


def test_retrieved_images_are_those_of_the_definition(corpus):
    rows, images, texts, text_embeds, owner = example(corpus)
    examples = retrieved_examples(rows, images, texts, text_embeds, owner, count=36)
    similarity = (text_embeds / np.linalg.norm(text_embeds, axis=1, keepdims=True)) @ (
        images / np.linalg.norm(images, axis=1, keepdims=True)
    ).T
    assert [query.text for query in examples] == texts[::2]
    for image, query in enumerate(examples):
        order = np.argsort(-similarity[2 * image])
        assert [answer.image_id for answer in query.answers] == [rows[int(row)]["image_id"] for row in order[:5]]
        np.testing.assert_allclose(
            [answer.score for answer in query.answers], similarity[2 * image][order[:5]], atol=1e-6
        )
        assert query.rank == order.tolist().index(image) + 1
        right = {34, 35} if image >= 34 else {image}
        assert [answer.right for answer in query.answers] == [row in right for row in order[:5]]
        encoded = io.BytesIO(rows[image]["image"]["bytes"])
        assert query.image.getpixel((5, 5)) == Image.open(encoded).convert("RGB").getpixel((5, 5))
    assert 0 < sum(query.rank == 1 for query in examples) < 36


def test_ties_count_as_in_the_metrics(corpus):
    rows = corpus["test"].select(range(8))
    same = np.ones((8, 4))
    examples = retrieved_examples(rows, same, list("abcdefgh"), same, range(8))
    assert [query.rank for query in examples] == [8] * 6
    assert not any(answer.right for query in examples for answer in query.answers)
    assert retrieval_metrics(same, same, range(8), ks=(7,))["mean_recall"] == 0


def test_the_draw_does_not_depend_on_the_texts(corpus):
    rows, images, texts, text_embeds, owner = example(corpus)

    def drawn(texts):
        examples = retrieved_examples(rows, images, texts, text_embeds, owner)
        return [int(query.text.split()[-1]) for query in examples]

    assert drawn(texts) == drawn([f"other {text}" for text in texts])
    assert len(drawn(texts)) == 6 and drawn(texts) == sorted(set(drawn(texts)))


def test_only_the_right_answers_are_framed():
    right = [(False, True, False, False, True), (True, False, False, False, False), (False,) * 5]
    figure = retrieved_sheet([query for marks in right for query in queries_of(["a"], marks)], "en", "title")
    assert len(figure.axes) == 3 * 6
    for row, marks in enumerate(right):
        own, *answers = figure.axes[row * 6 : row * 6 + 6]
        assert not is_framed(own)
        assert tuple(map(is_framed, answers)) == marks
        assert [axes.get_xlabel() for axes in answers] == ["0.500", "0.400", "0.300", "0.200", "0.100"]


@pytest.mark.parametrize("language", ["de", "ru"])
def test_no_text_overlaps_a_picture_or_leaves_the_sheet(language):
    texts = [*(caption[language] for caption in CAPTIONS[:5]), " ".join(caption[language] for caption in CAPTIONS)]
    figure = retrieved_sheet(queries_of(texts), language, "title")
    figure.canvas.draw()
    answers, row = figure.axes[1].get_window_extent(), sheet.ROW * DOTS
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
        if text.get_text() not in ("title", sheet.LEGEND):
            assert box.x1 < answers.x0 and box.height < row
    written = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert all(text in written for text in texts[:5]) and texts[5] not in written and "…" in written


def test_a_query_that_no_font_can_write_is_named_by_its_language():
    written = [text.get_text() for text in retrieved_sheet(queries_of(["\U0010fffd"]), "zh", "title").texts]
    assert any(text.startswith("zh ") for text in written) and "\U0010fffd" not in written


def test_a_contact_sheet_has_each_image_above_its_title():
    colors = ["red", "lime", "blue", "yellow", "cyan", "magenta", "white"]
    images = [Image.new("RGB", (40, 40), color) for color in colors]
    titles = [f"{color}\n{'long_id/' * 20}" for color in colors]
    figure = contact_sheet([("Ein Fluss " * 60, images, titles)])
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    heading, *titles = figure.texts
    assert heading.get_text().count("\n") == 2
    for axes, title, color in zip(figure.axes, titles, colors, strict=True):
        box, below = axes.get_window_extent(), title.get_window_extent()
        middle = pixels[pixels.shape[0] - round((box.y0 + box.y1) / 2), round((box.x0 + box.x1) / 2)]
        np.testing.assert_allclose(middle / 255, to_rgba(color)[:3], atol=0.01)
        assert title.get_text().startswith(color) and below.y1 < box.y0 and below.y0 >= 0
        assert abs(below.x0 - box.x0) < 3 and below.x1 <= box.x1 + 0.08 * DOTS
    assert heading.get_window_extent().y0 > figure.axes[0].get_window_extent().y1


def test_east_asian_letters_count_twice_and_a_full_stop_begins_no_line():
    assert wrap("a" * 52 + " b", 52) == ["a" * 52, "b"]
    assert wrap("港" * 26, 52) == ["港" * 26] and len(wrap("港" * 27, 52)) == 2
    assert wrap("港" * 26 + "。", 52) == ["港" * 26 + "。"]
    assert wrap("港" * 26 + "。" + "口" * 3, 52) == ["港" * 26 + "。", "口" * 3]
