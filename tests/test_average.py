"""Averages of weights: bit for bit at the ends, in between as the formula says, and refused where models differ."""

import copy
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.models.average import read_ingredients, read_teacher
from rsmclip.models.folder import save_model_folder
from rsmclip.training.checkpoints import register_states, save_checkpoint
from rsmclip.training.teacher import Student, Teacher
from rsmclip.training.tokenizer import train_tokenizer
from tests.conftest import TINY


@pytest.fixture
def save(tiny_processor, tmp_path):
    """Save a random model of other weights for each seed."""

    def save(seed: int, name: str | None = None, dtype=torch.float32, processor=tiny_processor, **fields) -> Path:
        torch.manual_seed(seed)
        text = TINY["text_config"] | {"vocab_size": len(processor.tokenizer)}
        model = RSMCLIPModel(RSMCLIPConfig(**(TINY | {"text_config": text} | fields))).to(dtype)
        model.logit_scale.data.fill_(1.0 + seed)
        folder = tmp_path / (name or f"model_{seed}")
        save_model_folder(model, processor, folder)
        return folder

    return save


def average_models(folders, shares):
    ingredients = read_ingredients(folders)
    return ingredients.average(shares), ingredients.processor


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_of_one_gives_the_model_bit_for_bit(save, dtype):
    folders = [save(1, dtype=dtype), save(2, dtype=dtype)]
    for number, shares in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        model, _ = average_models(folders, shares)
        expected, found = weights(folders[number]), model.state_dict()
        assert all(found[name].equal(tensor) and found[name].dtype == dtype for name, tensor in expected.items())


def test_in_between_every_tensor_is_the_weighted_sum_and_the_logit_scale_its_logarithm(save):
    start, tuned = save(1), save(2)
    model, _ = average_models([start, tuned], [0.75, 0.25])
    one, two, found = weights(start), weights(tuned), model.state_dict()
    for name in one:
        torch.testing.assert_close(found[name], 0.75 * one[name] + 0.25 * two[name])
    assert model.logit_scale.item() == pytest.approx(0.75 * 2 + 0.25 * 3)


def test_three_models_make_a_soup(save):
    folders = [save(seed) for seed in (1, 2, 3)]
    model, _ = average_models(folders, [1 / 3] * 3)
    assert model.logit_scale.item() == pytest.approx(3.0)


def test_a_head_that_one_model_lacks_is_left_out(save):
    without = save(1, self_distillation=None)
    for folders in ([without, save(2)], [save(3), without]):
        model, _ = average_models(folders, [0.5, 0.5])
        assert model.self_distillation_head is None and model.config.self_distillation is None


def test_checkpoints_of_a_run_are_averaged_with_its_processor(save, tmp_path):
    run = save(1, "run")
    for step, value in ((1, 2.0), (2, 4.0)):
        folder = run / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        tensors = {f"model.{name}": tensor for name, tensor in weights(run).items()}
        save_file(tensors | {"model.logit_scale": torch.tensor(value)}, folder / "model.safetensors")
    model, processor = average_models([run / "checkpoints" / "step-1", run / "checkpoints" / "step-2"], [0.5, 0.5])
    assert model.logit_scale.item() == 3.0 and processor.tokenizer("a port")["input_ids"]


def save_run(run: Path, teacher: bool = True) -> tuple[Path, dict[str, torch.Tensor]]:
    """Save a checkpoint of a run whose teacher differs from its student. Returns it, and the teacher's tensors."""
    accelerator = Accelerator(cpu=True)
    model = RSMCLIPModel.from_pretrained(run, dtype="float32")
    tower = Teacher(RSMCLIPModel(model.config))
    register_states(accelerator, teacher=tower if teacher else None)
    accelerator.prepare(Student(model))
    return save_checkpoint(accelerator, run / "checkpoints", 4, 1), tower.state_dict()


def test_a_teacher_has_the_image_tower_of_its_state_bit_for_bit_and_the_texts_of_the_student(save):
    run = save(1, "run")
    checkpoint, expected = save_run(run)
    model, processor = read_teacher(checkpoint)
    found, student = model.state_dict(), weights(run)
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    others = found.keys() - expected.keys()
    assert {"logit_scale", "visual_projection.weight"} <= others
    assert all(found[name].equal(student[name]) for name in others)
    assert any(not student[name].equal(expected[name]) for name in expected)
    assert processor.tokenizer("a port")["input_ids"]


def test_a_teacher_of_a_run_that_leaves_its_head_out_has_none(save, tmp_path):
    checkpoint, expected = save_run(save(1, "run"))
    save(2, "run", self_distillation=None)  # the final model of the run
    model, _ = read_teacher(checkpoint)
    assert model.self_distillation_head is None
    assert model.state_dict()["vision_model.post_layernorm.weight"].equal(
        expected["vision_model.post_layernorm.weight"]
    )


def test_what_has_no_teacher_is_named(save):
    run = save(1, "run")
    checkpoint, _ = save_run(run, teacher=False)
    for folder in (checkpoint, run):
        with pytest.raises(UserError, match=f"{folder} has no teacher"):
            read_teacher(folder)
    (checkpoint / "teacher.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="teacher.safetensors"):
        read_teacher(checkpoint)


def test_weights_that_are_not_those_of_the_configuration_are_refused(save, tmp_path):
    run = save(1, "run")
    (folder := run / "checkpoints" / "step-1").mkdir(parents=True)
    save_file({"model.lora_A": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="config.json"):
        average_models([folder], [1.0])


def test_weights_that_are_not_finite_are_refused_with_their_name(save):
    folders = [save(1), save(2)]
    damaged = weights(folders[1])
    damaged["text_projection.0.weight"][1, 2] = torch.nan
    save_file(damaged, folders[1] / "model.safetensors", {"format": "pt"})
    for shares in ([0.5, 0.5], [1.0, 0.0]):
        with pytest.raises(UserError, match=r"model_2: text_projection.0.weight .*NaN"):
            average_models(folders, shares)


def test_a_tokenizer_that_was_called_with_truncation_is_not_another_one(save, tiny_processor):
    used = copy.deepcopy(tiny_processor)
    used.tokenizer(["a port"], truncation=True, max_length=8, padding="max_length")
    assert used.tokenizer.backend_tokenizer.to_str() != tiny_processor.tokenizer.backend_tokenizer.to_str()
    average_models([save(1), save(2, processor=used)], [0.5, 0.5])


def test_other_shapes_and_other_tokenizers_are_refused(save, tiny_processor):
    start = save(1)
    with pytest.raises(UserError, match="text_projection.0.weight.*20"):
        average_models([start, save(2, projection_dim=8)], [0.5, 0.5])
    swapped = copy.deepcopy(tiny_processor)
    swapped.tokenizer = train_tokenizer(
        ["harbor forest meadow " * 3, "desert beach port"], len(tiny_processor.tokenizer), 77
    )
    with pytest.raises(UserError, match="tokenizers|word_embeddings"):
        average_models([start, save(3, processor=swapped)], [0.5, 0.5])


def test_a_folder_without_a_model_is_refused(save, tmp_path):
    with pytest.raises(UserError, match="config.json"):
        average_models([save(1), tmp_path], [0.5, 0.5])
