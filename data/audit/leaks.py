"""Leakage audit: find rows of corpora that show the same picture, and rows with equal captions.

Remote sensing corpora share pictures with each other, and between their own splits. `same_picture.py` defines when two
pictures are the same. The result does not depend on the number of processes.
"""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict, Features
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from rsmclip.core.cores import cpu_count
from rsmclip.core.errors import UserError
from rsmclip.core.files import visible_files
from rsmclip.core.images import IMAGE_SUFFIXES, image_bytes
from rsmclip.data.audit.same_picture import INVERSE_TURNS, THUMBNAIL, Match, describe, find_matches
from rsmclip.data.schema import check_schema, features, is_corpus, keep_encoded, load_corpus

PICTURES_PER_BATCH = 64  # encoded pictures that a process receives at once
CAPTIONS_PER_BATCH = 1000
MOST_COPIES = 20  # more copies of one picture are not all paired with each other


class AuditedRow(NamedTuple):
    """Dataset, split and id of a row."""

    dataset: str
    split: str
    image_id: str


class Pair(NamedTuple):
    """Two rows that show the same picture, in the order of datasets, splits and rows."""

    first: AuditedRow
    second: AuditedRow
    similarity: float  # correlation of detail where the pictures match best, at most 1
    transform: str  # turn of the second picture relative to the first, one of `TURNS`
    crop: float  # side of the smaller picture as a fraction of the larger; 1 for equal extents


@dataclass
class AuditReport:
    """Result of an audit."""

    audited: str  # name of the dataset that may lose rows
    rows: Counter = field(default_factory=Counter)  # by (dataset, split)
    evaluated: set[tuple[str, str]] = field(default_factory=set)  # (dataset, split) that models are evaluated on
    pairs: list[Pair] = field(default_factory=list)  # leaks first, then in the order of the rows
    caption_sets: list[list[AuditedRow]] = field(default_factory=list)  # rows with equal English captions
    to_remove: list[AuditedRow] = field(default_factory=list)  # rows of `train` that show an evaluation picture

    def is_evaluated(self, row: AuditedRow) -> bool:
        return row[:2] in self.evaluated

    def may_be_removed(self, row: AuditedRow) -> bool:
        return row[:2] == (self.audited, "train")

    def leaks(self, rows: Iterable[AuditedRow]) -> bool:
        """Return whether equal rows are both in the audited `train` and in an evaluation split."""
        return any(map(self.may_be_removed, rows)) and any(map(self.is_evaluated, rows))


@dataclass
class Pictures:
    """Data of all pictures that the audit compares."""

    rows: list[AuditedRow]
    thumbnails: np.ndarray  # gray, (rows, 64, 64), uint8
    blank: np.ndarray  # whether a picture has no detail, (rows,), bool
    keys: list[bytes]  # equal for exact copies


def load_audited(place: str) -> DatasetDict:
    """Load a corpus; if the folder has no corpus, load the pictures in it and its subfolders as one split."""
    folder = Path(place)
    if folder.is_dir() and not is_corpus(folder):
        return DatasetDict(pictures=picture_rows(folder))
    corpus = load_corpus(place)
    for split in corpus:
        check_schema(corpus, split, [])
    return corpus


def picture_rows(folder: Path) -> Dataset:
    paths = sorted(visible_files(folder, IMAGE_SUFFIXES))
    if not paths:
        raise UserError(f"{folder} has neither a corpus nor pictures")
    columns = {
        "image": [{"bytes": None, "path": str(path)} for path in paths],
        "image_id": [path.relative_to(folder).as_posix() for path in paths],
        "captions": [{"en": []}] * len(paths),
    }
    types = {name: feature for name, feature in features(["en"]).items() if name in columns}
    return keep_encoded(Dataset.from_dict(columns, features=Features(types)))


