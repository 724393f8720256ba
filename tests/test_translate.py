"""Translating a corpus: every sentence once, resumable, checked, with the reasons for what was rejected."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Features

from rsmclip.data.schema import SchemaError, features
from rsmclip.data.sources import SourceError
from rsmclip.data.translation import translate
from rsmclip.data.translation.engines import Engine, open_engine
from rsmclip.data.translation.translate import (
    GREEDY,
    SAMPLED,
    Batch,
    Journal,
    cost,
    distinct_sentences,
    make_batches,
    translate_corpus,
)
from rsmclip.data.translation.translations import load_translations
from tests.captions import CAPTIONS
from tests.translators import make_chat_model

ENGLISH = [row["en"] for row in CAPTIONS]
RIGHT = {row["en"]: row["pt"] for row in CAPTIONS}


def make_corpus(*captions: list[str]) -> DatasetDict:
    """A corpus in English with these captions, half of its rows in test."""
    columns = {name: [None] * len(captions) for name in ("image", "source", "label")}
    columns |= {"image_id": [str(n) for n in range(len(captions))], "captions": [{"en": texts} for texts in captions]}
    rows = Dataset.from_dict(columns, features=Features(features(["en"])))
    half = len(captions) // 2
    return DatasetDict(train=rows.select(range(half)), test=rows.select(range(half, len(captions))))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A chat model that knows the captions in Portuguese by heart, but gives the last one back in English."""
    lessons = [(text, "pt", RIGHT[text]) for text in ENGLISH[:-1]] + [(ENGLISH[-1], "pt", ENGLISH[-1])]
    return make_chat_model(tmp_path_factory.mktemp("models") / "translator", lessons)


@pytest.fixture
def engine(model) -> Engine:
    return open_engine("transformers", str(model))


@pytest.fixture
def corpus() -> DatasetDict:
    return make_corpus(ENGLISH[:3], [*ENGLISH[2:5], ENGLISH[0]], ENGLISH[5:], ["."])


def asked_for(engine: Engine, monkeypatch) -> list[tuple]:
    """Records what the engine is asked for."""
    calls: list[tuple] = []
    translate = engine.translate

    def recorded(sentences, language, seed=None):
        calls.extend((sentence, language, seed is not None) for sentence in sentences)
        return translate(sentences, language, seed)

    monkeypatch.setattr(engine, "translate", recorded)
    return calls


