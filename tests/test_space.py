"""Texts and answers of the Space, without a browser."""

import asyncio
import io
import json
import re
import shutil
import socket
import sys
import weakref
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, List, Value
from huggingface_hub import SpaceCard, constants
from PIL import Image

from rsmclip.core.languages import LANGUAGES
from rsmclip.eval import build_index
from rsmclip.eval.index import nearest
from rsmclip.hub import handler, run_space
from rsmclip.hub.__main__ import main
from rsmclip.hub.push_space import space_files
from rsmclip.hub.space import rows as rows_module
from rsmclip.hub.space.answers import MAX_CHARACTERS, MAX_LABELS, Answers, Refusal, UnusableImage
from rsmclip.hub.space.app import build_app
from rsmclip.hub.space.rows import EmptyGallery, RowsGallery
from rsmclip.hub.space.tabs import Upload
from rsmclip.hub.space.texts import CONTENT, QUERIES, SENTENCES, preferred_language, prepared_labels, say
from rsmclip.models.folder import save_model_folder
from tests.hub_server import HubServer, head, use_hub

ROOT = Path(__file__).parents[1]
DEMO = yaml.safe_load((ROOT / "eval" / "benchmarks" / "demo.yaml").read_text(encoding="utf-8"))


class PlainModel:
    """A model whose image embeddings are mean colors, and which knows the texts red, green and blue."""

    TEXTS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}

    def embed_images(self, images: Iterable[Image.Image]) -> np.ndarray:
        means = np.array([np.asarray(image, np.float32).mean((0, 1)) for image in images])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        return np.array([self.TEXTS[text] for text in texts], np.float32)


def picture(*color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), color).save(buffer, "PNG")
    return buffer.getvalue()


def row(content: bytes | None, label: str | None = None, **captions: str | None) -> dict:
    by_language = {code: [text] for code, text in captions.items()}
    return {"image": {"bytes": content, "path": None}, "label": label, "captions": by_language}


def gallery_of(rows: Dataset | list[dict], model: object = PlainModel(), module: object = handler) -> RowsGallery:
    if isinstance(rows, list):
        rows = Dataset.from_list(rows).cast_column("image", datasets.Image(decode=False))
    return RowsGallery("some images", rows, module, model, nearest)


@pytest.fixture
def answers() -> Answers:
    rows = [
        row(picture(200, 20, 20), "fire", en="Red & hot.", ko="빨강"),
        row(picture(20, 200, 20), "green_field"),
        row(b"no image"),
        row(picture(20, 20, 200), None, en=None),
    ]
    return Answers(handler, PlainModel(), gallery_of(rows))


def found(html: str) -> list[int]:
    return [int(place) for place in re.findall(r'<img src="thumbnail/(\d+)', html)]


def test_every_text_is_there_in_every_language_with_the_same_words_in_braces():
    assert list(CONTENT["languages"]) == list(LANGUAGES) == list(SENTENCES)
    for name, texts in [*CONTENT["texts"].items(), *QUERIES.items()]:
        assert list(texts) == list(LANGUAGES) and all(texts.values()), name
        assert len({tuple(sorted(re.findall(r"{\w*}", text))) for text in texts.values()}) == 1, name


def test_no_text_is_left_in_english():
    for name, texts in CONTENT["texts"].items():
        same = [code for code, text in texts.items() if code != "en" and text == texts["en"]]
        assert not same or (len(texts["en"]) < 20 and set(same) <= {"nl", "fr", "de"}), (name, same)


def test_signs_with_a_space_before_them_have_a_no_break_space():
    for name, texts in CONTENT["texts"].items():
        assert not re.search(r"[^\u00a0][:;?!»]|«[^\u00a0]", texts["fr"]), name
        for code, text in texts.items():
            spaced = code in ("es", "fr", "de", "ru")
            assert re.search(r"(?<!\u00a0)%" if spaced else r"\s%", text) is None, (name, code)


