"""FSDP and DeepSpeed, as accelerate has them. With FSDP every process holds a part of each weight, gradient and
moment, and gathers a layer while it computes it; with DeepSpeed's ZeRO stage 2, a part of gradients and moments.

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

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


def check_launch(config: TrainingConfig, accelerator: Accelerator) -> None:
    """
    Whether what the launcher asks for can be had, before anything is written.

    Raises:
        `ValueError`: It cannot; accelerate would leave some of it out without a word.
    """
    asked = [name for name in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{name}", "false") == "true"]
    if accelerator.mixed_precision == "fp16" and (asked or accelerator.device.type == "cpu"):
        raise ValueError("fp16 needs GPUs, and neither FSDP nor DeepSpeed: take --mixed_precision bf16")
    if not asked:
        return
    if accelerator.distributed_type not in SHARDED:
        raise ValueError(f"{asked[0]} needs GPUs, and there are none: launch with configs/accelerate/cpu.yaml")
    plugin = accelerator.state.fsdp_plugin if asked == ["FSDP"] else accelerator.state.deepspeed_plugin
    if asked == ["FSDP"] and plugin.fsdp_version != 2:
        raise ValueError(
            "fsdp_version is 1, which does not go with this model: set it to 2, as configs/accelerate/fsdp.yaml"
        )
    if asked == ["DEEPSPEED"] and plugin.zero_stage > 2:
        raise ValueError("DeepSpeed's zero_stage 3 takes weights apart, which is not supported: take 2, or FSDP")
    if config.lora:
        raise ValueError(f"lora does not go with {asked[0]}, nor needs it: launch with configs/accelerate/ddp.yaml")
    if asked == ["DEEPSPEED"] and config.freeze_prototypes_steps:
        raise ValueError("freeze_prototypes_steps does not go with DeepSpeed: launch with configs/accelerate/ddp.yaml")


def make_shardable(model: RSMCLIPModel, config: TrainingConfig, accelerator: Accelerator) -> None:
    """
    Readies a model for `accelerator.prepare`; without FSDP and DeepSpeed nothing changes.

    Both would cast weights to the lower precision, gradients with them. Here they leave that to autocast, as it is
    without them, so that gradients are summed, and losses computed, in float32.

    Args:
        model ([`RSMCLIPModel`]): The model in training; its `logit_scale` becomes a vector of one number.
        config ([`TrainingConfig`]): The run.
        accelerator (`Accelerator`): Its processes.
    """
    if accelerator.distributed_type not in SHARDED:
        return
    scale = model.logit_scale  # neither takes parameters without dimensions
    model.logit_scale = nn.Parameter(scale.detach()[None], scale.requires_grad)
    if accelerator.distributed_type == DistributedType.FSDP:
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    else:
        bf16 = accelerator.mixed_precision == "bf16"
        accelerator.native_amp = bf16  # for the teacher; DeepSpeed wants to be told of the student's
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "bf16": {"enabled": False},
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16"},
            "train_micro_batch_size_per_gpu": config.batch_size // accelerator.num_processes,
            "gradient_clipping": config.max_grad_norm,
        }


def whole_model(model: RSMCLIPModel, student: nn.Module, accelerator: Accelerator) -> RSMCLIPModel | None:
    """
    The model with all of its weights. Of a sharded one a copy on the main process, `None` on the others; every
    process has to ask for it.

    Args:
        model ([`RSMCLIPModel`]): The model in training.
        student (`nn.Module`): What accelerate made of the student that it is in.
        accelerator (`Accelerator`): The processes.
    """
    if accelerator.distributed_type not in SHARDED:
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
