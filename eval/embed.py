"""Embeddings of images and texts by a model.

Threads decode images while the model works. Texts of similar length share a batch, so there is little padding. A cache
avoids computing embeddings twice.

Several processes share the batches. The rows of a batch do not depend on the number of processes, and one process
computes a whole batch. Embeddings are therefore bitwise equal for any number of processes on one kind of machine. (On
a CPU the number of threads of a process, `OMP_NUM_THREADS`, must be equal too.)
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Literal

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from rsmclip.core.cores import cpu_count
from rsmclip.core.errors import UserError
from rsmclip.core.images import decode_image
from rsmclip.eval.cache import EmbeddingCache, cache_key, fingerprint, model_hash, text_fingerprint

DECODERS = min(8, cpu_count())  # threads
PIECE = 16  # images that a thread decodes at a time


@dataclass(frozen=True)
class TextInput:
    """Tokenization that a model was trained with."""

    padding: Literal["longest", "max_length"] = "longest"  # to the longest text of the batch, or to the context length
    padding_side: Literal["left", "right"] | None = None  # by default the side of the tokenizer
    context_length: int | None = None  # tokens; by default the limit of the tokenizer
    attention_mask: bool = True  # whether padding is masked
    lower_case: bool = False  # whether to lower-case the texts


class Embedder:
    """
    Computation of the embeddings of images and texts by a model, in batches.

    Args:
        model (`PreTrainedModel`): A model with `get_image_features` and `get_text_features`.
        processor (`ProcessorMixin`): Its processor.
        batch_size (`int`, *optional*, defaults to 128): Images or texts per batch.
        text_input ([`TextInput`], *optional*): Tokenization. The default fits RS-M-CLIP.
        cache ([`EmbeddingCache`], *optional*): Cache of embeddings; by default there is none.
        shared (`bool`, *optional*, defaults to `False`): Whether the processes of `accelerate launch` share the
            batches of every call. Each process receives all embeddings. By default a process computes all batches.
        name (`str`, *optional*): Folder or Hub id of the model, recorded in results. By default the model's class.
        revision (`str`, *optional*): Branch, tag or commit of a Hub id.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        batch_size: int = 128,
        text_input: TextInput = TextInput(),
        cache: EmbeddingCache | None = None,
        shared: bool = False,
        name: str | None = None,
        revision: str | None = None,
    ):
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.name, self.revision = name or type(model).__name__, revision
        self.text_input, self.cache = text_input, cache
        self.state = processes() if shared else None

    @cached_property
    def hash(self) -> str:
        """Return the [`model_hash`], computed at the first access."""
        return model_hash(self.model, self.processor, self.text_input)

    def images(self, rows: Dataset) -> torch.Tensor:
        """
        Embed images.

        Args:
            rows (`datasets.Dataset`): Columns `image` (encoded) and `image_id`.

        Returns:
            `torch.Tensor` of shape `(rows, dim)`, float32 on the CPU, not normalized.

        Raises:
            [`UserError`]: There are no rows, an image cannot be decoded, or an embedding is not finite.
        """
        rows = rows.select_columns(["image", "image_id"])
        embeds = self.cached("images", rows, lambda: fingerprint(rows), self.image_features)
        if (bad := first_not_finite(embeds)) is not None:
            raise UserError(f"the model gives image {rows[bad]['image_id']} an embedding that is not finite")
        return embeds

    def texts(self, texts: list[str]) -> torch.Tensor:
        """Embed texts; return a tensor of shape `(texts, dim)` like [`images`]. Equal texts are computed once."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        embeds = self.cached("texts", distinct, lambda: text_fingerprint(distinct), self.text_features)
        if (bad := first_not_finite(embeds)) is not None:
            raise UserError(f"the model gives the text {distinct[bad]!r} an embedding that is not finite")
        row = {text: index for index, text in enumerate(distinct)}
        return embeds[[row[text] for text in texts]]

    def cached(
        self, what: str, items: Dataset | list[str], content: Callable[[], str], features: Callable
    ) -> torch.Tensor:
        # Only the main process reads and writes files.
        if self.cache is None:
            return self.compute(what, items, features)
        is_main, embeds, key = self.state is None or self.state.is_main_process, None, None
        if is_main:
            key = cache_key(what, self.hash, content(), str(self.batch_size), self.model.device.type)
            embeds = self.cache.read(key)
        if self.state is not None:
            (embeds,) = broadcast_object_list([embeds])
        if embeds is None:
            embeds = self.compute(what, items, features)
            if is_main and first_not_finite(embeds) is None:
                self.cache.write(key, embeds)
        return embeds

    def compute(self, what: str, items: Dataset | list[str], features: Callable) -> torch.Tensor:
        # `features(items, batches)` yields the embeddings of each batch.
        if not len(items):
            raise UserError(f"there are no {what} to embed")
        starts = range(0, len(items), self.batch_size)
        batches = [slice(start, min(start + self.batch_size, len(items))) for start in starts]

        # Process i of n computes the batches i, i + n, i + 2n …
        rank, count = (self.state.process_index, self.state.num_processes) if self.state else (0, 1)
        own, failure, batches = [], None, batches[rank::count]
        total = sum(batch.stop - batch.start for batch in batches)
        with tqdm(total=total, unit=f" {what}", desc="embed", leave=False, disable=True if rank else None) as bar:
            try:
                for embeds in features(items, batches):
                    own.append(embeds)
                    bar.update(len(embeds))
            except UserError as error:
                if count == 1:
                    raise
                failure = str(error)  # all processes must raise it: one that goes on would wait for this one forever

        # Give every process all embeddings.
        shares = gather_object([(failure, own)]) if count > 1 else [(None, own)]
        if failures := [failure for failure, _ in shares if failure]:
            raise UserError(failures[0])
        rounds = zip_longest(*(share for _, share in shares))
        return torch.cat([embeds for batches in rounds for embeds in batches if embeds is not None])

    def image_features(self, rows: Dataset, batches: Sequence[slice]) -> Iterator[torch.Tensor]:
        # Threads decode the next images while the model works.
        starts = [range(batch.start, batch.stop, PIECE) for batch in batches]
        pieces = (
            rows[start : min(start + PIECE, batch.stop)]
            for batch, piece_starts in zip(batches, starts, strict=True)
            for start in piece_starts
        )
        prepared = ahead(self.prepare_images, pieces, DECODERS)
        for piece_starts in starts:
            parts = [next(prepared) for _ in piece_starts]
            inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            yield self.run(self.model.get_image_features, inputs)

    def prepare_images(self, columns: dict[str, list]) -> BatchFeature:
        images = [decode_image(*entry) for entry in zip(columns["image"], columns["image_id"], strict=True)]
        return self.processor.image_processor(images, return_tensors="pt")

    def text_features(self, texts: list[str], batches: Sequence[slice]) -> Iterator[torch.Tensor]:
        for inputs in ahead(self.prepare_texts, (texts[batch] for batch in batches), threads=1):  # not thread-safe
            yield self.run(self.model.get_text_features, inputs)

    def prepare_texts(self, texts: list[str]) -> dict[str, torch.Tensor]:
        settings = self.text_input
        encoded = self.processor.tokenizer(
            [text.lower() for text in texts] if settings.lower_case else texts,
            padding=settings.padding,
            padding_side=settings.padding_side,
            truncation=True,
            max_length=settings.context_length,
            return_attention_mask=settings.attention_mask,
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask") if name in encoded}

    @torch.inference_mode()
    def run(self, features: Callable, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        kind, device = self.model.dtype, self.model.device
        inputs = {name: t.to(device, kind if t.is_floating_point() else t.dtype) for name, t in inputs.items()}
        output = features(**inputs)  # remote code written for transformers 4 returns the tensor itself
        embeds = output if isinstance(output, torch.Tensor) else output.pooler_output
        if not isinstance(embeds, torch.Tensor) or embeds.ndim != 2:
            raise UserError(f"{type(self.model).__name__}.{features.__name__} does not return one embedding per row")
        return embeds.float().cpu()


def processes() -> PartialState:
    """Return the processes of `accelerate launch`. (`PartialState()` alone does not find several on a CPU.)"""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def ahead(function: Callable, items: Iterable, threads: int) -> Iterator:
    """Map a function in threads. Yields results in order and computes at most `threads` results in advance."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def first_not_finite(embeds: torch.Tensor) -> int | None:
    bad = (~torch.isfinite(embeds).all(dim=1)).nonzero()
    return int(bad[0]) if len(bad) else None
