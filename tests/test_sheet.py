"""Contact sheets: the right images are framed, the order is that of the metrics, and no text is lost."""

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
    """Embeddings and captions of the 36 images of the test split; the captions of the last two images are equal."""
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


def test_what_is_retrieved_is_what_the_definition_says(corpus):
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


def test_the_rank_counts_ties_as_the_metrics_do(corpus):
    rows = corpus["test"].select(range(8))
    same = np.ones((8, 4))
    examples = retrieved_examples(rows, same, list("abcdefgh"), same, range(8))
    assert [query.rank for query in examples] == [8] * 8
    assert not any(answer.right for query in examples for answer in query.answers)
    assert retrieval_metrics(same, same, range(8), ks=(7,))["mean_recall"] == 0


def test_the_draw_is_the_seeds_and_the_same_for_all_texts(corpus):
    rows, images, texts, text_embeds, owner = example(corpus)

    def drawn(texts, **options):
        examples = retrieved_examples(rows, images, texts, text_embeds, owner, **options)
        return [int(query.text.split()[-1]) for query in examples]

    assert drawn(texts) == drawn([f"other {text}" for text in texts]) != drawn(texts, seed=1)
    assert len(drawn(texts)) == 8 and drawn(texts) == sorted(set(drawn(texts)))


def test_the_right_answers_and_no_others_are_framed():
    right = [(False, True, False, False, True), (True, False, False, False, False), (False,) * 5]
    figure = retrieved_sheet([query for marks in right for query in queries_of(["a"], marks)], "en", "title")
    assert len(figure.axes) == 3 * 6
    for row, marks in enumerate(right):
        own, *answers = figure.axes[row * 6 : row * 6 + 6]
        assert not is_framed(own)
        assert tuple(map(is_framed, answers)) == marks
        assert [axes.get_xlabel() for axes in answers] == ["0.500", "0.400", "0.300", "0.200", "0.100"]


def test_the_frame_is_green_in_the_pixels():
    figure = retrieved_sheet(queries_of(["a"]), "en", "title")
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    green = (np.array(to_rgba(GREEN)[:3]) * 255).round()
    for axes, marked in zip(figure.axes, (False, False, True, False, False, False), strict=True):
        box = axes.get_window_extent()
        middle = pixels[pixels.shape[0] - round((box.y0 + box.y1) / 2), round(box.x0)]
        assert (np.abs(middle - green).max() < 3) == marked


@pytest.mark.parametrize("language", ["de", "ru"])
def test_no_text_runs_into_the_pictures_or_leaves_the_sheet(language):
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


def test_a_query_without_a_font_is_said_so_and_stands_in_a_text_beside(tmp_path):
    path = tmp_path / "retrieved_zh.png"
    sheet.write_retrieved_sheet(queries_of(["\U0010fffd", "a port"]), "zh", "The title", path)
    assert (tmp_path / "retrieved_zh.txt").read_text(encoding="utf-8").splitlines()[:6] == [
        "The title", "", "\U0010fffd", "  rank of its own image: 2", "  0.500   image 0", "  0.400 ✓ image 1",
    ]  # fmt: skip
    written = [text.get_text() for text in retrieved_sheet(queries_of(["\U0010fffd"]), "zh", "The title").texts]
    assert "zh caption: no font installed" in written and "\U0010fffd" not in written
    sheet.write_retrieved_sheet(queries_of(["a port"]), "zh", "The title", path)
    assert [file.name for file in tmp_path.iterdir()] == ["retrieved_zh.png"]


def test_a_contact_sheet_has_each_image_above_its_title(tmp_path):
    colors = ["red", "lime", "blue", "yellow", "cyan", "magenta", "white"]
    images = [Image.new("RGB", (40, 40), color) for color in colors]
    figure = contact_sheet(images, [f"{color}\n{'long_id/' * 20}" for color in colors], "Ein Fluss " * 60)
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


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        contact_sheet([], [], "")
    with pytest.raises(ValueError, match="no queries"):
        retrieved_sheet([], "en", "")


def test_east_asian_letters_count_twice_and_their_full_stop_begins_no_line():
    assert wrap("a" * 52 + " b", 52) == ["a" * 52, "b"]
    assert wrap("港" * 26, 52) == ["港" * 26] and len(wrap("港" * 27, 52)) == 2
    assert wrap("港" * 26 + "。", 52) == ["港" * 26 + "。"]
    assert wrap("港" * 26 + "。" + "口" * 3, 52) == ["港" * 26 + "。", "口" * 3]
