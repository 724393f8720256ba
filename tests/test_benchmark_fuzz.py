"""The fuzz of the readers: no reader fails on a few inputs, and a reader that fails is found."""

from pathlib import Path

import pytest

from rsmclip.benchmarks.fuzz import Watch, read_in_child, read_inputs
from rsmclip.benchmarks.fuzz_readers import READERS, Reader
from rsmclip.core.errors import UserError


def test_no_reader_fails_on_a_few_inputs():
    results = read_in_child(list(READERS), inputs=12, seed=1)
    assert results.keys() == READERS.keys()
    assert {name: result["examples"] for name, result in results.items() if result["faults"]} == {}
    assert all(result["accepted"] + result["refused"] == 12 for result in results.values())
    assert sum(result["refused"] for result in results.values()) > 60  # so the inputs are damaged


@pytest.fixture(scope="module")
def watch(tmp_path_factory) -> Watch:
    return Watch(tmp_path_factory.mktemp("inside"))


def refuse_in_two_lines(folder: Path) -> None:
    if (folder / "a.json").read_bytes() != b'{"a": 1}':
        raise UserError("one\ntwo")


def read_field(folder: Path) -> None:
    if (folder / "a.json").read_bytes() != b'{"a": 1}':
        raise KeyError("a")


def write_outside(folder: Path) -> None:
    (folder.parent.parent / "outside").write_text("")


def write_inside(folder: Path) -> None:
    (folder.parent / "inside").write_text("")


@pytest.mark.parametrize(
    ("read", "example"),
    [(refuse_in_two_lines, "two"), (read_field, "KeyError"), (write_outside, "outside"), (write_inside, None)],
)
def test_a_fault_of_a_reader_is_found(watch, read, example):
    folder = Path(watch.folder, read.__name__)
    folder.mkdir()
    reader = Reader(lambda folder: (folder / "a.json").write_bytes(b'{"a": 1}'), ("*.json",), read)
    result = read_inputs("test", reader, 20, 0, folder, watch)
    assert (result["faults"] > 0) == (example is not None)
    assert example is None or example in str(result["examples"])
    assert (folder / "a.json").read_bytes() == b'{"a": 1}'
