"""Several processes on a CPU."""

import pytest

from rsmclip.training.launch import requested_processes


@pytest.mark.parametrize(
    "command, expected",
    [
        ("python .venv/bin/accelerate launch --num_processes 2 --cpu train.py --max_train_steps 20", 2),
        ("python -m accelerate.commands.accelerate_cli launch --cpu --num_processes=3 train.py", 3),
        ("python .venv/bin/accelerate launch --cpu train.py", 1),
        ("python .venv/bin/accelerate launch --cpu train.py --num_processes 4", 1),  # train.py's own, and its error
        ("python train.py --num_processes 4", 1),
        ("bash launch", 1),
    ],
)
def test_the_number_of_processes_is_read_from_the_launcher(command, expected):
    assert requested_processes(command.split()) == expected
