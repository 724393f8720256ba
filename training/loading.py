"""Load and check the splits of a run, and yield its batches on the device."""

import os
import sys
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset, List, Value
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from rsmclip.core.errors import UserError
from rsmclip.data.audit.report import same_pictures
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import check_schema, load_corpus
from rsmclip.training.batches import (
    PICTURE_SENTENCES,
    CaptionedViews,
    CaptionSampling,
    Collate,
    StepSampler,
    sentence_id,
    sentences_of,
)
from rsmclip.training.config import DataSettings, TrainingConfig
from rsmclip.training.interruption import end_with_the_training_process, start_workers
from rsmclip.training.shards import cache_folder
from rsmclip.training.source_sampling import SourceOrder
from rsmclip.training.streaming import ShardOrder, StreamedCorpus, follow, open_splits
from rsmclip.training.views import ViewSpec

OPEN_FILES = 1024  # limit that loading needs; 4 prefetched batches of a worker have about 150
# In errors of the loader about a worker, and of receiving a tensor. Exceptions of our code begin with "Caught".
LOST_WORKER = ("DataLoader worker", "Too many open files", "ancdata", "Connection re", "shared memory", "EOFError")


def corpus_place(settings: DataSettings) -> str:
    """Return the folder or Hub id of the corpus. Draw the demo corpus if it is not in the cache."""
    return str(cached_demo()) if settings.dataset == "demo" else settings.dataset


def load_splits(config: TrainingConfig, accelerator: Accelerator) -> dict[str, Dataset | StreamedCorpus]:
    """
    Load the splits `train`, `validation` and `test`, and check their schema and languages.

    Rows of `train` without a caption that can be drawn are left out. A stream has a [`StreamedCorpus`] as `train`.

    Raises:
        [`UserError`]: The corpus or a split does not exist or has another schema, a language has no captions, the
            training split has fewer rows than a batch, `source_sampling` names a corpus that it does not have, or
            the workers may have too few open files.
    """
    if config.num_workers:
        allow_open_files()
    names = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
    with accelerator.main_process_first():  # rank 0 downloads or draws, the others read its cache
        place = corpus_place(config)
        if not config.streaming:
            corpus = load_corpus(place)
        else:
            del names["train"]  # `open_splits` checks the columns of the stream
            stream, corpus = open_splits(
                place,
                config.train_split,
                tuple(names.values()),
                config.languages,
                folder=cache_folder(config.output_dir),
                shuffle_buffer=config.shuffle_buffer,
                seed=config.seed,
            )
    evaluated = "languages" if config.evaluation_languages is None else "evaluation_languages"
    options = dict.fromkeys(names, evaluated) | {"train": "languages"}
    splits = {
        role: check_schema(corpus, name, getattr(config, options[role]), f"--{options[role]}")
        for role, name in names.items()
    }
    train = stream if config.streaming else rows_with_captions(splits["train"], config.caption_sampling())
    if len(train) < config.batch_size:
        raise UserError(f"batch_size is {config.batch_size}, but only {len(train)} training rows have captions")
    row_order(config, train, config.batch_size)  # checks the corpora that source_sampling names
    if config.same_pictures is not None:
        train = with_sentences_of_pictures(train, same_pictures(Path(config.same_pictures), train["image_id"]))
    return splits | {"train": train}


def all_splits(config: DataSettings) -> Iterator[Dataset]:
    """Yield every split of the corpus, also those that the run does not use."""
    yield from load_corpus(corpus_place(config)).values()


def rows_with_captions(rows: Dataset, sampling: CaptionSampling) -> Dataset:
    """Return the rows with a caption in a language that is drawn."""
    kept = [index for index, captions in enumerate(rows["captions"]) if sampling.available(captions)]
    return rows if len(kept) == len(rows) else rows.select(kept)


