"""Measure the speed and the memory of training.

    python -m rsmclip.benchmarks.training PART … --corpus DIR --tokenizer DIR --output FILE [--peer_python PYTHON]
    python -m rsmclip.benchmarks.training table FILE

The parts:
    compare      the contrastive loss alone against OpenCLIP's training loop, on equal images and English captions;
                 PYTHON is the interpreter of an environment with OpenCLIP
    views        2 global and 8 local views with the teacher against the contrastive loss alone, and the ratio that
                 the count of floating-point operations predicts
    stages       the time of each stage of a step
    pipeline     decoding, drawing and tokenizing alone, and how long the training of the demo waits for data
    memory       the peak memory of a GPU at several batch sizes
    throughput   the rate without and with torch.compile
`table` prints a results file as Markdown. Every part adds its results to FILE when it ends.
"""

import argparse
import csv
import dataclasses
import io
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoTokenizer

from rsmclip import RSMCLIPConfig
from rsmclip.benchmarks.machine import describe_run
from rsmclip.benchmarks.training_tables import as_markdown
from rsmclip.benchmarks.turns import Side, alternate, ratio, summarize
from rsmclip.core.command_line import run_command
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.schema import check_schema, load_corpus
from rsmclip.models.folder import make_processor
from rsmclip.models.openclip import describe
from rsmclip.training.batches import CaptionedViews, Collate
from rsmclip.training.command_line import read_yaml, recipe_file
from rsmclip.training.config import TrainingConfig
from rsmclip.training.initial_model import token_ids

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "pillow")
TINY_TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES = {  # fields of RSMCLIPConfig, and the side of local views
    "full": ({}, 96),
    "tiny": (
        {
            "projection_dim": 32,
            "vision_config": TINY_TOWER | {"image_size": 64, "patch_size": 16},
            "text_config": TINY_TOWER,
            "self_distillation": {"hidden_size": 64, "bottleneck_size": 32, "num_prototypes": 256},
        },
        32,
    ),
}
CLIP_ONLY = {"self_distillation_weight": 0.0, "num_global_views": 1, "captions_per_image": 1}
# OpenCLIP augments by a crop only.
OPENCLIP_VIEWS = {"global_scale": [0.9, 1.0], **dict.fromkeys(("brightness", "contrast", "saturation"), 0.0)}
OPENCLIP_VIEWS |= dict.fromkeys(("hue", "grayscale", "blur"), 0.0)
ALL_VIEWS = "two_and_eight_views"
TWO_AND_EIGHT = {"num_global_views": 2, "num_local_views": 8}
SETTINGS = ("size", "languages", "batch_size", "precision", "workers", "threads", "warmup", "rounds", "settle")
SETTINGS += ("steps",)
PLACES = {"--corpus": "DIR", "--tokenizer": "DIR", "--peer_python": "PYTHON", "--output": "FILE"}
EPOCHS, IMAGES = 100, 50_000  # of the run in the last columns of `throughput`


def compare(options: argparse.Namespace, folder: Path) -> dict:
    """Measure our step with the contrastive loss alone and OpenCLIP's training loop, in turns."""
    ours = our_side("ours", options, folder, CLIP_ONLY | OPENCLIP_VIEWS | {"languages": ["en"]})
    sides = [ours] + ([openclip_side(options, folder)] if options.peer_python else [])
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side)
        warm = {side.name: side.ask("steps", settle=0, steps=options.warmup) for side in sides}
        check_same_size({name: answer["parameters"] for name, answer in warm.items()})
        found = alternate(sides, options.rounds, options.settle, options.steps, options.batch_size)
    for name, answer in warm.items():
        found[name]["parameters"] = answer["parameters"]
    if options.peer_python:
        found["ratio"] = ratio(found["ours"], found["openclip"])
    return found


def check_same_size(parameters: dict[str, int]) -> None:
    """Raise if the sides train models of different sizes."""
    if len(set(parameters.values())) > 1:
        raise UserError(f"the sides train models with different numbers of parameters: {parameters}")


def views(options: argparse.Namespace, folder: Path) -> dict:
    """Measure two global and eight local views with the teacher, and the contrastive loss alone, in turns."""
    names = ("clip_only", ALL_VIEWS)
    with our_side(names[0], options, folder, CLIP_ONLY) as clip_only:
        sides = [clip_only, all_views(options, folder)]
        for side in sides:
            side.ask("steps", settle=0, steps=options.warmup)
        flops = {side.name: side.ask("flops")["flops_per_pair"] for side in sides}
        found = alternate(sides, options.rounds, options.settle, options.steps, options.batch_size)
    for name in names:
        found[name]["gflop_per_pair"] = round(flops[name] / 1e9, 2)
    predicted = flops[names[0]] / flops[names[1]]
    found["ratio"] = ratio(found[names[1]], found[names[0]])
    found["predicted_ratio"] = round(predicted, 3)
    found["measured_over_predicted"] = round(found["ratio"]["median"] / predicted, 3)
    return found


