"""When two pictures are the same: one is the other re-encoded, resized, turned by quarter turns, mirrored or cut down
to its centre, 80 % a side at least, in any mix.

1. Every picture is squashed to a grey thumbnail, the only thing that is kept of it.
2. Pictures are looked up by a fingerprint: brightness, contrast and the lowest frequencies of the cosine transform,
   which turning and mirroring only exchange and negate, so that sorted absolute values stay as they are. The
   fingerprints of all pictures lie in a k-d tree; the crops of each, at steps of 2 % a side, are looked up in it.
3. What lies near is compared at all eight turns and at steps of 1 % a side: the correlation of detail, that is of the
   frequencies from 3 to 24 half waves a side, in the cosine transform too (Parseval).

Nothing is drawn by chance and nothing depends on the number of threads.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.spatial import KDTree
from tqdm.auto import tqdm

from rsmclip.core.images import open_encoded

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
# is one straight bright edge (the rule below tells it apart). Another view of the same place, shifted or enlarged,
# comes up to 0.863.
SAME = 0.87
# The same, in the fifth of places where they agree least: 0.84 at least, 0.81 for the flattest (1 % of pictures saved
# at quality 20, or at 0.3 of their size, are below 0.75). Different pictures whose detail is mostly a black corner,
# half, frame or vignette that they share: 0.76 at most, but up to 0.80 for textures of 6 grey levels in a frame.
SAME_EVERYWHERE = 0.75
PLACE = 8  # pixels a side of a place
FULL_DETAIL = 4.0  # grey levels of detail, root mean square, from which a place counts in full
BLANK = 0.5  # grey levels of detail, root mean square; the flattest picture of RSICD has 0.9, noise of one level 0.2
PICTURES_PER_BLOCK = 1024  # thumbnails in floating point at once

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


class Match(NamedTuple):
    """How two pictures match best: the smaller one is `turn` of the centre of the larger one, `crop` a side."""

    similarity: float
    larger: int
    smaller: int
    turn: str
    crop: float


def make_thumbnail(encoded: bytes) -> np.ndarray:
    """A picture squashed to grey, `(64, 64)`, `uint8`. Squashed, for a quarter turn exchanges width and height."""
    image = open_encoded(encoded)
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
        image = open_encoded(encoded)
        pixels = repr(image.size).encode() + image.convert("RGBA").tobytes()
    return hashlib.sha256(pixels).digest()


def is_blank(thumbnail: np.ndarray) -> bool:
    """Whether a thumbnail has no detail that could be compared."""
    detail = spectra(thumbnail, 1.0, FREQUENCIES)[detail_weights() > 0]
    return bool(np.linalg.norm(detail) < BLANK)


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
                crop, name = float(COMPARED_CROPS[side]), list(TURNS)[turn]
                if agreement(thumbnails[larger], thumbnails[smaller], crop, name) >= SAME_EVERYWHERE:
                    yield Match(min(1.0, round(float(score), 3)), int(larger), int(smaller), name, crop)


def agreement(larger: np.ndarray, smaller: np.ndarray, crop: float, turn: str) -> float:
    """
    Correlation of detail in the fifth of places where two pictures agree least.

    A black corner, a frame or a vignette that different pictures have in common makes up most of their detail, so that
    they correlate as a whole. What is inside does not.

    Args:
        larger (`np.ndarray`): Thumbnail, `(64, 64)`, of which the centre is compared.
        smaller (`np.ndarray`): Thumbnail, `(64, 64)`.
        crop (`float`): Side of the centre.
        turn (`str`): What turns the larger picture into the smaller, one of `TURNS`.
    """
    waves = cosines(1.0, FREQUENCIES) * THUMBNAIL
    centre = turn_spectra(spectra(larger, crop, FREQUENCIES), *TURNS[turn])
    transforms = np.stack([centre, spectra(smaller, 1.0, FREQUENCIES)])
    weighted = in_places(waves.T @ (transforms * detail_weights()) @ waves)
    detail = in_places(waves.T @ (transforms * (detail_weights() > 0)) @ waves)
    lengths = np.linalg.norm(weighted, axis=-1)
    correlations = (weighted[0] * weighted[1]).sum(axis=-1) / np.maximum(lengths.prod(axis=0), 1e-9)
    counts = np.minimum(1, np.square(detail).mean(axis=-1).max(axis=0) / FULL_DETAIL**2)  # flat places are noise
    order = np.argsort(correlations)
    shares = counts[order].cumsum()
    return float(correlations[order][np.searchsorted(shares, 0.2 * shares[-1])])


def in_places(pictures: np.ndarray) -> np.ndarray:
    """Pictures, `(pictures, 64, 64)`, cut into squares, `(pictures, places, pixels)`."""
    count = THUMBNAIL // PLACE
    places = pictures.reshape(-1, count, PLACE, count, PLACE).swapaxes(2, 3)
    return places.reshape(len(pictures), count**2, PLACE**2)


def best_matches(matches: Iterable[Match]) -> list[Match]:
    """One match for two pictures, where each may be found in the other; the first of equals."""
    best: dict[tuple[int, int], Match] = {}
    for match in matches:
        indices = min(match[1:3]), max(match[1:3])
        if indices not in best or match.similarity > best[indices].similarity:
            best[indices] = match
    return list(best.values())


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


def turn_spectra(transforms: np.ndarray, transpose: bool, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    """Cosine transforms, `(…, size, size)`, of pictures that are transposed, then flipped."""
    signs = (-1.0) ** np.arange(transforms.shape[-1], dtype=np.float32)
    turned = transforms.swapaxes(-2, -1) if transpose else transforms
    turned = turned * signs[:, None] if flip_rows else turned
    return turned * signs if flip_columns else turned