def with_sentences_of_pictures(rows: Dataset, pictures: list[list[int]]) -> Dataset:
    """Add a column with the ids of all sentences of the rows that show the picture of a row, empty if it is alone."""
    captions, ids = list(rows["captions"]), [[] for _ in rows["captions"]]
    for picture in pictures:
        sentences = {sentence for row in picture for sentence in sentences_of(captions[row], captions[row])}
        for row in picture:
            ids[row] = sorted(map(sentence_id, sentences))
    return rows.add_column(PICTURE_SENTENCES, ids, feature=List(Value("int64")))


def row_order(
    config: TrainingConfig, rows: Dataset | StreamedCorpus, batch_size: int
) -> ShardOrder | SourceOrder | None:
    """Return the order of the training rows, or `None` for a permutation of all rows in every epoch."""
    if config.streaming:
        return rows.order
    if config.source_sampling is None:
        return None
    length = len(rows) // batch_size * batch_size
    return SourceOrder(rows["source"], config.source_sampling, length, config.seed)


def batches(
    config: TrainingConfig,
    rows: Dataset | StreamedCorpus,
    view_specs: dict[str, ViewSpec],
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    first_step: int,
) -> Iterator[dict]:
    """
    Yield the batches of this process, on its device, that follow the first `first_step` steps.

    Raises:
        [`UserError`]: Too many images cannot be decoded, a shard of a stream could not be read, or a worker has ended.
    """
    on_cpu = accelerator.device.type == "cpu"  # on a CPU padding is expensive, on a GPU small matrices are
    groups = max(4 if on_cpu else 1, config.gradient_accumulation_chunks)
    loader = DataLoader(
        CaptionedViews(
            rows,
            config.caption_sampling(),
            view_specs,
            short_side=config.short_side,
            seed=config.seed,
            replacement=rows.replacement if config.streaming else None,
        ),
        batch_sampler=StepSampler(
            num_rows=len(rows),
            batch_size=config.batch_size // accelerator.num_processes,
            max_steps=config.max_train_steps,
            first_step=first_step,
            seed=config.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            order=row_order(config, rows, config.batch_size),
        ),
        collate_fn=Collate(tokenizer, config.max_length, groups=groups, multiple=1 if on_cpu else 8),
        num_workers=config.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        prefetch_factor=4 if config.num_workers else None,
        worker_init_fn=prepare_worker,
        # Without a generator, the loader would draw from the one whose state a checkpoint restores.
        generator=torch.Generator().manual_seed(config.seed),
    )
    follows = config.streaming and accelerator.is_local_main_process
    for batch in received(follow(loader, rows) if follows else start_workers(loader)):
        if isinstance(batch, UserError):  # returned by a worker, see `CaptionedViews`
            raise batch
        yield send_to_device(batch, accelerator.device, non_blocking=True)


def allow_open_files() -> None:
    """Raise the limit of open files: workers send each tensor of a batch as an open file."""
    if os.name != "posix":
        return
    import resource  # Windows has no such module

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise UserError(
            f"a process may have {hard} open files here, but loading data needs {OPEN_FILES}: raise the limit "
            f"(ulimit -n {OPEN_FILES}), or give --num_workers 0"
        )
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def prepare_worker(worker: int) -> None:
    """Make a new worker end with the training process, or if it cannot send a batch; a `worker_init_fn`."""
    end_with_the_training_process(worker)
    Queue._on_queue_feeder_error = staticmethod(end_without_sending)  # by default the training process waits forever


def end_without_sending(error: Exception, batch: object) -> None:
    print(f"a data loading process cannot send a batch: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def received(batches: Iterator) -> Iterator[dict | UserError]:
    """Yield batches. Raise [`UserError`] if a worker was killed or cannot send. An exception in a worker is a bug."""
    while True:
        try:
            batch = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:
            text = " ".join(str(error).split()) or type(error).__name__  # an `EOFError` has no text
            if text.startswith("Caught") or not any(cause in text for cause in LOST_WORKER):
                raise
            raise UserError(
                f"a data loading process has ended or its batch is lost ({text}): check the memory, /dev/shm and "
                "ulimit -n, give fewer --num_workers, and continue with --resume_from_checkpoint latest"
            ) from error
        if batch is None:
            return
        yield batch
