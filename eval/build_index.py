"""Build the index of a folder of images or of a corpus. A second run embeds only what is new or has changed.

Each process of `accelerate launch` embeds a share of the images into a shard of its own. After an interruption the
next run continues: it uses the rows of all shards. At the end the main process writes the complete index.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from tqdm.auto import tqdm

from rsmclip.core.arguments import check_count, check_type
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import absolute_name, write_whole
from rsmclip.core.images import check_size, decode_rgb
from rsmclip.core.rasters import import_rasterio
from rsmclip.eval.embed import DECODERS, Embedder, ahead, first_not_finite, processes
from rsmclip.eval.image_sources import Picture, Source, open_source
from rsmclip.eval.index import RECORD, UNFINISHED, BadIndex, Index, open_index, read_record
from rsmclip.eval.index_files import (
    LOCK,
    Rows,
    Shard,
    as_line,
    check_place,
    images_of,
    open_shards,
    take_folder,
    write_index,
    writing,
)
from rsmclip.eval.models import as_embedder
from rsmclip.eval.retrieval import unit_rows
from rsmclip.eval.tiles import Box, read_tiles, scene_size, tile_boxes, tile_coordinates

KEPT = Path(HF_HOME) / "rsmclip" / "indexes"
TILES_AT_ONCE = 16  # of one row of a scene, read by one thread
OTHER = "choose another folder for the index"

Result = TypeVar("Result")


@dataclass
class IndexReport:
    """The outcome of [`build_index`], in numbers of images but for `entries`."""

    new: int
    changed: int
    dropped: int
    unchanged: int
    entries: int  # images, or tiles of all images
    others: int  # files that are not images
    left_out: dict[str, str]  # path: reason


class Job(NamedTuple):
    """An image to embed, or up to `TILES_AT_ONCE` tiles of one row of a scene."""

    picture: Picture
    boxes: list[Box] | None = None
    tiles: int = 1  # of the whole scene


@dataclass
class Prepared:
    """The inputs of the model for a job, or the reason why its image is left out."""

    job: Job
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    coordinates: list[list[float]] | None = None
    reason: str | None = None

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of the index."""
        entry = {"path": self.job.picture.path, "version": self.job.picture.version}
        if self.job.boxes is None:
            return [entry]
        entries = [entry | {"tiles": self.job.tiles, "box": box} for box in self.job.boxes]
        if self.coordinates is None:
            return entries
        return [one | {"coordinates": point} for one, point in zip(entries, self.coordinates, strict=True)]


def build_index(
    images: str | Path | Source,
    model: str | Path | Embedder,
    output: str | Path,
    split: str | None = None,
    tile: int | None = None,
    stride: int | None = None,
    batch_size: int = 128,
    dtype: str = "float32",
    revision: str | None = None,
) -> IndexReport:
    """
    Write or update an index. Every process must call it; the processes share the images.

    Args:
        images (`str`, `Path` or `Source`): A folder of images, with any folders inside; a corpus, a folder or Hub id;
            or the result of [`~rsmclip.eval.image_sources.open_source`].
        model (`str`, `Path` or [`~rsmclip.eval.embed.Embedder`]): Folder or Hub id of a model; or a loaded model, the
            result of [`~rsmclip.eval.models.load_embedder`].
        output (`str` or `Path`): Folder of the index: new, empty, or an index of these images by this model.
        split (`str`, *optional*): Split of a corpus; all splits by default.
        tile (`int`, *optional*): Side of the tiles that every image is cut into, in pixels. By default images are
            embedded whole.
        stride (`int`, *optional*): Distance from a tile to the next, in pixels; by default `tile`.
        batch_size, dtype, revision: Options of [`~rsmclip.eval.models.load_embedder`], if `model` is a name.

    Returns:
        [`IndexReport`]: Numbers of images, and the images that were left out.

    Raises:
        [`UserError`]: The images or the model do not exist; the folder has other content, or an index of other images,
            another model or tile size; another process writes it; no image can be read; or the disk is full.
    """
    check_type("images", images, str | Path | Source, "a folder of images, or a folder or Hub id of a corpus")
    check_type("output", output, str | Path, "the folder of the index")
    output = Path(output)
    check_place(output)
    source = open_source(str(images), split) if isinstance(images, str | Path) else images
    tiles = check_tiles(source, tile, stride)
    embedder = as_embedder(model, batch_size=batch_size, dtype=dtype, revision=revision)
    record = describe(source, embedder) | tiles
    update = Update(source, output, record)
    try:
        todo = from_main(update.plan)
        left_out = embed_share(source, embedder, todo, output / UNFINISHED, record["tile"], record["stride"])
        return from_main(partial(update.finish, left_out))
    except UserError:
        update.clear()
        raise
    finally:
        update.lock.release()


