"""Bootstrap intervals over images (Efron & Tibshirani 1993, chapter 13).

Query images are drawn with replacement, each with all of its captions. The gallery does not change. Draw n is equal
for every model, so the difference of two models has a paired bootstrap. Transductive assignments do not change either:
they are those of all images.
"""

from collections.abc import Iterator

import numpy as np

from rsmclip.eval.outcomes import Outcomes, chance_of, statistics

AT_ONCE = 4_000_000  # weights in memory
SEED = 0


def resamples(rows: int, samples: int) -> Iterator[np.ndarray]:
    """Yield bootstrap draws in batches `(draws, rows)`: how often each of `rows` images was drawn."""
    step = max(1, AT_ONCE // rows)
    for start in range(0, samples, step):
        draws = (np.random.default_rng([SEED, draw]) for draw in range(start, min(start + step, samples)))
        yield np.stack([np.bincount(rng.integers(rows, size=rows), minlength=rows) for rng in draws]).astype(float)


def draw_statistics(outcomes: Outcomes, samples: int) -> dict[tuple[str, str], np.ndarray]:
    """Compute every figure in each bootstrap draw. Returns values of shape `(samples,)` by language and metric."""
    drawn = [statistics(outcomes, weights) for weights in resamples(len(outcomes.ids), samples)]
    return {key: np.concatenate([part[key] for part in drawn]) for key in drawn[0]}


def interval(draws: np.ndarray) -> list[float]:
    """Return the bounds of the 95 % percentile interval. Draws without an image of the figure (NaN) are left out."""
    return [float(bound) for bound in np.nanpercentile(draws, [2.5, 97.5])]


def figures(outcomes: Outcomes, samples: int = 1000) -> list[dict]:
    """
    Compute every figure of a dataset, with an interval from `samples` bootstrap draws.

    Returns:
        `list[dict]`: Records with these fields. Median ranks count from 1, other figures are in percent.
            - `metric`, `value` and `interval` (95 %)
            - `language`: a code, `None` for probes, or `"mean"` over the languages
            - `to`: second language of a pair
            - `chance`: expected value of a random ranking, if known
            - `rows`: number of images or sentences
            - `texts`: number of texts
    """
    drawn = draw_statistics(outcomes, samples)
    records = []
    for (language, metric), value in statistics(outcomes, np.ones((1, len(outcomes.ids)))).items():
        one, _, other = language.partition(">")
        record = {"metric": metric, "value": float(value[0]), "interval": interval(drawn[language, metric])}
        record |= {"language": one or None, **({"to": other} if other else {})}
        records.append(record | described(outcomes, language, metric))
    return records


def described(outcomes: Outcomes, language: str, metric: str) -> dict:
    # The fields `chance`, `rows` and `texts` of a figure.
    classification = None
    for kind in ("zero_shot", "transductive"):
        if metric.startswith(kind):
            classification = getattr(outcomes, kind).get(language)
    if not language:
        classification = outcomes.probes[metric.partition("_probe")[0] + "_probe"]
    if classification is not None:
        guesses = 5 if metric == "zero_shot_top5_accuracy" else 1
        chance = 100 * min(1.0, guesses / len(classification.classes))
        return {"chance": chance, "rows": len(classification.rows)}
    if (retrieval := outcomes.retrieval.get(language)) is not None:
        chance = chance_of(retrieval).get(metric)
        known = {} if chance is None else {"chance": chance}
        return known | {"rows": len(retrieval.rows), "texts": len(retrieval.text_rows)}
    known = {"chance": 100 / len(outcomes.ids)} if metric.startswith("text_to_text") else {}
    return known | {"rows": len(outcomes.ids)}
