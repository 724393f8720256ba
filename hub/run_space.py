"""Run the Space on this machine."""

import os
import socket
from pathlib import Path

from PIL import Image

from rsmclip.core.errors import UserError, user_errors
from rsmclip.hub import handler
from rsmclip.hub.local_gallery import open_gallery
from rsmclip.hub.space.app import is_demo_model, run_app
from rsmclip.models.folder import PUBLISHED, check_model_type, find_source

DEMO_MODEL = "outputs/demo"


def run_space(
    source: str,
    gallery: str,
    split: str | None,
    port: int | None,
    revision: str | None = None,
    gallery_revision: str | None = None,
) -> None:
    """
    Serve a model with a gallery until it is interrupted. The arguments are the options of `rsmclip hub space`.

    Raises:
        [`UserError`]: The model, the gallery, its split or its images are missing or damaged; another model made the
            index; or the port is taken.
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
    with user_errors(OSError, ValueError, RecursionError, prefix=f"{folder / 'eval_results.json'} cannot be read"):
        is_toy = is_demo_model(folder)

    # The page shows a folder by its last name, a repository of the Hub by its id.
    name = folder.resolve().name if Path(source).is_dir() else source
    images = open_gallery(gallery, source, split, gallery_revision, revision)
    largest = Image.MAX_IMAGE_PIXELS
    with user_errors(OSError, ValueError, prefix=f"{source} cannot be loaded"):
        model = handler.EndpointHandler(str(folder))
    Image.MAX_IMAGE_PIXELS = largest  # the handler lowers it for uploads, whose pixels it also counts itself
    run_app(handler, model, name, images, is_toy, port)


def check_port(port: int) -> None:
    # Gradio would report a taken port only after the gallery is embedded.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with user_errors(OSError, prefix=f"--port {port} cannot be used"):
            probe.bind((os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port))
