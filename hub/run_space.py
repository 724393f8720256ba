"""Run the Space on this machine."""

import os
import socket
from pathlib import Path

from datasets import Image
from pyarrow import ArrowException

from rsmclip.core.errors import UserError, user_errors
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import load_corpus
from rsmclip.hub import handler
from rsmclip.hub.space.app import is_demo_model, run_app
from rsmclip.hub.space.gallery import EmptyGallery
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
    Serve a model with a gallery until it is interrupted. The arguments are the options of `rsmclip hub space`.

    Raises:
        [`UserError`]: The model, the dataset, the split or its images are missing or damaged, or the port is taken.
    """
    # Make the fast checks before anything is loaded.
    is_local = gallery == "demo" or Path(gallery).is_dir()
    if source == DEMO_MODEL and not Path(source).is_dir():
        raise UserError(f"there is no demo model in {DEMO_MODEL}: run make train, or give the folder of a model")
    if gallery_revision and is_local:
        raise UserError(f"--gallery_revision {gallery_revision}: {gallery} is not on the Hub and has no revisions")
    if port is not None:
        check_port(port)
    folder = find_source(source, list(PUBLISHED), revision)
    check_model_type(folder)
    with user_errors(OSError, ValueError, prefix=f"{folder / 'eval_results.json'} cannot be read"):
        is_toy = is_demo_model(folder)

    # Read the gallery with encoded images, then load the model.
    corpus = load_corpus(str(cached_demo()) if gallery == "demo" else gallery, revision=gallery_revision)
    if split not in corpus:
        raise UserError(f"{gallery} has no split {split!r}; its splits are {', '.join(corpus)}")
    if "image" not in corpus[split].features:
        raise UserError(f"{gallery} has no column 'image'; its columns are {', '.join(corpus[split].features)}")
    with user_errors(ValueError, TypeError, ArrowException, prefix=f"{gallery}: the column 'image' has no images"):
        rows = corpus[split].cast_column("image", Image(decode=False))

    # The page shows a folder by its last name, a repository of the Hub by its id.
    name = folder.resolve().name if Path(source).is_dir() else source
    gallery_name = Path(gallery).resolve().name if gallery != "demo" and is_local else gallery
    with user_errors(OSError, ValueError, prefix=f"{source} cannot be loaded"):
        model = handler.EndpointHandler(str(folder))
    with user_errors(EmptyGallery):
        run_app(handler, model, name, f"{gallery_name} ({split})", rows, is_toy=is_toy, port=port)


def check_port(port: int) -> None:
    # Gradio would report a taken port only after the gallery is embedded.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with user_errors(OSError, prefix=f"--port {port} cannot be used"):
            probe.bind((os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port))
