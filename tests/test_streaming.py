"""Streams: the order depends on seed and epoch only, the cache stays small, errors name the shard."""

import re
import shutil
import threading
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Image, load_dataset
from torch.utils.data import DataLoader

from rsmclip.core.errors import UserError
from rsmclip.core.languages import LANGUAGES
from rsmclip.training.batches import CaptionedViews, CaptionSampling, Collate, StepSampler
from rsmclip.training.config import TrainingConfig
from rsmclip.training.streaming import ShardOrder, StreamedCorpus, follow, open_splits, shards_of_steps, steps_ahead
from rsmclip.training.views import ViewSpec
from tests.conftest import SHARDS

SPECS = {"global": ViewSpec(2, 32, (0.4, 1.0))}
CAPTIONS = CaptionSampling(dict.fromkeys(LANGUAGES, 1.0), count=2)
BUFFER = 10


def open_stream(folder: Path, cache: Path, buffer: int = BUFFER, languages=LANGUAGES) -> StreamedCorpus:
    options = {"folder": cache, "shuffle_buffer": buffer, "seed": 0}
    return open_splits(str(folder), "train", ["val", "test"], languages, **options)[0]


def stream_id(row: int) -> str:
    return f"demo/train_{row}"


def make_loader(stream: StreamedCorpus, tokenizer, workers: int, steps: int, batch_size: int = 6, **sampling):
    sampler = StepSampler(len(stream), batch_size, steps, order=stream.order, **sampling)
    views = CaptionedViews(stream, CAPTIONS, SPECS, 48, replacement=stream.replacement)
    prefetch = 2 if workers else None
    collate = Collate(tokenizer, 77)
    return DataLoader(views, batch_sampler=sampler, collate_fn=collate, num_workers=workers, prefetch_factor=prefetch)


