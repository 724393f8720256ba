"""The benchmark of the audit: what it refuses before it measures."""

import sys

import pytest

from rsmclip.benchmarks import audit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pairs", "--pictures", "folder"], "pairs needs --pictures and --truth"),
        (["transforms", "--images", "10", "20"], "transforms takes one number of --images"),
        (["transforms"], "pip install imagehash"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(audit, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["audit", arguments[0], "--corpus", "corpus", *arguments[1:]])
    with pytest.raises(SystemExit, match="2"):
        audit.main()
    assert message in capsys.readouterr().err
