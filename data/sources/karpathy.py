"""The layout of Karpathy's COCO split, and four corpora in this layout, with five captions per image.

A corpus is a folder of images and a JSON file `{"images": [{"filename", "split", "sentences": [{"raw", "tokens"}]}]}`.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rsmclip.core.errors import UserError
from rsmclip.data.sources import protocol
from rsmclip.data.sources.protocol import SourceRow, attempt, first_existing, read_field

# Images are numbered in this order, 100 per class.
UCM_CLASSES = """
    agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse harbor
    intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential storagetanks
    tenniscourt
""".split()  # noqa: SIM905
QU_2016 = (
    "B. Qu, X. Li, D. Tao, X. Lu: Deep Semantic Understanding of High Resolution Remote Sensing Image. CITS 2016. "
    "doi:10.1109/CITS.2016.7546397"
)


class KarpathySource:
    """A corpus in Karpathy's layout; `place` is the folder of the annotation file."""

    name: str
    license = None
    chosen = False
    citation: str
    languages = ()
    annotations: tuple[str, ...]  # possible names of the annotation file
    images: tuple[str, ...]  # possible names of the folder of images

    def __init__(self, place: str):
        self.root = protocol.existing_folder(self.name, place)

    def rows(self) -> Iterator[SourceRow | UserError]:
        """Yield all rows in the order of the annotation file."""
        path = first_existing(self.name, "annotation file", self.root, self.annotations)
        entries = read_field(protocol.read_annotations(path), "images", list, str(path))
        folder = first_existing(self.name, "folder", self.root, self.images)
        for number, entry in enumerate(entries):
            yield attempt(self.row, folder, entry, f"{path}: images[{number}]")

    def row(self, folder: Path, entry: object, place: str) -> SourceRow:
        file_name, split = (read_field(entry, key, str, place) for key in ("filename", "split"))
        sentences = read_field(entry, "sentences", list, place)
        captions = [read_field(sentence, "raw", object, place) for sentence in sentences]
        return protocol.make_row(self.name, folder, file_name, split, captions, self.label_of(file_name), place)

    def label_of(self, file_name: str) -> str | None:
        """Return the scene class in a file name: `airport` for `airport_1.jpg`, `None` for `00623.jpg`."""
        scene = re.fullmatch(r"([A-Za-z]+)_\d+", PurePosixPath(file_name).stem)
        return scene[1] if scene else None


class RSICD(KarpathySource):
    """10,921 images of 224 pixels in 30 classes, from several map services."""

    name = "rsicd"
    citation = (
        "X. Lu, B. Wang, X. Zheng, X. Li: Exploring Models and Data for Remote Sensing Image Caption Generation. "
        "IEEE TGRS 56(4), 2018. doi:10.1109/TGRS.2017.2776321"
    )
    annotations = ("dataset_rsicd.json",)
    images = ("RSICD_images", "images")


class RSITMD(KarpathySource):
    """4,743 images of 256 pixels in 32 classes, with fine-grained captions. RSITMD and RSICD share pictures."""

    name = "rsitmd"
    citation = (
        "Z. Yuan, W. Zhang, K. Fu, X. Li, C. Deng, H. Wang, X. Sun: Exploring a Fine-Grained Multiscale Method for "
        "Cross-Modal Remote Sensing Image Retrieval. IEEE TGRS 60, 2022. doi:10.1109/TGRS.2021.3078451"
    )
    annotations = ("dataset_RSITMD.json",)
    images = ("images",)


class SydneyCaptions(KarpathySource):
    """613 images of 500 pixels of Sydney."""

    name = "sydney"
    citation = QU_2016
    annotations = ("dataset.json", "dataset_sydney.json")
    images = ("imgs", "images")


class UCMCaptions(KarpathySource):
    """The 2,100 images of UC Merced Land Use, 256 pixels, 21 classes."""

    name = "ucm"
    citation = QU_2016
    annotations = ("dataset.json", "dataset_ucm.json")
    images = ("imgs", "images")

    def label_of(self, file_name: str) -> str | None:
        """Return the class of an image: `agricultural` for `100.tif`, `airplane` for `101.tif`."""
        number = re.fullmatch(r"0*([1-9]\d{0,3})\.\w+", file_name)
        return UCM_CLASSES[(int(number[1]) - 1) // 100] if number and int(number[1]) <= 2100 else None
