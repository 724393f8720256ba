"""The evaluations that a card shows, and the `model-index` of their figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import EvalResult

from rsmclip.core.errors import UserError
from rsmclip.eval.results import EvalResults

SAME = 0.1  # percentage points by which another batch size may change a figure


@dataclass(frozen=True)
class Evaluation:
    """Figures of one dataset."""

    dataset: str  # name, or id on the Hub
    split: str | None  # None for a folder of images
    rows: int
    figures: list[dict]  # from eval/intervals.py `figures`
    fingerprint: str | None = None  # hash of the images and captions
    revision: str | None = None  # commit of a dataset on the Hub
    prompts: str | None = None  # name of the prompt set
    notes: list[str] = field(default_factory=list)  # remarks that a reader of the figures needs
    date: str | None = None  # of the evaluation; None for one of the training run
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)  # metrics before training by language


def read_evaluations(folder: Path, model_hash: str) -> list[Evaluation]:
    """Read the output folder of `rsmclip eval MODEL`; results of a model with another hash are a [`UserError`]."""
    results = EvalResults.read(folder)
    if results.model_hash != model_hash:
        raise UserError(
            f"{folder} has the evaluation of {results.model}, whose weights differ from the weights of this model"
        )
    found = []
    for name, facts in results.datasets.items():
        dataset = name  # a folder of images; a corpus has its id on the Hub or the name of its folder
        if name == "corpus":
            dataset = facts.dataset if facts.revision else Path(facts.dataset).resolve().name
        evaluation = Evaluation(
            dataset=dataset,
            split=facts.split,
            rows=facts.rows,
            figures=results.figures_of(name),
            fingerprint=facts.fingerprint,
            revision=facts.revision,
            prompts=facts.prompts,
            notes=[*facts.notes, *(["Captions begin with a capital letter."] if facts.capitalize else [])],
            date=results.date,
        )
        found.append(evaluation)
    return found


def model_index(evaluations: Sequence[Evaluation]) -> list[EvalResult]:
    """
    Return every retrieval and zero-shot figure once. If two evaluations have the same figure, the first counts.

    Raises:
        [`UserError`]: Two datasets have the same name and split but different figures.
    """
    found: dict[tuple, EvalResult] = {}
    for evaluation in evaluations:
        for entry in index_entries(evaluation):
            first = found.setdefault((*entry.unique_identifier, entry.metric_type), entry)
            # Fingerprints also differ if other languages were evaluated, so the values must differ too.
            if first.dataset_args != entry.dataset_args and abs(first.metric_value - entry.metric_value) > SAME:
                raise UserError(
                    f"two evaluations of {entry.dataset_name}, split {entry.dataset_split}, differ in "
                    f"{entry.metric_name}: {first.metric_value:.1f} and {entry.metric_value:.1f}. Leave one out if "
                    "captions, languages or prompts differ; rename the folder of one if the images differ"
                )
    return list(found.values())


def index_entries(evaluation: Evaluation) -> Iterator[EvalResult]:
    # The language is the dataset configuration.
    for record in evaluation.figures:
        metric, language = record["metric"], record["language"]
        # Probes have no language. The Hub has no task for text-to-text figures.
        if language is None or "to" in record or (language == "mean" and metric.startswith("text_to_text")):
            continue
        zero_shot = metric.startswith(("zero_shot_", "transductive_"))
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
