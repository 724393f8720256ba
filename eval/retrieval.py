"""Cross-modal retrieval between images and their captions, with exact ranks.

Image to text: an image is a hit if one of its captions is among the first k texts. Text to image: a caption is a hit
if its image is among the first k images. A wrong item with the score of the right item is ranked before it. Ties
therefore never help the model, and the order of the rows never matters.

Embeddings are normalized and rounded to multiples of 2⁻²⁶, so float64 holds their dot products exactly. The similarity
matrix is computed in float32, tile by tile, with a known error bound. Similarities within this bound of the score to
beat are computed again in float64. Ranks therefore do not depend on tile size, threads or device.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import product

import numpy as np
import torch

from rsmclip.core.errors import UserError

TILE = 1536  # rows and columns of the similarity matrix in memory at once
PAIRS = 1024  # rows in float64 at once: as many as fit into the cache of a core
STEP = 2.0**-26  # embeddings are multiples of this number
Embeds = torch.Tensor | np.ndarray


def retrieval_metrics(
    image_embeds: Embeds, text_embeds: Embeds, text_to_image: Sequence[int], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """
    Return recall@k in both directions and mean recall.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`): Image embeddings, of any length.
        text_embeds (`torch.Tensor` of shape `(texts, dim)`): Text embeddings, of any length.
        text_to_image (`Sequence[int]`): Row of the image of each text. Every image needs at least one text.
        ks (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): Numbers of retrieved items.

    Returns:
        `dict[str, float]`: `image_to_text_recall@k` and `text_to_image_recall@k` for each k, and their mean,
            `mean_recall`. In percent.
    """
    image_ranks, text_ranks = retrieval_ranks(image_embeds, text_embeds, text_to_image)
    directions = (("image_to_text", image_ranks), ("text_to_image", text_ranks))
    values = {f"{name}_recall@{k}": 100 * float(np.mean(ranks < k)) for name, ranks in directions for k in ks}
    return values | {"mean_recall": float(np.mean(list(values.values())))}


def retrieval_ranks(
    image_embeds: Embeds, text_embeds: Embeds, text_to_image: Sequence[int], sentences: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the rank of the best right item of each image and of each text: the number of wrong items that score at
    least as high.

    Args:
        image_embeds, text_embeds, text_to_image: See [`retrieval_metrics`].
        sentences (`Sequence[int]`, *optional*): Number of the sentence of each text; equal texts have equal numbers.
            If given, a text that equals a caption of an image is right for this image, and the image for the text.

    Returns:
        `tuple[np.ndarray, np.ndarray]` of shapes `(images,)` and `(texts,)`, int64.

    Raises:
        [`UserError`]: An embedding is zero or not finite.
        `ValueError`: The shapes do not match, `text_to_image` has a number out of range, or an image has no text.
    """
    images, texts = unit_rows(image_embeds, "image"), unit_rows(text_embeds, "text")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(f"image embeddings have {images.shape[1]} dimensions, text embeddings {texts.shape[1]}")
    owner = torch.as_tensor(np.asarray(text_to_image), dtype=torch.long, device=texts.device)
    if len(owner) != len(texts):
        raise ValueError(f"text_to_image has {len(owner)} entries for {len(texts)} texts")
    if owner.min() < 0 or owner.max() >= len(images):
        raise ValueError(f"text_to_image must contain row numbers of the {len(images)} images")
    if len(owner.unique()) < len(images):
        raise ValueError("text_to_image lacks an image: every image needs at least one text")

    # Find the right pairs. Equal texts become one text, whose weight is how often it occurs.
    item = torch.arange(len(texts), device=owner.device)  # row of each text in `texts`
    if sentences is None:
        right = torch.stack([owner, item])
    else:
        sentences = torch.as_tensor(np.asarray(sentences), device=texts.device)
        first, item = distinct_texts(texts, sentences)
        texts = texts[first]
        right = right_by_sentence(owner, item, sentences[first])
    weights = owner.new_ones(len(images), dtype=torch.int32), torch.bincount(item).int()

    # The score to beat is the highest right score of each image and of each text.
    scores = dot_products(images, texts, right)
    bars = [
        scores.new_full((len(items),), -torch.inf).scatter_reduce(0, rows, scores, "amax")
        for items, rows in zip((images, texts), right, strict=True)
    ]

    # Count all items that reach the score to beat, then subtract the right ones.
    counts = count_at_least(images, texts, bars, weights)
    for count, bar, rows, others, weight in zip(counts, bars, right, right.flip(0), reversed(weights), strict=True):
        best = scores >= bar[rows]
        count.index_add_(0, rows[best], weight[others[best]].long(), alpha=-1)
    return counts[0].cpu().numpy(), counts[1][item].cpu().numpy()


def distinct_texts(texts: torch.Tensor, sentences: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # The first row of each distinct pair of sentence and embedding, (distinct,), and the pair of each text, (texts,).
    numbers: dict[tuple[int, bytes], int] = {}
    first, item = [], []
    for row, (sentence, embed) in enumerate(zip(sentences.tolist(), texts.cpu().numpy(), strict=True)):
        number = numbers.setdefault((sentence, blake2b(embed).digest()), len(numbers))
        if number == len(first):
            first.append(row)
        item.append(number)
    return torch.tensor(first, device=texts.device), torch.tensor(item, device=texts.device)


def right_by_sentence(owner: torch.Tensor, item: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
    # All pairs of an image and an item with the sentence of one of its captions, (2, pairs).
    images_of: dict[int, set[int]] = {}
    items_of: dict[int, list[int]] = {}
    for image, sentence in zip(owner.tolist(), sentences[item].tolist(), strict=True):
        images_of.setdefault(sentence, set()).add(image)
    for number, sentence in enumerate(sentences.tolist()):
        items_of.setdefault(sentence, []).append(number)
    pairs = [np.stack(np.meshgrid(sorted(images_of[each]), items_of[each])).reshape(2, -1) for each in items_of]
    return torch.as_tensor(np.concatenate(pairs, axis=1), device=owner.device)


def dot_products(images: torch.Tensor, texts: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    # (2, pairs) to (pairs,), exact in float64
    parts = [
        (images[rows].double() * texts[columns].double()).sum(dim=1)
        for rows, columns in zip(pairs[0].split(PAIRS), pairs[1].split(PAIRS), strict=True)
    ]
    return torch.cat(parts)


def count_at_least(
    images: torch.Tensor, texts: torch.Tensor, bars: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    # Count the texts that reach the bar (score to beat) of each image, and the images that reach the bar of each text.
    # An item counts as often as its weight says. `bars` and `weights` have an entry for images and one for texts.
    counts = [torch.zeros(len(rows), dtype=torch.long, device=rows.device) for rows in (images, texts)]
    margin = error_bound(images.shape[1])
    starts = product(range(0, len(images), TILE), range(0, len(texts), TILE))
    for rows, columns in ((slice(row, row + TILE), slice(column, column + TILE)) for row, column in starts):
        tile = images[rows], texts[columns]
        with torch.autocast(images.device.type, enabled=False):  # autocast would multiply in half precision
            similarity = tile[0] @ tile[1].t()
        queries = (
            (counts[0][rows], bars[0][rows], weights[1][columns]),
            (counts[1][columns], bars[1][columns], weights[0][rows]),
        )
        for dim, (count, bar, weight) in enumerate(queries):
            # Count similarities above the bar by more than the margin. Check those within the margin in float64.
            rounded = bar.float().unsqueeze(1 - dim)
            above, near = (
                # a sum to int64 takes twenty times as long
                ((similarity >= limit) * weight.unsqueeze(dim)).sum(dim=1 - dim, dtype=torch.int32)
                for limit in (rounded + margin, rounded - margin)
            )
            count += above
            if len(unsure := (near != above).nonzero().flatten()):
                count[unsure] += count_within(similarity, *tile, bar, weight, dim, unsure, margin)
    return counts[0], counts[1]


def count_within(
    similarity: torch.Tensor,  # (images, texts), one tile in float32
    images: torch.Tensor,  # (images, dim)
    texts: torch.Tensor,  # (texts, dim)
    bars: torch.Tensor,  # (images,) if dim is 0, (texts,) if dim is 1; float64
    weights: torch.Tensor,  # (texts,) if dim is 0, (images,) if dim is 1; int32
    dim: int,
    queries: torch.Tensor,  # (queries,) indices into bars
    margin: float,
) -> torch.Tensor:
    # For each query, count the items within the margin of its bar that reach the bar, (queries,).
    similarity = similarity.index_select(dim, queries)
    bars = bars[queries].unsqueeze(1 - dim)
    unsure = (similarity >= bars.float() - margin) & (similarity < bars.float() + margin)
    images, texts = (images[queries], texts) if dim == 0 else (images, texts[queries])
    if int(unsure.count_nonzero()) * 16 > unsure.numel():  # many ties: one matrix product is faster than single pairs
        exact = images.double() @ texts.double().t()
        return ((unsure & (exact >= bars)) * weights.unsqueeze(dim)).sum(dim=1 - dim)
    pairs = unsure.nonzero().t()
    pairs = pairs[:, dot_products(images, texts, pairs) >= bars.flatten()[pairs[dim]]]
    counts = weights.new_zeros(len(queries))
    return counts.index_add_(0, pairs[dim], weights[pairs[1 - dim]])


def error_bound(dim: int) -> float:
    # Bound of the float32 errors of a dot product of unit rows (Higham 2002, section 3.1) and of a rounded bar.
    if torch.get_float32_matmul_precision() != "highest":  # factors are rounded to 8 bits
        return 2.0**-6
    return (dim + 4) * 2.0**-24


def unit_rows(embeds: Embeds, what: str) -> torch.Tensor:
    """
    Normalize embeddings of shape `(rows, dim)`, and round them to multiples of 2⁻²⁶ in float32.

    `what` names the embeddings in errors, for example `"image"`.

    Raises:
        [`UserError`]: A row is zero or not finite.
        `ValueError`: There are no rows, or the tensor does not have two dimensions.
    """
    embeds = torch.as_tensor(np.ascontiguousarray(embeds) if isinstance(embeds, np.ndarray) else embeds)
    if embeds.ndim != 2 or len(embeds) == 0:
        raise ValueError(f"{what} embeddings must have shape (rows, dim) and at least one row, not {(*embeds.shape,)}")
    norms = torch.cat([rows.double().norm(dim=1, keepdim=True) for rows in embeds.split(PAIRS)])
    bad = (~torch.isfinite(norms) | (norms == 0)).flatten().nonzero().flatten()
    if len(bad):
        raise UserError(f"{len(bad)} {what} embeddings are zero or not finite, the first in row {int(bad[0])}")
    units = torch.empty_like(embeds, dtype=torch.float32)
    for into, rows, lengths in zip(units.split(PAIRS), embeds.split(PAIRS), norms.split(PAIRS), strict=True):
        into.copy_(((rows.double() / lengths).float() / STEP).round() * STEP)
    return units


def chance_metrics(text_to_image: Sequence[int], num_images: int, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return the exact expectation of [`retrieval_metrics`] for a random ranking."""
    captions = np.bincount(np.asarray(text_to_image), minlength=num_images)  # (images,)
    total = int(captions.sum())
    values = {}
    for k in ks:
        # An image is missed if none of its captions is among the k texts drawn without replacement.
        misses = np.ones(num_images)
        for drawn in range(min(k, total)):
            misses *= np.clip(total - captions - drawn, 0, None) / (total - drawn)
        values[f"image_to_text_recall@{k}"] = 100 * float(1 - misses.mean())
    values |= {f"text_to_image_recall@{k}": 100 * min(k, num_images) / num_images for k in ks}
    return values | {"mean_recall": float(np.mean(list(values.values())))}
