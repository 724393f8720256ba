"""Signals are recorded until the end of a step, and do not end the workers that load data."""

import os
import signal
import subprocess
import time

import pytest
from accelerate import Accelerator
from torch.utils.data import DataLoader

from rsmclip.training.interruption import StopSignal, end_with_the_training_process, start_workers


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(autouse=True)
def sigint_has_an_effect():
    # A script in the background ignores SIGINT; a terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_recorded_and_the_handlers_are_restored(accelerator, number):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with StopSignal(accelerator) as stop:
        assert stop.agreed() is None
        os.kill(os.getpid(), number)
        assert stop.agreed() is number
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_sigint_interrupts_at_once(accelerator):
    with StopSignal(accelerator) as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.agreed() is signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_an_ignored_signal_stays_ignored(accelerator):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignal(accelerator) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.agreed() is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_ends_an_evaluation_and_is_recorded(accelerator):
    with StopSignal(accelerator) as stop:
        evaluated = False
        with stop.gives_up():
            os.kill(os.getpid(), signal.SIGTERM)
            evaluated = True
        assert not evaluated and stop.agreed() is signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # outside of the block it is only recorded
        with stop.gives_up():
            evaluated = True
        assert evaluated


def start_slowly(worker):
    time.sleep(1)
    end_with_the_training_process(worker)


@pytest.mark.parametrize("worker_init_fn", [end_with_the_training_process, start_slowly])
def test_workers_obey_only_the_training_process(worker_init_fn):
    loader = DataLoader(range(40), num_workers=2, worker_init_fn=worker_init_fn, prefetch_factor=1)
    batches = start_workers(loader)
    workers = batches._workers
    for name in ("INT", "TERM"):  # from a scheduler or Ctrl-C, while some workers start
        subprocess.run(["kill", f"-{name}", *(str(worker.pid) for worker in workers)], check=True)
    assert [*map(int, batches)] == list(range(40))
    batches = start_workers(loader)
    next(batches)
    worker = batches._workers[0]
    worker.terminate()
    worker.join(timeout=20)
    assert worker.exitcode == 0