def audit(datasets: Mapping[str, DatasetDict], audited: str, num_processes: int | None = None) -> AuditReport:
    """
    Find rows that show the same picture, and rows with equal captions.

    Args:
        datasets (`Mapping[str, DatasetDict]`): Outputs of [`load_audited`] by name.
        audited (`str`): Name of the dataset that may lose rows. Pairs without a row of it are left out.
        num_processes (`int`, *optional*): Processes that decode, and threads that search; by default one per core
            that this process may use.

    Raises:
        [`UserError`]: A picture cannot be decoded.
    """
    num_processes = num_processes or cpu_count()
    report = AuditReport(audited, evaluated=set(evaluated_splits(datasets, audited)))
    for name, dataset in datasets.items():
        report.rows.update({(name, split): len(rows) for split, rows in dataset.items()})

    pictures = read_pictures(datasets, num_processes)
    found = find_pairs(pictures, report, num_processes)
    report.pairs = sorted(found, key=lambda pair: not report.leaks(pair[:2]))  # stable: rows stay in order
    leaked = {row for pair in report.pairs if report.leaks(pair[:2]) for row in pair[:2]}
    report.to_remove = [row for row in pictures.rows if row in leaked and report.may_be_removed(row)]

    groups = equal_captions(datasets, audited)
    report.caption_sets = sorted(groups, key=lambda group: (not report.leaks(group), -len(group)))
    return report


def check_train_remains(report: AuditReport) -> None:
    """Raise [`UserError`] if all rows of the audited `train` are to be removed."""
    if len(report.to_remove) < report.rows[report.audited, "train"]:
        return
    found = (row.dataset for pair in report.pairs if report.leaks(pair[:2]) for row in pair[:2])
    others = " or ".join(name for name in dict.fromkeys(found) if name != report.audited)
    cause = (
        f"is {others} the folder that it was built from?" if others else "its other splits show all of its pictures"
    )
    raise UserError(f"{report.audited}: no row of train would remain, so nothing was removed: {cause}")


def evaluated_splits(datasets: Mapping[str, DatasetDict], audited: str) -> Iterator[tuple[str, str]]:
    for name, dataset in datasets.items():
        for split in dataset:
            # If another dataset has only one split, for example a benchmark, models are evaluated on all of it.
            if split != "train" or (name != audited and len(dataset) == 1):
                yield name, split


def read_pictures(datasets: Mapping[str, DatasetDict], num_processes: int) -> Pictures:
    total = sum(len(rows) for dataset in datasets.values() for rows in dataset.values())
    pictures = Pictures([], np.empty((total, THUMBNAIL, THUMBNAIL), np.uint8), np.empty(total, bool), [])
    with tqdm(total=total, unit=" images", desc="decode", disable=None) as progress:
        for batch in map_in_order(decode_batch, encoded_batches(datasets), num_processes):
            place = slice(len(pictures.rows), len(pictures.rows) + len(batch.rows))
            pictures.thumbnails[place], pictures.blank[place] = batch.thumbnails, batch.blank
            pictures.rows += batch.rows
            pictures.keys += batch.keys
            progress.update(len(batch.rows))
    return pictures


def encoded_batches(datasets: Mapping[str, DatasetDict]) -> Iterator[list[tuple[AuditedRow, bytes]]]:
    for name, dataset in datasets.items():
        for split, rows in dataset.items():
            for batch in rows.select_columns(["image", "image_id"]).iter(PICTURES_PER_BATCH):
                encoded = [image_bytes(image) or b"" for image in batch["image"]]
                names = [AuditedRow(name, split, image_id) for image_id in batch["image_id"]]
                yield list(zip(names, encoded, strict=True))


def map_in_order(function: Callable, batches: Iterable, num_processes: int) -> Iterator:
    # `ProcessPoolExecutor.map` would take all batches at once: all encoded pictures would be in memory.
    if num_processes == 1:
        yield from map(function, batches)
        return
    with ProcessPoolExecutor(num_processes) as pool:
        waiting: deque = deque()
        for batch in batches:
            waiting.append(pool.submit(function, batch))
            if len(waiting) > 2 * num_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def decode_batch(batch: Sequence[tuple[AuditedRow, bytes]]) -> Pictures:
    described = []
    for row, encoded in batch:
        try:
            described.append(describe(encoded))
        except UserError as error:
            raise UserError(f"{row.dataset}, {row.split}: {row.image_id}: {error}") from None
    thumbnails, blank, keys = zip(*described, strict=True)
    return Pictures([row for row, _ in batch], np.stack(thumbnails), np.array(blank), list(keys))


