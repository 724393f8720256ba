"""Finds rows of corpora that show the same picture, and rows with the same captions.

Corpora of remote sensing share pictures: across their own splits, and with each other. Two rows show the same picture
if one is the other re-encoded, resized, turned by quarter turns, mirrored or cut down to its centre, 80 % a side at
least, in any mix.

1. Every picture is squashed to a grey thumbnail, the only thing that is kept of it.
2. Pictures are looked up by a fingerprint: brightness, contrast and the lowest frequencies of the cosine transform,
   which turning and mirroring only exchange and negate, so that sorted absolute values stay as they are. The
   fingerprints of all pictures lie in a k-d tree; the crops of each, at steps of 2 % a side, are looked up in it.
3. What lies near is compared at all eight turns and at steps of 1 % a side: the correlation of detail, that is of the
   frequencies from 3 to 24 half waves a side, in the cosine transform too (Parseval).

Nothing is drawn by chance and nothing depends on the number of processes.
"""

import hashlib
import io
import json
import os
import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, combinations_with_replacement, product
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from datasets import Dataset, DatasetDict, Features
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import KDTree
from tqdm.auto import tqdm

from rsmclip.data.faults import IMAGE_ERRORS
from rsmclip.data.schema import SchemaError, check_schema, features, image_bytes, keep_encoded, load_corpus
from rsmclip.data.sources import SourceError

THUMBNAIL = 64  # pixels a side
SEARCHED_CROPS = np.arange(100, 79, -2) / 100
COMPARED_CROPS = np.arange(100, 78, -1) / 100  # one step below 80 %, for sides are rounded to whole pixels
FREQUENCIES = 24  # half waves a side; a picture of 60 pixels that was compressed hard still has these
LOWEST_DETAIL = 3  # half waves; slower changes are layout, such as a shore across the picture, or light
FINGERPRINT_ORDER = 5  # u + v of the frequencies in a fingerprint
# Measured on RSICD (150 pixels a side), 2,400 pictures transformed at random, 400 of them the flattest that it has.
# Fingerprints of the same picture: three are further away than 0.25, one of them, a flat one, than 0.32.
SEARCH_RADIUS = 0.32
BRIGHTNESS_TOLERANCE = 6.0  # grey levels that alone make up the radius; the same pictures differ by 1.5 at most
CONTRAST_TOLERANCE = 0.2  # a relative change that alone makes up the radius; the same pictures differ by 0.15 at most
# Correlation of the same picture: 0.874 at least, but 0.67 to 0.87 for six of the 400 flattest. Of near ones that show
# another place: 0.77 at most (two stadiums), and in 50,000 parts of the pictures one pair above, 0.896, whose detail
# is one straight bright edge. Another view of the same place, shifted or enlarged, comes up to 0.863.
SAME = 0.87
BLANK = 0.5  # grey levels of detail, root mean square; the flattest picture of RSICD has 0.9, noise of one level 0.2
PICTURES_PER_BATCH = 64  # encoded pictures that a process gets at once
PICTURES_PER_BLOCK = 1024  # thumbnails in floating point at once
SHOWN_PAIRS = 100  # in the Markdown, and as many sets of captions
SHOWN_ROWS = 10  # of a set of captions

# Counter-clockwise, as Pillow turns; mirroring is left to right and comes first. For each: transpose, then flip the
# order of rows, then that of columns.
TURNS = {
    "none": (False, False, False),
    "quarter turn": (True, True, False),
    "half turn": (False, True, True),
    "three-quarter turn": (True, False, True),
    "mirrored": (False, False, True),
    "mirrored, quarter turn": (True, False, False),
    "mirrored, half turn": (False, True, False),
    "mirrored, three-quarter turn": (True, True, True),
}
INVERSE_TURNS = {"quarter turn": "three-quarter turn", "three-quarter turn": "quarter turn"}  # others undo themselves


class AuditError(SourceError):
    """What is to be audited is no dataset, or has a picture that cannot be decoded."""


class AuditedRow(NamedTuple):
    """
    A row of a corpus.

    Args:
        dataset (`str`): Name of the dataset as the user gave it.
        split (`str`): Name of its split.
        image_id (`str`): Id of the row.
    """

    dataset: str
    split: str
    image_id: str