def stages(options: argparse.Namespace, folder: Path) -> dict:
    """Measure the time of each stage of a step with two global and eight local views."""
    side = all_views(options, folder)
    side.ask("steps", settle=0, steps=options.warmup)
    found = alternate([side], options.rounds, options.settle, options.steps, options.batch_size)[side.name]
    seconds = side.ask("stages", steps=options.steps)["seconds"]
    found |= utilization(side, found["pairs_per_second"], options)
    found["seconds_per_step"] = round(options.batch_size / found["pairs_per_second"], 4)
    found["stages"] = {name: round(value, 5) for name, value in seconds.items()}
    return found


def pipeline(options: argparse.Namespace, folder: Path) -> dict:
    """Measure the rate of the input pipeline alone, and how long the training of the demo waits for data."""
    fields = run_fields(options, folder / "pipeline", TWO_AND_EIGHT)
    config = TrainingConfig(**fields)
    rows = check_schema(load_corpus(config.dataset), "train", config.languages)
    image_size = RSMCLIPConfig(**config.model_config).vision_config.image_size
    specs = config.view_specs(image_size)
    examples = CaptionedViews(rows, config.caption_sampling(), specs, config.short_side, config.seed)
    collate = Collate(AutoTokenizer.from_pretrained(config.tokenizer), config.max_length)
    found = {"images_per_second_and_core": round(pipeline_rate(examples, collate, options), 1), "demo": {}}
    print(f"  {found['images_per_second_and_core']} images/s on one core", flush=True)
    for workers in (0, 2):
        demo = read_yaml(recipe_file("demo")) | {"num_workers": workers, "cpu_threads": options.threads}
        demo |= {"output_dir": str(folder / f"demo_{workers}"), "max_train_steps": 10**6}
        with worker_side(f"demo with {workers} workers", demo, folder, options) as side:
            side.ask("steps", settle=0, steps=20)
            turns = [side.ask("steps", settle=5, steps=30) for _ in range(options.rounds)]
        found["demo"][f"{workers} workers"] = summarize(turns, 30 * demo["batch_size"])
    return found


def pipeline_rate(examples: CaptionedViews, collate: Collate, options: argparse.Namespace) -> float:
    """Return the images per second of the input pipeline in this process, on one thread."""
    torch.set_num_threads(1)
    count = min(len(examples), 1024) // options.batch_size * options.batch_size
    starts = range(0, count, options.batch_size)
    seconds = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        for start in starts:
            collate([examples[0, row] for row in range(start, start + options.batch_size)])
        seconds.append(time.perf_counter() - began)
    return count / min(seconds)


def memory(options: argparse.Namespace, folder: Path) -> dict:
    """Measure the peak memory of a GPU at several batch sizes, with whole batches and batches in chunks."""
    if not torch.cuda.is_available():
        raise UserError("the part memory needs a GPU")
    found, side = [], all_views(options, folder)
    side.ask("steps", settle=0, steps=2)  # the optimizer's state is part of the peak
    for batch_size in sorted(options.batch_sizes):
        for chunks in options.chunks:
            answer = side.ask("memory", batch_size=batch_size, chunks=chunks, steps=2)
            found.append({"batch_size": batch_size, "chunks": chunks, **answer})
            print(f"  {found[-1]}", flush=True)
    return {"peaks": found}


def throughput(options: argparse.Namespace, folder: Path) -> dict:
    """Measure two global and eight local views without and with `torch.compile`."""
    compiled = {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "true"}
    plain, found, used = all_views(options, folder), {}, {}
    for name in ("compile off", "compile on"):
        if name == "compile off":
            context = nullcontext(plain)
        else:
            context = our_side("compiled", options, folder, TWO_AND_EIGHT, compiled)
        with context as side:
            began = time.perf_counter()
            side.ask("steps", settle=0, steps=options.warmup)
            start = time.perf_counter() - began
            measured = alternate([side], options.rounds, options.settle, options.steps, options.batch_size)[side.name]
            if side is plain:
                used = utilization(side, measured["pairs_per_second"], options)
                if torch.cuda.is_available():
                    used["synchronizations"] = side.ask("synchronizations", steps=3)
        # The number of operations is that of the model without the compiler.
        share = measured["pairs_per_second"] * used["gflop_per_pair"] / 1e3 / used["peak_tflops"]
        hours = EPOCHS * IMAGES / measured["pairs_per_second"] / 3600
        more = {"utilization_percent": round(100 * share, 1), "hours": round(hours, 2)}
        found[name] = measured | more | {"start_seconds": round(start, 1)}
    return {**used, **found}


