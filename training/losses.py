"""The two losses of a training step.

1. [`clip_loss`]: InfoNCE between images and captions, as in CLIP (Radford et al. 2021).
2. [`self_distillation_loss`]: cross-entropy between the prototype distributions of a teacher and of the student, as in
   DINO (Caron et al. 2021). [`Centering`] turns the teacher's logits into these distributions, the targets.

`train.py` minimizes `clip_loss + weight * self_distillation_loss.mean()`. `Student` (training/teacher.py) computes the
second loss.

The names of the dimensions:
- `batch`: images of this process. The global batch has `processes * batch` images.
- `views`: crops of an image. The teacher sees the global (large) views. In the self-distillation loss, the student
  sees the global and the local (small) views. InfoNCE takes the global views, or mild contrastive views of its own.
- `captions`: captions that are drawn for an image, in different languages if possible. Caption `[c, i]` belongs to
  image `i`.
- `sentences`: sentences of all captions of an image, drawn or not. A sentence and its translations are one sentence.
- `num_prototypes`: outputs of the self-distillation head (65,536 in the released model).

Every process computes the mean of a loss over its own images. DistributedDataParallel averages the gradients of all
processes, so the weights receive the gradient of the mean over the global batch.
"""

import math
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint as recompute_in_backward

DuplicateCaptions = Literal["positive", "ignore", "negative"]
MAX_LOG_SCALE = math.log(100)  # `model.logit_scale` is a logarithm; Radford et al. 2021, section 2.5


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    if world_size() > 1:
        dist.all_reduce(values)  # in place
    return values


