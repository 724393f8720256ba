"""The two objectives: InfoNCE between images and captions, and self-distillation between views of an image.

Both are means over this process's rows. Averaged over processes, as DistributedDataParallel averages gradients, that
is the loss of the global batch.
"""

import math
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

DuplicateCaptions = Literal["positive", "ignore", "negative"]


def world_size() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum over processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


class Gather(torch.autograd.Function):
    """Rows of all processes, `(n, batch, dim)` to `(n, processes * batch, dim)`; gradients flow back to theirs."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, embeds: torch.Tensor) -> torch.Tensor:
        """Concatenates in the order of the processes."""
        return gather(embeds)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        """Sums over processes, since every one's loss depends on these rows, and takes this one's part."""
        return sum_over_processes(gradient.contiguous()).chunk(world_size(), dim=1)[dist.get_rank()]


def gather(values: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, without gradients: `(n, batch, ...)` to `(n, processes * batch, ...)`."""
    if world_size() == 1:
        return values
    parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts, dim=1)


def clip_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    sentence_ids: torch.Tensor | None = None,
    duplicate_captions: DuplicateCaptions = "positive",
    chunk_size: int | None = None,
) -> torch.Tensor:
    """
    InfoNCE over the global batch, both directions averaged (Radford et al. 2021, figure 3), between every view of the
    images and every set of captions (on each global view as Naeem et al. 2023, section 3).

    Only the logits of this process's rows against all columns are computed: local x global, never global x global.

    Where two images of the batch have the same sentence, among whichever of their captions, each is as right for the
    other's caption as for its own. By default both are positives: the mean of their log-probabilities is maximised
    (`L_out` of Khosla et al. 2020).

    Args:
        image_embeds (`torch.Tensor` of shape `(views, batch, dim)`):
            Unit-length image embeddings of this process.
        text_embeds (`torch.Tensor` of shape `(captions, batch, dim)`):
            Unit-length text embeddings; text `i` belongs to image `i`.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature, already exponentiated.
        sentence_ids (`torch.Tensor` of shape `(captions, batch)`, *optional*):
            Integers that are equal where captions say the same. Without them no two captions do.
        duplicate_captions (`"positive"`, `"ignore"` or `"negative"`, *optional*, defaults to `"positive"`):
            What a pair of image and caption is whose sentence is one of the image's own, though drawn for another.
        chunk_size (`int`, *optional*):
            Rows whose logits are held at once, computed again in the backward pass; by default all.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    all_images, all_texts = image_embeds, text_embeds
    if world_size() > 1:
        all_images, all_texts = Gather.apply(image_embeds), Gather.apply(text_embeds)
    batch = image_embeds.shape[1]
    first = dist.get_rank() * batch if world_size() > 1 else 0
    own = torch.arange(first, first + batch, device=image_embeds.device)
    ids = sentence_ids if sentence_ids is not None else own.expand(len(text_embeds), -1)
    all_ids = gather(ids)

    def chunk_loss(rows: slice) -> torch.Tensor:
        equal = ids[:, None, rows, None] == all_ids[None, :, None]  # (captions of rows, captions, rows, global)
        image_to_text = logit_scale * torch.einsum("vrd,cgd->vcrg", image_embeds[:, rows], all_texts)
        text_to_image = logit_scale * torch.einsum("crd,vgd->vcrg", text_embeds[:, rows], all_images)
        directions = ((image_to_text, equal.any(dim=0)), (text_to_image, equal.any(dim=1)))
        return sum(info_nce(logits, own[rows], same, duplicate_captions) for logits, same in directions) / 2

    if chunk_size is None or chunk_size >= batch:
        return chunk_loss(slice(None)) / batch
    chunks = [slice(start, start + chunk_size) for start in range(0, batch, chunk_size)]
    return sum(checkpoint(chunk_loss, rows, use_reentrant=False) for rows in chunks) / batch


def info_nce(
    logits: torch.Tensor, own: torch.Tensor, same: torch.Tensor, duplicates: DuplicateCaptions
) -> torch.Tensor:
    """
    Negative log-probability of the positives, summed over rows and averaged over views and sets of captions.

    Args:
        logits (`torch.Tensor` of shape `(views, captions, rows, candidates)`): Scaled cosines.
        own (`torch.Tensor` of shape `(rows,)`): Each row's own candidate.
        same (`torch.Tensor` of shape `(captions, rows, candidates)`): Whether the caption of the two has a sentence of
            the image's.
        duplicates (`"positive"`, `"ignore"` or `"negative"`): What such candidates are.
    """
    is_own = own[:, None] == torch.arange(logits.shape[-1], device=logits.device)
    positives = same | is_own if duplicates == "positive" else is_own.expand_as(same)
    if duplicates == "ignore":
        logits = logits.masked_fill(same & ~is_own, -torch.inf)
    log_probs = logits.log_softmax(dim=-1).masked_fill(~positives, 0.0)
    return -(log_probs.sum(dim=-1) / positives.sum(dim=-1)).mean(dim=(0, 1)).sum()


class Centring(nn.Module):
    """
    From the teacher's logits to the targets of the student: distributions over prototypes that are neither all alike
    nor uniform.

    `"running_mean"` subtracts a moving average of the logits, the centre, against collapse to one prototype; a low
    temperature sharpens, against collapse to the uniform distribution (Caron et al. 2021, section 3.1).
    `"sinkhorn_knopp"` scales the whole batch so that all prototypes are used equally (Caron et al. 2020, section 3.2;
    in place of the centre in DINOv2, Oquab et al. 2023).

    Args:
        num_prototypes (`int`):
            Width of the logits.
        method (`"running_mean"` or `"sinkhorn_knopp"`, *optional*, defaults to `"running_mean"`):
            See above.
        momentum (`float`, *optional*, defaults to 0.9):
            Share of the old centre that an update keeps.
    """

    def __init__(self, num_prototypes: int, method: str = "running_mean", momentum: float = 0.9):
        super().__init__()
        self.method, self.momentum = method, momentum
        self.register_buffer("center", torch.zeros(num_prototypes))
        self.register_buffer("ever_won", torch.zeros(num_prototypes, dtype=torch.bool))

    @torch.no_grad()
    def forward(self, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """`(global_views, batch, num_prototypes)` to distributions in float32, equally many; then moves the centre."""
        logits = teacher_logits.float()
        if self.method == "sinkhorn_knopp":
            targets = sinkhorn_knopp(logits.flatten(0, 1) / temperature).view_as(logits)
        else:
            targets = ((logits - self.center) / temperature).softmax(dim=-1)
            mean = sum_over_processes(logits.mean(dim=(0, 1))) / world_size()
            moved = self.center.lerp(mean, 1 - self.momentum)
            self.center.copy_(torch.where(moved.isfinite().all(), moved, self.center))  # one bad batch would spoil it
        self.ever_won.index_fill_(0, targets.argmax(dim=-1).flatten(), True)
        return targets

    def prototype_use(self) -> torch.Tensor:
        """Share of the prototypes that have ever been the most likely one, on any process; all processes know then."""
        self.ever_won.copy_(sum_over_processes(self.ever_won.float()) > 0)  # a checkpoint holds the main process's
        return self.ever_won.float().mean()


def sinkhorn_knopp(scores: torch.Tensor, iterations: int = 3) -> torch.Tensor:
    """
    Distributions over prototypes that use every prototype equally over the global batch.

    Args:
        scores (`torch.Tensor` of shape `(batch, num_prototypes)`): Logits over the temperature.
        iterations (`int`, *optional*, defaults to 3): Alternations between prototypes and samples.
    """
    largest = scores.amax()
    if world_size() > 1:  # one constant for all processes, or it would weigh their samples differently
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    weights = (scores - largest).exp()
    for _ in range(iterations):
        weights = weights / sum_over_processes(weights.sum(dim=0)).clamp(min=torch.finfo(weights.dtype).tiny)
        weights = weights / weights.sum(dim=1, keepdim=True)
    return weights


def entropy(targets: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the distributions over prototypes as a share of the largest possible: 0 one-hot, 1 uniform."""
    return torch.special.entr(targets).sum(dim=-1).mean() / math.log(targets.shape[-1])


