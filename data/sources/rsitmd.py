"""RSITMD: 4,743 images of 256 pixels in 32 classes, five fine-grained captions each. It shares pictures with RSICD."""

from rsmclip.data.sources.karpathy import KarpathySource


class RSITMD(KarpathySource):
    """`dataset_RSITMD.json` and `images/airport_1.tif`."""

    name = "rsitmd"
    licence = None
    citation = (
        "Z. Yuan, W. Zhang, K. Fu, X. Li, C. Deng, H. Wang, X. Sun: Exploring a Fine-Grained Multiscale Method for "
        "Cross-Modal Remote Sensing Image Retrieval. IEEE TGRS 60, 2022. doi:10.1109/TGRS.2021.3078451"
    )
    annotations = ("dataset_RSITMD.json",)
    images = ("images",)


READER = RSITMD
