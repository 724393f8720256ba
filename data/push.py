"""Push the card and the shards of a corpus to the Hub, without other files of its folder."""

from pathlib import Path

from huggingface_hub import CommitInfo

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import check_links, recover
from rsmclip.core.tokens import find_token
from rsmclip.core.uploads import COPY, push_files

SHARDS = "data/*.parquet"


def push_corpus(
    folder: Path, repo_id: str, private: bool | None = None, revision: str | None = None, create_pr: bool = False
) -> CommitInfo:
    """
    Push a corpus, the output of `rsmclip data build`, and delete the shards of an earlier corpus in the repository.

    The other arguments are those of [`~rsmclip.core.uploads.push_files`].

    Raises:
        [`UserError`]: The folder is not a corpus, or has a token or a link to another place; or the Hub cannot be
            reached or refuses.
    """
    recover(folder)
    paths = [folder / "README.md", *sorted(folder.glob(SHARDS))]
    if not paths[0].is_file() or len(paths) == 1:
        raise UserError(f"{folder} is not a corpus: README.md or {SHARDS} is missing; rsmclip data build writes both")
    check_links(paths, folder, COPY)
    with user_errors(OSError):
        card = paths[0].read_text(encoding="utf-8", errors="ignore")
    if found := find_token("\n".join((card, *(path.name for path in paths)))):
        raise UserError(f"{paths[0]}, or the name of a shard, contains what looks like a token ({found})")
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    options = {"repo_type": "dataset", "private": private, "revision": revision, "create_pr": create_pr}
    return push_files(files, repo_id, **options, message="Upload corpus", replaces=[SHARDS])
