"""The model: architecture, embeddings, losses, saving."""

import logging

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

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


def test_features_are_not_normalized(tiny_model, inputs):
    features = tiny_model.get_image_features(inputs["pixel_values"]).pooler_output
    output = tiny_model(pixel_values=inputs["pixel_values"])
    torch.testing.assert_close(output.image_embeds, torch.nn.functional.normalize(features, dim=-1))
    assert output.text_embeds is None and not torch.allclose(features, output.image_embeds, atol=1e-2)


def test_prototype_logits_are_cosines_of_views_of_any_size(tiny_model):
    for size in (16, 32, 48):
        logits = tiny_model.get_prototype_logits(torch.randn(2, 3, size, size))
        assert logits.shape == (2, 24)
        assert logits.abs().max() <= 1 + 1e-5


def test_wrong_inputs_are_refused(tiny_config, tiny_model, inputs):
    with pytest.raises(ValueError, match="return_loss"):
        tiny_model(input_ids=inputs["input_ids"][:2], pixel_values=inputs["pixel_values"], return_loss=True)
    with pytest.raises(ValueError, match="input_ids, pixel_values"):
        tiny_model()
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        tiny_model.get_text_features()
    tiny_config.self_distillation = None
    with pytest.raises(ValueError, match="self_distillation"):
        RSMCLIPModel(tiny_config).get_prototype_logits(inputs["pixel_values"])


@pytest.mark.parametrize("shard_size", ["5GB", "50KB"])
def test_save_and_load_are_identical(tiny_model, inputs, tmp_path, shard_size):
    tiny_model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 2) == (shard_size == "50KB")
    loaded, info = RSMCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert torch.equal(tiny_model(**inputs).logits_per_image, loaded(**inputs).logits_per_image)


def test_the_config_completes_the_head_or_leaves_it_out(tmp_path):
    assert RSMCLIPConfig(self_distillation={"num_prototypes": 8}).self_distillation["hidden_size"] == 2048
    RSMCLIPConfig(self_distillation=None).save_pretrained(tmp_path)
    assert RSMCLIPConfig.from_pretrained(tmp_path).self_distillation is None


def test_initial_weights(tiny_config):
    torch.manual_seed(0)
    model = RSMCLIPModel(tiny_config)
    assert model.logit_scale.item() == pytest.approx(2.6592)
    assert model.visual_projection.weight.std().item() == pytest.approx(32**-0.5, rel=0.15)
    assert model.self_distillation_head.prototypes.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kept", ["logit_scale", "every other weight", "all but one projection"])
def test_weights_that_a_checkpoint_lacks_start_like_those_of_a_new_model(tiny_config, tmp_path, kept, seed):
    torch.manual_seed(seed)
    new = RSMCLIPModel(tiny_config)
    weights = {name: tensor + 3 for name, tensor in new.state_dict().items()}
    names = {
        "logit_scale": ["logit_scale"],
        "every other weight": list(weights)[::2],
        "all but one projection": [name for name in weights if name != "visual_projection.weight"],
    }[kept]
    tiny_config.save_pretrained(tmp_path)
    save_file({name: weights[name] for name in names}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, info = RSMCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    found = loaded.state_dict()
    assert info["missing_keys"] == weights.keys() - set(names)
    for name, tensor in new.state_dict().items():
        if name in names:
            assert torch.equal(found[name], weights[name]), name
        elif tensor.numel() == 1 or tensor.std() == 0:
            assert torch.equal(found[name], tensor), name
        else:  # within five standard deviations of the difference of two estimates
            assert not torch.equal(found[name], tensor), name
            assert found[name].std().item() == pytest.approx(tensor.std().item(), rel=5 * tensor.numel() ** -0.5), name


def test_another_pooling_or_projection_is_refused_by_name(tiny_config):
    with pytest.raises(ValueError, match="text_pooling .*mean, max, cls, pooler.*'median'"):
        RSMCLIPConfig(text_pooling="median")
    with pytest.raises(ValueError, match="text_projection_type .*conv"):
        RSMCLIPConfig(text_projection_type="conv")
    tiny_config.text_projection_type = "none"
    with pytest.raises(ValueError, match="32 .*projection_dim 16"):
        RSMCLIPModel(tiny_config)


def test_batch_composition_does_not_change_an_embedding(tiny_model, inputs):
    together = tiny_model(**inputs)
    for row in range(3):
        alone = tiny_model(**{name: tensor[row : row + 1] for name, tensor in inputs.items()})
        torch.testing.assert_close(alone.image_embeds, together.image_embeds[row : row + 1], atol=1e-6, rtol=0)
        torch.testing.assert_close(alone.text_embeds, together.text_embeds[row : row + 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "pooler"])
def test_padding_changes_no_pooling(tiny_config, inputs, pooling):
    tiny_config.text_pooling = pooling
    model = RSMCLIPModel(tiny_config).eval()
    ids = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, tiny_config.text_config.pad_token_id)
    alone = model.get_text_features(ids[2:, :3]).pooler_output
    for mask in (inputs["attention_mask"], None):  # without a mask it comes from the padding token
        torch.testing.assert_close(model.get_text_features(ids, mask).pooler_output[2:], alone, atol=1e-6, rtol=0)


