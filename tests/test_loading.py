"""The splits of a run: rows for training have a caption that can be drawn, and fill a batch."""

import json
import multiprocessing as mp
import re
import resource
from collections.abc import Iterator
from dataclasses import replace
from threading import Lock

import pytest
import torch
from accelerate import Accelerator
from datasets import DatasetDict
from torch.utils.data import DataLoader, Dataset

from rsmclip.core.errors import UserError
from rsmclip.eval.tasks import all_texts
from rsmclip.training.batches import CaptionedViews, CaptionSampling, sentence_id
from rsmclip.training.config import TrainingConfig
from rsmclip.training.interruption import start_workers
from rsmclip.training.loading import (
    all_splits,
    allow_open_files,
    load_splits,
    prepare_worker,
    received,
    rows_with_captions,
)


def test_rows_without_a_caption_in_a_language_that_is_drawn_are_left_out(corpus):
    def take_english_away(row: dict, number: int) -> dict:
        return row | {"captions": row["captions"] | ({} if number else {"en": None})}

    rows = corpus["train"].map(take_english_away, with_indices=True, load_from_cache_file=False)
    alone = CaptionSampling.parse("pt=0,en=1", ["en", "pt"], 2)
    assert rows_with_captions(rows, alone)["image_id"][:] == rows["image_id"][1:]
    assert rows_with_captions(rows, CaptionSampling.parse("uniform", ["en", "pt"], 2)) is rows


def test_splits_are_checked_for_the_languages_that_they_are_used_in(corpus, tmp_path):
    def without(language: str):
        return lambda row: {"captions": row["captions"] | {language: None}}

    rows = {split: corpus[split].map(without("de"), load_from_cache_file=False) for split in ("val", "test")}
    rows["train"] = corpus["train"].map(without("pt"), load_from_cache_file=False)
    DatasetDict(rows).save_to_disk(tmp_path / "corpus")
    accelerator = Accelerator(cpu=True)

    def load(languages: list[str], evaluated: list[str] | None) -> None:
        config = TrainingConfig(dataset=str(tmp_path / "corpus"), batch_size=12, languages=languages)
        load_splits(replace(config, evaluation_languages=evaluated), accelerator)

    load(["en", "de"], ["en", "pt"])
    with pytest.raises(UserError, match="'val'.*de.* --languages en pt"):
        load(["en", "de"], None)
    with pytest.raises(UserError, match="'val'.*de.* --evaluation_languages en pt"):
        load(["en"], ["de"])
    with pytest.raises(UserError, match="'train'.*pt.* --languages en es"):
        load(["pt"], ["en"])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_corpus_with_train_alone_is_one_line_that_says_how_to_divide_it(corpus, tmp_path, streaming):
    corpus["train"].to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    model = {"streaming": True, "model": "any"} if streaming else {}
    config = TrainingConfig(dataset=str(tmp_path), batch_size=12, output_dir=str(tmp_path / "run"), **model)
    with pytest.raises(UserError, match="'val'.*only train.*data build.*--split"):
        load_splits(config, Accelerator(cpu=True))


def test_rows_that_show_one_picture_share_their_sentences(corpus, corpus_folder, tmp_path):
    def pair(one: str, other: str) -> dict:
        return {"first": {"image_id": one}, "second": {"image_id": other}}

    pairs = [pair("demo/train_3", "demo/train_7"), pair("demo/train_7", "demo/train_9")]
    pairs.append(pair("demo/train_5", "demo/test_2"))  # no two training rows
    (tmp_path / "audit.json").write_text(json.dumps({"pairs": pairs}))
    fields = {"dataset": str(corpus_folder), "batch_size": 12, "languages": ["en", "pt"]}
    accelerator = Accelerator(cpu=True)
    config = TrainingConfig(**fields, same_pictures=str(tmp_path / "audit.json"))
    views = CaptionedViews(load_splits(config, accelerator)["train"], config.caption_sampling(), {}, 48)
    sentences = {row: set(views[(0, row)]["image_sentence_ids"]) for row in (3, 5, 7, 9)}
    english = {row: set(map(sentence_id, corpus["train"][row]["captions"]["en"])) for row in sentences}
    assert corpus["train"][3]["image_id"] == "demo/train_3"
    assert sentences[3] == sentences[7] == sentences[9] == english[3] | english[7] | english[9]
    assert sentences[5] == english[5]

    (tmp_path / "audit.json").write_text('{"pairs": [3]}')
    with pytest.raises(UserError, match="audit.json.*report"):
        load_splits(config, accelerator)
    with pytest.raises(UserError, match="same_pictures.*streaming"):
        replace(config, streaming=True, tokenizer="a/b")


def test_a_vocabulary_is_trimmed_to_all_splits(corpus, tmp_path):
    """Otherwise a run that is resumed with another test split would have other token ids."""
    rows = corpus["test"].map(lambda row: {"captions": dict.fromkeys(row["captions"]) | {"en": ["xylophone"]}})
    DatasetDict(corpus | {"dev": rows}).save_to_disk(tmp_path / "corpus")
    assert "xylophone" in set(all_texts(all_splits(TrainingConfig(dataset=str(tmp_path / "corpus")))))


class Rows(Dataset):
    """Numbers. The last one raises an error in the worker."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> torch.Tensor:
        if row == 39:
            raise RuntimeError("a bug")
        return torch.tensor([row])


def batches_of_workers(**options) -> tuple[Iterator, list]:
    loader = DataLoader(Rows(), batch_size=1, num_workers=1, worker_init_fn=prepare_worker, **options)
    iterator = start_workers(loader)
    return received(iterator), iterator._workers


def test_a_killed_worker_is_one_line():
    batches, (worker,) = batches_of_workers(prefetch_factor=1)
    next(batches)
    worker.kill()
    named = "DataLoader worker.*(killed|exited).*--num_workers.*--resume_from_checkpoint latest"
    with pytest.raises(UserError, match=named) as error:
        list(batches)
    assert "\n" not in str(error.value)


def test_a_worker_that_cannot_send_a_batch_ends_the_run_and_not_only_its_batch():
    batches, _ = batches_of_workers(collate_fn=lambda rows: Lock())  # as a tensor without a free file or memory
    with pytest.raises(UserError, match="worker.*exited.*/dev/shm.*ulimit"):
        list(batches)


def test_a_bug_in_a_worker_keeps_its_traceback():
    batches, _ = batches_of_workers()
    with pytest.raises(RuntimeError, match="a bug"):
        list(batches)


def load_with_few_files(sender) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        allow_open_files()
    except UserError as error:
        sender.send(str(error))


def test_too_few_open_files_are_refused_before_workers_start():
    receiver, sender = mp.Pipe(duplex=False)
    process = mp.get_context("fork").Process(target=load_with_few_files, args=(sender,))
    process.start()
    process.join()
    assert receiver.poll() and re.search("64 open files.*ulimit -n.*--num_workers 0", receiver.recv())


def test_a_split_that_does_not_exist_and_a_batch_larger_than_the_corpus_are_refused(corpus_folder):
    fields, accelerator = {"dataset": str(corpus_folder), "batch_size": 12}, Accelerator(cpu=True)
    splits = load_splits(TrainingConfig(**fields), accelerator)
    assert {role: len(rows) for role, rows in splits.items()} == {"train": 60, "validation": 18, "test": 36}
    with pytest.raises(UserError, match="dev"):
        load_splits(TrainingConfig(**fields, validation_split="dev"), accelerator)
    with pytest.raises(UserError, match="batch_size is 61.* 60 "):
        load_splits(TrainingConfig(**fields | {"batch_size": 61}), accelerator)