def check_tiles(source: Source, tile: int | None, stride: int | None) -> dict[str, int | None]:
    """Return the fields of a record, see [`describe`]. Raises [`UserError`] for tiles that cannot be cut."""
    tile = None if tile is None else check_count("tile", tile)
    stride = None if stride is None else check_count("stride", stride)
    if stride and not tile:
        raise UserError("stride needs tile")
    if tile and (stride or 0) > tile:
        raise UserError(f"stride {stride} is above tile {tile}: pixels would be left out")
    if tile and source.kind != "folder":
        raise UserError(f"{source.name} is a corpus: tiles can only be cut from the images of a folder")
    if tile:
        import_rasterio()
    return {"tile": tile, "stride": tile and (stride or tile)}


def kept_index(source: Source, embedder: Embedder) -> Path:
    """Return a folder in `HF_HOME/rsmclip/indexes` for the index of a source by a model."""
    name = os.path.realpath(source.name) if os.path.exists(source.name) else source.name
    key = json.dumps([name, source.split, embedder.hash])
    return KEPT / blake2b(key.encode(), digest_size=12).hexdigest()


def describe(source: Source, embedder: Embedder) -> dict[str, Any]:
    """Return the record of an index of whole images, without the name of its files."""
    return {
        "source": source.name,
        "kind": source.kind,
        "split": source.split,
        "source_revision": source.revision,
        "model": absolute_name(embedder.name),
        "revision": embedder.revision,
        "dtype": str(embedder.model.dtype).removeprefix("torch."),
        "model_hash": embedder.hash,
        "tile": None,
        "stride": None,
    }


def from_main(function: Callable[[], Result]) -> Result:
    """Call a function on the main process. Every process returns its result, or raises its [`UserError`]."""
    state = processes()
    if state.num_processes == 1:
        return function()
    answer = [None, None]
    if state.is_main_process:
        try:
            answer = [function(), None]
        except UserError as error:
            answer = [None, str(error)]
    result, failure = broadcast_object_list(answer)
    if failure is not None:
        raise UserError(failure)
    return result


class Update:
    """The work of the main process: compare the images with the older index, then write the new one."""

    def __init__(self, source: Source, output: Path, record: dict[str, Any]):
        self.source, self.output, self.record = source, output, record
        self.lock = FileLock(output / LOCK)
        self.is_new = not output.exists()

    def plan(self) -> list[Picture]:
        """Lock the folder, and return the images to embed."""
        take_folder(self.output, self.lock)
        check_older(self.output, self.record)
        with user_errors(BadIndex):
            self.old = open_index(self.output) if read_record(self.output) else None
        self.listing = self.source.list()
        self.compare(self.old)
        with writing(self.output):
            write_whole(self.output / UNFINISHED / RECORD, json.dumps(self.record | {"files": None, "images": None}))
        rows = self.find_rows()
        if self.old and (rows.index < 0).all() and not same_source(self.old.record, self.record):
            raise UserError(f"{self.output} is an index of {self.old.record['source']}: {OTHER}")
        return [self.listing.pictures[number] for number in np.flatnonzero(rows.index < 0)]

    def compare(self, old: Index | None) -> None:
        """Find out which images the old index has, and which of them in another version."""
        self.numbers = {picture.path: number for number, picture in enumerate(self.listing.pictures)}
        self.was_there, self.was_other = np.zeros((2, len(self.numbers)), bool)
        self.images_before = old.record["images"] if old else 0
        for path, version, _, _ in images_of(old) if old else ():
            if (number := self.numbers.get(path)) is not None:
                self.was_there[number] = True
                self.was_other[number] = version != self.listing.pictures[number].version

    def find_rows(self) -> Rows:
        """Find the rows of images that are embedded in their present version, in the old index and all shards."""
        rows = Rows.none(len(self.numbers))
        rows.indexes = [*([self.old] if self.old else []), *open_shards(self.output / UNFINISHED)]
        for place, index in enumerate(rows.indexes):
            for path, version, first, count in images_of(index):
                number = self.numbers.get(path)
                if number is not None and version == self.listing.pictures[number].version:
                    rows.index[number], rows.first[number], rows.count[number] = place, first, count
        return rows

    def finish(self, left_out: dict[str, str]) -> IndexReport:
        """Write the new index, unless the old one is the same, and delete what it does not need."""
        left_out = self.listing.left_out | left_out
        rows = self.find_rows()
        if not (is_there := rows.index >= 0).any():
            reasons = "; ".join(f"{path}: {reason}" for path, reason in islice(left_out.items(), 3))
            raise UserError(f"{self.source.name} has no image that can be read" + (f" ({reasons})" if reasons else ""))
        report = IndexReport(
            new=int((is_there & ~self.was_there).sum()),
            changed=int((is_there & self.was_other).sum()),
            dropped=self.images_before - int((is_there & self.was_there).sum()),
            unchanged=int((is_there & self.was_there & ~self.was_other).sum()),
            entries=int(rows.count[is_there].sum()),
            others=self.listing.others,
            left_out=left_out,
        )
        with writing(self.output):
            if report.new or report.changed or report.dropped or not self.is_current():
                write_index(self.output, self.record, self.listing.pictures, rows)
            shutil.rmtree(self.output / UNFINISHED)
        return report

    def clear(self) -> None:
        """Remove what a failed run made, unless it embedded images, which the next run uses."""
        if not self.lock.is_locked or any(open_shards(self.output / UNFINISHED)):
            return
        with suppress(OSError):
            shutil.rmtree(self.output / UNFINISHED, ignore_errors=True)
            if not (self.output / RECORD).exists():
                (self.output / LOCK).unlink()
                if self.is_new:
                    self.output.rmdir()

    def is_current(self) -> bool:
        """Return whether the old index has the names of source and model. Rows of a corpus may have moved."""
        same_names = self.old is not None and self.record.items() <= self.old.record.items()
        return same_names and self.source.kind == "folder"


