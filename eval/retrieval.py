"""Cross-modal retrieval between images and their captions.

An image-to-text hit is any caption of the image among the first k; text-to-image has one right image. A wrong item
that scores as high as the right one counts as ranked before it, so ties never help and the order of the rows never
matters.

The figures are exact. Embeddings are normalised and rounded to multiples of 2⁻²⁶, so that their dot products are
multiples of 2⁻⁵² that float64 holds exactly, in whatever order they are summed. A tile of the similarity matrix at a
time is computed in float32, whose error has a bound; only what lies within it of the score to beat is computed in
float64. So any size of tile, number of threads and device gives the same ranks, and both directions take one pass.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

TILE = 1536  # rows and columns of the similarity matrix held at once
PAIRS = 1024  # rows in float64 at once: as many as stay in a core's cache
STEP = 2.0**-26  # of embeddings


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
    image_ranks, text_ranks = retrieval_ranks(image_embeds, text_embeds, text_to_image)
    values = recalls(image_ranks, "image_to_text", ks) | recalls(text_ranks, "text_to_image", ks)
    return values | {"mean_recall": float(np.mean(list(values.values())))}


def retrieval_ranks(
    image_embeds: torch.Tensor | np.ndarray,
    text_embeds: torch.Tensor | np.ndarray,
    text_to_image: Sequence[int],
    sentences: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Rank, from 0, of the best right item of each image and of each text: the number of wrong items that score at least
    as high.

    Args:
        image_embeds (`torch.Tensor` of shape `(images, dim)`):
            Image embeddings; they are normalised here.
        text_embeds (`torch.Tensor` of shape `(texts, dim)`):
            Text embeddings; likewise.
        text_to_image (`Sequence[int]`):
            For each text the row of its image. Every image needs at least one text.
        sentences (`Sequence[int]`, *optional*):
            For each text a number that equal texts share. With it every text that is equal to a caption of an image is
            right for the image, and the image for the text, whichever image the text was written for.

    Returns:
        `tuple[np.ndarray, np.ndarray]` of shapes `(images,)` and `(texts,)`, int64.
    """
    images, texts = unit_rows(image_embeds, "image"), unit_rows(text_embeds, "text")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(f"image embeddings have {images.shape[1]} dimensions, text embeddings {texts.shape[1]}")
    owner = torch.as_tensor(np.asarray(text_to_image), dtype=torch.long, device=texts.device)
    if len(owner) != len(texts):
        raise ValueError(f"text_to_image has {len(owner)} entries for {len(texts)} texts")
    if owner.min() < 0 or owner.max() >= len(images):
        raise ValueError(f"text_to_image must name rows of the {len(images)} images")
    if len(owner.unique()) < len(images):
        raise ValueError("every image needs at least one text")
    if sentences is None:
        right = torch.stack([owner, torch.arange(len(owner), device=owner.device)])
    else:
        right = right_by_sentence(owner, torch.as_tensor(np.asarray(sentences), device=owner.device))
    scores = dot_products(images, texts, right)
    bars = [highest(scores, right[0], len(images)), highest(scores, right[1], len(texts))]
    counts = count_at_least(images, texts, *bars)
    for count, bar, rows in zip(counts, bars, right, strict=True):
        count -= torch.bincount(rows[scores >= bar[rows]], minlength=len(count))  # right items are no competitors
    return counts[0].cpu().numpy(), counts[1].cpu().numpy()


