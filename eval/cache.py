"""Embeddings on disk, found again by what they were made of: model, processor and content, not names or dates.

A key hashes the model's weights and configuration, what its processor does, the images or texts themselves, and what
else moves the last digits: batch size, kind of device, versions. Files are written aside and renamed, so that a
reader sees all of one or none, and carry a hash of their content: a damaged one is computed again.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from rsmclip.core.images import image_bytes

if TYPE_CHECKING:
    from rsmclip.eval.embed import TextInput

ROWS_PER_BATCH = 256
HASH_BYTES = 20
LIBRARIES = ("torch", "transformers", "pillow")

# Where something was read from or by whom it was written; no embedding depends on it.
ORIGIN = {"_name_or_path", "name_or_path", "transformers_version", "auto_map", "architectures", "dtype", "torch_dtype"}
ORIGIN |= {"vocab_file", "tokenizer_file", "tokenizer_class", "processor_class", "is_local", "local_files_only"}
ORIGIN |= {"special_tokens_map_file", "backend", "trust_remote_code", "_commit_hash", "files_loaded"}


@dataclass(frozen=True)
class EmbeddingCache:
    """
    A folder of embeddings, a file for each key.

    Args:
        folder (`Path`, *optional*, defaults to `HF_HOME/rsmclip/embeddings`): The folder; made when first written to.
    """

    folder: Path = Path(HF_HOME) / "rsmclip" / "embeddings"

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / f"{key}.safetensors"

    def read(self, key: str, rows: int) -> torch.Tensor | None:
        """
        The embeddings of a key, `None` if there are none or their file is damaged.

        Args:
            key (`str`): From [`cache_key`].
            rows (`int`): How many there must be.
        """
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                embeds, recorded = file.get_tensor("embeds"), (file.metadata() or {}).get("content")
        except (SafetensorError, OSError) as error:
            return say(f"{path} is damaged and is computed again: {error}")
        if embeds.dtype != torch.float32 or embeds.ndim != 2 or len(embeds) != rows:
            return say(f"{path} is damaged and is computed again: {embeds.dtype} of shape {tuple(embeds.shape)}")
        if recorded != content_hash(embeds):
            return say(f"{path} is damaged and is computed again: its content has changed")
        return embeds

    def write(self, key: str, embeds: torch.Tensor) -> None:
        """
        Keeps embeddings; where that fails, on a full disk say, it says so and they are not kept.

        Args:
            key (`str`): From [`cache_key`].
            embeds (`torch.Tensor` of shape `(rows, dim)`): float32, on the CPU.
        """
        path = self.path(key)
        unfinished = path.with_name(f".{key}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"embeds": embeds.contiguous()}, unfinished, metadata={"content": content_hash(embeds)})
            os.replace(unfinished, path)
        except (SafetensorError, OSError) as error:
            with suppress(OSError):
                unfinished.unlink()
            say(f"the embeddings cannot be kept in {self.folder}: {error}")


def say(message: str) -> None:
    """A line on stderr that breaks no progress bar."""
    tqdm.write(message, file=sys.stderr)


def cache_key(*parts: str) -> str:
    """A key for what is named by the parts and computed by this version of the libraries."""
    parts = (*parts, *(version(library) for library in LIBRARIES))
    return blake2b("\n".join(parts).encode(), digest_size=HASH_BYTES).hexdigest()


def content_hash(tensor: torch.Tensor) -> str:
    """A hash of a tensor's bytes."""
    return blake2b(tensor_bytes(tensor), digest_size=HASH_BYTES).hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, row by row, without a copy if it lies so on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def fingerprint(rows: Dataset) -> str:
    """
    A hash of images in their order: of ids and encoded bytes, wherever they come from.

    Args:
        rows (`datasets.Dataset`): Columns `image` (encoded) and `image_id`.
    """
    digest = blake2b(digest_size=HASH_BYTES)
    for columns in rows.select_columns(["image", "image_id"]).iter(ROWS_PER_BATCH):
        for image, image_id in zip(columns["image"], columns["image_id"], strict=True):
            add(digest, image_id.encode())
            add(digest, image_bytes(image) or b"")
    return digest.hexdigest()


def text_fingerprint(texts: Iterable[str]) -> str:
    """
    A hash of texts in their order.

    Args:
        texts (`Iterable[str]`): The texts.
    """
    digest = blake2b(digest_size=HASH_BYTES)
    for text in texts:
        add(digest, text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def corpus_fingerprint(rows: Dataset, texts: Iterable[str]) -> str:
    """
    A hash of what a model is measured on.

    Args:
        rows (`datasets.Dataset`): Columns `image` (encoded) and `image_id`.
        texts (`Iterable[str]`): Their captions, language by language.
    """
    return text_fingerprint([fingerprint(rows), text_fingerprint(texts)])


def add(digest: blake2b, part: bytes) -> None:
    """Adds a part with its length, so that no other parts run together to the same."""
    digest.update(f"{len(part)} ".encode())
    digest.update(part)


def model_hash(model: PreTrainedModel, processor: ProcessorMixin, text_input: "TextInput") -> str:
    """
    A hash of all of a model that embeddings depend on: names, types and bytes of its weights, its configuration, its
    image processor's and tokenizer's settings, and how texts are given to it. The same weights have the same hash in
    every folder, on every device.

    Args:
        model (`PreTrainedModel`): The model.
        processor (`ProcessorMixin`): Its image processor and tokenizer.
        text_input ([`TextInput`]): How it takes texts.
    """
    digest = blake2b(digest_size=HASH_BYTES)
    for name, tensor in sorted(model.state_dict().items()):
        add(digest, f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    settings = {
        "model": type(model).__name__,
        "config": without_origin(model.config.to_dict()),
        "images": without_origin(processor.image_processor.to_dict()),
        "tokenizer": tokenizer_settings(processor.tokenizer),
        "text_input": asdict(text_input),
    }
    add(digest, json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def without_origin(settings: Any) -> Any:
    """Settings without those that say only where they come from, at every depth."""
    if isinstance(settings, dict):
        return {str(name): without_origin(value) for name, value in settings.items() if name not in ORIGIN}
    return settings


def tokenizer_settings(tokenizer: PreTrainedTokenizerBase) -> dict:
    """All that a tokenizer's output depends on: one of the library `tokenizers` as it describes itself, any other by
    its options and vocabulary file."""
    common = {"padding_side": tokenizer.padding_side, "pad": tokenizer.pad_token_id, "max": tokenizer.model_max_length}
    if tokenizer.is_fast:
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        # Padding and truncation are what the last call asked for.
        return common | {name: value for name, value in described.items() if name not in ("padding", "truncation")}
    with tempfile.TemporaryDirectory() as folder:
        files = [blake2b(Path(file).read_bytes()).hexdigest() for file in tokenizer.save_vocabulary(folder)]
    return common | {"options": without_origin(tokenizer.init_kwargs), "files": files}
