"""Search for equal pictures. Two pictures are the same if one is made from the other by any combination of
re-encoding, resizing, quarter turns, mirroring, and cropping to the center (at least 80 % per side).

1. Every picture is squashed to a gray thumbnail of 64 pixels per side. Only the thumbnails are kept in memory.
2. A fingerprint finds candidates: brightness, contrast and the lowest frequencies of the cosine transform. Turning and
   mirroring only exchange and negate these frequencies, so sorted absolute values do not change. The fingerprints of
   all pictures are in a k-d tree. The crops of each picture, in steps of 2 % per side, are looked up in it.
3. Candidates are compared at all eight turns and at crops in steps of 1 % per side. The score is the correlation of
   detail: the frequencies from 3 to 24 half waves per side, computed on cosine transforms (Parseval's theorem).

The result is deterministic and does not depend on the number of threads.
"""

import hashlib
from collections.abc import Iterator
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
FREQUENCIES = 24  # half waves per side; hard compression of a picture of 60 pixels does not change lower frequencies
LOWEST_DETAIL = 3  # half waves per side; lower frequencies are light, or layout such as a shore across the picture
FINGERPRINT_ORDER = 5  # largest u + v of the frequencies in a fingerprint

# The thresholds were measured on RSICD at 150 pixels per side: 2,400 pictures transformed at random, of which 400 are
# the flattest pictures of RSICD.
# Distance of fingerprints: for the same picture, three of 2,400 are above 0.25, and one (flat) is above 0.32.
SEARCH_RADIUS = 0.32
BRIGHTNESS_TOLERANCE = 6.0  # difference in gray levels that equals the radius; the same pictures differ by up to 1.5
CONTRAST_TOLERANCE = 0.2  # relative difference that equals the radius; the same pictures differ by up to 0.15
# Correlation: at least 0.874 for the same picture, except 0.67 to 0.87 for six of the 400 flattest. Different places:
# at most 0.77 (two stadiums); in 50,000 parts of pictures one pair has 0.896, because of one straight bright edge, and
# SAME_EVERYWHERE rejects it. Another view of the same place, shifted or enlarged, has up to 0.863.
SAME = 0.87
# Correlation in the fifth of places that agree least: at least 0.84 for the same picture, 0.81 for the flattest (below
# 0.75 for 1 % of pictures saved at quality 20 or at 0.3 of their size). Different pictures with an equal black corner,
# half, frame or vignette: at most 0.76, but up to 0.80 for textures of 6 gray levels in a frame.
SAME_EVERYWHERE = 0.75
PLACE = 8  # side of a place, in pixels of a thumbnail
FULL_DETAIL = 4.0  # gray levels of detail (root mean square) from which a place has full weight
BLANK = 0.5  # gray levels of detail (root mean square); RSICD's flattest picture has 0.9, noise of one level 0.2
PICTURES_PER_BLOCK = 1024  # thumbnails that are in floating point at once

# Turns are counterclockwise, as in Pillow. Mirroring is left to right and comes first. The values say whether to
# transpose, then whether to reverse the rows, then whether to reverse the columns.
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
INVERSE_TURNS = {
    "quarter turn": "three-quarter turn",
    "three-quarter turn": "quarter turn",
}  # others: themselves


class Match(NamedTuple):
    """The best match of two pictures."""

    similarity: float  # correlation of detail, at most 1
    larger: int  # index of the picture that is cropped to its center
    smaller: int  # index of the other picture
    turn: str  # turn from the larger picture to the smaller, one of `TURNS`
    crop: float  # side of the crop as a fraction of the larger picture


def describe(encoded: bytes) -> tuple[np.ndarray, bool, bytes]:
    """Return the thumbnail, whether it is blank (has no detail to compare), and a key that exact copies share."""
    thumbnail = make_thumbnail(encoded)
    detail = spectra(thumbnail, 1.0, FREQUENCIES)[detail_weights() > 0]
    blank = bool(np.linalg.norm(detail) < BLANK)
    return thumbnail, blank, hashlib.sha256(decoded_pixels(encoded) if blank else thumbnail.tobytes()).digest()


def make_thumbnail(encoded: bytes) -> np.ndarray:
    """Return a picture squashed to a gray square, `(64, 64)`, `uint8`."""
    image = load_image(encoded, draft_side=2 * THUMBNAIL).convert("L")
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC))


