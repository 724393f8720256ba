"""Batches: which rows, which caption in which language, and which views, in every step.

All of it is a function of the seed, the epoch and the row, never of the number of processes or workers or of what was
drawn before. So a run of two processes sees what a run of one sees, and a resumed run continues where it stopped
without replaying anything.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler, default_collate

from rsmclip.core.images import IMAGE_ERRORS, image_bytes, open_encoded
from rsmclip.data.schema import SchemaError
from rsmclip.image_processing_rsmclip import as_image
from rsmclip.training.shards import ShardError
from rsmclip.training.views import ViewSpec, draw_views

UNDECODABLE_SHARE = 0.01  # of the training rows; more of them stop the run
LONGEST = 4  # times the short side to which images are reduced: the long side of a strip
MOST_TRIES = 100  # to find a row that can be used


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
        self.batch_size, self.first_step, self.max_steps = batch_size, first_step, max_steps
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
    and captions. Text is cheap beside images, so an image can meet several languages a step.

    A row whose image cannot be decoded is replaced by another that the same generator draws, and named in
    `undecodable`; where that happens too often in a row, an [`UndecodableImagesError`] takes the example's place. A
    row without a caption in the languages, which only a stream has, is replaced as well. Where a row cannot be
    fetched, a [`ShardError`] takes the example's place.

    Args:
        corpus (`datasets.Dataset`): Rows in the project's schema, images not decoded.
        captions ([`CaptionSampling`]): How captions are drawn.
        view_specs (`dict[str, ViewSpec]`): Sorts of views by name.
        short_side (`int`): Size to which the short side is reduced, in pixels. Smaller images stay as they are.
        seed (`int`, *optional*, defaults to 0): Seed of captions and views.
        replacement (`Callable[[int, np.random.Generator], int]`, *optional*):
            Draws a row in place of one that cannot be used; by default any.
    """

    def __init__(
        self,
        corpus: Dataset,
        captions: "CaptionSampling",
        view_specs: dict[str, ViewSpec],
        short_side: int,
        seed: int = 0,
        replacement: Callable[[int, np.random.Generator], int] | None = None,
    ):
        self.corpus, self.captions, self.view_specs = corpus, captions, view_specs
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
            if self.captions.available(example["captions"]):
                try:
                    pixels = decode_image(image_bytes(example["image"]) or b"", self.short_side)
                    break
                except IMAGE_ERRORS:
                    undecodable.append(example["image_id"])
                    if len(undecodable) > max(1.0, UNDECODABLE_SHARE * len(self)):
                        return UndecodableImagesError.of(undecodable, len(self))
            row = self.replacement(row, rng)
        else:
            what = f"no caption in {', '.join(self.captions.weights)}, or an image that cannot be decoded"
            return SchemaError(f"{MOST_TRIES} rows drawn around {example['image_id']} have {what}")
        captions, sentence_ids = self.captions.draw(example["captions"], rng)
        return {
            "pixels": pixels,
            "captions": captions,
            "sentence_ids": sentence_ids,
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
    Decodes an image, 16 bits and transparency as the model's processor does, and reduces its short side, antialiased;
    further if its long side were more than `LONGEST` times that, since a batch is padded to its longest side.

    Args:
        encoded (`bytes`): A PNG, JPEG or any other format that Pillow reads.
        short_side (`int`): Size of the short side in pixels; smaller images stay as they are.

    Returns:
        `torch.Tensor` of shape `(3, height, width)`, uint8.
    """
    image = open_encoded(encoded)
    image.draft("RGB", (short_side, short_side))  # a JPEG decodes at a half or quarter of its size if that suffices
    image = as_image(image).convert("RGB")
    ratio = min(short_side / min(image.size), LONGEST * short_side / max(image.size))
    if ratio < 1:
        image = image.resize([max(1, round(side * ratio)) for side in image.size], Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass
class CaptionSampling:
    """
    How captions of an image are drawn: languages by weight, different ones as long as the image has captions in them,
    then a caption of each.

    Args:
        weights (`dict[str, float]`): Languages to draw from and their weights.
        count (`int`, *optional*, defaults to 1): Captions of an image.
        anchor (`str`, *optional*): A language that comes first whenever the image has captions in it.
    """

    weights: dict[str, float]
    count: int = 1
    anchor: str | None = None

    @classmethod
    def parse(cls, sampling: str, languages: list[str], count: int) -> "CaptionSampling":
        """
        The sampling that a run's `language_sampling` describes.

        Args:
            sampling (`str`): `"uniform"`; `"english_anchor"`: English always and others uniformly; or weights like
                `"en=3,pt=0.5"`, where a language that isn't named weighs 1.
            languages (`list[str]`): The run's languages.
            count (`int`): Captions of an image.

        Raises:
            `ValueError`: It is none of these.
        """
        weights = dict.fromkeys(languages, 1.0)
        if sampling == "uniform":
            return cls(weights, count)
        if sampling == "english_anchor":
            if "en" not in languages or count < 2:
                raise ValueError("language_sampling english_anchor needs en in languages and captions_per_image >= 2")
            return cls(weights, count, anchor="en")
        for entry in sampling.replace(",", " ").split():
            language, _, weight = entry.partition("=")
            if language not in weights:
                raise ValueError(f"language_sampling names {entry!r}: expected weights like en=3,pt=1 of {languages}")
            try:
                weights[language] = float(weight)
            except ValueError:
                raise ValueError(f"language_sampling gives {language} the weight {weight!r}, not a number") from None
        if not all(0 <= weight < float("inf") for weight in weights.values()) or not sum(weights.values()):
            raise ValueError(f"the weights of language_sampling {sampling!r} must be at least 0, and one above 0")
        return cls(weights, count)

    def available(self, captions: dict[str, list[str | None] | None]) -> dict[str, list[int]]:
        """Languages that can be drawn of an image, and numbers of its captions there."""
        found = {
            language: [number for number, caption in enumerate(captions.get(language) or []) if caption]
            for language, weight in self.weights.items()
            if weight > 0
        }
        return {language: numbers for language, numbers in found.items() if numbers}

    def draw(
        self, captions: dict[str, list[str | None] | None], rng: np.random.Generator
    ) -> tuple[list[str], list[int]]:
        """
        Draws `count` captions of one image.

        Args:
            captions (`dict[str, list[str | None] | None]`): The row's captions by language, aligned.
            rng (`np.random.Generator`): The row's generator.

        Returns:
            `tuple[list[str], list[int]]`: Captions, and for each a number that captions of the same sentence share, in
            whatever language: the sentence is the English caption that it translates.
        """
        available = self.available(captions)
        languages = list(available)
        shares = np.array([self.weights[language] for language in languages])
        order = list(rng.choice(languages, size=len(languages), replace=False, p=shares / shares.sum()))
        if self.anchor in available:
            order = [self.anchor, *(language for language in order if language != self.anchor)]
        texts, ids = [], []
        for language in (order[index % len(order)] for index in range(self.count)):
            number = available[language][rng.integers(len(available[language]))]
            english = captions.get("en") or []
            sentence = english[number] if number < len(english) else None
            texts.append(captions[language][number])
            ids.append(sentence_id(sentence or texts[-1]))
        return texts, ids


def sentence_id(sentence: str) -> int:
    """64 bits of a sentence's hash, the same in every process."""
    return int.from_bytes(blake2b(sentence.encode(), digest_size=8).digest(), "big", signed=True)


@dataclass
class Collate:
    """
    Examples to a batch: captions tokenised and padded to the longest, images padded to the largest.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Tokeniser of the text tower.
        max_length (`int`): Longer captions are cut to so many tokens.
        groups (`int`, *optional*, defaults to 4): Parts of captions of similar length that the text tower takes one
            after the other, to pad less.
        multiple (`int`, *optional*, defaults to 1): Lengths are multiples of this: GPUs multiply by eights, and what
            is compiled for a length is used more often.
    """

    tokenizer: object
    max_length: int
    groups: int = 4
    multiple: int = 1

    def __call__(self, examples: list[dict | Exception]) -> dict | Exception:
        if errors := [example for example in examples if isinstance(example, Exception)]:
            return errors[0]
        captions = list(zip(*(example["captions"] for example in examples), strict=True))  # (captions, batch)
        tokens = self.tokenizer(
            [caption for texts in captions for caption in texts],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        longest = tokens["input_ids"].shape[1]
        more = min(-(-longest // self.multiple) * self.multiple, self.max_length) - longest
        ids = F.pad(tokens["input_ids"], (0, more), value=self.tokenizer.pad_token_id)
        mask = F.pad(tokens["attention_mask"], (0, more))
        height, width = (max(example["pixels"].shape[side] for example in examples) for side in (1, 2))
        pixels = torch.zeros(len(examples), 3, height, width, dtype=torch.uint8)
        for target, example in zip(pixels, examples, strict=True):
            target[:, : example["pixels"].shape[1], : example["pixels"].shape[2]] = example["pixels"]
        return {
            "pixels": pixels,
            "views": default_collate([example["views"] for example in examples]),
            "captions": captions,
            "sentence_ids": torch.tensor([example["sentence_ids"] for example in examples]).t(),  # (captions, batch)
            "input_ids": ids.unflatten(0, (-1, len(examples))),  # (captions, batch, length)
            "attention_mask": mask.unflatten(0, (-1, len(examples))),
            "text_groups": group_by_length(mask, self.groups, self.multiple),
            "image_ids": [example["image_id"] for example in examples],
            "undecodable": [image_id for example in examples for image_id in example["undecodable"]],
        }


def group_by_length(
    attention_mask: torch.Tensor, groups: int = 4, multiple: int = 1
) -> list[tuple[torch.Tensor, int]]:
    """
    Parts a batch of captions by length. The lengths are numbers of the host, so that the device need not be asked.

    Args:
        attention_mask (`torch.Tensor` of shape `(captions, length)`): 1 for tokens, 0 for padding.
        groups (`int`, *optional*, defaults to 4): Number of parts.
        multiple (`int`, *optional*, defaults to 1): Lengths are rounded up to multiples of this.

    Returns:
        `list[tuple[torch.Tensor, int]]`: Rows of each group, and the length of its longest caption.
    """
    lengths = attention_mask.sum(dim=-1)
    parts = lengths.argsort(stable=True).chunk(groups)
    width = attention_mask.shape[1]
    return [(rows, min(-(-int(lengths[rows].max()) // multiple) * multiple, width)) for rows in parts]
