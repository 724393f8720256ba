"""Bootstrap intervals over images (Efron & Tibshirani 1993, chapter 13).

Images are drawn with replacement, each with all of its captions, from the queries; the gallery stays as it is. Draw n
of a seed is the same for every model, so the difference of two models is drawn in pairs.
"""

from collections.abc import Iterator

import numpy as np

from rsmclip.eval.outcomes import Outcomes, statistics

AT_ONCE = 4_000_000  # weights


def resamples(rows: int, samples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """
    Draws of a bootstrap, a few at a time.

    Args:
        rows (`int`): Number of images.
        samples (`int`): Number of draws.
        seed (`int`, *optional*, defaults to 0): Seed.

    Yields:
        `np.ndarray` of shape `(draws, rows)`: How often each image was drawn.
    """
    step = max(1, AT_ONCE // rows)
    for start in range(0, samples, step):
        draws = (np.random.default_rng([seed, draw]) for draw in range(start, min(start + step, samples)))
        yield np.stack([np.bincount(rng.integers(rows, size=rows), minlength=rows) for rng in draws]).astype(float)


def draw_statistics(outcomes: Outcomes, samples: int, seed: int = 0) -> dict[tuple[str, str], np.ndarray]:
    """Every figure in each draw, `(samples,)`."""
    drawn = [statistics(outcomes, weights) for weights in resamples(len(outcomes.ids), samples, seed)]
    return {key: np.concatenate([part[key] for part in drawn]) for key in drawn[0]}


def interval(draws: np.ndarray) -> list[float]:
    """The 95 % percentile interval of draws."""
    return [float(bound) for bound in np.percentile(draws, [2.5, 97.5])]
