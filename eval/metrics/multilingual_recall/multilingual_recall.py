"""Recall@k between images and captions in each language as an `evaluate.Metric`."""

import functools
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from rsmclip.eval.metrics.cross_modal_recall.cross_modal_recall import recall_of_examples

_DESCRIPTION = """
Recall@k of cross-modal retrieval in each language, the mean over the languages, and the gap to English. The figures of
a language are those of the metric `cross_modal_recall` for the images that have captions in this language.

The gap of a language is mean recall in English minus mean recall in the language, in points. Both are computed over
the images with captions in both languages, because a smaller gallery is easier. Give each image as many captions in
every language as in English.

An example is an image with all of its captions and the language of each caption.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of lists of `float`): Image embeddings, `(images, dim)`.
    references (list of lists of lists of `float`): Embeddings of the captions of each image in all languages,
        `(images, captions of the image, dim)`.
    languages (list of lists of `str`): Language code of each caption of each image.
    ks (sequence of `int`, *optional*, defaults to `(1, 5, 10)`): Numbers of retrieved items.

Returns:
    `dict[str, float]`: The figures of `cross_modal_recall` for each language, such as `pt_mean_recall`, and their
    means over the languages, such as `mean_recall`. With English also gaps, such as `pt_gap_to_english`, and their
    mean, `gap_to_english`. In percent. Row numbers in errors count the images or captions of the language.

Examples:

    >>> import evaluate
    >>> metric = evaluate.load("eval/metrics/multilingual_recall")
    >>> metric.add_batch(
    ...     predictions=[[1.0, 0.0], [0.0, 1.0]],
    ...     references=[[[0.9, 0.1], [0.8, 0.3]], [[0.2, 0.9], [0.7, 0.4]]],
    ...     languages=[["en", "pt"], ["en", "pt"]],
    ... )
    >>> result = metric.compute(ks=[1])
    >>> result["en_mean_recall"], result["pt_mean_recall"], result["mean_recall"], result["pt_gap_to_english"]
    (100.0, 75.0, 87.5, 25.0)
"""

_CITATION = """
@inproceedings{silva2024multilingual,
  title = {Multilingual Vision-Language Pre-training for the Remote Sensing Domain},
  author = {Silva, Jo{\\~a}o Daniel and Magalh{\\~a}es, Jo{\\~a}o and Tuia, Devis and Martins, Bruno},
  booktitle = {Proceedings of the 32nd ACM International Conference on Advances in Geographic Information Systems},
  year = {2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MultilingualRecall(evaluate.Metric):
    """[`~rsmclip.eval.retrieval.retrieval_metrics`] in each language as an `evaluate.Metric`."""

    def _info(self) -> evaluate.MetricInfo:
        embedding = datasets.List(datasets.Value("float32"))
        columns = {"predictions": embedding, "references": datasets.List(embedding)}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(columns | {"languages": datasets.List(datasets.Value("string"))}),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[list[float]]],
        languages: list[list[str]],
        ks: Sequence[int] = (1, 5, 10),
    ) -> dict[str, float]:
        captions = captions_by_language(references, languages)

        @functools.cache
        def recall(language: str, rows: tuple[int, ...]) -> dict[str, float]:
            texts = [captions[language][row] for row in rows]
            try:
                return recall_of_examples([predictions[row] for row in rows], texts, ks)
            except ValueError as error:
                raise ValueError(f"captions in {language!r} and their images: {error}") from error

        by_language = {language: recall(language, tuple(captions[language])) for language in captions}
        values = {f"{language}_{name}": x for language, metrics in by_language.items() for name, x in metrics.items()}
        names = next(iter(by_language.values()))
        values |= {name: float(np.mean([metrics[name] for metrics in by_language.values()])) for name in names}

        # The gap of a language is measured over the images that have captions in both languages.
        gaps = {}
        for language in captions:
            shared = tuple(row for row in captions.get("en", ()) if row in captions[language])
            if shared and language != "en":
                gaps[language] = recall("en", shared)["mean_recall"] - recall(language, shared)["mean_recall"]
        values |= {f"{language}_gap_to_english": gap for language, gap in gaps.items()}
        return values | ({"gap_to_english": float(np.mean(list(gaps.values())))} if gaps else {})


def captions_by_language(
    references: list[list[list[float]]], languages: list[list[str]]
) -> dict[str, dict[int, list[list[float]]]]:
    captions = {}
    for row, (texts, codes) in enumerate(zip(references, languages, strict=True)):
        if len(texts) != len(codes):
            raise ValueError(f"the image in row {row} has {len(texts)} captions but {len(codes)} languages")
        for text, code in zip(texts, codes, strict=True):
            captions.setdefault(code, {}).setdefault(row, []).append(text)
    if not captions:
        raise ValueError("references has no captions")
    return dict(sorted(captions.items()))
