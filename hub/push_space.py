"""Push the Space to the Hub: the page, the handler, and the commits of the model and the gallery to serve."""

import json
import sys
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

from datasets import get_dataset_config_info
from huggingface_hub import DatasetInfo, HfApi, ModelInfo, SpaceCard, SpaceCardData

from rsmclip.core.errors import UserError, extra
from rsmclip.core.uploads import UPLOAD_ERRORS, push_files, reason
from rsmclip.data.schema import one_line_errors
from rsmclip.eval import index
from rsmclip.hub.handler import TOKENIZER_FILES
from rsmclip.models.folder import HANDLER, PUBLISHED

APP = Path(__file__).parent / "space"
STARTUP_TIMEOUT = "6h"  # the gallery is embedded at the start; by default the Hub gives up after 30 minutes
# Packages that page and handler import or that read the weights. The Hub installs Gradio by `sdk_version`.
REQUIREMENTS = (
    *("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "datasets"),
    *("numpy", "pillow", "pyyaml", "tqdm"),
)


def push_space(
    repo_id: str, model: tuple[str, str], gallery: tuple[str, str], split: str = "test", private: bool | None = None
) -> None:
    """
    Create or update a Space that serves a model of the Hub.

    Args:
        repo_id (`str`): Id of the Space, `"USER/SPACE"`.
        model (`tuple[str, str]`): Id of the model, and its branch, tag or commit. The Space serves the current commit.
        gallery (`tuple[str, str]`): Id of the dataset to search, and its branch, tag or commit.
        split (`str`, *optional*, defaults to `"test"`): Split of the dataset.
        private (`bool`, *optional*): Whether a new Space is private.

    Raises:
        [`UserError`]: The model, the dataset or the split is missing; the model lacks a file that the handler needs,
            or the dataset has no images; or the Hub cannot be reached or refuses.
    """
    served = find_repository("model", *model)
    check_model(served)
    model, gallery = (model[0], served.sha), (gallery[0], find_repository("dataset", *gallery).sha)
    check_gallery(*gallery, split)
    files = space_files(repo_id, model, gallery, split)
    message = f"Serve {model[0]} at {model[1][:7]}"
    options = {"repo_type": "space", "space_sdk": "gradio", "private": private, "replaces": ["space/*"]}
    push_files(files, repo_id, **options, message=message)


def find_repository(repo_type: str, repo_id: str, revision: str) -> ModelInfo | DatasetInfo:
    try:
        return HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision)
    except UPLOAD_ERRORS as error:
        raise UserError(f"{repo_type} {repo_id} at {revision} was not found: {reason(error)}") from error


def check_model(model: ModelInfo) -> None:
    names = [file.rfilename for file in model.siblings]
    needs = {"config.json": ["config.json"], "weights in safetensors": ["*.safetensors"], "tokenizer": TOKENIZER_FILES}
    for what, patterns in needs.items():  # an adapter has no config.json
        if not any(fnmatch(name, pattern) for name in names for pattern in patterns):
            raise UserError(f"{model.id} at {model.sha[:7]} has no {what}, which a Space needs")


def check_gallery(gallery: str, commit: str, split: str) -> None:
    with one_line_errors(gallery):
        info = get_dataset_config_info(gallery, revision=commit)
    if split not in info.splits:
        raise UserError(f"{gallery} has no split {split!r}; its splits are {', '.join(info.splits)}")
    if info.features is not None and "image" not in info.features:
        raise UserError(f"{gallery} has no column 'image'; its columns are {', '.join(info.features)}")


def space_files(repo_id: str, model: tuple[str, str], gallery: tuple[str, str], split: str) -> dict[str, Path | bytes]:
    settings = {  # main.py reads them
        "model": {"id": model[0], "revision": model[1], "files": PUBLISHED},
        "gallery": {"id": gallery[0], "revision": gallery[1], "split": split},
    }
    # Drop the local part of a version, such as `+cpu`: the Hub installs its own build.
    versions = {name: version(name).partition("+")[0] for name in REQUIREMENTS}
    parts = [path for path in sorted(APP.iterdir()) if path.is_file() and path.name != "main.py"]
    return {
        "README.md": space_card(repo_id, model[0], gallery[0]).content.encode(),
        "app.py": APP / "main.py",
        "handler.py": HANDLER,
        "index.py": Path(index.__file__),
        "requirements.txt": "".join(f"{name}=={number}\n" for name, number in versions.items()).encode(),
        "settings.json": (json.dumps(settings, indent=2) + "\n").encode(),
        **{f"space/{path.name}": path for path in parts},
    }


def space_card(repo_id: str, model: str, gallery: str) -> SpaceCard:
    with extra("space"):
        gradio_version = version("gradio")
    metadata = SpaceCardData(
        title=repo_id.rpartition("/")[2],
        emoji="🛰️",
        colorFrom="green",
        colorTo="blue",
        sdk="gradio",
        sdk_version=gradio_version,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        startup_duration_timeout=STARTUP_TIMEOUT,
        license="mit",
        models=[model],
        datasets=[gallery],
        short_description="Classify and find remote sensing images in ten languages",
    )
    text = f"""# {metadata.title}

This page classifies aerial and satellite images with labels of your own, searches the gallery
[{gallery}](https://huggingface.co/datasets/{gallery}) by text or by image, and compares the results of ten languages.
The model is [{model}](https://huggingface.co/{model}); its card says what it is for and where it fails.

The license covers the app. The model and the images have licenses of their own. Uploaded images are used only for the
answer, and are deleted within two hours.
"""
    return SpaceCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")
