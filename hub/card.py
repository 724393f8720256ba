"""The evaluation card: a model's `README.md`, made from what its run recorded and from further evaluations.

No figure is typed: those of the tables, the `model-index` and the sentences on limits come from results files, and
what stands under a code snippet was printed by it when the card was made.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rsmclip.core.drawing import save
from rsmclip.core.files import read_json
from rsmclip.eval.models import load_embedder
from rsmclip.eval.plots import recall_by_language
from rsmclip.eval.report import COLUMNS, as_markdown, figure_tables, mean_over_languages
from rsmclip.hub.evaluations import Evaluation, model_index, own_evaluation, read_evaluations
from rsmclip.hub.examples import OPEN_LICENCES
from rsmclip.hub.limits import limits
from rsmclip.hub.snippets import Example, Snippet, make_examples, make_snippets, run_snippets, with_base
from rsmclip.models.folder import LANGUAGE_PLOT, LOWEST_TRANSFORMERS, TRAINING_CURVE

TEMPLATE = Path(__file__).parent / "card_template.md.jinja"
ADAPTER = "adapter_config.json"
RECORDED = (  # by a run, in `eval_results.json`
    *("dataset", "split", "revision", "fingerprint", "images", "train_images", "classes", "prompts", "languages"),
    *(
        "metrics",
        "figures",
        "untrained",
        "class_recall",
        "seconds",
        "pairs_per_second",
        "undecodable_images",
        "device",
        "energy",
    ),
    *("mixed_precision", "base_model", "base_revision", "model", "data", "examples", "command", "training"),
)
HYPERPARAMETERS = {
    "max_train_steps": "steps",
    "batch_size": "images a step, and as many candidates in each InfoNCE",
    "captions_per_image": "captions of an image in a step",
    "language_sampling": "sampling of languages",
    "learning_rate": "peak learning rate (AdamW, cosine decay)",
    "image_learning_rate": "of the image tower",
    "text_learning_rate": "of the text tower",
    "head_learning_rate": "of the self-distillation head",
    "warmup_steps": "steps of warm-up",
    "weight_decay": "weight decay",
    "adam_beta2": "AdamW's β₂",
    "max_grad_norm": "gradients clipped to norm",
    "duplicate_captions": "equal captions in a batch",
    "num_global_views": "global views of an image",
    "num_local_views": "local views of an image",
    "self_distillation_weight": "weight of self-distillation",
    "teacher_momentum": "teacher's momentum",
    "final_teacher_momentum": "teacher's momentum at the end",
    "teacher_temperature": "teacher's temperature",
    "seed": "seed",
}
SELF_DISTILLATION = (
    "num_local_views",
    "teacher_momentum",
    "final_teacher_momentum",
    "teacher_temperature",
)  # nothing without it


def write_card(folder: Path, evaluations: Sequence[Path] = (), run_examples: bool = True) -> list[str]:
    """
    Makes the card of a run's folder anew, with the plot that it shows.

    Args:
        folder (`Path`):
            The folder: a model or an adapter, its `eval_results.json`, and the pictures in `examples/`.
        evaluations (`Sequence[Path]`, *optional*):
            Folders that `python -m rsmclip.eval … --output` wrote for this model.
        run_examples (`bool`, *optional*, defaults to `True`):
            Whether to run the code snippets and the widget's examples; else they have no output.

    Returns:
        `list[str]`: What is missing in the card, in words.

    Raises:
        `ValueError`: The folder records too little, an evaluation is of another model, a snippet fails, or the card
            does not read back as it was meant.
    """
    results = read_recorded(folder)
    own = own_evaluation(results)
    further = read_further(folder, evaluations, own)
    examples = make_examples(results["examples"], results["languages"])
    base = base_of(folder)
    codes = make_snippets(examples, adapter=base is not None)
    codes = with_base(codes, results["base_model"], results["base_revision"])
    snippets, shown, missing = {title: Snippet(code) for title, code in codes.items()}, None, []
    if run_examples:
        snippets, shown = run_snippets(codes, examples, folder, base)
        missing = [f"{s.missing} is not installed: its snippet was not run" for s in snippets.values() if s.missing]
    name = folder.resolve().name
    by_language = [
        record for record in own.figures if record["language"] in results["languages"] and "to" not in record
    ]
    plot = recall_by_language(by_language, name)
    card = make_card(results, name, own, further, snippets, examples, shown, base is not None)
    save(plot, folder / LANGUAGE_PLOT)
    card.save(folder / "README.md")
    return missing


def read_recorded(folder: Path) -> dict:
    """A run's `eval_results.json`; `ValueError` if the card needs what it, or the folder, does not hold."""
    results = read_json(folder / "eval_results.json")
    if missing := [name for name in RECORDED if name not in results]:
        raise ValueError(
            f"{folder / 'eval_results.json'} lacks {', '.join(missing)}: no run of this version recorded it, so no "
            "card can be made; train again"
        )
    needed = [TRAINING_CURVE, "train_log.jsonl", "training_config.yaml", *results["examples"]["labels"]]
    if absent := [name for name in needed if not (folder / name).is_file()]:
        raise ValueError(f"{folder} lacks {', '.join(absent)}, which the card shows or names")
    return results


