"""A server on loopback that speaks the protocol of the Hub, with faults that tests inject."""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from huggingface_hub import constants

from rsmclip.core import uploads as upload

USER = "lab"  # owner of every token
LARGE_FILES = (".parquet", ".safetensors", ".bin", ".onnx", ".pt")  # suffixes of files that clients upload by Git LFS
CUT_OFF, UNANSWERED = -1, -2  # the connection breaks within the content, or after the work is done
ROUTES: dict[str, tuple[Callable, bool]] = {}  # by method and path; whether it needs a token
REPO = r"(?P<kind>models/|datasets/|spaces/)?(?P<name>[^/]+/[^/]+)"  # in paths of the website, models have no prefix
API = rf"/api/{REPO}"


@dataclass
class Fault:
    """A fault in the answer to requests like `POST /api/datasets/lab/corpus/commit/main`."""

    request: str  # regular expression; a HEAD counts as a GET
    status: int  # or CUT_OFF, UNANSWERED
    times: int | None = None  # requests; all by default
    message: str = "injected"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Commit:
    """A commit that a client made."""

    repository: str  # as in `HubServer.repositories`
    summary: str
    added: list[str]
    deleted: list[str]
    revision: str = "main"
    sha: str = field(default="", compare=False)  # its files can be read by this hash


class Refusal(Exception):
    """An error answer; the client distinguishes them by `code`."""

    def __init__(self, status: int, message: str, code: str | None = None, **details: str):
        super().__init__(message)
        self.status, self.body = status, {"error": message} | details
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


def route(request: str, writes: bool = False) -> Callable[[Callable], Callable]:

    def register(handler: Callable) -> Callable:
        ROUTES[request] = handler, writes
        return handler

    return register


