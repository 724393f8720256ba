"""The two objectives: InfoNCE between images and captions, and self-distillation between views of an image.

Both return the mean over this process's rows. Averaged over processes, as DistributedDataParallel averages gradients,
that is the loss of the global batch.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.nn.functional import all_gather


def gather_with_gradient(embeds: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, `(batch, dim)` to `(processes * batch, dim)`; gradients flow back to their process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return embeds
    return torch.cat(all_gather(embeds.contiguous()))


def clip_loss(image_embeds: torch.Tensor, text_embeds: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """
    InfoNCE over the global batch, both directions averaged (Radford et al. 2021, figure 3).

    Only the logits of this process's rows against all columns are computed: local x global, never global x global.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch, dim)`):
            Unit-length image embeddings of this process.
        text_embeds (`torch.Tensor` of shape `(batch, dim)`):
            Unit-length text embeddings; text `i` belongs to image `i`.
        logit_scale (`torch.Tensor` of shape `()`):
            Inverse temperature, already exponentiated.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    all_images, all_texts = gather_with_gradient(image_embeds), gather_with_gradient(text_embeds)
    first = dist.get_rank() * len(image_embeds) if len(all_images) > len(image_embeds) else 0
    targets = torch.arange(first, first + len(image_embeds), device=image_embeds.device)
    image_to_text = F.cross_entropy(logit_scale * image_embeds @ all_texts.t(), targets)
    text_to_image = F.cross_entropy(logit_scale * text_embeds @ all_images.t(), targets)
    return (image_to_text + text_to_image) / 2


class SelfDistillationLoss(nn.Module):
    """
    Cross-entropy from the teacher's to the student's distribution over prototypes, for every pair of a global view
    that the teacher saw and another view that the student saw (Caron et al. 2021, equation 3 and algorithm 1).

    The teacher's logits are centred by their running mean, against collapse to one prototype, and sharpened by a low
    temperature, against collapse to the uniform distribution.

    Args:
        num_prototypes (`int`):
            Width of the logits.
        student_temperature (`float`, *optional*, defaults to 0.1):
            Temperature of the student.
        center_momentum (`float`, *optional*, defaults to 0.9):
            Share of the old centre that an update keeps.
    """

    def __init__(self, num_prototypes: int, student_temperature: float = 0.1, center_momentum: float = 0.9):
        super().__init__()
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(num_prototypes))

    def forward(
        self, student_logits: torch.Tensor, teacher_logits: torch.Tensor, teacher_temperature: float
    ) -> torch.Tensor:
        """
        Args:
            student_logits (`torch.Tensor` of shape `(views, batch, num_prototypes)`):
                The first views are the teacher's, in the same order.
            teacher_logits (`torch.Tensor` of shape `(global_views, batch, num_prototypes)`):
                Without gradient.
            teacher_temperature (`float`):
                Temperature of the teacher at this step.

        Returns:
            `torch.Tensor` of shape `()`, the mean over pairs of different views and over the batch.
        """
        targets = ((teacher_logits.float() - self.center) / teacher_temperature).softmax(dim=-1)
        log_probs = (student_logits.float() / self.student_temperature).log_softmax(dim=-1)
        cross_entropy = -torch.einsum("tbk,vbk->tv", targets, log_probs) / targets.shape[1]  # (global_views, views)
        same_view = torch.eye(*cross_entropy.shape, dtype=torch.bool, device=cross_entropy.device)
        pairs = cross_entropy.numel() - len(cross_entropy)
        return cross_entropy.masked_fill(same_view, 0.0).sum() / pairs

    @torch.no_grad()
    def update_center(self, teacher_logits: torch.Tensor) -> None:
        """Moves the centre towards the mean of the teacher's logits over views, batch and processes."""
        mean = teacher_logits.float().mean(dim=(0, 1))
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        self.center.lerp_(mean, 1 - self.center_momentum)
