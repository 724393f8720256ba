"""Cross-modal retrieval between images and their captions.

An image-to-text hit is any caption of the image among the first k; text-to-image has one right image. A wrong item
that scores as high as the right one counts as ranked before it, so ties never help and the order of the rows never
matters.
"""

from collections.abc import Sequence

import numpy as np
import torch

CHUNK = 1024  # rows of the similarity matrix held at once


def retrieval_metrics(
    image_embeds: torch.Tensor | np.ndarray,
    text_embeds: torch.Tensor | np.ndarray,
    text_to_image: Sequence[int],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """
    Recall@k in both directions and their mean.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`):
            Image embeddings; they are normalised here.
        text_embeds (`torch.Tensor` of shape `(texts, dim)`):
            Text embeddings; likewise.
        text_to_image (`Sequence[int]`):
            For each text the row of its image. Every image needs at least one text.
        ks (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`):
            Depths of the ranking.

    Returns:
        `dict[str, float]`: `image_to_text_recall@k` and `text_to_image_recall@k` for each k, and `mean_recall`, their
        mean. In percent.
    """
    images, texts = unit_rows(image_embeds, "image"), unit_rows(text_embeds, "text")
    owner = torch.as_tensor(np.asarray(text_to_image), dtype=torch.long, device=texts.device)
    if len(owner) != len(texts):
        raise ValueError(f"text_to_image has {len(owner)} entries for {len(texts)} texts")
    if owner.min() < 0 or owner.max() >= len(images):
        raise ValueError(f"text_to_image must name rows of the {len(images)} images")
    if len(owner.unique()) < len(images):
        raise ValueError("every image needs at least one text")

    own_image = torch.arange(len(images), device=owner.device)
    values = recalls(best_ranks(images, own_image, texts, owner), "image_to_text", ks)
    values |= recalls(best_ranks(texts, owner, images, own_image), "text_to_image", ks)
    return values | {"mean_recall": float(np.mean(list(values.values())))}


def best_ranks(
    queries: torch.Tensor, query_image: torch.Tensor, items: torch.Tensor, item_image: torch.Tensor
) -> torch.Tensor:
    """
    Rank, from 0, of each query's best right item: the number of wrong items that score at least as high.

    Args:
        queries (`torch.Tensor` of shape `(queries, dim)`): Unit rows.
        query_image (`torch.Tensor` of shape `(queries,)`): The image that each query is or describes.
        items (`torch.Tensor` of shape `(items, dim)`): Unit rows.
        item_image (`torch.Tensor` of shape `(items,)`): The image that each item is or describes.
    """
    ranks = []
    for start in range(0, len(queries), CHUNK):
        similarity = queries[start : start + CHUNK] @ items.t()
        right = query_image[start : start + CHUNK, None] == item_image
        best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append(((similarity >= best) & ~right).sum(dim=1))
    return torch.cat(ranks)


def recalls(ranks: torch.Tensor, direction: str, ks: Sequence[int]) -> dict[str, float]:
    """Share of queries, in percent, whose rank is below k."""
    return {f"{direction}_recall@{k}": 100 * (ranks < k).double().mean().item() for k in ks}


def unit_rows(embeds: torch.Tensor | np.ndarray, what: str) -> torch.Tensor:
    """Rows of unit length in float32; a row that isn't finite or is zero is an error that names it."""
    embeds = torch.as_tensor(embeds).float()
    if embeds.ndim != 2 or len(embeds) == 0:
        raise ValueError(
            f"{what} embeddings must have shape (rows, dim) with at least one row, not {tuple(embeds.shape)}"
        )
    norms = embeds.norm(dim=1, keepdim=True)
    bad = (~torch.isfinite(norms) | (norms == 0)).flatten().nonzero().flatten()
    if len(bad):
        raise ValueError(f"{len(bad)} {what} embeddings are zero or not finite, the first in row {bad[0]}")
    return embeds / norms


def chance_metrics(text_to_image: Sequence[int], num_images: int, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """
    The expectation of [`retrieval_metrics`] under a random ranking, exactly.

    Args:
        text_to_image (`Sequence[int]`): For each text the row of its image.
        num_images (`int`): Number of images.
        ks (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): Depths of the ranking.
    """
    captions = np.bincount(np.asarray(text_to_image), minlength=num_images)  # of each image
    total = int(captions.sum())
    values = {}
    for k in ks:
        # An image misses if all of its captions lie among the total - k texts that are not in the first k.
        misses = np.ones(num_images)
        for drawn in range(min(k, total)):
            misses *= np.clip(total - captions - drawn, 0, None) / (total - drawn)
        values[f"image_to_text_recall@{k}"] = 100 * float(1 - misses.mean())
    values |= {f"text_to_image_recall@{k}": 100 * min(k, num_images) / num_images for k in ks}
    return values | {"mean_recall": float(np.mean(list(values.values())))}
