r"""Measure what classifying all images of a folder together changes, and its time and memory.

    python -m rsmclip.benchmarks.transductive figures MODEL --zero_shot rsscn7=FOLDER --output FILE.json
    python -m rsmclip.benchmarks.transductive figures MODEL --dataset demo_corpus --benchmark demo --output FILE.json
    python -m rsmclip.benchmarks.transductive table FILE.json …
    python -m rsmclip.benchmarks.transductive speed --output FILE.json

`figures` compares one-by-one classification and [`~rsmclip.eval.zero_shot.transductive_assignments`] in every language
of the benchmark, at the published temperature and at the model's own. It does so for all images, and for folders drawn
from them: few images, unequal classes, lists of classes that do not fit the images. A figure is the mean over
languages and draws. Intervals draw images (eval/intervals.py), with all assignments fixed. `speed` measures one call
for 50 classes and 512 dimensions in its own process.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from rsmclip.benchmarks.machine import describe_run
from rsmclip.benchmarks.training_tables import table
from rsmclip.core.command_line import OneLineParser, run_command
from rsmclip.core.files import read_json
from rsmclip.eval.evaluate import embed_classes, labeled_rows
from rsmclip.eval.intervals import draw_statistics, interval
from rsmclip.eval.models import load_embedder
from rsmclip.eval.outcomes import Classification, Outcomes, statistics
from rsmclip.eval.tasks import Task, named_folders, read_corpus, read_folder
from rsmclip.eval.zero_shot import label_ranks, neighbor_affinities, score_ranks, transductive_assignments

PUBLISHED = 100.0  # temperature
DRAWS = 20
FEW = (1, 2, 5, 10, 20)  # images of each class
RATIO = 10  # images of the large class for one image of another class
METRICS = ("accuracy", "mean_per_class_recall")
CLASSES, DIM = 50, 512  # of the measurement of speed

Folder = tuple[np.ndarray, np.ndarray]  # rows of the images, and the classes in the list


def situations(targets: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, list[Folder]]]:
    """Yield named lists of folders, drawn from images with the classes `targets`, `(images,)`."""
    classes, everything = np.unique(targets), np.arange(len(targets))
    half = len(classes) // 2

    def draw(images: int, label: int) -> np.ndarray:
        return rng.permutation(np.flatnonzero(targets == label))[:images]

    def of(chosen: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.isin(targets, chosen))

    yield "all images", [(everything, classes)]
    smallest = np.bincount(targets).min()
    for images in [number for number in FEW if number < smallest]:
        drawn = [np.concatenate([draw(images, label) for label in classes]) for _ in range(DRAWS)]
        yield f"{images} image{'s' * (images > 1)} of each class", [(rows, classes) for rows in drawn]
    for name, count in (("one class", 1), ("half of the classes", half)):
        large = [rng.permutation(classes)[:count] for _ in range(DRAWS)]
        shares = [
            [draw(smallest if label in chosen else smallest // RATIO, label) for label in classes] for chosen in large
        ]
        yield f"{name} with {RATIO} times the images", [(np.concatenate(rows), classes) for rows in shares]
    for name, count in (("one class", len(classes) - 1), ("half of the classes", half)):
        present = [rng.permutation(classes)[:count] for _ in range(DRAWS)]
        yield f"no images of {name}", [(of(chosen), classes) for chosen in present]
        yield f"{name} not in the list", [(everything, np.sort(chosen)) for chosen in present]


def measure_situation(
    folders: list[Folder], images: torch.Tensor, texts: dict[str, torch.Tensor], targets: np.ndarray, own: float
) -> dict[str, Outcomes]:
    """Classify each folder in each language. Returns outcomes by temperature, with a result by language and draw."""
    ids = [str(row) for row in range(len(targets))]
    outcomes = {name: Outcomes(ids) for name in ("published", "own")}
    for number, (rows, listed) in enumerate(folders):
        counted = np.isin(targets[rows], listed)  # an image of a class that is not in the list cannot be right
        labels = np.searchsorted(listed, targets[rows[counted]])
        affinities = neighbor_affinities(images[rows])
        for language, classes in texts.items():
            ranks = {"alone": label_ranks(images[rows[counted]], classes[listed], labels)[0]}
            for name, temperature in (("published", PUBLISHED), ("own", own)):
                assigned = transductive_assignments(images[rows], classes[listed], temperature, affinities)
                ranks[name] = score_ranks(assigned[counted], labels)[0]
            for name, each in outcomes.items():
                for found, kind in ((each.zero_shot, "alone"), (each.transductive, name)):
                    hits = ranks[kind] == 0
                    found[f"{language}-{number}"] = Classification(rows[counted], labels, listed, hits)
    return outcomes


def summarize(outcomes: Outcomes, results: Collection[str]) -> dict[str, dict]:
    """Return for each metric the means over `results` alone and together, and their difference with its interval."""
    values, draws = statistics(outcomes, np.ones((1, len(outcomes.ids)))), draw_statistics(outcomes, 1000)
    summary = {}
    for metric in METRICS:
        (alone, together), (drawn_alone, drawn_together) = (
            [np.stack([found[each, f"{kind}_{metric}"] for each in results]) for kind in ("zero_shot", "transductive")]
            for found in (values, draws)
        )
        summary[metric] = {
            "alone": float(alone.mean()),
            "together": float(together.mean()),
            "difference": float((together - alone).mean()),
            "interval": interval((drawn_together - drawn_alone).mean(axis=0)),
            "worse": 100 * float((together < alone).mean()),  # percent of the results
        }
    return summary


def measure_figures(arguments: argparse.Namespace) -> dict:
    task = read_task(arguments)
    embedder = load_embedder(arguments.model)
    rows, targets = labeled_rows(list(task.rows["label"]), task.benchmark)
    images = embedder.images(task.rows)[rows]
    texts = {language: embed_classes(embedder, task.benchmark, language) for language in task.languages}
    own = float(embedder.model.logit_scale.exp())
    place = "--dataset DIR --benchmark" if arguments.dataset else "--zero_shot"
    source = f"{place} {task.benchmark.name}{'' if arguments.dataset else '=FOLDER'}"
    results = described(f"figures MODEL {source}") | {
        "model": Path(arguments.model).name,
        "dataset": task.benchmark.name,
        "images": len(rows),
        "classes": len(task.benchmark.labels),
        "languages": task.languages,
        "temperatures": {"published": PUBLISHED, "own": own},
        "situations": {},
    }
    for name, folders in situations(targets, np.random.default_rng(0)):
        outcomes = measure_situation(folders, images, texts, targets, own)
        facts = {"draws": len(folders), "images": float(np.mean([len(rows) for rows, _ in folders]))}
        facts |= {kind: summarize(found, found.zero_shot) for kind, found in outcomes.items()}
        results["situations"][name] = facts
        if name == "all images":
            results["by_language"] = {
                language: {kind: summarize(found, [f"{language}-0"]) for kind, found in outcomes.items()}
                for language in task.languages
            }
        print(name, json.dumps(results["situations"][name]), flush=True)
    return results


def read_task(arguments: argparse.Namespace) -> Task:
    if arguments.dataset:
        return read_corpus(arguments.dataset, "test", None, arguments.benchmark)
    ((name, folder),) = named_folders([arguments.zero_shot], "--zero_shot").items()
    return read_folder(name, folder, None)


def measure_speed(arguments: argparse.Namespace) -> dict:
    results = described("speed") | {"classes": CLASSES, "dim": DIM, "threads": torch.get_num_threads(), "sizes": []}
    for images in arguments.images:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            results["sizes"].append(process.submit(measure_call, images).result())
        print(json.dumps(results["sizes"][-1]), flush=True)
    return results


def measure_call(images: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(CLASSES, DIM, generator=generator)
    embeds = torch.randn(images, DIM, generator=generator).add_(classes[torch.arange(images) % CLASSES])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    transductive_assignments(embeds, classes)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": images, "seconds": round(seconds, 2), "peak_mb": round(peak), "peak_mb_before": round(before)}


def described(words: str) -> dict:
    return describe_run(f"python -m rsmclip.benchmarks.transductive {words} --output FILE.json", "torch", "numpy")


def write(results: dict, path: Path) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def print_tables(arguments: argparse.Namespace) -> None:
    """Print a table of the folders and one of the languages for each file of `figures`."""
    header = ["one by one", "T = 100", "difference", "own T", "difference"]
    metric = arguments.metric
    for path in arguments.files:
        results = read_json(path)
        own = results["temperatures"]["own"]
        print(f"\n{results['model']} on {results['dataset']}: {metric} in percent, own T = {own:.1f}\n")
        rows = []
        for name, record in results["situations"].items():
            worse = [f"{record[kind][metric]['worse']:.0f} %" for kind in ("published", "own")]
            rows.append([name, f"{record['images']:.0f}", *cells(record, metric), *worse])
        print(table(["folder", "images", *header, "worse, T = 100", "worse, own T"], rows) + "\n")
        rows = [[language, *cells(record, metric)] for language, record in results["by_language"].items()]
        print(table(["language", *header], rows))


def cells(record: dict, metric: str) -> list[str]:
    found = [f"{record['published'][metric]['alone']:.1f}"]
    for each in (record["published"][metric], record["own"][metric]):
        low, high = each["interval"]
        found += [f"{each['together']:.1f}", f"{each['difference']:+.1f} ({low:+.1f} … {high:+.1f})"]
    return found


def main() -> None:
    parser = OneLineParser(prog="python -m rsmclip.benchmarks.transductive", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    figures = commands.add_parser("figures", help="compare with one-by-one classification")
    figures.add_argument("model", help="folder or Hub id")
    source = figures.add_mutually_exclusive_group(required=True)
    source.add_argument("--zero_shot", metavar="NAME=DIR", help="folder of images by class")
    source.add_argument("--dataset", metavar="DIR", help="corpus, of which the split test is measured")
    figures.add_argument("--benchmark", metavar="NAME", default="demo", help="class names of the corpus")
    figures.set_defaults(run=lambda arguments: write(measure_figures(arguments), arguments.output))
    speed = commands.add_parser("speed", help="measure time and memory")
    speed.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    speed.set_defaults(run=lambda arguments: write(measure_speed(arguments), arguments.output))
    for command in (figures, speed):
        command.add_argument("--output", type=Path, required=True, help="JSON file for the results")
    tables = commands.add_parser("table", help="print the tables of results")
    tables.add_argument("files", type=Path, nargs="+")
    tables.add_argument("--metric", choices=METRICS, default="accuracy")
    tables.set_defaults(run=print_tables)
    arguments = parser.parse_args()
    run_command(lambda: arguments.run(arguments), parser.prog)


if __name__ == "__main__":
    main()
