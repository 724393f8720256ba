r"""Measure time, memory and size of an index, and the time of a ranking, by number of images.

    python -m rsmclip.benchmarks.index_size MODEL [--images 1000 10000 100000] \
        [--output benchmarks/results/index_size.json]

The images are JPEGs of 64 pixels, random crops of the demo's training images, in folders of 1,000. Each run is a
process of `rsmclip index`: the first embeds all images; the second finds nothing new. The memory is the largest of the
process. Queries are random unit vectors; a ranking returns 20 images. If `faiss` is installed, its exact flat index
ranks the same queries.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rsmclip.benchmarks.machine import describe_run
from rsmclip.benchmarks.training_tables import table
from rsmclip.core.images import decode_rgb
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import load_corpus
from rsmclip.eval.index import nearest, open_index

CROP, IN_FOLDER, QUERIES = 64, 1000, 20
# Run a command and print its largest memory in KiB. A process inherits the record of its parent, so that must be
# small.
PEAK = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def draw_images(folder: Path, count: int) -> None:
    """Write random crops of the demo's training images."""
    rng = np.random.default_rng(0)
    rows = load_corpus(str(cached_demo()))["train"]
    scenes = [decode_rgb(image["bytes"]) for image in rows[:200]["image"]]
    for number in range(count):
        if number % IN_FOLDER == 0:
            place = folder / f"{number // IN_FOLDER:04}"
            place.mkdir(parents=True)
        scene = scenes[rng.integers(len(scenes))]
        left, top = (int(rng.integers(side - CROP + 1)) for side in scene.size)
        encoded = io.BytesIO()
        scene.crop((left, top, left + CROP, top + CROP)).save(encoded, "JPEG", quality=90)
        (place / f"{number:06}.jpg").write_bytes(encoded.getvalue())


def run_index(folder: Path, model: str, output: Path) -> dict[str, float]:
    """Run `rsmclip index`. Returns seconds and the largest memory in MB."""
    command = [sys.executable, "-m", "rsmclip", "index", str(folder), "--model", model, "--output", str(output)]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK, *command], check=True, stdout=subprocess.PIPE, text=True)
    return {"seconds": time.perf_counter() - began, "memory_mb": int(done.stdout) / 1024}


def median_ms(rank: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Return the median time of a ranking in milliseconds."""
    times = []
    for query in queries:
        began = time.perf_counter()
        rank(query)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def measure(count: int, model: str) -> dict:
    """Index `count` images twice, and rank them."""
    with tempfile.TemporaryDirectory() as scratch:
        images, output = Path(scratch, "images"), Path(scratch, "index")
        draw_images(images, count)
        found = {
            "images": count,
            "first": run_index(images, model, output),
            "second": run_index(images, model, output),
        }
        found["size_mb"] = sum(path.stat().st_size for path in output.iterdir()) / 1e6
        index = open_index(output)
        queries = np.random.default_rng(1).standard_normal((QUERIES, index.embeds.shape[1]), np.float32)
        found |= {"dimension": index.embeds.shape[1], "ranking_ms": rankings(index.embeds, queries)}
    return found


def rankings(embeds: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """Return the median time of a ranking in milliseconds, of NumPy and of FAISS if it is installed."""
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    times = {"numpy": median_ms(lambda query: nearest(embeds, query, 20), queries)}
    if find_spec("faiss"):
        import faiss

        flat = faiss.IndexFlatIP(embeds.shape[1])
        flat.add(np.ascontiguousarray(embeds))
        times["faiss"] = median_ms(lambda query: flat.search(query[None], 20), queries)
    return times


def random_rankings(count: int, dimension: int = 512) -> dict:
    """Rank random unit rows."""
    embeds = np.random.default_rng(0).standard_normal((count, dimension), np.float32)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    queries = np.random.default_rng(1).standard_normal((QUERIES, dimension), np.float32)
    return {"entries": count, "dimension": dimension, "ranking_ms": rankings(embeds, queries)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    command = f"python -m rsmclip.benchmarks.index_size MODEL --images {' '.join(map(str, arguments.images))}"
    record = describe_run(command, "torch", "numpy", *(["faiss-cpu"] if find_spec("faiss") else []))
    record["indexes"] = [measure(count, arguments.model) for count in arguments.images]
    record["random_embeddings"] = [random_rankings(count) for count in (100_000, 1_000_000)]
    rows = [
        [
            f"{one['images']:,}",
            *(f"{one[run]['seconds']:.0f} s, {one[run]['memory_mb']:.0f} MB" for run in ("first", "second")),
            f"{one['size_mb']:.1f} MB",
        ]
        for one in record["indexes"]
    ]
    print(table(["images", "first run", "second run", "index"], rows) + "\n")
    kinds = record["random_embeddings"][0]["ranking_ms"]
    rows = [
        [f"{one['entries']:,} × {one['dimension']}", *(f"{one['ranking_ms'][kind]:.0f} ms" for kind in kinds)]
        for one in record["random_embeddings"]
    ]
    print(table(["random embeddings", *kinds], rows))
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
