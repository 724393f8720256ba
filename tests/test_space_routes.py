"""The addresses of the Space under which a browser gets images, and limits on what it sends."""

import io

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from rsmclip.eval.index import nearest
from rsmclip.hub.handler import InputError, open_image
from rsmclip.hub.space import uploads
from rsmclip.hub.space.gallery import Entry, Gallery, Unreadable
from rsmclip.hub.space.routes import LONGEST, picture_routes
from rsmclip.hub.space.uploads import FORM, REQUEST, UploadLimits


class Files(Gallery):
    """Images that are given as encoded bytes; a PIL image is a tile."""

    def __init__(self, *files: bytes | Image.Image):
        super().__init__("files", np.eye(len(files), dtype=np.float32), nearest)
        self.files = files

    def entry(self, place: int) -> Entry:
        return Entry(str(place))

    def content(self, place: int) -> bytes | None:
        return None if isinstance(self.files[place], Image.Image) else self.files[place]

    def image(self, place: int) -> Image.Image:
        if (content := self.content(place)) is None:
            return self.files[place]
        try:
            return open_image(content)
        except InputError as error:
            raise Unreadable(str(error)) from error


def browser(*files: bytes | Image.Image) -> TestClient:
    return TestClient(Starlette(routes=picture_routes(Files(*files))))


def drawn(width: int = 400, height: int = 200) -> Image.Image:
    levels = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    return Image.fromarray(np.stack([levels, levels // 2, 255 - levels], axis=2))


def encoded(kind: str, image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_thumbnail_is_a_small_jpeg_that_the_browser_keeps():
    answer = browser(encoded("PNG", drawn())).get("/thumbnail/0?key")
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.size, answer.headers["content-type"]) == ("JPEG", (256, 128), "image/jpeg")
    assert np.abs(np.asarray(image, int) - np.asarray(drawn().resize((256, 128)), int)).mean() < 3
    assert "max-age" in answer.headers["cache-control"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_file_that_a_browser_shows_is_sent_unchanged(kind):
    content = encoded(kind, drawn())
    answer = browser(content).get("/picture/0")
    assert answer.content == content and answer.headers["content-type"] == f"image/{kind.lower()}"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000"])
def test_another_format_and_a_tile_become_a_png_of_the_same_pixels(kind):
    for file in (encoded(kind, drawn()), drawn()):
        answer = browser(file).get("/picture/0")
        image = Image.open(io.BytesIO(answer.content))
        assert (image.format, answer.headers["content-type"]) == ("PNG", "image/png")
        assert np.array_equal(image, drawn())


def test_a_very_large_scene_is_reduced():
    answer = browser(encoded("TIFF", Image.new("L", (2 * LONGEST, 1000)))).get("/picture/0")
    assert Image.open(io.BytesIO(answer.content)).size == (LONGEST, 500)


@pytest.mark.parametrize("kind", ["thumbnail", "picture"])
def test_no_other_place_can_be_read(kind):
    client = browser(encoded("PNG", drawn()), encoded("PNG", drawn()))
    assert client.get(f"/{kind}/1").status_code == 200
    wrong = [
        "2",
        "-1",
        "1.0",
        "1e0",
        "x",
        "٣",
        "9" * 5000,
        "0/0",
        "../0",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "",
    ]
    assert {client.get(f"/{kind}/{place}").status_code for place in wrong} == {404}
    assert client.post(f"/{kind}/1").status_code == 405


@pytest.mark.parametrize("content", [b"", b"no image", encoded("TIFF", drawn())[:900]])
def test_an_image_that_cannot_be_read_has_a_placeholder_that_is_not_kept(content):
    client = browser(content)
    for kind in ("thumbnail", "picture"):
        answer = client.get(f"/{kind}/0")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "image/svg+xml")
        assert b"<svg" in answer.content and answer.headers["cache-control"] == "no-store"


@pytest.fixture
def sender() -> TestClient:
    """A client of an application that takes files of 1,000 bytes and deletes each after a minute."""

    async def receive(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route(path, receive, methods=["GET", "POST"]) for path in ("/upload", "/join")]
    limits = Middleware(UploadLimits, largest=1000, kept_seconds=60)
    return TestClient(Starlette(routes=routes, middleware=[limits]))


def test_a_request_is_no_larger_than_a_file_or_a_call_needs(sender):
    assert sender.get("/join").text == "0"
    for path, most in (("/upload", 1000 + FORM), ("/join", REQUEST)):
        assert sender.post(path, content=bytes(most)).text == str(most)
        assert sender.post(path, content=bytes(most + 1)).status_code == 413
        assert sender.post(path, content=iter([b"a"])).status_code == 413  # without a length


def test_all_uploads_together_have_a_limit_until_they_are_deleted(sender, monkeypatch):
    now = 100.0
    monkeypatch.setattr(uploads.time, "monotonic", lambda: now)
    monkeypatch.setattr(uploads, "ALL_UPLOADS", 3 * (FORM + 500))
    assert [sender.post("/upload", content=bytes(500)).status_code for _ in range(4)] == [200, 200, 200, 503]
    assert sender.post("/join", content=b"a").status_code == 200
    now += 59
    assert sender.post("/upload", content=b"").status_code == 503
    now += 2
    assert sender.post("/upload", content=b"").status_code == 200
