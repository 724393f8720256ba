"""The training step in one process: schedules, skipped steps, frozen prototypes, adapters."""

import json
import re
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from transformers import get_cosine_schedule_with_warmup

from rsmclip import train
from rsmclip.core.errors import UserError
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.training import schedules
from rsmclip.training.config import TrainingConfig
from rsmclip.training.log import TrainingLog
from rsmclip.training.optimizer import learning_rates
from tests.conftest import TINY_RUN


@pytest.fixture
def make_run(corpus_folder, tmp_path):
    """Start runs of the tiny model on the tiny corpus."""
    threads = torch.get_num_threads()

    def start(**fields) -> train.Run:
        AcceleratorState._reset_state(True)
        steps = {"max_train_steps": 12, "warmup_steps": 0, "checkpoint_steps": 100, "num_workers": 0}
        folders = {"dataset": str(corpus_folder), "output_dir": str(tmp_path / "run"), "overwrite_output_dir": True}
        config = TrainingConfig(**TINY_RUN | steps | folders | fields)
        run = train.start(train.plan(config))
        run.student.train()
        return run

    yield start
    torch.set_num_threads(threads)


def steps(run: train.Run, count: int, spoil: int | None = None) -> list[dict[str, torch.Tensor]]:
    """Do the first steps and return their scalars. The pixels of step `spoil` become NaN."""
    scalars = []
    for step, batch in zip(range(count), train.make_batches(run, 0), strict=False):
        if step == spoil:
            batch["pixels"] = batch["pixels"].float() * torch.nan
        scalars.append(train.training_step(run, batch, step))
    return scalars


def weights(run: train.Run) -> dict[str, torch.Tensor]:
    """Return a copy of the student's and the teacher's weights."""
    values = dict(run.model.state_dict())
    if run.teacher is not None:
        values |= {f"teacher.{name}": value for name, value in run.teacher.state_dict().items()}
    return {name: value.clone() for name, value in values.items()}


def test_chunks_train_as_the_whole_batch_does(make_run):
    whole, parts = make_run(), make_run(gradient_accumulation_chunks=3, loss_chunk_size=5)
    for one, other in zip(steps(whole, 3), steps(parts, 3), strict=True):
        assert one["loss"].item() == pytest.approx(other["loss"].item(), abs=1e-5)
        assert one["gradient_norm"].item() == pytest.approx(other["gradient_norm"].item(), rel=1e-4)
        assert one["kl"].item() == pytest.approx(other["kl"].item(), abs=1e-4) and one["kl"] > 0


def test_a_bad_batch_changes_neither_student_nor_teacher_nor_center(make_run):
    run = make_run(teacher_momentum=1.0)
    steps(run, 1)
    before, center = weights(run), run.centering.center.clone()
    scalars = steps(run, 1, spoil=0)[0]
    assert scalars["skipped"] == 1 and scalars["loss"].isnan()
    after = weights(run)
    assert all(before[name].equal(after[name]) for name in before) and center.equal(run.centering.center)
    assert steps(run, 2)[1]["skipped"] == 0
    assert all(value.isfinite().all() for value in weights(run).values())


def test_prototypes_are_frozen_at_first(make_run):
    run = make_run(freeze_prototypes_steps=2)
    prototypes = run.model.self_distillation_head.prototypes.weight
    before, mlp = prototypes.clone(), run.model.self_distillation_head.mlp[0].weight.clone()
    steps(run, 2)
    assert prototypes.equal(before) and not run.model.self_distillation_head.mlp[0].weight.equal(mlp)
    steps(run, 3)
    assert not prototypes.equal(before)


def test_schedules_are_those_of_the_papers():
    config = TrainingConfig(max_train_steps=100, teacher_momentum=0.99, final_teacher_momentum=1.0)
    momenta = [schedules.teacher_momentum(config, step) for step in (0, 50, 100)]
    assert momenta == pytest.approx([0.99, 0.995, 1.0])  # DINO: cosine to 1
    assert schedules.teacher_momentum(TrainingConfig(teacher_momentum=0.99), 70) == 0.99  # SILC: fixed
    temperatures = [schedules.teacher_temperature(config, step) for step in (0, 15, 30, 99)]
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07])
    warm = TrainingConfig(self_distillation_weight=0.5, self_distillation_warmup_steps=10)
    assert [schedules.distillation_weight(warm, step) for step in (0, 4, 9, 50)] == pytest.approx(
        [0.05, 0.25, 0.5, 0.5]
    )
    assert schedules.distillation_weight(config, 0) == 1.0