def right_by_sentence(owner: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
    """Pairs of an image and a text that is equal to one of its captions, `(2, pairs)`."""
    images_of: dict[int, set[int]] = {}
    texts_of: dict[int, list[int]] = {}
    for text, (image, sentence) in enumerate(zip(owner.tolist(), sentences.tolist(), strict=True)):
        images_of.setdefault(sentence, set()).add(image)
        texts_of.setdefault(sentence, []).append(text)
    pairs = [np.stack(np.meshgrid(sorted(images_of[each]), texts_of[each])).reshape(2, -1) for each in texts_of]
    return torch.as_tensor(np.concatenate(pairs, axis=1), device=owner.device)


def dot_products(images: torch.Tensor, texts: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Similarities of pairs of rows `(2, pairs)`, exact, in float64."""
    parts = [
        (images[rows].double() * texts[columns].double()).sum(dim=1)
        for rows, columns in zip(pairs[0].split(PAIRS), pairs[1].split(PAIRS), strict=True)
    ]
    return torch.cat(parts)


def highest(scores: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """The highest score of each row, `(num_rows,)`."""
    return scores.new_full((num_rows,), -torch.inf).scatter_reduce(0, rows, scores, "amax")


def count_at_least(
    images: torch.Tensor, texts: torch.Tensor, image_bars: torch.Tensor, text_bars: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Number of texts that are at least as similar to an image as its bar says, and of images to a text, exactly.

    Args:
        images (`torch.Tensor` of shape `(images, dim)`): From [`unit_rows`].
        texts (`torch.Tensor` of shape `(texts, dim)`): Likewise.
        image_bars (`torch.Tensor` of shape `(images,)`): Similarities in float64.
        text_bars (`torch.Tensor` of shape `(texts,)`): Likewise.
    """
    counts = [torch.zeros(len(rows), dtype=torch.long, device=rows.device) for rows in (images, texts)]
    margin = error_bound(images.shape[1])
    for rows, columns in tiles(len(images), len(texts)):
        tile = images[rows], texts[columns]
        with torch.autocast(images.device.type, enabled=False):  # a caller's would make it a product in half precision
            similarity = tile[0] @ tile[1].t()
        for dim, (count, bars) in enumerate(
            ((counts[0][rows], image_bars[rows]), (counts[1][columns], text_bars[columns]))
        ):
            bar = bars.float().unsqueeze(1 - dim)
            above, near = (
                (similarity >= limit).sum(dim=1 - dim, dtype=torch.int32)  # to int64 takes twenty times as long
                for limit in (bar + margin, bar - margin)
            )
            count += above
            if len(unsure := (near != above).nonzero().flatten()):
                count[unsure] += count_within(similarity, *tile, bars, dim, unsure, margin)
    return counts[0], counts[1]


def count_within(
    similarity: torch.Tensor,
    images: torch.Tensor,
    texts: torch.Tensor,
    bars: torch.Tensor,
    dim: int,
    queries: torch.Tensor,
    margin: float,
) -> torch.Tensor:
    """
    Of what scores within the margin of a bar, the number that reaches it.

    Args:
        similarity (`torch.Tensor` of shape `(images, texts)`): A tile, computed in float32.
        images (`torch.Tensor` of shape `(images, dim)`): Its rows' embeddings.
        texts (`torch.Tensor` of shape `(texts, dim)`): Its columns'.
        bars (`torch.Tensor` of shape `(images,)` or `(texts,)`): In float64.
        dim (`int`): 0 if the bars are the images', 1 if they are the texts'.
        queries (`torch.Tensor` of shape `(queries,)`): The rows, or columns, to look at.
        margin (`float`): How far float32 may be wrong.

    Returns:
        `torch.Tensor` of shape `(queries,)`.
    """
    similarity = similarity.index_select(dim, queries)
    bars = bars[queries].unsqueeze(1 - dim)
    unsure = (similarity >= bars.float() - margin) & (similarity < bars.float() + margin)
    images, texts = (images[queries], texts) if dim == 0 else (images, texts[queries])
    if int(unsure.count_nonzero()) * 16 > unsure.numel():  # a model that finds all things alike
        exact = images.double() @ texts.double().t()
        return (unsure & (exact >= bars)).sum(dim=1 - dim)
    pairs = unsure.nonzero().t()
    reached = dot_products(images, texts, pairs) >= bars.flatten()[pairs[dim]]
    return torch.bincount(pairs[dim][reached], minlength=len(queries))


def tiles(num_images: int, num_texts: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each tile of the similarity matrix."""
    for row in range(0, num_images, TILE):
        for column in range(0, num_texts, TILE):
            yield slice(row, row + TILE), slice(column, column + TILE)


def error_bound(dim: int) -> float:
    """How far a dot product of two unit rows can be from what a matrix product in float32 gives for it (Higham 2002,
    section 3.1), and how far a bar from its float32."""
    if torch.get_float32_matmul_precision() != "highest":  # products of numbers of 8 bits
        return 2.0**-6
    return (dim + 4) * 2.0**-24


def recalls(ranks: np.ndarray, direction: str, ks: Sequence[int]) -> dict[str, float]:
    """Share of queries, in percent, whose rank is below k."""
    return {f"{direction}_recall@{k}": 100 * float(np.mean(ranks < k)) for k in ks}


def unit_rows(embeds: torch.Tensor | np.ndarray, what: str) -> torch.Tensor:
    """
    Rows of unit length, rounded to multiples of 2⁻²⁶, in float32; a row that isn't finite or is zero is an error that
    names it.
    """
    embeds = torch.as_tensor(np.ascontiguousarray(embeds) if isinstance(embeds, np.ndarray) else embeds)
    if embeds.ndim != 2 or len(embeds) == 0:
        raise ValueError(
            f"{what} embeddings must have shape (rows, dim) with at least one row, not {tuple(embeds.shape)}"
        )
    norms = torch.cat([rows.double().norm(dim=1, keepdim=True) for rows in embeds.split(PAIRS)])
    bad = (~torch.isfinite(norms) | (norms == 0)).flatten().nonzero().flatten()
    if len(bad):
        raise ValueError(f"{len(bad)} {what} embeddings are zero or not finite, the first in row {int(bad[0])}")
    units = torch.empty_like(embeds, dtype=torch.float32)
    for into, rows, lengths in zip(units.split(PAIRS), embeds.split(PAIRS), norms.split(PAIRS), strict=True):
        into.copy_(((rows.double() / lengths).float() / STEP).round() * STEP)
    return units


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
