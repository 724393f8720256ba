"""The processes of a run: the accelerator, what a launch may ask for, and models that FSDP shards.

With FSDP (version 2) every process holds a part of each weight, gradient and moment, and gathers a layer while it
computes it. The teacher is whole on every process. One process alone can neither evaluate nor save a sharded model:
[`whole_model`] gathers it.
"""

import os
import platform
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from rsmclip import RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.core.files import is_local
from rsmclip.training.config import TrainingConfig


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """
    Create the accelerator with the precision and trackers of the configuration or of `accelerate launch`.

    Args:
        config ([`TrainingConfig`]): The run.

    Raises:
        [`UserError`]: The launch asks for something that is not supported.
    """
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else the processes of torchrun do not find each other on a CPU
        mixed_precision=config.mixed_precision,
        log_with=config.log_with,
        dynamo_backend="no",  # `compile_layers` compiles
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),  # one copy of the gradients instead of two
            InitProcessGroupKwargs(timeout=timedelta(hours=1)),  # the others wait while one process evaluates
        ],
        step_scheduler_with_optimizer=False,  # one scheduler step for each training step, with any number of processes
        project_config=ProjectConfiguration(config.output_dir, logging_dir=f"{config.output_dir}/trackers"),
    )
    check_launch(accelerator, adapter=bool(config.lora))
    if config.batch_size % accelerator.num_processes:
        raise UserError(f"batch_size {config.batch_size} is not a multiple of {accelerator.num_processes} processes")
    if accelerator.device.type == "cpu":  # a launcher leaves one thread to each process
        torch.set_num_threads(config.cpu_threads or max(1, os.cpu_count() // accelerator.num_processes))
    torch.backends.cudnn.benchmark = True  # else the patch embedding takes a tenth of a step on an H100
    return accelerator


def check_launch(accelerator: Accelerator, adapter: bool) -> None:
    """
    Check what the launcher asks for; accelerate would ignore some of it without a message.

    Args:
        accelerator (`Accelerator`): The processes.
        adapter (`bool`): Whether the run trains a LoRA adapter.

    Raises:
        [`UserError`]: The combination is not supported.
    """
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        raise UserError("DeepSpeed is not supported: launch with configs/accelerate/fsdp.yaml")
    if accelerator.mixed_precision == "fp16" and (sharded or accelerator.device.type == "cpu"):
        raise UserError("mixed_precision fp16 needs GPUs without FSDP: use bf16")
    if not sharded:
        return
    if accelerator.distributed_type != DistributedType.FSDP:
        raise UserError("FSDP needs GPUs, and this machine has none: launch with configs/accelerate/cpu.yaml")
    if accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise UserError("fsdp_version must be 2, as in configs/accelerate/fsdp.yaml")
    if adapter:
        raise UserError("lora does not work with FSDP and does not need it: launch with configs/accelerate/ddp.yaml")


def make_shardable(model: RSMCLIPModel, accelerator: Accelerator) -> None:
    """
    Prepare a model for FSDP; without FSDP do nothing.

    FSDP would cast weights and gradients to the lower precision. Here autocast does the casting, as without FSDP, so
    that gradients are summed and losses computed in float32.

    Args:
        model ([`RSMCLIPModel`]): The model in training; its `logit_scale` becomes a vector with one entry.
        accelerator (`Accelerator`): The processes.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    scale = model.logit_scale  # FSDP takes no parameter without dimensions
    model.logit_scale = nn.Parameter(scale.detach()[None], scale.requires_grad)
    accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()


def whole_model(model: RSMCLIPModel, student: nn.Module, accelerator: Accelerator) -> RSMCLIPModel | None:
    """
    Return the model with all of its weights. Every process must call this function.

    Args:
        model ([`RSMCLIPModel`]): The model in training.
        student (`nn.Module`): The prepared student that contains the model.
        accelerator (`Accelerator`): The processes.

    Returns:
        [`RSMCLIPModel`] or `None`: The model itself; with FSDP a gathered copy on rank 0, and `None` on other ranks.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return model
    gathered = accelerator.get_state_dict(student)
    if not accelerator.is_main_process:
        return None
    weights = {name.removeprefix("model."): weight for name, weight in gathered.items()}
    weights["logit_scale"] = weights["logit_scale"].squeeze()
    with torch.random.fork_rng(devices=[]):  # the random weights are overwritten below
        whole = RSMCLIPModel(model.config)
    whole.load_state_dict(weights)
    return whole.to(accelerator.device)


def describe_device(accelerator: Accelerator) -> str:
    """Return number and kind of the devices, for the card: `2 × NVIDIA H100`, `1 × CPU (x86_64, 2 threads)`."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} × {torch.cuda.get_device_name(accelerator.device)}"
    threads = torch.get_num_threads()
    return f"{accelerator.num_processes} × CPU ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"


def rerun_command(config: TrainingConfig, accelerator: Accelerator) -> str:
    """Return the command that repeats the run from its folder; local folders are placeholders in capitals."""
    processes, on_cpu = accelerator.num_processes, accelerator.device.type == "cpu"
    launcher = "python" if processes == 1 else f"torchrun --nproc_per_node {processes}"
    if not on_cpu:
        launcher = f"accelerate launch --num_processes {processes}"
    local = (name for name in ("dataset", "model", "tokenizer") if getattr(config, name) not in (None, "demo"))
    places = "".join(f" --{name} {name.upper()}" for name in local if is_local(getattr(config, name)))
    precision = f" --mixed_precision {accelerator.mixed_precision}" if accelerator.mixed_precision != "no" else ""
    return f"{launcher} train.py --config training_config.yaml --output_dir NEW{precision}{places}"