def check_older(folder: Path, record: dict[str, Any]) -> None:
    """
    Raise [`UserError`] if a folder has an index, complete or begun, that another record describes.

    Args:
        folder (`Path`): Folder of an index; it may be missing.
        record (`dict[str, Any]`): The result of [`describe`] for the new index.
    """
    with user_errors(BadIndex):
        begun = read_record(folder / UNFINISHED) if any(open_shards(folder / UNFINISHED)) else None
        found = [read_record(folder), begun]
    for old in filter(None, found):
        check_settings(folder, old, record)


def check_settings(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise [`UserError`] if an index was made with other settings. A folder that was moved may have a new name."""
    if old["model_hash"] != new["model_hash"]:
        raise UserError(f"{folder} is an index by another model, {old['model']}: {OTHER}")
    if [old[name] for name in ("tile", "stride")] != [new[name] for name in ("tile", "stride")]:
        raise UserError(f"{folder} is an index of {describe_tiles(old)}, not of {describe_tiles(new)}: {OTHER}")
    is_moved = old["kind"] == new["kind"] == "folder" and not Path(old["source"]).exists()
    if not same_source(old, new) and not is_moved:
        raise UserError(f"{folder} is an index of {old['source']}, not of {new['source']}: {OTHER}")
    if old["split"] != new["split"]:
        raise UserError(f"{folder} is an index of {old['split'] or 'all splits'}: {OTHER}")


def same_source(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether two records are of one folder or corpus. A folder has several names: links, names with `..`."""
    if old["source"] == new["source"]:
        return True
    exist = old["kind"] == new["kind"] and os.path.exists(old["source"]) and os.path.exists(new["source"])
    return exist and os.path.samefile(old["source"], new["source"])


def describe_tiles(record: dict[str, Any]) -> str:
    return f"tiles of {record['tile']} pixels, stride {record['stride']}" if record["tile"] else "whole images"


def embed_share(
    source: Source, embedder: Embedder, todo: list[Picture], folder: Path, tile: int | None, stride: int | None
) -> dict[str, str]:
    """Embed this process's share of the images into its shard. Returns the images left out by all, with reasons."""
    state, failure = processes(), None
    left_out: dict[str, str] = {}
    shard = Shard(folder)
    try:
        share = todo[state.process_index :: state.num_processes]
        if tile is None:
            jobs, total = map(Job, share), len(share)
        else:
            jobs = plan_tiles(source, share, tile, stride, left_out)
            total = sum(len(job.boxes) for job in jobs)
        embed_jobs(source, embedder, jobs, total, shard, left_out)
    except UserError as error:
        failure = str(error)  # every process must raise it: one that goes on would wait for this one forever
    finally:
        shard.close()
    shares = gather_object([(failure, left_out)]) if state.num_processes > 1 else [(failure, left_out)]
    if failures := [failure for failure, _ in shares if failure]:
        raise UserError(failures[0])
    return {path: reason for _, share in shares for path, reason in share.items()}


def plan_tiles(
    source: Source, pictures: Iterable[Picture], tile: int, stride: int, left_out: dict[str, str]
) -> list[Job]:
    """Cut scenes into tiles. Add the scenes that cannot be opened to `left_out`."""
    jobs = []
    for picture in pictures:
        try:
            width, height = scene_size(source.folder / picture.path)
            check_size(min(width, tile), min(height, tile))
            boxes = tile_boxes(width, height, tile, stride)
        except UserError as error:
            left_out[picture.path] = str(error)
            continue
        for _, row in groupby(boxes, key=itemgetter(1)):
            row = list(row)
            parts = (row[start : start + TILES_AT_ONCE] for start in range(0, len(row), TILES_AT_ONCE))
            jobs += [Job(picture, part, len(boxes)) for part in parts]
    return jobs


def embed_jobs(
    source: Source, embedder: Embedder, jobs: Iterable[Job], total: int, shard: Shard, left_out: dict[str, str]
) -> None:
    """Embed images or tiles in batches. Threads decode the next ones while the model works."""
    is_silent = not total or not processes().is_main_process
    with tqdm(total=total, unit=" images", desc="embed", disable=is_silent or None) as bar:
        batch: list[Prepared] = []
        size = 0
        for prepared in ahead(partial(prepare, source, embedder), jobs, DECODERS):
            if prepared.reason:
                left_out.setdefault(prepared.job.picture.path, prepared.reason)
                bar.update(len(prepared.job.boxes or [0]))
                continue
            batch.append(prepared)
            size += len(prepared.job.boxes or [0])
            if size >= embedder.batch_size:
                append_batch(embedder, batch, shard)
                bar.update(size)
                batch, size = [], 0
        if batch:
            append_batch(embedder, batch, shard)
            bar.update(size)


def prepare(source: Source, embedder: Embedder, job: Job) -> Prepared:
    """Decode an image or tiles, and compute the inputs of the model."""
    picture, boxes, _ = job
    coordinates = None
    try:
        if boxes is None:
            images = [decode_rgb(source.read(picture.path, picture.split, picture.row))]
        else:
            images = read_tiles(source.folder / picture.path, boxes)
            coordinates = tile_coordinates(source.folder / picture.path, boxes)
    except UserError as error:
        return Prepared(job, reason=str(error))
    return Prepared(job, embedder.processor.image_processor(images, return_tensors="pt"), coordinates)


def append_batch(embedder: Embedder, batch: list[Prepared], shard: Shard) -> None:
    inputs = {name: torch.cat([one.inputs[name] for one in batch]) for name in batch[0].inputs}
    embeds = embedder.run(embedder.model.get_image_features, inputs)
    entries = [entry for one in batch for entry in one.entries()]
    if (bad := first_not_finite(embeds)) is not None:
        raise UserError(f"the model gives image {entries[bad]['path']} an embedding that is not finite")
    with writing(shard.folder.parent):
        shard.append(unit_rows(embeds, "image").numpy(), entries)


def write_corpus_index(folder: Path, source: Source, embedder: Embedder, image_embeds: torch.Tensor) -> None:
    """
    Write the index of a corpus from embeddings that are computed already, in place of its older index.

    Args:
        folder (`Path`): Folder of the index.
        source (`Source`): The images.
        embedder ([`~rsmclip.eval.embed.Embedder`]): The model.
        image_embeds (`torch.Tensor` of shape `(images, dim)`): Embeddings, in the order of `source.list()`.

    [`build_index`] has the errors.
    """
    record = describe(source, embedder)
    pictures = source.list().pictures
    entries = [{"path": picture.path, "version": picture.version} for picture in pictures]
    lines = b"".join(map(as_line, entries))
    offsets = np.cumsum([0, *(len(as_line(entry)) for entry in entries)])
    embeds = unit_rows(image_embeds, "image").cpu().numpy()
    made = Index(folder, record, embeds, np.frombuffer(lines, np.uint8), offsets)
    rows = Rows([made], np.zeros(len(pictures), int), np.arange(len(pictures)), np.ones(len(pictures), int))
    lock = FileLock(folder / LOCK)
    try:
        take_folder(folder, lock)
        check_older(folder, record)
        with writing(folder):
            write_index(folder, record, pictures, rows)
    finally:
        lock.release()
