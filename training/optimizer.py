"""AdamW: which parameters are trained, decayed, and at which rate; and steps that a bad batch cannot spoil."""

import re

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from rsmclip import RSMCLIPModel
from rsmclip.training.config import TrainingConfig

# Parts of the model with learning rates of their own, by the beginning of their parameters' names.
PARTS = {
    "vision_model.": "image",
    "visual_projection.": "image",
    "text_model.": "text",
    "text_projection.": "text",
    "self_distillation_head.": "head",
}


def freeze(model: RSMCLIPModel, config: TrainingConfig) -> None:
    """
    Stops the training of the parameters that the configuration names. They take neither gradients nor moments.

    Raises:
        `ValueError`: The expression matches no parameter, or nothing is left to train.
    """
    patterns = [config.freeze] if config.freeze else []
    patterns += [r"text_model\.embeddings\.word_embeddings"] if config.freeze_word_embeddings else []
    for pattern in patterns:
        matched = [parameter for name, parameter in model.named_parameters() if re.search(pattern, name)]
        if not matched:
            example = next(name for name, _ in model.named_parameters())
            raise ValueError(f"freeze {pattern!r} matches no parameter; their names are like {example}")
        for parameter in matched:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze {config.freeze!r} leaves nothing to train")


def make_optimizer(model: RSMCLIPModel, config: TrainingConfig) -> torch.optim.AdamW:
    """The optimiser of what is trained in the model."""
    groups = parameter_groups(model, config)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.adam_beta2), fused=True)


def parameter_groups(model: RSMCLIPModel, config: TrainingConfig) -> list[dict]:
    """
    The groups of what is trained in the model, one for each combination of part, rate and decay.

    Norms, biases, the logit scale, and the class and position embeddings are not decayed: pulling them towards zero
    regularises nothing and would change the temperature. A layer's rate is its part's times `layer_decay` for every
    layer above it (Bao et al. 2022, appendix), embeddings below all layers.
    """
    rates = {
        "image": config.image_learning_rate,
        "text": config.text_learning_rate,
        "head": config.head_learning_rate,
    }
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of(name)
        rate = rates.get(part) or config.learning_rate
        rate *= config.layer_decay ** layers_above(model, name)
        decay = config.weight_decay if is_decayed(name, parameter) else 0.0
        group = {"params": [], "lr": rate, "weight_decay": decay, "part": part}
        groups.setdefault((part, rate, decay), group)["params"].append(parameter)
    return list(groups.values())


def part_of(name: str) -> str:
    """`image`, `text`, `head`, or `logit_scale`, which stands for itself."""
    return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), "logit_scale")


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, word embeddings included."""
    return parameter.ndim >= 2 and "position_embedding" not in name and "token_type" not in name


def layers_above(model: RSMCLIPModel, name: str) -> int:
    """Transformer layers between a parameter and the end of its tower; 0 for the last layer and all that follows."""
    part = part_of(name)
    if part not in ("image", "text"):
        return 0
    depth = (model.config.vision_config if part == "image" else model.config.text_config).num_hidden_layers
    if layer := re.search(r"\.layers?\.(\d+)\.", name):
        return depth - 1 - int(layer[1])
    below = ".embeddings." in name or ".pre_layrnorm." in name
    return depth if below else 0


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The present learning rate of each part: that of its last layer."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        rates[group["part"]] = max(group["lr"], rates.get(group["part"], 0.0))
    return rates


def clip_gradients(accelerator: Accelerator, student: nn.Module, max_norm: float) -> torch.Tensor:
    """Clips the gradients of what accelerate has prepared to a norm; returns the one they had, of shape `()`."""
    norm = accelerator.clip_grad_norm_(student.parameters(), max_norm)
    if isinstance(norm, DTensor):  # of FSDP
        return norm.full_tensor()
    return torch.as_tensor(norm, device=accelerator.device)  # DeepSpeed gives a number


def skip_unless_finite(optimizer: torch.optim.Optimizer, gradient_norm: torch.Tensor) -> torch.Tensor:
    """
    Makes the optimiser's next step do nothing if the gradients are not finite, without asking the device: the fused
    AdamW reads `found_inf` there, as it does for a gradient scaler.

    Args:
        optimizer (`torch.optim.Optimizer`): A fused optimiser, possibly wrapped by accelerate.
        gradient_norm (`torch.Tensor` of shape `()`): Norm of all gradients.

    Returns:
        `torch.Tensor` of shape `()`: 1 if the step is skipped, else 0.
    """
    skipped = (~gradient_norm.isfinite()).float()
    getattr(optimizer, "optimizer", optimizer).found_inf = skipped
    return skipped
