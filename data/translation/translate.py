"""Translates the captions of a corpus by machine: every distinct sentence once for each language, checked, resumable.

Sentences of similar length make a batch. A finished batch is one line of a journal that no other process writes, so
that a run can be killed at any moment and started again, or two can run at once: what is in a journal is not done
again. A translation that is rejected is sampled once more; rejected again, it stays null with the reason kept.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import DatasetDict
from filelock import FileLock
from tqdm.auto import tqdm

from rsmclip.core.files import write_whole
from rsmclip.data.schema import LANGUAGES, check_schema
from rsmclip.data.sources import SourceError
from rsmclip.data.sources.protocol import describe
from rsmclip.data.translation.checks import Judgement, judge
from rsmclip.data.translation.engines import Engine
from rsmclip.data.translation.report import NOT_TRANSLATED, write_report
from rsmclip.data.translation.translations import RECORD, read_record

GREEDY, SAMPLED = 0, 1  # the two attempts at a sentence
BATCH_SIZE = {"transformers": 64, "vllm": 4096}
TOKENS_WRITTEN = 2  # for each token of the English sentence: an assumption, for the estimate only


@dataclass(frozen=True)
class Batch:
    """
    Sentences that are translated together.

    Args:
        language (`str`): Language code.
        attempt (`int`): `GREEDY` or `SAMPLED`.
        sentences (`tuple[str, ...]`): Captions in English.
    """

    language: str
    attempt: int
    sentences: tuple[str, ...]

    @property
    def seed(self) -> int | None:
        """A seed of its own for sampling, the same in whatever order and process the batch is done."""
        if self.attempt == GREEDY:
            return None
        return int(hashlib.sha256("\n".join((self.language, *self.sentences)).encode()).hexdigest()[:8], 16)


def distinct_sentences(corpus: DatasetDict) -> Counter:
    """
    Captions in English of all splits, and how often each stands. Those without a letter (RSICD has a caption " .") are
    left out: there is nothing to translate.

    Raises:
        [`~rsmclip.data.schema.SchemaError`]: A split is not in the project's schema.
    """
    counts: Counter = Counter()
    for split in corpus:
        for row in check_schema(corpus, split, []).select_columns("captions"):
            texts = (row["captions"] or {}).get("en") or ()
            counts.update(text for text in texts if text and any(map(str.isalpha, text)))
    return counts


def make_batches(sentences: Sequence[str], language: str, attempt: int, size: int) -> list[Batch]:
    """Batches of sentences of similar length, the longest first; they depend on nothing that is done already."""
    ordered = sorted(sentences, key=lambda sentence: (-len(sentence), sentence))
    return [Batch(language, attempt, tuple(ordered[start : start + size])) for start in range(0, len(ordered), size)]


class Journal:
    """
    What has been translated into a folder: one line a batch, and a file for each process that wrote.

    Args:
        folder (`Path`): The folder.
        engine ([`~rsmclip.data.translation.engines.Engine`]):
            Model whose translations count: by name, revision and what it is asked for a sentence.
    """

    def __init__(self, folder: Path, engine: Engine):
        self.folder = folder
        question = hashlib.sha256(engine.prompt("{sentence}", "pt").encode()).hexdigest()[:12]
        self.key = {"model": engine.name, "revision": engine.revision, "prompt": question}

    @cached_property
    def file(self) -> TextIO:
        """This process's own file, made when there is something to write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / f"{uuid4().hex}.jsonl").open("x", encoding="utf-8")  # a name nobody else has

    def append(self, batch: Batch, translations: Sequence[str]) -> None:
        """Writes a finished batch so that it is still there after a crash."""
        done = dict(zip(batch.sentences, translations, strict=True))
        line = {**self.key, "language": batch.language, "attempt": batch.attempt, "translations": done}
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def read(self) -> dict[tuple[str, int], dict[str, str]]:
        """
        Translations of this model by language and attempt. A line that a killed process left unfinished does not
        count. Where two runs did the same sentence, one is taken by a rule that knows no order of files.
        """
        found: dict[tuple[str, int], dict[str, str]] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in finished_lines(path):
                if all(line[name] == value for name, value in self.key.items()):
                    known = found.setdefault((line["language"], line["attempt"]), {})
                    for sentence, translation in line["translations"].items():
                        both = translation, known.get(sentence, translation)
                        known[sentence] = min(both, key=lambda text: (not text, text))
        return found


