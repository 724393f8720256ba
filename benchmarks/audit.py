"""Measure the leakage audit on real pairs, on pictures transformed at random, and its speed and memory.

    python -m rsmclip.benchmarks.audit pairs --corpus DIR --pictures FOLDER --truth pairs.json
    python -m rsmclip.benchmarks.audit transforms --corpus DIR [--images 1000] [--seed 0]
    python -m rsmclip.benchmarks.audit speed --corpus DIR --images 1000 3000 8973 50000

`DIR` is a folder that `rsmclip data build` wrote. `pairs` takes pictures of another corpus and a JSON file with the
pairs that show the same picture. `pairs` and `transforms` also measure the usual method, perceptual hashes of 64 bits
with a Hamming distance of at most 10, on pictures as they are and at eight turns (`pip install imagehash`). Pairs
beyond the truth are listed by id for inspection.
"""

import argparse
import io
import json
import multiprocessing
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets
from datasets import Image as ImageColumn
from PIL import Image, ImageOps

from rsmclip.benchmarks.machine import describe_run
from rsmclip.benchmarks.processes import tree_memory
from rsmclip.data.audit.leaks import AuditReport, audit
from rsmclip.data.schema import load_corpus

ROTATIONS = [None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270]
FEATURES = Features(
    {"image": ImageColumn(decode=False), "image_id": Value("string"), "captions": {"en": [Value("string")]}}
)


def encoded_rows(pictures: dict[str, bytes]) -> Dataset:
    images = [{"bytes": encoded, "path": None} for encoded in pictures.values()]
    columns = {"image": images, "image_id": list(pictures), "captions": [{"en": []}] * len(pictures)}
    return Dataset.from_dict(columns, features=FEATURES)


def all_rows(corpus: DatasetDict) -> Dataset:
    return concatenate_datasets([rows.select_columns(["image", "image_id", "captions"]) for rows in corpus.values()])


def scores(truth: set[tuple[str, str]], found: set[tuple[str, str]]) -> dict:
    return {
        "recall": round(len(truth & found) / len(truth), 4),
        "pairs_found": len(found),
        "pairs_beyond_the_truth": len(found - truth),
        "missed": sorted(truth - found)[:50],
        "beyond": sorted(found - truth)[:50],
    }


def found_pairs(report: AuditReport) -> tuple[set[tuple[str, str]], list[tuple]]:
    # Pairs of a picture of the other corpus and a row, and pairs within the corpus.
    across = {(pair.second.image_id, pair.first.image_id) for pair in report.pairs if pair.second.dataset == "other"}
    within = [pair for pair in report.pairs if pair.second.dataset == report.audited]
    return across, [(pair.first.image_id, pair.second.image_id, *pair[2:]) for pair in within]


def hash_bits(turned: bool, encoded: bytes) -> list[int]:
    import imagehash

    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    versions = [turn(each, rotation) for each in (image, ImageOps.mirror(image)) for rotation in ROTATIONS]
    return [int(str(imagehash.phash(version)), 16) for version in (versions if turned else versions[:1])]


def turn(image: Image.Image, rotation: Image.Transpose | None) -> Image.Image:
    return image if rotation is None else image.transpose(rotation)


def peer(truth: set[tuple[str, str]], rows: Dataset, pictures: dict[str, bytes]) -> dict:
    # Pairs of perceptual hashes with a Hamming distance of at most 10.
    with ProcessPoolExecutor() as pool:
        encoded = (image["bytes"] for image in rows["image"])
        known = np.array(list(pool.map(partial(hash_bits, False), encoded, chunksize=50)), np.uint64)[:, 0]
        asked = np.array(list(pool.map(partial(hash_bits, True), pictures.values(), chunksize=50)), np.uint64)
    names, ids, measured = list(pictures), list(rows["image_id"]), {}
    for name, versions in (("phash", asked[:, :1]), ("phash_eight_turns", asked)):
        near = [(np.bitwise_count(known ^ bits[:, None]) <= 10).any(axis=0) for bits in versions]
        found = {(names[one], ids[other]) for one, hits in enumerate(near) for other in np.flatnonzero(hits)}
        listed = scores(truth, found)
        measured[name] = {key: listed[key] for key in ("recall", "pairs_found", "pairs_beyond_the_truth")}
    return measured


def pairs(arguments: argparse.Namespace) -> dict:
    corpus, known = load_corpus(arguments.corpus), json.loads(arguments.truth.read_text(encoding="utf-8"))
    pictures = {path.name: path.read_bytes() for path in sorted(arguments.pictures.iterdir())}
    ids = {image_id.rsplit("/")[-1]: image_id for rows in corpus.values() for image_id in rows["image_id"]}
    # {"same_picture": [{"whurs19": file of a picture, "rsicd": file of the row's image}, …]}
    truth = {(entry["whurs19"], ids[Path(entry["rsicd"]).stem]) for entry in known["same_picture"]}
    report = audit({"corpus": corpus, "other": DatasetDict(test=encoded_rows(pictures))}, "corpus")
    found, within = found_pairs(report)
    return {
        "rows": sum(map(len, corpus.values())),
        "pictures": len(pictures),
        "same_picture": len(truth),
        "audit": scores(truth, found),
        "pairs_within_the_corpus": within,
        **peer(truth, all_rows(corpus), pictures),
    }