def test_prepared_queries_and_sentences_are_the_words_of_the_demo_benchmark():
    assert all(QUERIES[thing] == DEMO["classes"][thing] for thing in QUERIES)
    assert all(SENTENCES[code] in DEMO["templates"][code] for code in LANGUAGES)


def test_every_text_that_the_app_asks_for_exists_and_none_is_idle():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hub" / "space").glob("*.py"))
    tabs = {f"tab_{key}" for key in ("classify", "search", "compare")}
    raised = (ROOT / "hub" / "handler.py").read_text(encoding="utf-8")
    faults = {f"image_{fault}" for fault in {"unusable", *re.findall(r'InputError\(.*, "(\w+)"\)', raised)}}
    asked = {name for name in CONTENT["texts"] if re.search(rf'["\']{name}["\']', code)} | tabs | faults
    assert asked == set(CONTENT["texts"])


def test_braces_in_the_text_of_a_user_are_not_filled_in():
    assert say("en", "found_text", query="{query} {} %s") == "Closest to “{query} {} %s”"
    assert "{}" in say("ko", "sentence")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ko-KR,ko;q=0.9,en-US;q=0.8", "ko"),
        ("pt-BR", "pt"),
        ("sv, de;q=0.7, it;q=0.5", "de"),
        ("sv, fi;q=0.8", "en"),
        ("", "en"),
        ("*;q=x,;", "en"),
    ],
)
def test_the_browser_s_first_known_language_is_taken(header, language):
    assert preferred_language(header) == language


def test_a_gallery_leaves_out_what_cannot_be_opened(answers, capsys):
    gallery = answers.gallery
    assert len(gallery) == 3 and gallery.kept == [0, 1, 3] and gallery.embeds.shape == (3, 3)
    assert [answers.describe(place, "ko") for place in range(3)] == ["빨강", "green field", "이미지 3"]
    assert answers.describe(0, "fr") == "Red & hot."
    with pytest.raises(EmptyGallery, match="some images"):
        gallery_of([row(b"")])


def test_every_image_of_a_large_split_is_searched():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 0, 0)).save(buffer, "PNG")
    gallery = gallery_of([row(buffer.getvalue())] * 3000 + [row(picture(0, 0, 200))])
    assert gallery.closest(PlainModel().embed_texts(["blue"])[0], 1) == [(3000, pytest.approx(1))]


def test_batches_give_the_embeddings_of_their_own_images(monkeypatch):
    monkeypatch.setattr(rows_module, "BATCH_SIZE", 2)
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
    gallery = gallery_of([row(picture(*color)) for color in colors])
    np.testing.assert_allclose(gallery.embeds, np.array(colors) / np.linalg.norm(colors, axis=1)[:, None], rtol=1e-6)


def test_only_a_few_images_of_a_batch_are_in_memory():
    opened, most = [], 0

    def open_image(content: bytes) -> Image.Image:
        nonlocal most
        image = handler.open_image(content)
        opened.append(weakref.ref(image))
        most = max(most, sum(each() is not None for each in opened))
        return image

    class OneByOne(PlainModel):
        def embed_images(self, images: Iterable[Image.Image]) -> np.ndarray:
            return np.concatenate([super(OneByOne, self).embed_images([image]) for image in images])

    rows = [row(picture(200, number, 0)) for number in range(20)]
    counting = SimpleNamespace(open_image=open_image, InputError=handler.InputError)
    assert len(gallery_of(rows, OneByOne(), counting)) == 20
    assert most <= 4


