"""Pushes a corpus to the Hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError  # of the HTTP client, which differs between versions of huggingface_hub


def push_corpus(folder: Path, repo_id: str, private: bool = False) -> None:
    """
    Pushes a built corpus to the Hub as it is, and removes the shards of an earlier one from there.

    Args:
        folder (`Path`): What [`build_corpus`] wrote.
        repo_id (`str`): Dataset repository; made if it does not exist.
        private (`bool`, *optional*, defaults to `False`): Make it private, if it is made.

    Raises:
        `OSError`: The Hub cannot be reached or refuses.
    """
    api = HfApi()
    try:
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True).repo_id
        api.upload_folder(folder_path=folder, repo_id=repo_id, repo_type="dataset", delete_patterns="data/*.parquet")
    except HTTPError as error:
        raise OSError(f"{repo_id} was built but not pushed: {error}") from error