class Pair(NamedTuple):
    """
    Two rows that show the same picture.

    Args:
        first (`AuditedRow`): The one that comes first in the order of the datasets, splits and rows.
        second (`AuditedRow`): The other.
        similarity (`float`): Correlation of detail where they match best, at most 1.
        transform (`str`): How the second is turned and mirrored against the first, one of `TURNS`.
        crop (`float`): Side of the smaller picture in the larger; 1 for the same extent.
    """

    first: AuditedRow
    second: AuditedRow
    similarity: float
    transform: str
    crop: float


@dataclass
class AuditReport:
    """
    What an audit found.

    Args:
        audited (`str`): Name of the dataset whose rows may be removed.
        rows (`Counter`): Rows by (dataset, split).
        evaluated (`set[tuple[str, str]]`): Which of these are evaluated on.
        pairs (`list[Pair]`): Rows that show the same picture, leaks first, then in the order of the rows.
        caption_sets (`list[list[AuditedRow]]`):
            Rows with the same English captions, groups across training and evaluation first, then the largest.
        to_remove (`list[AuditedRow]`): Rows of `train` that show the same picture as a row that is evaluated on.
    """

    audited: str
    rows: Counter = field(default_factory=Counter)
    evaluated: set[tuple[str, str]] = field(default_factory=set)
    pairs: list[Pair] = field(default_factory=list)
    caption_sets: list[list[AuditedRow]] = field(default_factory=list)
    to_remove: list[AuditedRow] = field(default_factory=list)

    def is_evaluated(self, row: AuditedRow) -> bool:
        """Whether a row is evaluated on."""
        return row[:2] in self.evaluated

    def may_be_removed(self, row: AuditedRow) -> bool:
        """Whether a row is of the audited dataset's `train`."""
        return row[:2] == (self.audited, "train")

    def leaks(self, rows: Iterable[AuditedRow]) -> bool:
        """Whether rows that are the same cross from the audited `train` to evaluation."""
        return any(map(self.may_be_removed, rows)) and any(map(self.is_evaluated, rows))


@dataclass
class Pictures:
    """
    What an audit keeps of the pictures.

    Args:
        rows (`list[AuditedRow]`): Their rows.
        thumbnails (`np.ndarray`): Grey, `(rows, 64, 64)`, `uint8`.
        blank (`np.ndarray`): Which of them have no detail to compare, `(rows,)`, `bool`.
        keys (`list[bytes]`): Equal for copies: pictures that are exactly the same.
    """

    rows: list[AuditedRow]
    thumbnails: np.ndarray
    blank: np.ndarray
    keys: list[bytes]


class Match(NamedTuple):
    """How two pictures match best: the smaller one is `turn` of the centre of the larger one, `crop` a side."""

    similarity: float
    larger: int
    smaller: int
    turn: str
    crop: float


def load_audited(place: str) -> DatasetDict:
    """
    What is to be audited: a corpus, or a folder of pictures.

    Args:
        place (`str`):
            Folder or Hub id of a corpus, or any other folder: its pictures, in whatever folders within, are one split.

    Raises:
        [`AuditError`]: There are neither a corpus nor pictures.
    """
    folder = Path(place)
    is_corpus = any(folder.rglob("*.parquet")) or any(folder.rglob("*.arrow"))
    try:
        if folder.is_dir() and not is_corpus:
            return DatasetDict(pictures=picture_rows(folder))
        corpus = load_corpus(place)
        for split in corpus:
            check_schema(corpus, split, [])
    except SchemaError as error:
        raise AuditError(str(error)) from error
    return corpus