@pytest.mark.parametrize(
    ("feature", "captions", "expected"),
    [
        (List(Value("string")), ["", "A river.", "Water."], {"en": "A river."}),
        (Value("string"), "A river.", {"en": "A river."}),
        ({"en": Value("string"), "ko": Value("string")}, {"en": "A river.", "ko": None}, {"en": "A river."}),
        ({"pt": List(Value("string"))}, {"pt": [None, "Um rio."]}, {"pt": "Um rio."}),
        (List({"raw": Value("string")}), [{"raw": "A river."}], {}),
        (Value("int64"), 3, {}),
        (Value("string"), None, {}),
    ],
)
def test_captions_of_other_datasets_describe_their_images(feature, captions, expected):
    columns = {"image": datasets.Image(decode=False), "captions": feature}
    rows = Dataset.from_list([{"image": picture(1, 2, 3), "captions": captions}], features=Features(columns))
    assert gallery_of(rows).entry(0).captions == expected


@pytest.mark.parametrize(
    ("feature", "labels", "expected"),
    [
        (ClassLabel(names=["dense_forest", "port"]), [1, 0, -1, None], ["port", "dense_forest", None, None]),
        (Value("int64"), [1, 0, 7, None], [None] * 4),
        (Value("string"), ["port", "", None, "x"], ["port", "", None, "x"]),
    ],
)
def test_labels_of_other_datasets_are_named(feature, labels, expected):
    columns = {"image": datasets.Image(decode=False), "label": feature}
    rows = [{"image": picture(1, 2, 3), "label": label} for label in labels]
    gallery = gallery_of(Dataset.from_list(rows, features=Features(columns)))
    assert [gallery.entry(place).label for place in range(4)] == expected
    answers = Answers(handler, PlainModel(), gallery)
    assert [answers.describe(place, "en") for place in range(4)] == [
        (label or f"Image {number}").replace("_", " ") for number, label in enumerate(expected, 1)
    ]


def test_search_ranks_by_cosine_and_likeness_leaves_the_image_itself_out(answers, tmp_path):
    assert found(answers.search_text("green", "en"))[0] == 1
    assert 2 not in found(answers.search_like(2, "en")) and len(found(answers.search_like(2, "en"))) == 2
    (tmp_path / "blue").write_bytes(picture(0, 0, 250))
    html = answers.search_image(str(tmp_path / "blue"), "en")
    assert found(html)[0] == 2 and '<span class="rs-score">0.99</span>' in html


def test_a_search_empties_the_fields_that_were_not_searched(endpoint, corpus, tmp_path):
    gallery = gallery_of(corpus["test"].select(range(3)), endpoint)
    blocks = build_app(Answers(handler, endpoint, gallery), "tiny", is_toy=False)
    (search,) = {each.fn.func.__self__ for each in blocks.fns.values() if hasattr(each.fn, "func")}
    path = tmp_path / "a.png"
    path.write_bytes(gallery.content(0))
    for kind, what, text, image in [("text", "a port", "a port", None), ("like", 1, "", None)]:
        assert search.search(kind, "en", what)[1:3] == [text, image]
    assert search.search("image", "en", str(path))[1] == ""
    path.write_bytes(b"no image")
    assert search.search("image", "en", str(path))[1:3] == ["", None]


def test_only_examples_of_the_page_can_be_chosen(endpoint, corpus):
    """Each becomes a file on the disk."""
    gallery = gallery_of(corpus["test"].select(range(20)), endpoint)
    blocks = build_app(Answers(handler, endpoint, gallery), "tiny", is_toy=False)
    (choose,) = [each.fn for each in blocks.fns.values() if getattr(each.fn, "__name__", "") == "choose"]
    other = next(place for place in range(20) if place not in choose.__self__.answers.examples)
    for place in (other, -1):
        with pytest.raises(ValueError, match=str(place)):
            choose("en", "a port", "{}", SimpleNamespace(place=place))


