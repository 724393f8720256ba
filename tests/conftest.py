"""Fixtures of several test files: a tiny model, tokenizer and corpus."""

import os
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import features, load_corpus
from rsmclip.data.write import write_corpus
from rsmclip.models.folder import make_processor, save_model_folder
from rsmclip.training.tokenizer import train_tokenizer

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
TINY = {  # fields of RSMCLIPConfig
    "projection_dim": 16,
    "vision_config": {**TOWER, "num_hidden_layers": 2, "image_size": 32, "patch_size": 16},
    "text_config": {
        **TOWER,
        "num_hidden_layers": 1,
        "max_position_embeddings": 80,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "self_distillation": {"hidden_size": 32, "bottleneck_size": 16, "num_prototypes": 24},
}
TINY_RUN = {  # fields of TrainingConfig for a run of seconds
    "model_config": TINY,
    "vocab_size": 1000,
    "short_side": 64,
    "num_local_views": 2,
    "local_size": 16,
    "batch_size": 12,
    "learning_rate": 0.001,
    "warmup_steps": 2,
    "checkpoint_steps": 4,
    "evaluation_steps": 100,
    "logging_steps": 1,
    "cpu_threads": 1,
}
SHARDS = [7, 5, 0, 6, 9, 4, 8, 6, 7, 8]  # rows of each shard of `sharded_corpus`


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> None:
    """Keep files out of the user's cache of datasets."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def one_core() -> Iterator[None]:
    """Let this process use one core, as in a small job on a large machine."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("the system has no affinity")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def tiny_config() -> RSMCLIPConfig:
    return RSMCLIPConfig(**TINY)


@pytest.fixture
def tiny_model(tiny_config) -> RSMCLIPModel:
    torch.manual_seed(0)
    return RSMCLIPModel(tiny_config).eval()


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "tiny"
    examples = demo_examples(rows={"train": 60, "val": 18, "test": 36})
    write_corpus(examples, features(LANGUAGES), folder, False, demo_card)
    return folder


@pytest.fixture(scope="session")
def corpus(corpus_folder):
    return load_corpus(str(corpus_folder))


@pytest.fixture(scope="session")
def sharded_corpus(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "corpus"
    (folder / "data").mkdir(parents=True)
    for number, length in enumerate(SHARDS):
        start = sum(SHARDS[:number])
        rows = corpus["train"].select(range(start, start + length))
        # Older versions of datasets cannot choose a batch size for a shard without rows.
        rows.to_parquet(folder / "data" / f"train-{number:05d}-of-{len(SHARDS):05d}.parquet", batch_size=100)
    for split in ("val", "test"):
        corpus[split].to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="session")
def tokenizer(corpus):
    captions = (text for row in corpus["train"]["captions"] for texts in row.values() for text in texts)
    return train_tokenizer(captions, vocab_size=1000, max_length=77)


@pytest.fixture
def tiny_processor(tokenizer):
    return make_processor(tokenizer, 32)


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    """The folder of `tiny_model` and `tiny_processor`, which no test changes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    save_model_folder(RSMCLIPModel(RSMCLIPConfig(**TINY)).eval(), make_processor(tokenizer, 32), folder)
    return folder


@pytest.fixture
def towers(tokenizer, tmp_path):
    """Folders of a random image tower and of a random text tower."""
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**TINY["vision_config"])).save_pretrained(tmp_path / "image")
    text = XLMRobertaConfig(**TINY["text_config"], vocab_size=len(tokenizer), pad_token_id=1)
    XLMRobertaModel(text).save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    return str(tmp_path / "image"), str(tmp_path / "text")


@pytest.fixture
def dinov2_folder(tmp_path) -> Path:
    """A random DINOv2 of 2 layers for images of 12 pixels. Its tokens leave some directions of 64 unused."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
    model = Dinov2Model(Dinov2Config(**sizes, image_size=12, patch_size=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.1)
            if "norm" in name or "lambda" in name:
                parameter += 1
    model.save_pretrained(tmp_path / "dinov2")
    return tmp_path / "dinov2"
