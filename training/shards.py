"""Parquet shards of a split, in a folder or on the Hub: how long they are, and a bounded cache of them.

In the cache a shard is an Arrow file, since a row of parquet costs a whole row group each time it is drawn at random
(0.9 ms against 0.05 ms). All workers and processes of a node map the same file, so it is in memory once.
"""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, config
from datasets.table import table_cast
from filelock import FileLock
from huggingface_hub import HfFileSystem, hf_hub_download
from huggingface_hub.utils import disable_progress_bars

from rsmclip.data.schema import SchemaError, column_faults, features

ON_THE_HUB = "hf://"
WAITS = (1, 4, 16, 64)  # seconds before each new try, beside those of the Hub's client, some 20 seconds each
CONNECTIONS = 16  # at once, to read footers
ROWS_PER_BATCH = 100  # of a shard in memory while it is converted


class ShardError(OSError):
    """A shard cannot be had. Its text names the shard and what can be done."""


def cache_folder(output_dir: str) -> Path:
    """
    Where the shards of a run lie, in the cache of `datasets` (`HF_DATASETS_CACHE`). Nodes may share that folder, but
    not the shards in it: each deletes its own.

    Args:
        output_dir (`str`): The run's folder; a resumed run finds what it had.
    """
    run = f"{platform.node()}\0{Path(output_dir).resolve()}"
    return Path(config.HF_DATASETS_CACHE) / "rsmclip_streams" / hashlib.sha256(run.encode()).hexdigest()[:16]


def read_footers(files: Sequence[str], declared: Features | None) -> tuple[list[int], Features]:
    """
    Rows of each parquet file, and the columns of the project's schema. Only footers are read.

    Args:
        files (`Sequence[str]`): Paths or `hf://` addresses.
        declared (`Features`, *optional*): Columns by the dataset's card; without one, those of the first file.

    Raises:
        [`SchemaError`]: A file is no parquet, is cut, or lacks a column.
        [`ShardError`]: A file cannot be reached.
    """
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        num_rows, schemas = zip(*pool.map(read_footer, files), strict=True)
    found = declared or Features.from_arrow_schema(schemas[0])
    if faults := list(column_faults(found)):
        raise SchemaError(f"the dataset is not in the schema of rsmclip.data: {'; '.join(faults)}")
    columns = Features({name: found[name] for name in features(())} | {"image": Image(decode=False)})
    for file, schema in zip(files, schemas, strict=True):
        if missing := [name for name in columns if name not in schema.names]:
            raise SchemaError(f"the shard {file} has no column {missing[0]!r}")
    return list(num_rows), columns


def read_footer(file: str) -> tuple[int, pa.Schema]:
    """Rows and columns of a parquet file; of one on the Hub a range request fetches no more than its end."""

    def read() -> pq.FileMetaData:
        if not file.startswith(ON_THE_HUB):
            return pq.read_metadata(file)
        with HfFileSystem().open(file, cache_type="none") as remote:
            return pq.read_metadata(remote)

    try:
        footer = persistently(read, file)
    except pa.ArrowException as error:
        raise SchemaError(f"the shard {file} is cut or no parquet file: {error}") from error
    return footer.num_rows, footer.schema.to_arrow_schema()


def persistently(function: Callable, file: str) -> object:
    """What a function returns that reads a shard; where it may be the network that fails, after several tries."""
    for wait in (*WAITS, None):
        try:
            return function()
        except pa.ArrowException:
            raise
        except Exception as error:  # which ones the clients raise for a network differs from version to version
            if not file.startswith(ON_THE_HUB):
                raise ShardError(f"the shard {file} cannot be read: {error}") from error
            if wait is None:
                cause = error.__cause__ or error
                raise ShardError(
                    f"the shard {file} cannot be read in {len(WAITS) + 1} tries ({type(cause).__name__}: "
                    f"{' '.join(str(cause).split())}); --resume_from_checkpoint latest continues once it can be"
                ) from error
            time.sleep(wait)


