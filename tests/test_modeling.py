"""The model: architecture, embeddings, losses, saving."""

import numpy as np
import pytest
import torch

from rsmclip import RSMCLIPConfig, RSMCLIPModel


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(4, 1000, (3, 7), generator=generator),
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4]),
        "pixel_values": torch.randn(3, 3, 32, 32, generator=generator),
    }


def test_defaults_are_the_released_architecture():
    with torch.device("meta"):
        model = RSMCLIPModel(RSMCLIPConfig())
        without_head = RSMCLIPModel(RSMCLIPConfig(self_distillation=None))
    assert count(without_head) == 366_121_473  # PAPER: 366.1 M; 87.9 M image, 278.3 M text
    assert round((count(model.vision_model) + count(model.visual_projection)) / 1e6, 1) == 87.8
    assert round((count(model.text_model) + count(model.text_projection)) / 1e6, 1) == 278.3
    assert model.text_projection[0].weight.shape == (640, 768)
    assert count(model) - count(without_head) == count(model.self_distillation_head)
    assert model.text_model.pooler is None


def test_text_embedding_is_the_masked_mean_through_the_mlp(tiny_model, inputs):
    text = tiny_model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
    hidden = text.last_hidden_state.detach().double().numpy()
    mask = inputs["attention_mask"].double().numpy()[..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    first, second = (tiny_model.text_projection[i].weight.detach().double().numpy() for i in (0, 2))
    inner = torch.nn.functional.gelu(torch.from_numpy(mean @ first.T)).numpy()
    np.testing.assert_allclose(text.pooler_output.detach().numpy(), inner @ second.T, atol=1e-5)


def test_padding_does_not_change_a_text_embedding(tiny_model, inputs):
    alone = tiny_model.get_text_features(inputs["input_ids"][2:, :3]).pooler_output
    padded = tiny_model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output[2:]
    torch.testing.assert_close(alone, padded, atol=1e-6, rtol=0)


def test_a_missing_mask_is_read_from_the_padding_token(tiny_model, inputs):
    ids = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, tiny_model.config.text_config.pad_token_id)
    with_mask = tiny_model.get_text_features(ids, inputs["attention_mask"]).pooler_output
    torch.testing.assert_close(tiny_model.get_text_features(ids).pooler_output, with_mask)


def test_logits_are_scaled_cosines_and_loss_is_infonce(tiny_model, inputs):
    output = tiny_model(**inputs, return_loss=True)
    image, text = (e.detach().double().numpy() for e in (output.image_embeds, output.text_embeds))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=1e-6)
    logits = np.exp(tiny_model.config.logit_scale_init_value) * image @ text.T
    np.testing.assert_allclose(output.logits_per_image.detach().numpy(), logits, atol=1e-4)
    np.testing.assert_allclose(output.logits_per_text.detach().numpy(), logits.T, atol=1e-4)

    def cross_entropy(rows):
        return np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(rows)])

    assert output.loss.item() == pytest.approx((cross_entropy(logits) + cross_entropy(logits.T)) / 2, abs=1e-5)


def test_features_are_not_normalised(tiny_model, inputs):
    features = tiny_model.get_image_features(inputs["pixel_values"]).pooler_output
    output = tiny_model(pixel_values=inputs["pixel_values"])
    assert not torch.allclose(features.norm(dim=-1), torch.ones(3), atol=1e-2)
    torch.testing.assert_close(output.image_embeds, torch.nn.functional.normalize(features, dim=-1))
    assert output.text_embeds is None and output.logits_per_image is None


def test_prototype_logits_are_cosines_of_views_of_any_size(tiny_model, inputs):
    for size in (16, 32, 48):
        logits = tiny_model.get_prototype_logits(torch.randn(2, 3, size, size))
        assert logits.shape == (2, 24)
        assert logits.abs().max() <= 1 + 1e-5


def test_model_without_head_says_so(tiny_config, inputs):
    tiny_config.self_distillation = None
    with pytest.raises(ValueError, match="no self-distillation head"):
        RSMCLIPModel(tiny_config).get_prototype_logits(inputs["pixel_values"])


def test_return_loss_needs_pairs(tiny_model, inputs):
    with pytest.raises(ValueError, match="as many texts as images"):
        tiny_model(input_ids=inputs["input_ids"][:2], pixel_values=inputs["pixel_values"], return_loss=True)
    with pytest.raises(ValueError, match="input_ids, pixel_values or both"):
        tiny_model()


def test_save_and_load_are_identical(tiny_model, inputs, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    loaded, info = RSMCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert torch.equal(tiny_model(**inputs).logits_per_image, loaded(**inputs).logits_per_image)


def test_absent_head_survives_saving(tmp_path):
    RSMCLIPConfig(self_distillation=None).save_pretrained(tmp_path)
    assert RSMCLIPConfig.from_pretrained(tmp_path).self_distillation is None


def test_config_completes_and_checks_the_head():
    assert RSMCLIPConfig(self_distillation={"num_prototypes": 8}).self_distillation["hidden_size"] == 2048
    with pytest.raises(ValueError, match="unknown fields"):
        RSMCLIPConfig(self_distillation={"prototypes": 8})


def test_initial_weights(tiny_config):
    torch.manual_seed(0)
    model = RSMCLIPModel(tiny_config)
    assert model.logit_scale.item() == pytest.approx(2.6592)
    assert model.visual_projection.weight.std().item() == pytest.approx(32**-0.5, rel=0.15)
    assert model.self_distillation_head.prototypes.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_outputs_can_be_tuples(tiny_model, inputs):
    output = tiny_model(**inputs)
    logits = tiny_model(**inputs, return_dict=False)[0]
    assert torch.equal(logits, output.logits_per_image)