def test_the_learning_rate_starts_above_0_and_is_the_cosine_of_transformers_after_the_warm_up():
    for warmup in (0, 1, 4, 10):
        config = TrainingConfig(max_train_steps=10, warmup_steps=warmup)
        factors = [schedules.learning_rate_factor(config, step) for step in range(10)]
        assert factors[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
        optimizer = torch.optim.SGD([torch.zeros(())], lr=1.0)
        expected = get_cosine_schedule_with_warmup(optimizer, warmup, 10).lr_lambdas[0]
        assert factors[warmup:] == pytest.approx([expected(step) for step in range(warmup, 10)])
        assert warmup > 0 or factors[0] == 1
    assert schedules.learning_rate_factor(TrainingConfig(max_train_steps=10, warmup_steps=4), 10) == 0


def test_frozen_parts_do_not_move(make_run):
    run = make_run(freeze="^text_model", freeze_word_embeddings=True)
    before = weights(run)
    steps(run, 2)
    moved = {name for name, value in weights(run).items() if not value.equal(before[name])}
    assert "visual_projection.weight" in moved and not any(name.startswith("text_model") for name in moved)


def test_sinkhorn_knopp_english_anchor_and_no_duplicates_train(make_run):
    choices = {"centering": "sinkhorn_knopp", "language_sampling": "english_anchor", "duplicate_captions": "ignore"}
    run = make_run(**choices, captions_per_image=3, num_global_views=1)
    scalars = steps(run, 3)
    assert all(value["loss"].isfinite() and value["skipped"] == 0 for value in scalars)
    assert not run.centering.center.any()  # Sinkhorn-Knopp has no center


@pytest.mark.parametrize("weight", [0, 1])
def test_a_step_with_contrastive_views_trains(make_run, weight):
    run = make_run(num_contrastive_views=1, self_distillation_weight=weight)
    assert ("global" in run.view_specs) == (weight > 0)
    assert all(value["loss"].isfinite() and value["skipped"] == 0 for value in steps(run, 2))


def test_the_contrastive_views_of_a_run_do_not_depend_on_the_self_distillation(make_run):
    runs = [make_run(num_contrastive_views=1, self_distillation_weight=weight) for weight in (0, 1)]
    plain, distilled = (next(train.make_batches(run, 0)) for run in runs)
    assert plain["captions"] == distilled["captions"]
    views = plain["views"]["contrastive"]
    assert all(values.equal(distilled["views"]["contrastive"][name]) for name, values in views.items())


def test_too_many_bad_steps_stop_the_run_with_a_checkpoint_and_the_rows(make_run, monkeypatch, tmp_path):
    make_run()  # its folder is overwritten by the run below
    batches = train.make_batches

    def spoiled(run, first_step):
        for step, batch in enumerate(batches(run, first_step), first_step):
            if step >= 2:
                batch["pixels"] = batch["pixels"].float() * torch.nan
            yield batch

    monkeypatch.setattr(train, "make_batches", spoiled)
    config = make_run(max_skipped_steps=3).config
    with pytest.raises(UserError, match="3 successive steps.*step-5.*learning_rate"):
        train.train(config)
    records = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    skipped = [record for record in records if record.get("skipped")]
    assert [record["step"] for record in skipped] == [3, 4, 5] and [r["loss"] for r in skipped] == [None] * 3
    assert all(len(record["skipped"]) == 12 and record["skipped"][0].startswith("demo/") for record in skipped)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")] == ["step-5"]


def test_a_stop_right_after_a_checkpoint_does_not_write_it_again(make_run):
    run = make_run()
    log = TrainingLog(run.config, run.accelerator, 0, 60)
    batches = train.make_batches(run, 0)

    def take_a_step() -> None:
        batch = next(batches)
        rates = learning_rates(run.optimizer)
        log.step(run.step + 1, train.training_step(run, batch, run.step), rates, batch)
        run.step += 1

    take_a_step()
    saved = train.save(run, log)
    written = saved.stat().st_ino, (saved / "manifest.json").stat().st_ino
    assert train.save(run, log) == saved
    assert (saved.stat().st_ino, (saved / "manifest.json").stat().st_ino) == written
    take_a_step()
    assert train.save(run, log).name == "step-2"


def test_the_log_has_the_learning_rate_of_each_step_and_the_last_one_is_validated(make_run):
    config = make_run(max_train_steps=4, warmup_steps=2, evaluation_steps=2).config
    AcceleratorState._reset_state(True)
    train.train(config)
    records = list(map(json.loads, Path(config.output_dir, "train_log.jsonl").read_text().splitlines()))
    rates = [record["learning_rate"]["image"] for record in records if "loss" in record]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    assert [record["step"] for record in records if "validation" in record] == [2, 4]


def test_a_run_of_epochs_says_its_steps_in_its_first_line(make_run, capsys):
    config = make_run(num_train_epochs=1.5, max_train_steps=None, evaluation_steps=0.5, checkpoint_steps=0.3).config
    assert (config.max_train_steps, config.evaluation_steps, config.checkpoint_steps) == (8, 4, 3)  # 5 an epoch
    AcceleratorState._reset_state(True)
    train.train(replace(config, num_train_epochs=1.5, max_train_steps=None))
    assert re.search(r"^training on 1 × .*: 8 steps, 1\.6 epochs", capsys.readouterr().out, re.MULTILINE)
    records = list(map(json.loads, Path(config.output_dir, "train_log.jsonl").read_text().splitlines()))
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 9))
    assert [record["step"] for record in records if "validation" in record] == [4, 8]
    folder = Path(config.output_dir, "checkpoints")
    assert sorted(path.name for path in folder.glob("step-*")) == ["step-6", "step-8"]