class GatherWithGradient(torch.autograd.Function):
    """
    Embeddings of all processes, `(n, batch, dim)` to `(n, processes * batch, dim)`, in the order of the processes.

    The losses of all processes depend on the embeddings of this process. So the backward pass sums their gradients and
    returns the part that belongs to this process. DistributedDataParallel later divides by the number of processes.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, embeds: torch.Tensor) -> torch.Tensor:
        return gather(embeds)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(gradient.contiguous()).chunk(world_size(), dim=1)[dist.get_rank()]


def gather(values: torch.Tensor) -> torch.Tensor:
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
    duplicate_captions: DuplicateCaptions = "ignore",
    chunk_size: int | None = None,
    image_sentence_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Return this process's part of InfoNCE over the global batch (Radford et al. 2021, figure 3), with a choice of what
    happens where sentences repeat. The mean over the processes is the loss of the global batch.

    There is one loss for each pair of a view `v` and a caption index `c`, and the result is their mean (SILC,
    Naeem et al. 2023, section 3, has one for each view):

        logits[i, j]  = logit_scale * <image_embeds[v, i], text_embeds[c, j]>          for images i and captions j
        image_to_text = mean over i of  -1 / |P(i)| * sum over j in P(i) of  log softmax(logits[i, :])[j]
        text_to_image = mean over j of  -1 / |Q(j)| * sum over i in Q(j) of  log softmax(logits[:, j])[i]
        loss          = mean over v and c of  (image_to_text + text_to_image) / 2

    The softmax and the positives range over the global batch, the means over `i` and `j` over this process.

    The positives `P(i)` of image `i` contain `i` itself, for its own caption `[c, i]`. A sentence can repeat in the
    batch: caption `[c, j]`, drawn for image `j`, is also correct for image `i` if any caption of `i` (drawn in this
    step or not, in any language) is the same sentence. `duplicate_captions` is the role of these pairs:

    - `"ignore"`: they are left out of both softmaxes. `P(i) = {i}`.
    - `"positive"`: `P(i)` is `i` and all `j` with `sentence_ids[c, j]` in `image_sentence_ids[:, i]`. `Q(j)` is `j`
      and all such `i`. This is `L_out` of supervised contrastive learning (Khosla et al. 2020, equation 2).
    - `"negative"`: they are negatives, as in CLIP. `P(i) = {i}`.

    A process computes two blocks of logits: its images (rows) with all captions of the global batch, and its captions
    (rows) with all images. Each block has `batch` rows and `processes * batch` columns.

    Args:
        image_embeds (`torch.Tensor` of shape `(views, batch, dim)`):
            Unit-length image embeddings of this process.
        text_embeds (`torch.Tensor` of shape `(captions, batch, dim)`): Unit-length text embeddings of this process.
        logit_scale (`torch.Tensor` of shape `()`): Inverse temperature, `exp` of the learned parameter.
        sentence_ids (`torch.Tensor` of shape `(captions, batch)`, *optional*):
            Integer for each caption, the same in all processes. Captions with the same integer are one sentence or
            translations of it. By default no sentence repeats.
        duplicate_captions (`"ignore"`, `"positive"` or `"negative"`, *optional*, defaults to `"ignore"`):
            Role of a caption that was drawn for another image but is the same sentence as a caption of this image.
        chunk_size (`int`, *optional*):
            Number of rows with logits in memory at one time, by default all. The backward pass computes the logits
            again. The chunk size does not change the loss.
        image_sentence_ids (`torch.Tensor` of shape `(sentences, batch)`, *optional*):
            Integers of all sentences of an image, those of its drawn captions included. An integer may repeat. By
            default `sentence_ids`: only drawn captions count.
    """
    all_images, all_texts = image_embeds, text_embeds
    if world_size() > 1:
        all_images, all_texts = GatherWithGradient.apply(image_embeds), GatherWithGradient.apply(text_embeds)

    # Image i of this process is column rank * batch + i of the global batch.
    batch = image_embeds.shape[1]
    first = dist.get_rank() * batch if world_size() > 1 else 0
    own = torch.arange(first, first + batch, device=image_embeds.device)
    ids = sentence_ids if sentence_ids is not None else own.expand(len(text_embeds), -1)
    sentences = image_sentence_ids if image_sentence_ids is not None else ids
    all_ids, all_sentences = gather(ids), gather(sentences)

    def chunk_loss(rows: slice) -> torch.Tensor:
        # v: views; r: images of this process, k: their captions; g: images of all processes, c: their captions;
        # s: sentences of an image
        image_to_text = logit_scale * torch.einsum("vrd,cgd->vcrg", image_embeds[:, rows], all_texts)
        text_to_image = logit_scale * torch.einsum("krd,vgd->vkrg", text_embeds[:, rows], all_images)
        # Rows are images: image r has the sentence of caption [c, g].  (s, c, r, g) to (c, r, g)
        row_has = (sentences[:, None, rows, None] == all_ids[:, None]).any(dim=0)
        # Rows are captions: image g has the sentence of caption [k, r].  (s, k, r, g) to (k, r, g)
        column_has = (all_sentences[:, None, None] == ids[:, rows, None]).any(dim=0)
        directions = ((image_to_text, row_has), (text_to_image, column_has))
        return sum(info_nce(logits, own[rows], same, duplicate_captions) for logits, same in directions) / 2

    if chunk_size is None or chunk_size >= batch:
        return chunk_loss(slice(None)) / batch
    chunks = [slice(start, start + chunk_size) for start in range(0, batch, chunk_size)]
    return sum(recompute_in_backward(chunk_loss, rows, use_reentrant=False) for rows in chunks) / batch


