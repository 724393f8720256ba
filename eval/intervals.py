"""Bootstrap intervals over images (Efron & Tibshirani 1993, chapter 13).

Query images are drawn with replacement, each with all of its captions. The gallery does not change. Draw n of a seed
is equal for every model, so the difference of two models has a paired bootstrap.
"""

from collections.abc import Iterator

import numpy as np

from rsmclip.eval.outcomes import Outcomes, chance_of, statistics

AT_ONCE = 4_000_000  # weights in memory


def resamples(rows: int, samples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield bootstrap draws in batches `(draws, rows)`: how often each of `rows` images was drawn."""
    step = max(1, AT_ONCE // rows)
    for start in range(0, samples, step):
        draws = (np.random.default_rng([seed, draw]) for draw in range(start, min(start + step, samples)))
        yield np.stack([np.bincount(rng.integers(rows, size=rows), minlength=rows) for rng in draws]).astype(float)


def draw_statistics(outcomes: Outcomes, samples: int, seed: int = 0) -> dict[tuple[str, str], np.ndarray]:
    """Compute every figure in each bootstrap draw: by language and metric the values, `(samples,)`."""
    drawn = [statistics(outcomes, weights) for weights in resamples(len(outcomes.ids), samples, seed)]
    return {key: np.concatenate([part[key] for part in drawn]) for key in drawn[0]}


def interval(draws: np.ndarray) -> list[float]:
    """Return the bounds of the 95 % percentile interval. Draws without an image of the figure (NaN) are left out."""
    return [float(bound) for bound in np.nanpercentile(draws, [2.5, 97.5])]


def figures(outcomes: Outcomes, samples: int = 1000, seed: int = 0) -> list[dict]:
    """
    Compute every figure of a dataset with its interval.

    Args:
        outcomes ([`Outcomes`]): Outcomes of a model.
        samples (`int`, *optional*, defaults to 1000): Number of bootstrap draws.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        `list[dict]`: Records of `metric`, `value`, `interval` (95 %), `language` (`None` for probes, `"mean"` over the
        languages), `to` (the second language of a pair), `chance` (the expected value of a random ranking, if known),
        `rows` (number of images or sentences) and `texts`. Median ranks count from 1, other figures are in percent.
    """
    drawn = draw_statistics(outcomes, samples, seed)
    records = []
    for (language, metric), value in statistics(outcomes, np.ones((1, len(outcomes.ids)))).items():
        one, _, other = language.partition(">")
        record = {"metric": metric, "value": float(value[0]), "interval": interval(drawn[language, metric])}
        record |= {"language": one or None, **({"to": other} if other else {})}
        records.append(record | described(outcomes, language, metric))
    return records


def described(outcomes: Outcomes, language: str, metric: str) -> dict:
    """Return `chance`, `rows` and `texts` of a figure."""
    if metric.startswith("zero_shot") and language in outcomes.zero_shot:
        classification = outcomes.zero_shot[language]
        guesses = 5 if metric == "zero_shot_top5_accuracy" else 1
        chance = 100 * min(1.0, guesses / len(classification.classes))
        return {"chance": chance, "rows": len(classification.rows)}
    if not language:
        classification = outcomes.probes[metric.removesuffix("_accuracy").removesuffix("_mean_per_class_recall")]
        return {"chance": 100 / len(classification.classes), "rows": len(classification.rows)}
    if language in outcomes.retrieval:
        retrieval = outcomes.retrieval[language]
        chance = chance_of(retrieval).get(metric)
        known = {} if chance is None else {"chance": chance}
        return known | {"rows": len(retrieval.rows), "texts": len(retrieval.text_rows)}
    known = {"chance": 100 / len(outcomes.ids)} if metric.startswith("text_to_text") else {}
    return known | {"rows": len(outcomes.ids)}
