"""The model as ONNX graphs: image tower, text tower and both, held against torch before they are kept.

The graphs take any number of images and texts and any length of text. Files are named as transformers.js looks for
them.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from datasets import Dataset
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from torch.export import Dim
from transformers import AutoProcessor, ProcessorMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from rsmclip import RSMCLIPModel
from rsmclip.core.files import new_folder
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import check_schema, load_corpus
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import evaluate_corpus
from rsmclip.models.folder import check_model_type, find_source

TOLERANCE = 1e-4  # of embeddings and logits, absolute
LARGEST_FILE = 2**31 - 2**20  # a graph is one protobuf message of at most 2 GiB; beyond it the weights lie beside it


class ImageEncoder(nn.Module):
    """`pixel_values` to `image_embeds` of unit length."""

    inputs, outputs = ("pixel_values",), ("image_embeds",)

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(images, 3, height, width)` to `(images, projection_dim)`."""
        return (self.model(pixel_values=pixel_values).image_embeds,)


class TextEncoder(ImageEncoder):
    """`input_ids` and `attention_mask` to `text_embeds` of unit length."""

    inputs, outputs = ("input_ids", "attention_mask"), ("text_embeds",)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(texts, length)`, twice, to `(texts, projection_dim)`."""
        return (self.model(input_ids=input_ids, attention_mask=attention_mask).text_embeds,)


class JointModel(ImageEncoder):
    """Images and texts to logits and embeddings, named as in [`RSMCLIPOutput`]."""

    inputs = ("pixel_values", "input_ids", "attention_mask")
    outputs = ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds")

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """As the model's own, in the order of `outputs`."""
        output = self.model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        return tuple(output[name] for name in self.outputs)


GRAPHS = {"vision_model": ImageEncoder, "text_model": TextEncoder, "model": JointModel}


def export_onnx(source: str, folder: Path, int8: bool, dataset: str, split: str) -> list[str]:
    """
    Exports, checks, and with `int8` quantises. On failure nothing is left.

    Args:
        source (`str`): Folder or Hub id of a model.
        folder (`Path`): Where the graphs go, with configuration and processor.
        int8 (`bool`): Whether to write graphs with int8 weights too.
        dataset (`str`): Corpus on which their retrieval is measured.
        split (`str`): Its split.

    Returns:
        `list[str]`: What was measured, one line each.

    Raises:
        `ValueError`: A graph differs from torch by more than 1e-4.
    """
    rows = None
    if int8:
        corpus = load_corpus(str(cached_demo()) if dataset == "demo" else dataset)
        rows = check_schema(corpus, split, ["en"])
    read_from = find_source(source, ["*.json", "*.py", "*.safetensors", "*.model"])
    check_model_type(read_from)
    model = RSMCLIPModel.from_pretrained(read_from, dtype=torch.float32, use_safetensors=True).eval()
    processor = AutoProcessor.from_pretrained(read_from, trust_remote_code=True)
    if int8 and not hasattr(processor, "tokenizer"):
        raise ValueError(f"{source} has no tokenizer, and what int8 does to retrieval cannot be measured without one")
    lines = []
    with new_folder(folder) as unfinished:
        for name, encoder in GRAPHS.items():
            path = unfinished / f"{name}.onnx"
            export_graph(encoder(model), example_inputs(model, images=2, texts=3, length=9), path)
            differences = compare(encoder(model), path, model)
            lines += [f"{path.name}: {output} differs by at most {value:.1e}" for output, value in differences.items()]
            if bad := [output for output, value in differences.items() if not value <= TOLERANCE]:  # NaN is bad too
                raise ValueError(
                    f"{path.name}: {bad[0]} differs by {differences[bad[0]]:.1e} from torch, more than {TOLERANCE:g}"
                )
            if int8:
                quantize_dynamic(path, unfinished / f"{name}_int8.onnx", weight_type=QuantType.QInt8)
        if int8:
            lines.append(f"mean recall in percent, English, {len(rows)} images of {dataset}, split {split}")
            lines += compare_retrieval(model, processor, unfinished, rows)
        processor.save_pretrained(unfinished)
        fields = {name: value for name, value in model.config.to_dict().items() if name != "auto_map"}
        (unfinished / "config.json").write_text(json.dumps(fields, indent=2, default=str) + "\n", encoding="utf-8")
    return lines


def example_inputs(model: nn.Module, images: int, texts: int, length: int) -> dict[str, torch.Tensor]:
    """Random pixels and token ids, the first text padded to half its length."""
    generator = torch.Generator().manual_seed(images * 1000 + texts * 100 + length)
    size, text = model.config.vision_config.image_size, model.config.text_config
    input_ids = torch.randint(3, text.vocab_size, (texts, length), generator=generator)
    attention_mask = torch.ones(texts, length, dtype=torch.long)
    input_ids[0, length // 2 + 1 :], attention_mask[0, length // 2 + 1 :] = text.pad_token_id, 0
    pixel_values = torch.randn(images, 3, size, size, generator=generator)
    return {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}


def export_graph(encoder: ImageEncoder, inputs: dict[str, torch.Tensor], path: Path) -> None:
    """Writes one graph with dynamic numbers of images and texts and length of the texts."""
    text = encoder.model.config.text_config
    texts, length = Dim("texts", min=1), Dim("length", min=2, max=text.max_position_embeddings - text.pad_token_id - 1)
    shapes = {"pixel_values": {0: Dim("images", min=1)}} | {key: {0: texts, 1: length} for key in TextEncoder.inputs}
    size = sum(parameter.numel() * 4 for parameter in encoder.parameters())
    torch.onnx.export(
        encoder.eval(),
        kwargs={name: inputs[name] for name in encoder.inputs},
        f=path,
        input_names=encoder.inputs,
        output_names=encoder.outputs,
        dynamic_shapes={name: shapes[name] for name in encoder.inputs},
        external_data=size > LARGEST_FILE,
        dynamo=True,
        verbose=False,
    )


@torch.inference_mode()
def compare(encoder: ImageEncoder, path: Path, model: nn.Module) -> dict[str, float]:
    """Largest absolute difference of each output from torch, over batches of other sizes than the exported one."""
    session = onnxruntime.InferenceSession(path)
    text = model.config.text_config
    longest = text.max_position_embeddings - text.pad_token_id - 1
    worst = dict.fromkeys(encoder.outputs, 0.0)
    for images, texts, length in ((1, 1, 3), (2, 3, 9), (5, 4, longest)):
        inputs = {
            name: tensor
            for name, tensor in example_inputs(model, images, texts, length).items()
            if name in encoder.inputs
        }
        found = session.run(encoder.outputs, {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, ours, theirs in zip(encoder.outputs, encoder(**inputs), found, strict=True):
            worst[name] = float(np.maximum(worst[name], np.abs(ours.numpy() - theirs).max()))
    return worst


class OnnxTowers:
    """
    Both towers in onnxruntime, as [`Embedder`] and the handler take a model.

    Args:
        image_file (`Path`): Graph of the image tower.
        text_file (`Path`): Graph of the text tower.
        threads (`int`, *optional*, defaults to 0): Threads of each; by default a thread for each core.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, image_file: Path, text_file: Path, threads: int = 0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.image, self.text = (onnxruntime.InferenceSession(path, options) for path in (image_file, text_file))

    def get_image_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """Image embeddings of unit length in `pooler_output`."""
        (embeds,) = self.image.run(None, {"pixel_values": pixel_values.numpy()})
        return BaseModelOutputWithPooling(pooler_output=torch.from_numpy(embeds))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> BaseModelOutputWithPooling:
        """Text embeddings of unit length in `pooler_output`."""
        (embeds,) = self.text.run(None, {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})
        return BaseModelOutputWithPooling(pooler_output=torch.from_numpy(embeds))


def compare_retrieval(model: nn.Module, processor: ProcessorMixin, folder: Path, rows: Dataset) -> list[str]:
    """Mean recall of the English captions by torch, by the graphs and by the int8 graphs, a line each."""
    models = {"torch": model} | {
        f"onnx{suffix.replace('_', ' ')}": OnnxTowers(
            folder / f"vision_model{suffix}.onnx", folder / f"text_model{suffix}.onnx"
        )
        for suffix in ("", "_int8")
    }
    lines = []
    for name, candidate in models.items():
        metrics = evaluate_corpus(Embedder(candidate, processor), rows, ["en"], None)["en"]
        lines.append(f"{name}: {metrics['mean_recall']:.2f}")
    return lines