def utilization(side: Side, pairs_per_second: float, options: argparse.Namespace) -> dict:
    """Return the model's operations per pair, and their share of what the device can compute in that time."""
    gflop = side.ask("flops")["flops_per_pair"] / 1e9
    found = {"gflop_per_pair": round(gflop, 2)}
    if options.peak_tflops:
        found |= {"peak_tflops": options.peak_tflops, "peak": "as given"}
    else:
        product = side.ask("matrix_product")
        found["peak_tflops"] = round(product["flops_per_second"] / 1e12, 4)
        found["peak"] = f"measured: a product of two {product['size']}² matrices in {product['dtype']}"
    achieved = pairs_per_second * gflop / 1e3
    percent = round(100 * achieved / found["peak_tflops"], 1)
    return found | {"achieved_tflops": round(achieved, 4), "utilization_percent": percent}


def run_fields(options: argparse.Namespace, output_dir: Path, fields: dict) -> dict:
    """Return the fields of the training configuration of a measured run."""
    model_config, local_size = SIZES[options.size]
    return {
        "dataset": str(options.corpus.resolve()),
        **dict.fromkeys(("train_split", "validation_split", "test_split"), "train"),
        "languages": options.languages,
        "tokenizer": str(options.tokenizer.resolve()),
        "model_config": model_config,
        "local_size": local_size,
        "batch_size": options.batch_size,
        "num_workers": options.workers,
        "cpu_threads": options.threads,
        "mixed_precision": options.precision,
        "max_train_steps": 10**6,
        "output_dir": str(output_dir),
        **fields,
    }


def our_side(
    name: str, options: argparse.Namespace, folder: Path, fields: dict, environment: dict[str, str] | None = None
) -> Side:
    values = run_fields(options, folder / name.replace(" ", "_"), fields)
    return worker_side(name, values, folder, options, environment)


def all_views(options: argparse.Namespace, folder: Path) -> Side:
    """Return the run with two global and eight local views and the teacher, which all parts of a command share."""
    if options.shared is None:
        options.shared = options.processes.enter_context(our_side(ALL_VIEWS, options, folder, TWO_AND_EIGHT))
    return options.shared


def worker_side(
    name: str, fields: dict, folder: Path, options: argparse.Namespace, environment: dict[str, str] | None = None
) -> Side:
    path = folder / f"{name.replace(' ', '_')}.json"
    path.write_text(json.dumps(dataclasses.asdict(TrainingConfig(**fields))), encoding="utf-8")
    command = [sys.executable, "-m", "rsmclip.benchmarks.training_worker", str(path)]
    return Side(name, command, folder, thread_environment(options) | (environment or {}))


def thread_environment(options: argparse.Namespace) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}


