"""Divide images into train, val and test. Images that show one picture, as in the leakage audit, stay together."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from rsmclip.core.cores import cpu_count
from rsmclip.core.errors import UserError
from rsmclip.data.audit.leaks import (
    PICTURES_PER_BATCH,
    AuditedRow,
    AuditReport,
    Pictures,
    decode_batch,
    find_pairs,
    map_in_order,
    picture_sets,
)
from rsmclip.data.faults import SPLITS
from rsmclip.data.sources.protocol import SourceRow

CORPUS = "corpus"  # name of the audited dataset


class Division(NamedTuple):
    """Percent of the images in each of `SPLITS`, and the seed of the draw."""

    percent: tuple[float, ...]
    seed: int = 0

    @classmethod
    def parse(cls, text: object, seed: int = 0) -> "Division":
        """Read `"80/10/10"`. Raises [`UserError`] unless it has three numbers of at least 0 with the sum 100."""
        try:
            percent = tuple(map(float, str(text).split("/")))
        except ValueError:
            percent = ()
        if len(percent) != len(SPLITS) or not (min(percent) >= 0 and math.isclose(sum(percent), 100)):
            needs = f"needs the percent of {', '.join(SPLITS)}, which add up to 100, as in 80/10/10"
            raise UserError(f"--split {needs}: it is {text!r}")
        return cls(percent, seed)

    def __str__(self) -> str:
        return f"--split {'/'.join(f'{part:g}' for part in self.percent)} --seed {self.seed}"


def divide(rows: Iterable[tuple[SourceRow, bytes]], division: Division) -> dict[str, str]:
    """
    Return the splits of the images that state none, by `image_id`.

    An image that shows the picture of an image with a stated split gets that split. The others are drawn. The numbers
    of images are exact, unless a set of images with the same picture is larger than what a split still lacks.

    Args:
        rows (`Iterable[tuple[SourceRow, bytes]]`): All usable rows, and their encoded images.
        division ([`Division`]): Shares of the splits.

    Raises:
        [`UserError`]: There are fewer different pictures than splits.
    """
    stated: dict[str, str | None] = {}

    def batches() -> Iterator[list[tuple[AuditedRow, bytes]]]:
        pictures = iter(rows)
        while batch := list(islice(pictures, PICTURES_PER_BATCH)):
            stated.update((row["image_id"], row["split"]) for row, _ in batch)
            yield [(AuditedRow(CORPUS, "", row["image_id"]), encoded) for row, encoded in batch]

    sets = same_pictures(batches())
    splits: dict[str, str] = {}
    drawn: list[list[str]] = []
    for image_ids in sets:
        known = {stated[image_id] for image_id in image_ids} - {None}
        if known:  # evaluation first: a picture that is evaluated must not be trained on
            split = next(split for split in reversed(SPLITS) if split in known)
            splits |= {image_id: split for image_id in image_ids if stated[image_id] is None}
        else:
            drawn.append(sorted(image_ids))
    drawn.sort()  # the order of the lines of a file does not matter
    for image_ids, part in zip(drawn, draw_parts(list(map(len, drawn)), division), strict=True):
        splits |= dict.fromkeys(image_ids, SPLITS[part])
    return splits


def same_pictures(batches: Iterable[list[tuple[AuditedRow, bytes]]]) -> list[list[str]]:
    """Return the ids of the images that show each picture."""
    processes = cpu_count()
    decoded = list(map_in_order(decode_batch, batches, processes))
    if not decoded:
        return []
    pictures = Pictures(
        [row for part in decoded for row in part.rows],
        np.concatenate([part.thumbnails for part in decoded]),
        np.concatenate([part.blank for part in decoded]),
        [key for part in decoded for key in part.keys],
    )
    places = {row: place for place, row in enumerate(pictures.rows)}
    pairs = find_pairs(pictures, AuditReport(CORPUS), processes)
    sets = picture_sets([(places[pair.first], places[pair.second]) for pair in pairs], len(places))
    return [[pictures.rows[place].image_id for place in same] for same in sets]


def draw_parts(sizes: Sequence[int], division: Division) -> list[int]:
    """Draw the split of each set of images, as an index of `SPLITS`. No split with a share of its own stays empty."""
    wanted = [part for part, percent in enumerate(division.percent) if percent > 0]
    if not sizes:
        return []
    if len(sizes) < len(wanted):
        raise UserError(f"{division} makes {len(wanted)} splits, more than there are different pictures: {len(sizes)}")
    rng, parts, empty = random.Random(division.seed), [0] * len(sizes), set(wanted)
    lacking = whole_numbers(sum(sizes), division.percent)
    # Large sets come first, so that single images can fill what is lacking exactly.
    order = sorted(rng.sample(range(len(sizes)), len(sizes)), key=lambda number: -sizes[number])
    for left, number in zip(range(len(sizes), 0, -1), order, strict=True):
        fitting = [part for part in wanted if lacking[part] >= sizes[number]] or [max(wanted, key=lacking.__getitem__)]
        choices = sorted(empty) if len(empty) == left else fitting
        [part] = rng.choices(choices, [max(lacking[part], 1) for part in choices])
        lacking[part] -= sizes[number]
        empty.discard(part)
        parts[number] = part
    return parts


def whole_numbers(total: int, percent: Sequence[float]) -> list[int]:
    # Shares of a total by the method of the largest remainder. No share above 0 becomes 0.
    exact = [total * part / 100 for part in percent]
    counts = [max(1, math.floor(share)) if share else 0 for share in exact]
    for part in sorted(range(len(counts)), key=lambda part: counts[part] - exact[part])[: max(0, total - sum(counts))]:
        counts[part] += 1
    while sum(counts) > total:
        counts[counts.index(max(counts))] -= 1
    return counts
