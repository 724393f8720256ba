"""Averages of weights: between a start and a tuned model, and over several models of one run.

A weighted average of the start and the tuned weights often keeps most of the gain in domain and forgets less out of
domain (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903; PAINT, Ilharco et al. 2022, 2208.05592). A uniform average of
several models is a soup (Wortsman et al. 2022, 2203.05482).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoProcessor, CLIPProcessor

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError, user_errors
from rsmclip.models.folder import check_finite, check_model_type, weight_files

HEAD, TOWER = "self_distillation_head.", "vision_model."
TEACHER = "teacher.safetensors"  # in a checkpoint


@dataclass
class Ingredients:
    """Models of equal shapes and tokenizers, to be averaged. Their weights are in memory."""

    weights: list[dict[str, torch.Tensor]]  # tensors of each model, by name
    home: Path  # folder of the last model's configuration
    config: RSMCLIPConfig  # of the average
    processor: CLIPProcessor

    def average(self, shares: Sequence[float]) -> RSMCLIPModel:
        """
        Average models tensor by tensor, as the tensors are stored: the logit scale is averaged as a logarithm.

        Args:
            shares (`Sequence[float]`):
                Share of each model; the sum is 1. A share of 1 gives the weights of this model bit for bit.

        Raises:
            [`UserError`]: The weights are not those of the configuration.
        """
        averaged = {name: average([tensors[name] for tensors in self.weights], shares) for name in self.weights[0]}
        model = RSMCLIPModel(self.config).eval()
        found = model.load_state_dict(averaged, strict=False, assign=True)
        if names := found.missing_keys + found.unexpected_keys:  # a checkpoint of an adapter
            raise UserError(f"{names[0]} is in only one of the weights and {self.home / 'config.json'}")
        return model


def read_ingredients(folders: Sequence[Path]) -> Ingredients:
    """
    Read models to average. The self-distillation head is left out if a model lacks it.

    Args:
        folders (`Sequence[Path]`):
            Model folders, or checkpoints `checkpoints/step-N` of a run. Configuration and processor of the last one
            are those of the average.

    Raises:
        [`UserError`]: Names or shapes of tensors differ, the tokenizers differ, or a weight is not finite.
    """
    homes = [model_home(folder) for folder in folders]
    config = RSMCLIPConfig.from_pretrained(homes[-1])
    weights = [read_weights(folder, home) for folder, home in zip(folders, homes, strict=True)]
    with_head = all(any(name.startswith(HEAD) for name in tensors) for tensors in weights)
    if not with_head or config.self_distillation is None:  # a run may save the model without its head
        weights = [{n: t for n, t in tensors.items() if not n.startswith(HEAD)} for tensors in weights]
        config.self_distillation = None
    for folder, tensors in zip(folders[1:], weights[1:], strict=True):
        check_same_shapes(folders[0], weights[0], folder, tensors)
    processors = [load_processor(home) for home in homes]
    first = pieces(processors[0])
    for folder, processor in zip(folders[1:], processors[1:], strict=True):
        if pieces(processor) != first:
            raise UserError(f"the tokenizers of {folders[0]} and {folder} differ: their weights cannot be averaged")
    return Ingredients(weights, homes[-1], config, processors[-1])


def read_teacher(checkpoint: Path) -> tuple[RSMCLIPModel, CLIPProcessor]:
    """
    Return the model of a checkpoint with the EMA teacher's image tower and self-distillation head, and the processor.

    Raises:
        [`UserError`]: The folder is not a checkpoint of a run with self-distillation.
    """
    path, found = checkpoint / TEACHER, {}
    if path.is_file():
        with user_errors(OSError, SafetensorError, prefix=f"{path} cannot be read"):
            found = load_file(path)
    student = read_ingredients([checkpoint])
    (weights,) = student.weights
    if not found.keys() >= {name for name in weights if name.startswith(TOWER)}:
        raise UserError(f"{checkpoint} has no teacher: give checkpoints/step-N of a run with self-distillation")
    check_finite(found, path)
    weights |= {name: tensor for name, tensor in found.items() if name in weights}
    return student.average([1.0]), student.processor


def average(tensors: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    """Return the weighted sum of tensors, computed in float64, in the precision of the last tensor."""
    if 1.0 in shares:
        return tensors[list(shares).index(1.0)]
    total = sum(share * tensor.double() for tensor, share in zip(tensors, shares, strict=True))
    return total.to(tensors[-1].dtype)


def model_home(folder: Path) -> Path:
    """Return the folder with configuration and processor: of a checkpoint, the folder of its run."""
    is_checkpoint = folder.name.startswith("step-") and folder.parent.name == "checkpoints"
    home = folder.parent.parent if is_checkpoint and not (folder / "config.json").is_file() else folder
    if not (home / "config.json").is_file():
        raise UserError(f"{folder} is not a model folder: there is no {home / 'config.json'}")
    check_model_type(home)
    return home


def read_weights(folder: Path, home: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a model folder or of a checkpoint by their names in the model."""
    files = weight_files(folder) if folder == home else [folder / "model.safetensors"]
    weights: dict[str, torch.Tensor] = {}
    for path in files:
        with user_errors(OSError, SafetensorError, prefix=f"{path} cannot be read"):
            weights |= load_file(path)
    check_finite(weights, folder)
    prefix = "" if folder == home else "model."  # a checkpoint has the student, which contains the model
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def check_same_shapes(
    first: Path, expected: dict[str, torch.Tensor], second: Path, found: dict[str, torch.Tensor]
) -> None:
    if names := sorted(expected.keys() ^ found.keys()):
        raise UserError(f"{names[0]} is in only one of {first} and {second}: their weights cannot be averaged")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(expected[name].shape)} in {first} and {tuple(tensor.shape)} in {second}"
            raise UserError(f"{name} has the shapes {shapes}: these weights cannot be averaged")


def pieces(processor: CLIPProcessor) -> dict:
    """Return what a tokenizer does, without padding and truncation, which its last call has set."""
    described = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    return {name: value for name, value in described.items() if name not in ("padding", "truncation")}


def load_processor(home: Path) -> CLIPProcessor:
    with user_errors(OSError, ValueError, prefix=f"the processor in {home} cannot be loaded"):
        return AutoProcessor.from_pretrained(home, trust_remote_code=True)
