"""OpenCLIP's model written from its formulas, in float64: the reference for the conversion."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS, LENGTH = 24, 3, 2, 40
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")


def write_openclip(folder: Path, vocab_size: int = 300, positions: int = LENGTH, **options) -> dict[str, torch.Tensor]:
    """Write a random model in OpenCLIP's layout; `options` are fields of its configuration."""
    vision = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 16}
    text = {"hf_model_name": "text_model", "hf_tokenizer_name": "text_model", "hf_pooler_type": "mean_pooler"}
    model_cfg = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    preprocess = {}
    for name, value in options.items():
        part = text if name.startswith("hf_") else model_cfg if name in ("embed_dim", "quick_gelu") else vision
        (preprocess if name in PREPROCESSING else part)[name] = value
    (folder / "text_model").mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}))
    tower = {"model_type": "xlm-roberta", "vocab_size": vocab_size, "max_position_embeddings": positions}
    tower |= {"hidden_size": TEXT_WIDTH, "num_attention_heads": TEXT_HEADS, "num_hidden_layers": TEXT_LAYERS}
    tower |= {"intermediate_size": 40, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    tower |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    (folder / "text_model" / "config.json").write_text(json.dumps(tower))
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.3 + (1.0 if "ln_" in name and "weight" in name else 0.0)
        for name, shape in shapes(model_cfg, vocab_size, positions).items()
    }
    save_file(weights, folder / "open_clip_model.safetensors")
    return weights