def test_a_model_of_two_languages_is_measured_in_three(make_run):
    config = make_run(max_train_steps=1, languages=["en", "pt"], evaluation_languages=["en", "pt", "ko"]).config
    AcceleratorState._reset_state(True)
    results = train.train(replace(config, evaluation_steps=1))
    assert list(results.metrics) == results.languages == ["en", "pt", "ko"] == list(results.untrained)
    records = list(map(json.loads, Path(config.output_dir, "train_log.jsonl").read_text().splitlines()))
    assert [list(record["validation"]) for record in records if "validation" in record] == [["en", "pt", "ko"]]


def test_a_run_does_not_go_on_in_another_precision_of_the_launcher(make_run, monkeypatch, tmp_path):
    assert make_run().config.mixed_precision == "no"
    (tmp_path / "run" / "checkpoints" / "step-1").mkdir()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="mixed_precision 'no', not 'bf16'"):
        make_run(resume_from_checkpoint="latest", overwrite_output_dir=False)


def test_what_happens_before_the_first_step_is_said_when_it_begins(make_run, monkeypatch, tmp_path, towers, capfd):
    monkeypatch.setattr(train.evaluation, "EmbeddingCache", lambda: EmbeddingCache(tmp_path / "cache"))
    given = {"image_tower": towers[0], "text_tower": towers[1], "probe_steps": 1, "languages": ["en"]}
    config = make_run(**given, max_train_steps=1).config
    capfd.readouterr()
    begun = []
    for name in ("load_splits", "make_model", "train_new_layers", "measure"):
        place = {"load_splits": train.loading, "make_model": train.initial_model, "train_new_layers": train.probing}
        target = place.get(name, train.evaluation.RunTasks)
        function = getattr(target, name)

        def say(*given, function=function, **options):
            begun.append(capfd.readouterr().out)
            return function(*given, **options)

        monkeypatch.setattr(target, name, say)
    train.train(config)
    for line, word in zip(begun, (config.dataset, towers[0], "60 images", "36 images"), strict=False):
        assert word in line


def test_two_towers_start_with_probed_projections_that_stay_as_a_checkpoint(make_run, monkeypatch, tmp_path, towers):
    monkeypatch.setattr(train.evaluation, "EmbeddingCache", lambda: EmbeddingCache(tmp_path / "cache"))
    given = {"image_tower": towers[0], "text_tower": towers[1], "trim_vocabulary": True, "probe_steps": 3}
    short = {"max_train_steps": 2, "checkpoint_steps": 1, "keep_checkpoints": 1, "overwrite_output_dir": True}
    config = make_run(**given, **short, languages=["en"]).config
    AcceleratorState._reset_state(True)
    random = train.plan(config).model.state_dict()
    AcceleratorState._reset_state(True)
    results = train.train(config)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("step-*")) == ["step-0", "step-2"]
    probed = load_file(checkpoints / "step-0" / "model.safetensors")
    changed = {name for name, weight in random.items() if not weight.equal(probed[f"model.{name}"])}
    projections = {name for name in random if name.startswith(("visual_projection.", "text_projection."))}
    assert changed == projections | {"logit_scale"}
    assert results.untrained["en"]["mean_recall"] > 0

    # A resumed run measures the probed start, also if its metrics are not stored.
    (checkpoints / "start_metrics.json").unlink()
    AcceleratorState._reset_state(True)
    resumed = train.train(replace(config, resume_from_checkpoint="latest", overwrite_output_dir=False))
    assert resumed.untrained == results.untrained and resumed.metrics == results.metrics