def test_comparison_puts_the_user_s_language_first_and_counts_what_is_shared(answers, monkeypatch):
    monkeypatch.setattr("rsmclip.hub.space.answers.COMPARED", 2)
    html = answers.compare({"en": "red", "pt": " ", "ko": "green", "ru": "red"}, "ko")
    rows = html.split('class="rs-query"')[1:]
    assert [re.search(r'lang="(\w+)"', part)[1] for part in rows] == ["ko", "en", "ru"]
    first, *others = [set(found(part)) for part in rows]
    assert all(f"2장 중 {len(first & part)}장" in text for part, text in zip(others, rows[1:], strict=True))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("question", "name"),
    [
        (lambda a, code: a.classify(None, "red", "{}", code), "no_image"),
        (lambda a, code: a.classify("x", " ,; ，\n", "{}", code), "no_labels"),
        (lambda a, code: a.classify("x", "red, red", "{}", code), "no_labels"),
        (lambda a, code: a.classify("x", '["red", "green"]', "{}", code), "bad_labels"),
        (lambda a, code: a.classify("x", "red, blue", "{} and {}", code), "bad_sentence"),
        (lambda a, code: a.classify("x", "red, blue", "{0.__class__} {}", code), "bad_sentence"),
        (lambda a, code: a.search_text("  ", code), "no_query"),
        (lambda a, code: a.search_image(None, code), "no_query"),
        (lambda a, code: a.compare({"en": "", "ko": " "}, code), "no_queries"),
    ],
)
def test_refusals_are_in_the_language_of_the_user(answers, question, name, language):
    with pytest.raises(Refusal) as refusal:
        question(answers, language)
    assert str(refusal.value) == say(language, name)


def test_long_texts_and_many_labels_are_refused_with_their_number(answers):
    with pytest.raises(Refusal, match=rf"{MAX_CHARACTERS + 1}.*{MAX_CHARACTERS}"):
        answers.search_text("x" * (MAX_CHARACTERS + 1), "de")
    with pytest.raises(Refusal, match=rf"{MAX_LABELS + 1}.*{MAX_LABELS}"):
        answers.classify("x", ",".join(map(str, range(MAX_LABELS + 1))), "{}", "de")


def test_files_are_bounded_before_they_are_opened(answers, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(picture(1, 2, 3))
    monkeypatch.setattr(handler, "MAX_PIXELS", 300 * 200 - 1)
    with pytest.raises(UnusableImage) as refusal:
        answers.search_image(str(path), "en")
    assert str(refusal.value) == say("en", "image_pixels", megapixels=0)
    monkeypatch.setattr(handler, "MAX_IMAGE_BYTES", 10)
    monkeypatch.setattr(handler, "open_image", None)  # it is not even read
    with pytest.raises(UnusableImage, match=" 0 MB"):
        answers.search_image(str(path), "en")


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (encoded(Image.new("RGB", (4000, 40))), "image_narrow"),
        (encoded(Image.new("L", (8000, 7000))), "image_pixels"),
        (picture(1, 2, 3)[:300], "image_damaged"),
        (b"a text", "image_format"),
        (encoded(Image.fromarray(np.full((8, 8), 300, np.uint16))), "image_depth"),
        (encoded(Image.new("F", (8, 8)), "TIFF"), "image_depth"),
        (b"\xff\xd8" + 51 * b"\xff\xda\x00\x08\x01", "image_unusable"),
    ],
)
def test_an_unusable_image_is_told_its_own_fault(answers, tmp_path, content, text):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnusableImage) as refusal:
        answers.search_image(str(tmp_path / "a"), "pt")
    values = {"megapixels": 50, "ratio": 50, "formats": ", ".join(handler.FORMATS)}
    assert str(refusal.value) == say("pt", text, **values)


def test_an_upload_that_was_deleted_is_asked_for_again(answers, tmp_path):
    with pytest.raises(UnusableImage) as refusal:
        answers.search_image(str(tmp_path / "gone.png"), "nl")
    assert str(refusal.value) == say("nl", "no_image")