def test_empty_texts_are_finite(tiny_model, tiny_processor):
    embeds = tiny_model(**tiny_processor(text=["", " ", "a forest"], padding=True, return_tensors="pt")).text_embeds
    assert torch.isfinite(embeds).all()
    nothing = torch.full((1, 4), tiny_model.config.text_config.pad_token_id)
    assert torch.isfinite(tiny_model(input_ids=nothing).text_embeds).all()


def test_word_embeddings_without_a_mask_count_whole(tiny_model, inputs):
    words = tiny_model.text_model.embeddings.word_embeddings(inputs["input_ids"])
    expected = tiny_model.get_text_features(inputs_embeds=words, attention_mask=torch.ones(words.shape[:2]).long())
    assert tiny_model.get_text_features(inputs_embeds=words).pooler_output.equal(expected.pooler_output)


def test_a_text_that_is_too_long_is_refused(tiny_model, tiny_processor):
    text = "a grey bridge over a river " * 60
    ids = tiny_processor(text=text, return_tensors="pt")
    with pytest.raises(ValueError, match="truncation=True, max_length=78"):
        tiny_model(**ids)
    cut = tiny_processor(text=text, return_tensors="pt", truncation=True)
    assert cut["input_ids"].shape == (1, 77) and torch.isfinite(tiny_model(**cut).text_embeds).all()


