"""Folders of translations: read, judged, and joined with captions."""

import json
from pathlib import Path

import pytest

from rsmclip.data.sources import SourceError
from rsmclip.data.translation.translations import Translations, load_translations, normalise_caption, read_translations

RIVER = {"en": "a river between trees .", "pt": "Um rio entre árvores.", "de": "Ein Fluss zwischen Bäumen."}


def write_translations(folder: Path, *lines: dict) -> Path:
    folder.mkdir()
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("many planes are parked .", "many planes are parked."),
        ("  a  road\tand\na field , seen from above .", "a road and a field, seen from above."),
        ("a well - built school", "a well - built school"),
        ("about 3.5 m", "about 3.5 m"),
    ],
)
def test_captions_are_normalised(raw, clean):
    assert normalise_caption(raw) == clean


def test_translations_are_found_by_the_normalised_caption():
    translations = Translations({"a road.": {"fr": "Une route : large !"}})
    captions = translations.of(["  a road . ", "a road.", "a field ."], ["fr"])
    assert captions == {
        "en": ["a road.", "a road.", "a field."],
        "fr": ["Une route : large !", "Une route : large !", None],
    }


def test_translations_of_all_files_are_joined(tmp_path):
    folder = write_translations(tmp_path / "t", {"en": " a road . ", "pt": "Uma estrada.", "es": None, "zh": " "})
    # French has a space before a colon; only white space is folded there.
    (folder / "more.jsonl").write_text('{"en": "a road .", "fr": "Une route :  large !"}\n')
    assert read_translations(folder, "*.jsonl") == {"a road.": {"pt": "Uma estrada.", "fr": "Une route : large !"}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"pt": "Uma estrada."}, "line 2: no English caption"),
        ({"en": " ", "pt": "Uma estrada."}, "line 2: no English caption"),
        ({"en": "a road .", "xx": "?"}, "line 2: unknown language code 'xx'"),
        ({"en": "a road .", "pt": ["Uma estrada."]}, "line 2: 'pt' is not a string"),
        ({"en": 3, "pt": "Uma estrada."}, "line 2: 'en' is not a string"),
    ],
)
def test_a_wrong_line_of_translations_is_named(tmp_path, line, message):
    with pytest.raises(SourceError, match=message):
        read_translations(write_translations(tmp_path / "t", {"en": "a field .", "pt": "Um campo."}, line), "*.jsonl")


def test_a_folder_without_translations_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"no \*.jsonl"):
        read_translations(tmp_path, "*.jsonl")


def test_ready_translations_are_judged(tmp_path):
    spoilt = {"en": "many planes .", "pt": "many planes.", "de": "Sure! Viele Flugzeuge."}
    translations = load_translations(write_translations(tmp_path / "t", RIVER, spoilt))
    assert translations.captions == {"a river between trees.": {"pt": RIVER["pt"], "de": RIVER["de"]}}
    assert translations.counts == {
        "pt": {"accepted": 1, "untranslated copy": 1},
        "de": {"accepted": 1, "chat residue": 1},
    }
    assert translations.languages == ["pt", "de"] and translations.model is None


def test_what_the_translate_command_judged_is_not_judged_again(tmp_path):
    folder = write_translations(tmp_path / "t", {"en": "many planes .", "pt": "many planes."})
    facts = {
        "model": "someone/translator",
        "revision": "abc",
        "prompt": "0",
        "counts": {"pt": {"accepted": 1, "empty": 2}},
    }
    (folder / "translation.json").write_text(json.dumps(facts))
    translations = load_translations(folder)
    assert translations.captions == {"many planes.": {"pt": "many planes."}}
    assert (translations.counts, translations.model) == (facts["counts"], "someone/translator")


def test_lines_put_beside_what_was_judged_are_not_read(tmp_path):
    folder = write_translations(tmp_path / "t", RIVER)
    facts = {"model": "translator", "revision": "abc", "prompt": "0", "counts": {"pt": {"accepted": 1}}}
    (folder / "translation.json").write_text(json.dumps(facts))
    (folder / "more.jsonl").write_text('{"en": "a road .", "pt": "Sure! a road"}\n')
    assert list(load_translations(folder).captions) == ["a river between trees."]


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model": "m"}', '{"model": 1, "revision": "", "prompt": "", "counts": {}}']
)
def test_a_damaged_record_is_told(tmp_path, text):
    folder = write_translations(tmp_path / "t", RIVER)
    (folder / "translation.json").write_text(text)
    with pytest.raises(SourceError, match=r"translation.json is damaged .*: delete it and run translate again"):
        load_translations(folder)
