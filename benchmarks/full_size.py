"""Run rs_m_clip.yaml and recipes derived from it at full size, from the dry run to the exports; measure each stage.

    python -m rsmclip.benchmarks.full_size [RECIPE …] --tokenizer TOKENIZER --output RESULT.json

Each stage is a command line of the project. The model has 366 M random parameters; a run has three steps of batch 8
with all views on drawn images. A second run gets SIGTERM after its first step and is resumed: its weights and losses
must equal those of the first run bit for bit. The result is written after each stage, and a second call continues. A
call with a complete result prints its table.
"""

import argparse
import filecmp
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import torch
import yaml

from rsmclip.benchmarks.machine import describe_run
from rsmclip.benchmarks.processes import measured
from rsmclip.benchmarks.soak import RECIPE, steps_of
from rsmclip.benchmarks.training_tables import table
from rsmclip.core.command_line import OneLineParser, run_command
from rsmclip.core.errors import UserError
from rsmclip.core.files import new_folder, read_json, write_whole
from rsmclip.core.languages import LANGUAGES
from rsmclip.data.demo.corpus import demo_card, demo_examples
from rsmclip.data.schema import features
from rsmclip.data.write import write_corpus
from rsmclip.models.folder import save_model_folder
from rsmclip.training.config import TrainingConfig
from rsmclip.training.initial_model import make_model

ROOT = Path(__file__).parent.parent
RECIPES = ("rs_m_clip", "english_only", "no_self_distillation", "lora")
ROWS = {"train": 24, "val": 8, "test": 50}
STEPS, TINY_STEPS = 3, 60  # the tiny run must be long enough to be interrupted
TINY = {name: RECIPE[name] for name in ("model_config", "short_side", "num_local_views", "local_size")}
EVALUATED = ["en", "pt"]


def write_config(recipe: str, precision: str, folder: Path, options: argparse.Namespace) -> Path:
    """Write the recipe with the length and the data of the measurement. Adapters get a random model to start from."""
    steps = TINY_STEPS if options.tiny else STEPS
    fields = {"base": str(ROOT / "configs" / f"{recipe}.yaml"), "dataset": str(folder.parent / "corpus")}
    fields |= {"max_train_steps": steps, "batch_size": 8, "num_workers": 2, "mixed_precision": precision}
    fields |= {"evaluation_steps": steps, "checkpoint_steps": steps, "keep_checkpoints": 1, "logging_steps": 1}
    fields |= {"evaluation_languages": EVALUATED, **(TINY if options.tiny else {})}
    if recipe == "lora":
        fields |= {"model": str(folder / "start"), "merge_adapter": True}
        if not (folder / "start").is_dir():
            settings = TrainingConfig(tokenizer=options.tokenizer, model_config=fields.get("model_config", {}))
            torch.manual_seed(0)
            with new_folder(folder / "start") as start:
                save_model_folder(*make_model(settings, (), (), with_head=False), start)
    else:
        fields["tokenizer"] = options.tokenizer
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def make_stages(config: Path) -> dict[str, tuple[list[str], Path]]:
    """Return the command line of each stage, and the folder that it writes."""
    folder = config.parent
    whole, stopped = folder / "training", folder / "interrupted"
    train, hub = [str(ROOT / "train.py"), "--config", str(config), "--output_dir"], ["-m", "rsmclip", "hub"]
    evaluate = ["-m", "rsmclip", "eval", str(whole), "--dataset", str(folder.parent / "corpus"), "--no_cache"]
    evaluate += ["--languages", *EVALUATED, "--output"]
    return {
        "dry_run": ([*train, str(whole), "--dry_run", "true"], whole),
        "training": ([*train, str(whole)], whole),
        "interrupted": ([*train, str(stopped)], stopped),
        "resumed": ([*train, str(stopped), "--resume_from_checkpoint", "latest"], stopped),
        "card": ([*hub, "card", str(whole)], whole),
        "evaluation": ([*evaluate, str(folder / "evaluation")], folder / "evaluation"),
        "export_openclip": ([*hub, "export-openclip", str(whole), str(folder / "openclip")], folder / "openclip"),
        "export_onnx": ([*hub, "export-onnx", str(whole), str(folder / "onnx")], folder / "onnx"),
    }


KEEP_OUTPUT = ("resumed", "card")  # stages that continue with the files of a stage before


