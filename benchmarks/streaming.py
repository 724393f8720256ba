"""Measure the cost of a stream compared with a local corpus, and how well a shuffle buffer shuffles.

    python -m rsmclip.benchmarks.streaming [--output benchmarks/results/streaming.json]

The benchmark draws 4,096 JPEGs of 256 pixels in eight shards and reads them as training does: it decodes the images
and draws their views. Epochs of the stream and of the local corpus alternate, with 0 and 2 workers. The cache of the
stream is empty at the start of each epoch, so every shard is converted to Arrow during the epoch. Figures are medians.
If other programs use the machine, compare the processor time per image instead of the rate. It includes all processes,
their start and the conversion.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import Dataset, load_dataset
from PIL import Image
from torch.utils.data import DataLoader

from rsmclip.benchmarks.machine import describe_run
from rsmclip.data.schema import features, keep_encoded
from rsmclip.training.batches import CaptionedViews, CaptionSampling, StepSampler
from rsmclip.training.streaming import ShardOrder, StreamedCorpus, follow
from rsmclip.training.views import ViewSpec

ROWS, SHARDS, SIDE, BATCH_SIZE, SHUFFLE_BUFFER = 4096, 8, 256, 64, 1024
SPECS = {"global": ViewSpec(2, 224, (0.4, 1.0)), "local": ViewSpec(8, 96, (0.05, 0.4))}


def write_shards(folder: Path) -> list[str]:
    """Write parquet shards of smooth random pictures, which compress to the size of photographs."""
    rng = np.random.default_rng(0)
    files = []
    for shard in range(SHARDS):
        rows = [example(f"drawn/{shard}_{row}", rng) for row in range(ROWS // SHARDS)]
        files.append(str(folder / f"train-{shard:05d}-of-{SHARDS:05d}.parquet"))
        Dataset.from_list(rows, features=features(["en", "pt"])).to_parquet(files[-1])
    return files


def example(image_id: str, rng: np.random.Generator) -> dict:
    """Draw a row with a picture of enlarged noise and a little fine noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
    enlarged = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    noisy = np.asarray(enlarged, np.int16) + rng.integers(-8, 9, (SIDE, SIDE, 3))
    encoded = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=85)
    captions = {language: [f"caption {number} of {image_id}" for number in range(5)] for language in ("en", "pt")}
    image = {"bytes": encoded.getvalue(), "path": None}
    return {"image": image, "image_id": image_id, "source": "drawn", "label": None, "captions": captions}


def read_epoch(files: list[str], workers: int, streamed: bool, scratch: Path) -> dict:
    """Measure the rate and the cost of an epoch, the time to its first batch, and the largest size of the cache."""
    began, used = time.perf_counter(), processor_seconds()
    if streamed:
        corpus = StreamedCorpus(files, scratch / "stream", SHUFFLE_BUFFER, seed=0)
        options, order = {"replacement": corpus.replacement}, corpus.order
    else:
        rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(scratch / "whole"))
        corpus = keep_encoded(rows)
        options, order = {}, None
    views = CaptionedViews(corpus, CaptionSampling({"en": 1.0, "pt": 1.0}, count=2), SPECS, SIDE, **options)
    sampler = StepSampler(len(corpus), BATCH_SIZE, ROWS // BATCH_SIZE, order=order)
    prefetch = 4 if workers else None
    loader = DataLoader(views, batch_sampler=sampler, collate_fn=list, num_workers=workers, prefetch_factor=prefetch)
    largest, times = 0, []
    for _ in follow(loader, corpus) if streamed else loader:
        times.append(time.perf_counter())
        sizes = [path.stat().st_size for path in (scratch / "stream").glob("*.arrow")]
        largest = max(largest, sum(sizes))
    used = processor_seconds() - used
    rate = (len(times) - 1) * BATCH_SIZE / (times[-1] - times[0])
    figures = {"images_per_second": rate, "processor_ms_per_image": 1000 * used / (len(times) * BATCH_SIZE)}
    return figures | {"seconds_to_first_batch": times[0] - began, "cache_bytes": largest}


def processor_seconds() -> float:
    """Return the processor time of this process and of its ended children."""
    return sum(os.times()[:4])


def measure(files: list[str], repeats: int, scratch: Path) -> list[dict]:
    """Return medians for each number of workers and both ways to read. The two ways alternate."""
    read_epoch(files, 0, False, scratch)  # fills the cache of load_dataset and the page cache
    results = []
    for workers in (0, 2):
        runs: dict[bool, list[dict]] = {False: [], True: []}
        for _ in range(repeats):
            for streamed in runs:
                runs[streamed].append(read_epoch(files, workers, streamed, scratch))
        for streamed, measured in runs.items():
            medians = {name: statistics.median(run[name] for run in measured) for name in measured[0]}
            row = {"read": "stream" if streamed else "memory-mapped corpus", "workers": workers}
            results.append(row | {name: round(value, 2) for name, value in medians.items()})
    return results


def shuffle_quality(rows: int, rows_per_shard: int, buffers: list[int]) -> list[dict]:
    """
    Measure how well buffers of several sizes shuffle a corpus that is sorted by its 100 equally large classes.

    The figures of a buffer are the number of classes and shards in a batch of 256, and the distance between successive
    rows divided by the distance in a permutation of all rows.
    """
    results = []
    for buffer in buffers:
        order = ShardOrder([rows_per_shard] * (rows // rows_per_shard), buffer, seed=0)
        epoch = order(0, 0, rows)
        batches = epoch[: rows // 256 * 256].reshape(-1, 256)
        classes = [len(set(batch)) for batch in (batches * 100 // rows).tolist()]
        shards = [len(set(batch)) for batch in (batches // rows_per_shard).tolist()]
        row = {"shuffle_buffer": buffer, "classes_in_a_batch": statistics.mean(classes)}
        row |= {"shards_in_a_batch": statistics.mean(shards)}
        row |= {"relative_distance": float(np.abs(np.diff(epoch)).mean() / (rows / 3))}
        results.append({name: round(value, 3) for name, value in row.items()})
    return results


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each kind")
    output = Path("benchmarks/results/streaming.json")
    parser.add_argument("--output", type=Path, default=output, help="JSON file for the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = write_shards(Path(scratch))
        sizes = [Path(file).stat().st_size for file in files]
        throughput = measure(files, arguments.repeats, Path(scratch))
    result = {
        **describe_run("python -m rsmclip.benchmarks.streaming", "torch", "datasets", "pyarrow", "pillow"),
        "corpus": {"rows": ROWS, "shards": SHARDS, "side": SIDE, "parquet_bytes": sum(sizes)},
        "batch_size": BATCH_SIZE,
        "shuffle_buffer": SHUFFLE_BUFFER,
        "repeats": arguments.repeats,
        "throughput": throughput,
        "shuffle": {
            "rows": 1_000_000,
            "rows_per_shard": 5000,
            "buffers": shuffle_quality(1_000_000, 5000, [1, 1000, 5000, 20_000, 100_000, 1_000_000]),
        },
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
