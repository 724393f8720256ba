"""Configuration of RS-M-CLIP (Silva et al. 2024, arXiv 2410.23370)."""

from dataclasses import field

from transformers import CLIPVisionConfig, PreTrainedConfig, XLMRobertaConfig

# ViT-B/32 and XLM-R-base as in OpenCLIP. Other fields have the default of the tower's class.
VISION_DEFAULTS = {"hidden_act": "gelu", "projection_dim": 512}
TEXT_DEFAULTS = {
    "vocab_size": 250002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
SELF_DISTILLATION_DEFAULTS = {"hidden_size": 2048, "bottleneck_size": 256, "num_prototypes": 65536}
CHOICES = {"text_pooling": ("mean", "max", "cls", "pooler"), "text_projection_type": ("mlp", "linear", "none")}


class RSMCLIPConfig(PreTrainedConfig):
    r"""
    Configuration of an [`RSMCLIPModel`].

    The defaults are the released architecture: OpenCLIP's `xlm-roberta-base-ViT-B-32` (366.1 M parameters), and the
    self-distillation head on its image tower (23.1 M, absent with `self_distillation=None`).

    Args:
        vision_config (`dict` or [`CLIPVisionConfig`], *optional*):
            Image tower. Defaults of its fields: ViT-B/32 at 224 pixels with exact GELU.
        text_config (`dict` or [`XLMRobertaConfig`], *optional*):
            Text tower. Defaults of its fields: `xlm-roberta-base`.
        projection_dim (`int`, *optional*, defaults to 512): Width of the embedding space.
        text_pooling (`str`, *optional*, defaults to `"mean"`):
            Pooling of the last hidden states: `"mean"` or `"max"` over the tokens, `"cls"` (the first token), or
            `"pooler"` (the first token, then XLM-RoBERTa's dense layer and tanh).
        text_projection_type (`str`, *optional*, defaults to `"mlp"`):
            Projection of the pooled text: `"mlp"` (two layers with GELU between them), `"linear"`, or `"none"` (the
            text tower must have the width `projection_dim`).
        logit_scale_init_value (`float`, *optional*, defaults to 2.6592):
            Initial logarithm of the inverse temperature, ln(1 / 0.07) (Radford et al. 2021, section 2.5).
        self_distillation (`dict`, *optional*):
            Self-distillation head (Caron et al. 2021, section 3.1): `hidden_size` (default 2048) and `bottleneck_size`
            (256) of its MLP, and `num_prototypes` (65536). `None`: the model has no head.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights of the self-distillation head.

    Example:

    ```python
    >>> from rsmclip import RSMCLIPConfig, RSMCLIPModel

    >>> config = RSMCLIPConfig(self_distillation=None)
    >>> model = RSMCLIPModel(config)
    ```"""

    model_type = "rsmclip"
    sub_configs = {"vision_config": CLIPVisionConfig, "text_config": XLMRobertaConfig}

    vision_config: dict | CLIPVisionConfig | None = None
    text_config: dict | XLMRobertaConfig | None = None
    projection_dim: int = 512
    text_pooling: str = "mean"
    text_projection_type: str = "mlp"
    logit_scale_init_value: float | int = 2.6592
    self_distillation: dict | None = field(default_factory=lambda: dict(SELF_DISTILLATION_DEFAULTS))
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, CLIPVisionConfig):
            self.vision_config = CLIPVisionConfig(**(VISION_DEFAULTS | (self.vision_config or {})))
        if not isinstance(self.text_config, XLMRobertaConfig):
            self.text_config = XLMRobertaConfig(**(TEXT_DEFAULTS | (self.text_config or {})))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.self_distillation is not None:
            self.self_distillation = SELF_DISTILLATION_DEFAULTS | self.self_distillation
        super().__post_init__(**kwargs)


__all__ = ["RSMCLIPConfig"]
