"""Time and memory of retrieval figures, against the plain dense definition.

    python -m rsmclip.benchmarks.retrieval --output FILE.json

Dense is one full similarity matrix and an argsort of it in each direction. Each side is a process of its own that
makes the same embeddings; its memory is the peak of the whole process: interpreter, libraries and embeddings too.
Both must give the same figures. Then the exact ranks alone for a large gallery.
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
from rsmclip.eval.retrieval import retrieval_metrics, unit_rows

DIM = 512
NOISE = 12.0  # standard deviations of a text's noise: figures well between chance and perfect


def make_embeddings(images: int, texts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random image embeddings, texts near them, and the image of each text."""
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
    """Recalls by the definition: sort everything, look where the right item is."""
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


def measure(side: str, images: int, texts: int) -> dict:
    """Seconds, peak memory in MB and figures of one side, in this process."""
    embeddings = make_embeddings(images, texts)
    start = time.perf_counter()
    metrics = {"dense": dense_metrics, "exact": retrieval_metrics}[side](*embeddings)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(seconds, 1), "peak_mb": round(peak), "metrics": metrics}


def measure_apart(side: str, images: int, texts: int) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "rsmclip.benchmarks.retrieval", "--side", side]
    command += ["--images", str(images), "--texts", str(texts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run(arguments: argparse.Namespace) -> dict:
    """Both sides in turn, then the large gallery."""
    size = (arguments.images, arguments.texts)
    rounds = []
    for _ in range(arguments.rounds):
        rounds.append({side: measure_apart(side, *size) for side in ("exact", "dense")})
        print(json.dumps(rounds[-1]), flush=True)
        exact, dense = rounds[-1]["exact"]["metrics"], rounds[-1]["dense"]["metrics"]
        if any(abs(exact[name] - dense[name]) > 0.01 for name in dense):  # float32 may swap neighbours
            raise ValueError(f"the two sides differ: {exact} and {dense}")
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
    """Runs the comparison, or in a process of its own one side of it."""
    parser = argparse.ArgumentParser(prog="python -m rsmclip.benchmarks.retrieval", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=50_000, help="images of the large gallery, 5 texts each; 0: none")
    parser.add_argument("--side", choices=("dense", "exact"), help="measure this side alone and print it")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.images, arguments.texts)))
        return
    results = run(arguments)
    described = describe_run("python -m rsmclip.benchmarks.retrieval", "torch", "numpy") | results
    print(json.dumps(described, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
