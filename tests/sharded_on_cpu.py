"""Runs train.py with FSDP or DeepSpeed on a CPU, by gloo. Accelerate admits both on GPUs only, though torch does not
mind: here it is told that it sits on several GPUs, and all that follows is its own code and ours."""

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from rsmclip import train

if __name__ == "__main__":
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    torch.accelerator.is_available = lambda: True
    train.main()
