"""The handler as an endpoint runs it: a fresh process, real payloads, bad and harmful requests."""

import ast
import base64
import io
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
from rsmclip.hub import handler as module
from rsmclip.hub.handler import EndpointHandler, InputError, open_image
from rsmclip.image_processing_rsmclip import as_image
from rsmclip.models.folder import check_model_type, save_model_folder

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


@pytest.fixture(scope="module", autouse=True)
def pillows_limit():
    """Restore the limit, which handlers change for the whole process."""
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
    with pytest.raises(InputError, match="candidate_labels"):
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
        {"inputs": "http://example.org/image.jpg"},
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
    assert "8,500 × 8,500" in answers[2]["error"] and growth[2] < 20_000  # KB
    assert "URLs" in answers[3]["error"]
    assert answers[4] == pytest.approx(answers[1][0], abs=1e-6)
    assert (tmp_path / "repository" / "requirements.txt").read_text() == "transformers>=5.13\npillow>=11.1\n"


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
    name = "visual_projection.weight"
    for wrong in ({key: value for key, value in state.items() if key != name}, state | {name: torch.zeros(2, 2)}):
        save_file(wrong, weights, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=name):
            EndpointHandler(str(tmp_path / "cut"))


def test_an_index_of_weights_that_names_a_pickle_is_not_served(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    state = AutoModel.from_pretrained(model_folder, trust_remote_code=True).state_dict()
    torch.save(state, tmp_path / "model" / "evil.bin")
    (tmp_path / "model" / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, "evil.bin")}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="evil.bin"):
        EndpointHandler(str(tmp_path / "model"))


def test_a_folder_without_a_tokenizer_or_a_configuration_is_not_served(tiny_model, tiny_processor, tmp_path):
    save_model_folder(tiny_model, tiny_processor.image_processor, tmp_path)
    with pytest.raises(ValueError, match="tokenizer"):
        EndpointHandler(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json"):
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
        with pytest.raises(ValueError, match=name):
            load(str(tmp_path / "model"))


def test_a_deeply_nested_configuration_is_not_served(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    fields = json.loads((tmp_path / "model" / "config.json").read_text()) | {"auto_map": "NESTED"}
    nested = json.dumps(fields).replace('"NESTED"', '{"a":' * 100_000 + "1" + "}" * 100_000)
    (tmp_path / "model" / "config.json").write_text(nested)
    for load in (EndpointHandler, lambda folder: check_model_type(Path(folder))):
        with pytest.raises(ValueError, match="config.json"):
            load(str(tmp_path / "model"))


def test_bad_requests_are_one_line_that_names_the_field(endpoint, picture):
    labels = {"candidate_labels": LABELS}
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for request, named in (
        ("text", "inputs"),
        ({"parameters": labels}, "inputs"),
        ({"inputs": None}, "null"),
        ({"inputs": 3}, "a number"),
        ({"inputs": [[picture]]}, "a list"),
        ({"inputs": {}}, "image or text"),
        ({"inputs": []}, "images"),
        ({"inputs": ["a"] * 33}, "33"),
        ({"inputs": {"image": picture, "text": "a"}}, "image or text"),
        ({"inputs": {"image": picture, "labels": LABELS}}, "'labels'"),
        ({"inputs": {"image": picture, **labels}, "parameters": labels}, "candidate_labels is in both"),
        ({"inputs": {"text": "a"}, "parameters": labels}, "candidate_labels"),
        ({"inputs": {"text": []}}, "text: the list is empty"),
        ({"inputs": {"text": " "}}, "text has an empty"),
        ({"inputs": {"text": "a" * 1001}}, "1,001"),
        ({"inputs": {"text": "\ud83d"}}, "Unicode"),
        ({"inputs": picture, "parameters": [1]}, "parameters"),
        ({"inputs": picture, "parameters": labels | {"top_k": 3}}, "'top_k'"),
        ({"inputs": picture, "parameters": {"candidate_labels": []}}, "candidate_labels"),
        ({"inputs": picture, "parameters": {"candidate_labels": "a,,b"}}, "candidate_labels"),
        ({"inputs": picture, "parameters": {"candidate_labels": '["a", "b"]'}}, "a list written as text"),
        ({"inputs": picture, "parameters": {"candidate_labels": {"a": 1}}}, "an object"),
        ({"inputs": picture, "parameters": {"candidate_labels": ["a", 3]}}, "a number"),
        ({"inputs": picture, "parameters": {"candidate_labels": ["a"] * 257}}, "257"),
        ({"inputs": picture, "parameters": {"hypothesis_template": "{}"}}, "candidate_labels"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": "a photo"}}, "{} once"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": "{} {}"}}, "{} once"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": "{:>999999999}"}}, "{} once"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": 3}}, "hypothesis_template"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": ["{}"]}}, "hypothesis_template"),
        ({"inputs": picture, "parameters": labels | {"hypothesis_template": ["{}", "{}"]}}, "hypothesis_template"),
        ({"inputs": "um porto"}, "base64"),
        ({"inputs": "/etc/passwd"}, "base64"),
        ({"inputs": "file:///etc/passwd"}, "base64"),
        ({"inputs": "HTTPS://example.org/image.jpg"}, "URLs are not fetched"),
        ({"inputs": {"image": ["http://169.254.169.254/"]}}, "URLs are not fetched"),
        ({"inputs": "data:image/png,abc"}, "data:"),
        ({"inputs": text_of(b"a text named image.jpg")}, "formats"),
        ({"inputs": ""}, "formats"),
        ({"inputs": text_of(postscript)}, "formats"),
    ):
        with pytest.raises(InputError) as raised:
            endpoint(request)
        assert named in str(raised.value) and "\n" not in str(raised.value), (request, str(raised.value))


