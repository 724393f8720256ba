"""WebDataset: shards (tar files) in which the files of a sample have one name and several suffixes.

`webdataset=DIR` reads all shards in DIR and its folders, `webdataset='DIR/train-*.tar'` those that a pattern matches.
The image is the file with an image suffix, `.txt` is an English caption, and the keys of `.json` are columns as in
`imagefolder`: `webdataset=DIR,image=SUFFIX,captions=KEY,label=KEY,split=KEY`. A shard states a split if its file or
its folder has the name of one: `val-0000.tar`, `val/0000.tar`.

The samples come from the reader of `datasets`, before it makes a table. `load_dataset` takes the columns of the table
from the first five samples, drops suffixes and keys that appear later, and turns a later list of captions into text.
"""

import glob
import os
import re
import sys
import tarfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from datasets import DownloadManager
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from tqdm import tqdm

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import visible_files
from rsmclip.core.images import IMAGE_SUFFIXES
from rsmclip.data.faults import SPLITS
from rsmclip.data.sources.columns import CAPTION_NAMES, OPTIONS, SPLIT_NAMES, Columns, caption_columns, join_lines
from rsmclip.data.sources.protocol import SourceRow, attempt, parse_line, parse_options

SHARD = re.compile(r"(.+)\.(?:tar|tar\.gz|tgz)")
READ_ERRORS = (OSError, EOFError, ValueError, RecursionError, tarfile.TarError, zlib.error)


class Reader(WebDataset):
    """The reader of `datasets`. All files stay bytes: some decoders load arrays or weights, and an error ends it."""

    DECODERS = {}