def picture_rows(folder: Path) -> Dataset:
    """The pictures in a folder as rows without captions; `river/river_7` is the id of `river/river_7.tif`."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in Image.registered_extensions()]
    if not paths:
        raise AuditError(f"{folder} holds neither a corpus nor pictures")
    columns = {
        "image": [{"bytes": None, "path": str(path)} for path in paths],
        "image_id": [path.relative_to(folder).with_suffix("").as_posix() for path in paths],
        "captions": [{"en": []}] * len(paths),
    }
    types = {name: feature for name, feature in features(["en"]).items() if name in columns}
    return keep_encoded(Dataset.from_dict(columns, features=Features(types)))


def audit(datasets: Mapping[str, DatasetDict], audited: str, num_processes: int | None = None) -> AuditReport:
    """
    Finds rows that show the same picture, and rows with the same captions.

    Args:
        datasets (`dict[str, DatasetDict]`):
            Corpora by name, as [`~rsmclip.data.schema.load_corpus`] gives them. Pairs without a row of `audited` are
            left out.
        audited (`str`):
            The one of which rows may be removed.
        num_processes (`int`, *optional*):
            Processes that decode, and threads that search; by default one for each core. What is found does not depend
            on it.

    Returns:
        [`AuditReport`]

    Raises:
        [`AuditError`]: A picture cannot be decoded.
    """
    num_processes = num_processes or os.cpu_count() or 1
    report = AuditReport(audited, evaluated=set(evaluated_splits(datasets, audited)))
    for name, dataset in datasets.items():
        report.rows.update({(name, split): len(rows) for split, rows in dataset.items()})
    pictures = read_pictures(datasets, num_processes)
    found = find_pairs(pictures, audited, num_processes)
    report.pairs = sorted(found, key=lambda pair: not report.leaks(pair[:2]))  # stable: rows stay in order
    leaked = {row for pair in report.pairs if report.leaks(pair[:2]) for row in pair[:2]}
    report.to_remove = [row for row in pictures.rows if row in leaked and report.may_be_removed(row)]
    groups = equal_captions(datasets, audited)
    report.caption_sets = sorted(groups, key=lambda group: (not report.leaks(group), -len(group)))
    return report


def evaluated_splits(datasets: Mapping[str, DatasetDict], audited: str) -> Iterator[tuple[str, str]]:
    """Splits that are evaluated on: all but `train`, and a whole dataset with one split only, unless it's audited."""
    for name, dataset in datasets.items():
        for split in dataset:
            if split != "train" or (name != audited and len(dataset) == 1):
                yield name, split


def read_pictures(datasets: Mapping[str, DatasetDict], num_processes: int) -> Pictures:
    """Thumbnails of all rows, decoded in processes; a few batches of encoded pictures are held at a time."""
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
    """Rows with their encoded pictures."""
    for name, dataset in datasets.items():
        for split, rows in dataset.items():
            for batch in rows.select_columns(["image", "image_id"]).iter(PICTURES_PER_BATCH):
                encoded = [image_bytes(image) or b"" for image in batch["image"]]
                names = [AuditedRow(name, split, image_id) for image_id in batch["image_id"]]
                yield list(zip(names, encoded, strict=True))


def map_in_order(function: Callable, batches: Iterable, num_processes: int) -> Iterator:
    """`map` in processes. That of an executor would take all batches, with their encoded pictures, at once."""
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
    """What is kept of a batch of pictures."""
    thumbnails, blank, keys = [], [], []
    for row, encoded in batch:
        try:
            thumbnails.append(make_thumbnail(encoded))
            blank.append(is_blank(thumbnails[-1]))
            keys.append(copy_key(encoded, thumbnails[-1], blank[-1]))
        except IMAGE_ERRORS as error:
            raise AuditError(f"{row.dataset}, {row.split}: {row.image_id}: image undecodable ({error})") from None
    return Pictures([row for row, _ in batch], np.stack(thumbnails), np.array(blank), keys)


def make_thumbnail(encoded: bytes) -> np.ndarray:
    """A picture squashed to grey, `(64, 64)`, `uint8`. Squashed, for a quarter turn exchanges width and height."""
    image = Image.open(io.BytesIO(encoded))
    if image.mode.startswith(("I", "F")):  # Pillow would cut off whatever is brighter than 255
        raise ValueError("not of 8 bits a channel")
    image.draft("L", (2 * THUMBNAIL, 2 * THUMBNAIL))  # large JPEGs are decoded at a fraction of their size
    return np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC))


