"""The schema of every corpus: one row per image, with aligned captions in several languages."""

import glob
import gzip
import os
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from zipfile import BadZipFile

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetBuilder, DatasetDict, Features, Image, LargeList, List, Value
from datasets.exceptions import DatasetsError, NonMatchingSplitsSizesError
from datasets.fingerprint import Hasher
from huggingface_hub.errors import HFValidationError, HTTPError  # HTTPError: of httpx or requests
from yaml import YAMLError

from rsmclip.core.errors import UserError
from rsmclip.core.files import recover, visible_files
from rsmclip.core.images import IMAGE_SUFFIXES
from rsmclip.data.own_files import check_data_files, check_rows

RAW_CAPTIONS = "raw_captions"  # English captions as published; only a corpus made by `build` has this column
ARCHIVE_ERRORS = (BadZipFile, TarError, LZMAError, zlib.error, gzip.BadGzipFile, EOFError)
GLOB = re.compile(r"[][*?]")
SAVED = ("dataset_dict.json", "state.json")  # by `save_to_disk`, for several splits or one
SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}\.parquet")
ROWS_PER_BATCH = 10_000  # rows with captions in memory at once, while they are checked


def features(languages: Sequence[str], raw: bool = False) -> Features:
    """
    Return the columns of a corpus with captions in some languages, optionally with the column `raw_captions`.

    `captions["pt"][k]` translates `captions["en"][k]`. A caption without an accepted translation is null.
    """
    return Features(
        {
            "image": Image(),
            "image_id": Value("string"),
            "source": Value("string"),
            "label": Value("string"),
            "captions": {language: List(Value("string")) for language in languages},
            **({RAW_CAPTIONS: List(Value("string"))} if raw else {}),
        }
    )


def load_corpus(
    path_or_hub_id: str | Path, config_name: str | None = None, revision: str | None = None
) -> DatasetDict:
    """
    Load a dataset with its images still encoded. Call [`check_schema`] to check that it is a corpus.

    Args:
        path_or_hub_id (`str` or `Path`): Folder that `rsmclip data build` or `save_to_disk` wrote, or a Hub id.
        config_name (`str`, *optional*): Name of the configuration, if the dataset has several.
        revision (`str`, *optional*): Branch, tag or commit of a dataset on the Hub.

    Raises:
        [`UserError`]: The dataset does not exist or cannot be read, or names files of another place.
    """
    name, folder = str(path_or_hub_id), Path(path_or_hub_id)
    recover(folder)
    if (folder / "dataset_dict.json").is_file():
        with one_line_errors(name):
            corpus = DatasetDict.load_from_disk(name)
    elif (folder / "state.json").is_file():
        with one_line_errors(name):
            corpus = DatasetDict(train=Dataset.load_from_disk(name))
    elif folder.is_dir() and not any(folder.rglob("*.parquet")):
        raise UserError(
            f"the folder {name} has neither parquet files nor the output of save_to_disk: make a corpus of it with "
            f"rsmclip data build --source imagefolder={name} (or webdataset={name}) --output DIR"
        )
    else:
        builder = open_builder(name, config_name, revision)
        with one_line_errors(name):
            builder.download_and_prepare()
            corpus = builder.as_dataset()
    for rows in corpus.values():
        check_rows(name, rows)
    return DatasetDict({split: keep_encoded(rows) for split, rows in corpus.items()})


def is_corpus(folder: Path) -> bool:
    """
    Return whether a folder is a corpus rather than a folder of pictures, which may have tables beside them.

    A corpus was written by `save_to_disk`, or has a parquet file with a column `image`, or parquet files and no
    pictures, of which the loading says what they lack. Hidden files do not count.
    """
    if any((folder / name).is_file() for name in SAVED):
        return True
    tables = sorted(visible_files(folder, {".parquet"}))
    return any(map(has_images, tables)) or (bool(tables) and not any(visible_files(folder, IMAGE_SUFFIXES)))


def has_images(path: Path) -> bool:
    """Return whether a parquet file has a column `image`, or is damaged, which the loading of the corpus says."""
    try:
        return "image" in pq.read_schema(path).names
    except pa.ArrowException:
        return True


