"""Uploads to the Hub in one commit. Failed requests are repeated if a second try may help.

`huggingface_hub` repeats only the requests that send large files. This module repeats the requests that make
repositories, branches, tags and commits. It compares with the repository before every try, so that a commit is not
made twice if the answer of the Hub was lost.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # HTTPError: of httpx or requests
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from rsmclip.core.errors import UserError
from rsmclip.core.tokens import hide_tokens

TRIES = 5
FIRST_WAIT = 1.0  # seconds; doubled after every try
LONGEST_WAIT = 60.0  # seconds; if the Hub asks for more, the upload fails
NO_ANSWER = 0  # instead of an HTTP status, if the connection failed
NOT_DONE = (409, 412, 429, 503)  # HTTP statuses: the Hub did nothing; 409 and 412: another commit came first
ANSWERED = (*NOT_DONE, 408, 500, 502, 504)
ALWAYS = (*ANSWERED, NO_ANSWER)
# RuntimeError: the upload of one file failed. ValueError: the answer is not valid JSON, or the card not valid YAML.
UPLOAD_ERRORS = (HTTPError, OSError, RuntimeError, ValueError)
TOKENS = "https://huggingface.co/settings/tokens"
ADVICE = {  # by status
    403: f"the token may not do that; it needs the permission to write to this repository ({TOKENS})",
    404: "there is no such repository or revision, or the token may not see it",
    409: "others committed at the same time; try again",
    412: "others committed at the same time; try again",
    429: "too many requests; try again later",
}
COPY = "put a copy of the file in its place to publish it"  # advice for a link out of a folder
Result = TypeVar("Result")


class HubError(UserError):
    """
    A failed request to the Hub. Retries depend on its status.

    Args:
        failed (`str`): Beginning of the error line, for example `"user/name was not pushed"`.
        error (`Exception`): Exception of `huggingface_hub`.
    """

    def __init__(self, failed: str, error: Exception):
        super().__init__(hide_tokens(f"{failed}: {reason(error)}"))
        self.status, self.wait = status(error), asked_to_wait(error)


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
    Push files to the Hub in one commit. No commit is made if the repository has all files already.

    Args:
        files (`Mapping[str, Path | bytes]`): Local file or content, by path in the repository.
        repo_id (`str`): Repository; created if it does not exist.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`, *optional*): Whether a new repository is private.
        revision (`str`, *optional*): Branch, by default `main`; created from `main` if it does not exist.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request.
        replaces (`Iterable[str]`, *optional*): Patterns such as `"data/*.parquet"`. Files of the repository that match
            a pattern and are not in `files` are deleted.
        report (`Callable`, *optional*, defaults to `print`): Called with lines about the upload and its address.

    Returns:
        `CommitInfo`: The new commit, or the last commit of the repository if nothing is new.

    Raises:
        [`UserError`]: The Hub cannot be reached, or refuses.
    """
    api, failed = HfApi(), f"{repo_id} was not pushed"
    repo_id = make_repository(api, failed, repo_id, repo_type, private, space_sdk)
    place = {"repo_type": repo_type, "revision": revision}
    if revision and not create_pr and not revision.startswith("refs/"):
        branch = {"branch": revision, "repo_type": repo_type, "exist_ok": True}
        repeat(ALWAYS, attempt, failed, api.create_branch, repo_id, **branch)
    before = repeat(ALWAYS, attempt, failed, api.repo_info, repo_id, **place)
    if private and not before.private:
        report(f"{repo_id} exists and is public; --private changes nothing")

    def commit() -> CommitInfo:
        there = [file.rfilename for file in attempt(failed, api.repo_info, repo_id, **place).siblings]
        operations = [attempt(failed, CommitOperationAdd, path, content) for path, content in files.items()]
        operations += [CommitOperationDelete(path) for path in superseded(there, files, replaces)]
        options = place | {"commit_message": message, "create_pr": create_pr}
        return attempt(failed, api.create_commit, repo_id, operations, **options)

    # If the answer to a pull request is lost, a second try could open a second one.
    done = repeat(NOT_DONE if create_pr else ALWAYS, commit)
    if done.oid == before.sha:
        report(f"nothing new: {done.repo_url} has all {len(files)} files already")
    else:
        sizes = (len(file) if isinstance(file, bytes) else file.stat().st_size for file in files.values())
        report(f"{len(files)} files, {sum(sizes) / 1e6:,.1f} MB: {done.pr_url or done.commit_url}")
    return done