def read_further(folder: Path, evaluations: Sequence[Path], own: Evaluation) -> list[Evaluation]:
    """The evaluations in folders, all of them of this model; those of the run's own images under its name."""
    if not evaluations:  # a card alone does not need the model's hash
        return []
    model_hash = load_embedder(str(folder), device="cpu").hash
    further = [found for place in evaluations for found in read_evaluations(place, model_hash)]
    same = {"dataset": own.dataset, "split": own.split, "revision": own.revision}
    return [replace(found, **same) if found.fingerprint == own.fingerprint else found for found in further]


def base_of(folder: Path) -> str | None:
    """Folder or Hub id of the model that an adapter belongs to; `None` if the folder holds no adapter."""
    path = folder / ADAPTER
    if not path.is_file():
        return None
    base = read_json(path)["base_model_name_or_path"]
    return str(Path(base).resolve()) if Path(base).is_dir() else base


def make_card(
    results: dict,
    name: str,
    own: Evaluation,
    further: Sequence[Evaluation],
    snippets: dict[str, Snippet],
    examples: Sequence[Example],
    shown: list[list[dict]] | None,
    adapter: bool,
) -> ModelCard:
    """
    A card that reads back as it was meant.

    Args:
        results (`dict`): What `eval_results.json` holds.
        name (`str`): Name of the model.
        own ([`Evaluation`]): The run's evaluation.
        further (`Sequence[Evaluation]`): Others.
        snippets (`dict[str, Snippet]`): Code by title.
        examples (`Sequence[Example]`): What the widget shows.
        shown (`list[list[dict]]`, *optional*): Labels with scores of each example, if they were computed.
        adapter (`bool`): Whether it is an adapter alone.
    """
    index = model_index([own, *further])
    metadata = make_metadata(results, name, index, examples, shown, adapter)
    told = {(record["metric"], record["language"], record.get("to")) for record in own.figures}
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        results=results,
        adapter=adapter,
        license=metadata.license,
        snippets=snippets,
        examples=list(zip(examples, shown, strict=True)) if shown else [],
        tables=own_tables(results),
        further=[(each, further_tables(each, own, told)) for each in further],
        limits=limits(results),
        duration=duration(results["seconds"]),
        energy=energy(results["energy"]["kwh"]),
        hyperparameters=hyperparameters(results["training"]),
        language_plot=LANGUAGE_PLOT,
        training_curve=TRAINING_CURVE,
        lowest_transformers=LOWEST_TRANSFORMERS,
    )
    check_card(card, index, name)
    return card


def make_metadata(
    results: dict,
    name: str,
    index: list[EvalResult],
    examples: Sequence[Example],
    shown: list[list[dict]] | None,
    adapter: bool,
) -> ModelCardData:
    """What the Hub reads of a card."""
    base, dataset = results["base_model"], results["dataset"]
    kinds = ["accuracy"] if any(entry.metric_type == "accuracy" for entry in index) else []
    more = {"base_model_relation": "adapter" if adapter else "finetune"} if base else {}
    return ModelCardData(
        language=results["languages"],
        **license_of(results),
        library_name="peft" if adapter else "transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=["remote-sensing", "clip", "multilingual", "image-text-retrieval", "custom_code"],
        base_model=base,
        datasets=[dataset] if "/" in dataset else None,
        metrics=["recall", *kinds],
        model_name=name,
        eval_results=index,
        widget=make_widget(examples, shown),
        **more,
    )


