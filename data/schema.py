"""The schema of every corpus: one row per image, with captions in several languages that are aligned with each other."""

from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, Features, Image, List, Value

LANGUAGES = ("en", "pt", "es", "fr", "de", "nl", "it", "zh", "ko", "ru")
COLUMNS = ("image", "image_id", "source", "label", "captions")


class SchemaError(ValueError):
    """A dataset does not exist, or is not what this project trains and evaluates on."""


def corpus_features(languages: Sequence[str]) -> Features:
    """
    Columns of a corpus with captions in the given languages.

    `captions["pt"][k]` translates `captions["en"][k]`; a caption without an accepted translation is null.
    """
    return Features(
        {
            "image": Image(),
            "image_id": Value("string"),
            "source": Value("string"),
            "label": Value("string"),
            "captions": {language: List(Value("string")) for language in languages},
        }
    )


def load_corpus(name: str) -> DatasetDict:
    """
    Loads a corpus with its images still encoded.

    Args:
        name (`str`):
            Folder that `python -m rsmclip.data build` or `DatasetDict.save_to_disk` wrote, or id of a dataset on the Hub.

    Raises:
        [`SchemaError`]: There is no such dataset.
    """
    path = Path(name)
    if path.is_dir() and (path / "dataset_dict.json").is_file():
        corpus = DatasetDict.load_from_disk(name)
    elif path.is_dir() and not any(path.rglob("*.parquet")):
        raise SchemaError(f"{name} holds no dataset: make one with python -m rsmclip.data build")
    elif not path.is_dir() and (path.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise SchemaError(f"there is no dataset at {name}")
    else:
        try:
            corpus = datasets.load_dataset(name)
        except (FileNotFoundError, ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
            raise SchemaError(
                f"no folder {name} here and no such dataset on the Hub ({type(error).__name__})"
            ) from error
    for split, rows in corpus.items():
        if "image" in rows.column_names and isinstance(rows.features["image"], Image):
            corpus[split] = rows.cast_column("image", Image(decode=False))
    return corpus


def check_corpus(corpus: DatasetDict, split: str, languages: Sequence[str]) -> Dataset:
    """
    A split of a corpus, once it is certain that it can be trained or evaluated on.

    Args:
        corpus (`DatasetDict`): What [`load_corpus`] gave.
        split (`str`): Name of the split.
        languages (`Sequence[str]`): Languages of which each must have a caption somewhere in the split.

    Raises:
        [`SchemaError`]: A split, column or language is missing; the message says which.
    """
    if split not in corpus:
        raise SchemaError(f"the dataset has no split {split!r}; it has {', '.join(corpus)}")
    rows = corpus[split]
    if missing := [column for column in COLUMNS if column not in rows.column_names]:
        raise SchemaError(f"the dataset lacks the columns {', '.join(missing)} (docs/data.md describes the schema)")
    if not isinstance(rows.features["image"], Image):
        raise SchemaError(f"the column image holds {rows.features['image']}, not encoded images")
    captions = rows.features["captions"]
    if not isinstance(captions, dict) or not all(isinstance(texts, List) for texts in captions.values()):
        raise SchemaError("the column captions must be a struct of language codes, each with a list of strings")
    if not len(rows):
        raise SchemaError(f"the split {split!r} is empty")
    counts = count_captions(rows)
    if without := [language for language in languages if not counts.get(language)]:
        having = ", ".join(language for language, count in counts.items() if count)
        raise SchemaError(f"no caption in {', '.join(without)} in split {split!r}; it has captions in {having}")
    return rows


def count_captions(rows: Dataset) -> dict[str, int]:
    """Captions that are not null, for each language."""
    captions = rows.data.column("captions").combine_chunks()
    chunks = captions.chunks if hasattr(captions, "chunks") else [captions]
    counts = dict.fromkeys(rows.features["captions"], 0)
    for chunk in chunks:
        for language in counts:
            texts = chunk.field(language).flatten()
            counts[language] += len(texts) - texts.null_count
    return counts
