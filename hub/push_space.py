"""The Space on the Hub: the app with its handler, and the commits of the model and the gallery that it serves."""

import json
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi, SpaceCard, SpaceCardData
from huggingface_hub.errors import HTTPError

from rsmclip.hub import handler
from rsmclip.hub.push import push_files
from rsmclip.hub.run_space import MODEL_FILES

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
    repo_id: str,
    model: str,
    gallery: str,
    revision: str = "main",
    gallery_revision: str = "main",
    split: str = "test",
    private: bool = False,
) -> str:
    """
    Makes or renews a Space that serves a model of the Hub.

    Args:
        repo_id (`str`):
            The Space.
        model (`str`):
            Id of the model.
        gallery (`str`):
            Id of the dataset whose images are searched.
        revision (`str`, *optional*, defaults to `"main"`):
            Branch, tag or commit of the model. The Space keeps to the commit that this is now.
        gallery_revision (`str`, *optional*, defaults to `"main"`):
            The same of the dataset.
        split (`str`, *optional*, defaults to `"test"`):
            Split of the dataset.
        private (`bool`, *optional*, defaults to `False`):
            Make the Space private, if it is made.

    Returns:
        `str`: Its address.

    Raises:
        `OSError`: The Hub cannot be reached or refuses, or has no such model or dataset.
    """
    try:
        model_commit = HfApi().model_info(model, revision=revision).sha
        gallery_commit = HfApi().dataset_info(gallery, revision=gallery_revision).sha
    except HTTPError as error:
        raise OSError(str(error)) from error
    files = space_files(repo_id, (model, model_commit), (gallery, gallery_commit), split)
    commit = push_files(
        files, repo_id, repo_type="space", space_sdk="gradio", private=private or None, message=f"Serve {model}"
    )
    return str(commit.repo_url)


def space_files(repo_id: str, model: tuple[str, str], gallery: tuple[str, str], split: str) -> dict[str, Path | bytes]:
    """
    What lies in a Space's repository.

    Args:
        repo_id (`str`): The Space.
        model (`tuple[str, str]`): Id of the model and its commit.
        gallery (`tuple[str, str]`): Id of the dataset and its commit.
        split (`str`): Split of the dataset.

    Returns:
        `dict[str, Path | bytes]`: Path in the repository: file, or content.
    """
    settings = {
        "model": {"id": model[0], "revision": model[1]},
        "files": MODEL_FILES,
        "gallery": {"id": gallery[0], "revision": gallery[1], "split": split},
    }
    parts = [path for path in sorted(APP.iterdir()) if path.is_file() and path.name != "main.py"]
    return {
        "README.md": space_card(repo_id, model[0], gallery[0]).content.encode(),
        "app.py": APP / "main.py",
        "handler.py": Path(handler.__file__),
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
        title=repo_id.partition("/")[2],
        emoji="🛰️",
        colorFrom="green",
        colorTo="blue",
        sdk="gradio",
        sdk_version=version("gradio"),
        app_file="app.py",
        license="mit",
        models=[model],
        datasets=[gallery],
        short_description="Classify and find remote sensing images in ten languages",
    )
    text = (
        f"# {repo_id.partition('/')[2]}\n\n"
        f"Classifies images taken from above with labels of your own, searches the gallery "
        f"[{gallery}](https://huggingface.co/datasets/{gallery}) by text or image, and compares what ten languages find. "
        f"The model is [{model}](https://huggingface.co/{model}); its card says what it is for, and where it fails.\n\n"
        "The licence here is the app's; model and images have their own. Uploaded images are deleted within two hours "
        "and used for nothing but the answer.\n"
    )
    return SpaceCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}")
