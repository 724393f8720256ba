"""Pushing a corpus to the Hub."""

import pytest
from huggingface_hub import HfApi

from rsmclip.data import push
from rsmclip.data.push import push_corpus


def test_a_corpus_is_pushed_as_it_is_and_replaces_older_shards(tmp_path, monkeypatch):
    calls = []

    class Repo:
        repo_id = "someone/corpus"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: calls.append(repo_id) or Repo)
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **kwargs: calls.append(kwargs))
    push_corpus(tmp_path, "corpus")
    assert calls[0] == "corpus"
    assert calls[1]["repo_id"] == "someone/corpus" and calls[1]["folder_path"] == tmp_path
    assert calls[1]["repo_type"] == "dataset" and calls[1]["delete_patterns"] == "data/*.parquet"


def test_a_hub_out_of_reach_is_told(tmp_path, monkeypatch):
    def create_repo(self, *arguments, **kwargs):
        raise push.HTTPError("Connection refused")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    with pytest.raises(OSError, match="someone/corpus was built but not pushed: Connection refused"):
        push_corpus(tmp_path, "someone/corpus")