def transform(encoded: bytes, seed: Sequence[int]) -> bytes:
    # Crop to 0.8 to 1 per side, mirror, turn, resize by 0.5 to 1.5 and save at quality 40 to 95.
    rng = np.random.default_rng(seed)
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    width, height = (max(1, round(length * side)) for side in [rng.uniform(0.8, 1)] for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    image = ImageOps.mirror(image) if rng.integers(2) else image
    image, factor = turn(image, ROTATIONS[rng.integers(4)]), rng.uniform(0.5, 1.5)
    size = tuple(max(1, round(length * factor)) for length in image.size)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
    return buffer.getvalue()


def transforms(arguments: argparse.Namespace) -> dict:
    # Pictures of the corpus, transformed at random, against the whole corpus.
    corpus, number = load_corpus(arguments.corpus), arguments.images[0]
    rows = all_rows(corpus)
    chosen = np.random.default_rng(arguments.seed).choice(len(rows), number, replace=False)
    pictures = {
        row["image_id"]: transform(row["image"]["bytes"], [arguments.seed, int(index)])
        for index, row in zip(chosen, rows.select(chosen), strict=True)
    }
    report = audit({"corpus": corpus, "other": DatasetDict(test=encoded_rows(pictures))}, "corpus")
    found, within = found_pairs(report)
    # A picture that the corpus has twice must be found twice.
    truth = {(image_id, image_id) for image_id in pictures}
    truth |= {(one, other) for pair in within for one, other in (pair[:2], pair[1::-1]) if one in pictures}
    return {
        "rows": len(rows),
        "transformed": number,
        "seed": arguments.seed,
        "audit": scores(truth, found),
        "pairs_within_the_corpus": within,
        **peer(truth, rows, pictures),
    }


def part(rows: Dataset, number: int) -> bytes:
    """
    Make a new picture: a part of a picture at a random place and angle, enlarged to the size of the whole.

    The part is 50 to 65 % per side, inside the central square of 70 % that rotation at any angle keeps.
    """
    rng = np.random.default_rng([3, number])
    image = Image.open(io.BytesIO(rows[number % len(rows)]["image"]["bytes"])).convert("RGB")
    sizes = [round(length * side) for side in [rng.uniform(0.5, 0.65)] for length in image.size]
    rooms = [(0.15 * length, 0.85 * length - size) for length, size in zip(image.size, sizes, strict=True)]
    corner = [int(rng.uniform(*room)) for room in rooms]
    box = (*corner, corner[0] + sizes[0], corner[1] + sizes[1])
    rotated = image.rotate(rng.uniform(0, 360), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    rotated.crop(box).resize(image.size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def rows_of_size(rows: Dataset, number: int, folder: Path) -> DatasetDict:
    # Random rows of the corpus, or, if it has too few, parts of its pictures with its captions.
    if number <= len(rows):
        chosen = np.sort(np.random.default_rng(0).choice(len(rows), number, replace=False))
        return DatasetDict(train=rows.select(chosen))

    def made() -> Iterator[dict]:
        captions = rows["captions"]
        with ProcessPoolExecutor() as pool:
            for index, encoded in enumerate(pool.map(partial(part, rows), range(number), chunksize=200)):
                image = {"bytes": encoded, "path": None}
                yield {"image": image, "image_id": f"part/{index}", "captions": captions[index % len(rows)]}

    return DatasetDict(train=Dataset.from_generator(made, features=rows.features, cache_dir=str(folder)))


def timed_audit(folder: Path, results: multiprocessing.Queue) -> None:
    corpus = load_corpus(folder)
    start = time.perf_counter()
    report = audit({"corpus": corpus}, "corpus")
    results.put({"seconds": round(time.perf_counter() - start, 1), "pairs": len(report.pairs)})


def speed(arguments: argparse.Namespace) -> dict:
    # Seconds and peak memory for each number of images, each in a new process.
    rows, measured = all_rows(load_corpus(arguments.corpus)), []
    spawn = multiprocessing.get_context("spawn")
    for number in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            made = rows_of_size(rows, number, Path(folder) / "cache")
            made.save_to_disk(Path(folder) / "corpus")
            results = spawn.Queue()
            child = spawn.Process(target=timed_audit, args=(Path(folder) / "corpus", results))
            child.start()
            watched, peak = psutil.Process(child.pid), 0
            while child.is_alive():
                peak = max(peak, tree_memory(watched))
                child.join(0.1)
        if child.exitcode:
            raise RuntimeError(f"the audit of {number} images failed")
        found = results.get()
        rate = {"images_per_second": round(number / found["seconds"], 1), "peak_bytes": peak}
        measured.append({"images": number, "parts": number > len(rows), **found, **rate})
        print(json.dumps(measured[-1]), file=sys.stderr)
    return {"parts": " ".join(part.__doc__.split()), "runs": measured}


def main() -> None:
    """Run one of the measurements and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=["pairs", "transforms", "speed"])
    parser.add_argument("--corpus", type=Path, required=True, metavar="DIR", help="folder of a built corpus")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="pictures of another corpus (pairs)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="JSON file of equal pictures (pairs)")
    parser.add_argument("--images", type=int, nargs="+", default=[1000], help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the transforms (default: 0)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the results")
    arguments = parser.parse_args()
    if arguments.measurement == "pairs" and not (arguments.pictures and arguments.truth):
        parser.error("pairs needs --pictures and --truth")
    if arguments.measurement != "speed" and find_spec("imagehash") is None:
        parser.error("imagehash is not installed: pip install imagehash")
    measured = {"pairs": pairs, "transforms": transforms, "speed": speed}[arguments.measurement](arguments)
    packages = ["numpy", "scipy", "pillow", "datasets"]
    packages += [] if arguments.measurement == "speed" else ["imagehash"]
    command = shlex.join(["python", "-m", "rsmclip.benchmarks.audit", *sys.argv[1:]])
    record = {**describe_run(command, *packages), **measured}
    print(json.dumps(record, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
