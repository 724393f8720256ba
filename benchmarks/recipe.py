r"""The experiment of docs/recipe_figures.md: what translations and self-distillation give on real images.

    python -m rsmclip.benchmarks.recipe corpora CORPUS CORPORA
    python -m rsmclip.benchmarks.recipe run b --seed 0 --corpora CORPORA --rsscn7 FOLDER --runs RUNS \
        --image_tower M --text_tower M [--name NAME] [--options --field value …]
    python -m rsmclip.benchmarks.recipe interpolate b --seed 0 --corpora CORPORA --rsscn7 FOLDER --runs RUNS
    python -m rsmclip.benchmarks.recipe floors b --seed 0 --corpora CORPORA --rsscn7 FOLDER --runs RUNS
    python -m rsmclip.benchmarks.recipe probe --with d-0 --without a-0 --rsscn7 FOLDER --runs RUNS
    python -m rsmclip.benchmarks.recipe table [--plot FILE]

CORPUS is RSICD with translations, built by `rsmclip data build`; `corpora` makes the corpora of the arms of it, with a
split `dev` of training images. Settings are chosen on `dev`. `val` and RSSCN7 are measured once for each finished run
and choose nothing. The result of a run is the folder `benchmarks/results/recipe/ARM-SEED`: figures, outcomes of every
image, command, machine and minutes. The trained models stay in RUNS. `interpolate` averages a
finished run with its probed start, `floors` measures this start and ridge regression with the frozen towers, and
`probe` trains linear probes on the pooled output of two image towers, with and without self-distillation. `table`
prints the tables of docs/recipe_figures.md.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rsmclip.benchmarks.machine import describe_run
from rsmclip.benchmarks.processes import run_training
from rsmclip.benchmarks.recipe_floors import save_ridge_regression
from rsmclip.benchmarks.recipe_tables import (
    RESULTS,
    SAMPLES,
    arm_plot,
    arm_table,
    claim_table,
    exploratory_table,
    language_table,
    read_draws,
    results,
)
from rsmclip.core.command_line import OneLineParser, run_command
from rsmclip.core.drawing import save
from rsmclip.core.errors import UserError
from rsmclip.core.files import new_folder, read_json, write_whole
from rsmclip.core.images import decode_image, image_bytes
from rsmclip.data.audit.same_picture import find_matches, make_thumbnail
from rsmclip.data.schema import load_corpus
from rsmclip.eval.image_folder import read_image_folder
from rsmclip.eval.intervals import interval
from rsmclip.eval.models import load_embedder
from rsmclip.eval.probes import linear_probe, split_rows
from rsmclip.hub.interpolate import interpolate
from rsmclip.training.checkpoints import checkpoints

ROOT = Path(__file__).parent.parent
RECIPE = "configs/pretrained_towers_small.yaml"
DEV_IMAGES = 800
PROBE_SPLITS = 5
SEED = 0  # of the dev split, and of the translations that are dropped
# Percent of the training captions that keep their translations. Arm b keeps all of them, 40.5 %, and a_free none.
SHARES = (10, 20)

CONTRASTIVE_ONLY = ["--self_distillation_weight", "0"]
# The long run: the larger image tower, all images of the published training split, two captions an image, all image
# layers and the upper half of the text tower. Its figures choose nothing, so it is validated on `val`, at its end.
LONG = [
    *CONTRASTIVE_ONLY,
    *("--freeze", r"text_model\.(embeddings|encoder\.layer\.[0-5]\.)|vision_model\.(embeddings|pre_layrnorm)"),
    *("--short_side", "144", "--captions_per_image", "2", "--max_train_steps", "1400", "--warmup_steps", "100"),
    *("--evaluation_steps", "1400", "--checkpoint_steps", "200", "--validation_split", "val", "--test_split", "val"),
]
ARMS = {  # corpus and options
    "a": ("english", CONTRASTIVE_ONLY),
    "b": ("ten", CONTRASTIVE_ONLY),
    "c": ("ten", []),
    "d": ("english", []),
    "a_free": ("english_only", [*CONTRASTIVE_ONLY, "--languages", "en"]),
    "long": ("all", LONG),
    **{f"translated_{share}": (f"translated_{share}", CONTRASTIVE_ONLY) for share in SHARES},
}
NAMES = {  # of floors and arms in table and plot
    "ridge_b": "ridge regression",
    "probed_b": "projections alone",
    "a": "a: English",
    "b": "b: ten languages",
    "c": "c: b, self-distillation",
    "d": "d: a, self-distillation",
    "b_long": "b, twice the steps",
    "c_mild": "c, strong and mild views",
    "c_global": "c, strong views",
    "e": "e: b, image tower frozen",
    "f_b": "f: b averaged with its start",
    "distance1": "b, kept near its start",
    "a_free": "a, captions drawn freely",
    **{f"translated_{share}": f"b, {share} % translated" for share in SHARES},
    "long": "long run",
    "f_long": "long run averaged with its start",
}
ALPHAS = (0, 0.2, 0.4, 0.6, 0.8, 1)
DEV_LANGUAGES = ("en", "pt", "zh")  # of the choices on dev; `val` is measured in all ten languages


def make_corpora(corpus: str, output: Path) -> None:
    """
    Write the corpora of the arms. Only the captions of `train` differ.

    - `ten`: all translations.
    - `english`: each translation is replaced by its English original. So a run draws the sentences that a run with the
      same seed draws from `ten`, in English.
    - `english_only`: no translations, so English captions are drawn freely.
    - `translated_N`: translations of N percent of the captions, drawn by sentence.
    - `all`: `ten` with the images of `dev` in `train`.
    """
    splits = load_corpus(corpus)
    train, dev = split_off_dev(splits["train"])
    variants = {"ten": None, "english": None, "english_only": frozenset()}
    variants |= {f"translated_{share}": sentences_with_share(train, share) for share in SHARES}
    for name, kept in variants.items():
        changed = train.map(
            lambda row, name=name, kept=kept: {"captions": change_captions(row["captions"], name, kept)},
            features=train.features,
            desc=name,
        )
        with new_folder(output / name) as folder:
            DatasetDict(train=changed, dev=dev, val=splits["val"]).save_to_disk(folder)
    with new_folder(output / "all") as folder:
        splits.save_to_disk(folder)


def split_off_dev(rows: Dataset) -> tuple[Dataset, Dataset]:
    """Draw about `DEV_IMAGES` images. Pictures that are the same, apart from turns and crops, stay together."""
    thumbnails = np.stack([make_thumbnail(image_bytes(image)) for image in rows["image"]])
    matches = find_matches(thumbnails, threads=-1)
    first, second = np.array([match[1:3] for match in matches], int).reshape(-1, 2).T
    pairs = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(rows), len(rows)))
    groups = connected_components(pairs, directed=False)[1]
    order = np.random.default_rng(SEED).permutation(groups.max() + 1)
    sizes = np.bincount(groups)[order]
    in_dev = np.isin(groups, order[: np.searchsorted(sizes.cumsum(), DEV_IMAGES) + 1])
    return rows.select(np.flatnonzero(~in_dev)), rows.select(np.flatnonzero(in_dev))


def sentences_with_share(rows: Dataset, share: float) -> frozenset[str]:
    """Draw English sentences until `share` percent of all captions are a drawn sentence with a translation."""
    counts: dict[str, int] = {}
    total = 0
    for captions in rows["captions"]:
        total += len(captions["en"])
        for english, translation in zip(captions["en"], captions["pt"], strict=True):
            if translation:
                counts[english] = counts.get(english, 0) + 1
    order = np.random.default_rng([SEED, 1]).permutation(sorted(counts)).tolist()
    reached = np.cumsum([counts[sentence] for sentence in order])
    return frozenset(order[: np.searchsorted(reached, total * share / 100, side="right")])


def change_captions(captions: dict[str, list], corpus: str, kept: Collection[str] | None) -> dict[str, list]:
    """Return the captions of an image for one corpus. `kept` are the sentences that keep translations; `None`: all."""
    changed = {"en": captions["en"]}
    for language in captions.keys() - {"en"}:
        pairs = list(zip(captions["en"], captions[language], strict=True))
        changed[language] = [text if kept is None or english in kept else None for english, text in pairs]
        if corpus == "english":
            changed[language] = [english if text else None for english, text in pairs]
    return changed


def run_arm(arguments: argparse.Namespace) -> None:
    """Train one arm with one seed, evaluate it on `val` and RSSCN7, and store the result."""
    corpus, options = ARMS[arguments.arm]
    name = f"{arguments.name or arguments.arm}-{arguments.seed}"
    model = arguments.runs / name
    command = ["train.py", "--config", RECIPE, "--output_dir", str(model)]
    command += ["--dataset", str(arguments.corpora / corpus), "--validation_split", "dev", "--test_split", "dev"]
    command += ["--evaluation_languages", *DEV_LANGUAGES]
    command += ["--image_tower", arguments.image_tower, "--text_tower", arguments.text_tower]
    command += ["--seed", str(arguments.seed), *options, *arguments.options]
    # A run that was stopped before its first checkpoint starts again.
    resumed = ["--resume_from_checkpoint", "latest"] if checkpoints(model / "checkpoints") else []
    started_again = ["--overwrite_output_dir"] if not resumed and model.is_dir() else []
    if status := run_training([sys.executable, *command, *resumed, *started_again], cwd=ROOT):
        sys.exit(status)  # the training has printed why
    trained = read_json(model / "eval_results.json")
    facts = {"minutes": trained["seconds"] / 60, "pairs_per_second": trained["pairs_per_second"]}
    facts |= {"hyperparameters": trained["hyperparameters"], "dev": trained["metrics"], "start": trained["untrained"]}
    measured = evaluate(model, name, arguments)
    named = ["--name", arguments.name] if arguments.name else []
    further = ["--options", *arguments.options] if arguments.options else []  # they must be the last
    store(name, ["run", arguments.arm, *named], arguments, facts | {"metrics": measured}, further)


def probed_start(arguments: argparse.Namespace) -> Path:
    """Return the checkpoint that a run wrote after its probe."""
    folder = arguments.runs / f"{arguments.arm}-{arguments.seed}" / "checkpoints" / "step-0"
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: first run the arm {arguments.arm} with seed {arguments.seed}")
    return folder


def run_interpolation(arguments: argparse.Namespace) -> None:
    """
    Average a finished run with its probed start, and store the result as arm `f`.

    The alpha is chosen on `dev`, or given: the long run has trained on `dev`, and takes the alpha of the short runs.
    """
    tuned, name = arguments.runs / f"{arguments.arm}-{arguments.seed}", f"f_{arguments.arm}-{arguments.seed}"
    start, averaged, began = probed_start(arguments), arguments.runs / name, time.perf_counter()
    shutil.rmtree(averaged, ignore_errors=True)  # of an earlier call
    command = ["interpolate", arguments.arm]
    if arguments.alpha is not None:
        interpolate(start, tuned, averaged, arguments.alpha)
        command += ["--alpha", str(arguments.alpha)]
        facts = {"alpha": arguments.alpha}
    else:
        facts = choose_alpha(start, tuned, averaged, arguments)
    facts["minutes"] = (time.perf_counter() - began) / 60
    facts["metrics"] = evaluate(averaged, name, arguments)
    store(name, command, arguments, facts)


def choose_alpha(start: Path, tuned: Path, averaged: Path, arguments: argparse.Namespace) -> dict:
    """Write the average with the best alpha on `dev`. RSSCN7 is shown and chooses nothing."""
    command = ["interpolate", str(start), str(tuned), str(averaged), "--alphas", *map(str, ALPHAS)]
    command += ["--dataset", str(arguments.corpora / "ten"), "--split", "dev", "--languages", *DEV_LANGUAGES]
    command += ["--choose", "nearly_in_domain", "--benchmarks", "rsicd", f"rsscn7={arguments.rsscn7}"]
    if status := run_training([sys.executable, "-m", "rsmclip.hub", *command], cwd=ROOT):
        sys.exit(status)
    found = read_json(averaged / "alphas.json")  # it names local folders, which are not stored
    return {"alpha": found["alpha"], "points": found["points"]}


def run_floors(arguments: argparse.Namespace) -> None:
    """Store the figures of the probed start of a finished run, and of ridge regression with its frozen towers."""
    checkpoint = probed_start(arguments)
    splits = load_corpus(arguments.corpora / "ten")
    for floor in ("probed", "ridge"):
        name, began = f"{floor}_{arguments.arm}-{arguments.seed}", time.perf_counter()
        folder, facts = arguments.runs / name, {}
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier call
        if floor == "probed":
            interpolate(checkpoint, checkpoint, folder, alpha=0)
        else:
            facts["strength"] = save_ridge_regression(
                checkpoint, splits["train"], splits["dev"], DEV_LANGUAGES, folder
            )
        facts["minutes"] = (time.perf_counter() - began) / 60
        measured = evaluate(folder, name, arguments)
        store(name, ["floors", arguments.arm], arguments, facts | {"metrics": measured})


def store(
    name: str, command: list[str], arguments: argparse.Namespace, facts: dict, further: Sequence[str] = ()
) -> None:
    """Write the record of a run beside its figures and outcomes. `further` are words of the command after `--seed`."""
    words = ["python", "-m", "rsmclip.benchmarks.recipe", *command, "--seed", str(arguments.seed), *further]
    record = describe_run(shlex.join(words), "torch", "transformers", "accelerate") | facts
    (RESULTS / name / "run.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def evaluate(model: Path, name: str, arguments: argparse.Namespace) -> dict:
    """Measure a model on `val` and RSSCN7, and store the outcomes. Returns the figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "rsmclip.eval", str(model), "--dataset", str(arguments.corpora / "ten"), "--split", "val"]
        command += ["--benchmark", "rsicd", "--zero_shot", f"rsscn7={arguments.rsscn7}", "--output", folder]
        if status := run_training([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL):
            sys.exit(status)
        shutil.copytree(Path(folder, "outcomes"), RESULTS / name / "outcomes", dirs_exist_ok=True)
        return read_json(Path(folder, "eval_results.json"))["metrics"]


def probe_towers(arguments: argparse.Namespace) -> None:
    """
    Compare linear probes of the pooled output of two image towers on RSSCN7.

    A probe learns from one half of each class and is tested on the other, then the other way around; `PROBE_SPLITS`
    random halves. The hits of an image are its mean over the splits. The interval of the difference resamples images.
    """
    rows = read_image_folder(arguments.rsscn7)
    labels = np.array(rows["label"])
    hits = {name: tower_hits(arguments.runs / name, rows, labels) for name in (arguments.with_it, arguments.without)}
    accuracy = {name: 100 * float(values.mean()) for name, values in hits.items()}
    difference = hits[arguments.with_it] - hits[arguments.without]
    chosen = np.random.default_rng(SEED).integers(len(rows), size=(SAMPLES, len(rows)))
    low, high = interval(100 * difference[chosen].mean(axis=1))
    command = f"probe --with {arguments.with_it} --without {arguments.without}"
    record = describe_run(f"python -m rsmclip.benchmarks.recipe {command}", "torch", "transformers", "scikit-learn")
    record |= {"images": len(rows), "splits": PROBE_SPLITS, "accuracy": accuracy}
    record |= {"difference": 100 * float(difference.mean()), "interval": [low, high]}
    path = RESULTS / "probes" / f"{arguments.with_it}_{arguments.without}.json"
    write_whole(path, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def tower_hits(folder: Path, rows: Dataset, labels: np.ndarray) -> np.ndarray:
    """Return the share of the splits in which a linear probe of the pooled output classifies each image right."""
    embedder = load_embedder(str(folder))
    tower = embedder.model.vision_model
    images = [decode_image(image, name) for image, name in zip(rows["image"], rows["image_id"], strict=True)]
    parts = (images[start : start + 64] for start in range(0, len(images), 64))
    inputs = (embedder.processor.image_processor(part, return_tensors="pt") for part in parts)
    pooled = torch.cat([embedder.run(tower.forward, part) for part in inputs])
    hits = np.zeros((PROBE_SPLITS, len(labels)))
    for seed in range(PROBE_SPLITS):
        halves = split_rows(labels.tolist(), seed)
        for train, test in (halves, halves[::-1]):
            found = linear_probe(pooled[train], labels[train], pooled[test], labels[test], seed)
            hits[seed, test] = found["hits"]
    return hits.mean(axis=0)


def print_tables(arguments: argparse.Namespace) -> None:
    """Print the figures of the arms, the claims and the languages of the long run; draw the plot of the arms."""
    found = results()
    ordered = [*(arm for arm in NAMES if arm in found), *(arm for arm in found if arm not in NAMES)]
    draws = {arm: read_draws(found[arm]) for arm in ordered}
    tables = [arm_table(draws, NAMES), claim_table(draws), exploratory_table(draws, NAMES)]
    print(*tables, "f_long, by language", language_table("f_long-0"), sep="\n\n")
    if arguments.plot:
        save(arm_plot(draws, NAMES), arguments.plot)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m rsmclip.benchmarks.recipe", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("corpora", help="write the corpora of the arms")
    command.add_argument("corpus", help="RSICD with translations, built by rsmclip data build")
    command.add_argument("output", type=Path)
    command.set_defaults(run=lambda arguments: make_corpora(arguments.corpus, arguments.output))
    for name, help, run in (
        ("run", "train and evaluate one arm with one seed", run_arm),
        ("interpolate", "average a finished run with its start", run_interpolation),
        ("floors", "measure the start of a finished run, and ridge regression with its towers", run_floors),
    ):
        command = commands.add_parser(name, help=help)
        command.add_argument("arm", choices=ARMS)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--corpora", type=Path, required=True, help="output of the command corpora")
        command.add_argument("--rsscn7", type=Path, required=True, help="folder of RSSCN7's images by class")
        command.add_argument("--runs", type=Path, required=True, help="folder for the trained models")
        command.set_defaults(run=run)
        if name == "interpolate":
            command.add_argument("--alpha", type=float, help="share of the tuned model; by default chosen on dev")
        if name == "run":
            command.add_argument("--image_tower", required=True)
            command.add_argument("--text_tower", required=True)
            command.add_argument("--name", help="name of the result, for a run with other options; default: the arm")
            command.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further options of train.py")
    command = commands.add_parser("probe", help="compare linear probes of two image towers on RSSCN7")
    command.add_argument("--with", dest="with_it", metavar="RUN", required=True, help="run with self-distillation")
    command.add_argument("--without", metavar="RUN", required=True, help="run without")
    command.add_argument("--rsscn7", type=Path, required=True, help="folder of RSSCN7's images by class")
    command.add_argument("--runs", type=Path, required=True, help="folder of the trained models")
    command.set_defaults(run=probe_towers)
    command = commands.add_parser("table", help="print the tables, and draw the figures of the arms")
    command.add_argument("--plot", type=Path, metavar="FILE", help="picture to draw")
    command.set_defaults(run=print_tables)
    return parser


if __name__ == "__main__":
    chosen = make_parser().parse_args()
    run_command(lambda: chosen.run(chosen), "python -m rsmclip.benchmarks.recipe")
