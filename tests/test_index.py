"""Ranking against brute force in float64, and the reading of an index."""

import json

import numpy as np
import pytest

from rsmclip.core.errors import UserError
from rsmclip.eval.image_sources import Picture
from rsmclip.eval.index import FIELDS, BadIndex, Index, nearest, open_index
from rsmclip.eval.index_files import Rows, images_of, read_entry, write_index
from tests.killed import is_killed

NUMBERS = {"tile": None, "stride": None}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def make_index(folder, model):
    """Write an index of five images, the third of them in two tiles."""
    paths = ["a.jpg", "b/c.jpg", "scene.tif", "scene.tif", "ü\udcff\n.png", "z.jpg"]
    entries = [{"path": path, "version": "1"} for path in paths]
    lines = [json.dumps(entry).encode() + b"\n" for entry in entries]
    text = np.frombuffer(b"".join(lines), np.uint8)
    offsets = np.cumsum([0, *map(len, lines)])
    made = Index(folder, {}, unit(np.eye(6, 8) + 0.1), text, offsets)
    first = {"a.jpg": (0, 1), "b/c.jpg": (1, 1), "scene.tif": (2, 2), "ü\udcff\n.png": (4, 1), "z.jpg": (5, 1)}
    starts, counts = np.array(list(first.values())).T
    pictures, rows = [Picture(path, "1") for path in first], Rows([made], np.zeros(5, int), starts, counts)
    write_index(folder, dict.fromkeys(FIELDS, "") | NUMBERS | {"model": model}, pictures, rows)


@pytest.fixture
def index_folder(tmp_path):
    make_index(tmp_path, "a model")
    return tmp_path


@pytest.mark.parametrize("top", [1, 2, 4, 10, 36, 99])
def test_nearest_equals_brute_force_with_ties_in_the_order_of_the_rows(top):
    rng = np.random.default_rng(0)
    embeds = rng.standard_normal((36, 20))
    embeds[[3, 30, 17, 35, 9]] = embeds[12]
    embeds[5:8] = embeds[20]
    queries = unit(np.concatenate([rng.standard_normal((10, 20)), embeds[[12, 20]]]))
    for query in queries:
        expected = (unit(embeds).astype(float) @ query).round(6)
        order = sorted(range(36), key=lambda row: (-expected[row], row))
        rows, cosines = nearest(unit(embeds), query, top)
        assert rows == order[:top]
        np.testing.assert_allclose(cosines, expected[order[:top]], atol=2e-6)
        rest = [row for row in order if row != order[0]]
        assert nearest(unit(embeds), query, top, without=order[0])[0] == rest[:top]


def test_an_only_row_that_is_left_out_leaves_nothing():
    assert nearest(unit(np.ones((1, 4))), unit(np.ones(4)), 5, without=0) == ([], [])


def test_an_index_reads_what_was_written(index_folder):
    index = open_index(index_folder)
    assert len(index) == 6 and index.record["model"] == "a model" and index.record["images"] == 5
    np.testing.assert_array_equal(index.embeds, unit(np.eye(6, 8) + 0.1))
    assert [index.entry(row)["path"] for row in range(6)][2:5] == ["scene.tif", "scene.tif", "ü\udcff\n.png"]


@pytest.mark.parametrize("ending", ["npy", "jsonl", "offsets.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone", "garbage", "empty"])
def test_a_damaged_index_is_one_line(index_folder, ending, damage):
    path = next(path for path in index_folder.iterdir() if path.name.partition(".")[2] == ending)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": path.read_bytes()[:-20], "garbage": b"garbage", "empty": b""}[damage])
    with pytest.raises(BadIndex, match=str(index_folder)):
        open_index(index_folder)


@pytest.mark.parametrize("ending", ["npy", "offsets.npy"])
@pytest.mark.parametrize(("was", "becomes"), [(b")", b"("), (b"(", b"(9" + b"9" * 20), (b"'<", b"'>")])
def test_a_damaged_header_of_an_array_is_one_line(index_folder, ending, was, becomes):
    path = next(path for path in index_folder.iterdir() if path.name.partition(".")[2] == ending)
    length = len(path.read_bytes())
    path.write_bytes(path.read_bytes().replace(was, becomes, 1)[:length])
    with pytest.raises(BadIndex, match=str(index_folder)):
        open_index(index_folder)


@pytest.mark.parametrize(
    "line",
    [
        *('{"path": "a.jpg"', "[]", '{"path": 3}', '{"path": null}', "[" * 100_000, '{"path": "a", "row": "1"}'),
        *(
            '{"path": "a", "box": [1, 2, 3]}',
            '{"path": "a", "box": [1, 2, 3, 1e999]}',
            '{"path": "a", "coordinates": 1}',
        ),
    ],
)
def test_a_damaged_entry_is_one_line(index_folder, line):
    index = open_index(index_folder)
    content = np.frombuffer(line.encode(), np.uint8)
    damaged = Index(index_folder, index.record, index.embeds, content, np.array([0, len(content)]))
    with pytest.raises(BadIndex, match=f"entry 0 of the index {index_folder}"):
        damaged.entry(0)


NOISE = (b"\xff\x00", b"[" * 300, b'{"path": 7}', b'{"path": "a", "version": "1", "box": 3}', b"7", b"null")


@pytest.mark.parametrize("noise", NOISE)
def test_noise_of_the_same_length_in_the_entries_is_one_line(index_folder, noise):
    path = next(index_folder.glob("*.jsonl"))
    first, *others = path.read_bytes().splitlines(keepends=True)
    padded = noise[: len(first)].ljust(len(first) - 1) + b"\n" if len(noise) < len(first) else noise[: len(first)]
    path.write_bytes(padded + b"".join(others))
    index = open_index(index_folder)
    assert index.entry(5)["path"] == "z.jpg"
    for read, error in ((index.entry, BadIndex), (lambda row: read_entry(index, row), UserError)):
        with pytest.raises(error, match=f"entry 0 of the index {index_folder}"):
            read(0)
    with pytest.raises(UserError, match="entry 0"):
        list(images_of(index))


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"files": null}', '{"files": "../x"}', "[" * 100_000])
def test_a_damaged_record_is_one_line(index_folder, content):
    (index_folder / "index.json").write_text(content)
    with pytest.raises(BadIndex, match=str(index_folder)):
        open_index(index_folder)


@pytest.mark.parametrize(
    ("field", "value"), [("source", 5), ("model", None), ("images", "five"), ("tile", "big"), ("files", 5)]
)
def test_a_field_of_another_type_is_named(index_folder, field, value):
    record = json.loads((index_folder / "index.json").read_text()) | {field: value}
    (index_folder / "index.json").write_text(json.dumps(record))
    with pytest.raises(BadIndex, match=field):
        open_index(index_folder)


def test_a_folder_without_a_record_is_not_an_index(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadIndex, match="rsmclip index"):
            open_index(folder)


def test_a_kill_leaves_the_old_index_and_the_next_run_deletes_what_is_left(index_folder):
    code = "import sys, pathlib, tests.test_index as index; index.make_index(pathlib.Path(sys.argv[1]), 'another')"
    assert is_killed(code, 1, index_folder, index_folder)
    assert len(list(index_folder.iterdir())) == 8  # the old files, the new ones, and the record under a hidden name
    index = open_index(index_folder)
    assert index.record["model"] == "a model" and [index.entry(row)["path"] for row in (0, 5)] == ["a.jpg", "z.jpg"]
    make_index(index_folder, "another")
    assert open_index(index_folder).record["model"] == "another" and len(list(index_folder.iterdir())) == 4
