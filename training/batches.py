"""Batches: which rows, which caption in which language, and which views, in every step.

All of it is a function of the seed, the epoch and the row, never of the number of processes or workers or of what was
drawn before. So a run of two processes sees what a run of one sees, and a resumed run continues where it stopped
without replaying anything.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler, default_collate

from rsmclip.data.faults import IMAGE_ERRORS
from rsmclip.data.schema import SchemaError
from rsmclip.training.shards import ShardError
from rsmclip.training.views import ViewSpec, draw_views

UNDECODABLE_SHARE = 0.01  # of the training rows; more of them stop the run
MOST_TRIES = 100  # to find a row that can be used
TEXT_GROUPS = 4  # captions of similar length that the text tower takes together, to pad less


class StepSampler(Sampler[list[tuple[int, int]]]):
    """
    The rows of every step from `first_step` on, for one process, as `(epoch, row)`.

    Every epoch is a new permutation of the rows; the last, incomplete batch of an epoch is dropped. The global batch
    of a step is cut into one slice for each process.

    Args:
        num_rows (`int`): Rows of the training split.
        batch_size (`int`): Rows per step and process.
        max_steps (`int`): Steps of the whole training.
        first_step (`int`, *optional*, defaults to 0): Steps already done.
        seed (`int`, *optional*, defaults to 0): Seed of the permutations.
        rank (`int`, *optional*, defaults to 0): This process.
        world_size (`int`, *optional*, defaults to 1): Number of processes.
        order (`Callable[[int, int, int], np.ndarray]`, *optional*):
            Gives the rows of an epoch from one position to before another; by default a permutation of all rows.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        max_steps: int,
        first_step: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[int, int, int], np.ndarray] | None = None,
    ):
        self.order = order or PermutedRows(num_rows, seed)
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self.first_step, self.max_steps = first_step, max_steps
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch = num_rows // (batch_size * world_size)

    def __len__(self) -> int:
        return self.max_steps - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.max_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            start = (position * self.world_size + self.rank) * self.batch_size
            yield [(epoch, int(row)) for row in self.order(epoch, start, start + self.batch_size)]