class WebDatasetShards:
    """Shards in a folder, or shards that match a pattern. The name of their folder is the name of the corpus."""

    license = None
    citation = None

    def __init__(self, place: str):
        place, self.options = parse_options("webdataset", place, OPTIONS)
        is_folder = Path(place).is_dir()
        folder, pattern = os.path.split(place)
        if is_folder:
            found = visible_files(Path(place), {".tar", ".gz", ".tgz"})
        elif os.path.isdir(folder or "."):  # its name may have characters of patterns
            names = glob.glob(pattern, root_dir=folder or None, recursive=True) if pattern else []
            found = (Path(folder, name) for name in names)
        else:
            found = map(Path, glob.glob(place, recursive=True))
        self.shards = sorted(path for path in found if SHARD.fullmatch(path.name) and path.is_file())
        if not self.shards:
            raise UserError(f"webdataset: no shard (.tar, .tar.gz, .tgz) in {place}; a pattern has * and ?")
        self.root = Path(place if is_folder else os.path.commonpath([path.parent for path in self.shards]))
        self.chosen = not is_folder
        self.name = self.root.resolve().name

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the keys that are named by a language code."""
        return self.columns.languages

    @cached_property
    def columns(self) -> Columns:
        """The columns of all samples. This reads all shards: a key may first appear in the last sample."""
        suffixes: dict[str, None] = {}
        present: dict[str, None] = {}
        for shard, sample in self.samples():
            suffixes |= dict.fromkeys(suffixes_of(sample))
            line = attempt(as_line, shard, sample)
            present |= {} if isinstance(line, UserError) else dict.fromkeys(line[1])
        image = self.image_suffix(list(suffixes))
        for role in ("label", "split"):
            if (column := self.options.get(role, role)) not in present and role in self.options:
                raise UserError(
                    f"{self.root} has no column {column!r} ({role}); it has {', '.join(present) or 'none'}"
                )
        names = ("txt",) if "txt" in present else CAPTION_NAMES
        place = f"{self.root}, with samples of {', '.join(map('.{}'.format, suffixes))},"
        captions, languages = caption_columns(place, present, self.options.get("captions"), names)
        label, split = (self.options.get(role, role) for role in ("label", "split"))
        columns = Columns(image, captions, languages, label, split)
        if note := columns.unused_note(present):
            tqdm.write(f"note: {self.name}: {note}", file=sys.stderr)
        return columns

    def image_suffix(self, suffixes: list[str]) -> str:
        images = [suffix for suffix in suffixes if f".{suffix.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES]
        chosen = self.options.get("image", images[0] if len(images) == 1 else None)
        if chosen not in images:
            found = ", ".join(images) or "none"
            raise UserError(f"{self.root}: name the image with the option image=SUFFIX; suffixes of images: {found}")
        return chosen

    def rows(self) -> Iterator[SourceRow | UserError]:
        """Yield all samples, shard by shard."""
        columns, splits = self.columns, {shard: shard_split(shard.relative_to(self.root)) for shard in self.shards}
        has_splits = not {None, "train"}.issuperset(splits.values())
        for shard, sample in self.samples():
            yield attempt(self.row, columns, shard, sample, splits[shard] if has_splits else None)

    def row(self, columns: Columns, shard: Path, sample: dict, split: str | None) -> SourceRow:
        folder = SHARD.fullmatch(shard.relative_to(self.root).as_posix())[1]
        found = join_lines([as_line(shard, sample)], columns)
        return SourceRow(
            image=sample.get(columns.image),
            file=f"{folder}/{sample['__key__']}.{columns.image}",
            image_id=f"{self.name}/{folder}/{sample['__key__']}",
            source=self.name,
            label=found.label,
            split=found.split or split,
            captions_en=found.captions_en,
            given=found.given,
        )

    def samples(self) -> Iterator[tuple[Path, dict]]:
        """Yield the shard and the files of each sample by suffix, decoded. All samples have suffixes of the first."""
        first: list[str] | None = None
        for shard in self.shards:
            for sample in read_shard(shard):
                first = first or suffixes_of(sample)
                if new := [suffix for suffix in suffixes_of(sample) if suffix not in first]:
                    having = ", ".join(f".{suffix}" for suffix in first)
                    found = f"sample {sample['__key__']} has a file .{new[0]}, but the first sample has {having}"
                    advice = "give all samples equal suffixes, and put the files of a sample side by side"
                    raise UserError(f"{shard}: {found}: {advice}")
                yield shard, sample


def read_shard(shard: Path) -> Iterator[dict]:
    place = f"the first sample of {shard}"
    samples = Reader._get_pipeline_from_tar(str(shard), DownloadManager().iter_archive(str(shard)))
    while True:
        with user_errors(*READ_ERRORS, prefix=f"{place} cannot be read"):
            sample = next(samples, None)
        if sample is None:
            break
        place = f"{shard}: the sample after {sample['__key__']}"
        yield sample
    # `tarfile` ends without an error at a damaged header, as if it was the block of zeros at the end.
    with user_errors(*READ_ERRORS, prefix=f"{shard} cannot be read"), tarfile.open(shard) as archive:
        archive.getmembers()
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise UserError(f"{place} cannot be read: the shard is damaged")


def suffixes_of(sample: dict) -> list[str]:
    return [suffix for suffix in sample if not suffix.startswith("__")]


def as_line(shard: Path, sample: dict) -> tuple[str, dict]:
    # Place, for error lines, and columns: decoded files by suffix, and the keys of the JSON file.
    place = f"{shard}: {sample['__key__']}"
    keys = parse_line(f"{place}.json", sample["json"])[1] if sample.get("json") else {}
    for suffix in ("txt", "cls"):
        if suffix in sample:
            with user_errors(ValueError, prefix=f"{place}.{suffix} cannot be read"):
                keys[suffix] = sample[suffix].decode("utf-8-sig").strip()
    return place, keys


def shard_split(shard: Path) -> str | None:
    # The split that the name of a shard, or of the nearest folder, begins with.
    words = (re.match("[a-z]*", part.lower())[0] for part in reversed(shard.parts))
    return next((SPLIT_NAMES.get(word, word) for word in words if SPLIT_NAMES.get(word, word) in SPLITS), None)
