"""Groups of the optimizer, frozen parameters, and skipped steps."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from rsmclip.training.config import TrainingConfig
from rsmclip.training.optimizer import clip_gradients, freeze, learning_rates, make_optimizer, skip_unless_finite


def groups_by_name(model, **fields) -> dict[str, dict]:
    """Return the group of each trained parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, TrainingConfig(**fields))
    return {names[id(parameter)]: group for group in optimizer.param_groups for parameter in group["params"]}


def test_only_matrices_are_decayed(tiny_model):
    groups = groups_by_name(tiny_model, weight_decay=0.3, learning_rate=2e-4)
    assert set(groups) == {name for name, _ in tiny_model.named_parameters()}
    others = {name for name, group in groups.items() if group["weight_decay"] == 0}
    decayed = {name for name, group in groups.items() if group["weight_decay"] == 0.3}
    assert decayed | others == set(groups) and {group["lr"] for group in groups.values()} == {2e-4}
    for name in others:
        kinds = ("bias", "layernorm", "layer_norm", "layrnorm", "layernorm", "logit_scale", "embedding")
        assert any(kind in name.lower() for kind in kinds), name
    assert "logit_scale" in others and "vision_model.embeddings.class_embedding" in others
    assert "vision_model.embeddings.position_embedding.weight" in others
    assert "text_model.embeddings.position_embeddings.weight" in others
    assert "text_model.embeddings.word_embeddings.weight" in decayed
    assert "self_distillation_head.prototypes.weight" in decayed and "visual_projection.weight" in decayed


def test_each_part_has_its_learning_rate(tiny_model):
    groups = groups_by_name(tiny_model, learning_rate=1.0, image_learning_rate=2.0, head_learning_rate=3.0)
    rates = {name: group["lr"] for name, group in groups.items()}
    for name, rate in rates.items():
        part = 2.0 if name.startswith("vis") else 3.0 if name.startswith("self_distillation_head") else 1.0
        assert rate == part, name


def test_layers_below_learn_more_slowly(tiny_model):
    groups = groups_by_name(tiny_model, learning_rate=1.0, layer_decay=0.5)
    rates = {name: group["lr"] for name, group in groups.items()}
    vision = "vision_model.encoder.layers.{}.mlp.fc1.weight"
    assert [rates[vision.format(layer)] for layer in (0, 1)] == [0.5, 1.0]
    assert rates["vision_model.embeddings.class_embedding"] == rates["vision_model.pre_layrnorm.weight"] == 0.25
    assert rates["vision_model.post_layernorm.weight"] == rates["visual_projection.weight"] == 1.0
    assert rates["text_model.encoder.layer.0.output.dense.weight"] == rates["text_projection.0.weight"] == 1.0
    assert rates["text_model.embeddings.word_embeddings.weight"] == 0.5
    assert rates["logit_scale"] == rates["self_distillation_head.mlp.0.weight"] == 1.0


def test_the_logged_rate_of_a_part_is_its_last_layers(tiny_model):
    optimizer = make_optimizer(tiny_model, TrainingConfig(learning_rate=1.0, text_learning_rate=0.3, layer_decay=0.1))
    assert learning_rates(optimizer) == {"image": 1.0, "text": 0.3, "head": 1.0, "logit_scale": 1.0}


def test_frozen_parameters_take_no_memory_of_the_optimizer(tiny_model):
    config = TrainingConfig(freeze=r"vision_model\.(embeddings|encoder\.layers\.0\.)", freeze_word_embeddings=True)
    freeze(tiny_model, config)
    frozen = {name for name, parameter in tiny_model.named_parameters() if not parameter.requires_grad}
    assert "text_model.embeddings.word_embeddings.weight" in frozen
    assert "vision_model.encoder.layers.0.mlp.fc1.weight" in frozen
    assert "vision_model.encoder.layers.1.mlp.fc1.weight" not in frozen
    assert not frozen & set(groups_by_name(tiny_model))


def test_a_freeze_that_freezes_nothing_or_all_is_refused(tiny_model):
    with pytest.raises(ValueError, match="freeze 'visoin'.*logit_scale"):
        freeze(tiny_model, TrainingConfig(freeze="visoin"))
    with pytest.raises(ValueError, match="freeze"):
        freeze(tiny_model, TrainingConfig(freeze="."))
    with pytest.raises(ValueError, match="freeze"):
        TrainingConfig(freeze="(")


def test_a_step_without_a_finite_gradient_changes_nothing():
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)

    def step(scale: float) -> float:
        optimizer.zero_grad()
        (layer(torch.ones(4, 3)).sum() * scale).backward()
        skipped = skip_unless_finite(optimizer, torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0))
        optimizer.step()
        return skipped.item()

    assert step(1.0) == 0
    before = [layer.weight.clone(), *(value.clone() for value in optimizer.state[layer.weight].values())]
    for bad in (float("nan"), float("inf")):
        assert step(bad) == 1
    after = [layer.weight, *optimizer.state[layer.weight].values()]
    assert all(old.equal(new) for old, new in zip(before, after, strict=True))
    assert step(1.0) == 0 and not layer.weight.equal(before[0])


def test_a_gradient_scaler_skips_the_same_steps_and_changes_no_others():
    def train(mixed: bool) -> tuple[list[float], torch.Tensor, float]:
        AcceleratorState._reset_state(True)
        accelerator = Accelerator(cpu=True, mixed_precision="fp16" if mixed else "no")
        if mixed:  # as on a GPU
            accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=1024.0)
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
        optimizer = accelerator.prepare(optimizer)
        skipped = []
        for scale in (1.0, float("inf"), 0.3, float("nan"), 2.0):
            loss = (layer(torch.ones(4, 3)) ** 2).sum() * scale
            (accelerator.scaler.scale(loss) if mixed else loss).backward()
            norm = clip_gradients(accelerator, layer, 1.0)
            skipped.append(skip_unless_finite(optimizer, norm).item())
            optimizer.step()
            optimizer.zero_grad()
        return skipped, layer.weight.detach(), accelerator.scaler.get_scale() if mixed else 1.0

    (plain, weight, _), (scaled, other, scale) = train(False), train(True)
    assert plain == scaled == [0, 1, 0, 1, 0]
    assert torch.allclose(weight, other, atol=1e-6) and scale == 1024 / 4  # halved at each of the two
    AcceleratorState._reset_state(True)
