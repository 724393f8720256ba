"""Push a model folder to the Hub: card and weights in one commit, without checkpoints, pickles, tokens or local paths.

Only files that match `PUBLISHED` are uploaded. In the uploaded card, `USER/NAME` becomes the repository and `REVISION`
a tag named after the content, so that the examples pin the remote code that they run. The local folder is not changed.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import check_links, is_local, read_json, recover
from rsmclip.core.tokens import find_token, hide_tokens
from rsmclip.core.uploads import COPY, create_tag, push_files
from rsmclip.models.folder import (
    LOCAL,
    PUBLISHED,
    WEIGHTS,
    check_descriptions,
    check_model_type,
    check_remote_code,
    indexed_files,
)

CARD = "README.md"


def push_model(
    folder: Path, repo_id: str, private: bool | None = None, revision: str | None = None, create_pr: bool = False
) -> None:
    """
    Push the folder of a model or an adapter in one commit, tag the commit, and print what was uploaded.

    Args:
        folder (`Path`): Output of a training run or a conversion.
        repo_id (`str`): Repository, `"USER/NAME"`; created if it does not exist.
        private (`bool`, *optional*): Whether a new repository is private.
        revision (`str`, *optional*): Branch, by default `main`; created if it does not exist.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request, which cannot be tagged.

    Raises:
        [`UserError`]: The folder cannot be published, or the Hub cannot be reached or refuses.
    """
    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} is not a repository of a model: give USER/NAME")
    paths = published_files(folder)
    if CARD not in paths:
        raise UserError(f"{folder} has no {CARD}: write one (rsmclip hub card writes that of a training run)")
    if others := other_files(folder, paths):
        print(f"not uploaded, since they are not part of a published model: {', '.join(others)}")

    # Fill in the card. The card names the tag, so the tag depends on the other files only.
    is_merged = not create_pr and not (revision or "").startswith("refs/pr/")
    tag = content_tag({name: path for name, path in paths.items() if name != CARD})
    with user_errors(OSError):
        card = paths[CARD].read_bytes().replace(b"USER/NAME", repo_id.encode())
    if not is_merged and b"REVISION" in card:
        print('a pull request cannot be tagged: the examples in its card say revision="main"')
    card = re.sub(rb"\bREVISION\b", (tag if is_merged else "main").encode(), card)

    # Check and upload.
    files = paths | {CARD: card}
    check_texts(files, folder)
    options = {"private": private, "revision": revision, "create_pr": create_pr, "replaces": WEIGHTS}
    done = push_files(files, repo_id, **options, message="Upload model")
    if is_merged:
        create_tag(repo_id, tag, done.oid)
        print(f"revision={tag!r} is this model; later pushes do not change it")


def push_checkpoint(folder: Path, repo_id: str, message: str, private: bool | None, revision: str | None) -> None:
    """Push the model folder of a checkpoint of a run, without a card, while the progress bar of the run is shown."""
    files = {name: path for name, path in published_files(folder).items() if name != CARD}  # peft writes a card
    check_texts(files, folder)
    options = {"private": private, "revision": revision, "replaces": WEIGHTS, "message": message}
    push_files(files, repo_id, **options, report=tqdm.write)


def published_files(folder: Path) -> dict[str, Path]:
    recover(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    is_whole = (folder / "config.json").is_file()
    if not is_whole and not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is not a model folder: it has neither config.json nor adapter_config.json")
    check_weights(folder)
    if is_whole:
        check_model_type(folder)
    else:
        check_descriptions(folder)
        check_remote_code(folder)  # of the processor
        check_base(folder)
    found = sorted(path for pattern in PUBLISHED for path in folder.glob(pattern) if path.is_file())
    names = (path.relative_to(folder) for path in dict.fromkeys(found))
    files = {name.as_posix(): folder / name for name in names if name.parts[0] not in LOCAL}
    check_links(files.values(), folder, COPY)
    return files


def check_base(folder: Path) -> None:
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base or is_local(base):
        raise UserError(
            f"{folder} is an adapter to {base or 'an unnamed model'}, which only this machine has: push that model "
            "and name its repository in adapter_config.json, or train with --merge_adapter true"
        )


def check_weights(folder: Path) -> None:
    names = {path.name for path in folder.glob("*.safetensors")}
    if not names:
        graphs = "; graphs of export-onnx are not pushed" if any(folder.glob("*.onnx")) else ""
        raise UserError(f"{folder} has no weights in safetensors files, the only ones that are pushed{graphs}")
    for index in folder.glob("*.safetensors.index.json"):
        if missing := set(indexed_files(index)) - names:
            raise UserError(f"{index} names {min(missing)}, which does not exist")
    for path in folder.glob("*.safetensors"):
        prefix = f"{path} is not a complete safetensors file"
        with user_errors(OSError, SafetensorError, prefix=prefix), safe_open(path, framework="pt"):
            pass


def other_files(folder: Path, files: Mapping[str, Path]) -> list[str]:
    # A sub-folder with published files is listed file by file, any other sub-folder by its name.
    shared = {name.split("/")[0] for name in files if "/" in name}
    paths = [path for entry in folder.iterdir() for path in ([entry] if entry.name not in shared else entry.iterdir())]
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name not in files and name not in LOCAL)


def content_tag(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        with user_errors(OSError), path.open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return f"v-{digest.hexdigest()[:12]}"


def check_texts(files: Mapping[str, Path | bytes], folder: Path) -> None:
    places = {str(place) for place in (Path.home(), folder.absolute(), folder.resolve()) if place != Path("/")}
    local_path = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, places))})(?![\w.-])")
    for name, content in files.items():
        text = f"{name}\n{published_text(name, content)}"
        if found := find_token(text):
            raise UserError(f"{hide_tokens(name)} contains what looks like a token ({found}): nothing was pushed")
        # The vocabulary of a tokenizer comes from captions and may contain "/root".
        if name != "tokenizer.json" and (found := local_path.search(text)):
            raise UserError(f"{name} contains a path of this machine, {found[0]}: nothing was pushed")


def published_text(name: str, content: Path | bytes) -> str:
    # A picture may contain texts too. Of weights, only the header is text: names of tensors, and any metadata.
    with user_errors(OSError):
        if isinstance(content, bytes):
            data = content
        elif name.endswith(".safetensors"):
            with content.open("rb") as file:
                data = file.read(int.from_bytes(file.read(8), "little"))
        else:
            data = content.read_bytes()
    return data.decode("utf-8", errors="ignore")
