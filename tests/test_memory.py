"""The memory estimate: against hand-computed sizes, and against what a real step takes from the system."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.training.config import TrainingConfig
from rsmclip.training.memory import LiveMemory, estimate_memory
from rsmclip.training.optimizer import freeze
from tests.conftest import TINY

CONFIG = TrainingConfig(short_side=32, num_local_views=2, local_size=16)
# A real step in a process of its own, at a middle size: what the resident memory grows by, and what was estimated.
REAL_STEP = """
import ctypes, re
from pathlib import Path
import psutil, torch
from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.training.config import parse_config
from rsmclip.training.memory import Step, estimate_memory

torch.set_num_threads(1)
config = parse_config(["--config", "configs/from_scratch_small.yaml"])
fields = config.model_config | {"text_config": config.model_config["text_config"] | {"vocab_size": 8000}}
model = RSMCLIPModel(RSMCLIPConfig(**fields))
step, sizes = Step(model.train(), config, None), config.view_specs(model.config.vision_config.image_size)
lengths = [16, 20, 24, 32]

def run(batch):
    views = {name: torch.randn(spec.count, batch, 3, spec.size, spec.size) for name, spec in sizes.items()}
    ids = torch.randint(5, 8000, (config.captions_per_image, batch, max(lengths)))
    rows = torch.arange(ids[..., 0].numel()).chunk(len(lengths))
    step(views, ids, list(zip(rows, lengths)))
    model.zero_grad()

def peak():
    # getrusage's begins with the memory of the process that started this one, the test run's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

run(8)
ctypes.CDLL(None).malloc_trim(0)
before = psutil.Process().memory_info().rss
run(128)
measured = peak() - before
estimated = estimate_memory(model, config, 128, lengths)
print(measured, estimated["total"] - sum(estimated[name] for name in ("weights", "moments", "teacher")))
"""


def make_model(vocab_size: int = 1000) -> RSMCLIPModel:
    """The tiny model without weights."""
    with torch.device("meta"):
        return RSMCLIPModel(RSMCLIPConfig(**TINY | {"text_config": TINY["text_config"] | {"vocab_size": vocab_size}}))


@pytest.fixture
def meta_model() -> RSMCLIPModel:
    """The tiny model without weights."""
    return make_model()


def size(parameters) -> int:
    """Bytes of parameters in float32."""
    return sum(4 * parameter.numel() for parameter in parameters)


def test_a_storage_counts_once_and_until_it_is_freed():
    memory = LiveMemory({})
    with FakeTensorMode(), memory:
        one = torch.empty(1000)
        turned = one.view(10, 100).t()
        one.add_(1)
        assert memory.live.total() == 4000
        two = turned + 1
        assert memory.live.total() == memory.peak.total() == 8000
        del two
        three = torch.empty(250, dtype=torch.float64)
        assert memory.live.total() == 6000 and memory.peak.total() == 8000
        del one, turned, three
    assert memory.live.total() == 0


def test_a_linear_layer_needs_what_its_sizes_say():
    memory = LiveMemory({"logits": (3, 7)})
    with FakeTensorMode(), memory:
        with memory.counting("weights"):
            weight = torch.empty(7, 5, requires_grad=True)
            weight.register_post_accumulate_grad_hook(memory.add_gradient)
        logits = torch.empty(3, 5) @ weight.t()
        assert memory.live == {"weights": 4 * 35, "activations": 4 * 15, "logits": 4 * 21}
        logits.sum().backward()
        assert memory.live["gradients"] == 4 * 35


def test_weights_moments_and_teacher_are_exact_and_all_adds_up(meta_model):
    estimate = estimate_memory(meta_model, CONFIG, 4, [16])
    teacher = [*meta_model.vision_model.parameters(), *meta_model.self_distillation_head.parameters()]
    positions = 8 * (meta_model.vision_model.embeddings.position_ids.numel())  # a buffer, in int64
    texts = meta_model.text_model.embeddings
    centre = (4 + 1) * TINY["self_distillation"]["num_prototypes"]  # in float32, and who has ever won
    assert estimate["moments"] == 2 * size(meta_model.parameters())
    buffers = positions + 8 * sum(buffer.numel() for buffer in texts.buffers())
    assert estimate["weights"] == size(meta_model.parameters()) + buffers
    assert estimate["teacher"] == size(teacher) + positions + centre
    assert estimate["total"] == sum(value for name, value in estimate.items() if name != "total")


def test_frozen_word_embeddings_save_their_gradient_and_moments():
    # They are most of the model, and the batch is small: the peak is at the end, with all gradients there.
    meta_model = make_model(vocab_size=250_002)
    words = size(meta_model.text_model.embeddings.word_embeddings.parameters())
    whole = estimate_memory(meta_model, CONFIG, 2, [4])
    freeze(meta_model, replace(CONFIG, freeze_word_embeddings=True))
    frozen = estimate_memory(meta_model, CONFIG, 2, [4])
    assert whole["moments"] - frozen["moments"] == 2 * words
    assert whole["gradients"] - frozen["gradients"] == words
    assert whole["weights"] == frozen["weights"]


@pytest.mark.parametrize(
    ("changed", "precision", "less"),
    [
        ({"gradient_accumulation_chunks": 4}, "no", "activations"),
        ({}, "bf16", "activations"),
        ({"num_local_views": 0}, "no", "prototype logits"),
        ({"self_distillation_weight": 0.0}, "no", "teacher"),
    ],
)
def test_what_saves_memory_is_seen_to(changed, precision, less, meta_model):
    before = estimate_memory(meta_model, CONFIG, 64, [64, 77])
    after = estimate_memory(meta_model, replace(CONFIG, **changed), 64, [64, 77], precision)
    assert after["total"] < before["total"] and after[less] < before[less]


def test_the_memory_of_the_logits_grows_with_the_processes_and_falls_with_chunks(meta_model):
    def estimate(processes: int = 1, **changed) -> dict[str, int]:
        config = replace(CONFIG, self_distillation_weight=0.0, num_global_views=1, **changed)
        return estimate_memory(meta_model, config, 1024, [4], processes=processes)

    alone, eight = estimate(), estimate(processes=8)
    assert eight["contrastive logits"] == 8 * alone["contrastive logits"] > 8 * 2 * 4 * 1024**2
    assert eight["total"] - estimate(processes=8, loss_chunk_size=128)["total"] > eight["contrastive logits"] / 2


def test_it_computes_nothing_and_leaves_the_model_as_it_was(tiny_model):
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    estimate_memory(tiny_model, CONFIG, 4, [8])
    assert not tiny_model.training and all(parameter.grad is None for parameter in tiny_model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())


def test_a_real_step_takes_what_was_estimated():
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system at once
    command = [sys.executable, "-c", REAL_STEP]
    root = Path(__file__).parent.parent
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    measured, estimated = map(int, result.stdout.split())
    assert estimated == pytest.approx(measured, rel=0.1)
