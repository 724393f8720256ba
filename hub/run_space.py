"""The Space on one's own machine."""

from pathlib import Path

from rsmclip.data.demo import cached_demo
from rsmclip.data.schema import load_corpus
from rsmclip.hub import handler
from rsmclip.hub.folder import PUBLISHED, check_model_type, find_source
from rsmclip.hub.space.app import run_app

DEMO_MODEL = "outputs/demo"


def run_space(source: str, gallery: str, split: str, port: int | None) -> None:
    """
    Serves a model with a gallery until it is interrupted.

    Args:
        source (`str`):
            Local folder or Hub id of a model.
        gallery (`str`):
            `demo`, or folder or Hub id of a dataset with a column `image`, and perhaps `captions` and `label`.
        split (`str`):
            Its split.
        port (`int`, *optional*):
            Where; by default the first free one from 7860.

    Raises:
        `ValueError`: There is no such model, dataset or split, or the dataset has no images.
        `OSError`: The port is taken.
    """
    if source == DEMO_MODEL and not Path(source).is_dir():
        raise ValueError(f"there is no demo model in {DEMO_MODEL}: make train makes it; or give a model's folder")
    folder = find_source(source, list(PUBLISHED))
    check_model_type(folder)
    name = source if not Path(source).is_dir() else folder.resolve().name
    corpus = load_corpus(str(cached_demo()) if gallery == "demo" else gallery)
    if split not in corpus:
        raise ValueError(f"{gallery} has no split {split!r}; it has {', '.join(corpus)}")
    if "image" not in corpus[split].features:
        raise ValueError(f"{gallery} has no column 'image'; it has {', '.join(corpus[split].features)}")
    gallery_name = Path(gallery).resolve().name if gallery != "demo" and Path(gallery).is_dir() else gallery
    try:
        run_app(handler, folder, name, f"{gallery_name} ({split})", corpus[split], port)
    except KeyboardInterrupt:
        print("ended")