def copy_key(encoded: bytes, thumbnail: np.ndarray, blank: bool) -> bytes:
    """
    A key that copies of a picture have in common.

    Pictures with detail are copies if their thumbnails are equal. Blank ones have equal thumbnails by chance, so for
    these it is the pixels that count.
    """
    pixels = thumbnail.tobytes()
    if blank:
        image = Image.open(io.BytesIO(encoded))
        pixels = repr(image.size).encode() + image.convert("RGBA").tobytes()
    return hashlib.sha256(pixels).digest()


@cache
def cosines(side: float, size: int) -> np.ndarray:
    """
    The matrix that takes one axis of a thumbnail to the cosine transform of its centre.

    Args:
        side (`float`): Side of the centre, as a fraction of the thumbnail's.
        size (`int`): Number of frequencies, from 0.

    Returns:
        `np.ndarray`: `(size, 64)`, the cosines integrated over each pixel, of which those at the border of the centre
        count as far as they lie in it.
    """
    borders = np.clip(np.linspace(0, 1, THUMBNAIL + 1), (1 - side) / 2, (1 + side) / 2)
    places = (borders - (1 - side) / 2) / side
    half_waves = np.arange(1, size)[:, None]
    integrals = np.diff(np.sin(np.pi * half_waves * places), axis=1) * np.sqrt(2) / (np.pi * half_waves)
    return np.concatenate([np.diff(places)[None], integrals]).astype(np.float32)


def spectra(thumbnails: np.ndarray, side: float, size: int) -> np.ndarray:
    """Cosine transform of the centres of thumbnails, `(thumbnails, size, size)`."""
    matrix = cosines(side, size)
    return matrix @ thumbnails.astype(np.float32) @ matrix.T


def frequencies(size: int) -> np.ndarray:
    """Half waves a side of the coefficients of a transform, `(size, size)`."""
    return np.hypot(*np.mgrid[:size, :size]).astype(np.float32)


