"""The benchmark of the translation checks: accepted input, and rejection of spoiled translations."""

import json
import sys
from pathlib import Path

import pytest

from rsmclip.benchmarks import translation_checks
from tests.captions import CAPTIONS


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def measure(folder: Path, lines: list[dict], monkeypatch, *options: str) -> dict:
    write_lines(folder / "captions.jsonl", lines)
    arguments = ["--translations", str(folder), "--output", str(folder / "result.json"), *options]
    monkeypatch.setattr(sys, "argv", ["translation_checks", *arguments])
    translation_checks.main()
    return json.loads((folder / "result.json").read_text())


def test_captions_that_lack_a_language_are_left_out(tmp_path, monkeypatch):
    numbered = list(enumerate(CAPTIONS * 2))[:12]
    lines = [{code: f"{row[code]} {number}" for code in ("en", "pt", "ko")} for number, row in numbered]
    lines[0] |= {"pt": None}
    result = measure(tmp_path, lines, monkeypatch)
    assert {code: found["translations"] for code, found in result["languages"].items()} == {"ko": 11, "pt": 11}
    assert result["found, mean over languages"]["English came back"] == 100.0


@pytest.mark.parametrize("lines", [CAPTIONS[:9], [{"en": row["en"], "pt": row["pt"]} for row in CAPTIONS * 9]])
def test_too_few_captions_or_languages_are_refused(tmp_path, monkeypatch, lines):
    with pytest.raises(SystemExit, match="2"):
        measure(tmp_path, lines, monkeypatch)


def test_wrong_translations_are_counted_by_fault_and_file(tmp_path, monkeypatch):
    (tmp_path / "wrong").mkdir()
    texts = {"copy": ["A road near a house.", "Um rio largo."], "empty": ["\u2026"]}
    wrong = [
        {"language": "pt", "fault": key, "en": "A road near a house.", "text": t} for key in texts for t in texts[key]
    ]
    write_lines(tmp_path / "wrong" / "mine.jsonl", wrong)
    lines = [{code: f"{row[code]} {n}" for code in ("en", "pt", "ko")} for n, row in enumerate(CAPTIONS * 2)]
    result = measure(tmp_path, lines, monkeypatch, "--wrong", str(tmp_path / "wrong"))
    found = {"copy": "1 of 2", "empty": "1 of 1", "all": "2 of 3"}
    assert result["wrong translations found"] == {"mine": found}
