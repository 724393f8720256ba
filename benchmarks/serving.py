"""Time the handler on a CPU, with the model in torch, in ONNX, and in ONNX with int8 weights.

    python -m rsmclip.benchmarks.serving MODEL [--threads 2] [--output FILE.json]
    python -m rsmclip.benchmarks.serving MODEL --full_size --output FILE.json

The benchmark calls `EndpointHandler.__call__` as an endpoint does: base64 in, scores of 18 labels out, with one image
or with 32. All calls have the same labels, and the handler caches their embeddings. Calls of one image with labels
that are not cached are timed separately. `--full_size` measures the released architecture with random weights and
MODEL's tokenizer.

Each backend runs in a process of its own, all with the same number of threads, and they take turns. The results also
say what speed costs: the largest difference of a score from torch, and how often the best label is the same.
"""

import argparse
import base64
import io
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from transformers import AutoProcessor

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.benchmarks.machine import describe_run
from rsmclip.benchmarks.turns import Side
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import load_corpus
from rsmclip.hub.export_onnx import Encoder, OnnxTowers, example_inputs, export_graph
from rsmclip.hub.handler import EndpointHandler, open_image
from rsmclip.models.folder import make_processor, save_model_folder

BACKENDS = {"torch": None, "onnx": "", "onnx int8": "_int8"}  # name: suffix of its graphs
TOWERS = ("vision_model", "text_model")
SIDE = 256  # pixels of an image, as in NWPU-RESISC45
IMAGES = 32
TEMPLATE = "a satellite image of {}."
# Name of a call: number of images, and whether the embeddings of the labels are cached.
CALLS = {"1 image": (1, True), "1 image, new labels": (1, False), "32 images": (32, True)}


def make_requests() -> tuple[list[str], list[str]]:
    """Return pictures of the demo corpus as JPEGs in base64, and the names of its classes."""
    rows = load_corpus(str(cached_demo()))["test"]
    labels = sorted(set(rows["label"]))
    images = []
    for image in rows.select(range(IMAGES))["image"]:
        buffer = io.BytesIO()
        picture = Image.open(io.BytesIO(image["bytes"])).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(buffer, "JPEG", quality=90)
        images.append(base64.b64encode(buffer.getvalue()).decode())
    return images, labels


def make_full_size(source: str, folder: Path) -> None:
    """Write a model folder with the released architecture, random weights and the tokenizer of `source`."""
    torch.manual_seed(0)
    model = RSMCLIPModel(RSMCLIPConfig(self_distillation=None)).eval()
    tokenizer = AutoProcessor.from_pretrained(source, trust_remote_code=True).tokenizer
    save_model_folder(model, make_processor(tokenizer, model.config.vision_config.image_size), folder)


def export_towers(source: str, folder: Path) -> int:
    """Write both towers as graphs, in float32 and int8. Return the number of parameters of the model."""
    model = RSMCLIPModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True).eval()
    for name in TOWERS:
        path = folder / f"{name}.onnx"
        export_graph(Encoder(model, name), example_inputs(model, images=2, texts=3, length=9), path)
        quantize_dynamic(path, folder / f"{name}_int8.onnx", weight_type=QuantType.QInt8)
    return sum(parameter.numel() for parameter in model.parameters())


class Backend:
    """
    One side of the comparison: a handler with the towers of a backend.

    Args:
        name (`str`): A key of `BACKENDS`.
        source (`str`): Model folder.
        graphs (`Path`): Folder of the graphs.
        threads (`int`): Threads of the model.
    """

    def __init__(self, name: str, source: str, graphs: Path, threads: int):
        torch.set_num_threads(threads)
        self.endpoint = EndpointHandler(source)
        if (ending := BACKENDS[name]) is not None:
            files = [graphs / f"{tower}{ending}.onnx" for tower in TOWERS]
            self.endpoint.model = OnnxTowers(*files, threads)
        self.images, self.labels = make_requests()

    def call(self, number: int, images: int, seen: bool) -> list:
        """Answer a request with some of the images."""
        if not seen:
            self.endpoint.label_embeds.cache_clear()
        chosen = [self.images[(number + index) % IMAGES] for index in range(images)]
        parameters = {"candidate_labels": self.labels, "hypothesis_template": TEMPLATE}
        return self.endpoint({"inputs": chosen, "parameters": parameters})

    def scores(self) -> list[list[float]]:
        """Return the scores `(images, labels)`."""
        answers = [{entry["label"]: entry["score"] for entry in answer} for answer in self.call(0, IMAGES, True)]
        return [[answer[label] for label in self.labels] for answer in answers]

    def time(self, images: int, seen: bool, calls: int) -> list[float]:
        """Return the seconds of each call, after a warm-up call."""
        self.call(0, images, seen)
        seconds = []
        for number in range(calls):
            start = time.perf_counter()
            self.call(number, images, seen)
            seconds.append(time.perf_counter() - start)
        return seconds

    def stages(self) -> dict[str, float]:
        """Return the milliseconds per image of each stage of a call of 32 images, the median of five calls."""
        taken = {"base64 and JPEG": [], "preprocessing": [], "image tower": []}
        for _ in range(5):
            start = time.perf_counter()
            images = [open_image(base64.b64decode(image)) for image in self.images]
            decoded = time.perf_counter()
            pixels = [self.endpoint.image_processor(image, return_tensors="pt")["pixel_values"] for image in images]
            prepared = time.perf_counter()
            self.endpoint.run(self.endpoint.model.get_image_features, [{"pixel_values": torch.cat(pixels)}])
            ends = (start, decoded, prepared, time.perf_counter())
            for stage, first, last in zip(taken.values(), ends, ends[1:], strict=False):
                stage.append(1000 * (last - first) / IMAGES)
        return {stage: round(statistics.median(milliseconds), 2) for stage, milliseconds in taken.items()}

    def serve(self) -> None:
        """Answer requests, lines of JSON on stdin, until stdin ends."""
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(self, request.pop("do"))(**request)
            print(json.dumps({"answer": answer}), flush=True)


