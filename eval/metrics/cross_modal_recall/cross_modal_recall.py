"""Recall@k between images and their captions as an `evaluate.Metric`."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from rsmclip.eval.retrieval import retrieval_metrics

_DESCRIPTION = """
Recall@k of cross-modal retrieval among all examples. Image to text: the share of images with one of their own captions
among the k nearest texts. Text to image: the share of texts with their own image among the k nearest images.
Embeddings may have any length: they are compared by cosine similarity. A wrong item that is as near as the right item
is ranked before it.

An example is an image with all of its captions. Examples can be added in any order, in batches of any size, and by
several processes.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of lists of `float`): Image embeddings, `(images, dim)`.
    references (list of lists of lists of `float`): Embeddings of the captions of each image, at least one for each
        image: `(images, captions of the image, dim)`.
    ks (sequence of `int`, *optional*, defaults to `(1, 5, 10)`): Numbers of retrieved items.

Returns:
    `dict[str, float]`: `image_to_text_recall@k` and `text_to_image_recall@k` for each k, and their mean,
    `mean_recall`. In percent. Row numbers in errors count the images, or the captions of all images, from 0.

Examples:

    >>> import evaluate
    >>> metric = evaluate.load("eval/metrics/cross_modal_recall")
    >>> metric.add_batch(predictions=[[1.0, 0.0]], references=[[[0.9, 0.1], [0.1, 0.8]]])
    >>> metric.add_batch(predictions=[[0.0, 1.0]], references=[[[0.05, 0.9]]])
    >>> {name: round(value, 1) for name, value in metric.compute(ks=[1]).items()}
    {'image_to_text_recall@1': 100.0, 'text_to_image_recall@1': 66.7, 'mean_recall': 83.3}
"""

_CITATION = """
@article{hodosh2013framing,
  title = {Framing Image Description as a Ranking Task: Data, Models and Evaluation Metrics},
  author = {Hodosh, Micah and Young, Peter and Hockenmaier, Julia},
  journal = {Journal of Artificial Intelligence Research},
  volume = {47},
  pages = {853--899},
  year = {2013}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CrossModalRecall(evaluate.Metric):
    """[`~rsmclip.eval.retrieval.retrieval_metrics`] as an `evaluate.Metric`."""

    def _info(self) -> evaluate.MetricInfo:
        embedding = datasets.List(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": embedding, "references": datasets.List(embedding)}),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[list[list[float]]], ks: Sequence[int] = (1, 5, 10)
    ) -> dict[str, float]:
        return recall_of_examples(predictions, references, ks)


def recall_of_examples(
    images: Sequence[Sequence[float]], captions: Sequence[Sequence[Sequence[float]]], ks: Sequence[int]
) -> dict[str, float]:
    """Compute [`~rsmclip.eval.retrieval.retrieval_metrics`] of images with the captions of each image."""
    if bare := [row for row, texts in enumerate(captions) if not texts]:
        raise ValueError(f"the image in row {bare[0]} has no captions in references; leave it out")
    texts = [text for texts in captions for text in texts]
    owner = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    return retrieval_metrics(np.asarray(images, np.float32), np.asarray(texts, np.float32), owner, ks)
