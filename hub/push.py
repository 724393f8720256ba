"""Pushes a model folder to the Hub: what belongs there and nothing else, card and weights in one commit.

A run's folder also holds checkpoints with the optimiser's state, pickled, and what trackers write. So the files that
go up are those that `PUBLISHED` names, weights only as safetensors, and texts with a token or a path of this machine
are refused. The card's `USER/NAME` and `REVISION` become the repository and a tag named after the content, so that the
remote code that its examples run is pinned; the local card stays as it is.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import CommitInfo, get_token
from safetensors import SafetensorError, safe_open

from rsmclip.core.files import is_local, read_json
from rsmclip.core.uploads import create_tag, push_files
from rsmclip.models.folder import LOCAL, PUBLISHED, WEIGHTS, check_model_type

CARD = "README.md"
TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,}|glpat-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|xox[abprs]-[\w-]{10,}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|npm_[A-Za-z0-9]{36}"
    r"|pypi-[\w-]{50,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
SHORTEST_TOKEN = 8  # characters; the one in use is searched for as well, unless any text would hold it


def push_model(
    folder: Path,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    report: Callable[[str], object] = print,
) -> CommitInfo:
    """
    Pushes a model folder, or an adapter's, in one commit and tags it. The folder is only read.

    Args:
        folder (`Path`):
            What a training run or a conversion made.
        repo_id (`str`):
            Repository, `"USER/NAME"`; made if it does not exist.
        private (`bool`, *optional*):
            Whether a repository that is made is private.
        revision (`str`, *optional*):
            Branch to commit to, by default `main`; made if it does not exist.
        create_pr (`bool`, *optional*, defaults to `False`):
            Whether to open a pull request instead. What is not merged yet cannot be tagged.
        report (`Callable`, *optional*, defaults to `print`):
            Takes the lines that say what went up and what did not.

    Returns:
        `CommitInfo`: The new commit, or the last one if there was nothing new.

    Raises:
        `ValueError`: The folder is not fit to be published; nothing went up.
        `OSError`: The Hub cannot be reached or refuses, in one line.
    """
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is no repository of a model: give USER/NAME")
    paths = published_files(folder)
    if CARD not in paths:
        raise ValueError(f"{folder} has no {CARD}: a model is published with its card (rsmclip.hub card {folder})")
    if left := left_behind(folder, paths):
        report(f"left behind, being no part of a published model: {', '.join(left)}")
    is_merged = not create_pr and not (revision or "").startswith("refs/pr/")
    tag = content_tag({name: path for name, path in paths.items() if name != CARD})
    card = paths[CARD].read_bytes().replace(b"USER/NAME", repo_id.encode())
    if not is_merged and b"REVISION" in card:
        report('a pull request has no tag: the examples in its card say revision="main"')
    card = re.sub(rb"\bREVISION\b", (tag if is_merged else "main").encode(), card)
    files = paths | {CARD: card}
    check_texts(files, folder)
    options = {"private": private, "revision": revision, "create_pr": create_pr, "replaces": WEIGHTS}
    done = push_files(files, repo_id, **options, message="Upload model", report=report)
    if is_merged:
        create_tag(repo_id, tag, done.oid)
        report(f"revision={tag!r} is this model, whatever comes after it")
    return done


def push_checkpoint(
    folder: Path,
    repo_id: str,
    step: int,
    private: bool | None = None,
    revision: str | None = None,
    report: Callable[[str], object] = print,
) -> CommitInfo:
    """
    Pushes the model as of a step of a run, which has no card yet.

    Args:
        folder (`Path`): The model folder.
        repo_id (`str`): Repository of the run.
        step (`int`): Steps done.
        private (`bool`, *optional*): Whether the repository is made private, should it be gone.
        revision (`str`, *optional*): Branch to commit to, by default `main`; made if it does not exist.
        report (`Callable`, *optional*, defaults to `print`): Takes the line that says what went up.

    Raises:
        `ValueError`: The folder is not fit to be published.
        `OSError`: The Hub cannot be reached or refuses.
    """
    files = {name: path for name, path in published_files(folder).items() if name != CARD}  # peft writes one
    check_texts(files, folder)
    message = f"Model after {step} steps"
    options = {"private": private, "revision": revision, "replaces": WEIGHTS, "report": report}
    return push_files(files, repo_id, message=message, **options)


def published_files(folder: Path) -> dict[str, Path]:
    """
    The files of a model folder that go up, by their names in the repository.

    Args:
        folder (`Path`): The folder.

    Raises:
        `ValueError`: It holds no model that others could load.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    is_whole = (folder / "config.json").is_file()
    if not is_whole and not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} is no model folder: it has neither config.json nor adapter_config.json")
    check_weights(folder)
    (check_model_type if is_whole else check_base)(folder)
    found = sorted(path for pattern in PUBLISHED for path in folder.glob(pattern) if path.is_file())
    names = (path.relative_to(folder) for path in dict.fromkeys(found))
    return {name.as_posix(): folder / name for name in names if name.parts[0] not in LOCAL}


