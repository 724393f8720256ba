"""Embeddings of images and texts by a model, in batches: images are decoded ahead of the model, texts of similar
length lie together, several processes share the batches, and what a cache holds is not computed again.

Batches are cut in the same places whatever the number of processes, and each is computed whole by one of them: so the
embeddings are the same to the bit for any number of processes on the same kind of machine. (On a CPU that takes the
same number of threads in each too: `OMP_NUM_THREADS`.)
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from rsmclip.core.images import decode_image
from rsmclip.eval.cache import EmbeddingCache, cache_key, fingerprint, model_hash, text_fingerprint

DECODERS = min(8, os.cpu_count() or 1)  # threads
PIECE = 16  # images that a thread prepares at a time


@dataclass(frozen=True)
class TextInput:
    """
    How a model takes texts.

    Args:
        padding (`str`, *optional*, defaults to `"longest"`): To the longest text of the batch, or to `"max_length"`.
        padding_side (`str`, *optional*): `"left"` or `"right"`; by default the tokenizer's.
        context_length (`int`, *optional*): Tokens to which a text is cut; by default the tokenizer's limit.
        attention_mask (`bool`, *optional*, defaults to `True`): Whether padding is masked.
        lower_case (`bool`, *optional*, defaults to `False`): Whether the model knows lower case only.
    """

    padding: Literal["longest", "max_length"] = "longest"
    padding_side: Literal["left", "right"] | None = None
    context_length: int | None = None
    attention_mask: bool = True
    lower_case: bool = False


class Embedder:
    """
    A model with its processor.

    Args:
        model (`PreTrainedModel`): A model with `get_image_features` and `get_text_features`.
        processor (`ProcessorMixin`): Its processor.
        batch_size (`int`, *optional*, defaults to 128): Images or texts a batch.
        text_input ([`TextInput`], *optional*): How the model takes texts; the default is that of RS-M-CLIP.
        cache ([`EmbeddingCache`], *optional*): Where embeddings are kept; by default they are not.
        shared (`bool`, *optional*, defaults to `False`):
            Whether all processes of `accelerate launch` call this together, share the batches, and all get all
            embeddings. By default a process that calls it computes all for itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        batch_size: int = 128,
        text_input: TextInput = TextInput(),
        cache: EmbeddingCache | None = None,
        shared: bool = False,
    ):
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.text_input, self.cache = text_input, cache
        self.state = processes() if shared else None

    @cached_property
    def hash(self) -> str:
        """[`model_hash`] of this model, as it is when first asked."""
        return model_hash(self.model, self.processor, self.text_input)

    def images(self, rows: Dataset) -> torch.Tensor:
        """
        Embeddings of images.

        Args:
            rows (`datasets.Dataset`): Columns `image` (encoded) and `image_id`.

        Returns:
            `torch.Tensor` of shape `(rows, dim)`, float32 on the CPU, not normalised.

        Raises:
            `ValueError`: There are no rows, or an image that cannot be decoded or whose embedding is not finite.
        """
        rows = rows.select_columns(["image", "image_id"])

        def compute() -> torch.Tensor:
            return self.compute(len(rows), lambda batches: self.image_features(rows, batches), "images")

        embeds = self.cached("images", lambda: fingerprint(rows), len(rows), compute)
        if (bad := first_not_finite(embeds)) is not None:
            raise ValueError(f"the model gives image {rows[bad]['image_id']} an embedding that is not finite")
        return embeds

    def texts(self, texts: list[str]) -> torch.Tensor:
        """
        Embeddings of texts; equal texts are embedded once.

        Args:
            texts (`list[str]`): The texts.

        Returns:
            `torch.Tensor` of shape `(texts, dim)`, float32 on the CPU, not normalised.

        Raises:
            `ValueError`: There are no texts, or one whose embedding is not finite.
        """
        distinct = sorted(set(texts), key=lambda text: (len(text), text))

        def compute() -> torch.Tensor:
            return self.compute(len(distinct), lambda batches: self.text_features(distinct, batches), "texts")

        embeds = self.cached("texts", lambda: text_fingerprint(distinct), len(distinct), compute)
        if (bad := first_not_finite(embeds)) is not None:
            raise ValueError(f"the model gives the text {distinct[bad]!r} an embedding that is not finite")
        row = {text: index for index, text in enumerate(distinct)}
        return embeds[[row[text] for text in texts]]

    def cached(
        self, what: str, content: Callable[[], str], rows: int, compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Embeddings from the cache, else computed and kept. The main process alone reads and writes."""
        if self.cache is None:
            return compute()
        is_main, embeds, key = self.state is None or self.state.is_main_process, None, None
        if is_main:
            key = cache_key(what, self.hash, content(), str(self.batch_size), self.model.device.type)
            embeds = self.cache.read(key, rows)
        if self.state is not None:
            embeds = from_main(embeds, self.state)
        if embeds is None:
            embeds = compute()
            if is_main and first_not_finite(embeds) is None:
                self.cache.write(key, embeds)
        return embeds

    def compute(
        self, rows: int, features: Callable[[Sequence[slice]], Iterable[torch.Tensor]], what: str
    ) -> torch.Tensor:
        """
        Embeddings of all rows, those of a process's own batches by `features`.

        Args:
            rows (`int`): Their number.
            features (`Callable`): Batches as slices of the rows to the embeddings of each, `(batch, dim)`.
            what (`str`): What they are, for the progress bar and the error.
        """
        if not rows:
            raise ValueError(f"there are no {what} to embed")
        batches = [slice(start, min(start + self.batch_size, rows)) for start in range(0, rows, self.batch_size)]
        if self.state is None:
            return torch.cat(list(with_progress(batches, features(batches), what)))
        batches = batches[self.state.process_index :: self.state.num_processes]
        own, failure = [], None
        try:
            embeds = with_progress(batches, features(batches), what, hidden=not self.state.is_main_process)
            own += zip(batches, embeds, strict=True)
        except ValueError as error:  # the others learn of it before they wait for this process's rows in vain
            failure = str(error)
        return gather_rows(rows, own, failure, self.state)

    def image_features(self, rows: Dataset, batches: Sequence[slice]) -> Iterator[torch.Tensor]:
        """Embeddings of each batch of images, `(batch, dim)`; threads prepare the next ones meanwhile."""
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
        """What the model takes of some rows."""
        images = [decode_image(*entry) for entry in zip(columns["image"], columns["image_id"], strict=True)]
        return self.processor.image_processor(images, return_tensors="pt")

    def text_features(self, texts: list[str], batches: Sequence[slice]) -> Iterator[torch.Tensor]:
        """Embeddings of each batch of texts, `(batch, dim)`; one thread, which a tokenizer bears, is ahead."""
        for inputs in ahead(self.prepare_texts, (texts[batch] for batch in batches), 1):
            yield self.run(self.model.get_text_features, inputs)

    def prepare_texts(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """What the model takes of some texts."""
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
        """A batch through a tower: `(batch, dim)`, float32 on the CPU."""
        kind, device = self.model.dtype, self.model.device
        inputs = {name: t.to(device, kind if t.is_floating_point() else t.dtype) for name, t in inputs.items()}
        output = features(**inputs)  # remote code written for transformers 4 gives the tensor itself
        embeds = output if isinstance(output, torch.Tensor) else output.pooler_output
        if not isinstance(embeds, torch.Tensor) or embeds.ndim != 2:
            raise ValueError(f"{type(self.model).__name__}.{features.__name__} does not give one embedding a row")
        return embeds.float().cpu()


def processes() -> PartialState:
    """The processes of `accelerate launch`, or this one alone. (`PartialState()` would not see those on CPUs.)"""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def ahead(function: Callable, items: Iterable, threads: int) -> Iterator:
    """`map` in threads, in order, with so many items in work beyond the one that is asked for."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def with_progress(
    batches: Sequence[slice], embeds: Iterable[torch.Tensor], what: str, hidden: bool = False
) -> Iterator[torch.Tensor]:
    """The embeddings of the batches as they come, with a bar that shows when they will all be there."""
    total = sum(batch.stop - batch.start for batch in batches)
    with tqdm(total=total, unit=f" {what}", desc="embed", leave=False, disable=True if hidden else None) as bar:
        for batch in embeds:
            bar.update(len(batch))
            yield batch