class HubHandler(BaseHTTPRequestHandler):
    """A handler of requests. The named groups of a route are the arguments of its method."""

    def log_message(self, *args):
        pass

    def answer(self) -> None:
        """Read the body, then answer: a client that still sends does not read the answer."""
        request = f"{self.command.replace('HEAD', 'GET')} {urlsplit(self.path).path}"
        self.server.requests.append(request)
        fault = self.server.next_fault(request)
        length = int(self.headers.get("Content-Length", 0))
        self.cut_off = fault is not None and fault.status == CUT_OFF
        if self.cut_off and length:
            self.rfile.read(length // 2)
            return self.hang_up()
        self.body = self.rfile.read(length)
        try:
            if fault is not None and fault.status > 0:
                raise Refusal(fault.status, fault.message)
            result = self.handle_request(request)
        except Refusal as refusal:
            headers = refusal.headers | (fault.headers if fault else {})
            return self.send(json.dumps(refusal.body).encode(), headers, refusal.status)
        if fault is not None and fault.status == UNANSWERED:
            return self.hang_up()
        if isinstance(result, tuple):
            return self.send(*result)
        self.send(json.dumps(result).encode(), {"Content-Type": "application/json"})

    do_HEAD = do_GET = do_POST = do_PUT = answer

    def handle_request(self, request: str) -> object:
        for pattern, (handler, writes) in ROUTES.items():
            if match := re.fullmatch(pattern, request):
                if writes and not self.has_token:
                    raise Refusal(401, "Invalid username or password.")
                return handler(self, **{name: unquote(text) for name, text in match.groupdict(default="").items()})
        raise Refusal(404, f"no such page: {request}", "EntryNotFound")

    @property
    def has_token(self) -> bool:
        return self.headers.get("Authorization", "").startswith("Bearer ")

    def send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for header, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            sent = body[: len(body) // 2] if self.cut_off else body
            self.server.sent[urlsplit(self.path).path] += len(sent)
            self.wfile.write(sent)
        if self.cut_off:
            self.hang_up()

    def hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def find(self, kind: str, name: str, revision: str = "main") -> tuple[str, Path]:
        key = repository_key(kind, name)
        folder = self.server.repositories.get(key)
        if folder is None or (key in self.server.private and not self.has_token):
            raise Refusal(404 if self.has_token else 401, "Repository not found", "RepoNotFound")
        if revision not in ("main", head(folder)):
            folder = self.server.revisions[key].get(revision)
        if folder is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return key, folder

    @route(rf"GET {API}(/revision/(?P<revision>[^/]+))?")
    def describe(self, kind: str, name: str, revision: str) -> dict:
        key, folder = self.find(kind, name, revision or "main")
        files = [{"rfilename": path} for path in relative_files(folder)]
        facts = {"id": name, "sha": head(folder), "private": key in self.server.private, "siblings": files, "tags": []}
        return facts | {"datasets/": {}, "spaces/": {"sdk": self.server.sdks.get(key)}}.get(kind, {"modelId": name})

    @route(rf"GET {API}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?")
    def tree(self, kind: str, name: str, revision: str, path: str) -> list[dict]:
        _, folder = self.find(kind, name, revision)
        if not (folder / path).is_dir():
            raise Refusal(404, f"{path} does not exist", "EntryNotFound")
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("true", "1")
        found = (folder / path).rglob("*") if recursive else (folder / path).iterdir()
        return [entry(folder, each) for each in sorted(found)]

    @route(rf"POST {API}/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, kind: str, name: str, revision: str) -> list[dict]:
        _, folder = self.find(kind, name, revision)
        paths = [folder / path for path in parse_qs(self.body.decode()).get("paths", [])]
        return [entry(folder, path) for path in paths if path.exists()]

    @route(rf"GET /{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def file(self, kind: str, name: str, revision: str, path: str) -> tuple:
        _, folder = self.find(kind, name, revision)
        if not (folder / path).is_file():
            raise Refusal(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{oid(folder / path)}"', "X-Repo-Commit": head(folder), "Accept-Ranges": "bytes"}
        body = (folder / path).read_bytes()
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), min(int(match[2] or len(body)), len(body) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            return body[start : end + 1], headers, 206
        return body, headers

    @route("GET /api/whoami-v2", writes=True)
    def whoami(self) -> dict:
        return {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}}

    @route("POST /api/repos/create", writes=True)
    def create(self) -> object:
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or USER}/{wanted['name']}"
        key = repository_key(f"{wanted.get('type') or 'model'}s/", name)
        if key.startswith("spaces/") and not wanted.get("sdk"):
            raise Refusal(400, "a Space needs an sdk")
        where = {"url": f"{self.server.endpoint}/{key}", "name": name}
        if key in self.server.repositories:
            raise Refusal(409, "You already created this repo", **where)
        self.server.repositories[key] = self.server.root / key
        self.server.repositories[key].mkdir(parents=True)
        self.server.sdks[key] = wanted.get("sdk")
        if wanted.get("visibility") == "private" or wanted.get("private"):  # newer and older clients
            self.server.private.add(key)
        return where

    @route(rf"POST {API}/branch/(?P<branch>[^/]+)", writes=True)
    def create_branch(self, kind: str, name: str, branch: str) -> dict:
        key, folder = self.find(kind, name, (json.loads(self.body or b"{}")).get("startingPoint") or "main")
        if branch == "main" or branch in self.server.revisions[key]:
            raise Refusal(409, f"Reference already exists: {branch}")
        self.server.branch_off(key, folder, branch)
        return {}

    @route(rf"POST {API}/tag/(?P<revision>[^/]+)", writes=True)
    def create_tag(self, kind: str, name: str, revision: str) -> dict:
        key, folder = self.find(kind, name, revision)
        tag = json.loads(self.body)["tag"]
        if tag in self.server.revisions[key]:
            raise Refusal(409, f"Tag already exists: {tag}")
        self.server.revisions[key][tag] = self.server.revisions[key][head(folder)]
        return {}

    @route("POST /api/validate-yaml")
    def validate_yaml(self) -> dict:
        return {"errors": [], "warnings": []}

    @route(rf"POST {API}/preupload/(?P<revision>[^/]+)", writes=True)
    def preupload(self, kind: str, name: str, revision: str) -> dict:
        _, folder = self.find(kind, name, revision)
        answers = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            mode = "lfs" if path.endswith(LARGE_FILES) else "regular"
            there = oid(folder / path) if (folder / path).is_file() else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": there})
        return {"files": answers}

    @route(rf"POST /{REPO}\.git/info/lfs/objects/batch", writes=True)
    def lfs_batch(self, kind: str, name: str) -> dict:
        self.find(kind, name)
        objects = [{"oid": each["oid"], "size": each["size"]} for each in json.loads(self.body)["objects"]]
        for each in (each for each in objects if each["oid"] not in self.server.large_files):
            each["actions"] = {"upload": {"href": f"{self.server.endpoint}/lfs/{each['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    @route("PUT /lfs/(?P<sha256>[0-9a-f]{64})")  # no token: on the Hub this address is signed
    def lfs_upload(self, sha256: str) -> dict:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise Refusal(400, "the content has another hash")
        self.server.large_files[sha256] = self.body
        return {}

    @route(rf"POST {API}/commit/(?P<revision>[^/]+)", writes=True)
    def commit(self, kind: str, name: str, revision: str) -> dict:
        key, folder = self.find(kind, name, revision)
        values = defaultdict(list)
        for line in map(json.loads, self.body.splitlines()):
            values[line["key"]].append(line["value"])
        if unknown := set(values) - {"header", "file", "lfsFile", "deletedFile"}:
            raise Refusal(400, f"this server knows no {', '.join(sorted(unknown))}")
        deleted = [value["path"] for value in values["deletedFile"]]
        contents = {value["path"]: base64.b64decode(value["content"]) for value in values["file"]}
        contents |= {value["path"]: self.server.large_files.get(value["oid"]) for value in values["lfsFile"]}
        if missing := [path for path, content in contents.items() if content is None]:
            raise Refusal(400, f"{missing[0]} was not uploaded")
        if missing := [path for path in deleted if not (folder / path).is_file()]:
            raise Refusal(404, f"A file with this name doesn't exist: {missing[0]}", "EntryNotFound")
        if (self.server.root / "commits" / key) in folder.parents:
            raise Refusal(400, f"{revision} is no branch")
        answer = {"success": True}
        with self.server.lock:
            if "create_pr" in parse_qs(urlsplit(self.path).query):
                number = 1 + sum(ref.startswith("refs/pr/") for ref in self.server.revisions[key])
                answer["pullRequestUrl"] = f"{self.server.endpoint}/{key}/discussions/{number}"
                revision = f"refs/pr/{number}"
                folder = self.server.branch_off(key, folder, revision)
            write(folder, contents, deleted)
            sha = self.server.keep(key, folder)
            summary = values["header"][0]["summary"]
            self.server.commits.append(Commit(key, summary, sorted(contents), sorted(deleted), revision, sha))
        return answer | {"commitOid": sha, "commitUrl": f"{self.server.endpoint}/{key}/commit/{sha}"}


def write(folder: Path, contents: dict[str, bytes], deleted: list[str]) -> None:
    for path in deleted:
        (folder / path).unlink()
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def repository_key(kind: str, name: str) -> str:
    return name if kind in ("", "models/") else f"{kind}{name}"


def relative_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def entry(folder: Path, path: Path) -> dict:
    relative = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": relative, "size": 0, "oid": head(path)}
    facts = {"type": "file", "path": relative, "size": path.stat().st_size, "oid": oid(path)}
    if path.suffix in LARGE_FILES:
        facts["lfs"] = {"oid": oid(path), "size": facts["size"], "pointerSize": 134}
    return facts


def oid(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix in LARGE_FILES:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def head(folder: Path) -> str:
    files = "".join(f"{path}\0{oid(folder / path)}\0" for path in relative_files(folder))
    return hashlib.sha1(files.encode()).hexdigest()


class HubServer(ThreadingHTTPServer):
    """
    A context manager that serves folders as repositories and records requests.

    A branch is a folder that commits change. A copy is kept for every commit, readable by its hash or a tag.

    Args:
        repositories (`dict[str, Path]`, *optional*): Folders by id: `user/name` or `datasets/user/name`.
        root (`Path`, *optional*): Place of repositories that clients create.
        faults (`list[Fault]`, *optional*): Faults; the list may be changed at any time.
    """

    def __init__(
        self, repositories: dict[str, Path] | None = None, root: Path | None = None, faults: list[Fault] | None = None
    ):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories, self.root, self.faults = dict(repositories or {}), root, list(faults or ())
        self.private: set[str] = set()
        self.sdks: dict[str, str | None] = {}  # of Spaces
        self.revisions: defaultdict[str, dict[str, Path]] = defaultdict(dict)  # all but main
        self.commits: list[Commit] = []
        self.requests: list[str] = []  # in the format of Fault.request
        self.sent: Counter[str] = Counter()  # bytes by path
        self.large_files: dict[str, bytes] = {}
        self.lock = Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times != 0 and re.search(fault.request, request):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def branch_off(self, key: str, folder: Path, name: str) -> Path:
        self.keep(key, folder)
        branch = self.root / "branches" / key / quote(name, safe="")
        shutil.copytree(folder, branch)
        self.revisions[key][name] = branch
        return branch

    def keep(self, key: str, folder: Path) -> str:
        sha = head(folder)
        if sha not in self.revisions[key]:
            self.revisions[key][sha] = shutil.copytree(folder, self.root / "commits" / key / sha)
        return sha

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of every uploaded file."""
        for path in self.root.rglob("*"):
            if path.is_file():
                yield path.relative_to(self.root).as_posix(), path.read_bytes()
        yield from self.large_files.items()

    def handle_error(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def __enter__(self) -> "HubServer":
        Thread(target=self.serve_forever, args=[0.02], daemon=True).start()  # looks for its end that often, seconds
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str, token: str = "a token") -> None:
    """Make huggingface_hub in this process a client of a server, for uploads."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(upload, "FIRST_WAIT", 0.01)  # seconds


def run_python(
    endpoint: str, *arguments: object, token: str | None = "a token", timeout: float = 200, **environment: str
) -> subprocess.CompletedProcess:
    """Run Python in a process with an empty cache, the address of a Hub and a token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    kept |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as home:
        kept |= {"HF_HOME": home} | ({"HF_TOKEN": token} if token else {}) | environment
        return subprocess.run(command, capture_output=True, text=True, env=kept, timeout=timeout)