@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_attention_implementations_agree_with_eager(implementation, tiny_model, inputs, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    models = [
        RSMCLIPModel.from_pretrained(tmp_path, attn_implementation=name).eval() for name in ("eager", implementation)
    ]
    for model, name in zip(models, ("eager", implementation), strict=True):
        for tower in (model, model.vision_model, model.text_model):
            assert tower.config._attn_implementation == name
    # flex_attention uncompiled computes the same, and compiling it takes half a minute
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        eager, other = (model(**inputs) for model in models)
    torch.testing.assert_close(other.image_embeds, eager.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.text_embeds, eager.text_embeds, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loads_and_stays_close(dtype, tiny_model, inputs, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    model = RSMCLIPModel.from_pretrained(tmp_path, dtype=dtype).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    output = model(**inputs | {"pixel_values": inputs["pixel_values"].to(dtype)})
    assert output.image_embeds.dtype == dtype
    for name in ("image_embeds", "text_embeds"):
        cosine = torch.cosine_similarity(output[name].float(), tiny_model(**inputs)[name])
        assert cosine.min() > 0.999


def test_device_maps_give_the_same_outputs(tiny_model, inputs, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    expected = tiny_model(**inputs).logits_per_image
    whole = RSMCLIPModel.from_pretrained(tmp_path / "model", device_map="auto").eval()
    torch.testing.assert_close(whole(**inputs).logits_per_image.to("cpu"), expected, atol=1e-5, rtol=0)
    names = [name for name, _ in tiny_model.named_children()]
    split = {name: "disk" if name == "text_model" else "cpu" for name in [*names, "logit_scale"]}
    offloaded = RSMCLIPModel.from_pretrained(
        tmp_path / "model", device_map=split, offload_folder=tmp_path / "offload", offload_state_dict=False
    ).eval()
    assert next(offloaded.text_model.parameters()).device.type == "meta"
    torch.testing.assert_close(offloaded(**inputs).logits_per_image, expected, atol=1e-5, rtol=0)


def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, inputs):
    def gradients():
        tiny_model.zero_grad()
        tiny_model(**inputs, return_loss=True).loss.backward()
        return {name: p.grad.clone() for name, p in tiny_model.named_parameters() if p.grad is not None}

    plain = gradients()
    tiny_model.train()  # checkpointing works in training only; the tiny towers have no dropout
    tiny_model.gradient_checkpointing_enable()
    assert tiny_model.vision_model.encoder.layers[0].gradient_checkpointing
    assert tiny_model.text_model.encoder.layer[0].gradient_checkpointing
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys() and len(plain) > 50
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-7, rtol=1e-5, msg=name)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("first", ["adapter", "checkpointing"])
def test_gradient_checkpointing_of_an_adapter_gives_the_same_gradients(tiny_config, inputs, reentrant, first):
    def gradients(**checkpointing):
        torch.manual_seed(0)
        model = RSMCLIPModel(tiny_config)
        adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "query", "value"], init_lora_weights=False)
        if checkpointing and first == "checkpointing":
            model.gradient_checkpointing_enable(checkpointing)
        adapted = get_peft_model(model, adapter).train()
        if checkpointing and first == "adapter":
            model.gradient_checkpointing_enable(checkpointing)
        model.visual_projection.requires_grad_()  # else a loss of gradients is an error of torch
        adapted(**inputs, return_loss=True).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}

    plain, checkpointed = gradients(), gradients(use_reentrant=reentrant)
    assert len(plain) == 13 and all(gradient.any() for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-7, rtol=1e-5, msg=name)


def test_both_towers_compile_into_one_graph(tiny_model, inputs):
    images, texts = (inputs["pixel_values"],), (inputs["input_ids"], inputs["attention_mask"])
    for embed, given in ((tiny_model.get_image_features, images), (tiny_model.get_text_features, texts)):
        with torch.no_grad():
            found, expected = torch.compile(embed, fullgraph=True)(*given), embed(*given)
        torch.testing.assert_close(found.pooler_output, expected.pooler_output, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (48, 48), (32, 64), (80, 16)])
def test_any_multiple_of_the_patch_size_passes(tiny_model, size):
    pixels = torch.randn(2, 3, *size)
    assert tiny_model(pixel_values=pixels, interpolate_pos_encoding=True).image_embeds.shape == (2, 16)
    if size != (32, 32):
        with pytest.raises(ValueError, match=r"32\*32"):
            tiny_model(pixel_values=pixels)


def test_the_head_is_dropped_for_a_release_without_a_warning(tiny_model, inputs, tmp_path, caplog, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "whole")
    tiny_model.save_pretrained(tmp_path / "release", keep_self_distillation_head=False)
    assert tiny_model.self_distillation_head is not None and tiny_model.config.self_distillation is not None
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    release, info = RSMCLIPModel.from_pretrained(tmp_path / "release", output_loading_info=True)
    assert release.self_distillation_head is None and not info["missing_keys"] and not info["unexpected_keys"]
    headless = RSMCLIPModel.from_pretrained(tmp_path / "whole", self_distillation=None)
    assert "self_distillation_head" not in caplog.text
    for model in (release, headless):
        assert torch.equal(tiny_model(**inputs).logits_per_image, model(**inputs).logits_per_image)
    gathered = tiny_model.state_dict()  # by a sharded trainer
    tiny_model.save_pretrained(tmp_path / "given", state_dict=gathered, keep_self_distillation_head=False)
    assert RSMCLIPModel.from_pretrained(tmp_path / "given").self_distillation_head is None
