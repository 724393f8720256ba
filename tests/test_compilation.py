"""Compiled layers of the towers."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from rsmclip.training.compilation import compile_layers, eager, repeated_layers
from rsmclip.training.teacher import Student, Teacher


@pytest.fixture
def asked_for(monkeypatch):
    # The environment variables of `accelerate launch`. This backend traces and differentiates only.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "AOT_EAGER")
    monkeypatch.setenv("ACCELERATE_DYNAMO_USE_DYNAMIC", "True")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def gradients(model, teacher, length: int, chunks: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    views, local = torch.randn(2, 6, 3, 32, 32, generator=generator), torch.randn(2, 6, 3, 16, 16, generator=generator)
    ids = torch.randint(5, 200, (2, 6, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[:, 0, length // 2 :] = 0
    targets = (teacher(views) / 0.1).softmax(dim=-1)
    output = Student(model, 0.1, chunks)(views, local, ids, mask, targets=targets)
    model.zero_grad()
    ((output.image_embeds * output.text_embeds).sum() * output.logit_scale + output.distillation.mean()).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_compiled_layers_give_the_gradients_of_eager_ones_and_one_graph_serves_all_lengths(tiny_model, asked_for):
    plain, compiled = tiny_model.train(), copy.deepcopy(tiny_model).train()
    teachers = Teacher(plain), Teacher(compiled)
    names = list(compiled.state_dict())
    compile_layers(Student(compiled), teachers[1])
    for length, chunks in ((9, 1), (12, 1), (40, 1), (17, 2), (23, 2)):
        expected = gradients(plain, teachers[0], length, chunks)
        found = gradients(compiled, teachers[1], length, chunks)
        assert (found - expected).norm() < 1e-5 * expected.norm()
    assert counters["stats"]["unique_graphs"] == 3  # image layer of the student, of the teacher, and text layer
    assert list(compiled.state_dict()) == names  # so that a checkpoint of either continues as the other


def test_an_evaluation_compiles_nothing(tiny_model, asked_for):
    pixels = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        expected = tiny_model.get_image_features(pixels).pooler_output
        compile_layers(tiny_model)
        with eager():
            assert tiny_model.get_image_features(pixels).pooler_output.equal(expected)
        assert counters["stats"]["unique_graphs"] == 0
        tiny_model.get_image_features(pixels)
        assert counters["stats"]["unique_graphs"] > 0


def test_nothing_is_compiled_unless_it_is_asked_for(tiny_model, monkeypatch):
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND", raising=False)
    compile_layers(tiny_model)
    layers = list(repeated_layers(tiny_model))
    assert len(layers) == 3 and all(layer._compiled_call_impl is None for layer in layers)
