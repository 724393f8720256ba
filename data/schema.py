"""The schema of every corpus: one row per image, with captions in several languages, aligned with each other."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Features, Image, LargeList, List, Value
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HFValidationError

from rsmclip.core.languages import LANGUAGES  # noqa: F401

RAW_CAPTIONS = "raw_captions"  # as published, in English; a corpus that was drawn or translated elsewhere has none

ROWS_PER_BATCH = 10_000  # captions held in memory while they are checked


class SchemaError(ValueError):
    """A dataset does not exist, or is not what this project trains and evaluates on."""


def features(languages: Sequence[str], raw: bool = False) -> Features:
    """
    Columns of a corpus with captions in the given languages.

    `captions["pt"][k]` translates `captions["en"][k]`; a caption without an accepted translation is null.

    Args:
        languages (`Sequence[str]`): Language codes.
        raw (`bool`, *optional*, defaults to `False`): With the column of captions as they were published.
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
    Loads a corpus with its images still encoded; [`check_schema`] tells whether it is one.

    Args:
        path_or_hub_id (`str` or `Path`):
            Folder that `python -m rsmclip.data build` or `save_to_disk` wrote, or id of a dataset on the
            Hub.
        config_name (`str`, *optional*):
            Name of its configuration, where it has several.
        revision (`str`, *optional*):
            Branch, tag or commit of a dataset on the Hub.

    Raises:
        [`SchemaError`]: There is no such dataset, or it cannot be read.
    """
    name, folder = str(path_or_hub_id), Path(path_or_hub_id)
    with one_line_errors(name):
        if (folder / "dataset_dict.json").is_file():
            corpus = DatasetDict.load_from_disk(name)
        elif (folder / "state.json").is_file():
            corpus = DatasetDict(train=Dataset.load_from_disk(name))
        elif folder.is_dir() and not any(folder.rglob("*.parquet")):
            raise SchemaError(f"the folder {name} holds no dataset: make one with python -m rsmclip.data build")
        else:
            corpus = datasets.load_dataset(name, config_name, revision=revision)
    return DatasetDict({split: keep_encoded(rows) for split, rows in corpus.items()})


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """What `datasets` raises on a dataset of this name, as a [`SchemaError`] of one line."""
    try:
        yield
    except SchemaError:
        raise
    except (OSError, HFValidationError) as error:  # missing here and there, or the Hub is out of reach
        cause = type(error).__name__
        raise SchemaError(f"no folder {name} and no such dataset on the Hub that can be read ({cause})") from error
    except (DatasetGenerationError, pa.ArrowException) as error:
        told = " ".join(str(error.__cause__ or error).split())
        raise SchemaError(f"the dataset {name} is damaged: {told}") from error
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:  # a configuration that is not there …
        raise SchemaError(f"the dataset {name} cannot be read: {str(error).strip().splitlines()[0]}") from error


def keep_encoded(rows: Dataset) -> Dataset:
    """The rows with images as bytes; they are decoded where they are used, in the workers."""
    for column in (name for name, feature in rows.features.items() if isinstance(feature, Image)):
        rows = rows.cast_column(column, Image(decode=False))
    return rows


def hub_revision(rows: Dataset) -> str | None:
    """The commit of the Hub's dataset that rows were loaded from; `None` of a folder, and of a stream's shards."""
    folders = {Path(file["filename"]).parent.name for file in rows.cache_files}  # `datasets` names them so
    return next((name for name in folders if re.fullmatch(r"[0-9a-f]{40}", name)), None)


def check_schema(dataset: DatasetDict, split: str, languages: Sequence[str]) -> Dataset:
    """
    A split of a dataset, once it is certain that it can be trained or evaluated on.

    Args:
        dataset (`DatasetDict`):
            What [`load_corpus`] gave.
        split (`str`):
            Name of the split.
        languages (`Sequence[str]`):
            Languages of which each must have a caption somewhere in the split.

    Returns:
        `datasets.Dataset`: The split.

    Raises:
        [`SchemaError`]: One line that names the split, column or language that is missing or wrong.
    """
    if split not in dataset:
        raise SchemaError(f"the dataset has no split {split!r}; it has {', '.join(dataset)}")
    rows = dataset[split]
    if faults := list(column_faults(rows.features)):
        raise SchemaError(f"the dataset is not in the schema of rsmclip.data: {'; '.join(faults)}")
    counts = count_captions(rows)
    if without := [language for language in languages if not counts.get(language)]:
        having = ", ".join(language for language, count in counts.items() if count) or "no language"
        raise SchemaError(f"split {split!r} has no captions in {', '.join(without)}; it has captions in {having}")
    return rows


def column_faults(found: Features) -> Iterator[str]:
    """What is missing or of the wrong type, in words."""
    for column in features(()):
        if column not in found:
            yield f"no column {column!r}"
    if not isinstance(found.get("image", Image()), Image):
        yield f"column 'image' has type {found['image']}, not Image"
    for column in ("image_id", "source", "label"):
        # A column of nulls only has lost its type; for labels, that means a corpus without classes.
        if column in found and not is_string(found[column]) and (column, found[column]) != ("label", Value("null")):
            yield f"column {column!r} has type {found[column]}, not string"
    captions = found.get("captions", {})
    if not isinstance(captions, dict):
        yield f"column 'captions' has type {captions}, not a struct of languages"
    else:
        for language, texts in captions.items():
            if not (isinstance(texts, List | LargeList) and is_string(texts.feature)):
                yield f"captions in {language!r} have type {texts}, not list of strings"


def is_string(feature: object) -> bool:
    """Whether a column holds strings."""
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def count_captions(rows: Dataset) -> dict[str, int]:
    """
    Captions in each language, those that are null or empty not counted.

    Raises:
        [`SchemaError`]: The lists of a row differ in length, so that they cannot be translations of each other.
    """
    counts = dict.fromkeys(rows.features["captions"], 0)
    tables = rows.select_columns("captions").with_format("arrow").iter(batch_size=ROWS_PER_BATCH)
    for number, table in enumerate(tables):
        captions = table["captions"].combine_chunks()
        lengths = {language: pc.list_value_length(pc.struct_field(captions, language)) for language in counts}
        for language in counts:
            texts = pc.list_flatten(pc.struct_field(captions, language))
            counts[language] += len(pc.drop_null(texts).filter(pc.not_equal(pc.drop_null(texts), "")))
            for other in counts:
                unequal = pc.fill_null(pc.not_equal(lengths[language], lengths[other]), False)
                if pc.any(unequal).as_py():
                    row = number * ROWS_PER_BATCH + pc.index(unequal, True).as_py()
                    raise SchemaError(f"row {row}: captions in {language!r} and {other!r} are not aligned")
    return counts