class PermutedRows:
    """
    The order of a corpus that is there as a whole: every epoch is a new permutation of all rows.

    Args:
        num_rows (`int`): Rows of the corpus.
        seed (`int`): Seed of the permutations.
    """

    def __init__(self, num_rows: int, seed: int):
        self.num_rows, self.seed = num_rows, seed
        self.epoch, self.rows = -1, np.empty(0, np.int64)

    def __call__(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Rows at the positions from `start` to before `stop` of an epoch."""
        if epoch != self.epoch:
            self.epoch, self.rows = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)
        return self.rows[start:stop]


class CaptionedViews(TorchDataset):
    """
    Rows of a corpus as training examples: pixels with the short side resized once, the numbers that define the views,
    and for each global view a caption of its own. Text is cheap beside images, so every image meets two
    languages a step.

    A row whose image cannot be decoded is replaced by another that the same generator draws, and named in
    `undecodable`; where that happens too often in a row, an [`UndecodableImagesError`] takes the example's place. A
    row without a caption in the languages, which only a stream has, is replaced as well. Where a row cannot be
    fetched, a [`ShardError`] takes the example's place.

    Args:
        corpus (`datasets.Dataset`): Rows in the project's schema, images not decoded.
        languages (`list[str]`): Languages that captions are drawn from.
        view_specs (`dict[str, ViewSpec]`): Sorts of views by name.
        short_side (`int`): Size to which the short side is reduced, in pixels. Smaller images stay as they are.
        seed (`int`, *optional*, defaults to 0): Seed of captions and views.
        replacement (`Callable[[int, np.random.Generator], int]`, *optional*):
            Draws a row in place of one that cannot be used; by default any.
    """

    def __init__(
        self,
        corpus: Dataset,
        languages: list[str],
        view_specs: dict[str, ViewSpec],
        short_side: int,
        seed: int = 0,
        replacement: Callable[[int, np.random.Generator], int] | None = None,
    ):
        self.corpus, self.languages, self.view_specs = corpus, languages, view_specs
        self.short_side, self.seed = short_side, seed
        self.replacement = replacement or self.any_row

    def __len__(self) -> int:
        return len(self.corpus)

    def any_row(self, row: int, rng: np.random.Generator) -> int:
        """A row of the whole corpus."""
        return int(rng.integers(len(self)))

    def __getitem__(self, index: tuple[int, int]) -> dict | Exception:
        epoch, row = index
        rng = np.random.default_rng([self.seed, epoch, row])
        undecodable: list[str] = []
        for _ in range(MOST_TRIES):
            try:
                example = self.corpus[row]
            except ShardError as error:
                return error
            if has_caption(example["captions"], self.languages):
                try:
                    pixels = decode_image((example["image"] or {}).get("bytes") or b"", self.short_side)
                    break
                except IMAGE_ERRORS:
                    undecodable.append(example["image_id"])
                    if len(undecodable) > max(1.0, UNDECODABLE_SHARE * len(self)):
                        return UndecodableImagesError.of(undecodable, len(self))
            row = self.replacement(row, rng)
        else:
            what = f"no caption in {', '.join(self.languages)}, or an image that cannot be decoded"
            return SchemaError(f"{MOST_TRIES} rows drawn around {example['image_id']} have {what}")
        return {
            "pixels": pixels,
            "captions": draw_captions(example["captions"], self.languages, self.view_specs["global"].count, rng),
            "views": {n: draw_views(*pixels.shape[1:], spec, rng) for n, spec in self.view_specs.items()},
            "image_id": example["image_id"],
            "undecodable": undecodable,
        }


class UndecodableImagesError(RuntimeError):
    """
    More images cannot be decoded than a training run should tolerate. A worker hands it on as a value, since what it
    raises would reach the training process as a traceback in a string.
    """

    @classmethod
    def of(cls, image_ids: list[str], num_rows: int) -> "UndecodableImagesError":
        """The error that names the first of the images."""
        named = ", ".join(sorted(image_ids)[:5]) + (", …" if len(image_ids) > 5 else "")
        return cls(
            f"{len(image_ids)} of {num_rows} training images cannot be decoded, more than {UNDECODABLE_SHARE:.0%}: "
            f"{named}; rebuild the dataset with python -m rsmclip.data build --skip_bad"
        )


def decode_image(encoded: bytes, short_side: int) -> torch.Tensor:
    """
    Decodes an image and reduces its short side, antialiased.

    Args:
        encoded (`bytes`): A PNG, JPEG or any other format that Pillow reads.
        short_side (`int`): Size of the short side in pixels; smaller images stay as they are.

    Returns:
        `torch.Tensor` of shape `(3, height, width)`, uint8.
    """
    image = Image.open(io.BytesIO(encoded))
    image.draft("RGB", (short_side, short_side))  # a JPEG decodes at a half or quarter of its size if that suffices
    image = image.convert("RGB")
    if min(image.size) > short_side:
        ratio = short_side / min(image.size)
        image = image.resize([max(short_side, round(side * ratio)) for side in image.size], Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def has_caption(captions: dict[str, list[str | None] | None], languages: list[str]) -> bool:
    """Whether a row has a caption in at least one of the languages."""
    return any(caption for language in languages for caption in captions.get(language) or [])


def draw_captions(
    captions: dict[str, list[str | None] | None], languages: list[str], count: int, rng: np.random.Generator
) -> list[str]:
    """
    Draws captions of one image, in different languages as long as there are any: first a language, uniformly over
    those in which the image has a caption, then one of its captions there.

    Args:
        captions (`dict[str, list[str | None] | None]`): The row's captions by language.
        languages (`list[str]`): Languages to draw from.
        count (`int`): Captions to draw.
        rng (`np.random.Generator`): The row's generator.
    """
    available = [[caption for caption in captions.get(language) or [] if caption] for language in languages]
    available = [choices for choices in available if choices]
    order = rng.permutation(len(available))
    drawn = [available[order[index % len(available)]] for index in range(count)]
    return [choices[rng.integers(len(choices))] for choices in drawn]


@dataclass
class Collate:
    """
    Examples to a batch: captions tokenised and padded to the longest, images padded to the largest.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Tokeniser of the text tower.
        max_length (`int`): Longer captions are cut to so many tokens.
    """

    tokenizer: object
    max_length: int

    def __call__(self, examples: list[dict | Exception]) -> dict | Exception:
        if errors := [example for example in examples if isinstance(example, Exception)]:
            return errors[0]
        captions = zip(*(example["captions"] for example in examples), strict=True)  # (views, batch)
        tokens = self.tokenizer(
            [caption for view in captions for caption in view],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        height, width = (max(example["pixels"].shape[side] for example in examples) for side in (1, 2))
        pixels = torch.zeros(len(examples), 3, height, width, dtype=torch.uint8)
        for target, example in zip(pixels, examples, strict=True):
            target[:, : example["pixels"].shape[1], : example["pixels"].shape[2]] = example["pixels"]
        return {
            "pixels": pixels,
            "views": default_collate([example["views"] for example in examples]),
            "input_ids": tokens["input_ids"].unflatten(0, (-1, len(examples))),  # (views, batch, length)
            "attention_mask": tokens["attention_mask"].unflatten(0, (-1, len(examples))),
            "text_groups": group_by_length(tokens["attention_mask"]),
            "image_ids": [example["image_id"] for example in examples],
            "undecodable": [image_id for example in examples for image_id in example["undecodable"]],
        }


def group_by_length(attention_mask: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """
    Parts a batch of captions by length. The lengths are numbers of the host, so that the device need not be asked.

    Args:
        attention_mask (`torch.Tensor` of shape `(captions, length)`): 1 for tokens, 0 for padding.

    Returns:
        `list[tuple[torch.Tensor, int]]`: Rows of each group, and the length of its longest caption.
    """
    lengths = attention_mask.sum(dim=-1)
    groups = lengths.argsort(stable=True).chunk(TEXT_GROUPS)
    return [(rows, int(lengths[rows].max())) for rows in groups]
