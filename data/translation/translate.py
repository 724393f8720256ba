"""Translate the captions of a corpus. Every distinct sentence is translated once into each language.

1. Batches of sentences of similar length are translated by greedy decoding.
2. A sentence with a rejected translation is translated once more, by sampling. If the second translation is rejected
   too, the caption has no translation in this language, and the reason is recorded.
3. Each process writes every finished batch as a line of its own journal. Sentences in a journal are not translated
   again: a run may be killed and started again, and several runs may work in one folder.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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

from rsmclip.core.errors import UserError, extra, user_errors
from rsmclip.core.files import write_whole
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.schema import check_schema
from rsmclip.data.translation.checks import Judgement, judge
from rsmclip.data.translation.engines import Engine
from rsmclip.data.translation.report import NOT_TRANSLATED, write_report
from rsmclip.data.translation.translations import RECORD, read_record

GREEDY, SAMPLED = 0, 1  # the two attempts at a sentence
BATCH_SIZE = {"transformers": 64, "vllm": 4096}
TOKENS_WRITTEN = 2  # per token of the English sentence; an assumption, for the estimate of `cost`


@dataclass(frozen=True)
class Batch:
    """Sentences that are translated together."""

    language: str
    attempt: int  # `GREEDY` or `SAMPLED`
    sentences: tuple[str, ...]

    @property
    def seed(self) -> int | None:
        """Seed for sampling. It depends only on language and sentences, not on the process that translates."""
        if self.attempt == GREEDY:
            return None
        return int(hashlib.sha256("\n".join((self.language, *self.sentences)).encode()).hexdigest()[:8], 16)


def distinct_sentences(corpus: DatasetDict) -> Counter:
    """Count the English captions of all splits, except captions without a letter (RSICD has a caption " .")."""
    counts: Counter = Counter()
    for split in corpus:
        for row in check_schema(corpus, split, []).select_columns("captions"):
            texts = (row["captions"] or {}).get("en") or ()
            counts.update(text for text in texts if text and any(map(str.isalpha, text)))
    return counts


def make_batches(sentences: Sequence[str], language: str, attempt: int, size: int) -> list[Batch]:
    ordered = sorted(sentences, key=lambda sentence: (-len(sentence), sentence))  # similar lengths in a batch
    return [Batch(language, attempt, tuple(ordered[start : start + size])) for start in range(0, len(ordered), size)]


class Journal:
    """
    Finished batches in a folder: one file per process, one line per batch.

    `read` ignores lines with another model, revision or prompt than those of `engine`.
    """

    def __init__(self, folder: Path, engine: Engine):
        self.folder = folder
        question = hashlib.sha256(engine.question.encode()).hexdigest()[:12]
        self.key = {"model": engine.name, "revision": engine.revision, "prompt": question}

    @cached_property
    def file(self) -> TextIO:
        """File of this process, made at the first write."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return (self.folder / f"{uuid4().hex}.jsonl").open("x", encoding="utf-8")

    def append(self, batch: Batch, translations: Sequence[str]) -> None:
        done = dict(zip(batch.sentences, translations, strict=True))
        line = {**self.key, "language": batch.language, "attempt": batch.attempt, "translations": done}
        with user_errors(OSError, prefix=f"cannot write the journal in {self.folder}"):
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())  # the line survives a crash of the machine

    def read(self) -> dict[tuple[str, int], dict[str, str]]:
        """Return translations by language and attempt: English sentence to translation."""
        found: dict[tuple[str, int], dict[str, str]] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in finished_lines(path):
                if all(line[name] == value for name, value in self.key.items()):
                    known = found.setdefault((line["language"], line["attempt"]), {})
                    # Two runs may have translated a sentence. The choice must not depend on the names of the files.
                    for sentence, translation in line["translations"].items():
                        both = translation, known.get(sentence, translation)
                        known[sentence] = min(both, key=lambda text: (not text, text))
        return found


def finished_lines(path: Path) -> Iterator[dict]:
    with user_errors(OSError, prefix=f"cannot read {path}"):
        lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # a killed process may leave its last line incomplete
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not is_journal_entry(entry):
            raise UserError(f"{path}, line {number} is damaged: delete the line, then its batch is translated again")
        yield entry


def is_journal_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("translations"), dict):
        return False
    texts = [*map(entry.get, ("model", "revision", "prompt", "language")), *entry["translations"].values()]
    return entry.get("attempt") in (GREEDY, SAMPLED) and all(isinstance(text, str) for text in texts)


def translate_corpus(
    corpus: DatasetDict, languages: Sequence[str], engine: Engine, output: Path, batch_size: int
) -> None:
    """
    Translate the captions of a corpus. Several processes share the batches.

    Args:
        corpus (`DatasetDict`): A corpus with captions in English.
        languages (`Sequence[str]`): Language codes.
        engine ([`~rsmclip.data.translation.engines.Engine`]): Translation model.
        output (`Path`): Folder of translations; docs/data.md lists its files.
        batch_size (`int`): Sentences per batch.

    Raises:
        [`~rsmclip.core.errors.UserError`]: `output` has translations by another model or cannot be written, the corpus
            has no captions in English, the model cannot be loaded, or Lingua is not installed.
    """
    sentences = distinct_sentences(corpus)
    if not sentences:
        raise UserError("the corpus has no captions in English")
    journal, state = Journal(output / "journal", engine), PartialState()
    check_model(output, journal)
    with extra("translate"):
        import lingua  # noqa: F401  # the checks need it, hours later
    run_batches({language: list(sentences) for language in languages}, GREEDY, engine, journal, batch_size)

    # One process selects the sentences to sample, because another run may write to the journals at any time.
    rejected = rejected_sentences(journal, sentences, languages) if state.is_main_process else None
    run_batches(broadcast_object_list([rejected])[0], SAMPLED, engine, journal, batch_size)

    # Only one run writes at a time. It writes the translations of all journals in the folder.
    if state.is_main_process:
        with user_errors(OSError, prefix=f"cannot write to {output}"):
            journal.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(journal.folder / ".lock").acquire()
        with lock:
            write_outcome(journal, sentences, engine, output)
    state.wait_for_everyone()