def test_an_endpoint_opens_no_connection(endpoint, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("it connects"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it looks up a host"))
    with pytest.raises(InputError, match="URLs"):
        endpoint({"inputs": "http://example.org/image.jpg"})


def test_the_client_does_not_see_an_internal_error(endpoint, picture, monkeypatch, caplog):
    def fail(**inputs):
        raise OSError("cannot read /repository/secret")

    monkeypatch.setattr(endpoint.model, "get_image_features", fail)
    with pytest.raises(RuntimeError) as raised:
        endpoint({"inputs": picture})
    assert "secret" not in str(raised.value) and "/repository/secret" in caplog.text
    nan = torch.full((1, 16), float("nan"))
    monkeypatch.setattr(endpoint.model, "get_image_features", lambda **_: type("", (), {"pooler_output": nan}))
    with pytest.raises(RuntimeError, match="failed"):  # JSON has no NaN
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
        with pytest.raises(InputError, match="32 bits per channel"):
            open_image(encode(Image.fromarray(pixels), "TIFF"))


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_image_is_turned_as_its_exif_data_says(turn, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = turn
    (tmp_path / "image.png").write_bytes(encode(image, exif=exif))
    found = open_image((tmp_path / "image.png").read_bytes())
    np.testing.assert_array_equal(found, load_image(str(tmp_path / "image.png")))  # as transformers' pipelines do


def test_the_first_picture_of_an_animation_is_used():
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue", "green")]
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
        with pytest.raises(InputError, match="formats|damaged"):
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
    """Pillow reads these data and fails to write them: `TypeError`, `struct.error`, `AttributeError`."""
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
def test_pixels_are_counted_before_they_are_decoded(image_format, monkeypatch):
    for kind in (ImageFile.ImageFile, WebPImagePlugin.WebPImageFile):
        monkeypatch.setattr(kind, "load", lambda image: pytest.fail("it was decoded"))
    side, most = (5_000, "25,000,000") if image_format in ("WEBP", "JPEG2000") else (7_071, "50,000,000")
    with pytest.raises(InputError, match=most):
        open_image(enlarged(image_format, side + 1))
    with pytest.raises(InputError, match="50,000,000"):  # Pillow does not open it
        open_image(enlarged(image_format, 16_000))
    with pytest.raises(pytest.fail.Exception, match="it was decoded"):
        open_image(enlarged(image_format, side))


def test_a_narrow_image_is_not_brought_to_the_models_height():
    """Its short side made 224 pixels, an image of 1 × 100,000 would have five billion."""
    assert open_image(encode(Image.new("RGB", (1, 50)))).size == (1, 50)
    for size in ((1, 51), (100_000, 1)):
        with pytest.raises(InputError, match="50 times"):
            open_image(encode(Image.new("RGB", size)))


def test_a_jpeg_of_countless_scans_is_not_decoded(monkeypatch):
    """75 bytes more are a scan more, and a scan decodes the whole picture."""
    content = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    scan = content[list(module.JPEG_SCAN.finditer(content))[-1].start() : -2]
    assert open_image(content[:-2] + 40 * scan + content[-2:]).size == (64, 64)
    video = random.Random(0).randbytes(5_000_000)  # as phones put behind a picture
    assert video.count(b"\xff\xda") > 50 and open_image(content + video).size == (64, 64)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(InputError, match="50 scans"):
        open_image(content[:-2] + 41 * scan + content[-2:])


def test_an_image_of_too_many_bytes_is_not_looked_at(endpoint, monkeypatch):
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 3000)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    for image in (b"\0" * 3001, text_of(b"\0" * 3001), text_of(b"\0" * 9000)):
        with pytest.raises(InputError, match="MiB"):
            endpoint({"inputs": image})


def test_the_handler_needs_nothing_that_an_endpoint_lacks():
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    imported = {name.split(".")[0] for name in names}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "torch", "PIL", "transformers"}


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
        with pytest.raises(HfHubHTTPError, match="formats"):
            client.zero_shot_image_classification(b"no image", LABELS)


def test_every_request_in_the_documentation_is_answered(endpoint, picture):
    requests = re.findall(r"-d '(.+)'", SERVING)
    assert len(requests) >= 6
    for request in requests:
        assert endpoint(json.loads(request.replace("BASE64", picture)))


def test_the_documented_limits_are_the_handlers():
    for row in (
        f"images in a request | {module.MAX_IMAGES}",
        f"texts or labels in a request | {module.MAX_TEXTS}",
        f"characters of a text, label or template | {module.MAX_CHARACTERS:,}",
        f"an encoded image | {module.MAX_IMAGE_BYTES // 2**20} MiB",
        f"an image, before it is decoded | {module.MAX_PIXELS:,} pixels",
        f"the longer side of an image | {module.MAX_RATIO} times the shorter",
        f"a WebP or JPEG 2000, before it is decoded | {module.MAX_COSTLY_PIXELS:,} pixels",
        f"scans of a JPEG | {module.MAX_SCANS}",
        f"metadata of an image | {module.MAX_HEADER_BYTES // 2**20} MiB in {module.MAX_HEADER_PARTS:,} parts",
        f"EXIF data | {module.MAX_EXIF_BYTES // 2**10} KiB",
        f"blocks of all components of a JPEG 2000 | {module.MAX_BLOCKS:,}",
        f"formats | {', '.join(module.FORMATS)}",
    ):
        assert f"| {row} |" in SERVING, row
