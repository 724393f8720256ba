"""Batches: rows, captions, languages and views of every training step.

The rows of a step, their captions and their views are a function of the seed and the step. They do not depend on the
number of processes or workers, or on earlier draws. So a run of two processes sees the batches of a run of one
process, and a resumed run continues without replaying earlier steps.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler, default_collate
from transformers import PreTrainedTokenizerBase

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.images import decode_rgb, image_bytes
from rsmclip.training.views import ViewSpec, draw_views

UNDECODABLE_SHARE = 0.01  # largest share of training rows with undecodable images; more stop the run
LONGEST = 4  # largest ratio of the long side of a decoded image to `short_side`
MOST_TRIES = 100  # to find a usable row
PICTURE_SENTENCES = "picture_sentences"  # column of `with_sentences_of_pictures`
MOST_SENTENCES = 16  # of an image that travel with it to the loss
Captions = dict[str, list[str | None] | None]  # of an image, by language


@dataclass(eq=False)
class StepSampler(Sampler[list[tuple[int, int]]]):
    """
    Rows of each step for one process, as a list of `(epoch, row)`.

    Every epoch is a new permutation of the rows. The last, incomplete batch of an epoch is dropped. Each process takes
    one slice of the global batch of a step.

    Args:
        batch_size (`int`): Rows of a step in one process.
        max_steps (`int`): Number of steps of the whole training.
        first_step (`int`, *optional*, defaults to 0): Number of steps already done.
        order (`Callable[[int, int, int], np.ndarray]`, *optional*):
            `order(epoch, start, stop)` returns the rows at the positions `start` to `stop - 1` of an epoch. By default
            a permutation of all rows. A number `row + n * num_rows` means this row as it is n epochs later. So a row
            that an epoch has twice gets other captions and views.
    """

    num_rows: int
    batch_size: int
    max_steps: int
    first_step: int = 0
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    order: Callable[[int, int, int], np.ndarray] | None = None

    def __post_init__(self):
        self.order = self.order or PermutedRows(self.num_rows, self.seed)
        self.steps_per_epoch = self.num_rows // (self.batch_size * self.world_size)

    def __len__(self) -> int:
        return self.max_steps - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.max_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            start = (position * self.world_size + self.rank) * self.batch_size
            numbers = self.order(epoch, start, start + self.batch_size)
            yield [(epoch + int(number) // self.num_rows, int(number) % self.num_rows) for number in numbers]


class PermutedRows:
    def __init__(self, num_rows: int, seed: int):
        self.num_rows, self.seed = num_rows, seed
        self.epoch, self.rows = -1, np.empty(0, np.int64)

    def __call__(self, epoch: int, start: int, stop: int) -> np.ndarray:
        if epoch != self.epoch:
            self.epoch, self.rows = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)
        return self.rows[start:stop]


@dataclass(eq=False)
class CaptionedViews(TorchDataset):
    """
    Training examples: pixels of an image, the numbers that define its views, and captions.

    A row without a caption in the languages, or with an image that cannot be decoded, is replaced by another row. The
    example lists the ids of undecodable images in `undecodable`.

    An item is a [`UserError`] instead of an example if no usable row is found, if too many images cannot be decoded,
    or if a row cannot be read. A `DataLoader` would turn an exception from a worker into a traceback, but a returned
    [`UserError`] reaches the training process unchanged, as the batch.

    Args:
        corpus (`datasets.Dataset`): Rows in the project's schema, with encoded images.
        captions ([`CaptionSampling`]): Distribution of the captions.
        view_specs (`dict[str, ViewSpec]`): Distribution of each kind of view.
        short_side (`int`): Size in pixels to which the short side of larger images is reduced.
        replacement (`Callable[[int, np.random.Generator], int]`, *optional*):
            `replacement(row, rng)` draws a row in place of an unusable one. By default any row.
    """

    corpus: Dataset
    captions: "CaptionSampling"
    view_specs: dict[str, ViewSpec]
    short_side: int
    seed: int = 0
    replacement: Callable[[int, np.random.Generator], int] | None = None

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: tuple[int, int]) -> dict | UserError:
        try:
            return self.example(*index)
        except UserError as error:
            return error

    def example(self, epoch: int, row: int) -> dict:
        rng = np.random.default_rng([self.seed, epoch, row])
        example, pixels, undecodable = self.usable_row(row, rng)
        captions, sentence_ids = self.captions.draw(example["captions"], rng)
        return {
            "pixels": pixels,
            "captions": captions,
            "sentence_ids": sentence_ids,
            "image_sentence_ids": image_sentence_ids(
                example["captions"], sentence_ids, example.get(PICTURE_SENTENCES, [])
            ),
            "views": {n: draw_views(*pixels.shape[1:], spec, rng) for n, spec in self.view_specs.items()},
            "image_id": example["image_id"],
            "undecodable": undecodable,
        }

    def usable_row(self, row: int, rng: np.random.Generator) -> tuple[dict, torch.Tensor, list[str]]:
        undecodable, reason = [], ""
        for _ in range(MOST_TRIES):
            example = self.corpus[row]
            if self.captions.available(example["captions"]):
                try:
                    encoded = image_bytes(example["image"]) or b""
                    return example, decode_image(encoded, self.short_side), undecodable
                except UserError as error:
                    undecodable.append(example["image_id"])
                    reason = f" ({error})"
                if len(undecodable) > max(1.0, UNDECODABLE_SHARE * len(self)):
                    raise undecodable_images(undecodable, len(self), reason)
            row = self.replacement(row, rng) if self.replacement else int(rng.integers(len(self)))
        languages = ", ".join(self.captions.weights)
        raise UserError(
            f"{MOST_TRIES} rows drawn around {example['image_id']} have no caption in {languages}, or an image that "
            f"cannot be decoded{reason}; check the corpus, or set languages and language_sampling to those that it has"
        )


def undecodable_images(image_ids: list[str], num_rows: int, reason: str = "") -> UserError:
    """Return the error for too many undecodable images, with the first five ids and the reason of one."""
    named = ", ".join(sorted(image_ids)[:5]) + (", …" if len(image_ids) > 5 else "")
    return UserError(
        f"{len(image_ids)} of {num_rows} training images cannot be decoded, more than {UNDECODABLE_SHARE:.0%}: "
        f"{named}{reason}; rebuild the dataset with rsmclip data build --skip_bad"
    )


def decode_image(encoded: bytes, short_side: int) -> torch.Tensor:
    """
    Decode an image to `(3, height, width)`, uint8, and reduce its short side to at most `short_side` pixels.

    The model's processor decodes 16-bit and transparent images to equal pixels. The long side is at most `LONGEST`
    times `short_side`, because a batch is padded to its longest side.

    Raises:
        [`UserError`]: Pillow cannot decode the bytes, or the range of the values is unknown.
    """
    image = decode_rgb(encoded, short_side)
    ratio = min(short_side / min(image.size), LONGEST * short_side / max(image.size))
    if ratio < 1:
        image = image.resize([max(1, round(side * ratio)) for side in image.size], Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@dataclass
class CaptionSampling:
    """
    Distribution of the captions of an image.

    Languages are drawn by their weights, then one caption in each drawn language. The captions are different sentences
    if the image has so many. A language repeats only if the image has captions in fewer than `count` languages, or if
    the drawn languages have too few sentences.

    Args:
        count (`int`, *optional*, defaults to 1): Number of captions of an image.
        anchor (`str`, *optional*): Language that always comes first if the image has captions in it.
    """

    weights: dict[str, float]
    count: int = 1
    anchor: str | None = None

    @classmethod
    def parse(cls, sampling: str, languages: list[str], count: int) -> "CaptionSampling":
        """
        Read the option `language_sampling`: `"uniform"`, `"english_anchor"` (English always, other languages
        uniformly), or weights like `"en=3,pt=0.5"` (languages without a weight have weight 1).

        Raises:
            [`UserError`]: The option has another form, an unknown language, or a bad weight.
        """
        if sampling == "uniform":
            return cls(dict.fromkeys(languages, 1.0), count)
        if sampling == "english_anchor":
            if "en" not in languages or count < 2:
                raise UserError("language_sampling english_anchor needs en in languages and captions_per_image >= 2")
            return cls(dict.fromkeys(languages, 1.0), count, anchor="en")
        return cls(parse_weights("language_sampling", sampling, languages), count)

    def available(self, captions: Captions) -> dict[str, list[int]]:
        """Return the languages that can be drawn, and the indices of the captions in each of them."""
        found = {
            language: [number for number, caption in enumerate(captions.get(language) or []) if caption]
            for language, weight in self.weights.items()
            if weight > 0
        }
        return {language: numbers for language, numbers in found.items() if numbers}

    def draw(self, captions: Captions, rng: np.random.Generator) -> tuple[list[str], list[int]]:
        """
        Draw `count` captions of an image. Returns the captions and the id of each caption's sentence.

        A sentence and its translations have one id, because the id is a hash of the English caption.
        """
        available = self.available(captions)
        languages = list(available)
        shares = np.array([self.weights[language] for language in languages])
        order = list(rng.choice(languages, size=len(languages), replace=False, p=shares / shares.sum()))
        if self.anchor in available:
            order = [self.anchor, *(language for language in order if language != self.anchor)]
        pairs = {  # caption and sentence
            language: [(captions[language][number], sentence_of(captions, language, number)) for number in numbers]
            for language, numbers in available.items()
        }

        # The language with the fewest captions chooses first. If all its sentences are taken, another one replaces it.
        drawn: dict[int, tuple[str, str]] = {}
        languages = [order[place % len(order)] for place in range(self.count)]
        for place in sorted(range(self.count), key=lambda place: len(set(pairs[languages[place]]))):
            taken = {sentence for _, sentence in drawn.values()}
            allowed = [languages[place], *(order if languages[place] != self.anchor else [])]
            new = ([pair for pair in pairs[language] if pair[1] not in taken] for language in allowed)
            choices = next(filter(None, new), pairs[languages[place]])
            drawn[place] = choices[rng.integers(len(choices))]
        texts, sentences = zip(*(drawn[place] for place in range(self.count)), strict=True)
        return list(texts), [sentence_id(sentence) for sentence in sentences]


def sentence_of(captions: Captions, language: str, number: int) -> str:
    """Return the English sentence that a caption translates, or the caption if there is none."""
    english = captions.get("en") or []
    return (english[number] if number < len(english) else None) or captions[language][number]


def sentences_of(captions: Captions, languages: Iterable[str]) -> Iterator[str]:
    """Yield the sentence of each caption of an image in the languages."""
    for language in languages:
        for number, caption in enumerate(captions.get(language) or []):
            if caption:
                yield sentence_of(captions, language, number)


def image_sentence_ids(captions: Captions, drawn: list[int], of_picture: Iterable[int] = ()) -> list[int]:
    """
    Return the ids of all sentences of an image: first the drawn ones, then those of all other captions, then those of
    other rows that show the picture.

    The list has a fixed length, so that processes can gather it. Further sentences are left out. If there are fewer,
    the first id repeats, which changes nothing.
    """
    own = map(sentence_id, dict.fromkeys(sentences_of(captions, captions)))
    ids = list(dict.fromkeys([*drawn, *own, *of_picture]))
    length = max(MOST_SENTENCES, len(drawn))
    return ids[:length] + ids[:1] * (length - len(ids))


def parse_weights(field: str, sampling: str, names: Iterable[str]) -> dict[str, float]:
    """Read weights like `"en=3,pt=0.5"` of the option `field`. Names without a weight have weight 1."""
    weights = dict.fromkeys(names, 1.0)
    for entry in sampling.replace(",", " ").split():
        name, _, weight = entry.partition("=")
        if name not in weights:
            raise UserError(f"{field} names {entry!r}: expected weights like {next(iter(weights))}=3 of {[*weights]}")
        with user_errors(ValueError, prefix=f"{field}: the weight of {name} is not a number"):
            weights[name] = float(weight)
    if not all(0 <= weight < float("inf") for weight in weights.values()) or not sum(weights.values()):
        raise UserError(f"{field} {sampling!r}: weights must be at least 0, and one must be above 0")
    return weights


def sentence_id(sentence: str) -> int:
    # Python's hash() differs between processes.
    return int.from_bytes(blake2b(sentence.encode(), digest_size=8).digest(), "big", signed=True)


@dataclass
class Collate:
    """
    Function that makes a batch from examples: it tokenizes captions and pads captions and images.

    Args:
        max_length (`int`): Largest number of tokens. Longer captions are cut.
        groups (`int`, *optional*, defaults to 4): Number of groups of captions of similar length. The text tower takes
            one group after the other, so that short captions need less padding.
        multiple (`int`, *optional*, defaults to 1): Lengths are padded to multiples of this number. 8 is faster on a
            GPU, and a compiled graph then serves more lengths.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    groups: int = 4
    multiple: int = 1

    def __call__(self, examples: list[dict | UserError]) -> dict | UserError:
        if errors := [example for example in examples if isinstance(example, UserError)]:
            return errors[0]

        # Tokens, padded to the longest caption.
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

        # Pixels, padded to the largest image.
        height, width = (max(example["pixels"].shape[side] for example in examples) for side in (1, 2))
        pixels = torch.zeros(len(examples), 3, height, width, dtype=torch.uint8)
        for target, example in zip(pixels, examples, strict=True):
            target[:, : example["pixels"].shape[1], : example["pixels"].shape[2]] = example["pixels"]

        ids_of_captions, ids_of_images = (
            torch.tensor([example[name] for example in examples]).t()
            for name in ("sentence_ids", "image_sentence_ids")
        )
        return {
            "pixels": pixels,
            "views": default_collate([example["views"] for example in examples]),
            "captions": captions,
            "sentence_ids": ids_of_captions,  # (captions, batch)
            "image_sentence_ids": ids_of_images,  # (sentences, batch)
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
    Divide captions into `groups` groups of similar length. Returns row indices and padded length of each group.

    The mask has the shape `(captions, length)`. The lengths are Python numbers, because reading them from the device
    would block.
    """
    lengths = attention_mask.sum(dim=-1)
    parts = lengths.argsort(stable=True).chunk(groups)
    width = attention_mask.shape[1]
    return [(rows, min(-(-int(lengths[rows].max()) // multiple) * multiple, width)) for rows in parts]
