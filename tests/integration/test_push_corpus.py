"""A corpus is pushed to the Hub and loaded again, by commands in fresh processes."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.hub_server import Commit, Fault, HubServer, run_python

# Everything that is in a dataset, with its images as they are stored.
PRINT_ROWS = """
import sys
from datasets import Image, load_dataset
for split, rows in load_dataset(sys.argv[1]).items():
    print(split, rows.features)
    print(*rows.cast_column("image", Image(decode=False)), sep="\\n")
"""
NOWHERE = "http://127.0.0.1:9"
PUSH = ("--push_to_hub", "lab/corpus")
REPOSITORY = "datasets/lab/corpus"


def run(endpoint: str, *arguments: object) -> subprocess.CompletedProcess:
    return run_python(endpoint, *arguments, PYTHONHASHSEED="0")  # datasets 4 writes metadata as a set


def build(endpoint: str, source: str, output: Path, *options: object) -> subprocess.CompletedProcess:
    return run(endpoint, "-m", "rsmclip.data", "build", "--source", source, "--output", output, *options)


def rows_of(endpoint: str, dataset: str | Path) -> str:
    done = run(endpoint, "-c", PRINT_ROWS, dataset)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_images(folder: Path, *splits: str) -> str:
    folder.mkdir()
    lines = []
    for number, split in enumerate(splits):
        Image.new("RGB", (5, 5), (number, 0, 0)).save(folder / f"{number}.png")
        line = {"file_name": f"{number}.png", "captions": ["a road .", f"{number} trees ."], "split": split}
        lines.append(json.dumps(line) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return f"imagefolder={folder}"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return write_images(tmp_path_factory.mktemp("source") / "made", "train", "train", "val", "test")


@pytest.fixture(scope="module")
def translations(tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("translations")
    (folder / "captions.jsonl").write_text('{"en": "a road .", "pt": "Uma estrada."}\n')
    return "--translations", folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("built") / "corpus"


@pytest.fixture(scope="module")
def server(tmp_path_factory, source, translations, folder) -> Iterator[HubServer]:
    with HubServer(root=tmp_path_factory.mktemp("hub")) as server:
        done = build(server.endpoint, source, folder, *translations, *PUSH, "--private")
        assert done.returncode == 0, done.stderr
        yield server


@pytest.fixture(scope="module")
def rows(server, folder) -> str:
    return rows_of(NOWHERE, folder)


def test_card_and_shards_are_pushed_as_they_are_in_one_commit(server, folder):
    assert files(server.repositories[REPOSITORY]) == files(folder) and len(files(folder)) == 4
    assert server.private == {REPOSITORY}
    assert [(commit.added, commit.deleted) for commit in server.commits] == [(sorted(files(folder)), [])]


def test_a_pushed_corpus_loads_like_its_folder(server, rows):
    assert rows_of(server.endpoint, "lab/corpus") == rows
    assert rows.count("Uma estrada.") == 4 and rows.count(r"\x89PNG") == 4


def test_a_corpus_is_built_again_from_the_hub(tmp_path, server, translations, rows):
    again = build(server.endpoint, "hub=lab/corpus", tmp_path / "again", *translations)
    assert again.returncode == 0, again.stderr
    assert rows_of(NOWHERE, tmp_path / "again") == rows


def test_a_smaller_corpus_replaces_all_shards(tmp_path, source):
    smaller = write_images(tmp_path / "fewer", "train")
    with HubServer(root=tmp_path / "hub") as server:
        assert build(server.endpoint, source, tmp_path / "large", *PUSH).returncode == 0
        (server.repositories[REPOSITORY] / "NOTES.md").write_text("by hand")
        assert build(server.endpoint, smaller, tmp_path / "small", *PUSH).returncode == 0
        loaded = rows_of(server.endpoint, "lab/corpus")
    assert loaded.count("fewer/0") == 1 and loaded.count("image_id") == 2  # in the features, and in one row
    added, old = files(tmp_path / "small"), ["data/test-00000-of-00001.parquet", "data/val-00000-of-00001.parquet"]
    assert files(server.repositories[REPOSITORY]) == added | {"NOTES.md": b"by hand"}
    assert server.commits[1:] == [Commit(REPOSITORY, server.commits[0].summary, sorted(added), old)]
    assert not server.private


def test_a_refused_push_is_one_line_and_leaves_the_corpus(tmp_path, source, translations, folder, server):
    """The line ends with the command that pushes later. tests/test_push.py has every kind of refusal."""
    faults = [Fault("POST .*/commit/main", 403, message="not yours")]
    with HubServer(root=tmp_path / "hub", faults=faults) as other:
        done = build(other.endpoint, source, tmp_path / "out", *translations, *PUSH)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "lab/corpus" in done.stderr and "403 Forbidden: not yours" in done.stderr
    assert done.stderr.endswith(f"push-dataset {tmp_path / 'out'} lab/corpus\n")
    assert files(tmp_path / "out") == files(folder) and not other.commits