@pytest.mark.parametrize("buffer", [1, 7, 10, 60, 1000])
def test_every_epoch_is_another_permutation_of_all_rows(buffer):
    order = ShardOrder(SHARDS, buffer, seed=3)
    epochs = [order(epoch, 0, 60).tolist() for epoch in range(3)]
    assert all(sorted(rows) == list(range(60)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 3
    assert ShardOrder(SHARDS, buffer, seed=4)(0, 0, 60).tolist() != epochs[0]


def test_the_order_does_not_depend_on_what_was_asked_for_before():
    whole = [ShardOrder(SHARDS, BUFFER, seed=0)(epoch, 0, 60) for epoch in range(2)]
    order, rng = ShardOrder(SHARDS, BUFFER, seed=0), np.random.default_rng(0)
    for _ in range(200):
        epoch, (start, stop) = rng.integers(2), np.sort(rng.choice(61, 2, replace=False))
        assert order(int(epoch), int(start), int(stop)).tolist() == whole[epoch][start:stop].tolist()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_steps_of_one_process_and_a_resumed_one_continues(processes):
    def steps(**sampling):
        return list(StepSampler(60, max_steps=25, order=ShardOrder(SHARDS, BUFFER, 0), **sampling))

    whole = steps(batch_size=6)
    parts = [steps(batch_size=6 // processes, rank=rank, world_size=processes) for rank in range(processes)]
    assert [list(chain(*rows)) for rows in zip(*parts, strict=True)] == whole
    assert steps(batch_size=6, first_step=13) == whole[13:]


def test_a_block_is_of_few_shards():
    order = ShardOrder([50] * 40, 120, seed=0)
    for start in range(0, 2000, 60):
        shards = order.shards(1, start, start + 60)
        assert {row // 50 for row in order(1, start, start + 60)} <= set(shards)
        assert len(shards) <= 4  # 120 rows, and the rest of the first and the last shard


def test_the_order_of_a_hundred_million_rows_needs_little_memory():
    order = ShardOrder([5000] * 20_000, 20_000, seed=0)
    tracemalloc.start()
    rows = [order(0, start, start + 256) for start in (0, 19_900, 50_000_000)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(len(set(batch.tolist())) == 256 for batch in rows)
    assert peak < 5e6


def test_its_rows_are_those_of_load_dataset(sharded_corpus, tmp_path):
    stream = open_stream(sharded_corpus, tmp_path)
    rows = load_dataset(str(sharded_corpus), split="train").cast_column("image", Image(decode=False))
    assert len(stream) == len(rows) == 60 and stream.cache.features == rows.features
    assert [stream[row] for row in range(60)] == list(rows)
    for row in (-1, 60):
        with pytest.raises(IndexError):
            stream[row]


def test_two_workers_fetch_each_shard_once_and_the_cache_stays_small(sharded_corpus, tokenizer, tmp_path):
    stream = open_stream(sharded_corpus, tmp_path)
    loader = make_loader(stream, tokenizer, workers=2, steps=20)
    sampler, ahead = loader.batch_sampler, steps_ahead(loader, stream)
    windows = [shards_of_steps(stream.order, sampler, max(0, step - 1), step + ahead) for step in range(20)]
    seen: dict[tuple[int, str], set[int]] = {}
    for step, batch in enumerate(follow(loader, stream)):
        start = step % 10 * 6
        assert batch["image_ids"] == [stream_id(row) for row in sampler.order(step // 10, start, start + 6)]
        files = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.arrow")}
        assert len(set(files) - {stream.cache.path(shard).name for shard in windows[step]}) <= 1
        if step < 10 - ahead:  # later, shards of the next epoch are fetched too
            for name, written in files.items():
                seen.setdefault(name, set()).add(written)
    assert len(seen) > 4 and all(len(times) == 1 for times in seen.values())
    assert max(map(len, windows)) < 9  # of nine shards that are not empty


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_fetches_nothing_of_what_was_done(sharded_corpus, tokenizer, tmp_path, workers):
    def batches(cache: str, **sampling) -> list:
        stream = open_stream(sharded_corpus, tmp_path / cache)
        loader = make_loader(stream, tokenizer, workers, steps=20, **sampling)
        for step, batch in enumerate(follow(loader, stream), sampling.get("first_step", 0)):
            fetched.setdefault(cache, set()).update(path.name for path in (tmp_path / cache).glob("*.arrow"))
            found.setdefault(cache, {})[step] = batch

    found, fetched = {}, {}
    batches("whole")
    batches("resumed", first_step=17)
    for step in (17, 18, 19):
        for name in ("pixels", "input_ids"):
            assert torch.equal(found["whole"][step][name], found["resumed"][step][name])
    order = ShardOrder(SHARDS, BUFFER, 0)
    assert fetched["resumed"] == {f"{shard:06d}.arrow" for shard in order.shards(1, 42, 60)} < fetched["whole"]


def test_a_run_that_stops_early_ends_the_thread_that_fetches(sharded_corpus, tokenizer, tmp_path):
    threads = set(threading.enumerate())
    stream = open_stream(sharded_corpus, tmp_path)
    batches = follow(make_loader(stream, tokenizer, 0, steps=20), stream)
    next(batches)
    (fetching,) = set(threading.enumerate()) - threads
    batches.close()
    fetching.join(20)
    assert not fetching.is_alive()


def test_a_checkpoint_of_other_shards_is_refused(sharded_corpus, tmp_path):
    state = open_stream(sharded_corpus, tmp_path / "a").state_dict()
    open_stream(sharded_corpus, tmp_path / "b").load_state_dict(state)
    with pytest.raises(UserError, match="shards"):
        open_stream(sharded_corpus, tmp_path / "c").load_state_dict(state | {"num_rows": [60]})


def rewrite(sharded_corpus: Path, target: Path, change, number: int = 4) -> Path:
    shutil.copytree(sharded_corpus, target)
    path = target / "data" / f"train-{number:05d}-of-{len(SHARDS):05d}.parquet"
    rows = load_dataset(str(sharded_corpus), split="train").cast_column("image", Image(decode=False))
    start = sum(SHARDS[:number])
    rows.select(range(start, start + SHARDS[number])).map(change, load_from_cache_file=False).to_parquet(path)
    return target


NO_CAPTIONS = {"captions": {language: [None] if language == "en" else None for language in LANGUAGES}}
NO_IMAGE = {"image": {"bytes": b"nothing", "path": None}}


@pytest.mark.parametrize(("fault", "named"), [(NO_CAPTIONS, []), (NO_IMAGE, [stream_id(19)])])
def test_a_row_without_captions_or_image_is_replaced_by_one_of_its_shard(sharded_corpus, tmp_path, fault, named):
    spoiled = stream_id(19)
    folder = rewrite(sharded_corpus, tmp_path / "corpus", lambda row: fault if row["image_id"] == spoiled else {})
    stream = open_stream(folder, tmp_path / "cache")
    views = CaptionedViews(stream, CAPTIONS, SPECS, 48, replacement=stream.replacement)
    examples = [views[epoch, 19] for epoch in range(60)]
    assert {example["image_id"] for example in examples} == {stream_id(row) for row in (18, *range(20, 27))}
    assert all(example["undecodable"] == named for example in examples)
    assert [path.name for path in (tmp_path / "cache").glob("*.arrow")] == ["000004.arrow"]


def test_a_shard_that_names_a_picture_of_this_machine_is_refused(sharded_corpus, tmp_path):
    folder, private = shutil.copytree(sharded_corpus, tmp_path / "corpus"), tmp_path / "private.jpg"
    private.write_bytes(b"a picture")
    path = folder / "data" / f"train-00004-of-{len(SHARDS):05d}.parquet"
    table = pq.read_table(path)
    images = pa.array([{"bytes": None, "path": str(private)}] * len(table), table.schema.field("image").type)
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", images), path)
    stream = open_stream(folder, tmp_path / "cache")
    assert stream[0]["image_id"] == stream_id(0)
    with pytest.raises(UserError, match=f"{path.name}.*{private}"):
        stream[sum(SHARDS[:4])]


@pytest.mark.parametrize("name", ["corpus", "corpus[v1]"])
def test_a_shard_may_name_pictures_of_its_own_folder(sharded_corpus, tmp_path, name):
    folder = shutil.copytree(sharded_corpus, tmp_path / name)
    (folder / "own.jpg").write_bytes(b"a picture")
    path = folder / "data" / f"train-00000-of-{len(SHARDS):05d}.parquet"
    table = pq.read_table(path)
    images = pa.array(
        [{"bytes": None, "path": str(folder / "own.jpg")}] * len(table), table.schema.field("image").type
    )
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", images), path)
    stream = open_stream(folder, tmp_path / "cache")
    assert stream[0]["image"]["path"] == str(folder / "own.jpg")


def test_a_shard_without_captions_is_an_error(sharded_corpus, tmp_path):
    folder = rewrite(sharded_corpus, tmp_path / "corpus", lambda row: {"captions": dict.fromkeys(row["captions"])})
    stream = open_stream(folder, tmp_path / "cache", languages=["en"])
    error = CaptionedViews(stream, CaptionSampling({"en": 1.0}), SPECS, 48, replacement=stream.replacement)[0, 20]
    assert isinstance(error, UserError) and re.search("demo/train_.* en", str(error))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def no_parquet(path: Path) -> None:
    path.write_text("<html>not found</html>")


def no_captions(path: Path) -> None:
    load_dataset("parquet", data_files=str(path), split="train").remove_columns("captions").to_parquet(path)


def two_images(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.append_column("image", table["image"]), path)


DAMAGES = [(cut, ""), (no_parquet, ""), (no_captions, ".*captions"), (two_images, ".*2.*image")]


@pytest.mark.parametrize(("damage", "named"), DAMAGES)
def test_a_bad_shard_is_named_before_training(sharded_corpus, tmp_path, damage, named):
    shutil.copytree(sharded_corpus, tmp_path / "corpus")
    damage(tmp_path / "corpus" / "data" / "train-00004-of-00010.parquet")
    with pytest.raises(UserError, match=rf"train-00004-of-00010\.parquet{named}"):
        open_stream(tmp_path / "corpus", tmp_path / "cache")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_is_named_instead_of_a_batch(sharded_corpus, tokenizer, tmp_path, workers):
    shutil.copytree(sharded_corpus, tmp_path / "corpus")
    path = tmp_path / "corpus" / "data" / "train-00004-of-00010.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(2000) + content[2004:])
    stream = open_stream(tmp_path / "corpus", tmp_path / "cache")
    errors = [batch for batch in make_loader(stream, tokenizer, workers, steps=10) if isinstance(batch, UserError)]
    assert errors and all("train-00004-of-00010.parquet" in str(error) for error in errors)
    assert not list((tmp_path / "cache").glob(".0*"))


def test_a_corpus_that_cannot_be_streamed_is_refused_by_name(sharded_corpus, tmp_path):
    lines = tmp_path / "lines"
    lines.mkdir()
    for split in ("train", "val", "test"):
        (lines / f"{split}.jsonl").write_text('{"image_id": "a"}\n')
    with pytest.raises(UserError, match="parquet.*train"):
        open_stream(lines, tmp_path / "cache")
    with pytest.raises(ValueError, match="nowhere"):
        open_stream(tmp_path / "nowhere", tmp_path / "cache")
    with pytest.raises(UserError, match="sw.*en, pt"):
        open_stream(sharded_corpus, tmp_path / "cache", languages=["en", "sw"])
    with pytest.raises(UserError, match="'dev'.*train, "):
        open_splits(str(sharded_corpus), "train", ["dev"], ["en"], folder=tmp_path, shuffle_buffer=9, seed=0)


def test_a_stream_needs_a_tokenizer():
    with pytest.raises(ValueError, match="streaming"):
        TrainingConfig(streaming=True)
    assert TrainingConfig(streaming=True, tokenizer="folder").streaming


def test_a_changed_corpus_is_not_read_from_the_old_cache(sharded_corpus, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(sharded_corpus, folder)
    assert open_stream(folder, tmp_path / "cache")[20]["label"] != "renamed"
    shutil.rmtree(folder)
    stream = open_stream(rewrite(sharded_corpus, folder, lambda row: {"label": "renamed"}), tmp_path / "cache")
    assert stream[20]["label"] == "renamed"
