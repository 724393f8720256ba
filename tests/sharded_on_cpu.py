"""Run train.py with FSDP on a CPU, by gloo.

Accelerate allows FSDP on GPUs only, although torch runs it on a CPU. Here accelerate is told that there are several
GPUs. Everything after that is its own code and ours.
"""

from unittest import mock

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType

from rsmclip import train
from rsmclip.training import processes
from rsmclip.training.config import TrainingConfig

make_accelerator = processes.make_accelerator


def make_accelerator_as_on_gpus(config: TrainingConfig) -> Accelerator:
    """Pretend only while the accelerator is made: later a CUDA build of torch would look for a GPU."""
    with mock.patch.object(torch.accelerator, "is_available", return_value=True):
        return make_accelerator(config)


if __name__ == "__main__":
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    processes.make_accelerator = make_accelerator_as_on_gpus
    train.main()
