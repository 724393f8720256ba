"""Folders that are complete or absent, also after a kill at any moment."""

import errno
from pathlib import Path

import pytest

from rsmclip.core.errors import UserError
from rsmclip.core.files import new_folder, recover
from tests.killed import is_killed

WRITE = """
import sys
from pathlib import Path
from rsmclip.core.files import new_folder
with new_folder(Path(sys.argv[1]), lambda folder: None) as unfinished:
    for name in ("a", "b"):
        (unfinished / name).write_text("new")
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*") if path.is_file()}


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "an old folder"])
def test_a_kill_before_any_rename_leaves_the_old_folder_or_the_new_one(tmp_path, before):
    old = {"a": "old", "c": "old"} if before == "an old folder" else {}
    new, outcomes = {"a": "new", "b": "new"}, []
    for number in range(1, 6):
        place = tmp_path / str(number) / "out [v1]"
        (place if before != "nothing" else place.parent).mkdir(parents=True)
        for name, text in old.items():
            (place / name).write_text(text)
        was_killed = is_killed(WRITE, number, tmp_path, place)
        recover(place)
        outcomes.append(contents(place))
        # The next command that writes the folder deletes what is left.
        with new_folder(place, lambda folder: None) as unfinished:
            (unfinished / "d").write_text("third")
        assert contents(place) == {"d": "third"} and list(place.parent.iterdir()) == [place]
        if not was_killed:
            break
    assert not was_killed and len(outcomes) > 2  # all renames had their turn
    assert all(found in (old, new) for found in outcomes) and outcomes[-1] == outcomes[-2] == new


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    place = tmp_path / "out"
    with new_folder(place) as first:
        (first / "a").write_text("first")
        with new_folder(place) as second:
            (second / "a").write_text("second")
        assert (first / "a").read_text() == "first" and contents(place) == {"a": "second"}
        place.rename(tmp_path / "elsewhere")
    assert contents(place) == {"a": "first"}


def test_a_folder_is_written_on_a_disk_without_locks(tmp_path, monkeypatch):
    def refuse(*_: object):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    for text in ("first", "second"):
        with new_folder(tmp_path / "out", lambda folder: None) as unfinished:
            (unfinished / "a").write_text(text)
    assert contents(tmp_path / "out") == {"a": "second"} and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_another_program_made_meanwhile_is_kept(tmp_path):
    with pytest.raises(UserError, match="out"), new_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["loop", "loop/out", "file/out", "o" * 300, "user/name"])
def test_a_place_that_cannot_have_a_folder_is_nothing_to_recover(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    recover(tmp_path / name)
    with pytest.raises(UserError, match="a.*b"):
        recover(Path("a\0b"))
