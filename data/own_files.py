"""Check that a dataset names only files of its own folder or repository, and no other files of this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Image
from huggingface_hub import constants

from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import is_inside

STORE = "store its images in the table (save_to_disk of datasets does), or build a corpus"


def check_data_files(name: str, data_files: dict[str, list[str]]) -> None:
    """
    Raise [`UserError`] if the card of a dataset names data files of another place.

    A link in a local folder may lead out of it: its owner made it.
    """
    for file in (file for found in data_files.values() for file in found):
        if not is_own_file(name, file):
            raise UserError(f"the card of {name} names data files of another place, {file}: nothing was read")


def is_own_file(name: str, file: str) -> bool:
    if "://" in file:
        return file.lower().startswith(f"hf://datasets/{name}@".lower())
    return Path(name).is_dir() and Path(os.path.normpath(file)).is_relative_to(Path(name).resolve())


def check_rows(name: str, rows: Dataset, place: str | None = None) -> None:
    """
    Raise [`UserError`] if a row has the path of a file in place of an image, and the file is not the dataset's; or if
    a text is not UTF-8: a parquet file can have any bytes in its place.

    The file of a dataset is in its folder, or in the caches of the Hub and of `datasets` for its repository. `place`,
    by default the dataset, is named in the error line.
    """
    with user_errors(pa.ArrowInvalid, prefix=f"{place or name} is damaged"):
        rows.data.table.validate(full=True)  # looks into texts, not into images
    cache = Path(constants.HF_HUB_CACHE, "--".join(("datasets", *name.split("/"))))
    places = [Path(name) if Path(name).is_dir() else cache, Path(datasets.config.EXTRACTED_DATASETS_PATH)]
    for column in image_columns(rows.features):
        for chunk in rows.data.column(column).chunks:
            for path in lone_paths(chunk):
                if os.path.isfile(path) and not any(is_inside(Path(path), place) for place in places):
                    raise UserError(
                        f"a row of {place or name} names a file of another place as its {column}, {path}: {STORE}"
                    )


def image_columns(features: Features) -> Iterator[str]:
    for name, feature in features.items():
        if isinstance(feature, Image) or (isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()):
            yield name


def lone_paths(images: pa.StructArray) -> list[str]:
    # Reads no image: whether a row has bytes is in a bitmap.
    has_none = pc.is_null(pc.struct_field(images, "bytes"))
    return pc.struct_field(images, "path").filter(has_none).drop_null().to_pylist()
