"""The routes that serve the images of the gallery: small ones for the page, and each in full size.

An address has the place of an image, so nothing but the gallery can be read.
"""

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .gallery import Gallery, Unreadable

THUMBNAIL = 256  # pixels, the longer side
LONGEST = 4096  # pixels, the longer side of an image in full size whose file the browser cannot show
AT_ONCE = 2  # images that are decoded at the same time
KEPT = {"cache-control": "private, max-age=86400, immutable"}
MISSING = Path(__file__).with_name("missing.svg").read_bytes()
SIGNATURES = {  # of the formats that browsers show
    "image/jpeg": rb"\xff\xd8\xff",
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/webp": rb"RIFF.{4}WEBP",
    "image/gif": rb"GIF8[79]a",
    "image/bmp": rb"BM",
}


def picture_routes(gallery: Gallery) -> list[Route]:
    """Return the routes `thumbnail/PLACE` and `picture/PLACE`."""
    limit = anyio.CapacityLimiter(AT_ONCE)
    answers = {"thumbnail": thumbnail, "picture": picture}
    return [
        Route(f"/{name}/{{place}}", partial(show, gallery, answer, limit), name=name)
        for name, answer in answers.items()
    ]


async def show(gallery: Gallery, answer: Callable, limit: anyio.CapacityLimiter, request: Request) -> Response:
    place = request.path_params["place"]
    if not re.fullmatch("[0-9]{1,10}", place) or int(place) >= len(gallery):
        return Response(status_code=404)
    try:
        content, kind = await anyio.to_thread.run_sync(answer, gallery, int(place), limiter=limit)
    except Unreadable:
        return Response(MISSING, 404, {"cache-control": "no-store"}, "image/svg+xml")
    return Response(content, headers=KEPT | {"x-content-type-options": "nosniff"}, media_type=kind)


def thumbnail(gallery: Gallery, place: int) -> tuple[bytes, str]:
    """Return a small JPEG of an image, and its media type."""
    return encode(gallery.image(place), THUMBNAIL, "JPEG", quality=85), "image/jpeg"


def picture(gallery: Gallery, place: int) -> tuple[bytes, str]:
    """Return the file of an image and its media type: a PNG if the browser cannot show the format."""
    content = gallery.content(place)
    for kind, signature in SIGNATURES.items():
        if content is not None and re.match(signature, content, re.DOTALL):
            return content, kind
    return encode(gallery.image(place), LONGEST, "PNG", compress_level=1), "image/png"


def encode(image: Image.Image, longest: int, kind: str, **options: int) -> bytes:
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