def test_markup_in_captions_labels_and_queries_stays_text(tmp_path):
    evil = '<img src=x onerror="alert(1)">\'"&'
    model = SimpleNamespace(
        embed_images=PlainModel().embed_images,
        embed_texts=lambda texts: np.eye(3, dtype=np.float32)[:1],
        classify=lambda images, labels, sentence: [[{"label": labels[0], "score": 1.0}]],
    )
    rows = [row(picture(9, 9, 9), evil, en=evil) | {"image_id": evil}, row(picture(1, 1, 1)) | {"image_id": evil}]
    answers = Answers(handler, model, gallery_of(rows, model))
    (tmp_path / "a").write_bytes(picture(1, 1, 1))
    for html in (
        answers.search_text(evil, "en"),
        answers.search_like(0, "en"),
        answers.compare({"en": evil}, "en"),
        answers.classify(str(tmp_path / "a"), f"{evil}, red", "{}", "en"),
        answers.search_like(1, "en"),
        answers.example_list("en"),
    ):
        assert html.count("onerror") == html.count("onerror=&quot;")
        assert "<img src=x" not in html


def test_an_address_is_no_upload():
    upload = Upload(type="filepath", sources=["upload"])
    with pytest.raises(ValueError, match="URL"):
        asyncio.run(upload.async_move_resource_to_block_cache("https://example.com/a.png"))
    assert not (ROOT / "hub" / "space" / "tabs.pyi").exists()  # Gradio writes one beside a component's source


@pytest.fixture
def endpoint(model) -> handler.EndpointHandler:
    return handler.EndpointHandler(model)


def test_all_functions_of_the_page_share_one_limit(endpoint, corpus):
    gallery = gallery_of(corpus["test"].select(range(3)), endpoint)
    blocks = build_app(Answers(handler, endpoint, gallery), "tiny", is_toy=False)
    computed = [each for each in blocks.fns.values() if each.fn is not None]
    assert len(computed) > 8
    assert {each.concurrency_id for each in computed} == {"model"}
    assert {each.concurrency_limit for each in computed} == {"default"}  # what serve() sets


@pytest.mark.parametrize("size", [(3000, 3000), (2990, 60)])
def test_an_app_starts_with_large_images(endpoint, size):
    noise, buffer = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    gallery = gallery_of([row(buffer.getvalue())], endpoint)
    blocks = build_app(Answers(handler, endpoint, gallery), "tiny", is_toy=False)
    (shown,) = [each for each in blocks.blocks.values() if each.elem_id == "rs-image"]
    assert max(Image.open(shown.value["path"]).size) == 1000


def test_scores_are_those_of_the_handler_in_percent(endpoint, corpus, tmp_path):
    answers = Answers(handler, endpoint, gallery_of(corpus["test"].select(range(3)), endpoint))
    (tmp_path / "image").write_bytes(answers.gallery.content(1))
    html = answers.classify(str(tmp_path / "image"), "Wald，港口、лес\nWald", "Bild: {}", "fr")
    image = handler.open_image(answers.gallery.content(1))
    (expected,) = endpoint.classify([image], ["Wald", "港口", "лес"], "Bild: {}")
    shown = re.findall(r'<span>([^<]+)</span><data value="([\d.]+)">([\d.]+)%</data>', html)
    assert [label for label, _, _ in shown] == [each["label"] for each in expected]
    assert [float(score) for _, score, _ in shown] == pytest.approx([each["score"] for each in expected], abs=1e-6)
    assert [float(share) for _, _, share in shown] == pytest.approx([100 * e["score"] for e in expected], abs=0.06)


def test_prepared_labels_are_read_as_that_many(answers, tmp_path):
    (tmp_path / "a").write_bytes(picture(1, 1, 1))
    for code in LANGUAGES:
        seen = []
        classify = lambda images, labels, sentence, seen=seen: [seen.extend(labels) or []]  # noqa: E731
        answers.model = SimpleNamespace(classify=classify)
        answers.classify(str(tmp_path / "a"), prepared_labels(code), SENTENCES[code], code)
        assert seen == [names[code] for names in list(QUERIES.values())[:8]]