def whiten(transforms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted transforms, `(…, size, size)`, at length 1."""
    weighted = transforms * weights
    return weighted / np.maximum(np.linalg.norm(weighted, axis=(-2, -1), keepdims=True), 1e-6)


@cache
def detail_weights() -> np.ndarray:
    """Weights of the frequencies that are detail, growing as those of pictures fall."""
    found = frequencies(FREQUENCIES)
    return np.where((found >= LOWEST_DETAIL) & (found < FREQUENCIES), found, 0)


def is_blank(thumbnail: np.ndarray) -> bool:
    """Whether a thumbnail has no detail that could be compared."""
    detail = spectra(thumbnail, 1.0, FREQUENCIES)[detail_weights() > 0]
    return bool(np.linalg.norm(detail) < BLANK)


def fingerprints(thumbnails: np.ndarray, side: float) -> np.ndarray:
    """
    What the centres of pictures have in common with their turned and mirrored versions, `(thumbnails, 22)`.

    Turning and mirroring change signs and exchange the two frequencies. So each pair of coefficients is kept as its
    larger and its smaller absolute value, which moves no two pictures further apart. They are divided by the contrast,
    lest flat pictures crowd around zero.
    """
    size = FINGERPRINT_ORDER + 1
    within = np.add.outer(np.arange(size), np.arange(size)) <= FINGERPRINT_ORDER
    transforms = spectra(thumbnails, side, size)
    weighted = transforms * frequencies(size) * within
    contrast = np.linalg.norm(weighted, axis=(1, 2))[:, None]
    low = np.abs(weighted) / np.maximum(contrast, 1e-6)[..., None]
    rows, columns = np.nonzero(np.triu(within, 1))
    pairs = np.stack([low[:, rows, columns], low[:, columns, rows]])
    diagonal = np.diagonal(low, axis1=1, axis2=2)[:, 1 : FINGERPRINT_ORDER // 2 + 1]
    brightness = transforms[:, 0, :1] * (SEARCH_RADIUS / BRIGHTNESS_TOLERANCE)
    contrast = np.log1p(contrast) * (SEARCH_RADIUS / CONTRAST_TOLERANCE)
    return np.concatenate([pairs.max(axis=0), pairs.min(axis=0), diagonal, brightness, contrast], axis=1)


def find_pairs(pictures: Pictures, audited: str, threads: int) -> list[Pair]:
    """All pairs that have a row of the audited dataset, in the order of the rows."""
    copies: dict[bytes, list[int]] = defaultdict(list)
    for index, key in enumerate(pictures.keys):
        copies[key].append(index)
    found = [Match(1.0, *pair, "none", 1.0) for same in copies.values() for pair in combinations(same, 2)]
    distinct = np.array([same[0] for same in copies.values() if not pictures.blank[same[0]]], dtype=np.int64)
    thumbnails = pictures.thumbnails[distinct]
    candidates = search(thumbnails, threads) if len(distinct) else np.empty((0, 2), np.int64)
    for match in best_matches(compare(thumbnails, candidates) if len(candidates) else []):
        larger, smaller = (copies[pictures.keys[distinct[index]]] for index in (match.larger, match.smaller))
        found += [match._replace(larger=one, smaller=other) for one, other in product(larger, smaller)]
    found.sort(key=lambda match: (min(match[1:3]), max(match[1:3])))
    pairs = (as_pair(match, pictures.rows) for match in found)
    return [pair for pair in pairs if audited in (pair.first.dataset, pair.second.dataset)]


def best_matches(matches: Iterable[Match]) -> list[Match]:
    """One match for two pictures, where each may be found in the other; the first of equals."""
    best: dict[tuple[int, int], Match] = {}
    for match in matches:
        indices = min(match[1:3]), max(match[1:3])
        if indices not in best or match.similarity > best[indices].similarity:
            best[indices] = match
    return list(best.values())


def as_pair(match: Match, rows: Sequence[AuditedRow]) -> Pair:
    """A match in the order of the rows."""
    if match.larger < match.smaller:
        return Pair(rows[match.larger], rows[match.smaller], match.similarity, match.turn, match.crop)
    turn = INVERSE_TURNS.get(match.turn, match.turn)
    return Pair(rows[match.smaller], rows[match.larger], match.similarity, turn, match.crop)


def search(thumbnails: np.ndarray, threads: int) -> np.ndarray:
    """
    Pictures of which a crop has a fingerprint near that of another picture.

    Returns:
        `np.ndarray`: `(candidates, 2)`, the larger and the smaller picture, sorted.
    """
    count = len(thumbnails)
    blocks = np.array_split(np.arange(count), range(PICTURES_PER_BLOCK, count, PICTURES_PER_BLOCK))
    wholes = np.concatenate([fingerprints(thumbnails[block], 1.0) for block in blocks])
    tree = KDTree(wholes, leafsize=32, balanced_tree=False)
    found = []
    with tqdm(total=count, unit=" images", desc="search", disable=None) as progress:
        # In the order of the tree: what the neighbour has just looked at is still in the processor's cache.
        for block in np.array_split(tree.indices, range(PICTURES_PER_BLOCK, count, PICTURES_PER_BLOCK)):
            for side in SEARCHED_CROPS:
                near = tree.query_ball_point(fingerprints(thumbnails[block], side), SEARCH_RADIUS, workers=threads)
                larger = np.repeat(block, [len(indices) for indices in near])
                smaller = np.concatenate([*near, []]).astype(np.int64)
                found.append((larger * count + smaller)[larger != smaller])
            progress.update(len(block))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)


def compare(thumbnails: np.ndarray, candidates: np.ndarray) -> Iterator[Match]:
    """Those of the candidates that show the same picture, in their order."""
    weights, matrices = detail_weights(), np.stack([cosines(side, FREQUENCIES) for side in COMPARED_CROPS])
    blocks = range(0, len(thumbnails), PICTURES_PER_BLOCK)
    wholes = (spectra(thumbnails[start : start + PICTURES_PER_BLOCK], 1.0, FREQUENCIES) for start in blocks)
    details = np.concatenate([whiten(whole, weights) for whole in wholes]).reshape(len(thumbnails), -1)
    starts = np.flatnonzero(np.diff(candidates[:, 0], prepend=-1))
    for group in tqdm(np.split(candidates, starts[1:]), unit=" images", desc="compare", disable=None):
        larger = group[0, 0]
        crops = whiten(matrices @ thumbnails[larger].astype(np.float32) @ matrices.swapaxes(1, 2), weights)
        turned = np.stack([turn_spectra(crops, *flips) for flips in TURNS.values()], axis=1)
        scores = turned.reshape(-1, details.shape[1]) @ details[group[:, 1]].T
        for smaller, best, score in zip(group[:, 1], scores.argmax(axis=0), scores.max(axis=0), strict=True):
            if score >= SAME:
                side, turn = divmod(int(best), len(TURNS))
                crop = float(COMPARED_CROPS[side])
                yield Match(min(1.0, round(float(score), 3)), int(larger), int(smaller), list(TURNS)[turn], crop)


def turn_spectra(transforms: np.ndarray, transpose: bool, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    """Cosine transforms, `(…, size, size)`, of pictures that are transposed, then flipped."""
    signs = (-1.0) ** np.arange(transforms.shape[-1], dtype=np.float32)
    turned = transforms.swapaxes(-2, -1) if transpose else transforms
    turned = turned * signs[:, None] if flip_rows else turned
    return turned * signs if flip_columns else turned


def equal_captions(datasets: Mapping[str, DatasetDict], audited: str) -> list[list[AuditedRow]]:
    """Rows with the same English captions, where one is of the audited dataset; white space and case don't count."""
    groups: dict[bytes, list[AuditedRow]] = defaultdict(list)
    for name, dataset in datasets.items():
        for split, rows in dataset.items():
            for batch in rows.select_columns(["image_id", "captions"]).iter(PICTURES_PER_BLOCK):
                for image_id, captions in zip(batch["image_id"], batch["captions"], strict=True):
                    if folded := {" ".join(text.split()).casefold() for text in captions.get("en") or () if text}:
                        key = hashlib.sha256("\n".join(sorted(folded)).encode()).digest()
                        groups[key].append(AuditedRow(name, split, image_id))
    return [group for group in groups.values() if len(group) > 1 and any(row.dataset == audited for row in group)]


def summary(report: AuditReport) -> str:
    """What was found in a few lines of Markdown, with a table of pairs by split."""
    crossing = sum(map(report.leaks, report.caption_sets))
    lines = [
        f"{sum(report.rows.values()):,} rows audited, {len(report.pairs):,} pairs show the same picture. "
        f"Rows of `train` that show what is evaluated on: {len(report.to_remove):,}. "
        f"Sets of captions at several rows: {len(report.caption_sets):,}, from `train` to evaluation {crossing:,}."
    ]
    if report.pairs:
        lines += ["", "| same picture in | and in | pairs |", "| --- | --- | ---: |"]
    counts = Counter((pair.first[:2], pair.second[:2]) for pair in report.pairs)
    for places in combinations_with_replacement(report.rows, 2):  # in the order of the datasets, as in each pair
        if counts[places]:
            lines.append("".join(f"| {dataset}, {split} " for dataset, split in places) + f"| {counts[places]:,} |")
    return "\n".join(lines)


def write_report(report: AuditReport, datasets: Mapping[str, DatasetDict], path: Path) -> None:
    """
    Writes a report as JSON, as Markdown beside it, and a folder of shown pairs. A report that is there is replaced,
    each part once the new one is complete.

    Args:
        report ([`AuditReport`]): What [`audit`] found.
        datasets (`dict[str, DatasetDict]`): What it was given, for the pictures.
        path (`Path`): The JSON file, `REPORT.json`; Markdown goes to `REPORT.md`, pictures to `REPORT_pairs`.

    Raises:
        `FileExistsError`: There is a folder of that name with something else in it.
    """
    path = path.resolve()
    text, folder = path.with_suffix(".md"), path.with_name(f"{path.stem}_pairs")
    if folder.exists() and any(file.suffix != ".jpg" for file in folder.iterdir()):
        raise FileExistsError(f"{folder} holds more than pictures of pairs, so it is not overwritten")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        (aside / "pairs").mkdir(parents=True)
        shown = report.pairs[:SHOWN_PAIRS]
        for number, image in enumerate(draw_pairs(shown, datasets), start=1):
            image.save(aside / "pairs" / f"{number:03}.jpg", quality=90)
        (aside / "json").write_text(json.dumps(as_json(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (aside / "md").write_text(as_markdown(report, quote(folder.name)), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        (aside / "pairs").rename(folder)
        (aside / "md").replace(text)
        (aside / "json").replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def as_json(report: AuditReport) -> dict:
    """A report, complete."""
    return {
        "audited": report.audited,
        "rows": [
            {"dataset": place[0], "split": place[1], "rows": count, "evaluated": place in report.evaluated}
            for place, count in report.rows.items()
        ],
        "pairs": [
            pair._asdict() | {"first": pair.first._asdict(), "second": pair.second._asdict()} for pair in report.pairs
        ],
        "to_remove": [row._asdict() for row in report.to_remove],
        "caption_sets": [[row._asdict() for row in group] for group in report.caption_sets],
    }


def as_markdown(report: AuditReport, folder: str) -> str:
    """A report to read: the first pairs with their pictures, and the first groups with their first rows."""
    parts = [f"# Audit of {report.audited}", summary(report)]
    if report.pairs:
        parts.append("## The same picture")
    for number, pair in enumerate(report.pairs[:SHOWN_PAIRS], start=1):
        leak = "**leak**, " if report.leaks(pair[:2]) else ""
        how = f"{leak}similarity {pair.similarity:.3f}, transform: {pair.transform}, crop {pair.crop:.2f}"
        parts.append(f"{number}. {in_words(pair.first)} and {in_words(pair.second)}: {how}")
        parts.append(f"![pair {number}]({folder}/{number:03}.jpg)")
    if len(report.pairs) > SHOWN_PAIRS:
        parts.append(f"… and {len(report.pairs) - SHOWN_PAIRS:,} more pairs, in the JSON file.")
    if report.caption_sets:
        parts.append("## The same captions")
    for group in report.caption_sets[:SHOWN_PAIRS]:
        more = f" … and {len(group) - SHOWN_ROWS:,} more" if len(group) > SHOWN_ROWS else ""
        parts.append(f"- {len(group):,} rows: " + "; ".join(map(in_words, group[:SHOWN_ROWS])) + more)
    if len(report.caption_sets) > SHOWN_PAIRS:
        parts.append(f"… and {len(report.caption_sets) - SHOWN_PAIRS:,} more sets, in the JSON file.")
    return "\n\n".join(parts) + "\n"


def in_words(row: AuditedRow) -> str:
    """A row as it is named in text."""
    return f"{row.dataset}, {row.split}, `{row.image_id}`"


def draw_pairs(pairs: Sequence[Pair], datasets: Mapping[str, DatasetDict]) -> Iterator[Image.Image]:
    """Pairs side by side, with the names of the rows below."""
    shown = {row for pair in pairs for row in pair[:2]}
    places = {
        AuditedRow(name, split, image_id): index
        for name, split in {row[:2] for row in shown}
        for index, image_id in enumerate(datasets[name][split]["image_id"])
    }
    for pair in pairs:
        encoded = [image_bytes(datasets[row.dataset][row.split][places[row]]["image"]) for row in pair[:2]]
        yield draw_pair([Image.open(io.BytesIO(picture)).convert("RGB") for picture in encoded], pair[:2])


def draw_pair(images: Sequence[Image.Image], rows: Sequence[AuditedRow]) -> Image.Image:
    """Two pictures at the same height, side by side, with the names of their rows below."""
    height, gap, line, font = 240, 8, 16, ImageFont.load_default(12)
    images = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    captions = [f"{row.dataset}, {row.split}\n{row.image_id}" for row in rows]
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    texts = [pen.multiline_textbbox((0, 0), caption, font=font)[2] for caption in captions]
    widths = [max(image.width, int(text) + 1) for image, text in zip(images, texts, strict=True)]
    sheet = Image.new("RGB", (sum(widths) + gap, height + 2 * line + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for image, caption, left in zip(images, captions, (0, widths[0] + gap), strict=True):
        sheet.paste(image, (left, 0))
        pen.multiline_text((left, height + 2), caption, fill=(40, 40, 40), font=font)
    return sheet
