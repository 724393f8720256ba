"""The handler as an endpoint runs it: a fresh process, real payloads, and what clients should not be able to do."""

import base64
import io
import json
import os
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image, ImageFile, ImageOps, WebPImagePlugin
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.image_utils import load_image

import rsmclip
from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.hub import handler as module
from rsmclip.hub.handler import EndpointHandler, InputError, is_public, open_image
from rsmclip.image_processing_rsmclip import as_image
from rsmclip.models.folder import check_model_type, make_processor, save_model_folder
from tests.conftest import TINY

LABELS = ["аэропорт", "um porto", "ein Wald", "一片沙漠"]
TEMPLATE = "Снимок: {}."
SERVING = (Path(rsmclip.__file__).parent / "docs" / "serving.md").read_text(encoding="utf-8")

# Imports the handler as the Inference Toolkit does: by its path, the model folder ahead on `sys.path`.
ENDPOINT = """
import importlib.util, json, re, sys
from pathlib import Path
sys.modules["rsmclip"] = None  # importing the package is an error here
folder = sys.argv[1]
sys.path.insert(0, folder)
spec = importlib.util.spec_from_file_location("handler", folder + "/handler.py")
handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
endpoint = handler.EndpointHandler(folder)

def peak():  # getrusage's begins with the memory of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

for line in sys.stdin:
    before = peak()
    try:
        answer = endpoint(json.loads(line))
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer, allow_nan=False))
    print(json.dumps(peak() - before))
"""


