"""Folders of translations: reading, judging, joining with captions."""

import json
from pathlib import Path

import pytest

from rsmclip.core.errors import UserError
from rsmclip.data.translation.translations import Translations, load_translations, normalize_caption, read_translations

RIVER = {"en": "a river between trees .", "pt": "Um rio entre árvores.", "de": "Ein Fluss zwischen Bäumen."}


def write_translations(folder: Path, *lines: dict) -> Path:
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("many planes are parked .", "many planes are parked."),
        ("  a  road\tand\na field , seen from above .", "a road and a field, seen from above."),
        ("a well - built school", "a well - built school"),
    ],
)
def test_captions_are_normalized(raw, clean):
    assert normalize_caption(raw) == clean


def test_translations_are_found_by_the_normalized_caption():
    translations = Translations({"a road.": {"fr": "Une route : large !"}})
    captions = translations.aligned(["  a road . ", "a road.", "a field ."], ["fr"])
    assert captions == {
        "en": ["a road.", "a road.", "a field."],
        "fr": ["Une route : large !", "Une route : large !", None],
    }


def test_translations_of_all_files_are_joined(tmp_path):
    folder = write_translations(tmp_path / "t", {"en": " a road . ", "pt": "Uma estrada.", "es": None, "zh": " "})
    # French has a space before a colon: in translations white space is only folded.
    (folder / "more.jsonl").write_text('{"en": "a road .", "fr": "Une route :  large !"}\n')
    assert read_translations(folder, "*.jsonl") == {"a road.": {"pt": "Uma estrada.", "fr": "Une route : large !"}}


def test_two_translations_of_one_sentence_are_counted_and_the_last_is_taken(tmp_path, capsys):
    other = RIVER | {"en": "a  river between trees.", "pt": "Um rio.", "fr": "Une rivière."}
    folder = write_translations(tmp_path / "t", RIVER, RIVER, other)
    (folder / "more.jsonl").write_text(json.dumps(RIVER | {"de": "Ein Fluss."}) + "\n")
    [found] = read_translations(folder, "*.jsonl").values()
    assert found == {"pt": RIVER["pt"], "de": "Ein Fluss.", "fr": "Une rivière."}
    [note] = capsys.readouterr().err.splitlines()
    assert note.startswith("note: ") and "3 translations" in note and "captions.jsonl, line 3 (pt)" in note
    read_translations(write_translations(tmp_path / "u", RIVER, RIVER), "*.jsonl")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "culprit"),
    [
        ({"pt": "Uma estrada."}, "en"),
        ({"en": "a road .", "xx": "?"}, "xx"),
        ({"en": "a road .", "pt": ["Uma estrada."]}, "pt"),
        ({"en": 3, "pt": "Uma estrada."}, "en"),
        ({"en": "a road .", "pt": "Uma \ud800"}, "pt"),
        ({"en": "a road \ud800", "pt": "Uma estrada."}, "en"),
    ],
)
def test_a_wrong_line_of_translations_is_named(tmp_path, line, culprit):
    with pytest.raises(UserError, match=f"line 2: .*'{culprit}'"):
        read_translations(write_translations(tmp_path / "t", RIVER, line), "*.jsonl")


def test_a_folder_without_translations_is_refused(tmp_path):
    with pytest.raises(UserError, match=tmp_path.name):
        read_translations(tmp_path, "*.jsonl")


def test_a_file_of_translations_is_refused_beside_its_folder(tmp_path):
    file = write_translations(tmp_path / "t", RIVER) / "captions.jsonl"
    with pytest.raises(UserError, match=f"{file} is a file.*folder"):
        load_translations(file)


def test_ready_translations_are_judged(tmp_path):
    spoiled = {"en": "many planes .", "pt": "many planes.", "de": "Sure! Viele Flugzeuge."}
    translations = load_translations(write_translations(tmp_path / "t", RIVER, spoiled))
    assert translations.captions == {"a river between trees.": {"pt": RIVER["pt"], "de": RIVER["de"]}}
    assert translations.counts == {
        "pt": {"accepted": 1, "untranslated copy": 1},
        "de": {"accepted": 1, "chat residue": 1},
    }
    assert translations.languages == ["pt", "de"] and translations.model is None


def test_translations_of_the_translate_command_are_not_judged_again_and_other_files_are_not_read(tmp_path):
    folder = write_translations(tmp_path / "t", {"en": "many planes .", "pt": "many planes."})
    counts = {"pt": {"accepted": 1, "empty": 2}}
    facts = {"model": "someone/translator", "revision": "abc", "prompt": "0", "counts": counts}
    (folder / "translation.json").write_text(json.dumps(facts))
    (folder / "more.jsonl").write_text('{"en": "a road .", "pt": "Sure! a road"}\n')
    translations = load_translations(folder)
    assert translations.captions == {"many planes.": {"pt": "many planes."}}
    assert (translations.counts, translations.model) == (counts, "someone/translator")


FACTS = {"model": "m", "revision": "", "prompt": ""}


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[" * 100_000, '{"model": "m"}', json.dumps(FACTS | {"model": 1, "counts": {}})),
        *(json.dumps(FACTS | {"counts": counts}) for counts in ([], {"pt": 3}, {"pt": {"accepted": "x"}})),
    ],
)
def test_a_damaged_record_is_named(tmp_path, text):
    folder = write_translations(tmp_path / "t", RIVER)
    (folder / "translation.json").write_text(text)
    with pytest.raises(ValueError, match="translation.json"):
        load_translations(folder)