def finished_lines(path: Path) -> Iterator[dict]:
    """Lines of a journal; the last may be torn."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            entry = json.loads(line)
            texts = [entry[name] for name in ("model", "revision", "prompt", "language")]
            texts += [*entry["translations"], *entry["translations"].values()]
            if not all(isinstance(text, str) for text in texts) or entry["attempt"] not in (GREEDY, SAMPLED):
                raise TypeError("a value of the wrong type")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault = f"{path}, line {number} is damaged ({describe(error)}): delete it, and that batch is done again"
            raise SourceError(fault) from None
        yield entry


def translate_corpus(
    corpus: DatasetDict, languages: Sequence[str], engine: Engine, output: Path, batch_size: int
) -> None:
    """
    Translates the captions of a corpus. Called in several processes, they share the batches.

    Args:
        corpus (`DatasetDict`): A corpus with captions in English.
        languages (`Sequence[str]`): Language codes.
        engine ([`~rsmclip.data.translation.engines.Engine`]): Translation model.
        output (`Path`):
            Folder for `captions.jsonl`, which `build --translations` reads, `translation.json`, `reports/`,
            `rejected/` and `journal/`.
        batch_size (`int`): Sentences in a batch.

    Raises:
        [`SourceError`]: The folder holds translations of another model, or there is nothing to translate.
    """
    sentences = distinct_sentences(corpus)
    if not sentences:
        raise SourceError("the corpus has no captions in English")
    journal = Journal(output / "journal", engine)
    check_model(output, journal)
    run_batches({language: list(sentences) for language in languages}, GREEDY, engine, journal, batch_size)
    rejected = on_main_process(lambda: rejected_sentences(journal, sentences, languages))
    run_batches(rejected, SAMPLED, engine, journal, batch_size)
    if PartialState().is_main_process:
        journal.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(journal.folder / ".lock"):  # two runs write one after the other, each all that is there
            write_outcome(journal, sentences, engine, output)
    PartialState().wait_for_everyone()


def check_model(output: Path, journal: Journal) -> None:
    """Raises a [`SourceError`] if translations of this model cannot go into a folder."""
    path = output / RECORD
    if output.exists() and not output.is_dir():
        raise SourceError(f"{output} is a file, not a folder")
    if path.is_file():
        known = read_record(path)
        if any(known[name] != value for name, value in journal.key.items()):
            raise SourceError(f"{output} holds translations by {known['model']}, {known['revision']}: choose another")
    elif output.is_dir() and any(output.glob("*.jsonl")):
        raise SourceError(f"{output} holds translations that were not made by this command: choose another")


def run_batches(
    wanted: Mapping[str, Sequence[str]], attempt: int, engine: Engine, journal: Journal, batch_size: int
) -> None:
    """Translates, in this process, its share of the sentences of every language that no journal has."""
    done, state = journal.read(), PartialState()
    batches = [
        Batch(language, attempt, missing)
        for language, sentences in wanted.items()
        for batch in make_batches(sentences, language, attempt, batch_size)
        if (missing := tuple(text for text in batch.sentences if text not in done.get((language, attempt), {})))
    ]
    state.wait_for_everyone()  # all have read what is missing before one writes
    mine = batches[state.process_index :: state.num_processes]
    total, hidden = sum(len(batch.sentences) for batch in mine), None if state.is_main_process else True
    with tqdm(total=total, unit=" sentences", desc=("translate", "once more")[attempt], disable=hidden) as bar:
        for batch in mine:
            journal.append(batch, engine.translate(batch.sentences, batch.language, batch.seed))
            bar.update(len(batch.sentences))
    state.wait_for_everyone()


def on_main_process(compute: Callable[[], dict]) -> dict:
    """What the main process computes, in every process."""
    box = [compute() if PartialState().is_main_process else None]
    return broadcast_object_list(box)[0]


def rejected_sentences(journal: Journal, sentences: Counter, languages: Sequence[str]) -> dict[str, list[str]]:
    """For every language, the sentences whose greedy translations are rejected."""
    done = journal.read()
    judged = {language: judge_known(done[language, GREEDY], sentences, language) for language in languages}
    return {language: [text for text, why in judged[language].reasons.items() if why] for language in languages}


def judge_known(done: Mapping[str, str], sentences: Counter, language: str) -> Judgement:
    """Judges translations of a corpus's sentences, as far as there are any."""
    return judge({text: done[text] for text in sentences if text in done}, language)


