"""UCM-Captions: the 2,100 images of UC Merced Land Use (256 pixels, 21 classes), five captions each."""

import re

from rsmclip.data.sources.karpathy import KarpathySource

# Images are numbered through the classes, a hundred to a class.
CLASSES = (
    "agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential", "forest",
    "freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark", "overpass",
    "parkinglot", "river", "runway", "sparseresidential", "storagetanks", "tenniscourt",
)  # fmt: skip


class UCMCaptions(KarpathySource):
    """`dataset.json` and `imgs/1.tif`."""

    name = "ucm"
    licence = None
    citation = (
        "B. Qu, X. Li, D. Tao, X. Lu: Deep Semantic Understanding of High Resolution Remote Sensing Image. "
        "CITS 2016. doi:10.1109/CITS.2016.7546397"
    )
    annotations = ("dataset.json", "dataset_ucm.json")
    images = ("imgs", "images")

    def label_of(self, file_name: str) -> str | None:
        """The class of an image: `agricultural` of `100.tif`, `airplane` of `101.tif`."""
        number = re.fullmatch(r"0*([1-9]\d{0,3})\.\w+", file_name)
        return CLASSES[(int(number[1]) - 1) // 100] if number and int(number[1]) <= 2100 else None


READER = UCMCaptions
