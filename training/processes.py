"""The processes of a run: the accelerator, the supported launches, and models that FSDP shards.

With FSDP (version 2) every process has a part of each weight, gradient and moment, and gathers a layer to compute it.
Every process has the whole teacher. A process alone can neither evaluate nor save a sharded model: [`whole_model`]
gathers it.
"""

import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    broadcast_object_list,
)
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, StateDictType

from rsmclip import RSMCLIPModel
from rsmclip.core.cores import cpu_count
from rsmclip.core.errors import UserError
from rsmclip.core.files import is_local
from rsmclip.training.config import SOURCES, TrainingConfig

ACCUMULATION, PRECISION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_MIXED_PRECISION"
LOST_PEER = re.compile("Connection (closed by peer|reset by peer|refused)|Broken pipe|remote process exited", re.I)
Result = TypeVar("Result")


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """
    Create the accelerator with the precision and trackers of the configuration or of `accelerate launch`.

    Raises:
        [`UserError`]: The launch is not supported, or the processes cannot share the batch equally.
    """
    check_environment()
    AcceleratorState._reset_state()  # of an earlier run of this process, which may have had another precision
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # otherwise processes of torchrun on a CPU do not form a group
        mixed_precision=config.mixed_precision,
        log_with=config.log_with,
        dynamo_backend="no",  # `compile_layers` compiles
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),  # one copy of the gradients instead of two
            InitProcessGroupKwargs(timeout=timedelta(hours=1)),  # other ranks wait while rank 0 evaluates
        ],
        step_scheduler_with_optimizer=False,  # otherwise every step advances the schedule once for each process
        project_config=ProjectConfiguration(config.output_dir, logging_dir=f"{config.output_dir}/trackers"),
    )
    check_launch(accelerator, adapter=bool(config.lora))
    if config.batch_size % accelerator.num_processes:
        raise UserError(f"batch_size {config.batch_size} is not a multiple of {accelerator.num_processes} processes")
    if accelerator.device.type == "cpu":  # launchers give each process one thread
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))  # of this machine
        torch.set_num_threads(config.cpu_threads or max(1, cpu_count() // processes))
    torch.backends.cudnn.benchmark = True  # otherwise the patch embedding takes a tenth of a step on an H100
    return accelerator


def check_environment() -> None:
    """
    Raise [`UserError`] for variables of a launcher that Accelerate would fail at or apply to every step.

    With accumulation it would divide each gradient, although every step of a run is a step of the optimizer.
    """
    for name in ("DeepSpeed", "Megatron_LM", "Parallelism_config"):
        if os.environ.get(f"ACCELERATE_USE_{name.upper()}", "false").lower() == "true":
            raise UserError(f"{name} is not supported: launch with configs/accelerate/fsdp.yaml")
    if (steps := os.environ.get(ACCUMULATION, "1")) != "1":
        raise UserError(
            f"{ACCUMULATION} is {steps!r}, but a step cannot be divided by Accelerate: unset it, and give "
            "--gradient_accumulation_chunks, which saves the memory and keeps all candidates of InfoNCE"
        )
    if (precision := os.environ.get(PRECISION, "no")).lower() == "fp8":
        raise UserError(f"{PRECISION} is {precision!r}, which is not supported: launch with --mixed_precision bf16")


def check_launch(accelerator: Accelerator, adapter: bool) -> None:
    """
    Raise [`UserError`] if the launch is not supported. Accelerate would ignore some requests without a message.

    `adapter` says whether the run trains a LoRA adapter.
    """
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if accelerator.mixed_precision == "fp16" and (sharded or accelerator.device.type == "cpu"):
        raise UserError("mixed_precision fp16 needs GPUs without FSDP: use bf16")
    if not sharded:
        return
    if accelerator.distributed_type != DistributedType.FSDP:
        raise UserError(
            "FSDP needs several processes on GPUs: launch with configs/accelerate/cpu.yaml or one_gpu_bf16.yaml"
        )
    if accelerator.state.fsdp_plugin.fsdp_version != 2:
        raise UserError("fsdp_version must be 2, as in configs/accelerate/fsdp.yaml")
    if accelerator.state.fsdp_plugin.state_dict_type != StateDictType.FULL_STATE_DICT:  # others are read as pickles
        raise UserError("fsdp_state_dict_type must be FULL_STATE_DICT, as in configs/accelerate/fsdp.yaml")
    if adapter:
        raise UserError("lora does not work with FSDP and does not need it: launch with configs/accelerate/ddp.yaml")


def once(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Call `action` on rank 0. All processes return its result, or raise its [`UserError`], so that none waits."""
    done: list[Result | UserError | None] = [None]
    if accelerator.is_main_process:
        try:
            done = [action()]
        except UserError as error:
            done = [error]
    (result,) = broadcast_object_list(done)
    if isinstance(result, UserError):
        raise result
    return result


@contextmanager
def names_lost_peer() -> Iterator[None]:
    """Raise [`UserError`] if an exchange fails because another process of the run has ended. Also a decorator."""
    try:
        yield
    except RuntimeError as error:  # of gloo, or torch's DistError
        if PartialState().num_processes == 1 or not LOST_PEER.search(str(error)):
            raise
        raise UserError(
            f"process {PartialState().process_index} has lost another process of the run, which was killed or has "
            "failed: look for its message, and continue with --resume_from_checkpoint latest"
        ) from error


def choose_attention(model: RSMCLIPModel, accelerator: Accelerator) -> None:
    """On a CPU in bfloat16, use eager attention: torch's fused attention had a slower backward pass on an AMD EPYC."""
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        model.set_attn_implementation("eager")


def make_shardable(model: RSMCLIPModel, accelerator: Accelerator) -> None:
    """
    Prepare a model for FSDP: its `logit_scale` becomes a vector with one entry. Without FSDP do nothing.

    FSDP would cast weights and gradients to the lower precision. Autocast is used instead, as without FSDP, so that
    gradient sums and losses are in float32.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    scale = model.logit_scale  # FSDP cannot shard a parameter without dimensions
    model.logit_scale = nn.Parameter(scale.detach()[None], scale.requires_grad)
    accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()


def whole_model(model: RSMCLIPModel, student: nn.Module, accelerator: Accelerator) -> RSMCLIPModel | None:
    """
    Return the model; with FSDP a copy with all weights on rank 0, and `None` on other ranks.

    Every process must call it. `student` is the module that accelerate has prepared and that contains the model.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return model
    gathered = accelerator.get_state_dict(student)
    if not accelerator.is_main_process:
        return None
    weights = {name.removeprefix("model."): weight for name, weight in gathered.items()}
    weights["logit_scale"] = weights["logit_scale"].squeeze()
    with torch.random.fork_rng(devices=[]):  # the initialization must not change the random state of the run
        whole = RSMCLIPModel(model.config)
    whole.load_state_dict(weights)
    return whole.to(accelerator.device)


def describe_device(accelerator: Accelerator) -> str:
    """Return number and kind of the devices, like `2 × NVIDIA H100` or `1 × CPU (x86_64, 2 threads)`."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} × {torch.cuda.get_device_name(accelerator.device)}"
    threads = torch.get_num_threads()
    return f"{accelerator.num_processes} × CPU ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"


def rerun_command(config: TrainingConfig, accelerator: Accelerator) -> str:
    """Return the command that repeats the run from its folder. Local paths are placeholders in capitals."""
    processes, on_cpu = accelerator.num_processes, accelerator.device.type == "cpu"
    launcher = "python" if processes == 1 else f"torchrun --nproc_per_node {processes}"
    if not on_cpu:
        launcher = f"accelerate launch --num_processes {processes}"
    local = (name for name in SOURCES if getattr(config, name) not in (None, "demo"))
    places = "".join(f" --{name} {name.upper()}" for name in local if is_local(getattr(config, name)))
    entries = [entry.partition("=") for entry in config.benchmarks]
    if any(sign for _, sign, _ in entries):
        named = (f"{name}={name.upper()}" if sign else name for name, sign, _ in entries)
        places += f" --benchmarks {' '.join(named)}"
    precision = f" --mixed_precision {accelerator.mixed_precision}" if accelerator.mixed_precision != "no" else ""
    return f"{launcher} train.py --config training_config.yaml --output_dir NEW{precision}{places}"