def first_not_finite(embeds: torch.Tensor) -> int | None:
    """The first row that holds NaN or infinity."""
    bad = (~torch.isfinite(embeds).all(dim=1)).nonzero()
    return int(bad[0]) if len(bad) else None


def gather_rows(
    rows: int, own: list[tuple[slice, torch.Tensor]], failure: str | None, state: PartialState
) -> torch.Tensor:
    """
    The rows of all processes, on each of them.

    Args:
        rows (`int`): Their number.
        own (`list[tuple[slice, torch.Tensor]]`): Places and values of this process's rows.
        failure (`str`, *optional*): Why it has not all of them: an error on every process.
        state (`PartialState`): The processes.
    """
    said = gather_object([(failure, own[0][1].shape[1] if own else None)])
    if failures := [failure for failure, _ in said if failure]:
        raise ValueError(failures[0])
    whole = torch.zeros(rows, next(dim for _, dim in said if dim), device=state.device)
    for place, embeds in own:
        whole[place] = embeds.to(state.device)
    if state.num_processes > 1:
        torch.distributed.all_reduce(
            whole.view(torch.int32)
        )  # each row is one process's: a sum of integers keeps bits
    return whole.cpu()


def from_main(embeds: torch.Tensor | None, state: PartialState) -> torch.Tensor | None:
    """What the main process has, on every process."""
    if state.num_processes == 1:
        return embeds
    (shape,) = broadcast_object_list([None if embeds is None else embeds.shape])
    if shape is None:
        return None
    whole = torch.empty(shape, device=state.device) if embeds is None else embeds.to(state.device)
    torch.distributed.broadcast(whole, src=0)
    return whole.cpu()