def measure(sides: dict[str, Side], rounds: int, calls: int) -> dict[str, dict]:
    """Return latency and throughput of each backend for each kind of call. The backends take turns in each round."""
    seconds = {name: {kind: [] for kind in CALLS} for name in sides}
    for number in range(rounds):
        for kind, (images, seen) in CALLS.items():
            count = max(2, calls // 8) if images > 1 else calls
            for name, side in sides.items():
                seconds[name][kind] += side.ask("time", images=images, seen=seen, calls=count)["answer"]
        print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return {
        name: {kind: summarize(taken, CALLS[kind][0]) for kind, taken in kinds.items()}
        for name, kinds in seconds.items()
    }


def summarize(seconds: list[float], images: int) -> dict[str, float]:
    """Return percentiles of the latency in milliseconds, and the images per second of all calls together."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    rate = images * len(seconds) / sum(seconds)
    figures = {"p50_ms": p50, "p95_ms": p95, "images_per_second": rate}
    return {name: round(float(figure), 1) for name, figure in figures.items()} | {"calls": len(seconds)}


def compare(scores: dict[str, list[list[float]]]) -> dict[str, dict[str, float]]:
    """Return the differences of each backend's scores from those of torch."""
    ours = np.array(scores["torch"])
    differences = {}
    for name, found in scores.items():
        theirs = np.array(found)
        differences[name] = {
            "largest_difference": float(f"{np.abs(theirs - ours).max():.2e}"),
            "same_best_label_percent": round(100 * float((theirs.argmax(1) == ours.argmax(1)).mean()), 1),
        }
    return differences


def table(results: dict) -> str:
    """Return the results as a table."""
    lines = [f"{'backend':<10} {'call':<20} {'p50 ms':>9} {'p95 ms':>9} {'images/s':>9}  {'largest difference':>18}"]
    for name, kinds in results["backends"].items():
        for kind, found in kinds.items():
            difference = results["quality"][name]["largest_difference"]
            figures = f"{found['p50_ms']:>9.1f} {found['p95_ms']:>9.1f} {found['images_per_second']:>9.1f}"
            lines.append(f"{name:<10} {kind:<20} {figures}  {difference:>18.1e}")
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> dict:
    """Run the whole comparison and return its results."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = arguments.model
        if arguments.full_size:
            source = str(folder / "full_size")
            make_full_size(arguments.model, Path(source))
        parameters = export_towers(source, folder)

        # Start a process for each backend, without GPU, and measure.
        command = [sys.executable, "-m", "rsmclip.benchmarks.serving", source, "--graphs", str(folder)]
        command += ["--threads", str(arguments.threads), "--side"]
        environment = {"OMP_NUM_THREADS": str(arguments.threads), "CUDA_VISIBLE_DEVICES": ""}
        sides = {name: stack.enter_context(Side(name, [*command, name], Path.cwd(), environment)) for name in BACKENDS}
        scores = {name: side.ask("scores")["answer"] for name, side in sides.items()}
        results = {
            "model": "released architecture, random weights" if arguments.full_size else Path(source).name,
            "parameters": parameters,
            "threads": arguments.threads,
            "images": f"{IMAGES} JPEGs of {SIDE} pixels, drawn",
            "labels": len(make_requests()[1]),
            "rounds": arguments.rounds,
            "backends": measure(sides, arguments.rounds, arguments.calls),
            "quality": compare(scores),
            "torch_stages_ms_per_image": sides["torch"].ask("stages")["answer"],
        }
    return results


def main() -> None:
    """Run the comparison, or one backend in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m rsmclip.benchmarks.serving", description=__doc__)
    parser.add_argument("model", help="model folder")
    parser.add_argument(
        "--full_size", action="store_true", help="measure the released architecture with random weights"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each backend (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each backend (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=32, help="calls of one image in a turn (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--side", choices=BACKENDS, help=argparse.SUPPRESS)  # of the child processes
    parser.add_argument("--graphs", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        Backend(arguments.side, arguments.model, arguments.graphs, arguments.threads).serve()
        return
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    results = run(arguments)
    options = f"--threads {arguments.threads} --rounds {arguments.rounds} --calls {arguments.calls}"
    command = f"python -m rsmclip.benchmarks.serving MODEL{' --full_size' * arguments.full_size} {options}"
    described = describe_run(command, "torch", "onnxruntime", "transformers", "pillow") | results
    print(table(results))
    print(json.dumps(described["torch_stages_ms_per_image"]))
    if arguments.output:
        arguments.output.write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
