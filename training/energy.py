"""What a run may have cost in energy: its time by assumed power. Nothing is measured, so it is told as a range."""

import torch
from accelerate import Accelerator

# Watts, from frugal to hungry: a core of a large server to one of a desktop, each with its share of memory; an
# accelerator of a workstation to one of a data centre at its limit.
CORE, ACCELERATOR = (5, 15), (150, 700)


def estimate_energy(accelerator: Accelerator, seconds: float) -> dict:
    """
    An estimate of the energy of training.

    Args:
        accelerator (`Accelerator`): The run's processes.
        seconds (`float`): How long it trained, evaluations left out.

    Returns:
        `dict`: `kwh`, the lowest and the highest estimate in kilowatt-hours, and `how`, what was assumed.
    """
    on_cpu = accelerator.device.type == "cpu"
    low, high = CORE if on_cpu else ACCELERATOR
    devices = accelerator.num_processes * (torch.get_num_threads() if on_cpu else 1)
    name = ("core" if on_cpu else "accelerator") + ("s" if devices > 1 else "")
    return {
        "kwh": [seconds * devices * watts / 3.6e6 for watts in (low, high)],
        "how": f"{devices} {name} at an assumed {low} to {high} W each, without cooling and the rest of the machine",
    }
