"""Zero-shot scene classification: the class of an image is the class embedding with the highest cosine similarity."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from rsmclip.eval.retrieval import Embeds, unit_rows


def class_embeddings(
    embed_texts: Callable[[list[str]], torch.Tensor], class_names: Sequence[str], templates: Sequence[str]
) -> torch.Tensor:
    """
    Return one embedding for each class: the mean of the unit embeddings of its name in every template (Radford et al.
    2021, section 3.1.4).

    Args:
        embed_texts (`Callable`): Maps texts to embeddings of shape `(texts, dim)`.
        class_names (`Sequence[str]`): Names of the classes in the language of the templates.
        templates (`Sequence[str]`): Prompt templates, each with one `{}` for the name.

    Returns:
        `torch.Tensor` of shape `(classes, dim)`, unit rows.

    Raises:
        `ValueError`: A template does not have exactly one `{}`.
    """
    if bad := [template for template in templates if template.count("{}") != 1]:
        raise ValueError(f"a template needs exactly one {{}} for the class name: {bad[0]!r}")
    texts = [template.replace("{}", name) for name in class_names for template in templates]
    embeds = F.normalize(embed_texts(texts).float(), dim=-1)
    return F.normalize(embeds.unflatten(0, (len(class_names), len(templates))).mean(dim=1), dim=-1)


def zero_shot_metrics(image_embeds: Embeds, class_embeds: Embeds, labels: Sequence[int]) -> dict[str, float]:
    """
    Return accuracy and mean per-class recall of zero-shot classification. A tie with the right class is an error.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`): Image embeddings.
        class_embeds (`torch.Tensor` of shape `(classes, dim)`): Class embeddings.
        labels (`Sequence[int]`): Row of the right class of each image.

    Returns:
        `dict[str, float]`: `accuracy` and `mean_per_class_recall`, the mean over the classes that occur. In percent.
    """
    ranks, _ = label_ranks(image_embeds, class_embeds, labels)
    return hit_metrics(ranks == 0, np.asarray(labels))


def hit_metrics(hits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy and mean recall of the classes that occur, in percent. Both arguments have shape `(images,)`."""
    recalls = [hits[labels == label].mean() for label in np.unique(labels)]
    return {"accuracy": 100 * float(hits.mean()), "mean_per_class_recall": 100 * float(np.mean(recalls))}


def label_ranks(image_embeds: Embeds, class_embeds: Embeds, labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the rank of the right class of each image, and the predicted class. [`zero_shot_metrics`] has the arguments.

    The rank is the number of other classes that score at least as high. Similarities are exact, as in
    [`~rsmclip.eval.retrieval`].

    Returns:
        `tuple[np.ndarray, np.ndarray]`, each of shape `(images,)`, int64.

    Raises:
        [`UserError`]: An embedding is zero or not finite.
        `ValueError`: The shapes differ, or a label names no class.
    """
    images, classes = unit_rows(image_embeds, "image"), unit_rows(class_embeds, "class")
    if images.shape[1] != classes.shape[1]:
        raise ValueError(f"image embeddings have {images.shape[1]} dimensions, class embeddings {classes.shape[1]}")
    labels = torch.as_tensor(np.asarray(labels), dtype=torch.long, device=images.device)
    if len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels for {len(images)} images")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels must be row numbers of the {len(classes)} classes")
    similarity = images.double() @ classes.double().t()
    right = similarity.gather(1, labels[:, None])
    ranks = (similarity >= right).sum(dim=1) - 1
    # In a tie with the right class, predict another class: only a rank of 0 is a hit.
    others = similarity.scatter(1, labels[:, None], -torch.inf)
    predicted = torch.where(ranks == 0, labels, others.argmax(dim=1)) if len(classes) > 1 else labels
    return ranks.cpu().numpy(), predicted.cpu().numpy()
