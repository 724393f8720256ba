"""`assemble` and `interpolate`: model folders made of towers, and of averaged weights."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rsmclip.core.errors import UserError
from rsmclip.core.files import new_folder
from rsmclip.data.schema import captions_of, load_corpus
from rsmclip.eval.protocol import benchmark_texts
from rsmclip.models.average import average_models
from rsmclip.models.folder import save_model_folder
from rsmclip.models.towers import assemble, trim_vocabulary


def assemble_folder(
    image_tower: str, text_tower: str, folder: Path, projection_dim: int = 512, dataset: str | None = None
) -> int:
    """
    Write a model folder of two towers. Projections and logit scale are new, so the model needs training.

    Args:
        image_tower (`str`): See [`~rsmclip.models.towers.load_image_tower`].
        text_tower (`str`): See [`~rsmclip.models.towers.load_text_tower`].
        folder (`Path`): New or empty folder.
        projection_dim (`int`, *optional*, defaults to 512): Width of the space that images and texts share.
        dataset (`str`, *optional*):
            Corpus. If given, the vocabulary is cut to the captions of all its splits, the class names and prompts of
            all benchmarks, and all single characters.

    Returns:
        `int`: Number of tokens of the tokenizer.

    Raises:
        [`UserError`]: A tower or the corpus cannot be loaded, or the folder is not empty.
    """
    with new_folder(folder) as unfinished:
        model, processor = assemble(
            image_tower, text_tower, {"projection_dim": projection_dim, "self_distillation": None}
        )
        if dataset is not None:
            captions = chain.from_iterable(captions_of(rows) for rows in load_corpus(dataset).values())
            trim_vocabulary(model, processor, chain(captions, benchmark_texts()))
        save_model_folder(model, processor, unfinished)
    return len(processor.tokenizer)


def interpolate(start: Path, tuned: Path, folder: Path, alpha: float = 0.5, soup: Sequence[Path] = ()) -> None:
    """
    Write a model folder with averaged weights: `(1 - alpha) * start + alpha * tuned`.

    Args:
        start (`Path`): Folder of the model before fine-tuning; 0 gives its weights bit for bit.
        tuned (`Path`): Folder of the tuned model; 1 gives its weights bit for bit.
        folder (`Path`): New or empty folder.
        alpha (`float`, *optional*, defaults to 0.5): Share of the tuned model.
        soup (`Sequence[Path]`, *optional*): Further models or checkpoints. If given, all models have equal shares.

    Raises:
        [`UserError`]: The models differ in shapes or tokenizer, or the folder is not empty.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha}, but must be between 0 and 1")
    models = [start, tuned, *soup]
    shares = [1 / len(models)] * len(models) if soup else [1 - alpha, alpha]
    with new_folder(folder) as unfinished:
        model, processor = average_models(models, shares)
        save_model_folder(model, processor, unfinished)
