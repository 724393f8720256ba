"""The Space on one's own machine."""

import os
import socket
from pathlib import Path

from datasets import Image

from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import load_corpus, one_line_errors
from rsmclip.hub import handler
from rsmclip.hub.space.app import run_app
from rsmclip.models.folder import PUBLISHED, check_model_type, find_source

DEMO_MODEL = "outputs/demo"


def run_space(
    source: str,
    gallery: str,
    split: str,
    port: int | None,
    revision: str | None = None,
    gallery_revision: str | None = None,
) -> None:
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
        revision (`str`, *optional*):
            Branch, tag or commit of a model on the Hub.
        gallery_revision (`str`, *optional*):
            The same of a dataset on the Hub.

    Raises:
        `ValueError`: There is no such model, dataset or split, or the dataset has no images.
        `OSError`: The port is taken.
    """
    if source == DEMO_MODEL and not Path(source).is_dir():
        raise ValueError(f"there is no demo model in {DEMO_MODEL}: make train makes it; or give a model's folder")
    if port is not None:
        check_port(port)
    folder = find_source(source, list(PUBLISHED), revision)
    check_model_type(folder)
    name = source if not Path(source).is_dir() else folder.resolve().name
    if gallery_revision and (gallery == "demo" or Path(gallery).is_dir()):
        raise ValueError(f"the gallery {gallery} is here, without a revision {gallery_revision!r}: leave it out")
    corpus = load_corpus(str(cached_demo()) if gallery == "demo" else gallery, revision=gallery_revision)
    if split not in corpus:
        raise ValueError(f"{gallery} has no split {split!r}; it has {', '.join(corpus)}")
    if "image" not in corpus[split].features:
        raise ValueError(f"{gallery} has no column 'image'; it has {', '.join(corpus[split].features)}")
    with one_line_errors(gallery):
        rows = corpus[split].cast_column("image", Image(decode=False))
    gallery_name = Path(gallery).resolve().name if gallery != "demo" and Path(gallery).is_dir() else gallery
    try:
        run_app(handler, folder, name, f"{gallery_name} ({split})", rows, port)
    except KeyboardInterrupt:
        print("ended")


def check_port(port: int) -> None:
    """Raises `OSError` if a port is taken, as Gradio does only once the app is made."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port))
        except OSError as error:
            raise OSError(f"port {port} cannot be used ({error.strerror}): give another --port, or none") from error