def check_base(folder: Path) -> None:
    """An adapter is of use to those who can load the model that it adapts."""
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base or is_local(base):
        raise ValueError(
            f"{folder} holds an adapter to {base or 'an unnamed model'}, which only this machine has: push that one "
            "and name its repository in adapter_config.json, or train with --merge_adapter true"
        )


def check_weights(folder: Path) -> None:
    """The weights are all there, and what their names say they are."""
    weights = list(folder.glob("*.safetensors"))
    if not weights:
        graphs = "; graphs of export-onnx are for a server of one's own" if any(folder.glob("*.onnx")) else ""
        raise ValueError(f"{folder} holds no weights as safetensors, and no others are pushed{graphs}")
    for index in folder.glob("*.safetensors.index.json"):
        if missing := set(read_json(index).get("weight_map", {}).values()) - {path.name for path in weights}:
            raise ValueError(f"{index} names {min(missing)}, which is not there")
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} holds no safetensors: {error}") from error


def left_behind(folder: Path, files: Mapping[str, Path]) -> list[str]:
    """What stays on this machine though it is not known to; of a folder of which nothing goes up, its name alone."""
    shared = {name.split("/")[0] for name in files if "/" in name}
    paths = [path for entry in folder.iterdir() for path in ([entry] if entry.name not in shared else entry.iterdir())]
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name not in files and name not in LOCAL)


def content_tag(files: Mapping[str, Path]) -> str:
    """A name for what files hold: `v-` and 12 hexadecimal digits of a SHA-256 over their names and SHA-256s."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return f"v-{digest.hexdigest()[:12]}"


def check_texts(files: Mapping[str, Path | bytes], folder: Path) -> None:
    """
    Searches the texts among files for what must not be published.

    Args:
        files (`Mapping[str, Path | bytes]`): What goes up.
        folder (`Path`): Where they lie on this machine.

    Raises:
        `ValueError`: A text holds a token, or a path to the home folder or to `folder`.
    """
    places = {str(place) for place in (Path.home(), folder.absolute(), folder.resolve()) if place != Path("/")}
    of_this_machine = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, places))})(?![\w.-])")
    token = get_token() or ""
    for name, content in files.items():
        if name.endswith(".safetensors"):
            continue
        data = content if isinstance(content, bytes) else content.read_bytes()
        text = data.decode("utf-8", errors="ignore")  # a picture may hold texts too
        if found := TOKENS.search(text):
            raise ValueError(f"{name} holds what looks like a token ({found[0][:6]}…): nothing was pushed")
        if len(token) >= SHORTEST_TOKEN and token in text:
            raise ValueError(f"{name} holds the token that this machine logs in with: nothing was pushed")
        # A tokenizer's pieces are of captions, and "/root" may be one.
        if name != "tokenizer.json" and (found := of_this_machine.search(text)):
            raise ValueError(f"{name} names a place on this machine, {found[0]}: nothing was pushed")
