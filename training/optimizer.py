"""AdamW with weight decay on matrices only."""

import torch

from rsmclip import RSMCLIPModel
from rsmclip.training.config import TrainingConfig


def make_optimizer(model: RSMCLIPModel, config: TrainingConfig) -> torch.optim.AdamW:
    """
    The optimiser of the student.

    Norms, biases, the logit scale, and the class and position embeddings are not decayed: pulling them towards zero
    regularises nothing and would change the temperature.
    """
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        decay = parameter.ndim >= 2 and "position_embedding" not in name and "token_type" not in name
        (decayed if decay else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.adam_beta2), fused=True)