def write_outcome(journal: Journal, sentences: Counter, engine: Engine, output: Path) -> None:
    """Writes what was accepted of every language in the journal, what was rejected and why, and reports to read."""
    done = journal.read()
    languages = [code for code in LANGUAGES if (code, GREEDY) in done]
    accepted: dict[str, dict[str, str]] = {}
    counts: dict[str, dict[str, int]] = {}
    for language in languages:
        greedy, sampled = done[language, GREEDY], done.get((language, SAMPLED), {})
        first = judge_known(greedy, sentences, language)
        again = {text: sampled[text] for text, why in first.reasons.items() if why and text in sampled}
        second = judge(again, language, first.lengths).reasons
        final = {text: greedy[text] for text, why in first.reasons.items() if why is None}
        final |= {text: again[text] for text, why in second.items() if why is None}
        # Sampled and rejected again. What another run has not come to yet is neither accepted nor rejected.
        rejected = {text: (greedy[text], first.reasons[text]) for text, why in second.items() if why}
        missing = len(sentences) - len(final) - len(rejected)
        counts[language] = {"accepted": len(final), **Counter(why for _, why in rejected.values())}
        counts[language] |= {NOT_TRANSLATED: missing} if missing else {}
        accepted[language] = final
        report = output / "reports" / f"{language}.md"
        write_report(report, language, final, rejected, counts[language], first.lengths)
        lines = [{"en": text, language: given, "reason": why} for text, (given, why) in sorted(rejected.items())]
        write_json_lines(output / "rejected" / f"{language}.jsonl", lines)
    facts = {**journal.key, "question": engine.prompt("{sentence}", "pt"), "sentences": len(sentences)}
    write_whole(output / RECORD, json.dumps(facts | {"counts": counts}, ensure_ascii=False, indent=2) + "\n")
    lines = [{"en": text, **{code: accepted[code].get(text) for code in languages}} for text in sorted(sentences)]
    write_json_lines(output / "captions.jsonl", lines)


def write_json_lines(path: Path, lines: Sequence[dict]) -> None:
    """Writes a file of JSON lines."""
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def cost(sentences: Counter, languages: Sequence[str], engine: Engine) -> str:
    """How much there is to translate, in words: captions, distinct sentences and estimated tokens."""
    read = sum(len(ids) for ids in engine.tokenizer(list(sentences), add_special_tokens=False).input_ids)
    asked = sum(len(engine.tokenizer(engine.prompt("", language)).input_ids) for language in languages)
    prompts = len(languages) * read + len(sentences) * asked
    return (
        f"{sum(sentences.values()):,} captions are {len(sentences):,} distinct sentences; into {len(languages)} "
        f"languages: {len(sentences) * len(languages):,} translations, about {prompts:,} tokens to read and "
        f"{TOKENS_WRITTEN * len(languages) * read:,} to write"
    )
