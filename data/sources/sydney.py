"""Sydney-Captions: 613 images of 500 pixels of Sydney, five captions each."""

from rsmclip.data.sources.karpathy import KarpathySource


class SydneyCaptions(KarpathySource):
    """`dataset.json` and `imgs/1.tif`."""

    name = "sydney"
    licence = None
    citation = (
        "B. Qu, X. Li, D. Tao, X. Lu: Deep Semantic Understanding of High Resolution Remote Sensing Image. "
        "CITS 2016. doi:10.1109/CITS.2016.7546397"
    )
    annotations = ("dataset.json", "dataset_sydney.json")
    images = ("imgs", "images")


READER = SydneyCaptions
