"""NWPU-Captions: the 31,500 images of NWPU-RESISC45 (256 pixels, 45 classes of 700), five captions each."""

from collections.abc import Iterator
from pathlib import Path

from rsmclip.core.errors import UserError
from rsmclip.data.sources import protocol
from rsmclip.data.sources.protocol import SourceRow, attempt, first_existing, read_field

CAPTIONS = ("raw", "raw_1", "raw_2", "raw_3", "raw_4")


class NWPUCaptions:
    """`dataset_nwpu.json`, `{class: [{filename, split, raw, raw_1 … raw_4}]}`, and `NWPU_images/<class>/`."""

    name = "nwpu"
    license = None
    chosen = False
    languages = ()
    citation = (
        "Q. Cheng, H. Huang, Y. Xu, Y. Zhou, H. Li, Z. Wang: NWPU-Captions Dataset and MLCA-Net for Remote Sensing "
        "Image Captioning. IEEE TGRS 60, 2022. doi:10.1109/TGRS.2022.3201474"
    )

    def __init__(self, place: str):
        self.root = protocol.existing_folder(self.name, place)

    def rows(self) -> Iterator[SourceRow | UserError]:
        """Yield all rows in the order of the annotation file."""
        path = first_existing(self.name, "annotation file", self.root, ("dataset_nwpu.json",))
        classes = protocol.read_annotations(path)
        if not isinstance(classes, dict):
            raise UserError(f"{path} is not {{class: [images]}}, the layout of NWPU-Captions")
        images = first_existing(self.name, "folder", self.root, ("NWPU_images", "images"))
        for scene in classes:
            protocol.check_inside(scene, str(path))
            for number, entry in enumerate(read_field(classes, scene, list, str(path))):
                yield attempt(self.row, images, scene, entry, f"{path}: {scene}[{number}]")

    def row(self, images: Path, scene: str, entry: object, place: str) -> SourceRow:
        file_name, split = (read_field(entry, key, str, place) for key in ("filename", "split"))
        captions = [entry[key] for key in CAPTIONS if key in entry]
        return protocol.make_row(self.name, images / scene, file_name, split, captions, scene, place)
