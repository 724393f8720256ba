"""The estimate of energy: its arithmetic, and what it says of itself."""

from types import SimpleNamespace

import pytest
import torch

from rsmclip.training.energy import estimate_energy


def test_energy_is_time_by_devices_by_assumed_power():
    on_gpus = SimpleNamespace(device=torch.device("cuda"), num_processes=4)
    estimate = estimate_energy(on_gpus, seconds=3600.0)
    assert estimate["kwh"] == pytest.approx([4 * 0.150, 4 * 0.700])
    assert "4 accelerators at an assumed 150 to 700 W each" in estimate["how"]
    on_cpu = SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    threads = torch.get_num_threads()
    assert estimate_energy(on_cpu, 7200.0)["kwh"] == pytest.approx([2 * threads * 0.005, 2 * threads * 0.015])