def check_may_push(repo_id: str, private: bool | None = None) -> None:
    """
    Check that the token may write to a model repository; create the repository if it does not exist.

    Raises:
        [`UserError`]: The Hub cannot be reached, or refuses.
    """
    api, failed = HfApi(), f"{repo_id} cannot be pushed to"
    repo_id = make_repository(api, failed, repo_id, "model", private)
    # The first request of an upload. The Hub answers it only if the token may write.
    repeat(ALWAYS, attempt, failed, api.preupload_lfs_files, repo_id, [CommitOperationAdd("README.md", b"a card")])


def create_tag(repo_id: str, tag: str, commit: str) -> None:
    """
    Tag a commit (its hash) of a model repository. An existing tag is not moved.

    Raises:
        [`UserError`]: The Hub cannot be reached, or refuses.
    """
    failed = f"{repo_id} was pushed, but has no tag {tag}; push again"
    repeat(ALWAYS, attempt, failed, HfApi().create_tag, repo_id, tag=tag, revision=commit, exist_ok=True)


def make_repository(
    api: HfApi, failed: str, repo_id: str, repo_type: str, private: bool | None, space_sdk: str | None = None
) -> str:
    options = {"repo_type": repo_type, "private": private or None, "space_sdk": space_sdk, "exist_ok": True}
    # This is the first request. If the Hub cannot be reached, fail at once.
    return repeat(ANSWERED, attempt, failed, api.create_repo, repo_id, **options).repo_id


def superseded(there: Iterable[str], files: Mapping[str, Path | bytes], patterns: Iterable[str]) -> list[str]:
    def matches(path: str, pattern: str) -> bool:  # `*` does not match a slash
        return fnmatch(path, pattern) and path.count("/") == pattern.count("/")

    return [path for path in there if path not in files and any(matches(path, pattern) for pattern in patterns)]


def attempt(failed: str, request: Callable[..., Result], *arguments: object, **options: object) -> Result:
    try:
        return request(*arguments, **options)
    except UPLOAD_ERRORS as error:
        raise HubError(failed, error) from error


def repeat(statuses: tuple[int, ...], request: Callable[..., Result], *arguments: object, **options: object) -> Result:
    def may_pass(error: BaseException) -> bool:
        return isinstance(error, HubError) and error.status in statuses and error.wait <= LONGEST_WAIT

    def pause(state: RetryCallState) -> float:
        return max(FIRST_WAIT * 2 ** (state.attempt_number - 1), state.outcome.exception().wait)

    tries = Retrying(retry=retry_if_exception(may_pass), stop=stop_after_attempt(TRIES), wait=pause, reraise=True)
    return tries(request, *arguments, **options)


def status(error: Exception) -> int | None:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    return NO_ANSWER if isinstance(error, HTTPError) else None


def asked_to_wait(error: Exception) -> float:
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return float(asked) if asked.isdecimal() else 0.0


def reason(error: Exception) -> str:
    # `huggingface_hub` raises RuntimeError from the HTTP error if the upload of one file failed.
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    number = status(cause)
    message = in_one_line(cause) if cause is error else f"{in_one_line(error)} {in_one_line(cause)}"
    if number is None:
        return message
    if number == NO_ANSWER:
        return f"the connection to the Hub failed ({message})"
    if number == 401:
        known = "the token is not valid" if get_token() else "no token found"
        return f"{message} ({known}; log in with hf auth login, or set HF_TOKEN to one that may write, {TOKENS})"
    wait = asked_to_wait(cause)
    advice = f"try again in {wait:.0f} seconds" if wait else ADVICE.get(number, "try again later")
    return f"{message} ({advice})" if number in ADVICE or number >= 500 else message


def in_one_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    noise = ("For more information check", "Cannot access content at", "Make sure your token", "Url:")
    message = " ".join(line for line in lines if line and not line.startswith(noise))
    return re.sub(r" \(Request ID: [^)]*\)| for url:? '?[^' ]*'?", "", message).rstrip(".")
