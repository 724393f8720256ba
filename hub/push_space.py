"""The Space on the Hub: the app with its handler, and the commits of the model and the gallery that it serves."""

import json
import sys
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

from datasets import get_dataset_config_info
from huggingface_hub import CommitInfo, DatasetInfo, HfApi, ModelInfo, SpaceCard, SpaceCardData

from rsmclip.core.uploads import UPLOAD_ERRORS, push_files, reason
from rsmclip.data.schema import one_line_errors
from rsmclip.hub.handler import TOKENIZER_FILES
from rsmclip.models.folder import HANDLER, PUBLISHED

APP = Path(__file__).parent / "space"
# What the app and the handler import, and what reads the weights. The Hub installs Gradio itself, by `sdk_version`.
REQUIREMENTS = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "datasets",
    "numpy",
    "pillow",
    "pyyaml",
    "tqdm",
)


def push_space(
    repo_id: str, model: tuple[str, str], gallery: tuple[str, str], split: str = "test", private: bool | None = None
) -> CommitInfo:
    """
    Makes or renews a Space that serves a model of the Hub.

    Args:
        repo_id (`str`):
            The Space, `"USER/SPACE"`.
        model (`tuple[str, str]`):
            Id of the model, and its branch, tag or commit. The Space keeps to the commit that this is now.
        gallery (`tuple[str, str]`):
            The same of the dataset whose images are searched.
        split (`str`, *optional*, defaults to `"test"`):
            Its split.
        private (`bool`, *optional*):
            Whether a Space that is made is private.

    Raises:
        `OSError`: The Hub cannot be reached or refuses, or has no such model or dataset.
        `ValueError`: The model lacks what a Space needs, or the dataset has no such split, or no images.
    """
    served = find_repository("model", *model)
    check_model(served)
    model, gallery = (model[0], served.sha), (gallery[0], find_repository("dataset", *gallery).sha)
    check_gallery(*gallery, split)
    files = space_files(repo_id, model, gallery, split)
    message = f"Serve {model[0]} at {model[1][:7]}"
    return push_files(files, repo_id, "space", private, message=message, space_sdk="gradio", replaces=["space/*"])


def find_repository(repo_type: str, repo_id: str, revision: str) -> ModelInfo | DatasetInfo:
    """A repository at a branch, tag or commit: which commit that is now, and the files there."""
    try:
        return HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision)
    except UPLOAD_ERRORS as error:
        raise OSError(f"there is no {repo_type} {repo_id} at {revision} for the Space: {reason(error)}") from error


def check_model(model: ModelInfo) -> None:
    """Raises `ValueError` if a model of the Hub has not what its handler needs, as an adapter has not."""
    names = [file.rfilename for file in model.siblings]
    needs = {"config.json": ["config.json"], "weights in safetensors": ["*.safetensors"], "tokenizer": TOKENIZER_FILES}
    for what, patterns in needs.items():
        if not any(fnmatch(name, pattern) for name in names for pattern in patterns):
            raise ValueError(f"{model.id} at {model.sha[:7]} has no {what}: no Space can serve it")


def check_gallery(gallery: str, commit: str, split: str) -> None:
    """Raises `ValueError` if a dataset of the Hub lacks a split or images, which its card or its files' heads tell."""
    with one_line_errors(gallery):
        info = get_dataset_config_info(gallery, revision=commit)
    if split not in info.splits:
        raise ValueError(f"{gallery} has no split {split!r}; it has {', '.join(info.splits)}")
    if info.features is not None and "image" not in info.features:
        raise ValueError(f"{gallery} has no column 'image'; it has {', '.join(info.features)}")


def space_files(repo_id: str, model: tuple[str, str], gallery: tuple[str, str], split: str) -> dict[str, Path | bytes]:
    """
    What lies in a Space's repository.

    Args:
        repo_id (`str`): The Space.
        model (`tuple[str, str]`): Id of the model, and its commit.
        gallery (`tuple[str, str]`): Id of the dataset, and its commit.
        split (`str`): Its split.

    Returns:
        `dict[str, Path | bytes]`: Path in the repository: file, or content.
    """
    settings = {
        "model": {"id": model[0], "revision": model[1], "files": PUBLISHED},
        "gallery": {"id": gallery[0], "revision": gallery[1], "split": split},
    }
    parts = [path for path in sorted(APP.iterdir()) if path.is_file() and path.name != "main.py"]
    return {
        "README.md": space_card(repo_id, model[0], gallery[0]).content.encode(),
        "app.py": APP / "main.py",
        "handler.py": HANDLER,
        "requirements.txt": "".join(f"{name}=={public_version(name)}\n" for name in REQUIREMENTS).encode(),
        "settings.json": (json.dumps(settings, indent=2) + "\n").encode(),
        **{f"space/{path.name}": path for path in parts},
    }


def public_version(package: str) -> str:
    """The installed version without what only this machine's build has, like `+cpu`."""
    return version(package).partition("+")[0]


def space_card(repo_id: str, model: str, gallery: str) -> SpaceCard:
    """What the Hub reads to build the Space, and what people read about it."""
    metadata = SpaceCardData(
        title=repo_id.rpartition("/")[2],
        emoji="🛰️",
        colorFrom="green",
        colorTo="blue",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license="mit",
        models=[model],
        datasets=[gallery],
        short_description="Classify and find remote sensing images in ten languages",
    )
    text = f"""# {metadata.title}

Classifies images taken from above with labels of your own, searches the gallery
[{gallery}](https://huggingface.co/datasets/{gallery}) by text or by image, and compares what ten languages find.
The model is [{model}](https://huggingface.co/{model}); its card says what it is for, and where it fails.

The licence is the app's; the model and the images have their own. Uploaded images are used for nothing but the answer,
and deleted within two hours.
"""
    return SpaceCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")