def openclip_side(options: argparse.Namespace, folder: Path) -> Side:
    """Return the process of OpenCLIP's training command, with our architecture, images and captions."""
    export_pairs(check_schema(load_corpus(str(options.corpus.resolve())), "train", ["en"]), folder)
    model_config = export_architecture(options, folder)
    arguments = {
        **{"model_config": model_config, "model": model_config.stem, "batch-size": options.batch_size},
        **{"train-data": folder / "pairs.csv", "dataset-type": "csv", "csv-separator": ","},
        **{"csv-img-key": "image", "csv-caption-key": "caption", "workers": options.workers},
        **{"precision": {"no": "fp32", "bf16": "amp_bf16"}[options.precision], "epochs": 10**6, "logs": "none"},
        **{"lr": 1e-4, "warmup": 50, "wd": 0.1, "device": "cuda" if torch.cuda.is_available() else "cpu"},
        **({"threads": options.threads} if options.threads else {}),
    }
    command = [options.peer_python, str(Path(__file__).with_name("openclip_training.py").resolve())]
    command += [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    return Side("openclip", command, folder, thread_environment(options))


def export_pairs(rows: Dataset, folder: Path) -> None:
    """Write what OpenCLIP reads: the images as files, and `pairs.csv` with a line for each English caption."""
    (folder / "images").mkdir()
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        for number, row in enumerate(rows):
            encoded = row["image"]["bytes"]
            path = folder / "images" / f"{number}.{Image.open(io.BytesIO(encoded)).format.lower()}"
            path.write_bytes(encoded)
            writer.writerows([path, caption] for caption in row["captions"]["en"] or [] if caption)


def export_architecture(options: argparse.Namespace, folder: Path) -> Path:
    """Write OpenCLIP's configuration of our architecture, and a folder with the text tower's sizes and tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    fields = dict(SIZES[options.size][0])
    fields["text_config"] = fields.get("text_config", {}) | token_ids(tokenizer)
    config = RSMCLIPConfig(**fields | {"self_distillation": None})
    processor = make_processor(tokenizer, config.vision_config.image_size)
    model_cfg = describe(config, processor.image_processor)["model_cfg"]
    text_model = folder / "text_model"
    config.text_config.save_pretrained(text_model)
    tokenizer.save_pretrained(text_model)
    model_cfg["text_cfg"] |= {"hf_model_name": str(text_model), "hf_tokenizer_name": str(text_model)}
    path = folder / "benchmark.json"
    path.write_text(json.dumps(model_cfg, indent=2), encoding="utf-8")
    return path


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict]] = {
    part.__name__: part for part in (compare, views, stages, pipeline, memory, throughput)
}


def published_command(arguments: list[str]) -> str:
    """Return the command with placeholders for the folders and files of this machine."""
    shown = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if equals and name in PLACES:
            argument = f"{name}={PLACES[name]}"
        elif shown and shown[-1] in PLACES:
            argument = PLACES[shown[-1]]
        shown.append(argument)
    return shlex.join(["python", "-m", "rsmclip.benchmarks.training", *shown])


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of every command except `table`."""
    gpu = torch.cuda.is_available()
    common = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_argument("parts", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    common.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder of a built corpus")
    common.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="XLM-RoBERTa's tokenizer")
    common.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file for the results")
    common.add_argument("--size", choices=list(SIZES), default="full", help="size of the model; tiny for a trial")
    languages = "languages of the captions; compare uses English"
    common.add_argument("--languages", nargs="+", default=list(LANGUAGES), help=languages)
    common.add_argument("--batch_size", type=int, default=256 if gpu else 16, help="pairs in a step")
    common.add_argument("--precision", choices=["no", "bf16"], default="bf16" if gpu else "no")
    common.add_argument("--workers", type=int, default=2, help="processes that load data")
    common.add_argument("--threads", type=int, default=None if gpu else os.cpu_count(), help="CPU threads")
    common.add_argument("--warmup", type=int, default=30 if gpu else 2, help="steps before the first turn")
    common.add_argument("--rounds", type=int, default=5, help="number of turns of each side")
    common.add_argument("--settle", type=int, default=10 if gpu else 1, help="unmeasured steps of a turn")
    common.add_argument("--steps", type=int, default=30 if gpu else 4, help="measured steps of a turn")
    common.add_argument("--peak_tflops", type=float, help="peak of the device (default: measured)")
    common.add_argument("--peer_python", help="Python of an environment with OpenCLIP (default: our side only)")
    common.add_argument("--batch_sizes", type=int, nargs="+", default=[256, 512, 1024], help="for the part memory")
    common.add_argument("--chunks", type=int, nargs="+", default=[1, 4], help="for the part memory")
    common.set_defaults(shared=None, processes=None)
    return common


def measure(options: argparse.Namespace, arguments: list[str]) -> None:
    """Run the parts and add the results of each part to the results file."""
    described = describe_run(published_command(arguments), *PACKAGES)
    settings = {name: getattr(options, name) for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as options.processes:
        for part in options.parts:
            (place := Path(folder) / part).mkdir()
            found = PARTS[part](options, place)
            shown = settings | ({"languages": ["en"]} if part == "compare" else {})
            with user_errors(OSError, ValueError, prefix=str(options.output)):
                results = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
            results[part] = {**described, "settings": shown, "results": found}
            text = json.dumps(results, indent=2, ensure_ascii=False)
            with user_errors(OSError, prefix=str(options.output)):
                options.output.write_text(text + "\n", encoding="utf-8")
            print(as_markdown({part: results[part]}), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run parts of the benchmark or print a table."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["table"] and len(arguments) == 2:
        with user_errors(OSError, ValueError, prefix=arguments[1]):
            results = json.loads(Path(arguments[1]).read_text(encoding="utf-8"))
        print(as_markdown(results))
    else:
        measure(make_parser().parse_args(arguments), arguments)


if __name__ == "__main__":
    run_command(main, "training benchmark")
