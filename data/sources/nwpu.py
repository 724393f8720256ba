"""NWPU-Captions: the 31,500 images of NWPU-RESISC45 (256 pixels, 45 classes of 700), five captions each."""

import json
from collections.abc import Iterator
from pathlib import Path

from rsmclip.data.sources.protocol import (
    SourceError,
    SourceRow,
    check_inside,
    describe,
    existing_folder,
    first_existing,
    make_row,
)

CAPTIONS = ("raw", "raw_1", "raw_2", "raw_3", "raw_4")


class NWPUCaptions:
    """`dataset_nwpu.json`, `{class: [{filename, split, raw, raw_1 … raw_4}]}`, and `NWPU_images/<class>/`."""

    name = "nwpu"
    licence = None
    citation = (
        "Q. Cheng, H. Huang, Y. Xu, Y. Zhou, H. Li, Z. Wang: NWPU-Captions Dataset and MLCA-Net for Remote Sensing "
        "Image Captioning. IEEE TGRS 60, 2022. doi:10.1109/TGRS.2022.3201474"
    )

    def __init__(self, place: str):
        self.root = existing_folder(self.name, place)

    def rows(self) -> Iterator[SourceRow]:
        """All rows, in the order of the annotation file."""
        path = first_existing(self.name, "annotation file", self.root, ("dataset_nwpu.json",))
        classes = read_annotation(path)
        images = first_existing(self.name, "folder", self.root, ("NWPU_images", "images"))
        for scene, entries in classes.items():
            for number, entry in enumerate(entries):
                try:
                    check_inside(scene)
                    captions = [entry[key] for key in CAPTIONS if key in entry]
                    yield make_row(self.name, images / scene, entry["filename"], entry["split"], captions, scene)
                except (KeyError, TypeError, ValueError) as error:
                    raise SourceError(f"{path}: {scene}[{number}] is malformed ({describe(error)})") from None


def read_annotation(path: Path) -> dict[str, list[dict]]:
    """The images of every class of an annotation file."""
    try:
        classes = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is no JSON ({error})") from None
    if not isinstance(classes, dict) or not all(isinstance(entries, list) for entries in classes.values()):
        raise SourceError(f"{path} is not {{class: [images]}}, the layout of NWPU-Captions")
    return classes


READER = NWPUCaptions