def find_pairs(pictures: Pictures, report: AuditReport, threads: int) -> list[Pair]:
    # Group exact copies by their key, and compare only one picture of each group.
    copies: dict[bytes, list[int]] = defaultdict(list)
    for index, key in enumerate(pictures.keys):
        copies[key].append(index)
    found = [
        Match(1.0, *pair, "none", 1.0) for same in copies.values() for pair in pairs_of(same, same, pictures, report)
    ]

    # Match the distinct pictures that have detail, then pair all copies of two pictures that match.
    distinct = np.array([same[0] for same in copies.values() if not pictures.blank[same[0]]], dtype=np.int64)
    for match in find_matches(pictures.thumbnails[distinct], threads):
        larger, smaller = (copies[pictures.keys[distinct[index]]] for index in (match.larger, match.smaller))
        pairs = pairs_of(larger, smaller, pictures, report)
        found += [match._replace(larger=one, smaller=other) for one, other in pairs]

    found.sort(key=lambda match: (min(match[1:3]), max(match[1:3])))
    pairs = (as_pair(match, pictures.rows) for match in found)
    return [pair for pair in pairs if report.audited in (pair.first.dataset, pair.second.dataset)]


def picture_sets(pairs: Sequence[tuple[int, int]], count: int) -> list[list[int]]:
    """
    Return the sets of rows that pairs connect, also rows without a pair. Sets and rows are in ascending order.

    Args:
        pairs (`Sequence[tuple[int, int]]`): Rows that show the same picture.
        count (`int`): Number of rows.
    """
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    sets: dict[int, list[int]] = {}
    for row, picture in enumerate(connected_components(graph, directed=False)[1].tolist()):
        sets.setdefault(picture, []).append(row)
    return list(sets.values())


def pairs_of(one: list[int], other: list[int], pictures: Pictures, report: AuditReport) -> list[tuple[int, int]]:
    # Pair the copies of two pictures, or the copies of one picture. An archive may have thousands of empty tiles. With
    # more than `MOST_COPIES`, each copy is paired only with the first copy and with the first evaluated copy: the
    # number of pairs stays linear, and every leak has a pair.
    def few(copies: Sequence[int]) -> list[int]:
        evaluated = (index for index in copies if report.is_evaluated(pictures.rows[index]))
        return [copies[0], *islice(evaluated, 1)]

    many = max(len(one), len(other)) > MOST_COPIES
    pairs = {*product(one, few(other)), *product(few(one), other)} if many else set(product(one, other))
    return sorted({tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]} if one is other else pairs)


def as_pair(match: Match, rows: Sequence[AuditedRow]) -> Pair:
    if match.larger < match.smaller:
        return Pair(rows[match.larger], rows[match.smaller], match.similarity, match.turn, match.crop)
    turn = INVERSE_TURNS.get(match.turn, match.turn)
    return Pair(rows[match.smaller], rows[match.larger], match.similarity, turn, match.crop)


def equal_captions(datasets: Mapping[str, DatasetDict], audited: str) -> list[list[AuditedRow]]:
    groups: dict[bytes, list[AuditedRow]] = defaultdict(list)
    for name, dataset in datasets.items():
        for split, rows in dataset.items():
            for batch in rows.select_columns(["image_id", "captions"]).iter(CAPTIONS_PER_BATCH):
                for image_id, captions in zip(batch["image_id"], batch["captions"], strict=True):
                    texts = (captions or {}).get("en") or ()
                    if folded := {" ".join(text.split()).casefold() for text in texts if text}:
                        key = hashlib.sha256("\n".join(sorted(folded)).encode()).digest()
                        groups[key].append(AuditedRow(name, split, image_id))
    return [group for group in groups.values() if len(group) > 1 and any(row.dataset == audited for row in group)]
