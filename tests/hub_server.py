"""A server on loopback that speaks the reading half of the Hub's protocol: repositories, trees, files."""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


class HubHandler(BaseHTTPRequestHandler):
    """Answers for the folders in `server.repositories`."""

    def log_message(self, *args):
        """Nothing: the tests' output is theirs."""

    def do_HEAD(self):
        """A file's headers."""
        self.answer(with_body=False)

    def do_GET(self):
        """A repository, its tree, or a file."""
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        """Routes a request."""
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self.send_json(match[1], self.describe, with_body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+/?", path):
            self.send_json(match[1], self.tree, with_body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self.send_file(*match.groups(), with_body)
        else:
            self.refuse("EntryNotFound")

    def refuse(self, code: str) -> None:
        """A 404 as the Hub's client reads it."""
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def describe(self, name: str, folder: Path) -> dict:
        """A repository."""
        files = [{"rfilename": path} for path in relative_files(folder)]
        return {"id": name, "modelId": name, "sha": commit(folder), "private": False, "siblings": files, "tags": []}

    def tree(self, name: str, folder: Path) -> list[dict]:
        """Its files."""
        return [
            {"type": "file", "path": path, "size": (folder / path).stat().st_size, "oid": etag(folder / path)}
            for path in relative_files(folder)
        ]

    def send_json(self, name: str, make, with_body: bool) -> None:
        """What `make` says of a repository."""
        if (folder := self.server.repositories.get(name)) is None:
            self.refuse("RepoNotFound")
        else:
            self.send(json.dumps(make(name, folder)).encode(), {"Content-Type": "application/json"}, with_body)

    def send_file(self, name: str, path: str, with_body: bool) -> None:
        """One file, or a part of it."""
        folder = self.server.repositories.get(name)
        if folder is None or not (folder / path).is_file():
            self.refuse("RepoNotFound" if folder is None else "EntryNotFound")
            return
        headers = {"ETag": f'"{etag(folder / path)}"', "X-Repo-Commit": commit(folder), "Accept-Ranges": "bytes"}
        body = (folder / path).read_bytes()
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            self.send(body[start : end + 1], headers, with_body, status=206)
        else:
            self.send(body, headers, with_body)

    def send(self, body: bytes, headers: dict[str, str], with_body: bool, status: int = 200) -> None:
        """A response."""
        self.send_response(status)
        for header, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def relative_files(folder: Path) -> list[str]:
    """All files beneath a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def etag(path: Path) -> str:
    """A file's hash."""
    return hashlib.sha1(path.read_bytes()).hexdigest()


def commit(folder: Path) -> str:
    """A hash of everything in a folder."""
    return hashlib.sha1("".join(etag(folder / path) for path in relative_files(folder)).encode()).hexdigest()


class HubServer(ThreadingHTTPServer):
    """
    Serves folders as repositories while its `with` block runs.

    Args:
        repositories (`dict[str, Path]`): Ids like `user/name`, and their folders.
    """

    def __init__(self, repositories: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories = repositories

    @property
    def endpoint(self) -> str:
        """What `HF_ENDPOINT` is set to."""
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "HubServer":
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()
