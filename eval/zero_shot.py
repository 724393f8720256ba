"""Zero-shot scene classification.

[`zero_shot_metrics`] classifies each image alone: its class is the class embedding with the highest cosine similarity.
[`transductive_assignments`] classifies all images together, without labels and without training: TransCLIP (Zanella et
al. 2024, arXiv 2406.01837; for remote sensing El Khoury et al. 2024, arXiv 2409.00698).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from rsmclip.eval.retrieval import Embeds, unit_rows

# Settings of TransCLIP, as published.
PROTOTYPES = 8  # images that a class mean starts from
NEIGHBORS = 3
ROUNDS, UPDATES = 11, 5  # of means and variances; of the assignments in each round
LIKELIHOOD_WEIGHT, AFFINITY_WEIGHT = 1 / 50, 1 / 6

SIMILARITIES = 2**24  # in memory at once, in float64
SMALLEST_VARIANCE = 1e-12  # far above rounding errors, far below the variance of a dimension that tells images apart


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
    images, classes = unit_embeddings(image_embeds, class_embeds)
    return score_ranks(images @ classes.t(), labels)


def unit_embeddings(image_embeds: Embeds, class_embeds: Embeds) -> tuple[torch.Tensor, torch.Tensor]:
    # Unit rows. Float64 holds their dot products exactly.
    images, classes = unit_rows(image_embeds, "image"), unit_rows(class_embeds, "class")
    if images.shape[1] != classes.shape[1]:
        raise ValueError(f"image embeddings have {images.shape[1]} dimensions, class embeddings {classes.shape[1]}")
    return images.double(), classes.double()


def score_ranks(scores: torch.Tensor, labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return [`label_ranks`] of any scores of shape `(images, classes)`."""
    labels = torch.as_tensor(np.asarray(labels), dtype=torch.long, device=scores.device)
    images, classes = scores.shape
    if len(labels) != images:
        raise ValueError(f"{len(labels)} labels for {images} images")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be row numbers of the {classes} classes")
    ranks = (scores >= scores.gather(1, labels[:, None])).sum(dim=1) - 1
    # In a tie with the right class, predict another class: only a rank of 0 is a hit.
    others = scores.scatter(1, labels[:, None], -torch.inf)
    predicted = torch.where(ranks == 0, labels, others.argmax(dim=1)) if classes > 1 else labels
    return ranks.cpu().numpy(), predicted.cpu().numpy()


@torch.no_grad()
def transductive_assignments(
    image_embeds: Embeds, class_embeds: Embeds, temperature: float = 100.0, affinities: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Assign images to classes, all images together: TransCLIP without labels (arXiv 2406.01837).

    Each class is a Gaussian around a mean image embedding; all classes share one variance for each dimension. The
    assignment of an image follows the text of the class, the likelihood of the image, and the assignments of its
    nearest neighbors. The assignment of an image therefore depends on the other images. Time grows with the square of
    the number of images, memory with the number.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`): Image embeddings, of any length.
        class_embeds (`torch.Tensor` of shape `(classes, dim)`): Class embeddings, of any length.
        temperature (`float`, *optional*, defaults to 100.0): Factor of the cosine similarities of images and classes.
        affinities (`torch.Tensor`, *optional*): [`neighbor_affinities`] of the images. Pass them to classify the same
            images by several lists of classes.

    Returns:
        `torch.Tensor` of shape `(images, classes)`, float32. Each row sums to 1.

    Raises:
        [`UserError`]: An embedding is zero or not finite.
        `ValueError`: The shapes differ.
    """
    images, classes = unit_embeddings(image_embeds, class_embeds)
    if affinities is None:
        affinities = neighbor_affinities(image_embeds)
    prior = F.log_softmax(temperature * images @ classes.t(), dim=1)
    assignments = prior.exp()
    means, variances = starting_means(images, prior), images.new_full((images.shape[1],), 1 / images.shape[1])
    for number in range(ROUNDS):
        if number > 0:
            means, variances = fit_classes(images, assignments, means)
        # Log-likelihood: minus half of the squared distance, in standard deviations. All classes have one normalizer.
        spread = variances.sqrt()
        distances = torch.cdist(images / spread, means / spread, compute_mode="donot_use_mm_for_euclid_dist")
        evidence = prior - LIKELIHOOD_WEIGHT * distances.square() / 2
        for _ in range(UPDATES):
            assignments = F.softmax(evidence + AFFINITY_WEIGHT * (affinities @ assignments), dim=1)
    return assignments.float()


@torch.no_grad()
def neighbor_affinities(image_embeds: Embeds) -> torch.Tensor:
    """
    Return W + Wᵀ, a sparse tensor of shape `(images, images)` in float64.

    W has the cosine similarity of each image (row) and its 3 nearest other images (columns). All other entries are 0.
    """
    images = unit_rows(image_embeds, "image").double()
    total, nearest = len(images), min(NEIGHBORS, len(images) - 1)
    cosines, neighbors = images.new_empty((total, nearest)), images.new_empty((total, nearest), dtype=torch.long)
    block = max(1, SIMILARITIES // total)
    for start in range(0, total, block):
        similarity = images[start : start + block] @ images.t()
        similarity.diagonal(start).fill_(-torch.inf)  # an image is not its own neighbor
        rows = slice(start, start + block)
        cosines[rows], neighbors[rows] = similarity.topk(nearest, dim=1)
    rows = torch.arange(total, device=images.device).repeat_interleave(nearest)
    both = torch.stack([rows, neighbors.flatten()])
    indices, values = torch.cat([both, both.flip(0)], dim=1), cosines.flatten().repeat(2)
    return torch.sparse_coo_tensor(indices, values, (total, total), check_invariants=True).coalesce()


def starting_means(images: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    # (classes, dim). Weights are relative within a class, so that those of an unlikely class do not underflow.
    highest, rows = prior.t().topk(min(PROTOTYPES, len(images)), dim=1)
    weights = highest.softmax(dim=1)
    return F.normalize((weights[:, None] @ images[rows]).squeeze(1), dim=1)


def fit_classes(
    images: torch.Tensor, assignments: torch.Tensor, means: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    # New means, (classes, dim), and variances, (dim,). A class whose weights underflow keeps its mean.
    weights = assignments.sum(dim=0)[:, None]  # (classes, 1)
    smallest = torch.finfo(weights.dtype).tiny
    averages = assignments.t() @ images / weights.clamp_min(smallest)
    means = torch.where(weights < smallest, means, F.normalize(averages, dim=1))
    # Mean over images of (image - mean)², expanded. The assignments of an image sum to 1.
    squares = images.square().sum(dim=0) - (weights * means * (2 * averages - means)).sum(dim=0)
    return means, (squares / len(images)).clamp_min(SMALLEST_VARIANCE)
