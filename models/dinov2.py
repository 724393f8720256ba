"""DINOv2 as a `CLIPVisionModel`: the layers are equal, but CLIP has one LayerNorm more and no layer scale."""

import torch
from torch.nn.functional import interpolate
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config

# Names in files; transformers gives the modules other names in some versions.
CLASS, POSITIONS = "embeddings.cls_token", "embeddings.position_embeddings"
PATCH_WEIGHT, PATCH_BIAS = (f"embeddings.patch_embeddings.projection.{kind}" for kind in ("weight", "bias"))
LAYER = {  # part of a layer of DINOv2: part of CLIP's layer, layer scale
    "norm1": ("layer_norm1", None),
    "attention.attention.query": ("self_attn.q_proj", None),
    "attention.attention.key": ("self_attn.k_proj", None),
    "attention.attention.value": ("self_attn.v_proj", None),
    "attention.output.dense": ("self_attn.out_proj", "layer_scale1.lambda1"),
    "norm2": ("layer_norm2", None),
    "mlp.fc1": ("mlp.fc1", None),
    "mlp.fc2": ("mlp.fc2", "layer_scale2.lambda1"),
}
# Length of the shift over the tokens' deviation. A longer shift is more exact, but float32 positions of this size no
# longer change by small steps of an optimizer.
SHIFT = 500


def tensor_shapes(config: Dinov2Config) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors that [`convert_dinov2`] reads."""
    width, inner, patch = config.hidden_size, config.hidden_size * config.mlp_ratio, config.patch_size
    tokens = 1 + (config.image_size // patch) ** 2
    outputs = {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
    parts = {scale: (width,) for _, scale in LAYER.values() if scale}
    for part in LAYER:
        shape = (width,) if "norm" in part else outputs.get(part, (width, width))
        parts |= {f"{part}.weight": shape, f"{part}.bias": shape[:1]}
    layers = range(config.num_hidden_layers)
    shapes = {f"encoder.layer.{layer}.{part}": shape for layer in layers for part, shape in parts.items()}
    shapes |= {CLASS: (1, 1, width), POSITIONS: (1, tokens, width), PATCH_BIAS: (width,)}
    shapes[PATCH_WEIGHT] = (width, config.num_channels, patch, patch)
    return shapes | dict.fromkeys(("layernorm.weight", "layernorm.bias"), (width,))


def convert_dinov2(
    config: Dinov2Config,
    tensors: dict[str, torch.Tensor],
    image_size: int,
    shift: tuple[torch.Tensor, float] | None = None,
) -> CLIPVisionModel:
    """
    Convert a DINOv2 without registers and SwiGLU. The pooled output is the class token after the final LayerNorm.

    The positions are long vectors with a small part that matters: they need float32 (bfloat16 by autocast is fine).

    Args:
        config ([`Dinov2Config`]): Its configuration.
        tensors (`dict[str, torch.Tensor]`): Its weights in float32, with their names in files.
        image_size (`int`): Side of the images in pixels. Positions are resized from the ones of `config.image_size`.
        shift (`tuple[torch.Tensor, float]`, *optional*):
            Shift of the tokens and weight of CLIP's first LayerNorm, instead of the ones of `neutral_norm`.
    """
    # CLIP's patches have no bias: it moves into the positions.
    grid = interpolate(square(tensors[POSITIONS][:, 1:]), size=image_size // config.patch_size, mode="bicubic")
    patches = grid[0].flatten(1).T + tensors[PATCH_BIAS]
    positions = torch.cat([tensors[POSITIONS][0, :1], patches])
    token = tensors[CLASS].flatten()
    shift, weight = shift or neutral_norm(tensors[PATCH_WEIGHT], torch.cat([positions[:1] + token, patches]))
    state = {
        "embeddings.class_embedding": token,
        "embeddings.patch_embedding.weight": tensors[PATCH_WEIGHT],
        "embeddings.position_embedding.weight": positions + shift,
        "pre_layrnorm.weight": torch.full_like(shift, weight),
        "pre_layrnorm.bias": -shift,
        "post_layernorm.weight": tensors["layernorm.weight"],
        "post_layernorm.bias": tensors["layernorm.bias"],
    }
    # CLIP's layers have no layer scale: it multiplies the output matrices.
    for layer in range(config.num_hidden_layers):
        here, there = f"encoder.layer.{layer}", f"encoder.layers.{layer}"
        for part, (clip_part, scale) in LAYER.items():
            for kind in ("weight", "bias"):
                tensor = tensors[f"{here}.{part}.{kind}"]
                if scale:
                    factor = tensors[f"{here}.{scale}"]
                    tensor = (factor if kind == "bias" else factor[:, None]) * tensor
                state[f"{there}.{clip_part}.{kind}"] = tensor
    model = CLIPVisionModel(clip_config(config, image_size))
    model.load_state_dict(state)
    return model


def square(positions: torch.Tensor) -> torch.Tensor:
    """Reshape positions (1, n * n, width) to a picture (1, width, n, n)."""
    side = round(positions.shape[1] ** 0.5)
    return positions.transpose(1, 2).reshape(1, -1, side, side)


def clip_config(config: Dinov2Config, image_size: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        **{name: getattr(config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")},
        **{name: getattr(config, name) for name in ("patch_size", "num_channels", "hidden_act", "layer_norm_eps")},
        intermediate_size=config.hidden_size * config.mlp_ratio,
        image_size=image_size,
    )


def neutral_norm(patch_weight: torch.Tensor, fixed: torch.Tensor) -> tuple[torch.Tensor, float]:
    """
    Find a shift of all tokens and a weight with which CLIP's first LayerNorm leaves the tokens unchanged.

    A LayerNorm divides by the length of a token without its mean. A long shift makes the lengths equal; the bias of
    the norm takes the shift away. What is lost is the token's part along the shift (and its mean, which the next
    LayerNorms remove anyway), so the shift has the direction along which tokens differ least.

    Args:
        patch_weight (`torch.Tensor` of shape `(width, channels, patch, patch)`): Weights of the patches.
        fixed (`torch.Tensor` of shape `(tokens, width)`): Tokens of an image of zeros, the class token first.
    """
    pixels = patch_weight.double().flatten(1).T
    center = fixed.double().mean(0)
    others = fixed.double() - center
    others[1:] /= len(fixed) ** 0.5  # the class token counts as much as all patches together
    moves = torch.cat([pixels, others])
    moves -= moves.mean(1, keepdim=True)
    spread = moves.T @ moves
    spread += spread.trace()  # a constant direction, the mean, gets the largest eigenvalue: the norm removes it
    direction = torch.linalg.eigh(spread).eigenvectors[:, 0] * len(spread) ** 0.5
    length = SHIFT * pixels.square().sum(0).mean().sqrt()
    along = (center - center.mean()) @ direction / len(direction)
    return (length * direction).float(), float(length + along)
