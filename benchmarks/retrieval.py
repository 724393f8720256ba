"""Measure time and memory of the exact retrieval figures against a dense implementation.

    python -m rsmclip.benchmarks.retrieval --output FILE.json

The dense implementation computes one full similarity matrix and sorts it in each direction. Each implementation runs
in its own process with equal embeddings. Memory is the peak of the whole process, with interpreter, libraries and
embeddings. Both must give equal figures. At the end the exact figures of a large gallery are measured alone.

    python -m rsmclip.benchmarks.retrieval --side equal --images 50000

measures a gallery in which each image has one of ten captions, and equal captions count as right.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from rsmclip.benchmarks.machine import describe_run
from rsmclip.eval.retrieval import retrieval_metrics, retrieval_ranks, unit_rows

DIM = 512
CAPTIONS = 10  # distinct captions of the gallery with equal captions
NOISE = 12.0  # standard deviation of the noise of a text; figures are well between chance and perfect


def make_embeddings(images: int, texts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image_embeds = torch.randn(images, DIM, generator=generator)
    owner = torch.arange(texts) % images
    text_embeds = torch.randn(texts, DIM, generator=generator).mul_(NOISE)
    for start in range(0, texts, images):
        text_embeds[start : start + images] += image_embeds[: len(text_embeds[start : start + images])]
    return image_embeds, text_embeds, owner


def dense_metrics(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, owner: torch.Tensor, ks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    # By definition: sort all items and find the first right one.
    similarity = unit_rows(image_embeds, "image") @ unit_rows(text_embeds, "text").t()
    rows = torch.arange(len(image_embeds))
    values = {}
    for direction, matrix, own, others in (
        ("image_to_text", similarity, rows, owner),
        ("text_to_image", similarity.t().contiguous(), owner, rows),
    ):
        order = torch.argsort(matrix, dim=1, descending=True)
        ranks = torch.stack([(others[found] == image).int().argmax() for found, image in zip(order, own, strict=True)])
        values |= {f"{direction}_recall@{k}": 100 * float((ranks < k).double().mean()) for k in ks}
    return values | {"mean_recall": float(np.mean(list(values.values())))}


def equal_captions(image_embeds: torch.Tensor, text_embeds: torch.Tensor, owner: torch.Tensor) -> dict[str, float]:
    sentences = owner % CAPTIONS
    ranks = retrieval_ranks(image_embeds, text_embeds[sentences], owner, sentences)
    names = ("image_to_text_recall@1", "text_to_image_recall@1")
    return {name: 100 * float(np.mean(found < 1)) for name, found in zip(names, ranks, strict=True)}


def measure(side: str, images: int, texts: int) -> dict:
    embeddings = make_embeddings(images, texts)
    start, cpu_start = time.perf_counter(), time.process_time()
    metrics = {"dense": dense_metrics, "exact": retrieval_metrics, "equal": equal_captions}[side](*embeddings)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "peak_mb": round(peak),
        "metrics": metrics,
    }


def measure_apart(side: str, images: int, texts: int) -> dict:
    command = [sys.executable, "-m", "rsmclip.benchmarks.retrieval", "--side", side]
    command += ["--images", str(images), "--texts", str(texts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run(arguments: argparse.Namespace) -> dict:
    size = (arguments.images, arguments.texts)
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append({side: measure_apart(side, *size) for side in ("exact", "dense")})
        print(json.dumps(rounds[-1]), flush=True)
        exact, dense = rounds[-1]["exact"]["metrics"], rounds[-1]["dense"]["metrics"]
        if any(abs(exact[name] - dense[name]) > 0.01 for name in dense):  # float32 may swap neighbors
            raise RuntimeError(f"the figures differ: {exact} (exact) and {dense} (dense)")
    results = {"images": size[0], "texts": size[1], "dim": DIM, "rounds": rounds}
    results["times_faster"] = round(
        float(np.median([r["dense"]["seconds"] / r["exact"]["seconds"] for r in rounds])), 1
    )
    results["times_less_memory"] = round(
        float(np.median([r["dense"]["peak_mb"] / r["exact"]["peak_mb"] for r in rounds])), 1
    )
    if arguments.large:
        results["large"] = {"images": arguments.large, "texts": 5 * arguments.large}
        results["large"] |= measure_apart("exact", arguments.large, 5 * arguments.large)
    return results


def main() -> None:
    """Run the comparison, or with `--side` one side of it in this process."""
    parser = argparse.ArgumentParser(prog="python -m rsmclip.benchmarks.retrieval", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="images of the comparison")
    parser.add_argument("--texts", type=int, default=50_000, help="texts of the comparison")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each implementation")
    parser.add_argument("--large", type=int, default=50_000, help="images of the large gallery (0: none)")
    parser.add_argument("--side", choices=("dense", "exact", "equal"), help="measure only this side and print it")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    if arguments.side:
        texts = arguments.images if arguments.side == "equal" else arguments.texts
        print(json.dumps(measure(arguments.side, arguments.images, texts)))
        return
    results = run(arguments)
    described = describe_run("python -m rsmclip.benchmarks.retrieval", "torch", "numpy") | results
    print(json.dumps(described, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
