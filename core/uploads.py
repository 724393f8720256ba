"""Uploads to the Hub: all files in one commit, retried where that helps, else one line that says what to do.

huggingface_hub repeats by itself what moves large files, six times, when the Hub is overloaded or the connection
breaks. What makes repositories, branches, tags and commits it tries once; that is repeated here. A commit is put
together anew each time: of one that had come through when its answer was lost, nothing is left to do.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # of the HTTP client, which differs between versions of huggingface_hub
)

TRIES = 5
FIRST_WAIT = 1.0  # seconds; the next is twice as long
LONGEST_WAIT = 60.0  # seconds; who is asked to wait longer is told so
NOT_DONE = (409, 412, 429, 503)  # answers after which the work is not done; 409, 412: another commit came first
ANSWERED = (*NOT_DONE, 408, 500, 502, 504)
ALWAYS = (*ANSWERED, None)  # None: no answer came
# Not all are errors of HTTP: no upload of a file is a RuntimeError, an answer that is no JSON a ValueError.
UPLOAD_ERRORS = (HTTPError, OSError, RuntimeError, ValueError)
TOKENS = "https://huggingface.co/settings/tokens"
ADVICE = {  # by status
    403: f"the token may not do that; it needs the permission to write to this repository ({TOKENS})",
    404: "there is no such repository or revision, or the token may not see it",
    409: "others committed at the same time; try again",
    412: "others committed at the same time; try again",
    429: "too many requests; try again later",
}
Result = TypeVar("Result")


def push_files(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    repo_type: Literal["model", "dataset", "space"] = "model",
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    message: str = "Upload",
    space_sdk: str | None = None,
    replaces: Iterable[str] = (),
    report: Callable[[str], object] = print,
) -> CommitInfo:
    """
    Pushes files to the Hub in one commit, and none if they are there already.

    Args:
        files (`Mapping[str, Path | bytes]`):
            Where they go in the repository, and what they hold.
        repo_id (`str`):
            The repository; made if it does not exist.
        repo_type (`str`, *optional*, defaults to `"model"`):
            `"model"`, `"dataset"` or `"space"`.
        private (`bool`, *optional*):
            Whether a repository that is made is private.
        revision (`str`, *optional*):
            Branch to commit to, by default `main`; made of `main` if it does not exist.
        create_pr (`bool`, *optional*, defaults to `False`):
            Whether to open a pull request instead.
        message (`str`, *optional*, defaults to `"Upload"`):
            Title of the commit.
        space_sdk (`str`, *optional*):
            What a Space that is made runs on, `"gradio"` say.
        replaces (`Iterable[str]`, *optional*):
            Patterns of files in the repository that these take the place of: all others that match are deleted.
        report (`Callable`, *optional*, defaults to `print`):
            Takes the lines that say what went up and where it is.

    Returns:
        `CommitInfo`: The new commit, or the last one if there was nothing new.

    Raises:
        `OSError`: The Hub cannot be reached or refuses, in one line.
    """
    api = HfApi()
    try:
        repo_id = make_repository(api, repo_id, repo_type, private, space_sdk)
        if revision and not create_pr and not revision.startswith("refs/"):
            persist(lambda: api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True))
        before = persist(lambda: api.repo_info(repo_id, repo_type=repo_type, revision=revision))
        if private and not before.private:
            report(f"{repo_id} was there before and is public: it stays so")

        def commit() -> CommitInfo:
            there = api.repo_info(repo_id, repo_type=repo_type, revision=revision).siblings
            old = superseded([file.rfilename for file in there], files, replaces)
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            operations += [CommitOperationDelete(path) for path in old]
            options = {"repo_type": repo_type, "revision": revision, "create_pr": create_pr}
            return api.create_commit(repo_id, operations, commit_message=message, **options)

        done = persist(commit, NOT_DONE if create_pr else ALWAYS)  # of a second pull request no one would know
    except UPLOAD_ERRORS as error:
        raise OSError(f"{repo_id} was not pushed: {reason(error)}") from error
    if done.oid == before.sha:
        report(f"nothing new: {done.repo_url} holds all {len(files)} files already")
    else:
        report(f"{len(files)} files, {size(files) / 1e6:,.1f} MB: {done.pr_url or done.commit_url}")
    return done


def check_may_push(repo_id: str, repo_type: str = "model", private: bool | None = None) -> None:
    """
    Makes a repository if it does not exist, and asks the Hub how a file would have to be sent there, which it tells
    only those who may write.

    Args:
        repo_id (`str`): The repository.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`, *optional*): Whether a repository that is made is private.

    Raises:
        `OSError`: The Hub cannot be reached or refuses, in one line.
    """
    api = HfApi()
    try:
        repo_id = make_repository(api, repo_id, repo_type, private)
        file = CommitOperationAdd("README.md", b"a card")
        persist(lambda: api.preupload_lfs_files(repo_id, [file], repo_type=repo_type))
    except UPLOAD_ERRORS as error:
        raise OSError(f"{repo_id} cannot be pushed to: {reason(error)}") from error


def create_tag(repo_id: str, tag: str, commit: str) -> None:
    """
    Tags a commit of a model, unless there is such a tag.

    Args:
        repo_id (`str`): The repository.
        tag (`str`): Name of the tag.
        commit (`str`): Hash of the commit.

    Raises:
        `OSError`: The Hub cannot be reached or refuses, in one line.
    """
    try:
        persist(lambda: HfApi().create_tag(repo_id, tag=tag, revision=commit, exist_ok=True))
    except UPLOAD_ERRORS as error:
        raise OSError(f"{repo_id} was pushed, but not tagged {tag}: {reason(error)}; push again") from error


def make_repository(
    api: HfApi, repo_id: str, repo_type: str, private: bool | None, space_sdk: str | None = None
) -> str:
    """Makes a repository unless it exists; returns its whole id. A Hub out of reach is told at once."""
    options = {"repo_type": repo_type, "private": private or None, "space_sdk": space_sdk, "exist_ok": True}
    return persist(lambda: api.create_repo(repo_id, **options), ANSWERED).repo_id


def superseded(there: Iterable[str], files: Mapping[str, Path | bytes], patterns: Iterable[str]) -> list[str]:
    """The files in a repository whose place others take; a pattern is of one folder."""
    return [
        path
        for path in there
        if path not in files
        and any(fnmatch(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)
    ]


def persist(request: Callable[[], Result], after: tuple[int | None, ...] = ALWAYS) -> Result:
    """
    What a request gives, after some tries if there may be hope.

    Args:
        request (`Callable`):
            The request.
        after (`tuple[int | None, ...]`, *optional*):
            The statuses after which it is repeated, `None` for no answer; by default all that may pass.
    """
    for attempt in range(TRIES):
        try:
            return request()
        except HTTPError as error:
            pause = max(FIRST_WAIT * 2**attempt, asked_to_wait(error))
            if status(error) not in after or attempt == TRIES - 1 or pause > LONGEST_WAIT:
                raise
            time.sleep(pause)


def status(error: Exception) -> int | None:
    """The status of an answer that is an error; none if no answer came."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def asked_to_wait(error: Exception) -> float:
    """For how many seconds the Hub asks to wait."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return float(asked) if asked.isdecimal() else 0.0


def reason(error: Exception) -> str:
    """Why an upload failed and what to do, in one line."""
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of a single file
    number = status(cause)
    told = in_one_line(cause) if cause is error else f"{in_one_line(error)} {in_one_line(cause)}"
    if number is None:
        return f"the connection to the Hub failed ({told})" if isinstance(cause, HTTPError) else told
    if number == 401:
        known = "the token is not valid" if get_token() else "no token found"
        return f"{told} ({known}; log in with hf auth login, or set HF_TOKEN to one that may write, {TOKENS})"
    wait = asked_to_wait(cause)
    advice = f"try again in {wait:.0f} seconds" if wait else ADVICE.get(number, "try again later")
    return f"{told} ({advice})" if number in ADVICE or number >= 500 else told


def in_one_line(error: Exception) -> str:
    """What an error says without line breaks, and without address and number of the request."""
    lines = (line.strip() for line in str(error).splitlines())
    advice = ("For more information check", "Cannot access content at", "Make sure your token", "Url:")
    told = " ".join(line for line in lines if line and not line.startswith(advice))
    return re.sub(r" \(Request ID: [^)]*\)| for url:? '?[^' ]*'?", "", told).rstrip(".")


def size(files: Mapping[str, Path | bytes]) -> int:
    """Bytes of all files."""
    return sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())
