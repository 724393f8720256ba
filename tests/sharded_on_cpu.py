"""Runs train.py with FSDP or DeepSpeed on a CPU, by gloo. Accelerate admits both on GPUs only, though torch does not
mind: here it is told that it sits on several GPUs, and all that follows is its own code and ours."""

from unittest import mock

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType

from rsmclip import train
from rsmclip.training.config import TrainingConfig

make_accelerator = train.make_accelerator


def make_accelerator_as_on_gpus(config: TrainingConfig) -> Accelerator:
    """Only there: later a torch that is built for GPUs would look for one."""
    with mock.patch.object(torch.accelerator, "is_available", return_value=True):
        return make_accelerator(config)


if __name__ == "__main__":
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    train.make_accelerator = make_accelerator_as_on_gpus
    train.main()