def is_built(folder: Path) -> bool:
    """Return whether a folder has the files that `rsmclip data build` writes."""
    return (folder / "README.md").is_file() and any(folder.glob("data/*.parquet"))


def open_builder(name: str, config_name: str | None = None, revision: str | None = None) -> DatasetBuilder:
    """
    Find the files of a dataset, and read no row. The arguments are those of [`load_corpus`].

    Raises:
        [`UserError`]: The dataset does not exist, or its card names files of another place.
    """
    source, files, cache, folder = name, None, None, Path(name).resolve()
    with one_line_errors(name):
        if folder.is_dir():
            shards = sorted(folder.rglob("*.parquet"))
            cache = own_cache([folder / "README.md", *shards])
            if GLOB.search(str(folder)):
                source, files = "parquet", escaped_files(shards)
        builder = datasets.load_dataset_builder(
            source, config_name, data_files=files, revision=revision, cache_dir=cache
        )
    check_data_files(name, builder.config.data_files or {})
    return builder


def own_cache(files: Sequence[Path]) -> str:
    """
    Return the folder of a cache for a local dataset in the present state of its files.

    `datasets` names the cache of a local folder by the folder's name and README.md alone. After a change of the same
    length, such as a corrected letter in a caption, or for another folder of that name, it would return the old rows.
    """
    found = [(str(path.resolve()), path.stat()) for path in files if path.is_file()]
    states = [(path, state.st_size, state.st_mtime_ns) for path, state in found]
    return os.path.join(datasets.config.HF_DATASETS_CACHE, "local", Hasher.hash(states))