def shapes(model_cfg: dict, vocab_size: int, positions: int) -> dict[str, tuple[int, ...]]:
    vision, text, dim = model_cfg["vision_cfg"], model_cfg["text_cfg"], model_cfg["embed_dim"]
    width, patch = vision["width"], vision["patch_size"]
    inner, tokens = int(width * vision.get("mlp_ratio", 4)), (vision["image_size"] // patch) ** 2 + 1
    found = {"logit_scale": (), "visual.class_embedding": (width,), "visual.conv1.weight": (width, 3, patch, patch)}
    found |= {"visual.positional_embedding": (tokens, width), "visual.proj": (width, dim)}
    norms, linears = {"visual.ln_pre": width, "visual.ln_post": width}, {}
    for layer in range(vision["layers"]):
        block = f"visual.transformer.resblocks.{layer}."
        norms |= {f"{block}ln_1": width, f"{block}ln_2": width}
        found |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
        linears |= {f"{block}attn.out_proj": (width, width), f"{block}mlp.c_fc": (inner, width)}
        linears[f"{block}mlp.c_proj"] = (width, inner)
    tower = "text.transformer."
    for name, rows in (("word", vocab_size), ("position", positions), ("token_type", 1)):
        found[f"{tower}embeddings.{name}_embeddings.weight"] = (rows, TEXT_WIDTH)
    norms[f"{tower}embeddings.LayerNorm"] = TEXT_WIDTH
    for layer in range(TEXT_LAYERS):
        block = f"{tower}encoder.layer.{layer}."
        square = [f"attention.self.{name}" for name in ("query", "key", "value")] + ["attention.output.dense"]
        linears |= {block + name: (TEXT_WIDTH, TEXT_WIDTH) for name in square}
        linears |= {f"{block}intermediate.dense": (40, TEXT_WIDTH), f"{block}output.dense": (TEXT_WIDTH, 40)}
        norms |= {f"{block}attention.output.LayerNorm": TEXT_WIDTH, f"{block}output.LayerNorm": TEXT_WIDTH}
    if text["hf_pooler_type"] == "cls_pooler":
        linears[f"{tower}pooler.dense"] = (TEXT_WIDTH, TEXT_WIDTH)
    for name, shape in linears.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, size in norms.items():
        found |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    hidden, projection = (TEXT_WIDTH + dim) // 2, text.get("hf_proj_type", "mlp")
    if projection == "mlp":
        found |= {"text.proj.0.weight": (hidden, TEXT_WIDTH), "text.proj.2.weight": (dim, hidden)}
    elif projection == "linear":
        found["text.proj.weight"] = (dim, TEXT_WIDTH)
    return found


class OpenCLIPByHand:
    """Features of a folder in OpenCLIP's layout, not normalized."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        self.weights = {k: v.double() for k, v in load_file(folder / "open_clip_model.safetensors").items()}

    def linear(self, x, name):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, x, name, eps=1e-5):
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    @staticmethod
    def attend(query, key, value, heads, mask=None):
        """Attention; `mask` has shape `(batch, length)`."""
        split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
        scores = split[0] @ split[1].transpose(-1, -2) / split[0].shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
        return (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)

    def image(self, pixels):
        """`(batch, 3, size, size)` to `(batch, embed_dim)`."""
        vision, eps = self.config["vision_cfg"], (self.config["vision_cfg"].get("norm_kwargs") or {}).get("eps", 1e-5)
        approximate = (vision.get("act_kwargs") or {}).get("approximate", "none")
        patches = F.conv2d(pixels.double(), self.weights["visual.conv1.weight"], stride=vision["patch_size"])
        first = self.weights["visual.class_embedding"].expand(len(pixels), 1, -1)
        x = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + self.weights["visual.positional_embedding"]
        x = self.norm(x, "visual.ln_pre", eps)
        for layer in range(vision["layers"]):
            block = f"visual.transformer.resblocks.{layer}."
            y = self.norm(x, f"{block}ln_1", eps)
            packed = F.linear(
                y, self.weights[f"{block}attn.in_proj_weight"], self.weights[f"{block}attn.in_proj_bias"]
            )
            heads = vision["width"] // vision["head_width"]
            x = x + self.linear(self.attend(*packed.chunk(3, -1), heads), f"{block}attn.out_proj")
            y = self.linear(self.norm(x, f"{block}ln_2", eps), f"{block}mlp.c_fc")
            y = y * torch.sigmoid(1.702 * y) if self.config.get("quick_gelu") else F.gelu(y, approximate=approximate)
            x = x + self.linear(y, f"{block}mlp.c_proj")
        return self.norm(x[:, 0], "visual.ln_post", eps) @ self.weights["visual.proj"]

    def text(self, input_ids):
        """`(batch, length)` to `(batch, embed_dim)`; 1 is padding."""
        mask, tower = input_ids != 1, "text.transformer."
        positions = torch.where(mask, mask.cumsum(1) + 1, 1)
        names = {"word": input_ids, "position": positions, "token_type": torch.zeros_like(input_ids)}
        x = sum(self.weights[f"{tower}embeddings.{name}_embeddings.weight"][ids] for name, ids in names.items())
        x = self.norm(x, f"{tower}embeddings.LayerNorm")
        for layer in range(TEXT_LAYERS):
            block = f"{tower}encoder.layer.{layer}."
            parts = [self.linear(x, f"{block}attention.self.{name}") for name in ("query", "key", "value")]
            y = self.linear(self.attend(*parts, TEXT_HEADS, mask), f"{block}attention.output.dense")
            x = self.norm(x + y, f"{block}attention.output.LayerNorm")
            y = self.linear(F.gelu(self.linear(x, f"{block}intermediate.dense")), f"{block}output.dense")
            x = self.norm(x + y, f"{block}output.LayerNorm")
        return self.project(self.pool(x, mask))

    def pool(self, x, mask):
        kind = self.config["text_cfg"]["hf_pooler_type"]
        if kind == "mean_pooler":
            return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if kind == "max_pooler":
            return x.masked_fill(~mask[..., None], -torch.inf).amax(1)
        return x[:, 0] if "last_hidden" in kind else torch.tanh(self.linear(x[:, 0], "text.transformer.pooler.dense"))

    def project(self, x):
        kind = self.config["text_cfg"].get("hf_proj_type", "mlp")
        if kind == "mlp":
            return self.linear(F.gelu(self.linear(x, "text.proj.0")), "text.proj.2")
        return self.linear(x, "text.proj") if kind == "linear" else x
