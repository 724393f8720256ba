"""Translation of a corpus: every sentence once, resumable, checked, with reasons for rejections."""

import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from datasets import Dataset, DatasetDict, Features

from rsmclip.core.errors import UserError
from rsmclip.data.schema import features
from rsmclip.data.translation import translate
from rsmclip.data.translation.engines import Engine, open_engine
from rsmclip.data.translation.translate import GREEDY, Batch, Journal, distinct_sentences, translate_corpus
from rsmclip.data.translation.translations import load_translations
from tests.captions import CAPTIONS
from tests.translators import make_chat_model

ENGLISH = [row["en"] for row in CAPTIONS]
RIGHT = {row["en"]: row["pt"] for row in CAPTIONS}


def make_corpus(*captions: list[str]) -> DatasetDict:
    columns = {name: [None] * len(captions) for name in ("image", "source", "label")}
    columns |= {"image_id": [str(n) for n in range(len(captions))], "captions": [{"en": texts} for texts in captions]}
    rows = Dataset.from_dict(columns, features=Features(features(["en"])))
    half = len(captions) // 2
    return DatasetDict(train=rows.select(range(half)), test=rows.select(range(half, len(captions))))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A chat model that memorized the captions in Portuguese, but answers the last one in English."""
    lessons = [(text, "pt", RIGHT[text]) for text in ENGLISH[:-1]] + [(ENGLISH[-1], "pt", ENGLISH[-1])]
    return make_chat_model(tmp_path_factory.mktemp("models") / "translator", lessons)


@pytest.fixture
def engine(model) -> Engine:
    return open_engine("transformers", str(model))


@pytest.fixture
def corpus() -> DatasetDict:
    return make_corpus(ENGLISH[:3], [*ENGLISH[2:5], ENGLISH[0]], ENGLISH[5:], ["."])


def asked_for(engine: Engine, monkeypatch) -> list[tuple]:
    """Record sentence, language and whether it was sampled of every translation."""
    calls: list[tuple] = []
    translate = engine.translate

    def recorded(sentences, language, seed=None):
        calls.extend((sentence, language, seed is not None) for sentence in sentences)
        return translate(sentences, language, seed)

    monkeypatch.setattr(engine, "translate", recorded)
    return calls


def outcome(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "journal")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def read_facts(folder: Path) -> dict:
    return json.loads((folder / "translation.json").read_text("utf-8"))


def test_sentences_are_counted_once_and_those_without_letters_not_at_all(corpus):
    counts = distinct_sentences(corpus)
    assert set(counts) == set(ENGLISH) and counts[ENGLISH[0]] == 2 and counts[ENGLISH[1]] == 1


def test_batches_hold_sentences_of_similar_length():
    batches = translate.make_batches(ENGLISH, "pt", GREEDY, 3)
    lengths = [[len(text) for text in batch.sentences] for batch in batches]
    assert [length for batch in lengths for length in batch] == sorted(map(len, ENGLISH), reverse=True)
    assert [len(batch) for batch in lengths] == [3, 3, 2]


def test_every_sentence_is_translated_once_and_a_rejected_one_is_sampled(corpus, engine, tmp_path, monkeypatch):
    calls = asked_for(engine, monkeypatch)
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    assert sorted(calls) == sorted([(text, "pt", False) for text in ENGLISH] + [(ENGLISH[-1], "pt", True)])

    lines = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text("utf-8").splitlines()]
    expected = [{"en": text, "pt": RIGHT[text] if text != ENGLISH[-1] else None} for text in sorted(ENGLISH)]
    assert lines == expected
    (rejected,) = (tmp_path / "out" / "rejected" / "pt.jsonl").read_text("utf-8").splitlines()
    assert json.loads(rejected) == {"en": ENGLISH[-1], "pt": ENGLISH[-1], "reason": "untranslated copy"}

    facts = read_facts(tmp_path / "out")
    assert facts["counts"] == {"pt": {"accepted": len(ENGLISH) - 1, "untranslated copy": 1}}
    assert facts["model"] == "translator" and facts["revision"] == engine.revision
    assert "Portuguese" in facts["question"]
    report = (tmp_path / "out" / "reports" / "pt.md").read_text("utf-8")
    assert "| pt | 8 | 7 | 87.5 | 1 |" in report
    assert report.count(RIGHT[ENGLISH[0]]) == 2  # most doubtful and random examples; all seven are shown
    assert f"| {ENGLISH[-1]} | {ENGLISH[-1]} | untranslated copy |" in report

    translations = load_translations(tmp_path / "out")
    assert translations.aligned([ENGLISH[0], ENGLISH[-1]], ["pt"])["pt"] == [RIGHT[ENGLISH[0]], None]
    assert (translations.model, translations.revision) == ("translator", engine.revision)


@pytest.mark.parametrize(("killed_at", "missing"), [(0, 9), (1, 6), (2, 3), (3, 1)])
def test_a_killed_run_resumes_and_its_outcome_is_equal(corpus, engine, tmp_path, monkeypatch, killed_at, missing):
    translate_corpus(corpus, ["pt"], engine, tmp_path / "whole", 3)
    append, written = Journal.append, []

    def append_until_killed(journal, batch, translations):
        if len(written) == killed_at:
            journal.file.write('{"model": "translator", "transl')  # a kill during a write
            journal.file.close()
            raise KeyboardInterrupt
        written.extend(["batch"])
        append(journal, batch, translations)

    monkeypatch.setattr(Journal, "append", append_until_killed)
    with pytest.raises(KeyboardInterrupt):
        translate_corpus(corpus, ["pt"], engine, tmp_path / "killed", 3)
    assert not (tmp_path / "killed" / "captions.jsonl").exists()
    monkeypatch.setattr(Journal, "append", append)

    calls = asked_for(engine, monkeypatch)
    translate_corpus(corpus, ["pt"], engine, tmp_path / "killed", 3)
    assert len(calls) == missing
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")

    calls.clear()
    translate_corpus(corpus, ["pt"], engine, tmp_path / "killed", 3)
    assert calls == [] and outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_more_captions_and_languages_are_added_to_what_is_there(corpus, engine, tmp_path, monkeypatch):
    translate_corpus(make_corpus(ENGLISH[:2], ENGLISH[2:4]), ["pt"], engine, tmp_path / "out", 3)
    calls = asked_for(engine, monkeypatch)
    translate_corpus(corpus, ["ko"], engine, tmp_path / "out", 3)
    assert {language for _, language, _ in calls} == {"ko"}
    calls.clear()
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    assert {sentence for sentence, _, sampled in calls if not sampled} == set(ENGLISH[4:])
    facts = read_facts(tmp_path / "out")
    assert list(facts["counts"]) == ["pt", "ko"] and facts["counts"]["pt"]["accepted"] == len(ENGLISH) - 1


@pytest.mark.parametrize(("texts", "chosen"), [(["b", "a"], "a"), (["a", "b"], "a"), (["", "b", ""], "b")])
def test_the_chosen_translation_of_a_sentence_does_not_depend_on_the_order(engine, tmp_path, texts, chosen):
    for text in texts:
        Journal(tmp_path, engine).append(Batch("pt", GREEDY, ("A.",)), [text])
    assert len(list(tmp_path.iterdir())) == len(texts)
    assert Journal(tmp_path, engine).read() == {("pt", GREEDY): {"A.": chosen}}


@pytest.mark.parametrize("change", ["{", "[]", {"translations": 5}, {"translations": {"a": None}}, {"attempt": 2}])
def test_a_damaged_line_of_a_journal_is_named(engine, tmp_path, change):
    line = {**Journal(tmp_path, engine).key, "language": "pt", "attempt": 0, "translations": {"A.": "a"}}
    (tmp_path / "x.jsonl").write_text(f"{change if isinstance(change, str) else json.dumps(line | change)}\n")
    with pytest.raises(UserError, match="x.jsonl, line 1"):
        Journal(tmp_path, engine).read()


def test_translations_of_another_model_are_not_mixed_in(corpus, engine, tmp_path):
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    engine.revision = "another"
    assert Journal(tmp_path / "out" / "journal", engine).read() == {}
    with pytest.raises(UserError, match="translator.*--output"):
        translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)


def test_ready_translations_and_files_are_not_written_over(corpus, engine, tmp_path):
    (tmp_path / "captions.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="--output"):
        translate_corpus(corpus, ["pt"], engine, tmp_path, 3)
    with pytest.raises(UserError, match="captions.jsonl"):
        translate_corpus(corpus, ["pt"], engine, tmp_path / "captions.jsonl", 3)
    with pytest.raises(UserError, match="English"):
        translate_corpus(make_corpus(["."], ["1."]), ["pt"], engine, tmp_path / "out", 3)


def test_a_missing_detector_of_languages_is_named_before_a_sentence_is_translated(
    corpus, engine, tmp_path, monkeypatch
):
    calls = asked_for(engine, monkeypatch)
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(UserError, match=r"lingua.*\[translate\]"):
        translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    assert not calls and not (tmp_path / "out").exists()


def test_the_cost_counts_captions_sentences_translations_and_tokens(corpus, engine):
    line = translate.cost(distinct_sentences(corpus), ["pt", "ko"], engine)
    *counts, read, written = [int(word.replace(",", "")) for word in line.split() if word[0].isdigit()]
    assert counts == [10, 8, 2, 16]
    asked = sum(
        len(engine.tokenizer(engine.prompt(text, code)).input_ids) for text in ENGLISH for code in ("pt", "ko")
    )
    assert abs(read - asked) < 0.05 * asked
    assert written == 4 * sum(len(engine.tokenizer(text).input_ids) for text in ENGLISH)


def test_a_run_of_another_language_that_writes_meanwhile_is_not_lost(corpus, engine, tmp_path, monkeypatch):
    output = tmp_path / "out"
    write, written = translate.write_outcome, []

    def write_after_another(*arguments):
        if not written:  # the other run starts and ends between this run's last batch and its outcome
            written.append(True)
            monkeypatch.setattr(translate, "FileLock", MagicMock())  # this process holds the lock
            translate_corpus(corpus, ["ko"], engine, output, 3)
        write(*arguments)

    monkeypatch.setattr(translate, "write_outcome", write_after_another)
    translate_corpus(corpus, ["pt"], engine, output, 3)
    facts = read_facts(output)
    assert list(facts["counts"]) == ["pt", "ko"] and sum(facts["counts"]["ko"].values()) == len(ENGLISH)


def test_sentences_that_another_run_has_not_translated_yet_are_neither_accepted_nor_rejected(corpus, engine, tmp_path):
    journal = Journal(tmp_path / "out" / "journal", engine)
    journal.append(Batch("de", GREEDY, (ENGLISH[0], ENGLISH[1])), [CAPTIONS[0]["de"], ENGLISH[1]])
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    facts = read_facts(tmp_path / "out")
    assert facts["counts"]["de"] == {"accepted": 1, "not translated yet": len(ENGLISH) - 1}
    assert (tmp_path / "out" / "rejected" / "de.jsonl").read_text() == ""
    assert "| de | 8 | 1 | 12.5 | 7 |" in (tmp_path / "out" / "reports" / "de.md").read_text("utf-8")


def test_captions_that_are_null_are_no_sentences():
    rows = make_corpus(["A road."], ["A field."])
    no_captions = rows["train"][0] | {"captions": {"en": None}}
    rows["train"] = Dataset.from_list([*rows["train"], no_captions], rows["train"].features)
    assert set(distinct_sentences(rows)) == {"A road.", "A field."}