def self_distillation_loss(student_logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    Cross-entropy from the teacher's to the student's distribution over prototypes, over every pair of a view that the
    teacher saw and another that the student saw (Caron et al. 2021, equation 3 and algorithm 1).

    Args:
        student_logits (`torch.Tensor` of shape `(views, batch, num_prototypes)`):
            The first views are the teacher's, in the same order.
        targets (`torch.Tensor` of shape `(global_views, batch, num_prototypes)`):
            Distributions of the teacher.
        temperature (`float`):
            Temperature of the student.

    Returns:
        `torch.Tensor` of shape `(batch,)`, the mean over pairs of different views.
    """
    with torch.autocast(student_logits.device.type, enabled=False):  # a sum over 65,536 prototypes is not for bfloat16
        logits = student_logits.float() / temperature
        expected = torch.einsum("tbk,vbk->btv", targets, logits)
        cross_entropy = logits.logsumexp(dim=-1).t()[:, None] - expected  # (batch, global_views, views)
    different = ~torch.eye(*cross_entropy.shape[1:], dtype=torch.bool, device=cross_entropy.device)
    return (cross_entropy * different).sum(dim=(1, 2)) / different.sum()


def effective_rank(embeds: torch.Tensor) -> torch.Tensor:
    """
    How many dimensions a batch of embeddings fills: the exponential of the entropy of its singular values (RankMe,
    Garrido et al. 2023, equation 1). It falls long before a loss shows a collapse.

    Args:
        embeds (`torch.Tensor` of shape `(batch, dim)`): Embeddings.
    """
    values = torch.linalg.svdvals(embeds.float().nan_to_num())  # of a step that is skipped they are not finite
    shares = F.normalize(values, p=1, dim=0)
    return torch.special.entr(shares).sum().exp()
