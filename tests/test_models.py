"""Tiny random models of every supported class, against their own `forward` called as documented."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPVisionConfig, CLIPVisionModel

from rsmclip.benchmarks.openclip_reference import images as reference_images
from rsmclip.core.errors import UserError
from rsmclip.eval.models import load_embedder
from rsmclip.models.folder import check_model_type, save_model_folder
from rsmclip.models.towers import load_image_tower, load_text_tower

SENTENCES = [
    "An airport with two white planes beside a long runway.",
    "Many green trees stand around a small pond, and a road leads past it.",
    "a HARBOR",
    "一座机场旁边有两架白色飞机。",
    "Ein Hafen mit vielen Booten; daneben stehen Häuser.",
    "two bridges",
]
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
CLIP_SIDE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
KINDS = ["clip", "metaclip_2", "altclip", "chinese_clip", "siglip", "siglip, gemma", "siglip2"]


def bpe(**options) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-pair encoding of the sentences."""
    tokenizer = Tokenizer(models.BPE(unk_token=options["special_tokens"][-1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = options.pop("pre_tokenizer")
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, show_progress=False, **options))
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def clip_tokenizer() -> transformers.CLIPTokenizer:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special, alphabet = ["<|startoftext|>", "<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet()
    vocab, merges = bpe(
        special_tokens=special, pre_tokenizer=split, end_of_word_suffix="</w>", initial_alphabet=alphabet
    )
    return transformers.CLIPTokenizer(vocab, merges, model_max_length=48)


def gemma_tokenizer() -> transformers.Siglip2Tokenizer:
    """As the Hub's: padded on the right, without a mask."""
    split = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    vocab, merges = bpe(special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"], pre_tokenizer=split)
    return transformers.Siglip2Tokenizer(vocab, merges, padding_side="right", model_input_names=["input_ids"])


def sentencepiece_tokenizer(folder: Path) -> transformers.SiglipTokenizer:
    model, ids = io.BytesIO(), {"pad_id": -1, "bos_id": 0, "eos_id": 1, "unk_id": 2}
    size = {"vocab_size": 150, "hard_vocab_limit": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, minloglevel=2, **size, **ids
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    return transformers.SiglipTokenizer(
        str(folder / "spiece.model"), model_max_length=48, model_input_names=["input_ids"]
    )


def bert_tokenizer() -> transformers.BertTokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return transformers.BertTokenizer(tokenizer.get_vocab(), model_max_length=512)


def make(kind: str, xlm_r: transformers.PreTrainedTokenizerFast, folder: Path):
    """A random model of a kind, and its processor."""
    clip_images = transformers.CLIPImageProcessorPil(**CLIP_SIDE)
    if kind == "clip":
        tokenizer = clip_tokenizer()
        text = TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": 48, "eos_token_id": 1}
        config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
        return transformers.CLIPModel(config), transformers.CLIPProcessor(clip_images, tokenizer)
    if kind == "metaclip_2":
        text = TOWER | {"vocab_size": len(xlm_r), "max_position_embeddings": 48, "eos_token_id": xlm_r.eos_token_id}
        config = transformers.MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=16)
        return transformers.MetaClip2Model(config), transformers.CLIPProcessor(clip_images, xlm_r)
    if kind == "altclip":
        text = TOWER | {"vocab_size": len(xlm_r), "max_position_embeddings": 130, "project_dim": 16}
        config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
        return transformers.AltCLIPModel(config), transformers.AltCLIPProcessor(clip_images, xlm_r)
    if kind == "chinese_clip":
        tokenizer = bert_tokenizer()
        text = TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
        images = transformers.ChineseCLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
        config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
        return transformers.ChineseCLIPModel(config), transformers.ChineseCLIPProcessor(images, tokenizer)
    tokenizer = sentencepiece_tokenizer(folder) if kind == "siglip" else gemma_tokenizer()
    positions = 48 if kind == "siglip" else 64
    text = TOWER | {"vocab_size": len(tokenizer), "max_position_embeddings": positions, "projection_size": 32}
    if kind == "siglip2":
        images = transformers.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=256)
        vision = TOWER | {"patch_size": 16, "num_patches": 16}
        config = transformers.Siglip2Config(text_config=text, vision_config=vision)
        return transformers.Siglip2Model(config), transformers.Siglip2Processor(images, tokenizer)
    images = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return transformers.SiglipModel(config), transformers.SiglipProcessor(images, tokenizer)


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """A folder for each kind, with weights that tell texts apart."""
    found = {}
    for kind in KINDS:
        found[kind] = tmp_path_factory.mktemp("model")
        torch.manual_seed(0)
        model, processor = make(kind, tokenizer, found[kind])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2:
                    parameter.normal_(std=0.2)
                elif "logit" not in name:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(found[kind])
        processor.save_pretrained(found[kind])
    return found


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sizes = [(32, 32), (48, 40), (33, 70)]
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def as_rows(pictures: list[Image.Image]) -> Dataset:
    encoded = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    columns = {"image": encoded, "image_id": [str(index) for index in range(len(encoded))]}
    return Dataset.from_dict(columns, Features({"image": ImageFeature(decode=False), "image_id": Value("string")}))


@torch.no_grad()
def documented(kind: str, folder: Path, texts: list[str], pictures: list[Image.Image]) -> torch.Tensor:
    """Compute cosines `(images, texts)` as the documentation of the model does, one text at a time."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    padding = {"padding": "max_length", "max_length": model.config.text_config.max_position_embeddings}
    padding = padding if kind.startswith("siglip") else {"padding": True}
    columns = []
    for text in texts:
        output = model(**processor(text=[text], images=pictures, return_tensors="pt", **padding))
        bias = getattr(model, "logit_bias", torch.zeros(()))
        columns.append((output.logits_per_image - bias) / model.logit_scale.exp())
    return torch.cat(columns, dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_equal_those_of_the_models_own_forward(kind, folders, pictures):
    texts = [text.lower() for text in SENTENCES] if kind == "siglip, gemma" else SENTENCES
    expected = documented(kind, folders[kind], texts, pictures)
    for batch_size in (128, 2, 1):
        embedder = load_embedder(str(folders[kind]), batch_size, device="cpu")
        images, texts = embedder.images(as_rows(pictures)), embedder.texts(SENTENCES)
        cosines = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
        torch.testing.assert_close(cosines, expected, atol=1e-5, rtol=0)
    assert expected.std(dim=1).min() > 0.01 and expected.std(dim=0).min() > 0.001, "rows and columns differ"


CONTEXT = {"clip": 48, "metaclip_2": 48, "altclip": 77, "chinese_clip": 52, "siglip": 48, "siglip2": 64}


@pytest.mark.parametrize("kind", CONTEXT)
def test_long_texts_are_cut_at_the_context_length_of_training(kind, folders):
    embedder = load_embedder(str(folders[kind]), device="cpu")
    assert embedder.text_input.context_length == CONTEXT[kind]
    text = " ".join(["an airport with two white planes"] * 40)
    inputs = embedder.prepare_texts([text])
    assert inputs["input_ids"].shape == (1, CONTEXT[kind])
    whole = embedder.processor.tokenizer(text, truncation=True, max_length=CONTEXT[kind])["input_ids"]
    assert inputs["input_ids"][0].tolist() == whole
    assert torch.isfinite(embedder.texts([text, "short"])).all()


def test_siglip_gets_lower_case_texts_padded_on_the_right(folders):
    for kind in ("siglip", "siglip, gemma", "siglip2"):
        embedder = load_embedder(str(folders[kind]), device="cpu")
        embedder.processor.tokenizer.padding_side = "left"  # the default of SigLIP 2's class
        inputs = embedder.prepare_texts(["two BRIDGES", "two bridges"])
        assert list(inputs) == ["input_ids"]
        assert torch.equal(*inputs["input_ids"])
        assert inputs["input_ids"][0, -1] == embedder.processor.tokenizer.pad_token_id
        assert inputs["input_ids"][0, 0] != embedder.processor.tokenizer.pad_token_id


def test_a_model_can_compute_in_bfloat16(folders):
    embedder = load_embedder(str(folders["clip"]), dtype="bfloat16", device="cpu")
    assert embedder.model.dtype == torch.bfloat16 and embedder.texts(["a"]).dtype == torch.float32
    with pytest.raises(UserError, match="int8"):
        load_embedder(str(folders["clip"]), dtype="int8")


def test_a_folder_of_ours_and_an_adapter_to_it(tiny_model, tiny_processor, corpus, tmp_path):
    save_model_folder(tiny_model, tiny_processor, tmp_path / "base")
    tiny_model.name_or_path = tiny_model.config._name_or_path = str(tmp_path / "base")
    adapted = get_peft_model(tiny_model, LoraConfig(r=2, target_modules=["q_proj", "query"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    tiny_processor.save_pretrained(tmp_path / "adapter")
    rows, texts = corpus["val"].select(range(4)), ["An airport.", "공항"]
    base, adapter = (load_embedder(str(tmp_path / name), device="cpu") for name in ("base", "adapter"))
    pixels = tiny_processor(images=[Image.open(io.BytesIO(image["bytes"])) for image in rows["image"]])["pixel_values"]
    tokens = tiny_processor(text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = adapted.get_image_features(torch.tensor(np.stack(pixels))).pooler_output
        expected_texts = adapted.get_text_features(**tokens).pooler_output
        with adapted.disable_adapter():
            plain = adapted.get_image_features(torch.tensor(np.stack(pixels))).pooler_output
    torch.testing.assert_close(adapter.images(rows), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(adapter.texts(texts), expected_texts, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(base.images(rows), plain, atol=1e-5, rtol=1e-4)
    assert (plain - expected).abs().max() > 1e-2 and base.hash != adapter.hash


def test_an_openclip_folder_gives_what_openclip_gives(tmp_path):
    """The tokenizer of this test maps words to their own ids, so that texts are the ids that OpenCLIP received."""
    reference = Path(__file__).parent / "openclip_reference"
    expected = load_file(reference / "expected.safetensors")
    shutil.copytree(reference, tmp_path / "openclip")
    words = {f"w{index}" if index != 1 else "<pad>": index for index in range(300)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w3"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")
    tokenizer.save_pretrained(tmp_path / "openclip")
    embedder = load_embedder(str(tmp_path / "openclip"), batch_size=8, device="cpu")
    texts = [" ".join(f"w{index}" for index in row if index != 1) for row in expected["input_ids"].tolist()]
    images = embedder.images(as_rows(reference_images()))
    torch.testing.assert_close(images, expected["image_features"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embedder.texts(texts), expected["text_features"], atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="openclip_reference.*tokenizer"):
        load_embedder(str(reference))


def test_results_can_record_the_name_of_a_model_that_was_given_as_a_path(model_folder):
    assert load_embedder(model_folder, device="cpu").name == str(model_folder)


def test_a_model_without_a_tower_is_refused(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**VISION)).save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match="vit.*get_text_features.*get_image_features"):
        load_embedder(str(tmp_path / "vit"))


@pytest.mark.parametrize(
    ("spoil", "culprit"),
    [
        ("pickle the weights", "safetensors"),
        ("drop a weight", "text_projection.weight"),
        ("cut off the weights", "cannot be loaded"),
        ("unknown type", "unheard_of"),
        ("no tokenizer", "tokenizer"),
        ("no model", r"config\.json"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_named(spoil, culprit, folders, tmp_path):
    folder = shutil.copytree(folders["clip"], tmp_path / "spoiled")
    weights, config = folder / "model.safetensors", folder / "config.json"
    tensors = load_file(weights)
    if spoil == "pickle the weights":
        torch.save(tensors, folder / "pytorch_model.bin")
        weights.unlink()
    elif spoil == "drop a weight":
        del tensors["text_projection.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif spoil == "cut off the weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif spoil == "unknown type":
        config.write_text('{"model_type": "unheard_of"}')
    elif spoil == "no tokenizer":
        for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
            (folder / file).unlink()
        transformers.CLIPImageProcessorPil(**CLIP_SIDE).save_pretrained(folder)
    else:
        config.unlink()
    with pytest.raises(UserError, match=f"spoiled.*{culprit}"):
        load_embedder(str(folder))


@pytest.mark.parametrize(
    ("file", "fields", "named"),
    [
        ("config.json", {"text_config": 3}, "config.json.*text_config"),
        ("config.json", {"dtype": "foo"}, "config.json.*dtype"),
        ("config.json", {"dtype": ""}, "config.json.*dtype"),
        ("config.json", {"auto_map": None}, "config.json.*auto_map"),
        ("config.json", {"auto_map": {"AutoConfig": ["a.B"]}}, "config.json.*auto_map"),
        ("config.json", {"projection_dim": True}, "config.json.*projection_dim"),
        ("config.json", {"logit_scale_init_value": 10**400}, "config.json.*logit_scale_init_value"),
        ("config.json", {"text_config": {"hidden_act": "foo"}}, "config.json.*hidden_act"),
        ("config.json", {"text_config": {"hidden_size": 0}}, "config.json"),
        ("config.json", {"text_config": {"pad_token_id": None}}, "config.json.*pad_token_id"),
        ("config.json", {"text_config": {"pad_token_id": 2**31}}, "config.json"),
        ("config.json", {"vision_config": {"is_encoder_decoder": json.loads("[" * 700 + "]" * 700)}}, "config.json"),
        ("adapter_config.json", {"base_model_name_or_path": ["a"]}, "adapter_config.json.*base_model_name_or_path"),
        ("tokenizer.json", {"model": 3}, "tokenizer.json.*model"),
        ("tokenizer_config.json", {"tokenizer_class": 3}, "tokenizer_config.json.*tokenizer_class"),
        ("processor_config.json", {"image_processor": 3}, "processor_config.json.*image_processor"),
        ("processor_config.json", {"image_processor": {"image_std": [0, 0, 0]}}, "image_std"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(file, fields, named, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    content = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    for name, value in fields.items():
        content[name] = content.get(name, {}) | value if isinstance(value, dict) else value
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=named):
        load_embedder(str(folder), device="cpu")


def test_a_model_is_read_from_a_folder_whose_name_has_characters_of_patterns(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "m[v1]*")
    assert load_embedder(str(tmp_path / "m[v1]*")).texts(["a road"]).shape == (1, 16)
    assert check_model_type(tmp_path / "m[v1]*").projection_dim == 16


@pytest.mark.parametrize("name", ["evil.bin", "../model.safetensors", "sub/model.safetensors"])
@pytest.mark.parametrize("load", [load_embedder, lambda folder: check_model_type(Path(folder)), load_image_tower])
def test_an_index_of_weights_that_names_another_kind_of_file_is_refused_before_it_is_read(
    model_folder, tmp_path, load, name
):
    shutil.copytree(model_folder, tmp_path / "model")
    if load is load_image_tower:
        CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    save_file(weights, tmp_path / "model" / "other.safetensors", metadata={"format": "pt"})
    (tmp_path / "model" / "sub").mkdir()
    write = torch.save if name == "evil.bin" else save_file
    write(weights, tmp_path / "model" / name)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=name):
        load(str(tmp_path / "model"))


@pytest.mark.parametrize("load", [load_embedder, lambda folder: check_model_type(Path(folder)), load_text_tower])
def test_a_model_of_absurdly_many_layers_is_refused_before_it_is_built(model_folder, tmp_path, load):
    shutil.copytree(model_folder, tmp_path / "model")
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    fields = fields["text_config"] if load is load_text_tower else fields
    (fields if load is load_text_tower else fields["text_config"])["num_hidden_layers"] = 100_000
    (tmp_path / "model" / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError, match=r"config.json.*num_hidden_layers.*100,000"):
        load(str(tmp_path / "model"))


@pytest.mark.parametrize("kind", [KeyError, TypeError, RuntimeError, ImportError])
@pytest.mark.parametrize("function", ["find_source", "load_processor", "text_input_of"])
def test_a_bug_in_our_own_code_is_not_reported_as_bad_input(function, kind, folders, monkeypatch):
    def fail(*arguments):
        raise kind("a bug")

    monkeypatch.setattr(f"rsmclip.eval.models.{function}", fail)
    with pytest.raises(kind) as raised:
        load_embedder(str(folders["clip"]), device="cpu")
    assert type(raised.value) is kind
