"""Export a model as ONNX graphs: image tower, text tower and both, each compared with torch before it is kept.

The graphs take any number of images and texts, and texts of any length up to the model's maximum. The names of the
files are the names that transformers.js loads.
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
from rsmclip.core.errors import UserError, user_errors
from rsmclip.core.files import new_folder
from rsmclip.data.demo.corpus import cached_demo
from rsmclip.data.schema import check_schema, load_corpus
from rsmclip.eval.embed import Embedder
from rsmclip.eval.evaluate import evaluate_corpus
from rsmclip.models.folder import check_model_type, find_source

TOLERANCE = 1e-4  # largest absolute difference of embeddings and logits from torch
LARGEST_FILE = 2**31 - 2**20  # a graph is one protobuf message of at most 2 GiB; larger weights need a second file
INPUTS = ("pixel_values", "input_ids", "attention_mask")
GRAPHS = {  # file name: inputs and outputs, which are fields of RSMCLIPOutput
    "vision_model": (INPUTS[:1], ("image_embeds",)),
    "text_model": (INPUTS[1:], ("text_embeds",)),
    "model": (INPUTS, ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds")),
}


class Encoder(nn.Module):
    """The part of a model that becomes one graph, named by a key of `GRAPHS`. Embeddings are unit rows."""

    def __init__(self, model: nn.Module, name: str):
        super().__init__()
        self.model = model
        self.inputs, self.outputs = GRAPHS[name]

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,  # (images, 3, height, width)
        input_ids: torch.Tensor | None = None,  # (texts, length)
        attention_mask: torch.Tensor | None = None,  # (texts, length)
    ) -> tuple[torch.Tensor, ...]:
        output = self.model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        return tuple(output[name] for name in self.outputs)


def export_onnx(source: str, folder: Path, int8: bool, dataset: str, split: str) -> list[str]:
    """
    Export a model, and compare the graphs with torch. After an error no folder is left.

    Args:
        source (`str`): Local folder or Hub id of a model.
        folder (`Path`): Folder for the graphs, the configuration and the processor; new or empty.
        int8 (`bool`): Whether to also write graphs with int8 weights, and to measure their retrieval.
        dataset (`str`): Corpus for this measurement: `"demo"`, a folder or a Hub id.
        split (`str`): Split of the corpus.

    Returns:
        `list[str]`: Lines with the differences and the recalls.

    Raises:
        [`UserError`]: The model or the corpus is missing or damaged; or a graph differs from torch by more than
            `TOLERANCE`.
    """
    # Load corpus, model and processor first: an export takes minutes.
    rows = None
    if int8:
        corpus = load_corpus(str(cached_demo()) if dataset == "demo" else dataset)
        rows = check_schema(corpus, split, ["en"])
    read_from = find_source(source, ["*.json", "*.py", "*.safetensors", "*.model"])
    check_model_type(read_from)
    model = RSMCLIPModel.from_pretrained(read_from, dtype=torch.float32, use_safetensors=True).eval()
    processor = AutoProcessor.from_pretrained(read_from, trust_remote_code=True)
    if int8 and not hasattr(processor, "tokenizer"):
        raise UserError(f"{source} has no tokenizer: --int8 needs one to measure retrieval")

    # Write and check each graph.
    lines = []
    with new_folder(folder) as unfinished:
        for name in GRAPHS:
            path, encoder = unfinished / f"{name}.onnx", Encoder(model, name)
            with user_errors(OSError, prefix=f"{folder} cannot be written"):
                export_graph(encoder, example_inputs(model, images=2, texts=3, length=9), path)
            differences = compare(encoder, path)
            lines += [f"{path.name}: {output} differs by at most {value:.1e}" for output, value in differences.items()]
            if bad := [output for output, value in differences.items() if not value <= TOLERANCE]:  # NaN is bad too
                found = f"{path.name}: {bad[0]} differs from torch by {differences[bad[0]]:.1e}"
                raise UserError(f"{found}, more than {TOLERANCE:g}; nothing is written")
            if int8:
                quantize_dynamic(path, unfinished / f"{name}_int8.onnx", weight_type=QuantType.QInt8)

        # Measure retrieval, and add configuration and processor.
        if int8:
            lines.append(f"mean recall in percent, English, {len(rows)} images of {dataset}, split {split}")
            lines += compare_retrieval(model, processor, unfinished, rows)
        fields = {name: value for name, value in model.config.to_dict().items() if name != "auto_map"}
        with user_errors(OSError, prefix=f"{folder} cannot be written"):
            processor.save_pretrained(unfinished)
            (unfinished / "config.json").write_text(json.dumps(fields, indent=2, default=str) + "\n", encoding="utf-8")
    return lines


def example_inputs(model: nn.Module, images: int, texts: int, length: int) -> dict[str, torch.Tensor]:
    """Return random pixels and token ids. The first text is padded after the first half."""
    generator = torch.Generator().manual_seed(images * 1000 + texts * 100 + length)
    size, text = model.config.vision_config.image_size, model.config.text_config
    input_ids = torch.randint(3, text.vocab_size, (texts, length), generator=generator)
    attention_mask = torch.ones(texts, length, dtype=torch.long)
    input_ids[0, length // 2 + 1 :], attention_mask[0, length // 2 + 1 :] = text.pad_token_id, 0
    pixel_values = torch.randn(images, 3, size, size, generator=generator)
    return {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}


def export_graph(encoder: Encoder, inputs: dict[str, torch.Tensor], path: Path) -> None:
    """Write one graph. The numbers of images and texts and the length of the texts are dynamic."""
    text = encoder.model.config.text_config
    texts, length = Dim("texts", min=1), Dim("length", min=2, max=text.max_position_embeddings - text.pad_token_id - 1)
    shapes = {"pixel_values": {0: Dim("images", min=1)}} | {key: {0: texts, 1: length} for key in INPUTS[1:]}
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
def compare(encoder: Encoder, path: Path) -> dict[str, float]:
    """Return the largest absolute difference of each output from torch, over batches of several sizes."""
    session = onnxruntime.InferenceSession(path)
    text = encoder.model.config.text_config
    longest = text.max_position_embeddings - text.pad_token_id - 1
    worst = dict.fromkeys(encoder.outputs, 0.0)
    for images, texts, length in ((1, 1, 3), (2, 3, 9), (5, 4, longest)):  # the second was used for the export
        examples = example_inputs(encoder.model, images, texts, length)
        inputs = {name: examples[name] for name in encoder.inputs}
        found = session.run(encoder.outputs, {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, ours, theirs in zip(encoder.outputs, encoder(**inputs), found, strict=True):
            worst[name] = float(np.maximum(worst[name], np.abs(ours.numpy() - theirs).max()))
    return worst


class OnnxTowers:
    """
    Both towers in onnxruntime. It can replace the model in [`Embedder`] and in the handler.

    Args:
        image_file (`Path`): Graph of the image tower.
        text_file (`Path`): Graph of the text tower.
        threads (`int`, *optional*, defaults to 0): Threads of each tower; 0 means one per core.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, image_file: Path, text_file: Path, threads: int = 0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.image, self.text = (onnxruntime.InferenceSession(path, options) for path in (image_file, text_file))

    def get_image_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        # Unlike the model's, these embeddings are unit rows.
        (embeds,) = self.image.run(None, {"pixel_values": pixel_values.numpy()})
        return BaseModelOutputWithPooling(pooler_output=torch.from_numpy(embeds))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> BaseModelOutputWithPooling:
        (embeds,) = self.text.run(None, {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})
        return BaseModelOutputWithPooling(pooler_output=torch.from_numpy(embeds))


def compare_retrieval(model: nn.Module, processor: ProcessorMixin, folder: Path, rows: Dataset) -> list[str]:
    models = {
        "torch": model,
        "onnx": OnnxTowers(folder / "vision_model.onnx", folder / "text_model.onnx"),
        "onnx int8": OnnxTowers(folder / "vision_model_int8.onnx", folder / "text_model_int8.onnx"),
    }
    metrics = {name: evaluate_corpus(Embedder(each, processor), rows, ["en"], None) for name, each in models.items()}
    return [f"{name}: {found['en']['mean_recall']:.2f}" for name, found in metrics.items()]