def outcome(folder: Path) -> dict[str, bytes]:
    """All that a translation leaves but its journal."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "journal")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_sentences_are_counted_once_and_those_without_letters_not_at_all(corpus):
    counts = distinct_sentences(corpus)
    assert set(counts) == set(ENGLISH) and counts[ENGLISH[0]] == 2 and counts[ENGLISH[1]] == 1


def test_batches_hold_sentences_of_similar_length(corpus):
    batches = make_batches(ENGLISH, "pt", GREEDY, 3)
    lengths = [[len(text) for text in batch.sentences] for batch in batches]
    assert [length for batch in lengths for length in batch] == sorted(map(len, ENGLISH), reverse=True)
    assert [len(batch) for batch in lengths] == [3, 3, 2]


def test_seeds_depend_on_nothing_but_the_sentences():
    batch = Batch("pt", SAMPLED, ("A.", "B."))
    assert batch.seed == Batch("pt", SAMPLED, ("A.", "B.")).seed
    assert len({batch.seed, Batch("es", SAMPLED, ("A.", "B.")).seed, Batch("pt", SAMPLED, ("B.", "A.")).seed}) == 3
    assert Batch("pt", GREEDY, ("A.",)).seed is None


def test_every_sentence_is_translated_once_and_a_rejected_one_sampled_once_more(corpus, engine, tmp_path, monkeypatch):
    calls = asked_for(engine, monkeypatch)
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    assert sorted(calls) == sorted([(text, "pt", False) for text in ENGLISH] + [(ENGLISH[-1], "pt", True)])

    lines = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text("utf-8").splitlines()]
    expected = [{"en": text, "pt": RIGHT[text] if text != ENGLISH[-1] else None} for text in sorted(ENGLISH)]
    assert lines == expected
    (rejected,) = (tmp_path / "out" / "rejected" / "pt.jsonl").read_text("utf-8").splitlines()
    assert json.loads(rejected) == {"en": ENGLISH[-1], "pt": ENGLISH[-1], "reason": "untranslated copy"}
    facts = json.loads((tmp_path / "out" / "translation.json").read_text("utf-8"))
    assert facts["counts"] == {"pt": {"accepted": len(ENGLISH) - 1, "untranslated copy": 1}}
    assert (
        facts["model"] == "translator" and facts["revision"] == engine.revision and "Portuguese" in facts["question"]
    )


def test_the_report_is_for_a_person_to_read(corpus, engine, tmp_path):
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    report = (tmp_path / "out" / "reports" / "pt.md").read_text("utf-8")
    assert "| pt | 8 | 7 | 87.5 | 1 |" in report and "untranslated copy" in report
    assert report.count(RIGHT[ENGLISH[0]]) == 2  # among the worst and among those at random, for there are only seven
    assert f"| {ENGLISH[-1]} | {ENGLISH[-1]} | untranslated copy |" in report


def test_what_is_accepted_joins_the_corpus_and_the_record_tells_who_translated(corpus, engine, tmp_path):
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    translations = load_translations(tmp_path / "out")
    assert translations.of([ENGLISH[0], ENGLISH[-1]], ["pt"])["pt"] == [RIGHT[ENGLISH[0]], None]
    assert (translations.model, translations.revision) == ("translator", engine.revision)


@pytest.mark.parametrize(("killed_at", "missing"), [(0, 9), (1, 6), (2, 3), (3, 1)])
def test_a_killed_run_goes_on_and_the_outcome_is_the_same(corpus, engine, tmp_path, monkeypatch, killed_at, missing):
    translate_corpus(corpus, ["pt"], engine, tmp_path / "whole", 3)
    append, written = Journal.append, []

    def append_until_killed(journal, batch, translations):
        if len(written) == killed_at:
            journal.file.write('{"model": "translator", "transl')  # torn, as a kill in the middle of a write leaves it
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


def test_a_second_run_does_nothing_and_changes_nothing(corpus, engine, tmp_path, monkeypatch):
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    before = outcome(tmp_path / "out")
    calls = asked_for(engine, monkeypatch)
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    assert calls == [] and outcome(tmp_path / "out") == before


def test_more_captions_and_languages_are_added_to_what_is_there(corpus, engine, tmp_path, monkeypatch):
    translate_corpus(make_corpus(ENGLISH[:2], ENGLISH[2:4]), ["pt"], engine, tmp_path / "out", 3)
    calls = asked_for(engine, monkeypatch)
    translate_corpus(corpus, ["ko"], engine, tmp_path / "out", 3)
    assert {language for _, language, _ in calls} == {"ko"}
    calls.clear()
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    assert {sentence for sentence, _, sampled in calls if not sampled} == set(ENGLISH[4:])
    facts = json.loads((tmp_path / "out" / "translation.json").read_text("utf-8"))
    assert list(facts["counts"]) == ["pt", "ko"] and facts["counts"]["pt"]["accepted"] == len(ENGLISH) - 1


def test_the_same_sentence_done_by_two_runs_at_once_counts_once(corpus, engine, tmp_path):
    first, second = Journal(tmp_path, engine), Journal(tmp_path, engine)
    batch = Batch("pt", GREEDY, ("A.",))
    first.append(batch, ["b"])
    second.append(batch, ["a"])
    assert len(list(tmp_path.iterdir())) == 2
    assert first.read() == second.read() == {("pt", GREEDY): {"A.": "a"}}


def test_a_journal_knows_whose_translations_it_holds(engine, tmp_path):
    Journal(tmp_path, engine).append(Batch("pt", GREEDY, ("A.",)), ["a"])
    engine.revision = "another"
    assert Journal(tmp_path, engine).read() == {}


@pytest.mark.parametrize(
    "change", ["{", "{}", "[]", "5", {"translations": 5}, {"translations": {"a": None}}, {"attempt": 2},
               {"language": 5}, {"model": None}, {"revision": None}, {"prompt": None}]
)  # fmt: skip
def test_a_damaged_line_within_a_journal_is_told(engine, tmp_path, change):
    line = {**Journal(tmp_path, engine).key, "language": "pt", "attempt": 0, "translations": {"A.": "a"}}
    (tmp_path / "x.jsonl").write_text(f"{change if isinstance(change, str) else json.dumps(line | change)}\n")
    with pytest.raises(SourceError, match=r"x.jsonl, line 1 is damaged .* delete it"):
        Journal(tmp_path, engine).read()


def test_translations_of_another_model_are_not_mixed_in(corpus, engine, tmp_path):
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    engine.revision = "another"
    with pytest.raises(SourceError, match="holds translations by translator, .*: choose another"):
        translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)


def test_ready_translations_and_files_are_not_written_over(corpus, engine, tmp_path):
    (tmp_path / "captions.jsonl").write_text("{}\n")
    with pytest.raises(SourceError, match="not made by this command"):
        translate_corpus(corpus, ["pt"], engine, tmp_path, 3)
    with pytest.raises(SourceError, match="is a file"):
        translate_corpus(corpus, ["pt"], engine, tmp_path / "captions.jsonl", 3)
    with pytest.raises(SourceError, match="no captions in English"):
        translate_corpus(make_corpus(["."], ["1."]), ["pt"], engine, tmp_path / "out", 3)


def test_the_cost_is_told_before(corpus, engine):
    told = cost(distinct_sentences(corpus), ["pt", "ko"], engine)
    assert told.startswith("10 captions are 8 distinct sentences; into 2 languages: 16 translations, about ")
    tokens = sum(len(engine.tokenizer(text).input_ids) for text in ENGLISH)
    read = sum(len(engine.tokenizer(engine.prompt(text, code)).input_ids) for text in ENGLISH for code in ("pt", "ko"))
    estimate = [int(word.replace(",", "")) for word in told.split("about ")[1].split() if word[0].isdigit()]
    assert abs(estimate[0] - read) < 0.05 * read and estimate[1] == 4 * tokens


def test_a_run_of_another_language_that_writes_meanwhile_is_not_lost(corpus, engine, tmp_path, monkeypatch):
    output = tmp_path / "out"
    write, written = translate.write_outcome, []

    def write_after_another(*arguments):
        if not written:  # the other run begins and ends between this run's last batch and its outcome
            written.append(True)
            monkeypatch.setattr(translate, "FileLock", lambda path: nullcontext())  # held by this very process
            translate_corpus(corpus, ["ko"], engine, output, 3)
        write(*arguments)

    monkeypatch.setattr(translate, "write_outcome", write_after_another)
    translate_corpus(corpus, ["pt"], engine, output, 3)
    facts = json.loads((output / "translation.json").read_text("utf-8"))
    assert list(facts["counts"]) == ["pt", "ko"] and sum(facts["counts"]["ko"].values()) == len(ENGLISH)


def test_what_another_run_has_not_come_to_yet_is_neither_accepted_nor_rejected(corpus, engine, tmp_path):
    journal = Journal(tmp_path / "out" / "journal", engine)
    journal.append(Batch("de", GREEDY, (ENGLISH[0], ENGLISH[1])), [CAPTIONS[0]["de"], ENGLISH[1]])
    translate_corpus(corpus, ["pt"], engine, tmp_path / "out", 3)
    facts = json.loads((tmp_path / "out" / "translation.json").read_text("utf-8"))
    assert facts["counts"]["de"] == {"accepted": 1, "not translated yet": len(ENGLISH) - 1}
    assert (tmp_path / "out" / "rejected" / "de.jsonl").read_text() == ""
    assert "| de | 8 | 1 | 12.5 | 7 |" in (tmp_path / "out" / "reports" / "de.md").read_text("utf-8")


def test_an_empty_translation_gives_way_to_another(engine, tmp_path):
    for text in ("", "b", ""):
        Journal(tmp_path, engine).append(Batch("pt", GREEDY, ("A.",)), [text])
    assert Journal(tmp_path, engine).read() == {("pt", GREEDY): {"A.": "b"}}


def test_captions_that_are_null_are_no_sentences(engine):
    rows = make_corpus(["A road."], ["A field."])
    rows["train"] = Dataset.from_list(
        [*rows["train"], rows["train"][0] | {"captions": {"en": None}}], rows["train"].features
    )
    assert set(distinct_sentences(rows)) == {"A road.", "A field."}
    with pytest.raises(SchemaError, match="no column 'captions'"):
        distinct_sentences(DatasetDict(train=rows["train"].remove_columns("captions")))
