"""RSICD: 10,921 images of 224 pixels in 30 classes from several map services, five captions each."""

from rsmclip.data.sources.karpathy import KarpathySource


class RSICD(KarpathySource):
    """`dataset_rsicd.json` and `RSICD_images/airport_1.jpg`."""

    name = "rsicd"
    licence = None
    citation = (
        "X. Lu, B. Wang, X. Zheng, X. Li: Exploring Models and Data for Remote Sensing Image Caption Generation. "
        "IEEE TGRS 56(4), 2018. doi:10.1109/TGRS.2017.2776321"
    )
    annotations = ("dataset_rsicd.json",)
    images = ("RSICD_images", "images")


READER = RSICD
