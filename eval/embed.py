"""Embeddings of a corpus by a model: images and texts in batches, texts of similar length together."""

import io

import torch
from datasets import Dataset
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from rsmclip.data.faults import IMAGE_ERRORS


class Embedder:
    """
    A model with its processor.

    Args:
        model (`PreTrainedModel`): A model with `get_image_features` and `get_text_features`.
        processor (`ProcessorMixin`): Its processor.
        batch_size (`int`, *optional*, defaults to 128): Images or texts a batch.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, batch_size: int = 128):
        self.model, self.processor, self.batch_size = model, processor, batch_size

    @torch.inference_mode()
    def images(self, rows: Dataset) -> torch.Tensor:
        """Columns `image` (encoded) and `image_id` to embeddings on the CPU, `(rows, dim)`, not normalised."""
        embeds = []
        for columns in rows.select_columns(["image", "image_id"]).iter(self.batch_size):
            batch = [decode_image(*entry) for entry in zip(columns["image"], columns["image_id"], strict=True)]
            pixels = self.processor.image_processor(batch, return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self.model.device, self.model.dtype)
            embeds.append(self.model.get_image_features(pixel_values=pixels).pooler_output.float().cpu())
        return torch.cat(embeds)

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> torch.Tensor:
        """Texts to embeddings on the CPU, `(texts, dim)`, not normalised. Equal texts are embedded once."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        embeds = []
        for start in range(0, len(distinct), self.batch_size):
            batch = self.processor.tokenizer(
                distinct[start : start + self.batch_size], padding=True, truncation=True, return_tensors="pt"
            )
            features = self.model.get_text_features(
                input_ids=batch["input_ids"].to(self.model.device),
                attention_mask=batch["attention_mask"].to(self.model.device),
            )
            embeds.append(features.pooler_output.float().cpu())
        row = {text: index for index, text in enumerate(distinct)}
        return torch.cat(embeds)[[row[text] for text in texts]]


def decode_image(image: dict, image_id: str) -> Image.Image:
    """An encoded image in RGB; `ValueError` with its id if it is none."""
    try:
        return Image.open(io.BytesIO(image["bytes"])).convert("RGB")
    except IMAGE_ERRORS as error:
        raise ValueError(f"image {image_id} cannot be decoded: {error}") from error