def decoded_pixels(encoded: bytes) -> bytes:
    # Thumbnails of blank pictures may be equal by chance, all their pixels are not.
    image = load_image(encoded)
    return repr(image.size).encode() + image.convert("RGBA").tobytes()


def find_matches(thumbnails: np.ndarray, threads: int) -> list[Match]:
    """Return the matches among thumbnails, `(pictures, 64, 64)`, at most one for two pictures."""
    candidates = search(thumbnails, threads) if len(thumbnails) else []
    best: dict[tuple[int, int], Match] = {}
    for match in compare(thumbnails, candidates) if len(candidates) else []:
        indices = min(match[1:3]), max(match[1:3])
        if indices not in best or match.similarity > best[indices].similarity:
            best[indices] = match
    return list(best.values())


def search(thumbnails: np.ndarray, threads: int) -> np.ndarray:
    # Return candidates, `(candidates, 2)`, sorted: indices of a larger and of a smaller picture. A crop of the larger
    # picture and the smaller picture have similar fingerprints.
    count = len(thumbnails)
    blocks = np.array_split(np.arange(count), range(PICTURES_PER_BLOCK, count, PICTURES_PER_BLOCK))
    wholes = np.concatenate([fingerprints(thumbnails[block], 1.0) for block in blocks])
    tree = KDTree(wholes, leafsize=32, balanced_tree=False)
    found = []
    with tqdm(total=count, unit=" images", desc="search", disable=None) as progress:
        # In the order of the tree, consecutive queries visit the same nodes, so that these stay in the CPU cache.
        for block in np.array_split(tree.indices, range(PICTURES_PER_BLOCK, count, PICTURES_PER_BLOCK)):
            for side in SEARCHED_CROPS:
                near = tree.query_ball_point(fingerprints(thumbnails[block], side), SEARCH_RADIUS, workers=threads)
                larger = np.repeat(block, [len(indices) for indices in near])
                smaller = np.concatenate([*near, []]).astype(np.int64)
                found.append((larger * count + smaller)[larger != smaller])
            progress.update(len(block))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)


def compare(thumbnails: np.ndarray, candidates: np.ndarray) -> Iterator[Match]:
    # Transforms of all whole pictures, normalized to length 1: a dot product is then a correlation.
    weights, matrices = detail_weights(), np.stack([cosines(side, FREQUENCIES) for side in COMPARED_CROPS])
    blocks = range(0, len(thumbnails), PICTURES_PER_BLOCK)
    wholes = (spectra(thumbnails[start : start + PICTURES_PER_BLOCK], 1.0, FREQUENCIES) for start in blocks)
    details = np.concatenate([whiten(whole, weights) for whole in wholes]).reshape(len(thumbnails), -1)

    # Compare each larger picture, in all crops and turns, with all its candidates.
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
    # Correlation of detail in the fifth of places where two pictures agree least. If different pictures have an equal
    # black corner, frame or vignette, it is most of their detail. The whole pictures correlate, the rest does not.
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


def fingerprints(thumbnails: np.ndarray, side: float) -> np.ndarray:
    # Turning and mirroring change signs and exchange the coefficients (u, v) and (v, u). A fingerprint, `(…, 22)`, has
    # the larger and the smaller absolute value of each such pair.
    size = FINGERPRINT_ORDER + 1
    within = np.add.outer(np.arange(size), np.arange(size)) <= FINGERPRINT_ORDER
    transforms = spectra(thumbnails, side, size)
    weighted = transforms * frequencies(size) * within

    # Divide by the contrast. Otherwise the fingerprints of all flat pictures would be near zero.
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
    # Return the matrix, `(size, 64)`, of the cosine transform along one axis of a thumbnail, cropped to its center.
    # Cosines are integrated over each pixel, or over the part of a pixel that is inside the crop.
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
    # The weight is the frequency, because the amplitudes of pictures decrease with frequency.
    found = frequencies(FREQUENCIES)
    return np.where((found >= LOWEST_DETAIL) & (found < FREQUENCIES), found, 0)


def turn_spectra(transforms: np.ndarray, transpose: bool, flip_rows: bool, flip_columns: bool) -> np.ndarray:
    # Flipping an axis of a picture changes the sign of its odd frequencies.
    signs = (-1.0) ** np.arange(transforms.shape[-1], dtype=np.float32)
    turned = transforms.swapaxes(-2, -1) if transpose else transforms
    turned = turned * signs[:, None] if flip_rows else turned
    return turned * signs if flip_columns else turned