def test_a_resumed_run_measures_new_benchmarks_of_the_start_on_the_probed_model(
    make_run, monkeypatch, tmp_path, towers
):
    monkeypatch.setattr(train.evaluation, "EmbeddingCache", lambda: EmbeddingCache(tmp_path / "cache"))
    given = {"image_tower": towers[0], "text_tower": towers[1], "probe_steps": 200, "probe_learning_rate": 0.01}
    config = make_run(**given, max_train_steps=1, checkpoint_steps=1, overwrite_output_dir=True).config
    AcceleratorState._reset_state(True)
    first = train.train(replace(config, languages=["en"]))
    AcceleratorState._reset_state(True)
    changes = {"resume_from_checkpoint": "latest", "overwrite_output_dir": False, "evaluation_languages": ["en", "pt"]}
    again = train.train(replace(config, languages=["en"], **changes))
    assert again.untrained["en"] == first.untrained["en"] and again.metrics["en"] == first.metrics["en"]


def script_validation(monkeypatch, recalls: list[float]) -> list[float]:
    """Replace the figures of the validation, in order. Returns the list of those that are left."""
    left = list(recalls)
    monkeypatch.setattr(
        train.evaluation, "metrics_by_dataset", lambda outcomes: {"corpus": {"en": {"mean_recall": left.pop(0)}}}
    )
    return left


def test_the_best_step_becomes_the_model_and_ends_the_run_early(make_run, monkeypatch, tmp_path):
    choices = {"best_figure": "en/mean_recall", "early_stop_evaluations": 2, "evaluate_start": False}
    run = {"evaluation_steps": 2, "checkpoint_steps": 3, "keep_checkpoints": 1, "overwrite_output_dir": True}
    config = make_run(**choices, **run, languages=["en"]).config
    left = script_validation(monkeypatch, [5.0, 9.0, 7.0, 8.0, 100.0])
    results = train.train(config)
    folder = tmp_path / "run"
    assert left == [100.0]
    assert results.kept == {"figure": "en/mean_recall", "step": 4, "last_step": 8, "value": 9.0, "waited": 2}
    assert results.untrained == {}
    assert sorted(path.name for path in (folder / "checkpoints").glob("step-*")) == ["step-4", "step-8"]
    weights, best = (load_file(path / "model.safetensors") for path in (folder, folder / "checkpoints" / "step-4"))
    assert all(weight.equal(best[f"model.{name}"]) for name, weight in weights.items())
    text = (folder / "README.md").read_text()
    assert "4 of 8" in text and "`en/mean_recall`" in text and "| start |" not in text

    # A run that was killed in its final evaluation ends at once, with the same model.
    (folder / "model.safetensors").unlink()
    AcceleratorState._reset_state(True)
    again = train.train(replace(config, resume_from_checkpoint="latest", overwrite_output_dir=False))
    assert left == [100.0] and again.kept == results.kept and again.metrics == results.metrics
    resumed = load_file(folder / "model.safetensors")
    assert all(weight.equal(best[f"model.{name}"]) for name, weight in resumed.items())


@pytest.mark.parametrize(
    "evaluation_steps, best_figure, validated", [(2, None, [2, 3]), (4, None, []), (4, "mean_recall", [3])]
)
def test_the_last_step_is_validated_too(make_run, evaluation_steps, best_figure, validated):
    config = make_run(max_train_steps=3, evaluation_steps=evaluation_steps, languages=["en"]).config
    AcceleratorState._reset_state(True)
    results = train.train(replace(config, best_figure=best_figure, evaluate_start=False))
    records = list(map(json.loads, Path(config.output_dir, "train_log.jsonl").read_text().splitlines()))
    assert [record["step"] for record in records if "validation" in record] == validated
    assert results.kept.get("step") in (*validated, None)


def test_an_unknown_figure_is_refused_before_the_folder_changes(make_run, tmp_path):
    with pytest.raises(UserError, match="'zero_shot_accuracy'.* mean_recall, en/mean_recall"):
        make_run(best_figure="zero_shot_accuracy")
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_does_not_evaluate_the_start_again(make_run, monkeypatch):
    config = make_run(max_train_steps=4, checkpoint_steps=2, evaluation_steps=100, languages=["en"]).config
    first = train.train(config)
    AcceleratorState._reset_state(True)
    evaluated = []
    evaluate = train.evaluate
    monkeypatch.setattr(
        train, "evaluate", lambda *given, **options: evaluated.append(1) or evaluate(*given, **options)
    )
    step = str(Path(config.output_dir) / "checkpoints" / "step-2")
    resumed = train.train(replace(config, resume_from_checkpoint=step, overwrite_output_dir=False))
    assert len(evaluated) == 1  # of the final table
    assert resumed.untrained == first.untrained and resumed.untrained["en"]["mean_recall"] > 0


