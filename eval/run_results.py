"""The file `eval_results.json` of a training run. The training script writes it; the model card shows it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Self, get_type_hints

from datasets import Dataset

from rsmclip.core.errors import UserError
from rsmclip.core.files import has_type, read_json, write_whole
from rsmclip.data.schema import hub_revision
from rsmclip.eval.cache import corpus_fingerprint, fingerprint
from rsmclip.eval.evaluate import metrics_by_language
from rsmclip.eval.intervals import figures
from rsmclip.eval.outcomes import Outcomes, class_recalls
from rsmclip.eval.protocol import Benchmark
from rsmclip.eval.tasks import Task

FILE_NAME = "eval_results.json"


class Results:
    """Base of dataclasses that are the content of `eval_results.json`."""

    def write(self, folder: Path) -> None:
        """Write `eval_results.json` into a folder."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        write_whole(folder / FILE_NAME, text + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `eval_results.json` from a folder. Raises [`UserError`] if a field is missing or of another type."""
        return cls.from_fields(read_json(folder / FILE_NAME), folder)

    @classmethod
    def from_fields(cls, recorded: dict, folder: Path) -> Self:
        """Build the dataclass from the fields of a file. Raises [`UserError`] if one is missing or of another type."""
        specs = {spec.name: spec for spec in dataclasses.fields(cls)}
        required = [n for n, spec in specs.items() if spec.default is MISSING and spec.default_factory is MISSING]
        if missing := [name for name in required if name not in recorded]:
            raise UserError(
                f"{folder / FILE_NAME} lacks {', '.join(missing)}: another command or an older version wrote it; "
                "train or evaluate again"
            )
        for name, expected in get_type_hints(cls).items():
            if name in recorded and not has_type(recorded[name], expected):
                raise UserError(
                    f"{folder / FILE_NAME}: {name} is not of type {getattr(expected, '__name__', expected)}"
                )
        return cls(**{name: recorded[name] for name in specs if name in recorded})


@dataclass(kw_only=True)
class RunResults(Results):
    """Metrics of a finished training run on its test split, and the settings of the run."""

    dataset: str  # "demo", the name of a folder, or a Hub id
    split: str  # that was evaluated
    revision: str | None  # commit of a dataset on the Hub
    fingerprint: str  # hash of the images and captions of the split
    images: int  # in the split
    train_images: int
    classes: int  # of the zero-shot columns; 0 without a benchmark
    prompts: str | None  # name of the prompt set
    languages: list[str]
    metrics: dict[str, dict[str, float]]  # by language, in percent
    figures: list[dict]  # every figure with its interval, from eval/intervals.py `figures`
    class_recall: dict[str, dict]  # from eval/outcomes.py `class_recalls`
    untrained: dict[str, dict[str, float]]  # `metrics` of the model before training
    seconds: float  # of training, without evaluations
    pairs_per_second: float  # images per second
    undecodable_images: list[str]  # ids of training images
    device: str  # hardware
    mixed_precision: str  # "no", "bf16" or "fp16"
    base_model: str | None  # Hub id of the model that the run started from
    base_revision: str | None  # its commit
    model: dict[str, int]  # from models/folder.py `model_sizes`
    data: dict  # from data/card.py `recorded_facts`
    examples: dict  # from hub/examples.py `write_examples`: pictures in the folder
    command: str  # that repeats the run
    hyperparameters: list[list[str]]  # settings that the card shows: pairs of name and value
    training: dict  # every setting of the run
    # Of newer versions.
    benchmarks: dict[str, dict] = field(default_factory=dict)  # `benchmark_fields` of folders of images, by name
    kept: dict = field(default_factory=dict)  # step that became the model, its figure; empty: the last step


def measured_fields(
    rows: Dataset, outcomes: Outcomes, languages: Sequence[str], benchmark: Benchmark | None
) -> dict[str, object]:
    """Return the fields of [`RunResults`] that depend only on the evaluated split."""
    captions = list(rows["captions"])
    texts = [text for language in languages for row in captions for text in row.get(language) or [] if text]
    return {
        "revision": hub_revision(rows),
        "fingerprint": corpus_fingerprint(rows, texts),
        "images": len(rows),
        "classes": len(benchmark.labels) if benchmark else 0,
        "prompts": benchmark.prompts if benchmark else None,
        "languages": list(languages),
        "metrics": metrics_by_language(outcomes),
        "figures": figures(outcomes),
        "class_recall": class_recalls(outcomes.zero_shot),
    }


def benchmark_fields(task: Task, outcomes: Outcomes, untrained: dict[str, dict[str, float]]) -> dict[str, object]:
    """Return what the results of a run record of a folder of images. `untrained`: metrics before training."""
    return {
        "images": len(task.rows),
        "fingerprint": fingerprint(task.rows),
        "prompts": task.benchmark.prompts,
        "notes": task.notes,
        "metrics": metrics_by_language(outcomes),
        "figures": figures(outcomes),
        "untrained": untrained,
    }
