"""The student, which is the model in training, and the teacher, which is a moving average of its image tower."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from rsmclip import RSMCLIPModel
from rsmclip.training.losses import self_distillation_loss


class StudentOutput(NamedTuple):
    """Result of [`Student`]."""

    image_embeds: torch.Tensor  # (views, batch, dim), unit length, of the views that InfoNCE takes
    text_embeds: torch.Tensor  # (captions, batch, dim), unit length
    logit_scale: torch.Tensor  # (), exponentiated
    distillation: torch.Tensor | None  # (batch,), self-distillation loss; None without targets


class Student(nn.Module):
    """
    The model in training, with one `forward` for a whole training step, as DistributedDataParallel requires.

    With `chunks > 1`, only the activations of one part of the batch are in memory, and InfoNCE still sees the whole
    batch (gradient caching, Gao et al. 2021). Each part passes the towers, and its activations are dropped. When the
    gradients of its embeddings are known, its activations are computed again with equal dropout.

    Args:
        model ([`RSMCLIPModel`]): The model in training.
        temperature (`float`, *optional*, defaults to 0.1): Temperature of the student's distribution over prototypes.
        chunks (`int`, *optional*, defaults to 1): Number of parts of the batch.
    """

    def __init__(self, model: RSMCLIPModel, temperature: float = 0.1, chunks: int = 1):
        super().__init__()
        self.model, self.temperature, self.chunks = model, temperature, chunks

    def forward(
        self,
        global_views: torch.Tensor | None,
        local_views: torch.Tensor | None,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        text_groups: list[tuple[torch.Tensor, int]] | None = None,
        targets: torch.Tensor | None = None,
        contrastive_views: torch.Tensor | None = None,
    ) -> StudentOutput:
        """
        Compute the embeddings of a batch and its self-distillation loss.

        Args:
            global_views (`torch.Tensor` of shape `(global_views, batch, 3, size, size)`, *optional*):
                Large crops, for the self-distillation loss, and for the image embeddings without `contrastive_views`.
            local_views (`torch.Tensor` of shape `(local_views, batch, 3, local_size, local_size)`, *optional*):
                Small crops, for the self-distillation loss only.
            input_ids (`torch.Tensor` of shape `(captions, batch, length)`): Token ids of the captions.
            attention_mask (`torch.Tensor` of shape `(captions, batch, length)`): 1 for tokens, 0 for padding.
            text_groups (`list[tuple[torch.Tensor, int]]`, *optional*):
                Groups of captions of similar length from [`~rsmclip.training.batches.group_by_length`]: indices of the
                flattened captions, and the length of the group.
            targets (`torch.Tensor` of shape `(global_views, batch, num_prototypes)`, *optional*):
                The teacher's distributions over prototypes. Without targets there is no self-distillation loss.
            contrastive_views (`torch.Tensor` of shape `(contrastive_views, batch, 3, size, size)`, *optional*):
                Mild crops, for the image embeddings only. By default these are embeddings of the global views.
        """
        # images, in `chunks` parts
        parts = [
            tensor.chunk(self.chunks, dim=1) if tensor is not None else [None] * self.chunks
            for tensor in (global_views, local_views, targets, contrastive_views)
        ]
        images = [self.cached(self.embed_views, *part) for part in zip(*parts, strict=False)]
        image_embeds = torch.cat([embeds for embeds, _ in images], dim=1)
        distillation = torch.cat([losses for _, losses in images]) if targets is not None else None

        # captions, in groups of similar length
        ids, mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
        groups = text_groups or [(torch.arange(len(ids), device=ids.device), ids.shape[1])]
        # One lookup of word embeddings for all groups: every lookup has a gradient as large as the vocabulary, 768 MB.
        words = self.model.text_model.embeddings.word_embeddings(ids)
        grouped = [self.cached(self.embed_captions, words[rows, :n], mask[rows, :n]) for rows, n in groups]
        text_embeds = torch.cat(grouped)[torch.cat([rows for rows, _ in groups]).argsort()]
        text_embeds = text_embeds.unflatten(0, input_ids.shape[:2])
        return StudentOutput(image_embeds, text_embeds, self.model.logit_scale.exp().squeeze(), distillation)

    def cached(self, embed: Callable, *inputs: torch.Tensor | None) -> torch.Tensor | tuple:
        return checkpoint(embed, *inputs, use_reentrant=False) if self.chunks > 1 else embed(*inputs)

    def embed_views(
        self,
        global_views: torch.Tensor | None,
        local_views: torch.Tensor | None,
        targets: torch.Tensor | None,
        contrastive_views: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # Contrastive and global views have one size and pass the tower together.
        large = [views for views in (contrastive_views, global_views) if views is not None]
        pooled = pool_views(self.model.vision_model, torch.cat(large) if len(large) > 1 else large[0])
        embeds = F.normalize(self.model.visual_projection(pooled[: len(large[0])]).float(), dim=-1)
        if targets is None:
            return embeds, None
        pooled = pooled[-len(global_views) :]
        if local_views is not None:
            pooled = torch.cat([pooled, pool_views(self.model.vision_model, local_views)])
        return embeds, self_distillation_loss(self.model.self_distillation_head(pooled), targets, self.temperature)

    def embed_captions(self, words: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # (captions, length, width) and (captions, length) to (captions, dim)
        features = self.model.get_text_features(inputs_embeds=words, attention_mask=attention_mask)
        return F.normalize(features.pooler_output.float(), dim=-1)


class Teacher(nn.Module):
    """
    Exponential moving average of the student's image tower and self-distillation head. It has no gradient.

    Args:
        model ([`RSMCLIPModel`]): The student at the start of the training.
        chunks (`int`, *optional*, defaults to 1): Number of parts of the batch, to save memory.
    """

    def __init__(self, model: RSMCLIPModel, chunks: int = 1):
        super().__init__()
        self.chunks = chunks
        self.vision_model = copy.deepcopy(model.vision_model)
        self.self_distillation_head = copy.deepcopy(model.self_distillation_head)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, global_views: torch.Tensor) -> torch.Tensor:
        """Return the prototype logits of the views, `(global_views, batch, num_prototypes)`."""
        parts = global_views.chunk(self.chunks, dim=1)
        return torch.cat([self.self_distillation_head(pool_views(self.vision_model, part)) for part in parts], dim=1)

    @torch.no_grad()
    def update(self, model: RSMCLIPModel, momentum: float) -> None:
        """Update every weight: `teacher = momentum * teacher + (1 - momentum) * student`. Skip frozen weights."""
        student = [*model.vision_model.parameters(), *model.self_distillation_head.parameters()]
        pairs = [(old, new) for old, new in zip(self.parameters(), student, strict=True) if new.requires_grad]
        new = [weight.full_tensor() if isinstance(weight, DTensor) else weight for _, weight in pairs]  # FSDP
        torch._foreach_lerp_([old for old, _ in pairs], new, 1 - momentum)


def pool_views(vision_model: nn.Module, views: torch.Tensor) -> torch.Tensor:
    # (views, batch, 3, size, size) to (views, batch, width), all views in one batch
    size = views.shape[-1]
    resized = size != vision_model.config.image_size
    pooled = vision_model(pixel_values=views.flatten(0, 1), interpolate_pos_encoding=resized).pooler_output
    return pooled.unflatten(0, views.shape[:2])
