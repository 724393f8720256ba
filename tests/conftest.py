"""What several tests need: a tiny model, a tiny tokenizer, a tiny corpus."""

from pathlib import Path

import pytest
import torch

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import LANGUAGES, features, load_corpus
from rsmclip.data.write import write_corpus
from rsmclip.models.folder import make_processor
from rsmclip.training.tokenizer import train_tokenizer

TINY = {
    "projection_dim": 16,
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    },
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 80,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "self_distillation": {"hidden_size": 32, "bottleneck_size": 16, "num_prototypes": 24},
}
SHARDS = [7, 5, 0, 6, 9, 4, 8, 6, 7, 8]  # rows


@pytest.fixture
def tiny_config() -> RSMCLIPConfig:
    """The architecture in small."""
    return RSMCLIPConfig(**TINY)


@pytest.fixture
def tiny_model(tiny_config) -> RSMCLIPModel:
    """A random model, the same every time, in evaluation mode."""
    torch.manual_seed(0)
    return RSMCLIPModel(tiny_config).eval()


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory) -> Path:
    """The demo corpus in small: 60, 18 and 36 rows."""
    folder = tmp_path_factory.mktemp("corpus") / "tiny"
    write_corpus(
        demo_examples(rows={"train": 60, "val": 18, "test": 36}), features(LANGUAGES), folder, False, demo_card
    )
    return folder


@pytest.fixture(scope="session")
def corpus(corpus_folder):
    """The same, loaded."""
    return load_corpus(str(corpus_folder))


@pytest.fixture(scope="session")
def sharded_corpus(corpus, tmp_path_factory) -> Path:
    """The same with its training split in shards of `SHARDS` rows."""
    folder = tmp_path_factory.mktemp("sharded") / "corpus"
    (folder / "data").mkdir(parents=True)
    for number, length in enumerate(SHARDS):
        start = sum(SHARDS[:number])
        rows = corpus["train"].select(range(start, start + length))
        # The size of a batch is given since older versions of datasets cannot work one out for no rows.
        rows.to_parquet(folder / "data" / f"train-{number:05d}-of-{len(SHARDS):05d}.parquet", batch_size=100)
    for split in ("val", "test"):
        corpus[split].to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="session")
def tokenizer(corpus):
    """A tokenizer of the tiny corpus."""
    captions = (text for row in corpus["train"]["captions"] for texts in row.values() for text in texts)
    return train_tokenizer(captions, vocab_size=1000, max_length=77)


@pytest.fixture
def tiny_processor(tokenizer):
    """Processor of the tiny model."""
    return make_processor(tokenizer, 32)
