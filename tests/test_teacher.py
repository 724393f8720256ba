"""Student and teacher."""

import numpy as np
import torch

from rsmclip.training.batches import group_by_length
from rsmclip.training.teacher import Student, Teacher


def test_student_gives_what_the_model_gives(tiny_model):
    views, ids = torch.randn(2, 3, 3, 32, 32), torch.randint(4, 900, (2, 3, 6))
    local = torch.randn(4, 3, 3, 16, 16)
    output = Student(tiny_model)(views, local, ids, torch.ones_like(ids))
    for view in range(2):
        model_output = tiny_model(input_ids=ids[view], pixel_values=views[view])
        torch.testing.assert_close(output.image_embeds[view], model_output.image_embeds, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(output.text_embeds[view], model_output.text_embeds, atol=1e-6, rtol=1e-5)
    assert output.prototype_logits.shape == (6, 3, 24)
    expected = tiny_model.get_prototype_logits(local[1])
    torch.testing.assert_close(output.prototype_logits[3], expected, atol=1e-6, rtol=1e-5)
    assert output.logit_scale.item() == tiny_model.logit_scale.exp().item()


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