def escaped_files(paths: Sequence[Path]) -> dict[str, list[str]]:
    # By split. `datasets` reads the path of a folder as a pattern, but it lets us name the files ourselves.
    files: dict[str, list[str]] = {}
    for path in paths:
        if not (shard := SHARD.fullmatch(path.name)):
            raise UserError(f"datasets cannot read {path}, because its path has one of [ ] * ?: rename its folder")
        files.setdefault(shard[1], []).append(glob.escape(str(path)))
    return files


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Raise errors of one call of `datasets` as [`UserError`]; `name` is the folder or Hub id for the error line."""
    try:
        yield
    except NonMatchingSplitsSizesError as error:
        first = re.search(r"name='(.*?)'.*?num_examples=(\d+).*?num_examples=(\d+)", str(error))
        what = "split {!r} should have {} rows, but has {}".format(*first.groups()) if first else str(error)
        raise UserError(
            f"the dataset {name} does not have the rows that its README.md declares: {what}; fetch the dataset again, "
            "or delete dataset_info from README.md"
        ) from error
    except ARCHIVE_ERRORS as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"the dataset {name} has a damaged archive ({cause}): fetch the dataset again") from error
    except (OSError, HTTPError, HFValidationError) as error:  # no such folder or id, no access or network, a full disk
        cause = " ".join(str(error).split()) or type(error).__name__
        if Path(name).is_dir():
            raise UserError(f"the dataset {name} cannot be read: {cause}") from error
        raise UserError(f"there is no folder {name}, and reading it from the Hub failed: {cause}") from error
    except YAMLError as error:  # of the card; a tag is no plain value
        raise UserError(f"the metadata in README.md of {name} is not valid: {' '.join(str(error).split())}") from error
    except (DatasetsError, pa.ArrowException) as error:  # damaged files, or a full disk
        cause = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"the dataset {name} cannot be read: {cause}") from error
    except (ValueError, RuntimeError, IndexError) as error:  # no such configuration, bad JSON; a script; no rows
        raise UserError(f"the dataset {name} cannot be read: {' '.join(str(error).split())}") from error


def keep_encoded(rows: Dataset) -> Dataset:
    """Return rows with images as encoded bytes. The workers of the data loader decode them."""
    for column in (name for name, feature in rows.features.items() if isinstance(feature, Image)):
        rows = rows.cast_column(column, Image(decode=False))
    return rows


def hub_revision(rows: Dataset) -> str | None:
    """Return the Hub commit that rows were loaded from; `None` for a local folder or a stream."""
    folders = {Path(file["filename"]).parent.name for file in rows.cache_files}  # `datasets` names them by commit
    return next((name for name in folders if re.fullmatch(r"[0-9a-f]{40}", name)), None)


def check_schema(dataset: DatasetDict, split: str, languages: Sequence[str], option: str | None = None) -> Dataset:
    """
    Return a split after checking that a model can be trained or evaluated on it.

    Args:
        dataset (`DatasetDict`): Dataset as [`load_corpus`] returned it.
        split (`str`): Name of the split.
        languages (`Sequence[str]`): Languages that must each have at least one caption in the split.
        option (`str`, *optional*): Option of the command that has the languages. The error line advises it.

    Raises:
        [`UserError`]: A split, column or language is missing or wrong.
    """
    check_split(split, dataset)
    rows = dataset[split]
    if faults := list(column_faults(rows.features)):
        raise UserError(
            f"split {split!r} does not have the columns of a corpus ({'; '.join(faults)}): make a corpus with "
            "rsmclip data build --source hub=DATASET --output DIR"
        )
    try:
        counts = count_captions(rows)
    except UserError as error:
        raise UserError(f"split {split!r}, {error}: their lists need one length") from error
    if missing := [language for language in languages if not counts.get(language)]:
        present = [language for language, count in counts.items() if count]
        advice = f": give {option} {' '.join(present)}" if option and present else ""
        raise UserError(
            f"split {split!r} has no captions in {', '.join(missing)}; it has captions in "
            f"{', '.join(present) or 'no language'}{advice}"
        )
    return rows


def check_split(split: str, present: Collection[str]) -> None:
    """Raise [`UserError`] if a split is not among those of a dataset."""
    if split not in present:
        advice = "divide it with rsmclip data build --source hub=DATASET --split 80/10/10 --output DIR"
        found = f"only train: {advice}" if list(present) == ["train"] else ", ".join(present) or "no data files"
        raise UserError(f"the dataset has no split {split!r}; it has {found}")


def column_faults(found: Features) -> Iterator[str]:
    """Yield a message for each column that is missing or has the wrong type."""
    for column in features(()):
        if column not in found:
            yield f"no column {column!r}"
    if not isinstance(found.get("image", Image()), Image):
        yield f"column 'image' has type {found['image']}, not Image"
    for column in ("image_id", "source", "label"):
        # A column of nulls loses its type. In a corpus without classes, all labels are null.
        if column in found and not is_string(found[column]) and (column, found[column]) != ("label", Value("null")):
            yield f"column {column!r} has type {found[column]}, not string"
    captions = found.get("captions", {})
    if not isinstance(captions, dict):
        yield f"column 'captions' has type {captions}, not a struct of languages"
        return
    for language, texts in captions.items():
        if not (isinstance(texts, List | LargeList) and is_string(texts.feature)):
            yield f"captions in {language!r} have type {texts}, not list of strings"


def is_string(feature: object) -> bool:
    """Return whether a column holds strings."""
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def captions_of(rows: Dataset, languages: Sequence[str] | None = None) -> Iterator[str]:
    """Yield the captions of a split in the given languages, by default in all."""
    for captions in rows["captions"]:
        for language in captions if languages is None else languages:
            yield from (caption for caption in captions.get(language) or [] if caption)


def count_captions(rows: Dataset) -> dict[str, int]:
    """
    Return the number of captions by language. Null and empty captions do not count.

    Raises:
        [`UserError`]: The caption lists of a row differ in length, so they cannot be translations of each other.
    """
    counts = dict.fromkeys(rows.features["captions"], 0)
    tables = rows.select_columns("captions").with_format("arrow").iter(batch_size=ROWS_PER_BATCH)
    for number, table in enumerate(tables):
        captions = table["captions"].combine_chunks()
        lengths = {language: pc.list_value_length(pc.struct_field(captions, language)) for language in counts}
        for language in counts:
            texts = pc.drop_null(pc.list_flatten(pc.struct_field(captions, language)))
            counts[language] += len(texts.filter(pc.not_equal(texts, "")))
            for other in counts:
                unequal = pc.fill_null(pc.not_equal(lengths[language], lengths[other]), False)
                if pc.any(unequal).as_py():
                    row = number * ROWS_PER_BATCH + pc.index(unequal, True).as_py()
                    raise UserError(f"row {row}: captions in {language!r} and {other!r} are not aligned")
    return counts
