"""Student and teacher: what is trained, and the moving average of its image tower that it learns from."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from rsmclip import RSMCLIPModel


class StudentOutput(NamedTuple):
    """Embeddings have unit length. `prototype_logits` is `None` for a model without self-distillation head."""

    image_embeds: torch.Tensor  # (global_views, batch, dim)
    text_embeds: torch.Tensor  # (global_views, batch, dim)
    logit_scale: torch.Tensor  # (), exponentiated
    prototype_logits: torch.Tensor | None  # (global_views + local_views, batch, prototypes)


class Student(nn.Module):
    """
    All that a training step asks of the model, in one `forward`, as DistributedDataParallel needs it.

    Args:
        model ([`RSMCLIPModel`]):
            The model in training.
    """

    def __init__(self, model: RSMCLIPModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        global_views: torch.Tensor,
        local_views: torch.Tensor | None,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        text_groups: list[tuple[torch.Tensor, int]] | None = None,
    ) -> StudentOutput:
        """
        Args:
            global_views (`torch.Tensor` of shape `(views, batch, 3, size, size)`):
                Views that the image embeddings come from.
            local_views (`torch.Tensor` of shape `(views, batch, 3, local_size, local_size)`, *optional*):
                Small crops, for the prototypes only.
            input_ids (`torch.Tensor` of shape `(global_views, batch, length)`):
                A caption for each global view.
            attention_mask (`torch.Tensor` of shape `(global_views, batch, length)`):
                1 for tokens, 0 for padding.
            text_groups (`list[tuple[torch.Tensor, int]]`, *optional*):
                Captions of similar length, as rows of the flattened captions and the length they need.
        """
        pooled = pool_views(self.model.vision_model, global_views)
        image_embeds = F.normalize(self.model.visual_projection(pooled), dim=-1)
        ids, mask = input_ids.flatten(0, 1), attention_mask.flatten(0, 1)
        groups = text_groups or [(torch.arange(len(ids), device=ids.device), ids.shape[1])]
        grouped = [self.model.get_text_features(ids[rows, :n], mask[rows, :n]).pooler_output for rows, n in groups]
        text_features = torch.cat(grouped)[torch.cat([rows for rows, _ in groups]).argsort()]
        text_embeds = F.normalize(text_features, dim=-1).unflatten(0, input_ids.shape[:2])
        prototype_logits = None
        if self.model.self_distillation_head is not None:
            if local_views is not None:
                pooled = torch.cat([pooled, pool_views(self.model.vision_model, local_views)])
            prototype_logits = self.model.self_distillation_head(pooled)
        return StudentOutput(image_embeds, text_embeds, self.model.logit_scale.exp(), prototype_logits)


class Teacher(nn.Module):
    """
    Exponential moving average of the student's image tower and head; it sees global views only and has no gradient.

    Args:
        model ([`RSMCLIPModel`]):
            The student at the start.
    """

    def __init__(self, model: RSMCLIPModel):
        super().__init__()
        self.vision_model = copy.deepcopy(model.vision_model)
        self.self_distillation_head = copy.deepcopy(model.self_distillation_head)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, global_views: torch.Tensor) -> torch.Tensor:
        """`(views, batch, 3, size, size)` to prototype logits `(views, batch, prototypes)`."""
        return self.self_distillation_head(pool_views(self.vision_model, global_views))

    @torch.no_grad()
    def update(self, model: RSMCLIPModel, momentum: float) -> None:
        """Moves every weight towards the student's: `teacher = momentum * teacher + (1 - momentum) * student`."""
        student = [*model.vision_model.parameters(), *model.self_distillation_head.parameters()]
        torch._foreach_lerp_(list(self.parameters()), student, 1 - momentum)


def pool_views(vision_model: nn.Module, views: torch.Tensor) -> torch.Tensor:
    """All views in one batch through the image tower: `(views, batch, 3, size, size)` to `(views, batch, width)`."""
    size = views.shape[-1]
    resized = size != vision_model.config.image_size
    pooled = vision_model(pixel_values=views.flatten(0, 1), interpolate_pos_encoding=resized).pooler_output
    return pooled.unflatten(0, views.shape[:2])
