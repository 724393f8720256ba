"""AdamW: the trained parameters with their learning rates and decay, clipping, and skipped steps."""

import re

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from rsmclip import RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.training.config import ModelSettings, OptimizationSettings

# Parts of the model that can have their own learning rate, by prefix of parameter names.
PARTS = {
    "vision_model.": "image",
    "visual_projection.": "image",
    "text_model.": "text",
    "text_projection.": "text",
    "self_distillation_head.": "head",
}
PROJECTIONS = ("visual_projection.", "text_projection.")


def freeze(model: RSMCLIPModel, settings: ModelSettings) -> None:
    """
    Freeze the parameters that `freeze` and `freeze_word_embeddings` name: they get neither gradients nor moments.

    Raises:
        [`UserError`]: The expression matches no parameter, or nothing is left to train.
    """
    patterns = [settings.freeze] if settings.freeze else []
    patterns += [r"text_model\.embeddings\.word_embeddings"] if settings.freeze_word_embeddings else []
    for pattern in patterns:
        matched = [parameter for name, parameter in model.named_parameters() if re.search(pattern, name)]
        if not matched:
            example = next(name for name, _ in model.named_parameters())
            raise UserError(f"freeze {pattern!r} matches no parameter; names are like {example}")
        for parameter in matched:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze {settings.freeze!r} leaves nothing to train")


def make_optimizer(model: RSMCLIPModel, settings: OptimizationSettings) -> torch.optim.AdamW:
    """Return AdamW over the trained parameters, in the groups of [`parameter_groups`]."""
    groups = parameter_groups(model, settings)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.adam_beta2), fused=True)


def parameter_groups(model: RSMCLIPModel, settings: OptimizationSettings) -> list[dict]:
    """
    Return the trained parameters in groups, one for each combination of part, rate and decay.

    Weight decay excludes norms, biases, and the class and position embeddings, which it would not regularize, and the
    logit scale, because it would change the temperature. The rate of a layer is the rate of its part times
    `layer_decay` for every layer above it (Bao et al. 2022, appendix). Embeddings are below all layers.
    """
    rates = {
        "image": settings.image_learning_rate,
        "text": settings.text_learning_rate,
        "head": settings.head_learning_rate,
    }
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of(name)
        rate = rates.get(part) or settings.learning_rate
        if settings.projection_learning_rate and name.startswith(PROJECTIONS):
            part, rate = "projections", settings.projection_learning_rate
        rate *= settings.layer_decay ** layers_above(model, name)
        decayed = parameter.ndim >= 2 and "position_embedding" not in name and "token_type" not in name
        decay = settings.weight_decay if decayed else 0.0
        group = {"params": [], "lr": rate, "weight_decay": decay, "part": part}
        groups.setdefault((part, rate, decay), group)["params"].append(parameter)
    return list(groups.values())


def part_of(name: str) -> str:
    return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), "logit_scale")


def layers_above(model: RSMCLIPModel, name: str) -> int:
    """Return the number of transformer layers above a parameter in its tower: 0 for the last layer and projections."""
    part = part_of(name)
    if part not in ("image", "text"):
        return 0
    depth = (model.config.vision_config if part == "image" else model.config.text_config).num_hidden_layers
    if layer := re.search(r"\.layers?\.(\d+)\.", name):
        return depth - 1 - int(layer[1])
    below = ".embeddings." in name or ".pre_layrnorm." in name
    return depth if below else 0


def initialize_moments(optimizer: torch.optim.Optimizer) -> None:
    """
    Give every parameter the moments that its first gradient would give it: zeros.

    FSDP cannot load a checkpoint in which a parameter has no moments, and prototypes have none while they are frozen.
    """
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the current learning rate of the last layer of each part."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        rates[group["part"]] = max(group["lr"], rates.get(group["part"], 0.0))
    return rates


def clip_gradients(accelerator: Accelerator, student: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale the gradients to a norm of at most `max_norm`. Returns their unscaled norm, a tensor of shape `()`."""
    norm = accelerator.clip_grad_norm_(student.parameters(), max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm  # FSDP shards the norm


def skip_unless_finite(optimizer: torch.optim.Optimizer, gradient_norm: torch.Tensor) -> torch.Tensor:
    """
    Make the next step of a fused optimizer change nothing if the norm of its gradients is not finite.

    The host does not wait for the device: the fused AdamW reads `found_inf` on the device, as with a gradient scaler.

    Returns:
        `torch.Tensor` of shape `()`: 1 if the step is skipped, else 0.
    """
    skipped = (~gradient_norm.isfinite()).float()
    getattr(optimizer, "optimizer", optimizer).found_inf = skipped
    return skipped
