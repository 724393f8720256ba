"""Several processes on a CPU. `accelerate launch --num_processes 2 --cpu train.py` starts one, whatever the number is
(huggingface/accelerate issue 2741). That one becomes torchrun here, which starts as many as were asked for.
"""

import os
import sys

import psutil
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import str_to_bool

# What torchrun or an MPI launcher tells the processes it starts.
STARTED_BY_A_LAUNCHER = ("LOCAL_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def start_processes_on_cpu() -> None:
    """Replaces this process by torchrun if `accelerate launch --cpu` was asked for several; else does nothing."""
    if any(name in os.environ for name in STARTED_BY_A_LAUNCHER):
        return
    if not str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "false")):
        return
    parent = psutil.Process().parent()  # None of the first process of a container
    count = requested_processes(parent.cmdline() if parent else [])
    if count > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        os.execv(sys.executable, [*torchrun, *sys.argv])


def requested_processes(command: list[str]) -> int:
    """
    The `--num_processes` of an `accelerate launch` command, 1 for any other.

    Args:
        command (`list[str]`): Command line of the process that started this one.
    """
    if "launch" not in command or not any("accelerate" in part for part in command[: command.index("launch")]):
        return 1
    arguments, _ = launch_command_parser().parse_known_args(command[command.index("launch") + 1 :])
    return arguments.num_processes or 1