def info_nce(
    logits: torch.Tensor, own: torch.Tensor, same_sentence: torch.Tensor, duplicate_captions: DuplicateCaptions
) -> torch.Tensor:
    """
    Return InfoNCE in one direction: the negative log-probability, averaged over the positives of a row, summed (not
    averaged) over the rows, averaged over views and captions.

    Args:
        logits (`torch.Tensor` of shape `(views, captions, rows, columns)`):
            Scaled cosines. Rows are images and columns are captions, or the reverse.
        own (`torch.Tensor` of shape `(rows,)`): Column that belongs to each row.
        same_sentence (`torch.Tensor` of shape `(captions, rows, columns)`):
            `True` where the image has the sentence of the caption, of a row and a column.
        duplicate_captions (`"positive"`, `"ignore"` or `"negative"`):
            Role of the columns with `same_sentence` other than the row's own.
    """
    is_own = own[:, None] == torch.arange(logits.shape[-1], device=logits.device)
    positives = (same_sentence | is_own) if duplicate_captions == "positive" else is_own.expand_as(same_sentence)
    if duplicate_captions == "ignore":
        logits = logits.masked_fill(same_sentence & ~is_own, -torch.inf)
    log_probs = logits.log_softmax(dim=-1).masked_fill(~positives, 0.0)
    return -(log_probs.sum(dim=-1) / positives.sum(dim=-1)).mean(dim=(0, 1)).sum()


