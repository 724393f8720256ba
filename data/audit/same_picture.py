"""When two pictures are the same: one is the other re-encoded, resized, turned by quarter turns, mirrored, or cropped
to its center (at least 80 % per side), in any combination.

1. Every picture is squashed to a gray thumbnail. The audit keeps nothing else of it.
2. Candidates are found by a fingerprint: brightness, contrast and the lowest frequencies of the cosine transform.
   Turning and mirroring only exchange and negate these frequencies, so sorted absolute values do not change. The
   fingerprints of all pictures are in a k-d tree, in which the crops of each picture (steps of 2 % per side) are
   looked up.
3. Candidates are compared at all eight turns and at crops in steps of 1 % per side. The score is the correlation of
   detail, which is the frequencies from 3 to 24 half waves per side, computed on cosine transforms (Parseval).

Nothing is random, and nothing depends on the number of threads.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.spatial import KDTree
from tqdm.auto import tqdm

from rsmclip.data.faults import load_image

THUMBNAIL = 64  # pixels per side
SEARCHED_CROPS = np.arange(100, 79, -2) / 100
COMPARED_CROPS = np.arange(100, 78, -1) / 100  # one step below 80 %, because sides are rounded to whole pixels
FREQUENCIES = 24  # half waves per side; a picture of 60 pixels keeps these even if compressed hard
LOWEST_DETAIL = 3  # half waves; slower changes are light, or layout such as a shore across the picture
FINGERPRINT_ORDER = 5  # largest u + v of the frequencies in a fingerprint

# The thresholds were measured on RSICD at 150 pixels per side: 2,400 pictures transformed at random, 400 of them the
# flattest pictures of RSICD.
# Distance of fingerprints: for the same picture, three of 2,400 are above 0.25, one of these (flat) above 0.32.
SEARCH_RADIUS = 0.32
BRIGHTNESS_TOLERANCE = 6.0  # gray levels that use up the radius alone; the same pictures differ by at most 1.5
CONTRAST_TOLERANCE = 0.2  # relative change that uses up the radius alone; the same pictures differ by at most 0.15
# Correlation: at least 0.874 for the same picture, except 0.67 to 0.87 for six of the 400 flattest. Different places:
# at most 0.77 (two stadiums); in 50,000 parts of pictures one pair reaches 0.896, with one straight bright edge,
# which SAME_EVERYWHERE rejects. Another view of the same place, shifted or enlarged, reaches 0.863.
SAME = 0.87
# Correlation in the fifth of places that agree least: at least 0.84 for the same picture, 0.81 for the flattest (below
# 0.75 for 1 % of pictures saved at quality 20 or at 0.3 of their size). Different pictures that share a black corner,
# half, frame or vignette: at most 0.76, but up to 0.80 for textures of 6 gray levels in a frame.
SAME_EVERYWHERE = 0.75
PLACE = 8  # pixels per side of a place
FULL_DETAIL = 4.0  # gray levels of detail (root mean square) from which a place has full weight
BLANK = 0.5  # gray levels of detail (root mean square); RSICD's flattest picture has 0.9, noise of one level 0.2
PICTURES_PER_BLOCK = 1024  # thumbnails that are in floating point at once

# Counterclockwise, as in Pillow; mirroring is left to right and comes first. For each turn: whether to transpose, then
# to flip the order of rows, then to flip the order of columns.
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
INVERSE_TURNS = {"quarter turn": "three-quarter turn", "three-quarter turn": "quarter turn"}  # others: themselves


class Match(NamedTuple):
    """The best match of two pictures."""

    similarity: float  # correlation of detail, at most 1
    larger: int  # index of the picture that is cropped to its center
    smaller: int  # index of the other picture
    turn: str  # from the larger picture to the smaller, one of `TURNS`
    crop: float  # side of the crop as a fraction of the larger picture


def make_thumbnail(encoded: bytes) -> np.ndarray:
    """Return a picture squashed to a gray square, `(64, 64)`, `uint8`: a quarter turn exchanges width and height."""
    image = load_image(encoded, draft_side=2 * THUMBNAIL).convert("L")
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC))


def copy_key(encoded: bytes, thumbnail: np.ndarray, blank: bool) -> bytes:
    """Return a key that is equal for copies of a picture."""
    pixels = thumbnail.tobytes()
    if blank:  # thumbnails of blank pictures may be equal by chance
        image = load_image(encoded)
        pixels = repr(image.size).encode() + image.convert("RGBA").tobytes()
    return hashlib.sha256(pixels).digest()


def is_blank(thumbnail: np.ndarray) -> bool:
    """Return whether a thumbnail has no detail to compare."""
    detail = spectra(thumbnail, 1.0, FREQUENCIES)[detail_weights() > 0]
    return bool(np.linalg.norm(detail) < BLANK)


def search(thumbnails: np.ndarray, threads: int) -> np.ndarray:
    """
    Find pictures that have a crop with a fingerprint near that of another picture.

    Returns:
        `np.ndarray`: `(candidates, 2)`, index of the larger and of the smaller picture, sorted.
    """
    count = len(thumbnails)
    blocks = np.array_split(np.arange(count), range(PICTURES_PER_BLOCK, count, PICTURES_PER_BLOCK))
    wholes = np.concatenate([fingerprints(thumbnails[block], 1.0) for block in blocks])
    tree = KDTree(wholes, leafsize=32, balanced_tree=False)
    found = []
    with tqdm(total=count, unit=" images", desc="search", disable=None) as progress:
        # In the order of the tree, consecutive queries visit the same nodes, which are then in the processor's cache.
        for block in np.array_split(tree.indices, range(PICTURES_PER_BLOCK, count, PICTURES_PER_BLOCK)):
            for side in SEARCHED_CROPS:
                near = tree.query_ball_point(fingerprints(thumbnails[block], side), SEARCH_RADIUS, workers=threads)
                larger = np.repeat(block, [len(indices) for indices in near])
                smaller = np.concatenate([*near, []]).astype(np.int64)
                found.append((larger * count + smaller)[larger != smaller])
            progress.update(len(block))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)


def compare(thumbnails: np.ndarray, candidates: np.ndarray) -> Iterator[Match]:
    """Yield the candidates, `(candidates, 2)`, that show the same picture, in their order."""
    # Transforms of all whole pictures, at length 1, so that a dot product is a correlation.
    weights, matrices = detail_weights(), np.stack([cosines(side, FREQUENCIES) for side in COMPARED_CROPS])
    blocks = range(0, len(thumbnails), PICTURES_PER_BLOCK)
    wholes = (spectra(thumbnails[start : start + PICTURES_PER_BLOCK], 1.0, FREQUENCIES) for start in blocks)
    details = np.concatenate([whiten(whole, weights) for whole in wholes]).reshape(len(thumbnails), -1)

    # For each larger picture, all crops at all turns against all of its candidates.
    starts = np.flatnonzero(np.diff(candidates[:, 0], prepend=-1))
    for group in tqdm(np.split(candidates, starts[1:]), unit=" images", desc="compare", disable=None):
        larger = group[0, 0]
        crops = whiten(matrices @ thumbnails[larger].astype(np.float32) @ matrices.swapaxes(1, 2), weights)
        turned = np.stack([turn_spectra(crops, *flips) for flips in TURNS.values()], axis=1)
        scores = turned.reshape(-1, details.shape[1]) @ details[group[:, 1]].T  # (crops · turns, candidates)
        for smaller, best, score in zip(group[:, 1], scores.argmax(axis=0), scores.max(axis=0), strict=True):
            if score >= SAME:
                side, turn = divmod(int(best), len(TURNS))
                crop, name = float(COMPARED_CROPS[side]), list(TURNS)[turn]
                if agreement(thumbnails[larger], thumbnails[smaller], crop, name) >= SAME_EVERYWHERE:
                    yield Match(min(1.0, round(float(score), 3)), int(larger), int(smaller), name, crop)


def agreement(larger: np.ndarray, smaller: np.ndarray, crop: float, turn: str) -> float:
    # Correlation of detail in the fifth of places where two pictures agree least. Different pictures that share a
    # black corner, a frame or a vignette correlate as a whole, because it makes up most of their detail. The rest of
    # the picture does not correlate.
    waves = cosines(1.0, FREQUENCIES) * THUMBNAIL
    center = turn_spectra(spectra(larger, crop, FREQUENCIES), *TURNS[turn])
    transforms = np.stack([center, spectra(smaller, 1.0, FREQUENCIES)])
    weighted = in_places(waves.T @ (transforms * detail_weights()) @ waves)
    detail = in_places(waves.T @ (transforms * (detail_weights() > 0)) @ waves)
    lengths = np.linalg.norm(weighted, axis=-1)
    correlations = (weighted[0] * weighted[1]).sum(axis=-1) / np.maximum(lengths.prod(axis=0), 1e-9)
    counts = np.minimum(1, np.square(detail).mean(axis=-1).max(axis=0) / FULL_DETAIL**2)  # flat places are noise
    order = np.argsort(correlations)
    shares = counts[order].cumsum()
    return float(correlations[order][np.searchsorted(shares, 0.2 * shares[-1])])


def in_places(pictures: np.ndarray) -> np.ndarray:
    count = THUMBNAIL // PLACE
    places = pictures.reshape(-1, count, PLACE, count, PLACE).swapaxes(2, 3)
    return places.reshape(len(pictures), count**2, PLACE**2)  # (pictures, places, pixels)


def best_matches(matches: Iterable[Match]) -> list[Match]:
    """Keep one match of two pictures that were found in each other: the one with the higher similarity."""
    best: dict[tuple[int, int], Match] = {}
    for match in matches:
        indices = min(match[1:3]), max(match[1:3])
        if indices not in best or match.similarity > best[indices].similarity:
            best[indices] = match
    return list(best.values())


def fingerprints(thumbnails: np.ndarray, side: float) -> np.ndarray:
    # Turning and mirroring change signs and exchange the two frequencies of a coefficient. A fingerprint, `(…, 22)`,
    # therefore has the larger and the smaller absolute value of each pair of coefficients.
    size = FINGERPRINT_ORDER + 1
    within = np.add.outer(np.arange(size), np.arange(size)) <= FINGERPRINT_ORDER
    transforms = spectra(thumbnails, side, size)
    weighted = transforms * frequencies(size) * within

    # Without division by the contrast, flat pictures would all be near zero.
    contrast = np.linalg.norm(weighted, axis=(1, 2))[:, None]
    low = np.abs(weighted) / np.maximum(contrast, 1e-6)[..., None]
    rows, columns = np.nonzero(np.triu(within, 1))
    pairs = np.stack([low[:, rows, columns], low[:, columns, rows]])
    diagonal = np.diagonal(low, axis1=1, axis2=2)[:, 1 : FINGERPRINT_ORDER // 2 + 1]
    brightness = transforms[:, 0, :1] * (SEARCH_RADIUS / BRIGHTNESS_TOLERANCE)
    contrast = np.log1p(contrast) * (SEARCH_RADIUS / CONTRAST_TOLERANCE)
    return np.concatenate([pairs.max(axis=0), pairs.min(axis=0), diagonal, brightness, contrast], axis=1)


@cache
def cosines(side: float, size: int) -> np.ndarray:
    # Matrix, `(size, 64)`, from one axis of a thumbnail to the cosine transform of its center. Cosines are integrated
    # over each pixel, and a pixel at the border counts with the part that is inside.
    borders = np.clip(np.linspace(0, 1, THUMBNAIL + 1), (1 - side) / 2, (1 + side) / 2)
    places = (borders - (1 - side) / 2) / side
    half_waves = np.arange(1, size)[:, None]
    integrals = np.diff(np.sin(np.pi * half_waves * places), axis=1) * np.sqrt(2) / (np.pi * half_waves)
    return np.concatenate([np.diff(places)[None], integrals]).astype(np.float32)


def spectra(thumbnails: np.ndarray, side: float, size: int) -> np.ndarray:
    matrix = cosines(side, size)
    return matrix @ thumbnails.astype(np.float32) @ matrix.T  # (…, size, size)


def frequencies(size: int) -> np.ndarray:
    return np.hypot(*np.mgrid[:size, :size]).astype(np.float32)  # half waves per side


def whiten(transforms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    weighted = transforms * weights
    return weighted / np.maximum(np.linalg.norm(weighted, axis=(-2, -1), keepdims=True), 1e-6)


@cache
def detail_weights() -> np.ndarray:
    # Weights grow with frequency, because the amplitudes of pictures fall with it.
    found = frequencies(FREQUENCIES)
    return np.where((found >= LOWEST_DETAIL) & (found < FREQUENCIES), found, 0)


def turn_spectra(transforms: np.ndarray, transpose: bool, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    # Flipping an axis of a picture changes the sign of its odd frequencies.
    signs = (-1.0) ** np.arange(transforms.shape[-1], dtype=np.float32)
    turned = transforms.swapaxes(-2, -1) if transpose else transforms
    turned = turned * signs[:, None] if flip_rows else turned
    return turned * signs if flip_columns else turned
