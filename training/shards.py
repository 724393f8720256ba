"""Parquet shards of a split, in a folder or on the Hub, and a bounded cache of them on the disk.

The cache has each shard as an Arrow file: reading a random row takes 0.05 ms, and 0.9 ms from parquet, where a whole
row group is read. All workers and processes of a node map the file, so it is in memory once.
"""

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, config
from datasets.table import table_cast
from filelock import FileLock
from huggingface_hub import HfFileSystem, hf_hub_download
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import disable_progress_bars

from rsmclip.core.errors import UserError, foreign_errors, user_errors
from rsmclip.core.files import write_whole
from rsmclip.data.own_files import check_rows
from rsmclip.data.schema import column_faults, features

ON_THE_HUB = "hf://"
WAITS = (1, 4, 16, 64)  # seconds between tries, in addition to the waits of the Hub's client (about 20 seconds a try)
HUB_ERRORS = (OSError, HTTPError, RuntimeError)  # RuntimeError: hf_xet, which downloads large files
CONNECTIONS = 16  # threads that read footers
ROWS_PER_BATCH = 100  # rows in memory while a shard is converted
Result = TypeVar("Result")


def cache_folder(output_dir: str) -> Path:
    """
    Return the cache folder of a run on this node, inside the cache of `datasets` (`HF_DATASETS_CACHE`).

    A resumed run gets the folder of the interrupted run. Nodes that share a disk have different folders, because each
    node deletes shards that it does not need.
    """
    run = f"{platform.node()}\0{Path(output_dir).resolve()}"
    return Path(config.HF_DATASETS_CACHE) / "rsmclip_streams" / hashlib.sha256(run.encode()).hexdigest()[:16]


def read_footers(files: Sequence[str], declared: Features | None) -> tuple[list[int], Features]:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        num_rows, schemas = zip(*pool.map(read_footer, files), strict=True)
    with foreign_errors(f"the metadata of the shard {files[0]} is damaged"):
        found = declared or Features.from_arrow_schema(schemas[0])
    if faults := list(column_faults(found)):
        raise UserError(f"the dataset is not in the schema of rsmclip.data: {'; '.join(faults)}")
    columns = Features({name: found[name] for name in features(())} | {"image": Image(decode=False)})
    for file, schema in zip(files, schemas, strict=True):
        for name in columns:
            if (found := schema.names.count(name)) != 1:
                raise UserError(f"the shard {file} has {found or 'no'} columns {name!r}; it must have one")
    return list(num_rows), columns


def read_footer(file: str) -> tuple[int, pa.Schema]:
    def read() -> pq.FileMetaData:
        if not file.startswith(ON_THE_HUB):
            return pq.read_metadata(file)
        with HfFileSystem().open(file, cache_type="none") as remote:  # a range request for the end of the file
            return pq.read_metadata(remote)

    footer = read_persistently(read, file)
    return footer.num_rows, footer.schema.to_arrow_schema()


def read_persistently(read: Callable[[], Result], file: str) -> Result:
    for wait in (*WAITS, None):
        try:
            with user_errors(pa.ArrowException, prefix=f"the shard {file} is damaged or not a parquet file"):
                return read()
        except HUB_ERRORS as error:
            if not file.startswith(ON_THE_HUB):
                raise UserError(f"the shard {file} cannot be read: {error}") from error
            if wait is None:
                cause = error.__cause__ or error
                raise UserError(
                    f"the shard {file} cannot be read in {len(WAITS) + 1} tries "
                    f"({type(cause).__name__}: {' '.join(str(cause).split())}); "
                    "--resume_from_checkpoint latest continues the run once the Hub is available"
                ) from error
            time.sleep(wait)