def test_folders_of_images_are_measured_before_in_and_after_training(make_run, tmp_path):
    rng = np.random.default_rng(0)
    for label in ("aGrass", "eForest"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    benchmarks = {"benchmarks": ["demo", f"rsscn7={tmp_path / 'images'}"], "best_figure": "rsscn7/zero_shot_accuracy"}
    results = train.train(make_run(**benchmarks, languages=["en", "pt"], max_train_steps=2, evaluation_steps=1).config)
    found = results.benchmarks["rsscn7"]
    assert found["images"] == 8 and list(found["metrics"]) == list(found["untrained"]) == ["en", "pt"]
    records = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    logged = {r["step"]: r["benchmarks"]["rsscn7"] for r in records if "benchmarks" in r}
    kept = logged[results.kept["step"]]
    assert {code: values["zero_shot_accuracy"] for code, values in found["metrics"].items()} == {
        code: values["zero_shot_accuracy"] for code, values in kept.items()
    }
    text = (tmp_path / "run" / "README.md").read_text()
    assert "### rsscn7" in text and text.count("| start |") == 2 and "`rsscn7` chose" in text
    assert "--benchmarks demo rsscn7=RSSCN7" in results.command and str(tmp_path) not in text


def test_a_full_disk_at_the_final_save_names_the_way_on(make_run, tmp_path):
    run = make_run(evaluate_start=False, languages=["en"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as on a full disk
        with pytest.raises(UserError, match="run cannot be written.*--resume_from_checkpoint latest") as error:
            train.finish(run, {}, SimpleNamespace(best=None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)


LORA = {"r": 2, "target_modules": r".*\.(q_proj|v_proj|query|value)"}


def test_lora_trains_and_saves_adapters_and_the_head_alone(make_run):
    run = make_run(lora=LORA, merge_adapter=True)
    before = weights(run)
    steps(run, 2)
    moved = {name for name, value in weights(run).items() if not value.equal(before[name])}
    assert moved and all("lora_" in name or "self_distillation_head" in name for name in moved)
    saved = run.student.state_dict()
    assert saved and all("lora_" in name or "self_distillation_head" in name for name in saved)
    teacher = run.teacher.state_dict()
    assert teacher and all("lora_" in name or "self_distillation_head" in name for name in teacher)
    other = make_run(lora=LORA, merge_adapter=True)
    other.student.load_state_dict(saved)
    other.teacher.load_state_dict(teacher)
    assert all(value.equal(weights(other)[name]) for name, value in weights(run).items())


def test_a_lora_that_fits_nothing_is_refused(make_run, tmp_path):
    with pytest.raises(ValueError, match="lora.*nothing"):
        make_run(lora={"target_modules": ["nothing"]}, merge_adapter=True)
    with pytest.raises(ValueError, match="lora.*rank"):
        make_run(lora={"rank": 4}, merge_adapter=True)
    with pytest.raises(ValueError, match="lora.*model"):
        make_run(lora=LORA)
    with pytest.raises(ValueError, match="merge_adapter.*lora"):
        TrainingConfig(merge_adapter=True)
    assert not Path(tmp_path / "run" / "config.json").exists()


def test_a_corpus_without_english_is_trained_and_evaluated(corpus, tmp_path):
    def only_portuguese(row: dict) -> dict:
        return {"captions": {"en": None, "pt": row["captions"]["pt"]}}

    columns = corpus["train"].features.copy()
    columns["captions"] = {code: columns["captions"][code] for code in ("en", "pt")}
    for split, rows in corpus.items():
        changed = rows.map(only_portuguese, features=columns, load_from_cache_file=False)
        changed.to_parquet(tmp_path / "corpus" / "data" / f"{split}-00000-of-00001.parquet")
    AcceleratorState._reset_state(True)
    places = {"dataset": str(tmp_path / "corpus"), "output_dir": str(tmp_path / "run"), "num_workers": 0}
    results = train.train(TrainingConfig(**TINY_RUN | places, max_train_steps=10, languages=["pt"]))
    assert list(results.metrics) == ["pt"] and results.metrics["pt"]["mean_recall"] > 0
    assert "in one language only (pt)" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
