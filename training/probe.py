"""Train the projections alone, on stored embeddings of frozen towers, before the towers are trained.

New projections and pretrained towers learn at different rates. If both are trained from the first step, random
projections send large gradients into the towers and damage them. So the projections are trained first (Kumar et al.
2022, arXiv 2202.10054). The towers do not change, so each image and each caption is embedded once, and a step takes
milliseconds. The probed model is the floor that training the towers must beat.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from rsmclip import RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.data.schema import captions_of
from rsmclip.training.batches import PICTURE_SENTENCES, StepSampler, image_sentence_ids
from rsmclip.training.config import TrainingConfig
from rsmclip.training.loading import row_order
from rsmclip.training.losses import MAX_LOG_SCALE, clip_loss, sum_over_processes, world_size

BATCH_SIZE = 256  # images of a step; stored embeddings are small, and more negatives are better


def new_layers(model: RSMCLIPModel) -> list[nn.Parameter]:
    """Return the parameters that a probe trains: projections and logit scale."""
    return [*model.visual_projection.parameters(), *model.text_projection.parameters(), model.logit_scale]


def without_projections(model: RSMCLIPModel) -> RSMCLIPModel:
    """Return a model with the towers of `model`, not copied. Its features are the pooled outputs of the towers."""
    pooled = copy.copy(model)
    removed = {"visual_projection": nn.Identity(), "text_projection": nn.Identity(), "self_distillation_head": None}
    pooled._modules = model._modules | removed
    pooled.config = copy.deepcopy(model.config)
    pooled.config.self_distillation = None  # the key of cached embeddings must not depend on the head
    return pooled.eval()


def train_new_layers(
    model: RSMCLIPModel,
    embed_images: Callable[[Dataset], torch.Tensor],
    embed_texts: Callable[[list[str]], torch.Tensor],
    rows: Dataset,
    config: TrainingConfig,
) -> None:
    """
    Train projections and logit scale in place for `probe_steps` steps.

    All processes must call it. They share each batch and average their gradients, so their weights stay equal.

    Args:
        model ([`RSMCLIPModel`]): The model. Its towers are not used.
        embed_images (`Callable`): Returns the pooled outputs of the image tower, `(images, image width)`.
        embed_texts (`Callable`): Returns the pooled outputs of the text tower, `(texts, text width)`.
        rows (`datasets.Dataset`): Training split. Rows and captions are drawn as in training.
        config ([`TrainingConfig`]): Languages, steps, rate, sampling of rows and captions, and seed.

    Raises:
        [`UserError`]: The weights are not finite at the end.
    """
    # Embed every image and every caption once. Columns are read once: a row at a time takes a millisecond.
    captions = rows["captions"][:]
    of_picture = rows[PICTURE_SENTENCES][:] if PICTURE_SENTENCES in rows.column_names else [[]] * len(rows)
    texts = sorted(set(captions_of(rows, config.languages)))
    pooled_images, pooled_texts = embed_images(rows), embed_texts(texts)
    place_of, device = {text: place for place, text in enumerate(texts)}, model.device

    # AdamW with a cosine decay; the logit scale has no weight decay, as in training.
    frozen = [
        parameter for parameter in new_layers(model) if not parameter.requires_grad
    ]  # in the training that follows
    trained = [parameter.requires_grad_() for parameter in new_layers(model)]
    groups = [{"params": [p], "weight_decay": config.weight_decay if p.ndim > 1 else 0.0} for p in trained]
    optimizer = torch.optim.AdamW(groups, lr=config.probe_learning_rate)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 0, config.probe_steps)

    # InfoNCE on the rows and captions that the seed draws.
    processes, rank = world_size(), dist.get_rank() if world_size() > 1 else 0
    batch_size, sampling = min(BATCH_SIZE, len(rows)) // processes, config.caption_sampling()
    order = row_order(config, rows, batch_size * processes)
    sampler = StepSampler(len(rows), batch_size, config.probe_steps, 0, config.seed, rank, processes, order)
    for batch in tqdm(sampler, desc="probe", leave=False, disable=rank > 0):
        drawn = [
            sampling.draw(captions[row], np.random.default_rng([config.seed, epoch, row])) for epoch, row in batch
        ]
        places = torch.tensor([[place_of[text] for text in chosen] for chosen, _ in drawn]).t()  # (captions, batch)
        sentences = [
            image_sentence_ids(captions[row], ids, of_picture[row])
            for (_, row), (_, ids) in zip(batch, drawn, strict=True)
        ]
        images = model.visual_projection(pooled_images[[row for _, row in batch]].to(device))
        loss = clip_loss(
            image_embeds=F.normalize(images, dim=-1)[None],
            text_embeds=F.normalize(model.text_projection(pooled_texts[places].to(device)), dim=-1),
            logit_scale=model.logit_scale.exp(),
            sentence_ids=torch.tensor([ids for _, ids in drawn]).t().to(device),
            image_sentence_ids=torch.tensor(sentences).t().to(device),
            duplicate_captions=config.duplicate_captions,
        )
        optimizer.zero_grad()
        loss.backward()
        for parameter in trained:
            sum_over_processes(parameter.grad.div_(processes))
        optimizer.step()
        scheduler.step()
        model.logit_scale.data.clamp_(max=MAX_LOG_SCALE)
    for parameter in frozen:
        parameter.requires_grad_(False)
    if not all(parameter.isfinite().all() for parameter in trained):
        raise UserError(f"the probe diverged: lower probe_learning_rate, which is {config.probe_learning_rate}")
