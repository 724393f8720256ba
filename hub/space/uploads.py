"""Limits on what visitors send: the size of a request, and of all uploads that are on the disk."""

import math
import time
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ALL_UPLOADS = 8 * 2**30  # bytes on the disk
FORM = 2**16  # bytes around a file in a request; an upload counts for as much at least
REQUEST = 2**20  # bytes of any other request


@dataclass
class Upload:
    """A file that a visitor sent or is sending."""

    size: int  # bytes
    deleted_by: float = math.inf  # in seconds of `time.monotonic`


class UploadLimits:
    """
    ASGI middleware that refuses requests beyond the limits of this file.

    Args:
        app (`ASGIApp`): The application.
        largest (`int`): Bytes of a file.
        kept_seconds (`float`): Time after an upload by which its file is deleted.
    """

    def __init__(self, app: ASGIApp, largest: int, kept_seconds: float):
        self.app, self.largest, self.kept_seconds = app, largest, kept_seconds
        self.uploads: list[Upload] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        is_upload = scope["path"].endswith("/upload")
        length = Headers(scope=scope).get("content-length", "")  # the server reads no more than this
        if not length.isdecimal() or int(length) > (self.largest + FORM if is_upload else REQUEST):
            await PlainTextResponse("the request is too large, or does not say its length", 413)(scope, receive, send)
        elif is_upload:
            await self.upload(Upload(int(length) + FORM), scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def upload(self, upload: Upload, scope: Scope, receive: Receive, send: Send) -> None:
        now = time.monotonic()
        self.uploads = [each for each in self.uploads if each.deleted_by > now]
        if sum(each.size for each in self.uploads) + upload.size > ALL_UPLOADS:
            await PlainTextResponse("too many uploads: try again later", 503)(scope, receive, send)
            return
        self.uploads.append(upload)
        try:
            await self.app(scope, receive, send)
        finally:
            upload.deleted_by = time.monotonic() + self.kept_seconds
