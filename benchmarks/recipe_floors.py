"""Floors of the experiment in benchmarks/recipe.py: the frozen towers of a run with a map that needs no training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn

from rsmclip.eval.evaluate import embed_corpus, measure_corpus, metrics_by_language
from rsmclip.eval.report import mean_over_languages
from rsmclip.eval.tasks import cached_embedder
from rsmclip.models.average import read_ingredients
from rsmclip.models.folder import save_model_folder
from rsmclip.training.probe import without_projections

# Of the ridge, as shares of the mean squared feature. With many more images than features, the smallest is chosen:
# 1e-11 gives the same figures as 1e-7 on RSICD.
STRENGTHS = [10.0**exponent for exponent in range(-7, 1)]
BATCH_SIZE = 128


def save_ridge_regression(checkpoint: Path, train: Dataset, dev: Dataset, languages: list[str], folder: Path) -> float:
    """
    Write a model that maps pooled images to the text tower's space by ridge regression, the towers as they are.

    The target of an image is the mean of its captions' embeddings (unit length, all languages).

    Args:
        checkpoint (`Path`): A model folder or checkpoint with the towers.
        train (`datasets.Dataset`): Rows of the regression.
        dev (`datasets.Dataset`): Rows that choose the strength, by mean recall.
        languages (`list[str]`): Languages of that mean recall.
        folder (`Path`): New folder.

    Returns:
        `float`: The strength.
    """
    start = read_ingredients([checkpoint])
    model, processor = start.average([1.0]), start.processor
    embedder = cached_embedder(without_projections(model), processor, BATCH_SIZE)
    images, targets = embedder.images(train).double(), caption_means(embedder.texts, train)
    embedded = embed_corpus(embedder, dev, languages)

    def recall(weights: torch.Tensor) -> float:
        mapped = replace(embedded, image_embeds=embedded.image_embeds @ weights)
        return mean_over_languages(metrics_by_language(measure_corpus(embedder, dev, mapped)), "mean_recall")

    # Closed form. The strength is relative to the scale of the features.
    gram, scale = images.T @ images, images.square().sum() / images.shape[1]
    solutions = {
        strength: torch.linalg.solve(gram + strength * scale * torch.eye(len(gram)), images.T @ targets).float()
        for strength in STRENGTHS
    }
    best = max(solutions, key=lambda strength: recall(solutions[strength]))

    width = targets.shape[1]
    model.visual_projection = nn.Linear(images.shape[1], width, bias=False)
    model.visual_projection.weight.data.copy_(solutions[best].T)
    model.text_projection = nn.Identity()
    model.self_distillation_head, model.config.self_distillation = None, None
    model.config.projection_dim, model.config.text_projection_type = width, "none"
    save_model_folder(model, processor, folder)
    return best


def caption_means(embed_texts: Callable[[list[str]], torch.Tensor], rows: Dataset) -> torch.Tensor:
    """Return the mean of the unit embeddings of each image's captions, `(images, width)`, float64."""
    texts = [[text for of in captions.values() for text in of or [] if text] for captions in rows["captions"]]
    places = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(each) for each in texts]))
    embeds = F.normalize(embed_texts([text for each in texts for text in each]).double(), dim=-1)
    sums = torch.zeros(len(texts), embeds.shape[1], dtype=torch.float64).index_add_(0, places, embeds)
    return sums / places.bincount()[:, None]