def test_a_space_s_repository_names_what_it_serves_and_pins_what_it_needs():
    files = space_files("user/shop", ("user/model", "a" * 40), ("user/captions", "b" * 40), "val")
    card = SpaceCard(files["README.md"].decode()).data
    assert (card.sdk, card.sdk_version, card.app_file) == ("gradio", version("gradio"), "app.py")
    assert (card.models, card.datasets, card.license) == (["user/model"], ["user/captions"], "mit")
    assert len(card.short_description) <= 60 and card.colorFrom and card.colorTo and card.emoji
    assert files["index.py"] == ROOT / "eval" / "index.py" and files["space/routes.py"].is_file()
    settings = json.loads(files["settings.json"])
    assert settings["model"]["revision"] == "a" * 40
    assert settings["gallery"] == {"id": "user/captions", "revision": "b" * 40, "split": "val"}
    requirements = files["requirements.txt"].decode().split()
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in requirements)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "hub" / "space").glob("*.py"))
    imported = set(re.findall(r"^(?:from|import) (\w+)", sources, re.M))
    installed = {line.partition("==")[0] for line in requirements}
    names = {"yaml": "pyyaml", "PIL": "pillow"}
    own = {"space", "handler", "index"}
    installed |= {"gradio"} | {re.match(r"[\w-]+", line)[0] for line in requires("gradio")}  # by sdk_version
    assert {names.get(name, name) for name in imported - own} - sys.stdlib_module_names <= installed


@pytest.fixture(autouse=True)
def no_kept_indexes(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(build_index, "KEPT", tmp_path / "indexes")


def fails(capsys, *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))
    error = capsys.readouterr().err.splitlines()[-1]  # after progress bars
    assert error.startswith("error: ")
    return error


@pytest.fixture
def model(tiny_model, tiny_processor, tmp_path) -> str:
    save_model_folder(tiny_model, tiny_processor, tmp_path / "model")
    return str(tmp_path / "model")


