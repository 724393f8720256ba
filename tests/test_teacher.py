"""Student and teacher."""

import numpy as np
import pytest
import torch

from rsmclip import RSMCLIPModel
from rsmclip.training.batches import group_by_length
from rsmclip.training.losses import clip_loss, self_distillation_loss
from rsmclip.training.teacher import Student, Teacher


def test_student_gives_what_the_model_gives(tiny_model):
    views, ids = torch.randn(2, 3, 3, 32, 32), torch.randint(4, 900, (2, 3, 6))
    local = torch.randn(4, 3, 3, 16, 16)
    targets = torch.rand(2, 3, 24).softmax(dim=-1)
    output = Student(tiny_model, temperature=0.2)(views, local, ids, torch.ones_like(ids), None, targets)
    for view in range(2):
        model_output = tiny_model(input_ids=ids[view], pixel_values=views[view])
        torch.testing.assert_close(output.image_embeds[view], model_output.image_embeds, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(output.text_embeds[view], model_output.text_embeds, atol=1e-6, rtol=1e-5)
    prototype_logits = torch.stack([tiny_model.get_prototype_logits(view) for view in [*views, *local]])
    expected = self_distillation_loss(prototype_logits, targets, 0.2)
    torch.testing.assert_close(output.distillation, expected, atol=1e-6, rtol=1e-5)
    assert output.logit_scale.item() == tiny_model.logit_scale.exp().item()


@pytest.mark.parametrize("chunks", [1, 2])
def test_contrastive_views_give_the_embeddings_and_no_self_distillation(tiny_model, chunks):
    mild, views, local = (torch.randn(n, 3, 3, size, size) for n, size in ((1, 32), (2, 32), (2, 16)))
    ids, targets = torch.randint(4, 900, (1, 3, 6)), torch.rand(2, 3, 24).softmax(dim=-1)
    student, captions = Student(tiny_model, chunks=chunks), (ids, torch.ones_like(ids), None)
    output = student(views, local, *captions, targets, mild)
    plain = student(mild, None, *captions)
    torch.testing.assert_close(output.image_embeds, plain.image_embeds, atol=1e-6, rtol=1e-5)
    same = student(views, local, *captions, targets)
    torch.testing.assert_close(output.distillation, same.distillation, atol=1e-6, rtol=1e-5)
    alone = student(None, None, *captions, contrastive_views=mild)
    torch.testing.assert_close(alone.image_embeds, plain.image_embeds, atol=1e-6, rtol=1e-5)
    assert alone.distillation is None


def test_captions_in_groups_of_similar_length_give_the_same(tiny_model):
    views, ids = torch.randn(2, 5, 3, 32, 32), torch.randint(4, 900, (2, 5, 9))
    lengths = torch.tensor([[9, 3, 5, 3, 7], [2, 8, 4, 6, 3]])
    mask = (torch.arange(9) < lengths[..., None]).long()
    groups = group_by_length(mask.flatten(0, 1))
    assert sorted(row for rows, _ in groups for row in rows.tolist()) == list(range(10))
    assert [length for _, length in groups] == [3, 5, 8, 9]
    student = Student(tiny_model)
    whole, grouped = student(views, None, ids, mask), student(views, None, ids, mask, groups)
    torch.testing.assert_close(grouped.text_embeds, whole.text_embeds, atol=1e-6, rtol=1e-5)


def test_teacher_starts_as_the_student_and_follows_it(tiny_model):
    teacher = Teacher(tiny_model)
    views = torch.randn(2, 3, 3, 32, 32)
    torch.testing.assert_close(teacher(views)[0], tiny_model.get_prototype_logits(views[0]), atol=1e-6, rtol=1e-5)
    before = {name: value.double().numpy().copy() for name, value in teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.add_(torch.randn_like(parameter))
    teacher.update(tiny_model, momentum=0.9)
    for name, value in teacher.state_dict().items():
        student = tiny_model.state_dict()[name].double().numpy()
        np.testing.assert_allclose(value.numpy(), 0.9 * before[name] + 0.1 * student, atol=1e-5)


def test_teacher_has_no_gradient_and_shares_nothing(tiny_model):
    teacher = Teacher(tiny_model)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    addresses = {parameter.data_ptr() for parameter in tiny_model.parameters()}
    assert not addresses & {parameter.data_ptr() for parameter in teacher.parameters()}
    assert not teacher(torch.randn(1, 2, 3, 32, 32)).requires_grad


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_caching_equals_the_whole_batch_with_the_same_dropout(tiny_config, dropout):
    # Gao et al. 2021
    tiny_config.text_config.hidden_dropout_prob = tiny_config.text_config.attention_probs_dropout_prob = dropout
    torch.manual_seed(1)
    model = RSMCLIPModel(tiny_config).train()
    views, local, ids = torch.randn(2, 8, 3, 32, 32), torch.randn(3, 8, 3, 16, 16), torch.randint(4, 900, (2, 8, 6))
    targets = torch.rand(2, 8, 24).softmax(dim=-1)
    groups = group_by_length(torch.ones(16, 6))
    gradients = {}
    for chunks in (1, 4, 3):
        torch.manual_seed(2)
        model.zero_grad()
        output = Student(model, chunks=chunks)(views, local, ids, torch.ones_like(ids), groups, targets)
        loss = clip_loss(output.image_embeds, output.text_embeds, output.logit_scale) + output.distillation.mean()
        loss.backward()
        gradients[chunks] = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for chunks in (3, 4):
        torch.testing.assert_close(gradients[chunks], gradients[1], atol=1e-5, rtol=1e-5)


def test_gradient_caching_keeps_the_activations_of_one_part(tiny_model):
    views, ids = torch.randn(1, 16, 3, 32, 32), torch.randint(4, 900, (1, 16, 6))
    held = {}

    def note(saved):
        held[chunks][saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    for chunks in (1, 4):
        held[chunks] = {}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            Student(tiny_model, chunks=chunks)(views, None, ids, torch.ones_like(ids))
    assert sum(held[4].values()) < sum(held[1].values()) / 4


def test_frozen_parameters_do_not_move_in_the_teacher(tiny_model):
    teacher = Teacher(tiny_model)
    frozen = tiny_model.vision_model.embeddings.class_embedding.requires_grad_(False)
    before = teacher.vision_model.embeddings.class_embedding.clone()
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.add_(1)
    teacher.update(tiny_model, momentum=0.5)
    assert teacher.vision_model.embeddings.class_embedding.equal(before) and not frozen.equal(before)
    moved = teacher.self_distillation_head.prototypes.weight
    torch.testing.assert_close(moved, tiny_model.self_distillation_head.prototypes.weight - 0.5)
