"""Zero-shot classification as an `evaluate.Metric`."""

import datasets
import evaluate
import numpy as np

from rsmclip.eval.zero_shot import zero_shot_metrics

_DESCRIPTION = """
Zero-shot classification of images by the nearest class embedding. `rsmclip.eval.zero_shot.class_embeddings` makes
class embeddings from class names and prompt templates. Embeddings may have any length: they are compared by cosine
similarity. A tie with the right class is an error.

An example is an image and the row of its class. `compute` takes the class embeddings.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of lists of `float`): Image embeddings, `(images, dim)`.
    references (list of `int`): Row of the right class of each image in `class_embeds`.
    class_embeds (array of shape `(classes, dim)`): Class embeddings.

Returns:
    `dict[str, float]`: `accuracy` and `mean_per_class_recall`, the mean over the classes that occur. In percent.

Examples:

    >>> import evaluate
    >>> metric = evaluate.load("eval/metrics/zero_shot_classification")
    >>> metric.add_batch(predictions=[[0.9, 0.1], [0.2, 0.7]], references=[0, 1])
    >>> metric.add_batch(predictions=[[0.8, 0.1], [0.9, 0.3]], references=[0, 1])
    >>> result = metric.compute(class_embeds=[[1.0, 0.0], [0.0, 1.0]])
    >>> result["accuracy"], result["mean_per_class_recall"]
    (75.0, 75.0)
"""

_CITATION = """
@inproceedings{radford2021learning,
  title = {Learning Transferable Visual Models From Natural Language Supervision},
  author = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and Agarwal,
            Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and Krueger, Gretchen
            and Sutskever, Ilya},
  booktitle = {International Conference on Machine Learning},
  year = {2021}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ZeroShotClassification(evaluate.Metric):
    """[`~rsmclip.eval.zero_shot.zero_shot_metrics`] as an `evaluate.Metric`."""

    def _info(self) -> evaluate.MetricInfo:
        embedding = datasets.List(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": embedding, "references": datasets.Value("int64")}),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[int], class_embeds: np.ndarray | list[list[float]]
    ) -> dict[str, float]:
        return zero_shot_metrics(np.asarray(predictions, np.float32), np.asarray(class_embeds, np.float32), references)