def test_a_command_without_a_model_a_gallery_a_split_or_images_is_one_line(
    tmp_path, monkeypatch, capsys, model, corpus_folder, corpus
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    corpus["test"].remove_columns("image").to_parquet(tmp_path / "texts" / "test.parquet")
    (tmp_path / "numbers").mkdir()
    Dataset.from_dict({"image": [1, 2]}).to_parquet(tmp_path / "numbers" / "test.parquet")
    assert "outputs/demo" in fails(capsys, "space")
    assert "no/such/one" in fails(capsys, "space", "no/such/one")
    assert "empty" in fails(capsys, "space", model, "--gallery", "empty")
    assert "'tset'" in fails(capsys, "space", model, "--gallery", str(corpus_folder), "--split", "tset")
    for gallery in ("texts", "numbers"):
        assert "'image'" in fails(capsys, "space", model, "--gallery", gallery)
    assert "'v1'" in fails(capsys, "space", model, "--revision", "v1")
    assert "v2" in fails(capsys, "space", model, "--gallery", str(corpus_folder), "--gallery_revision", "v2")


def test_damaged_results_are_reported_before_the_gallery_is_embedded(capsys, model, corpus_folder):
    path = Path(model) / "eval_results.json"
    path.write_text('{"dataset": "de')
    assert str(path) in fails(capsys, "space", model, "--gallery", str(corpus_folder))


def test_a_bug_in_the_page_is_no_user_error(model, corpus_folder, monkeypatch):
    monkeypatch.setattr(run_space, "run_app", lambda *_, **__: int("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        main(["space", model, "--gallery", str(corpus_folder)])


def test_a_gallery_without_images_or_a_model_without_a_tokenizer_is_one_line(model, tmp_path, capsys):
    rows = [{"image": {"bytes": b"no image", "path": None}}]
    broken = Dataset.from_list(rows, features=Features({"image": datasets.Image(decode=False)}))
    broken.to_parquet(tmp_path / "broken" / "test.parquet")
    assert "broken" in fails(capsys, "space", model, "--gallery", str(tmp_path / "broken"))
    (Path(model) / "tokenizer.json").unlink()
    assert "tokenizer" in fails(capsys, "space", model, "--gallery", str(tmp_path / "broken"))


def test_a_port_that_cannot_be_used_is_told_before_anything_is_loaded(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for number in (taken.getsockname()[1], 99999, 0):
            assert str(number) in fails(capsys, "space", str(tmp_path / "none"), "--port", str(number))


@pytest.fixture
def hub(monkeypatch, tmp_path, model, corpus_folder) -> HubServer:
    repositories = {"user/model": tmp_path / "model", "datasets/user/captions": corpus_folder}
    with HubServer(repositories, root=tmp_path / "hub") as hub:
        use_hub(monkeypatch, hub.endpoint, "a token")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        yield hub


PUSH = ["push-space", "user/shop", "--model", "user/model", "--gallery", "user/captions"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--split", "tset"], "'tset'"),
        (["--gallery", "user/texts"], "'image'"),
        (["--model", "user/none"], "user/none"),
    ],
)
def test_a_space_is_not_pushed_without_its_model_split_or_images(hub, tmp_path, corpus, capsys, arguments, named):
    corpus["test"].remove_columns("image").to_parquet(tmp_path / "t" / "test.parquet")
    hub.repositories["datasets/user/texts"] = tmp_path / "t"
    assert named in fails(capsys, *PUSH, *arguments)
    assert "spaces/user/shop" not in hub.repositories


@pytest.mark.parametrize(
    ("file", "named"),
    [("config.json", "config.json"), ("model.safetensors", "safetensors"), ("tokenizer.json", "tokenizer")],
)
def test_a_space_is_not_pushed_if_it_could_not_serve_its_model(hub, tmp_path, capsys, file, named):
    (tmp_path / "model" / file).unlink()  # an adapter has no config.json
    error = fails(capsys, *PUSH)
    assert "user/model" in error and named in error
    assert "spaces/user/shop" not in hub.repositories


def test_a_space_is_not_pushed_without_gradio_whose_version_it_gets(hub, monkeypatch, capsys):
    def installed(package: str) -> str:
        if package == "gradio":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr("rsmclip.hub.push_space.version", installed)
    assert "'.[space]'" in fails(capsys, *PUSH)
    assert "spaces/user/shop" not in hub.repositories


def test_a_space_of_one_s_own_has_a_title_too():
    files = space_files("shop", ("user/model", "a" * 40), ("user/captions", "b" * 40), "test")
    assert SpaceCard(files["README.md"].decode()).data.title == "shop"


def test_a_space_here_serves_the_revisions_that_were_asked_for(hub, monkeypatch, tmp_path, corpus):
    shutil.copytree(tmp_path / "model", tmp_path / "older")
    (tmp_path / "older" / "requirements.txt").unlink()
    corpus["test"].select(range(5)).to_parquet(tmp_path / "few" / "test.parquet")
    for key, revision, folder in [
        ("user/model", "v1", tmp_path / "older"),
        ("datasets/user/captions", "few", tmp_path / "few"),
    ]:
        hub.revisions[key] |= {revision: folder, head(folder): folder}
    loaded, served = [], []

    def load(folder: str) -> None:
        loaded.append(folder)
        Image.MAX_IMAGE_PIXELS = 1  # the handler lowers it for uploads

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**30)
    monkeypatch.setattr(handler, "EndpointHandler", load)
    monkeypatch.setattr(run_space, "run_app", lambda *arguments, **options: served.extend(arguments))
    main(["space", "user/model", "--revision", "v1", "--gallery", "user/captions", "--gallery_revision", "few"])
    (folder,), (_, endpoint, name, gallery, *_) = loaded, served
    assert not (Path(folder) / "requirements.txt").exists() and endpoint is None and name == "user/model"
    assert len(gallery) == 5 and gallery.name == "user/captions (test)"
    assert Image.MAX_IMAGE_PIXELS == 2**30  # for large images of the gallery
