"""`convert-openclip`: a model folder of weights in OpenCLIP's layout, and its card, which points at the source."""

from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from rsmclip.core.files import new_folder
from rsmclip.models.folder import LOWEST_TRANSFORMERS, save_model_folder
from rsmclip.models.openclip import load_openclip

TEMPLATE = Path(__file__).parent / "conversion_card_template.md.jinja"


def convert_openclip(source: str, folder: Path, tokenizer: str | None = None) -> bool:
    """
    Make a model folder of OpenCLIP's weights. On failure there is none.

    Args:
        source (`str`): Local folder or Hub id, see [`~rsmclip.models.openclip.load_openclip`].
        folder (`Path`): The folder to write; new, or empty.
        tokenizer (`str`, *optional*): Folder or Hub id of the tokenizer; by default the one in `source`.

    Returns:
        `bool`: Whether the model has a tokenizer.

    Raises:
        `ValueError`: A tower that is not a plain ViT or XLM-RoBERTa, or a tensor missing, surplus or misshapen.
        `OSError`: There is no such folder, repository or file.
    """
    found = load_openclip(source, tokenizer)
    with new_folder(folder) as unfinished:
        save_model_folder(found.model, found.processor, unfinished)
        card = make_conversion_card(source, found.path, folder.resolve().name, found.described, found.has_tokenizer)
        card.save(unfinished / "README.md")
    return found.has_tokenizer


def make_conversion_card(source: str, folder: Path, name: str, described: dict, has_tokenizer: bool) -> ModelCard:
    """
    The card of a model converted from OpenCLIP, which sends its readers to the source. In its code the model is
    "USER/NAME" at "REVISION", which `push` replaces.

    Args:
        source (`str`):
            Folder or Hub id that it was converted from; of a folder only the name is told.
        folder (`Path`):
            Where the source lies; licence and languages are those of its card, if it has one.
        name (`str`):
            Name of the model.
        described (`dict`):
            What the source's `open_clip_config.json` holds.
        has_tokenizer (`bool`):
            Whether the model takes texts as they are.
    """
    is_hub_id = not Path(source).is_dir()
    try:
        theirs = ModelCard.load(folder / "README.md").data if (folder / "README.md").is_file() else ModelCardData()
    except yaml.YAMLError as error:
        raise ValueError(f"the card {folder / 'README.md'} has metadata that is not valid YAML") from error
    metadata = ModelCardData(
        language=theirs.get("language"),
        license=theirs.get("license"),
        license_name=theirs.get("license_name"),
        license_link=theirs.get("license_link"),
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification" if has_tokenizer else "image-feature-extraction",
        tags=["clip", "multilingual", "custom_code"],
        base_model=source if is_hub_id else None,
        model_name=name,
    )
    return ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        source=source if is_hub_id else Path(source).resolve().name,
        is_hub_id=is_hub_id,
        has_tokenizer=has_tokenizer,
        vision=described["model_cfg"]["vision_cfg"],
        text=described["model_cfg"]["text_cfg"],
        lowest_transformers=LOWEST_TRANSFORMERS,
    )
