"""The evaluations that a card tells of, and the `model-index` of their figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import EvalResult

from rsmclip.core.files import read_json

SAME = 0.1  # percentage points: the same images in batches of another size


@dataclass(frozen=True)
class Evaluation:
    """
    Figures of one dataset.

    Args:
        dataset (`str`): Its name, or its id on the Hub.
        split (`str`, *optional*): Its split; `None` of a folder of images.
        rows (`int`): Its images.
        figures (`list[dict]`): What [`~rsmclip.eval.intervals.figures`] gave.
        fingerprint (`str`, *optional*): Hash of its images and captions.
        revision (`str`, *optional*): Commit of a dataset on the Hub.
        prompts (`str`, *optional*): Name of the set of hypothesis templates.
        notes (`list[str]`): What a reader has to know.
        date (`str`, *optional*): Day of the evaluation.
    """

    dataset: str
    split: str | None
    rows: int
    figures: list[dict]
    fingerprint: str | None = None
    revision: str | None = None
    prompts: str | None = None
    notes: list[str] = field(default_factory=list)
    date: str | None = None


def own_evaluation(results: dict) -> Evaluation:
    """The final evaluation of a run, of which its `eval_results.json` tells."""
    found = {name: results[name] for name in ("dataset", "split", "figures", "fingerprint", "revision")}
    return Evaluation(rows=results["images"], prompts=results["prompts"], **found)


def read_evaluations(folder: Path, model_hash: str) -> list[Evaluation]:
    """
    What `python -m rsmclip.eval MODEL … --output` left in a folder.

    Args:
        folder (`Path`): The folder.
        model_hash (`str`): Hash of the model that the card is of.

    Raises:
        `ValueError`: There are no results, or they are of another model.
    """
    results = read_json(folder / "eval_results.json")
    if missing := [name for name in ("model_hash", "datasets", "figures", "date") if name not in results]:
        raise ValueError(f"{folder} was not written by python -m rsmclip.eval: its results lack {missing[0]}")
    if results["model_hash"] != model_hash:
        raise ValueError(f"{folder} holds the evaluation of {results['model']}, which has other weights than this one")
    found = []
    for name, facts in results["datasets"].items():
        figures = [record for record in results["figures"] if record["dataset"] == name]
        notes = [*facts["notes"], *(["Captions begin with a capital letter."] if facts["capitalize"] else [])]
        revision = facts["revision"]  # of a dataset on the Hub; any other is a folder
        dataset = name if name != "corpus" else facts["dataset"] if revision else Path(facts["dataset"]).resolve().name
        more = (facts["fingerprint"], revision, facts["prompts"], notes, results["date"])
        found.append(Evaluation(dataset, facts["split"], facts["rows"], figures, *more))
    return found


def model_index(evaluations: Sequence[Evaluation]) -> list[EvalResult]:
    """
    Every figure of retrieval and zero-shot classification, each once: where two are of the same, the first.

    Raises:
        `ValueError`: Two datasets of one name and split differ.
    """
    found: dict[tuple, EvalResult] = {}
    for evaluation in evaluations:
        for entry in index_entries(evaluation):
            first = found.setdefault((*entry.unique_identifier, entry.metric_type), entry)
            # A fingerprint is also of the captions, which differ where fewer languages were evaluated.
            if first.dataset_args != entry.dataset_args and abs(first.metric_value - entry.metric_value) > SAME:
                raise ValueError(
                    f"two evaluations of {entry.dataset_name}, split {entry.dataset_split}, are of different images; "
                    "rename the folder of one"
                )
    return list(found.values())


def index_entries(evaluation: Evaluation) -> Iterator[EvalResult]:
    """An evaluation's figures as entries of the `model-index`; the language is the dataset's configuration."""
    for record in evaluation.figures:
        metric, language = record["metric"], record["language"]
        if language is None or "to" in record or (language == "mean" and metric.startswith("text_to_text")):
            continue  # a probe, or a sentence and its translation
        zero_shot = metric.startswith("zero_shot_")
        yield EvalResult(
            task_type="zero-shot-image-classification" if zero_shot else "image-text-retrieval",
            task_name="zero-shot classification" if zero_shot else "cross-modal retrieval",
            dataset_type=evaluation.dataset,
            dataset_name=evaluation.dataset,
            dataset_config=language,
            dataset_split=evaluation.split,
            dataset_revision=evaluation.revision,
            dataset_args={"fingerprint": evaluation.fingerprint} if evaluation.fingerprint else None,
            metric_type=metric.removeprefix("zero_shot_"),
            metric_name=f"{metric} ({language})",
            metric_value=round(record["value"], 4),
        )
