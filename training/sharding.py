"""FSDP: every process holds a part of each weight, gradient and moment, and gathers a layer while it computes it.

The teacher stays whole on every process. A model that lies in parts cannot be evaluated or saved by one process alone:
[`whole_model`] puts it together there.
"""

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from rsmclip import RSMCLIPModel
from rsmclip.training.config import TrainingConfig


def check_sharding(config: TrainingConfig, accelerator: Accelerator) -> None:
    """
    What goes with FSDP and DeepSpeed, before anything is written.

    Raises:
        `ValueError`: Something does not.
    """
    asked = {name: os.environ.get(f"ACCELERATE_USE_{name}", "false") == "true" for name in ("FSDP", "DEEPSPEED")}
    if not any(asked.values()):
        return
    name = "FSDP" if asked["FSDP"] else "DeepSpeed"
    if accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ValueError(f"{name} needs GPUs, and there are none: launch with --config_file configs/accelerate/cpu.yaml")
    instead = "launch with --config_file configs/accelerate/ddp.yaml"
    if config.lora:
        raise ValueError(f"lora does not go with {name}, nor needs it: its optimiser holds the adapter only; {instead}")
    if accelerator.mixed_precision == "fp16":
        raise ValueError(f"{name} does not go with fp16 here: take --mixed_precision bf16, or {instead}")
    if asked["FSDP"] and accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise ValueError("FSDP's version 1 does not go with this model: set fsdp_version: 2, as fsdp.yaml does")


def make_shardable(model: RSMCLIPModel, accelerator: Accelerator) -> None:
    """
    Readies a model for `accelerator.prepare`; without FSDP it stays as it is.

    Args:
        model ([`RSMCLIPModel`]): The model in training; its `logit_scale` becomes a vector of one number.
        accelerator (`Accelerator`): The processes.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    # Precision comes from autocast, as without FSDP: gradients are summed, and losses computed, in float32.
    accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    scale = model.logit_scale  # FSDP takes no parameters without dimensions
    model.logit_scale = nn.Parameter(scale.detach()[None], scale.requires_grad)


def whole_model(model: RSMCLIPModel, student: nn.Module, accelerator: Accelerator) -> RSMCLIPModel | None:
    """
    The model with all of its weights. Of a sharded one a copy on the main process, `None` on the others; every
    process has to ask for it.

    Args:
        model ([`RSMCLIPModel`]): The model in training.
        student (`nn.Module`): What accelerate made of the student that it is in.
        accelerator (`Accelerator`): The processes.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return model
    gathered = accelerator.get_state_dict(student)
    if not accelerator.is_main_process:
        return None
    weights = {name.removeprefix("model."): weight for name, weight in gathered.items()}
    weights["logit_scale"] = weights["logit_scale"].squeeze()
    with torch.random.fork_rng(devices=[]):  # a random start that is overwritten
        whole = RSMCLIPModel(model.config)
    whole.load_state_dict(weights)
    return whole.to(accelerator.device)
