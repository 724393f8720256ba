"""Pushes a corpus to the Hub."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
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
    # Not all are errors of HTTP: no upload of a file is a RuntimeError, an answer that is no JSON a ValueError.
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise OSError(f"{repo_id} was built but not pushed: {in_one_line(error)}") from error


def in_one_line(error: Exception) -> str:
    """What an error says without line breaks, and why, should it only tell which file could not be uploaded."""
    causes = [error, error.__cause__] if isinstance(error, RuntimeError) and error.__cause__ else [error]
    lines = (line.strip() for cause in causes for line in str(cause).splitlines())
    told = " ".join(line for line in lines if line and not line.startswith("For more information check"))
    return told if get_token() else f"{told} (no token found; hf auth login stores one)"