def check_model(output: Path, journal: Journal) -> None:
    path = output / RECORD
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file, not a folder")
    if path.is_file():
        known = read_record(path)
        if any(known[name] != value for name, value in journal.key.items()):
            made_by = f"model {known['model']}, revision {known['revision']}, prompt {known['prompt']}"
            raise UserError(f"{output} has translations by {made_by}: choose another --output")
    elif output.is_dir() and any(output.glob("*.jsonl")):
        raise UserError(f"{output} has translations that this command did not write: choose another --output")


def run_batches(
    wanted: Mapping[str, Sequence[str]], attempt: int, engine: Engine, journal: Journal, batch_size: int
) -> None:
    done, state = journal.read(), PartialState()
    # Make batches of all sentences, then drop finished sentences: a resumed run makes equal batches.
    batches = [
        Batch(language, attempt, missing)
        for language, sentences in wanted.items()
        for batch in make_batches(sentences, language, attempt, batch_size)
        if (missing := tuple(text for text in batch.sentences if text not in done.get((language, attempt), {})))
    ]
    state.wait_for_everyone()  # every process has read the journals before one writes
    mine = batches[state.process_index :: state.num_processes]
    total, hidden = sum(len(batch.sentences) for batch in mine), not state.is_main_process
    with tqdm(total=total, unit=" sentences", desc=("translate", "retry")[attempt], disable=hidden or None) as bar:
        for batch in mine:
            journal.append(batch, engine.translate(batch.sentences, batch.language, batch.seed))
            bar.update(len(batch.sentences))
    state.wait_for_everyone()


def rejected_sentences(journal: Journal, sentences: Counter, languages: Sequence[str]) -> dict[str, list[str]]:
    done = journal.read()
    judged = {language: judge_known(done[language, GREEDY], sentences, language) for language in languages}
    return {language: [text for text, why in judged[language].reasons.items() if why] for language in languages}


def judge_known(done: Mapping[str, str], sentences: Counter, language: str) -> Judgement:
    return judge({text: done[text] for text in sentences if text in done}, language)


def write_outcome(journal: Journal, sentences: Counter, engine: Engine, output: Path) -> None:
    done = journal.read()
    languages = [code for code in LANGUAGES if (code, GREEDY) in done]
    accepted: dict[str, dict[str, str]] = {}
    counts: dict[str, dict[str, int]] = {}
    for language in languages:
        # Second translations are few. Compare their lengths with the usual length of the first translations.
        greedy, sampled = done[language, GREEDY], done.get((language, SAMPLED), {})
        first = judge_known(greedy, sentences, language)
        again = {text: sampled[text] for text, why in first.reasons.items() if why and text in sampled}
        second = judge(again, language, first.lengths).reasons
        final = {text: greedy[text] for text, why in first.reasons.items() if why is None}
        final |= {text: again[text] for text, why in second.items() if why is None}
        rejected = {text: (greedy[text], first.reasons[text]) for text, why in second.items() if why}

        # Sentences that another run has not translated yet are neither accepted nor rejected.
        missing = len(sentences) - len(final) - len(rejected)
        counts[language] = {"accepted": len(final), **Counter(why for _, why in rejected.values())}
        counts[language] |= {NOT_TRANSLATED: missing} if missing else {}
        accepted[language] = final
        report = output / "reports" / f"{language}.md"
        write_report(report, language, final, rejected, counts[language], first.lengths)
        lines = [{"en": text, language: given, "reason": why} for text, (given, why) in sorted(rejected.items())]
        write_json_lines(output / "rejected" / f"{language}.jsonl", lines)

    # Write the record first: captions.jsonl without a record would be read as translations of unknown origin.
    facts = {**journal.key, "question": engine.question, "sentences": len(sentences)}
    write_whole(output / RECORD, json.dumps(facts | {"counts": counts}, ensure_ascii=False, indent=2) + "\n")
    lines = [{"en": text, **{code: accepted[code].get(text) for code in languages}} for text in sorted(sentences)]
    write_json_lines(output / "captions.jsonl", lines)


def write_json_lines(path: Path, lines: Sequence[dict]) -> None:
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def cost(sentences: Counter, languages: Sequence[str], engine: Engine) -> str:
    """Return a line with the numbers of captions, distinct sentences and estimated tokens."""
    read = sum(len(ids) for ids in engine.tokenizer(list(sentences), add_special_tokens=False).input_ids)
    asked = sum(len(engine.tokenizer(engine.prompt("", language)).input_ids) for language in languages)
    prompts = len(languages) * read + len(sentences) * asked
    return (
        f"{sum(sentences.values()):,} captions are {len(sentences):,} distinct sentences; into {len(languages)} "
        f"languages: {len(sentences) * len(languages):,} translations, about {prompts:,} tokens to read and "
        f"{TOKENS_WRITTEN * len(languages) * read:,} to write"
    )