def run_stage(name: str, arguments: list[str], output: Path) -> dict:
    """Run a stage in a process of its own. Returns seconds, peak memory, disk and what the stage shows."""
    if name not in KEEP_OUTPUT:
        shutil.rmtree(output, ignore_errors=True)  # of a stage that was interrupted
    log, printed = output / "train_log.jsonl", output.parent / f"{name}.txt"
    interrupt = {"stop_when": lambda: log.is_file() and b'"loss"' in log.read_bytes(), "status": 128 + 15}
    found = measured([sys.executable, *arguments], printed, **(interrupt if name == "interrupted" else {}))
    found["disk_bytes"] = size_of(output)
    if name == "dry_run":
        found["disk"] = re.search(r"^disk: (.*?)(;|$)", printed.read_text(encoding="utf-8"), re.MULTILINE)[1]
    if name == "training":
        found["checkpoint_bytes"] = size_of(output / "checkpoints")
        found["steps_seconds"] = round(read_json(output / "eval_results.json")["seconds"], 1)  # with the checkpoint
    if name == "resumed":
        whole = output.with_name("training")
        weights = (folder / "model.safetensors" for folder in (whole, output))
        found["equal_weights"] = filecmp.cmp(*weights, shallow=False)
        found["equal_losses"] = steps_of(whole) == steps_of(output)
    return found


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder and its subfolders."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_recipe(recipe: str, precision: str, options: argparse.Namespace, record: dict) -> None:
    """Run the stages of a recipe that the record lacks. The files are deleted after the last stage."""
    folder, found = options.folder / f"{recipe}-{precision}", record["runs"].setdefault(f"{recipe} {precision}", {})
    if set(make_stages(folder / "config.yaml")) <= set(found):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, stage in make_stages(write_config(recipe, precision, folder, options)).items():
        if name not in found:
            found[name] = run_stage(name, *stage)
            write_whole(options.output, json.dumps(record, indent=1) + "\n")
            print(recipe, precision, name, json.dumps(found[name]), flush=True)
    shutil.rmtree(folder)


def make_table(runs: dict[str, dict[str, dict]]) -> str:
    """Return a row for each run: seconds and peak memory of its stages, disk, and whether the resumed run is equal."""
    rows = []
    for name, found in runs.items():
        stages = [f"{stage['seconds']:.0f} s, {stage['peak_bytes'] / 1e9:.1f} GB" for stage in found.values()]
        disk = f"{found['dry_run']['disk'].split(' (')[0]}, {found['training']['disk_bytes'] / 1e9:.1f} GB"
        equal = "yes" if found["resumed"]["equal_weights"] and found["resumed"]["equal_losses"] else "no"
        rows.append([name, *stages, disk, equal])
    stages = [stage.replace("_", " ") for stage in next(iter(runs.values()))]
    return table(["recipe, precision", *stages, "disk: dry run, found", "resumed equal"], rows)


def run(options: argparse.Namespace) -> None:
    """Run all stages, write the result, print it. Exit with status 1 if a resumed run differs from the whole run."""
    record = read_json(options.output) if options.output.is_file() else {"tiny": options.tiny, "runs": {}}
    if record["tiny"] != options.tiny:
        raise UserError(f"{options.output} has results of the other size of the model: give another --output")
    shown = [*options.recipes, "--precision", *options.precision, "--tokenizer", "TOKENIZER", "--output", "RESULT"]
    shown += ["--tiny"] if options.tiny else []
    command = shlex.join(["python", "-m", "rsmclip.benchmarks.full_size", *shown])
    record |= describe_run(command, "torch", "transformers", "accelerate", "peft", "onnxruntime")
    options.folder = options.folder.resolve()
    corpus = options.folder / "corpus"
    if not corpus.is_dir():
        write_corpus(demo_examples(rows=ROWS), features(LANGUAGES), corpus, overwrite=False, make_card=demo_card)
    for recipe in options.recipes:
        for precision in options.precision:
            run_recipe(recipe, precision, options, record)
    stages = set(make_stages(options.folder / "config.yaml"))
    print(make_table({name: found for name, found in record["runs"].items() if stages <= set(found)}))
    resumed = [found["resumed"] for found in record["runs"].values() if "resumed" in found]
    sys.exit(0 if all(found["equal_weights"] and found["equal_losses"] for found in resumed) else 1)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m rsmclip.benchmarks.full_size", description=__doc__.partition("\n")[0])
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="RECIPE", help=f"default: {' '.join(RECIPES)}")
    parser.add_argument("--precision", nargs="+", choices=("no", "bf16"), default=("no", "bf16"))
    parser.add_argument("--tokenizer", required=True, help="folder or Hub id of XLM-RoBERTa's tokenizer")
    parser.add_argument("--output", type=Path, required=True, metavar="RESULT", help="JSON file for the result")
    place = {"type": Path, "default": Path("outputs/full_size")}
    parser.add_argument("--folder", **place, help="for corpus and runs, 20 GB (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the script")
    return parser


if __name__ == "__main__":
    chosen = make_parser().parse_args()
    run_command(lambda: run(chosen), "python -m rsmclip.benchmarks.full_size")
