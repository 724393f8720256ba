"""What a training run leaves: the model, results, training curve, examples and card."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rsmclip.core.errors import UserError
from rsmclip.core.files import is_local, published_name
from rsmclip.data.card import recorded_facts
from rsmclip.eval import report, run_results
from rsmclip.eval.outcomes import Outcomes
from rsmclip.eval.tasks import CORPUS
from rsmclip.hub import card, examples
from rsmclip.models import folder as model_folder
from rsmclip.training import adapter as lora
from rsmclip.training import curve, loading, processes, run_folder
from rsmclip.training.best import Metrics
from rsmclip.training.log import TrainingLog

if TYPE_CHECKING:
    from rsmclip.train import Run

FULL_DISK = re.compile("No space left|File too large|Disk quota exceeded")


@contextmanager
def says_how_to_continue() -> Iterator[None]:
    """Add the way on to a [`UserError`] about a full disk: the last checkpoint is written. Also a decorator."""
    try:
        yield
    except UserError as error:
        if not FULL_DISK.search(str(error)):
            raise
        advice = "the last checkpoint is intact: free space and add --resume_from_checkpoint latest"
        raise UserError(f"{error}; {advice}") from error


def save_model(run: "Run", folder: Path) -> None:
    """Save the model folder. A run with an adapter saves the adapter alone, or the merged model with merge_adapter."""
    model = processes.whole_model(run.model, run.student, run.accelerator)
    if not run.accelerator.is_main_process:
        return
    if run.adapter is not None:
        if not run.config.merge_adapter:
            return lora.save_adapter(run.adapter, run.processor, folder)
        model = lora.merged(run.adapter)
    model_folder.save_model_folder(model, run.processor, folder, run.config.keep_self_distillation_head)


def write(run: "Run", outcomes: dict[str, Outcomes], untrained: Metrics, log: TrainingLog) -> run_results.RunResults:
    """
    Write results, training curve, examples and card into the folder of a run, print the tables, and push the folder if
    the run pushes. Rank 0 calls it.

    Args:
        run (`Run`): The run. Its model is already in the folder.
        outcomes (`dict[str, Outcomes]`): Outcomes of the model by dataset.
        untrained (`dict`): Metrics before training by dataset, empty if they were not measured.
        log ([`TrainingLog`]): The closed log.
    """
    config, folder = run.config, Path(run.config.output_dir)
    results = describe(run, outcomes, untrained, log)
    names = run.tasks.benchmark.name if run.tasks.benchmark else None
    results.examples = examples.write_examples(folder, run.splits["test"], names, results.data["license"])
    results.write(folder)
    start = {name: found["untrained"] for name, found in results.benchmarks.items()}
    curve.draw_training_curve(log.path, folder / model_folder.TRAINING_CURVE, results.kept.get("step"), start)
    print(f"\n{config.dataset}, split {config.test_split}: {results.images} images, in percent\n")
    print(report.as_text(*report.result_table(results.metrics, results.untrained)))
    for name, found in results.benchmarks.items():
        print(f"\n{name}: {found['images']} images, in percent\n")
        print(report.as_text(*report.result_table(found["metrics"], found["untrained"])))
    card.write_card(folder)
    if results.kept:
        print(
            "\nthe model is that of step {step} of {last_step}, with the highest {figure}: {value:.1f}".format(
                **results.kept
            )
        )
    print(f"\nmodel, card and results: {folder}")
    if run.upload is not None:
        run.upload.finish()
    return results


def describe(
    run: "Run", outcomes: dict[str, Outcomes], untrained: Metrics, log: TrainingLog
) -> run_results.RunResults:
    """Collect the results of a run."""
    config, accelerator = run.config, run.accelerator
    measured = run_results.measured_fields(
        run.splits["test"], outcomes[CORPUS], run.tasks.languages, run.tasks.benchmark
    )
    benchmarks = {
        task.name: run_results.benchmark_fields(task, outcomes[task.name], untrained.get(task.name, {}))
        for task in run.tasks.folders
    }
    base_model = config.model if config.model and not is_local(config.model) else None
    return run_results.RunResults(
        **measured,
        dataset=published_name(config.dataset),
        split=config.test_split,
        train_images=len(run.splits["train"]),
        untrained=untrained.get(CORPUS, {}),
        benchmarks=benchmarks,
        kept=log.best.describe(config.best_figure, run.step) if log.best else {},
        seconds=log.seconds,
        pairs_per_second=log.pairs_per_second,
        undecodable_images=sorted(log.undecodable),
        device=processes.describe_device(accelerator),
        mixed_precision=accelerator.mixed_precision,
        base_model=base_model,
        base_revision=model_folder.fetched_revision(base_model) if base_model else None,
        model=run.sizes,
        data=recorded_facts(loading.corpus_place(config), measured["revision"]),
        examples={},
        command=processes.rerun_command(config, accelerator),
        hyperparameters=config.card_rows(),
        training=dataclasses.asdict(run_folder.published_config(config)),
    )
