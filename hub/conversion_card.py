"""What `convert-openclip` writes as `README.md`: nothing was measured, so its readers are sent to the source."""

from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from rsmclip.hub.folder import LOWEST_TRANSFORMERS

TEMPLATE = Path(__file__).parent / "conversion_card_template.md.jinja"


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