def encode(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def model_folder(tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("handler") / "model"
    save_model_folder(RSMCLIPModel(RSMCLIPConfig(**TINY)).eval(), make_processor(tokenizer, 32), folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def pillows_limit():
    """What handlers change for the whole process."""
    pixels = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = pixels


@pytest.fixture(scope="module")
def endpoint(model_folder):
    return EndpointHandler(str(model_folder))


@pytest.fixture(scope="module")
def pictures(corpus) -> list[bytes]:
    return [row["bytes"] for row in corpus["test"][:3]["image"]]


@pytest.fixture(scope="module")
def picture(pictures) -> str:
    return text_of(pictures[0])


def test_scores_are_those_of_the_model_and_of_the_pipeline(endpoint, model_folder, pictures, picture):
    parameters = {"candidate_labels": LABELS, "hypothesis_template": TEMPLATE}
    answer = endpoint({"inputs": picture, "parameters": parameters})

    image = Image.open(io.BytesIO(pictures[0]))
    classify = pipeline("zero-shot-image-classification", model=str(model_folder), trust_remote_code=True)
    by_pipeline = classify(image, candidate_labels=LABELS, hypothesis_template=TEMPLATE)
    assert [entry["label"] for entry in answer] == [entry["label"] for entry in by_pipeline]
    scores = [entry["score"] for entry in answer]
    np.testing.assert_allclose(scores, [entry["score"] for entry in by_pipeline], atol=1e-6)

    model = AutoModel.from_pretrained(model_folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(model_folder, trust_remote_code=True)
    texts = [TEMPLATE.format(label) for label in LABELS]
    with torch.no_grad():
        output = model(**processor(text=texts, images=image, padding=True, return_tensors="pt"))
    expected = dict(zip(LABELS, output.logits_per_image.softmax(-1)[0].tolist(), strict=True))
    np.testing.assert_allclose(scores, [expected[entry["label"]] for entry in answer], atol=1e-6)
    assert sum(scores) == pytest.approx(1) and scores == sorted(scores, reverse=True)


def test_embeddings_are_the_models_with_unit_length(endpoint, model_folder, pictures):
    model = AutoModel.from_pretrained(model_folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(model_folder, trust_remote_code=True)
    texts = ["um porto", "河上有两座灰色的桥。" * 9, "a", "Два моста через реку.", "a" * 999]
    images = [Image.open(io.BytesIO(content)) for content in pictures]
    inputs = processor(text=texts, images=images, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    found = endpoint({"inputs": {"image": [text_of(content) for content in pictures]}})
    np.testing.assert_allclose(found, output.image_embeds.numpy(), atol=1e-6)
    found = endpoint({"inputs": {"text": texts}})
    np.testing.assert_allclose(found, output.text_embeds.numpy(), atol=1e-6)
    assert endpoint({"inputs": {"text": "um porto"}}) == pytest.approx(found[0], abs=1e-6)


def test_every_form_of_a_request_gives_the_same_answer(endpoint, pictures, picture):
    labels = {"candidate_labels": LABELS}
    expected = endpoint({"inputs": picture, "parameters": labels})
    decoded = Image.open(io.BytesIO(pictures[0])).convert("RGB")  # as the toolkit makes it of an image/* body
    lines = "\n".join(picture[start : start + 76] for start in range(0, len(picture), 76))
    for request in (
        {"inputs": {"image": picture, **labels}},
        {"inputs": {"image": picture}, "parameters": labels},
        {"inputs": {"image": picture, **labels}, "parameters": {"hypothesis_template": "{}"}},
        {"inputs": f"data:image/png;base64,{picture}", "parameters": labels},
        {"inputs": lines, "parameters": labels},
        {"inputs": pictures[0], "parameters": labels},
        {"inputs": decoded, "parameters": labels},
        {"inputs": decoded, "parameters": {"candidate_labels": ", ".join(LABELS)}},
    ):
        assert endpoint(request) == expected
    both = endpoint({"inputs": [picture, text_of(pictures[1])], "parameters": labels})
    assert [[entry["label"] for entry in answer] for answer in both] == [
        [entry["label"] for entry in endpoint({"inputs": text_of(content), "parameters": labels})]
        for content in pictures[:2]
    ]
    assert np.array(endpoint({"inputs": {"image": [picture] * 32}})).shape == (32, 16)


def test_the_space_gets_scores_and_unit_rows(endpoint, pictures):
    images = [open_image(content) for content in pictures] * 12  # more than a batch
    embeds, texts = endpoint.embed_images(images), endpoint.embed_texts(LABELS * 9)
    assert embeds.dtype == texts.dtype == np.float32 and embeds.shape == (36, 16) and texts.shape == (36, 16)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([embeds, texts]), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(texts[:4], texts[4:8], atol=1e-6)
    ranked = endpoint.classify(images[:2], LABELS, TEMPLATE)
    asked = {"candidate_labels": LABELS, "hypothesis_template": TEMPLATE}
    alone = endpoint({"inputs": pictures[0], "parameters": asked})
    assert [entry["label"] for entry in ranked[0]] == [entry["label"] for entry in alone]
    assert [entry["score"] for entry in ranked[0]] == pytest.approx([entry["score"] for entry in alone], abs=1e-6)
    with pytest.raises(InputError, match="the list is empty"):
        endpoint.classify(images[:1], [], TEMPLATE)


def test_labels_that_come_again_are_not_embedded_again(model_folder, picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    endpoint, texts = EndpointHandler(str(model_folder)), []
    embed = endpoint.tokenizer
    monkeypatch.setattr(endpoint, "tokenizer", lambda batch, **options: texts.extend(batch) or embed(batch, **options))
    request = {"inputs": picture, "parameters": {"candidate_labels": LABELS}}
    assert endpoint(request) == endpoint(request) and sorted(texts) == sorted(LABELS)
    endpoint({"inputs": picture, "parameters": {"candidate_labels": LABELS, "hypothesis_template": TEMPLATE}})
    assert len(texts) == 2 * len(LABELS)


def test_an_endpoint_runs_from_the_model_folder_alone(model_folder, endpoint, picture, tmp_path):
    """The toolkit's way, with JSON in and out; a bomb of 72 million pixels, 290 MB, costs no memory."""
    shutil.copytree(model_folder, tmp_path / "repository")
    bomb = encode(Image.new("RGB", (8_500, 8_500)))
    requests = [
        {"inputs": picture, "parameters": {"candidate_labels": LABELS, "hypothesis_template": TEMPLATE}},
        {"inputs": {"text": ["um porto", "a port"]}},
        {"inputs": text_of(bomb)},
        {"inputs": "http://169.254.169.254/latest/meta-data"},
        {"inputs": {"text": "um porto"}},
    ]
    run = subprocess.run(
        [sys.executable, "-c", ENDPOINT, str(tmp_path / "repository")],
        input="".join(json.dumps(request) + "\n" for request in requests),
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        capture_output=True, text=True, cwd=tmp_path, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    answers, growth = lines[::2], lines[1::2]
    expected = endpoint(requests[0])
    assert [entry["label"] for entry in answers[0]] == [entry["label"] for entry in expected]
    np.testing.assert_allclose(
        [entry["score"] for entry in answers[0]], [entry["score"] for entry in expected], atol=1e-6
    )
    np.testing.assert_allclose(answers[1], endpoint(requests[1]), atol=1e-6)
    assert "8,500 × 8,500 pixels; more than 50,000,000" in answers[2]["error"] and growth[2] < 20_000  # KB
    assert answers[3] == {"error": "the URL has no public address on port 80 or 443"}
    assert answers[4] == pytest.approx(answers[1][0], abs=1e-6)
    assert (tmp_path / "repository" / "requirements.txt").read_text() == "transformers>=5.13\npillow>=11.0\n"


def test_a_model_without_a_tokenizer_has_no_handler(tiny_model, tiny_processor, tmp_path):
    save_model_folder(tiny_model, tiny_processor.image_processor, tmp_path)
    assert (tmp_path / "model.safetensors").is_file() and not (tmp_path / "handler.py").exists()


def test_whoever_can_read_the_configuration_can_read_the_weights(model_folder):
    assert (model_folder / "model.safetensors").stat().st_mode == (model_folder / "config.json").stat().st_mode


def test_a_model_without_weights_or_with_pickled_ones_is_not_served(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    state = AutoModel.from_pretrained(model_folder, trust_remote_code=True).state_dict()
    torch.save(state, tmp_path / "cut" / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        EndpointHandler(str(tmp_path / "cut"))
    AutoModel.from_pretrained(model_folder, trust_remote_code=True).save_pretrained(
        tmp_path / "cut", state_dict={name: value for name, value in state.items() if "visual_projection" not in name}
    )
    lack = "the weights lack visual_projection.weight in the shape of config.json; they would be random"
    with pytest.raises(ValueError, match=lack):
        EndpointHandler(str(tmp_path / "cut"))
    save_file(state | {"visual_projection.weight": torch.zeros(2, 2)}, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=lack):
        EndpointHandler(str(tmp_path / "cut"))
    weights.write_bytes((model_folder / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors holds no safetensors, or only a part of them"):
        EndpointHandler(str(tmp_path / "cut"))


def test_a_folder_without_a_tokenizer_or_a_configuration_is_not_served(tiny_model, tiny_processor, tmp_path):
    save_model_folder(tiny_model, tiny_processor.image_processor, tmp_path)
    with pytest.raises(ValueError, match="has no tokenizer"):
        EndpointHandler(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        EndpointHandler(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(OSError, match="is no model folder"):
        EndpointHandler(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_of_another_repository_is_not_run(model_folder, tmp_path, name):
    """transformers takes `owner/name--module.Class` at its newest, whatever is pinned."""
    shutil.copytree(model_folder, tmp_path / "model")
    check_model_type(tmp_path / "model")
    path = tmp_path / "model" / name
    fields = json.loads(path.read_text())
    if name == "processor_config.json":
        assert fields["image_processor"]["auto_map"] == {
            "AutoImageProcessor": "image_processing_rsmclip.RSMCLIPImageProcessor"
        }
        fields["image_processor"]["auto_map"]["AutoImageProcessor"] = "other/repository--module.Class"
    else:
        fields["auto_map"] = fields.get("auto_map", {}) | {"AutoTokenizer": [None, "other/repository--module.Class"]}
    path.write_text(json.dumps(fields))
    for load in (EndpointHandler, lambda folder: check_model_type(Path(folder))):
        with pytest.raises(ValueError, match=f"{name} takes code from another repository"):
            load(str(tmp_path / "model"))


def test_bad_requests_are_one_clear_line(endpoint, picture):
    labels = {"candidate_labels": LABELS}
    for request, message in (
        ("text", 'a request is {"inputs": …}'),
        ({"parameters": labels}, 'a request is {"inputs": …}'),
        ({"inputs": None}, "an image is a string of base64 or a URL, not nothing"),
        ({"inputs": 3}, "not a number"),
        ({"inputs": [[picture]]}, "not a list"),
        ({"inputs": {}}, "either an image or a text"),
        ({"inputs": []}, "the list is empty"),
        ({"inputs": {"text": []}}, "the list is empty"),
        ({"inputs": {"image": picture, "text": "a"}}, "either an image or a text"),
        ({"inputs": {"image": picture, "labels": LABELS}}, "unknown field 'labels'"),
        ({"inputs": picture, "parameters": [1]}, "parameters is an object, not a list"),
        ({"inputs": picture, "parameters": labels | {"top_k": 3}}, "unknown field 'top_k'"),
        ({"inputs": {"image": picture, **labels}, "parameters": labels}, "stands in inputs and in parameters"),
        ({"inputs": {"text": "a"}, "parameters": labels}, "belong to an image"),
        ({"inputs": picture, "parameters": {"hypothesis_template": "{}"}}, "needs candidate_labels"),
        ({"inputs": picture, "parameters": {"candidate_labels": []}}, "the list is empty"),
        ({"inputs": picture, "parameters": {"candidate_labels": "a,,b"}}, "a text that is empty"),
        ({"inputs": picture, "parameters": {"candidate_labels": {"a": 1}}}, "is a list of texts, not an object"),
        ({"inputs": picture, "parameters": {"candidate_labels": ["a", 3]}}, "candidate_labels is text, not a number"),
        ({"inputs": picture, "parameters": {"candidate_labels": ["a"] * 257}}, "257 are more than 256"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": "a photo"}}, "has {} once"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": "{} {}"}}, "has {} once"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": "{:>999999999}"}}, "has {} once"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": 3}}, "hypothesis_template is text"),
        ({"inputs": {"text": " "}}, "a text that is empty"),
        ({"inputs": {"text": "a" * 1001}}, "1,001 letters, more than 1,000"),
        ({"inputs": {"text": "\ud83d"}}, "no Unicode"),
        ({"inputs": ["a"] * 33}, "33 are more than 32"),
        ({"inputs": "um porto"}, "an image is base64, or a URL"),
        ({"inputs": "/etc/passwd"}, "an image is base64, or a URL"),
        ({"inputs": "file:///etc/passwd"}, "an image is base64, or a URL"),
        ({"inputs": "data:image/png,abc"}, "data:image/…;base64"),
        ({"inputs": text_of(b"a text named image.jpg")}, "this is no image"),
        ({"inputs": ""}, "this is no image"),
        ({"inputs": text_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")}, "this is no image"),
    ):
        with pytest.raises(InputError) as raised:
            endpoint(request)
        assert message in str(raised.value) and "\n" not in str(raised.value), (request, str(raised.value))


def test_a_failure_inside_tells_the_client_nothing(endpoint, picture, monkeypatch, caplog):
    def fail(**inputs):
        raise OSError("cannot read /repository/secret")

    monkeypatch.setattr(endpoint.model, "get_image_features", fail)
    with pytest.raises(RuntimeError) as raised:
        endpoint({"inputs": picture})
    assert str(raised.value) == "the request failed inside the endpoint; its log says why"
    assert "/repository/secret" in caplog.text
    nan = torch.full((1, 16), float("nan"))
    monkeypatch.setattr(endpoint.model, "get_image_features", lambda **_: type("", (), {"pooler_output": nan}))
    with pytest.raises(RuntimeError, match="failed inside"):  # JSON has no NaN
        endpoint({"inputs": picture})


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "transparent P"])
def test_an_image_of_any_mode_is_what_the_processor_makes_of_it(mode):
    image_format = {"CMYK": "JPEG", "PA": "TIFF"}.get(mode, "PNG")
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (20, 30), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)).convert(mode.split()[-1])
    options = {"transparency": 5} if mode == "transparent P" else {}
    content = encode(image, image_format, **options)
    found, expected = open_image(content), as_image(Image.open(io.BytesIO(content))).convert("RGB")
    assert found.mode == "RGB"
    np.testing.assert_array_equal(found, expected)


def test_images_of_32_bits_are_refused():
    for pixels in (np.zeros((4, 4), dtype=np.float32), np.zeros((4, 4), dtype=np.int32)):
        with pytest.raises(InputError, match="32 bits a channel"):
            open_image(encode(Image.fromarray(pixels), "TIFF"))


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_image_is_turned_as_its_exif_data_says(turn, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = turn
    (tmp_path / "image.png").write_bytes(encode(image, exif=exif))
    found = open_image((tmp_path / "image.png").read_bytes())
    np.testing.assert_array_equal(found, load_image(str(tmp_path / "image.png")))  # as transformers' pipelines do


def test_of_an_animation_the_first_picture_counts():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    for image_format in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
        assert np.abs(np.asarray(open_image(content), dtype=int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("image_format", module.FORMATS)
def test_a_file_that_is_cut_off_or_damaged_is_refused(image_format):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a camera's name", 72.0
    options = {"exif": exif} if image_format in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    content = encode(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), image_format, **options)
    for end in (1, 10, len(content) // 2):
        with pytest.raises(InputError, match="no image|damaged or cut off"):
            open_image(content[:end])
    refused = 0
    for _ in range(150):  # any bytes give an image or an `InputError`
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 200), 6):
            damaged[place] = rng.integers(256)
        try:
            assert open_image(bytes(damaged)).mode == "RGB"
        except InputError:
            refused += 1
    assert refused


def test_exif_data_that_is_broken_is_an_error_of_the_image():
    with pytest.raises(InputError, match="damaged"):
        open_image(encode(Image.new("RGB", (9, 9)), exif=b"Exif\0\0MM\0\0\0\0\0\x08"))


def exif_of_a_camera(tag: int, kind: int) -> bytes:
    """EXIF data, orientation 6, with a field of a type that it should not have."""
    fields = [struct.pack("<HHI4s", tag, kind, 1, b"a"), struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)]
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + b"".join(fields) + bytes(4)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("tag", "kind"), [(0x011A, 2), (0x0100, 2), (0x010F, 11)])
def test_exif_data_that_a_camera_wrote_carelessly_turns_the_image_too(image_format, tag, kind):
    """Pillow reads it, and fails to write it anew: with `TypeError`, `struct.error` and `AttributeError`."""
    content = encode(Image.effect_noise((20, 30), 60).convert("RGB"), image_format, exif=exif_of_a_camera(tag, kind))
    with pytest.raises((TypeError, struct.error, AttributeError)):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    expected = Image.open(io.BytesIO(content)).transpose(Image.Transpose.ROTATE_270)
    found = open_image(content)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ImageOps.exif_transpose(found), expected)  # and is not turned once more


def enlarged(image_format: str, side: int) -> bytes:
    """An image of 123 pixels a side whose header says that it has others."""
    content = encode(Image.new("RGB", (123, 123)), image_format)
    width = {"JPEG": ">H", "PNG": ">I", "WEBP": "<H", "TIFF": "<H", "GIF": "<H", "BMP": "<I", "JPEG2000": ">I"}
    old, new = (struct.pack(width[image_format], number) for number in (123, side))
    if image_format == "TIFF":  # each is a field of its own
        content = content.replace(old + b"\0\0", new + b"\0\0")
    elif image_format == "GIF":
        content = content[:6] + new * 2 + content[10:]
    else:
        assert 2 * old in content
        content = content.replace(2 * old, 2 * new)
    if image_format == "PNG":
        content = content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]
    return content


@pytest.mark.parametrize("image_format", module.FORMATS)
def test_pixels_are_counted_before_they_are_decoded(endpoint, image_format, monkeypatch):
    for kind in (ImageFile.ImageFile, WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(kind, "load", lambda image: pytest.fail("it was decoded"))
    for side in (7_072, 16_000):  # just more than are taken, and more than Pillow opens
        with pytest.raises(InputError, match="50,000,000"):
            open_image(enlarged(image_format, side))
    with pytest.raises(pytest.fail.Exception, match="it was decoded"):
        open_image(enlarged(image_format, 7_071))


def test_a_narrow_image_is_not_brought_to_the_models_height():
    """Its short side made 224 pixels, an image of 1 × 100,000 would have five billion."""
    assert open_image(encode(Image.new("RGB", (1, 50)))).size == (1, 50)
    for size in ((1, 51), (100_000, 1)):
        with pytest.raises(InputError, match="a side may be 50 times the other"):
            open_image(encode(Image.new("RGB", size)))


def test_a_jpeg_of_countless_scans_is_not_decoded(monkeypatch):
    """75 bytes more are a scan more, and a scan decodes the whole picture."""
    content = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    scan = content[list(module.JPEG_SCAN.finditer(content))[-1].start() : -2]
    assert open_image(content[:-2] + 40 * scan + content[-2:]).size == (64, 64)
    video = random.Random(0).randbytes(5_000_000)  # as phones put behind a picture
    assert video.count(b"\xff\xda") > 50 and open_image(content + video).size == (64, 64)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(InputError, match="more than 50 scans"):
        open_image(content[:-2] + 41 * scan + content[-2:])


def test_an_image_of_too_many_bytes_is_not_looked_at(endpoint, monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 3000)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    for image in (b"\0" * 3001, text_of(b"\0" * 3001), text_of(b"\0" * 9000)):
        with pytest.raises(InputError, match="the image has more than"):
            endpoint({"inputs": image})


def test_what_is_taken_apart_costs_little_more_than_it_has_bytes():
    """Of text in a million pieces each would be an object of its own."""
    text = "aa " * 10**6
    calls = (
        lambda: module.from_base64(text),
        lambda: module.read_labels({"candidate_labels": text.replace(" ", ",")}),
    )
    for call in calls:
        tracemalloc.start()
        try:
            with suppress(InputError):
                call()
            assert tracemalloc.get_traced_memory()[1] < 4 * len(text)
        finally:
            tracemalloc.stop()
    with pytest.raises(InputError, match="257 are more than 256"):
        calls[1]()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::1", "::", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
        "2002:7f00:1::1", "2001:0:1::1", "2001:db8::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fd00:ec2::254",
        "ff02::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_never_asked(address):
    assert not is_public(address)


def test_public_addresses_may_be_asked_on_the_ports_of_http(endpoint):
    for address in ("8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111"):
        assert endpoint.may_connect(address, 80) and endpoint.may_connect(address, 443)
        assert not endpoint.may_connect(address, 22)


class LoopbackEndpoint(EndpointHandler):
    """An endpoint that may ask 127.0.0.1, on any port."""

    def may_connect(self, address: str, port: int) -> bool:
        return address == "127.0.0.1"


class Server(BaseHTTPRequestHandler):
    """Answers well and badly, by path."""

    protocol_version = "HTTP/1.1"
    picture = encode(Image.new("RGB", (40, 40), "red"))
    paths: list[str] = []
    hosts: list[str] = []
    sent = 0

    def do_GET(self):
        self.paths.append(self.path)
        self.hosts.append(self.headers["Host"])
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, self.path.strip("/").split("/")[0].split("?")[0])()

    def answer(self, content: bytes, status: int = 200, **headers):
        self.send_response(status)
        for name, value in ({"Content_Length": len(content)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def image(self):
        self.answer(self.picture)

    def chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(self.picture), 50):
            piece = self.picture[start : start + 50]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def missing(self):
        self.answer(b"not here", 404)

    def text(self):
        self.answer(b"<html>", Content_Type="image/png")

    def gzip(self):
        self.answer(self.picture, Content_Encoding="gzip")

    def short(self):
        self.answer(self.picture[:60], Content_Length=len(self.picture))

    def cut(self):
        self.answer(self.picture, Content_Length=60)

    def huge(self):
        self.answer(b"", Content_Length=10**15)

    def negative(self):
        self.answer(self.picture[:60], Content_Length=-1)

    def endless(self):
        self.send_response(200)
        self.end_headers()
        while True:
            type(self).sent += self.wfile.write(b"\0" * 65536)

    def drip(self):  # a byte at a time, head and body, each well within any limit on one read
        head = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 50_000
        for number in range(len(head)):
            self.wfile.write(head[number : number + 1])
            time.sleep(0.02)

    def drip_body(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(10_000):
            self.wfile.write(b"x")
            time.sleep(0.02)

    def redirect(self):
        self.answer(b"", 302, Location="/image")

    def loop(self):
        self.answer(b"", 301, Location="/loop")

    def to(self):
        self.answer(b"", 307, Location=unquote(self.path.removeprefix("/to/")))

    def nowhere(self):
        self.answer(b"", 302)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that refuses the certificate
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def port():
    with serving() as port:
        yield port


@pytest.fixture(scope="module")
def loopback(model_folder):
    return LoopbackEndpoint(str(model_folder))


def test_an_image_behind_a_url_is_the_same_image(loopback, port, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody listens: no proxy is asked
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    expected = loopback({"inputs": Server.picture})
    for path in ("image", "image?size=1 %20&ü=河", "chunked", "redirect", f"to/http://localhost:{port}/redirect"):
        url = f"http://127.0.0.1:{port}/{path.replace(' ', '%20')}"
        assert loopback({"inputs": url}) == expected
    assert Server.paths[-3:] == [f"/to/http://localhost:{port}/redirect", "/redirect", "/image"]
    assert f"localhost:{port}" in Server.hosts
    both = loopback({"inputs": [f"HTTP://localhost:{port}/image", text_of(Server.picture)]})
    np.testing.assert_allclose(both, [expected] * 2, atol=1e-6)


def test_a_server_on_the_own_network_is_not_asked(endpoint, port, monkeypatch):
    look_up, asked = socket.getaddrinfo, len(Server.paths)

    def no_such_host(host, *arguments, **options):  # at once, also where no name server answers
        if host == "no.such.host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    hosts = ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "no.such.host.invalid"]
    for host in hosts:
        with pytest.raises(InputError, match="no public address"):
            endpoint({"inputs": f"http://{host}:{port}/image"})
    assert len(Server.paths) == asked


def test_bad_urls_and_servers_are_one_clear_line(loopback, port, monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 2**20)
    base = f"http://127.0.0.1:{port}"
    for url, message in (
        (f"{base}/missing", "answers with status 404"),
        (f"{base}/text", "this is no image"),
        (f"{base}/gzip", "compressed form"),
        (f"{base}/short", "breaks off|damaged or cut off"),
        (f"{base}/cut", "damaged or cut off"),
        (f"{base}/negative", "damaged or cut off"),
        (f"{base}/huge", "more than 1 MiB"),
        (f"{base}/endless", "more than 1 MiB"),
        (f"{base}/loop", "more than 3 redirects"),
        (f"{base}/nowhere", "more than 3 redirects"),
        (f"{base}/to/file:///etc/passwd", "neither http nor https"),
        (f"{base}/to/ftp://127.0.0.1/image", "neither http nor https"),
        (f"{base}/to/http://[::1]:{port}/image", "no public address"),
        (f"{base}/to/http://169.254.169.254/", "no public address"),
        (f"{base}/to/http://user@127.0.0.1:{port}/image", "a user name or password"),
        (f"{base}/crash", "cannot be read"),
        (f"https://127.0.0.1:{port}/image", "cannot be read"),
        (f"http://user:secret@127.0.0.1:{port}/image", "a user name or password"),
        (f"http://127.0.0.1:{port}/ima ge", "not valid"),
        (f"http://127.0.0.1:{port}/a\r\nHost: other", "not valid"),
        ("http://", "not valid"),
        ("http://127.0.0.1:99999/", "not valid"),
        ("http://[::1/", "not valid"),
        (f"http://{'a' * 64}.org/", "not valid"),
        (f"{base}/{'a' * 2048}", "not valid"),
        ("http://127.0.0.1:9/", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            loopback({"inputs": url})
        assert "\n" not in str(raised.value) and "secret" not in str(raised.value)
    assert Server.sent < 16 * 2**20  # a megabyte, and what lies in the buffers of the two sides


@pytest.mark.parametrize("path", ["drip", "drip_body", "silent"])
def test_a_server_that_dawdles_is_left_in_time(loopback, port, path, monkeypatch):
    monkeypatch.setattr(module, "DOWNLOAD_SECONDS", 0.4)
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1] if path == 'silent' else port}/{path}"
        with pytest.raises(InputError, match="no image within 0.4 seconds"):
            loopback({"inputs": [url, url, url]})  # the time is that of all together
    assert 0.3 < time.monotonic() - start < 2


def test_a_look_up_that_dawdles_is_left_in_time(loopback, monkeypatch):
    monkeypatch.setattr(module, "DOWNLOAD_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(6))
    start = time.monotonic()
    with pytest.raises(InputError, match="within 0.3 seconds"):
        loopback({"inputs": "http://slow.invalid/"})
    assert time.monotonic() - start < 3


def test_a_tls_handshake_that_dawdles_is_left_in_time(loopback, monkeypatch):
    """A record that comes a byte at a time, from a server to which the connection alone took most of the time."""
    create = socket.create_connection

    def slow(*arguments, **options):
        time.sleep(1.2)
        return create(*arguments, **options)

    def drip(listening):
        with suppress(OSError):
            connection, _ = listening.accept()
            with connection:
                for byte in b"\x16\x03\x03\x40\x00" + bytes(500):
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)

    monkeypatch.setattr(module, "DOWNLOAD_SECONDS", 1.5)
    monkeypatch.setattr(socket, "create_connection", slow)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, args=(listening,), daemon=True).start()
        start = time.monotonic()
        with pytest.raises(InputError, match="within 1.5 seconds"):
            loopback({"inputs": f"https://127.0.0.1:{listening.getsockname()[1]}/"})
        assert time.monotonic() - start < 2.3


def test_an_address_that_is_silent_leaves_time_for_the_next(loopback, port, monkeypatch):
    """As IPv6 may lead nowhere."""
    create, tried = socket.create_connection, []

    def connect(address, timeout):
        tried.append(address[0])
        if len(tried) == 1:
            time.sleep(timeout)
            raise TimeoutError
        return create(address, timeout)

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (2, 1)]
    monkeypatch.setattr(module, "DOWNLOAD_SECONDS", 2.0)
    monkeypatch.setattr(loopback, "may_connect", lambda address, port: address.startswith("127."))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert len(loopback({"inputs": f"http://two.invalid:{port}/image"})) == 16
    assert tried == ["127.0.0.2", "127.0.0.1"]


def test_a_host_is_looked_up_once_and_that_address_is_asked(loopback, port, monkeypatch):
    """A name server that gives another address the second time (DNS rebinding) is not asked a second time."""
    look_up, asked = socket.getaddrinfo, []

    def rebinding(host, *arguments, **options):
        if host == "rebinding.invalid":
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert len(loopback({"inputs": f"http://rebinding.invalid:{port}/image"})) == 16
    assert asked == ["rebinding.invalid"] and Server.hosts[-1] == f"rebinding.invalid:{port}"


def test_the_certificate_has_to_be_the_hosts(loopback, tmp_path, monkeypatch):
    files = [str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")]
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {files[0]} -out {files[1]}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files[1], files[0])
    with serving(context) as port:
        with pytest.raises(InputError, match="no valid certificate"):
            loopback({"inputs": f"https://localhost:{port}/image"})
        monkeypatch.setenv("SSL_CERT_FILE", files[1])
        assert loopback({"inputs": f"https://localhost:{port}/image"}) == loopback({"inputs": Server.picture})
        with pytest.raises(InputError, match="no valid certificate"):  # one that we trust, but another host's
            loopback({"inputs": f"https://127.0.0.1:{port}/image"})


def test_the_handler_needs_nothing_that_an_endpoint_lacks():
    lines = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {
        "numpy",
        "torch",
        "PIL",
        "transformers",
        "safetensors",
    }  # a need of transformers


@contextmanager
def toolkit(endpoint: EndpointHandler):
    """The handler behind HTTP, its errors answered as the Inference Toolkit does."""

    class Toolkit(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, answer = 200, endpoint(body)
            except Exception as error:
                status, answer = 400, {"error": str(error)}
            content = json.dumps(answer, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Toolkit)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_hubs_own_client_gets_its_answer(endpoint, pictures):
    with toolkit(endpoint) as url:
        client = InferenceClient(url)
        for options in ({}, {"hypothesis_template": TEMPLATE}):
            found = client.zero_shot_image_classification(pictures[0], LABELS, **options)
            expected = endpoint({"inputs": pictures[0], "parameters": {"candidate_labels": LABELS} | options})
            assert [entry.label for entry in found] == [entry["label"] for entry in expected]
            assert [entry.score for entry in found] == pytest.approx([entry["score"] for entry in expected])
        with pytest.raises(HfHubHTTPError, match="Bad request:\nthis is no image"):
            client.zero_shot_image_classification(b"no image", LABELS)


def test_every_request_in_the_documentation_is_answered(loopback, port, picture):
    requests = re.findall(r"-d '(.+)'", SERVING)
    assert len(requests) >= 6
    for request in requests:
        request = request.replace("BASE64", picture).replace("https://example.org/", f"http://127.0.0.1:{port}/")
        assert loopback(json.loads(request.replace("/image.jpg", "/image")))


def test_the_documented_limits_are_the_handlers():
    for row in (
        f"images of a call | {module.MAX_IMAGES}",
        f"texts or labels of a call | {module.MAX_TEXTS}",
        f"letters of a text, label or template | {module.MAX_LETTERS:,}",
        f"an encoded image | {module.MAX_IMAGE_BYTES // 2**20} MiB",
        f"an image, before it is decoded | {module.MAX_PIXELS:,} pixels",
        f"the longer side of an image | {module.MAX_RATIO} times the shorter",
        f"scans of a JPEG | {module.MAX_SCANS}",
        f"formats | {', '.join(module.FORMATS)}",
        f"letters of a URL | {module.MAX_URL_LETTERS:,}",
        f"all downloads of a call together | {module.DOWNLOAD_SECONDS:g} seconds",
        f"redirects | {module.MAX_REDIRECTS}",
        f"ports | {', '.join(map(str, module.PORTS))}",
    ):
        assert f"| {row} |" in SERVING, row
