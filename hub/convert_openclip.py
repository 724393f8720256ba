"""Convert weights in OpenCLIP's layout to a model folder, with a card that links to the source."""

from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from rsmclip.core.errors import user_errors
from rsmclip.core.files import new_folder
from rsmclip.models.folder import LOWEST_TRANSFORMERS, save_model_folder
from rsmclip.models.openclip import OpenCLIPFolder, load_openclip

TEMPLATE = Path(__file__).parent / "conversion_card_template.md.jinja"


def convert_openclip(source: str, folder: Path, tokenizer: str | None = None) -> bool:
    """
    Convert weights in OpenCLIP's layout to a model folder. After an error no folder is left.

    Args:
        source (`str`): Local folder or Hub id, see [`~rsmclip.models.openclip.load_openclip`].
        folder (`Path`): New or empty folder.
        tokenizer (`str`, *optional*): Folder or Hub id of the tokenizer; by default the one in `source`.

    Returns:
        `bool`: Whether the model has a tokenizer.

    Raises:
        [`UserError`]: There is no such model, it cannot be converted, or the folder cannot be written.
    """
    found = load_openclip(source, tokenizer)
    with new_folder(folder) as unfinished:
        save_model_folder(found.model, found.processor, unfinished)
        card = make_conversion_card(source, found, folder.resolve().name)
        with user_errors(OSError):
            card.save(unfinished / "README.md")
    return found.has_tokenizer


def make_conversion_card(source: str, found: OpenCLIPFolder, name: str) -> ModelCard:
    # The card takes license and languages from the card of the source.
    is_hub_id, their_card = not Path(source).is_dir(), found.path / "README.md"
    with user_errors(OSError, ValueError, yaml.YAMLError, prefix=f"the metadata of {their_card} is not valid"):
        theirs = ModelCard.load(their_card).data if their_card.is_file() else ModelCardData()
    inherited = {field: theirs.get(field) for field in ("language", "license", "license_name", "license_link")}
    metadata = ModelCardData(
        **inherited,
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification" if found.has_tokenizer else "image-feature-extraction",
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
        has_tokenizer=found.has_tokenizer,
        vision=found.described["model_cfg"]["vision_cfg"],
        text=found.described["model_cfg"]["text_cfg"],
        lowest_transformers=LOWEST_TRANSFORMERS,
    )
