"""The evaluation card: a model's `README.md`, made from what its training run recorded."""

from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rsmclip.eval.report import as_markdown, result_table
from rsmclip.hub.folder import LOWEST_TRANSFORMERS

TEMPLATE = Path(__file__).parent / "card_template.md.jinja"
CONVERSION_TEMPLATE = Path(__file__).parent / "conversion_card_template.md.jinja"


def make_card(results: dict, name: str, training_curve: str | None = None) -> ModelCard:
    """
    The card of a model.

    Args:
        results (`dict`):
            What `eval_results.json` holds.
        name (`str`):
            Name of the model; also its repository in the code examples until it has one.
        training_curve (`str`, *optional*):
            Name of a picture beside the card that shows the course of the training.

    Returns:
        `ModelCard`: With `language`, `pipeline_tag`, `library_name` and a `model-index` of every figure.
    """
    metadata = ModelCardData(
        language=results["languages"],
        license="mit",
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=["remote-sensing", "clip", "multilingual", "custom_code"],
        base_model=results["base_model"],
        model_name=name,
        eval_results=list(eval_results(results)),
    )
    header, rows = result_table(results["metrics"], results["untrained"])
    return ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        repo_id=name,
        results=results,
        training_curve=training_curve,
        table=as_markdown(header, rows),
        lowest_transformers=LOWEST_TRANSFORMERS,
    )


def make_conversion_card(source: str, folder: Path, name: str, described: dict) -> ModelCard:
    """
    The card of a model converted from OpenCLIP, which sends its readers to the source.

    Args:
        source (`str`):
            Folder or Hub id that it was converted from; of a folder only the name is told.
        folder (`Path`):
            Where the source lies; licence and languages are those of its card, if it has one.
        name (`str`):
            Name of the model.
        described (`dict`):
            What the source's `open_clip_config.json` holds.
    """
    is_hub_id = not Path(source).is_dir()
    try:
        theirs = ModelCard.load(folder / "README.md").data if (folder / "README.md").is_file() else ModelCardData()
    except yaml.YAMLError as error:
        raise ValueError(f"the card {folder / 'README.md'} has metadata that is not valid YAML") from error
    metadata = ModelCardData(
        language=theirs.get("language"),
        license=theirs.get("license"),
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=["clip", "multilingual", "custom_code"],
        base_model=source if is_hub_id else None,
        model_name=name,
    )
    return ModelCard.from_template(
        metadata,
        template_path=str(CONVERSION_TEMPLATE),
        name=name,
        source=source if is_hub_id else Path(source).resolve().name,
        is_hub_id=is_hub_id,
        vision=described["model_cfg"]["vision_cfg"],
        text=described["model_cfg"]["text_cfg"],
        lowest_transformers=LOWEST_TRANSFORMERS,
    )


def eval_results(results: dict):
    """Every figure of the run as an entry of the `model-index`."""
    for language, metrics in results["metrics"].items():
        for metric, value in metrics.items():
            if metric in ("images", "texts") or metric.startswith("chance"):
                continue
            zero_shot = metric.startswith("zero_shot")
            yield EvalResult(
                task_type="zero-shot-image-classification" if zero_shot else "image-text-retrieval",
                task_name="zero-shot classification" if zero_shot else "cross-modal retrieval",
                dataset_type=results["dataset"],
                dataset_name=results["dataset"],
                dataset_split=results["split"],
                dataset_config=language,
                metric_type=metric.removeprefix("zero_shot_"),
                metric_name=f"{metric} ({language})",
                metric_value=round(value, 4),
            )