class ShardCache:
    """
    Shards as Arrow files in a folder. Whoever first needs one fetches it, under a lock, aside and then renamed.

    Args:
        files (`Sequence[str]`): Parquet files, paths or `hf://` addresses.
        folder (`Path`): Where the Arrow files go; what it holds of other files is deleted.
        declared (`Features`, *optional*): Columns by the dataset's card.
    """

    def __init__(self, files: Sequence[str], folder: Path, declared: Features | None = None):
        self.files, self.folder = list(files), folder
        self.opened: dict[int, Dataset] = {}
        self.kept: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "index.lock"):  # the first process of a node reads the footers, for all of them
            index, identity = folder / "index.json", [identify(file) for file in self.files]
            known = json.loads(index.read_text()) if index.is_file() else {}
            if known.get("files") == identity:
                self.num_rows, self.features = known["num_rows"], Features.from_dict(known["features"])
                return
            for path in (path for path in folder.iterdir() if path.suffix != ".lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.num_rows, self.features = read_footers(self.files, declared)
            known = {"files": identity, "num_rows": self.num_rows, "features": self.features.to_dict()}
            aside = folder / ".index.json"
            aside.write_text(json.dumps(known))
            aside.rename(index)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"opened": {}}  # each process maps files itself

    def path(self, shard: int) -> Path:
        """Arrow file of a shard, whether it is there or not."""
        return self.folder / f"{shard:06d}.arrow"

    def aside(self, shard: int) -> Path:
        """Folder in which a shard is made ready."""
        return self.folder / f".{shard:06d}"

    def open(self, shard: int) -> Dataset:
        """Rows of a shard, mapped; fetched first if need be."""
        while shard not in self.opened:
            for old in [old for old in self.opened if not self.path(old).exists()]:
                del self.opened[old]  # the disk has its space back once nobody maps it
            self.fetch(shard)
            try:
                self.opened[shard] = Dataset.from_file(str(self.path(shard)))
            except FileNotFoundError:  # deleted since
                continue
        return self.opened[shard]

    def fetch(self, shard: int) -> None:
        """
        Puts a shard into the cache, unless it is there.

        Raises:
            [`ShardError`]: It cannot be reached, or is damaged, or the disk is full.
        """
        target, file = self.path(shard), self.files[shard]
        if target.exists():
            return
        with FileLock(target.with_suffix(".lock")):
            if target.exists():
                return
            aside = self.aside(shard)
            shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
            aside.mkdir()
            try:
                parquet = Path(persistently(lambda: download(file, aside), file))
                write_arrow(parquet, self.features, aside / "arrow")
                (aside / "arrow").rename(target)
            except ShardError:
                raise
            except (pa.ArrowException, OSError, ValueError, TypeError) as error:  # the last two from other columns
                cause = " ".join(str(error).split())
                raise ShardError(f"the shard {file} is damaged or does not fit {self.folder}: {cause}") from error
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def keep(self, shards: Collection[int]) -> None:
        """Deletes all other shards; processes that map one keep it until they open the next."""
        self.kept = set(shards)
        for path in set(self.folder.glob("*.arrow")) - {self.path(shard) for shard in shards}:
            path.unlink(missing_ok=True)
        for path in set(self.folder.glob(".[0-9]*")) - {self.aside(shard) for shard in shards}:
            shutil.rmtree(path, ignore_errors=True)

    def fetch_if_kept(self, shard: int) -> None:
        """The same as [`fetch`] beside a thread that calls [`keep`], for shards that are to be kept."""
        # In this order: if it is missing since it was deleted, then `kept` is without it already.
        if self.path(shard).exists() or shard not in self.kept:
            return
        self.fetch(shard)
        if shard not in self.kept:
            self.path(shard).unlink(missing_ok=True)

    def remove(self) -> None:
        """Deletes the folder."""
        self.opened.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def identify(file: str) -> list:
    """What changes with a file's content: an address on the Hub has the commit in it."""
    if file.startswith(ON_THE_HUB):
        return [file]
    try:
        facts = Path(file).stat()
    except OSError as error:
        raise ShardError(f"the shard {file} cannot be read: {error}") from error
    return [file, facts.st_size, facts.st_mtime_ns]


def download(file: str, folder: Path) -> str:
    """Path of a shard: that of a local one, or of one in `folder` that the Hub's client has downloaded and checked."""
    if not file.startswith(ON_THE_HUB):
        return file
    disable_progress_bars("huggingface_hub")  # they would run through the run's own
    place = HfFileSystem().resolve_path(file)
    return hf_hub_download(
        place.repo_id, place.path_in_repo, repo_type=place.repo_type, revision=place.revision, local_dir=folder
    )


def write_arrow(parquet: Path, columns: Features, target: Path) -> None:
    """Rewrites a parquet file as an Arrow stream of the given columns, one batch of rows in memory at a time."""
    schema = columns.arrow_schema
    with (
        pq.ParquetFile(parquet) as shard,
        pa.OSFile(str(target), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        for batch in shard.iter_batches(ROWS_PER_BATCH, columns=list(columns), use_threads=False):
            writer.write_table(table_cast(pa.Table.from_batches([batch]), schema))
