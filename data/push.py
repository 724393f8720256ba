"""Pushes a corpus to the Hub: its card and its shards, and nothing else that may lie beside them."""

from pathlib import Path

from huggingface_hub import CommitInfo

from rsmclip.core.uploads import push_files

SHARDS = "data/*.parquet"


def push_corpus(
    folder: Path, repo_id: str, private: bool | None = None, revision: str | None = None, create_pr: bool = False
) -> CommitInfo:
    """
    Pushes a built corpus to the Hub as it is, and removes the shards of an earlier one from there.

    Args:
        folder (`Path`): What [`build_corpus`] wrote.
        repo_id (`str`): Dataset repository; made if it does not exist.
        private (`bool`, *optional*): Whether a repository that is made is private.
        revision (`str`, *optional*): Branch to commit to, by default `main`; made if it does not exist.
        create_pr (`bool`, *optional*, defaults to `False`): Whether to open a pull request instead.

    Raises:
        `ValueError`: It is no such folder.
        `OSError`: The Hub cannot be reached or refuses.
    """
    paths = [folder / "README.md", *sorted(folder.glob(SHARDS))]
    if not paths[0].is_file() or len(paths) == 1:
        raise ValueError(f"{folder} is no corpus: it needs README.md and {SHARDS}, as rsmclip.data build writes them")
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    options = {"repo_type": "dataset", "private": private, "revision": revision, "create_pr": create_pr}
    return push_files(files, repo_id, **options, message="Upload corpus", replaces=[SHARDS])