class Centering(nn.Module):
    """
    Function from the teacher's logits to the targets of the student that prevents collapse.

    Self-distillation can collapse in two ways: the teacher gives all images the same single prototype, or it gives all
    images the uniform distribution. Two methods prevent both:

    - `"running_mean"` (DINO, Caron et al. 2021, section 3.1): `targets = softmax((logits - center) / temperature)`.
      After that, `center = momentum * center + (1 - momentum) * mean(logits)`, with the mean over the global views of
      the global batch. Centering prevents the first collapse, a low temperature (sharpening) the second.
    - `"sinkhorn_knopp"` (SwAV, Caron et al. 2020, section 3.2; DINOv2, Oquab et al. 2023): scales the distributions of
      the global batch so that the batch uses all prototypes about equally. It has no center. See [`sinkhorn_knopp`].

    Args:
        num_prototypes (`int`): Number of prototypes.
        method (`"running_mean"` or `"sinkhorn_knopp"`, *optional*, defaults to `"running_mean"`): See above.
        momentum (`float`, *optional*, defaults to 0.9): Momentum of the center.
    """

    def __init__(self, num_prototypes: int, method: str = "running_mean", momentum: float = 0.9):
        super().__init__()
        self.method, self.momentum = method, momentum
        self.register_buffer("center", torch.zeros(num_prototypes))
        self.register_buffer("ever_won", torch.zeros(num_prototypes, dtype=torch.bool))

    @torch.no_grad()
    def forward(self, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """
        Return the targets of a batch in float32, and update the center with the mean over the global batch.

        Args:
            teacher_logits (`torch.Tensor` of shape `(global_views, batch, num_prototypes)`): Output of the teacher.
            temperature (`float`): Temperature of the teacher.

        Returns:
            `torch.Tensor` of shape `(global_views, batch, num_prototypes)`. They sum to 1 over the prototypes.
        """
        logits = teacher_logits.float()
        if self.method == "sinkhorn_knopp":
            targets = sinkhorn_knopp(logits.flatten(0, 1) / temperature).view_as(logits)
        else:
            targets = ((logits - self.center) / temperature).softmax(dim=-1)
            mean = sum_over_processes(logits.mean(dim=(0, 1))) / world_size()
            moved = self.center.lerp(mean, 1 - self.momentum)  # a NaN in the center would never go away
            self.center.copy_(torch.where(moved.isfinite().all(), moved, self.center))
        self.ever_won.index_fill_(0, targets.argmax(dim=-1).flatten(), True)
        return targets

    def prototype_use(self) -> torch.Tensor:
        """
        Return the share of prototypes that have been the most likely one of a target since the start of the run.

        All processes must call it. It merges `ever_won` of all processes. A checkpoint has the buffer of rank 0 only,
        so it lacks what the others added after the last call.
        """
        self.ever_won.copy_(sum_over_processes(self.ever_won.float()) > 0)
        return self.ever_won.float().mean()


def sinkhorn_knopp(scores: torch.Tensor, iterations: int = 3) -> torch.Tensor:
    """
    Return distributions over prototypes, `(rows, num_prototypes)`, that use all prototypes about equally over the
    global batch (Caron et al. 2020, section 3.2). A row is one global view of one image of this process.

    The algorithm starts from `exp(scores)` and repeats two steps: divide every column by its sum over the rows of all
    processes, then divide every row by its sum.

    Args:
        scores (`torch.Tensor` of shape `(rows, num_prototypes)`): Logits divided by the temperature.
        iterations (`int`, *optional*, defaults to 3): Number of repetitions.
    """
    largest = scores.amax()
    if world_size() > 1:  # all processes must subtract the same constant before they add their columns
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    weights = (scores - largest).exp()
    for _ in range(iterations):
        weights = weights / sum_over_processes(weights.sum(dim=0)).clamp(min=torch.finfo(weights.dtype).tiny)
        weights = weights / weights.sum(dim=1, keepdim=True)
    return weights


def self_distillation_loss(student_logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """
    Return the cross-entropy between the teacher's and the student's distributions over prototypes for each image,
    `(batch,)` (Caron et al. 2021, equation 3 and algorithm 1).

    The teacher sees the global views `t`, the student all views `v`. For image `b`, the loss is the mean over all
    pairs of different views:

        cross_entropy[b, t, v] = -sum over k of  targets[t, b, k] * log softmax(student_logits[v, b] / temperature)[k]
        loss[b] = mean over t and v with t != v of  cross_entropy[b, t, v]

    Args:
        student_logits (`torch.Tensor` of shape `(views, batch, num_prototypes)`):
            Output of the student's head. The first `global_views` of them are the teacher's views, in the same order.
        targets (`torch.Tensor` of shape `(global_views, batch, num_prototypes)`):
            Distributions from [`Centering`]. They have no gradient.
        temperature (`float`): Temperature of the student.
    """
    with torch.autocast(student_logits.device.type, enabled=False):  # a sum over 65,536 prototypes needs float32
        logits = student_logits.float() / temperature
        # -sum_k p_k log softmax(z)_k = logsumexp(z) - sum_k p_k z_k, because p sums to 1
        expected = torch.einsum("tbk,vbk->btv", targets, logits)
        cross_entropy = logits.logsumexp(dim=-1).t()[:, None] - expected  # (batch, global_views, views)
    different = ~torch.eye(*cross_entropy.shape[1:], dtype=torch.bool, device=cross_entropy.device)
    return (cross_entropy * different).sum(dim=(1, 2)) / different.sum()


def entropy(targets: torch.Tensor) -> torch.Tensor:
    """
    Return the mean entropy of the targets, divided by the largest possible entropy `log(num_prototypes)`.

    0 means that every target has all its weight on one prototype, not always the same one. 1 means that every target
    is uniform. A value that goes to 0 or 1 can be a sign of collapse; compare [`Centering.prototype_use`].
    """
    return torch.special.entr(targets).sum(dim=-1).mean() / math.log(targets.shape[-1])


def kl_divergence(cross_entropy: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Return KL(teacher || student) in nats: the mean cross-entropy of a batch minus the mean entropy of the targets.

    Every target is in equally many pairs of views, so the two means belong together. 0 means that the student has
    nothing left to learn from the teacher.
    """
    return cross_entropy.detach() - torch.special.entr(targets).sum(dim=-1).mean()


def effective_rank(embeds: torch.Tensor) -> torch.Tensor:
    """
    Return the effective number of dimensions of a batch of embeddings (RankMe, Garrido et al. 2023, equation 1).

    It is `exp(-sum of p * log(p))`, where `p` are the singular values divided by their sum. A collapse lowers it long
    before the losses show it.

    Args:
        embeds (`torch.Tensor` of shape `(batch, dim)`): Embeddings.
    """
    values = torch.linalg.svdvals(embeds.float().nan_to_num())  # of a step that is skipped; svdvals would raise
    shares = F.normalize(values, p=1, dim=0)
    return torch.special.entr(shares).sum().exp()
