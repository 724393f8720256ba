"""The model card, `README.md`: written from the results of a training run and of further evaluations.

Every figure comes from a results file. The output below a snippet is what the snippet printed.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import read_json
from rsmclip.eval.models import load_embedder
from rsmclip.eval.plots import recall_by_language
from rsmclip.eval.report import COLUMNS, as_markdown, figure_tables, mean_over_languages
from rsmclip.eval.run_results import RunResults
from rsmclip.hub.evaluations import Evaluation, model_index, read_evaluations
from rsmclip.hub.examples import OPEN_LICENSES
from rsmclip.hub.limits import limits, not_measured
from rsmclip.hub.snippets import Example, make_examples, make_snippets, run_snippets
from rsmclip.models.folder import LANGUAGE_PLOT, LOWEST_TRANSFORMERS, TRAINING_CURVE

TEMPLATE = Path(__file__).parent / "card_template.md.jinja"


def write_card(folder: Path, evaluations: Sequence[Path] = (), run_examples: bool = False) -> None:
    """
    Write the card of a training run, and the plot of recall by language.

    Args:
        folder (`Path`): Folder of the run: a model or an adapter, `eval_results.json`, and pictures in `examples/`.
        evaluations (`Sequence[Path]`, *optional*): Outputs of `rsmclip eval` for this model.
        run_examples (`bool`, *optional*, defaults to `False`): Whether to run the code snippets and the examples of
            the widget, and show their output.

    Raises:
        [`UserError`]: A result or file is missing, an evaluation is of another model, or a snippet fails.
    """
    results, name = RunResults.read(folder), folder.resolve().name
    needed = [TRAINING_CURVE, "train_log.jsonl", "training_config.yaml", *results.examples["labels"]]
    if absent := [file for file in needed if not (folder / file).is_file()]:
        raise UserError(f"{folder} lacks {', '.join(absent)}, which the card shows or names")
    fields = ("dataset", "split", "figures", "fingerprint", "revision", "prompts", "untrained")
    own = Evaluation(rows=results.images, **{field: getattr(results, field) for field in fields})
    further = read_further(folder, evaluations, own)
    further = [*run_benchmarks(results, {found.fingerprint for found in further}), *further]
    # Code and its output.
    base = base_of(folder)
    examples = make_examples(results.examples, results.languages)
    codes = make_snippets(
        examples, is_adapter=base is not None, base=results.base_model, base_revision=results.base_revision
    )
    outputs, scores = run_snippets(codes, examples, folder, base) if run_examples else ({}, None)
    # Plot and card.
    index = model_index([own, *further])
    metadata = make_metadata(results, name, index, make_widget(examples, scores), is_adapter=base is not None)
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        name=name,
        results=results,
        adapter=base is not None,
        license=metadata.license,
        codes=codes,
        outputs=outputs,
        examples=list(zip(examples, scores, strict=True)) if scores else [],
        tables=tables_of(own, own.figures),
        further=[(each, further_tables(each, own)) for each in further],
        limits=limits(results),
        not_measured=not_measured(results, further),
        has_zero_shot=any(record["metric"] == "zero_shot_accuracy" for record in own.figures),
        duration=duration(results.seconds),
        hyperparameters=as_markdown(["setting", "value"], results.hyperparameters),
        language_plot=LANGUAGE_PLOT,
        training_curve=TRAINING_CURVE,
        lowest_transformers=LOWEST_TRANSFORMERS,
    )
    by_language = [record for record in own.figures if record["language"] in results.languages and "to" not in record]
    with user_errors(OSError):
        save(recall_by_language(by_language, name), folder / LANGUAGE_PLOT)
        card.save(folder / "README.md")


def read_further(folder: Path, evaluations: Sequence[Path], own: Evaluation) -> list[Evaluation]:
    if not evaluations:  # loading the model for its hash takes time
        return []
    model_hash = load_embedder(str(folder), device="cpu").hash
    further = [found for place in evaluations for found in read_evaluations(place, model_hash)]
    # Results on the images of the run may have another name: give them the name that the run uses.
    same = {"dataset": own.dataset, "split": own.split, "revision": own.revision}
    return [replace(found, **same) if found.fingerprint == own.fingerprint else found for found in further]


def run_benchmarks(results: RunResults, known: set[str]) -> list[Evaluation]:
    # The folders of images that the run has measured. `known`: fingerprints of those that were evaluated again.
    fields = ("figures", "fingerprint", "prompts", "notes", "untrained")
    return [
        Evaluation(dataset=name, split=None, rows=found["images"], **{field: found[field] for field in fields})
        for name, found in results.benchmarks.items()
        if found["fingerprint"] not in known
    ]


def base_of(folder: Path) -> str | None:
    # Folder or Hub id of the model that an adapter changes.
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    base = read_json(path).get("base_model_name_or_path")
    if not isinstance(base, str):
        raise UserError(f"{path} has no base_model_name_or_path")
    return str(Path(base).resolve()) if Path(base).is_dir() else base


def make_metadata(
    results: RunResults, name: str, index: list[EvalResult], widget: list[dict], is_adapter: bool
) -> ModelCardData:
    several = ["multilingual"] if len(results.training["languages"]) > 1 else []
    kinds = ["accuracy"] if any(entry.metric_type == "accuracy" for entry in index) else []
    more = {"base_model_relation": "adapter" if is_adapter else "finetune"} if results.base_model else {}
    return ModelCardData(
        language=results.training["languages"],
        **license_of(results),
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=["remote-sensing", "clip", *several, "image-text-retrieval", "custom_code"],
        base_model=results.base_model,
        datasets=[results.dataset] if "/" in results.dataset else None,
        metrics=["recall", *kinds],
        model_name=name,
        eval_results=index,
        widget=widget,
        **more,
    )


def license_of(results: RunResults) -> dict[str, str]:
    # The weights get the license of the data if it is open and the run began with random weights. Otherwise nobody
    # has chosen a license, and the card refers its readers to the sources.
    license, training = results.data["license"], results.training
    if license in OPEN_LICENSES and training["model"] is None and training.get("image_tower") is None:
        return {"license": license}
    return {"license": "other", "license_name": "see-training-data"}


def make_widget(examples: Sequence[Example], scores: list[list[dict]] | None) -> list[dict]:
    widget = [
        {
            "src": example.file,
            "candidate_labels": ", ".join(example.labels),
            "example_title": f"{example.right} ({example.language})",
            "group": example.language,
            "parameters": {"hypothesis_template": example.template},
        }
        for example in examples
    ]
    for shown, found in zip(widget, scores or [], strict=scores is not None):
        shown["output"] = [{"label": one["label"], "score": round(one["score"], 4)} for one in found]
    return widget


def tables_of(evaluation: Evaluation, records: list[dict]) -> dict[str, str]:
    # The first table gets a row for the model before training, if that was measured.
    tables, untrained = figure_tables(records), evaluation.untrained
    if tables and untrained:
        header, rows = next(iter(tables.values()))
        metrics = {title: metric for metric, title in COLUMNS.items()}
        floor = [mean_over_languages(untrained, metrics[title]) for title in header[1:]]
        rows.insert(len(rows) - 1, ["start", *("–" if value is None else f"{value:.1f}" for value in floor)])
    return {title: unbroken(as_markdown(*table)) for title, table in tables.items()}


def unbroken(table: str) -> str:
    # Prevent line breaks within an interval.
    return re.sub(r" (\(-?[\d.]+–)(?=-?[\d.]+\))", r"&nbsp;\1&NoBreak;", table)


def further_tables(evaluation: Evaluation, own: Evaluation) -> dict[str, str]:
    # Omit figures of the run's own split that the run has measured itself.
    shown = {(record["metric"], record["language"], record.get("to")) for record in own.figures}
    same = (evaluation.dataset, evaluation.split) == (own.dataset, own.split)
    records = [
        record
        for record in evaluation.figures
        if not (same and (record["metric"], record["language"], record.get("to")) in shown)
        or (record["metric"].startswith("zero_shot_") and evaluation.prompts != own.prompts)
    ]
    return tables_of(evaluation, records)


def duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
