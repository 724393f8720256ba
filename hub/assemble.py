"""`assemble` and `teacher`: model folders made of pretrained towers, and with the image tower of a teacher."""

from pathlib import Path

from rsmclip.core.files import new_folder
from rsmclip.data.schema import load_corpus
from rsmclip.eval.tasks import all_texts
from rsmclip.models.average import read_teacher
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
            trim_vocabulary(model, processor, all_texts(load_corpus(dataset).values()))
        save_model_folder(model, processor, unfinished)
    return len(processor.tokenizer)


def teacher_folder(checkpoint: Path, folder: Path) -> None:
    """
    Write a model folder with the image tower of the EMA teacher in a checkpoint, and the student's text tower.

    Raises:
        [`UserError`]: The checkpoint has no teacher, or the folder is not empty.
    """
    with new_folder(folder) as unfinished:
        save_model_folder(*read_teacher(checkpoint), unfinished)