def license_of(results: dict) -> dict[str, str]:
    """
    The licence of the weights: that of the data where it is an open one and nothing else went into them. Else nobody
    has decided, and the card sends its readers to the sources.
    """
    license = results["data"]["license"]
    if license in OPEN_LICENCES and results["training"]["model"] is None:
        return {"license": license}
    return {"license": "other", "license_name": "see-training-data"}


def make_widget(examples: Sequence[Example], shown: list[list[dict]] | None) -> list[dict]:
    """The widget's examples in the Hub's format, grouped by language."""
    outputs = shown or [None] * len(examples)
    return [
        {
            "src": example.file,
            "candidate_labels": ", ".join(example.labels),
            "example_title": f"{example.right} ({example.language})",
            "group": example.language,
            "parameters": {"hypothesis_template": example.template},
        }
        | ({"output": [{"label": one["label"], "score": round(one["score"], 4)} for one in output]} if output else {})
        for example, output in zip(examples, outputs, strict=True)
    ]


def own_tables(results: dict) -> dict[str, str]:
    """The run's tables in Markdown by title, with the floor of the model before training in the first."""
    tables = figure_tables(results["figures"])
    header, rows = next(iter(tables.values()))
    metrics = {title: metric for metric, title in COLUMNS.items()}
    floor = [mean_over_languages(results["untrained"], metrics[title]) for title in header[1:]]
    rows.insert(len(rows) - 1, ["untrained", *("–" if value is None else f"{value:.1f}" for value in floor)])
    return {title: in_one_line(as_markdown(*table)) for title, table in tables.items()}


def in_one_line(table: str) -> str:
    """A table in Markdown whose intervals are not broken into two lines."""
    return re.sub(r" (\(-?[\d.]+–)(?=-?[\d.]+\))", r"&nbsp;\1&NoBreak;", table)


def further_tables(evaluation: Evaluation, own: Evaluation, told: set[tuple]) -> dict[str, str]:
    """The tables of another evaluation; of the run's own split only what the run did not measure."""
    same = (evaluation.dataset, evaluation.split) == (own.dataset, own.split)
    records = [
        record
        for record in evaluation.figures
        if not (same and (record["metric"], record["language"], record.get("to")) in told)
        or (record["metric"].startswith("zero_shot_") and evaluation.prompts != own.prompts)
    ]
    return {title: in_one_line(as_markdown(*table)) for title, table in figure_tables(records).items()}


def hyperparameters(training: dict) -> str:
    """The settings that a reader looks for, as a table in Markdown."""
    without = () if training["self_distillation_weight"] else SELF_DISTILLATION
    told = {name: training[name] for name in HYPERPARAMETERS if name not in without and training[name] is not None}
    rows = [[HYPERPARAMETERS[name], f"{value}"] for name, value in told.items()]
    return as_markdown(["setting", "value"], rows)


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def energy(kwh: Sequence[float]) -> str:
    """A range of energy in a unit that gives it few digits."""
    if kwh[1] < 1e-5:
        return "less than 0.01 Wh"
    unit, factor = ("kWh", 1) if kwh[1] >= 1 else ("Wh", 1000)
    return (
        " to ".join(f"{value * factor:.2g}" if value * factor < 10 else f"{value * factor:,.0f}" for value in kwh)
        + f" {unit}"
    )


def check_card(card: ModelCard, index: list[EvalResult], name: str) -> None:
    """Raises `ValueError` unless the metadata reads back from the card's text as it was meant."""
    data = ModelCard(str(card)).data
    unread = {(entry.metric_name, entry.dataset_name, entry.dataset_split): entry for entry in data.eval_results}
    for entry in index:
        key = (entry.metric_name, entry.dataset_name, entry.dataset_split)
        if unread.get(key) != replace(entry, source_name=None):
            raise ValueError(f"the card's model-index does not read back: {key} is {unread.get(key)}")
    if data.model_name != name or len(data.eval_results) != len(index):
        raise ValueError("the card's model-index does not read back: it has other entries")
