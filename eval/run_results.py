"""What a training run records in `eval_results.json`: the one type that writes the file and reads it back.

The training script fills it, the model card shows it.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from rsmclip.core.errors import UserError
from rsmclip.core.files import read_json, write_whole
from rsmclip.data.schema import hub_revision
from rsmclip.eval.cache import corpus_fingerprint
from rsmclip.eval.evaluate import metrics_by_language
from rsmclip.eval.intervals import figures
from rsmclip.eval.outcomes import Outcomes, class_recalls
from rsmclip.eval.protocol import Benchmark

FILE_NAME = "eval_results.json"


@dataclass(kw_only=True)
class RunResults:
    """
    Figures of a finished training run on its test split, and what they were obtained with.

    Args:
        dataset (`str`): Corpus: `"demo"`, the name of a folder, or a Hub id.
        split (`str`): Split that was evaluated.
        revision (`str`, *optional*): Commit of a dataset on the Hub.
        fingerprint (`str`): Hash of the images and captions of the split.
        images (`int`): Images of the split.
        train_images (`int`): Images that were trained on.
        classes (`int`): Classes of the zero-shot columns; 0 without a benchmark.
        prompts (`str`, *optional*): Name of the prompt set.
        languages (`list[str]`): Language codes.
        metrics (`dict[str, dict[str, float]]`): By language, in percent.
        figures (`list[dict]`): [`~rsmclip.eval.intervals.figures`]: every figure with its interval.
        class_recall (`dict[str, dict]`): [`~rsmclip.eval.outcomes.class_recalls`].
        untrained (`dict[str, dict[str, float]]`): `metrics` of the model before training.
        seconds (`float`): Training time, without evaluations.
        pairs_per_second (`float`): Images a second.
        undecodable_images (`list[str]`): Ids of training images that could not be decoded.
        device (`str`): Hardware.
        mixed_precision (`str`): `"no"`, `"bf16"` or `"fp16"`.
        base_model (`str`, *optional*): Hub id of the model that the run started from.
        base_revision (`str`, *optional*): Commit of `base_model`.
        model (`dict[str, int]`): [`~rsmclip.models.folder.model_sizes`].
        data (`dict`): [`~rsmclip.data.card.recorded_facts`] of the corpus.
        examples (`dict`): [`~rsmclip.hub.examples.write_examples`]: pictures in the folder.
        command (`str`): Command that repeats the run.
        hyperparameters (`list[list[str]]`): The settings that the card shows: pairs of name and value.
        training (`dict`): Every setting of the run.
    """

    dataset: str
    split: str
    revision: str | None
    fingerprint: str
    images: int
    train_images: int
    classes: int
    prompts: str | None
    languages: list[str]
    metrics: dict[str, dict[str, float]]
    figures: list[dict]
    class_recall: dict[str, dict]
    untrained: dict[str, dict[str, float]]
    seconds: float
    pairs_per_second: float
    undecodable_images: list[str]
    device: str
    mixed_precision: str
    base_model: str | None
    base_revision: str | None
    model: dict[str, int]
    data: dict
    examples: dict
    command: str
    hyperparameters: list[list[str]]
    training: dict

    def write(self, folder: Path) -> None:
        """Write `eval_results.json` into a folder."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        write_whole(folder / FILE_NAME, text + "\n")

    @classmethod
    def read(cls, folder: Path) -> "RunResults":
        """
        Read `eval_results.json` of a run's folder.

        Raises:
            [`UserError`]: There is no such file, or a field is missing in it.
        """
        recorded = read_json(folder / FILE_NAME)
        names = [spec.name for spec in dataclasses.fields(cls)]
        if missing := [name for name in names if name not in recorded]:
            raise UserError(
                f"{folder / FILE_NAME} lacks {', '.join(missing)}: an older version of this code wrote it; train again"
            )
        return cls(**{name: recorded[name] for name in names})


def measured_fields(
    rows: Dataset, outcomes: Outcomes, languages: Sequence[str], benchmark: Benchmark | None
) -> dict[str, object]:
    """
    Return the fields of [`RunResults`] that depend on the evaluated split alone.

    Args:
        rows (`datasets.Dataset`): The split.
        outcomes ([`~rsmclip.eval.outcomes.Outcomes`]): What the model did with each image.
        languages (`Sequence[str]`): Language codes.
        benchmark ([`~rsmclip.eval.protocol.Benchmark`], *optional*): Classes of the zero-shot columns.
    """
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
