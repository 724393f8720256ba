"""Embeddings kept on disk. The file name is a hash of everything that an embedding depends on.

An embedding depends on the weights and configuration of the model, the settings of its processor, the images or
texts, the batch size, the kind of device and the library versions. Each file contains a hash of its content. The
embeddings of a damaged file are computed again.
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

# Provenance fields, excluded from the hash.
ORIGIN = {"_name_or_path", "name_or_path", "transformers_version", "auto_map", "architectures", "dtype", "torch_dtype"}
ORIGIN |= {"vocab_file", "tokenizer_file", "tokenizer_class", "processor_class", "is_local", "local_files_only"}
ORIGIN |= {"special_tokens_map_file", "backend", "trust_remote_code", "_commit_hash", "files_loaded"}


@dataclass(frozen=True)
class EmbeddingCache:
    """A folder with one file of embeddings per key. The first write creates the folder."""

    folder: Path = Path(HF_HOME) / "rsmclip" / "embeddings"

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def read(self, key: str) -> torch.Tensor | None:
        """Return the embeddings of a key, or `None` if there is no file or the file is damaged."""
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                embeds, recorded = file.get_tensor("embeds"), (file.metadata() or {}).get("content")
        except (SafetensorError, OSError) as error:
            print_line(f"{path} is damaged, its embeddings are computed again: {error}")
            return None
        if recorded != content_hash(embeds):
            print_line(f"{path} is damaged, its embeddings are computed again: its content has changed")
            return None
        return embeds

    def write(self, key: str, embeds: torch.Tensor) -> None:
        """Write embeddings. If this fails, for example on a full disk, print a line and continue."""
        path, content = self.path(key), content_hash(embeds)
        unfinished = path.with_name(f".{key}.{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"embeds": embeds.contiguous()}, unfinished, metadata={"content": content})
            os.replace(unfinished, path)
        except (SafetensorError, OSError) as error:
            with suppress(OSError):
                unfinished.unlink()
            print_line(f"the embeddings could not be written to {self.folder}: {error}")


def print_line(message: str) -> None:
    """Print a line to stderr without breaking a progress bar."""
    tqdm.write(message, file=sys.stderr)


def cache_key(*parts: str) -> str:
    """Hash the parts and the versions of the libraries that compute embeddings."""
    parts = (*parts, *(version(library) for library in LIBRARIES))
    return blake2b("\n".join(parts).encode(), digest_size=HASH_BYTES).hexdigest()


def content_hash(tensor: torch.Tensor) -> str:
    return blake2b(tensor_bytes(tensor), digest_size=HASH_BYTES).hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def fingerprint(rows: Dataset) -> str:
    """Hash the ids and encoded bytes of images (columns `image_id` and `image`), in their order."""
    digest = blake2b(digest_size=HASH_BYTES)
    for columns in rows.select_columns(["image", "image_id"]).iter(ROWS_PER_BATCH):
        for image, image_id in zip(columns["image"], columns["image_id"], strict=True):
            add(digest, image_id.encode())
            add(digest, image_bytes(image) or b"")
    return digest.hexdigest()


def text_fingerprint(texts: Iterable[str]) -> str:
    """Hash texts in their order."""
    digest = blake2b(digest_size=HASH_BYTES)
    for text in texts:
        add(digest, text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def corpus_fingerprint(rows: Dataset, texts: Iterable[str]) -> str:
    """Hash the images and captions of an evaluation. `texts` are the captions, one language after the other."""
    return text_fingerprint([fingerprint(rows), text_fingerprint(texts)])


def add(digest: blake2b, part: bytes) -> None:
    digest.update(f"{len(part)} ".encode())  # the length separates parts: ("ab", "c") differs from ("a", "bc")
    digest.update(part)


def model_hash(model: PreTrainedModel, processor: ProcessorMixin, text_input: "TextInput") -> str:
    """
    Hash the weights (names, types, shapes and bytes), the configuration, the settings of image processor and
    tokenizer, and the text input. Folder and device of the model do not change the hash.
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
    if isinstance(settings, dict):
        return {str(name): without_origin(value) for name, value in settings.items() if name not in ORIGIN}
    return settings


def tokenizer_settings(tokenizer: PreTrainedTokenizerBase) -> dict:
    common = {"padding_side": tokenizer.padding_side, "pad": tokenizer.pad_token_id, "max": tokenizer.model_max_length}
    if tokenizer.is_fast:
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        # Padding and truncation are arguments of the last call, not settings.
        return common | {name: value for name, value in described.items() if name not in ("padding", "truncation")}
    # A slow tokenizer has no such description: hash its options and its vocabulary files.
    with tempfile.TemporaryDirectory() as folder:
        files = [blake2b(Path(file).read_bytes()).hexdigest() for file in tokenizer.save_vocabulary(folder)]
    return common | {"options": without_origin(tokenizer.init_kwargs), "files": files}