class ShardCache:
    """
    Shards as Arrow files in a folder.

    The process that first needs a shard fetches it under a lock, writes it to another name, and renames it.

    Args:
        files (`Sequence[str]`): Parquet files, as paths or `hf://` addresses.
        folder (`Path`): Folder of the Arrow files. If it has shards of another corpus, they are deleted.
        declared (`Features`, *optional*): Columns from the dataset's card. By default from the first file.
        name (`str`, *optional*, defaults to `"unnamed"`):
            Folder or Hub id of the dataset. A row may name a picture of it by its path.

    Raises:
        [`UserError`]: A file cannot be read, is not parquet, or lacks a column.
    """

    def __init__(self, files: Sequence[str], folder: Path, declared: Features | None = None, name: str = "unnamed"):
        self.files, self.folder, self.name = list(files), folder, name
        self.opened: dict[int, Dataset] = {}
        self.kept: set[int] = set()
        with user_errors(OSError, prefix=f"the cache {folder} cannot be made"):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "index.lock"):  # one process of a node reads the footers, the others read the index
            index, identity = folder / "index.json", [identify(file) for file in self.files]
            known = json.loads(index.read_text()) if index.is_file() else {}
            if known.get("files") == identity:
                self.num_rows, self.features = known["num_rows"], Features.from_dict(known["features"])
                return
            for path in (path for path in folder.iterdir() if path.suffix != ".lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.num_rows, self.features = read_footers(self.files, declared)
            known = {"files": identity, "num_rows": self.num_rows, "features": self.features.to_dict()}
            write_whole(index, json.dumps(known))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"opened": {}}  # each process maps the files for itself

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.arrow"

    def aside(self, shard: int) -> Path:
        return self.folder / f".{shard:06d}"

    def open(self, shard: int) -> Dataset:
        """Return the memory-mapped rows of a shard. Fetch it first if it is not in the cache."""
        while shard not in self.opened:
            for old in [old for old in self.opened if not self.path(old).exists()]:
                del self.opened[old]  # the space of a deleted file is free only when no process maps it
            self.fetch(shard)
            try:
                rows = Dataset.from_file(str(self.path(shard)))
            except FileNotFoundError:  # another process has just deleted it
                continue
            check_rows(self.name, rows, f"the shard {self.files[shard]}")
            self.opened[shard] = rows
        return self.opened[shard]

    def fetch(self, shard: int) -> None:
        target, file = self.path(shard), self.files[shard]
        if target.exists():
            return
        with FileLock(target.with_suffix(".lock")):
            if target.exists():
                return
            aside = self.aside(shard)
            shutil.rmtree(aside, ignore_errors=True)  # a killed process may have left it
            prefix = f"the shard {file} is damaged or does not fit on the disk of {self.folder}"
            try:
                with user_errors(pa.ArrowException, OSError, prefix=prefix):
                    aside.mkdir()
                    parquet = read_persistently(lambda: download(file, aside), file)
                    write_arrow(parquet, self.features, aside / "arrow")
                    (aside / "arrow").rename(target)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def keep(self, shards: Collection[int]) -> None:
        """Delete all shards except `shards`. A process that maps a deleted shard can still read it."""
        self.kept = set(shards)
        for path in set(self.folder.glob("*.arrow")) - {self.path(shard) for shard in shards}:
            path.unlink(missing_ok=True)
        for path in set(self.folder.glob(".[0-9]*")) - {self.aside(shard) for shard in shards}:
            shutil.rmtree(path, ignore_errors=True)

    def fetch_if_kept(self, shard: int) -> None:
        """Fetch a shard if the last call of [`keep`] named it. Another thread may call [`keep`] at any time."""
        # Check `kept` last: [`keep`] changes it before it deletes files.
        if self.path(shard).exists() or shard not in self.kept:
            return
        self.fetch(shard)
        if shard not in self.kept:
            self.path(shard).unlink(missing_ok=True)

    def remove(self) -> None:
        self.kept = set()  # so that a thread deletes what it is fetching
        self.opened.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def identify(file: str) -> list:
    # The result changes when the content of the file changes. An address on the Hub contains the commit.
    if file.startswith(ON_THE_HUB):
        return [file]
    with user_errors(OSError, prefix=f"the shard {file} cannot be read"):
        facts = Path(file).stat()
    return [file, facts.st_size, facts.st_mtime_ns]


def download(file: str, folder: Path) -> str:
    if not file.startswith(ON_THE_HUB):
        return file
    disable_progress_bars("huggingface_hub")  # they would disturb the progress bar of the run
    place = HfFileSystem().resolve_path(file)
    return hf_hub_download(
        place.repo_id, place.path_in_repo, repo_type=place.repo_type, revision=place.revision, local_dir=folder
    )


def write_arrow(parquet: str, columns: Features, target: Path) -> None:
    schema = columns.arrow_schema
    with (
        pq.ParquetFile(parquet) as shard,
        pa.OSFile(str(target), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        for batch in shard.iter_batches(ROWS_PER_BATCH, columns=list(columns), use_threads=False):
            with user_errors(ValueError, TypeError, prefix=f"the shard {parquet} has columns of other types"):
                table = table_cast(pa.Table.from_batches([batch]), schema)
            writer.write_table(table)
