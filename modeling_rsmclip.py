"""RS-M-CLIP (Silva et al. 2024, arXiv 2410.23370): a ViT image tower and an XLM-RoBERTa text tower with a shared
embedding space.

The towers are models of `transformers`, with its attention backends, gradient checkpointing and adapters. This file
adds the parts that join them:

    image -> ViT -> pooled output (class token) -> visual_projection (linear) -> image embedding
             the same pooled output -> self_distillation_head -> prototype logits (training only)
    text  -> XLM-RoBERTa -> mean over the tokens -> text_projection (MLP) -> text embedding

These are the defaults, the released model; the config can choose another pooling and projection of the text. The
architecture is OpenCLIP's `CustomTextCLIP` with a ViT and an XLM-RoBERTa, and in addition the head. `rsmclip hub
convert-openclip` and `export-openclip` convert the weights in both directions; the embeddings stay the same.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModel, PreTrainedModel, XLMRobertaModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_rsmclip import RSMCLIPConfig


@dataclass
class RSMCLIPOutput(CLIPOutput):
    """
    Output of [`RSMCLIPModel`].

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): InfoNCE, mean of both directions, with `return_loss=True`.
        logits_per_image (`torch.Tensor` of shape `(images, texts)`, *optional*): Cosines times `exp(logit_scale)`.
        logits_per_text (`torch.Tensor` of shape `(texts, images)`, *optional*): Transpose of `logits_per_image`.
        text_embeds (`torch.Tensor` of shape `(texts, projection_dim)`, *optional*): Embeddings of unit length.
        image_embeds (`torch.Tensor` of shape `(images, projection_dim)`, *optional*): Embeddings of unit length.
        text_model_output (`BaseModelOutputWithPooling`, *optional*): Result of `get_text_features`.
        vision_model_output (`BaseModelOutputWithPooling`, *optional*): Result of `get_image_features`.
    """


class RSMCLIPSelfDistillationHead(nn.Module):
    """
    Head of the self-distillation objective: pooled image to prototype logits (Caron et al. 2021, section 3.1 and
    appendix C). It has a three-layer MLP and L2 normalization; its output is the cosines with the prototypes. The
    prototypes are the rows of `prototypes.weight`. `forward` scales them to unit length.
    """

    def __init__(self, in_size: int, hidden_size: int, bottleneck_size: int, num_prototypes: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, bottleneck_size),
        )
        self.prototypes = nn.Linear(bottleneck_size, num_prototypes, bias=False)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the cosines of `(batch, in_size)` with the prototypes, `(batch, num_prototypes)`."""
        bottleneck = F.normalize(self.mlp(pooled), dim=-1)
        return F.linear(bottleneck, F.normalize(self.prototypes.weight, dim=-1))


class RSMCLIPPreTrainedModel(PreTrainedModel):
    """Base class: initialization of weights and supported features."""

    config_class = RSMCLIPConfig
    base_model_prefix = "rsmclip"
    main_input_name = "input_ids"  # the first argument of `forward`
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["CLIPVisionEmbeddings", "CLIPEncoderLayer", "XLMRobertaEmbeddings", "XLMRobertaLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # A model without a head can load weights that have a head: do not warn.
    _keys_to_ignore_on_load_unexpected = [r"^self_distillation_head\."]

    @classmethod
    def is_custom_code(cls) -> bool:
        """
        Return `False`, so that weights that a checkpoint lacks are initialized as in a new model.

        For custom code, transformers skips the initialization of modules without parameters of their own, such as
        attention, because it could overwrite loaded weights. `_init_weights` of this model and its towers cannot.
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        # The towers initialize themselves, `super()` the head. The functions of `init` do not change loaded weights.
        super()._init_weights(module)
        if isinstance(module, RSMCLIPModel):
            for layer in [module.visual_projection, *module.text_projection.modules()]:
                if isinstance(layer, nn.Linear):
                    init.normal_(layer.weight, std=layer.in_features**-0.5)
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)


class RSMCLIPModel(RSMCLIPPreTrainedModel):
    """
    Multilingual CLIP for remote sensing. Images and texts that match have embeddings with a high cosine similarity.

    Args:
        config ([`RSMCLIPConfig`]): Architecture. Weights are random unless `from_pretrained` loads them.

    Example:

    ```python
    >>> from transformers import AutoModel, AutoProcessor

    >>> model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    >>> processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    >>> inputs = processor(text=["um aeroporto", "a forest"], images=image, padding=True, return_tensors="pt")
    >>> model(**inputs).logits_per_image.softmax(dim=-1)
    ```

    The model takes tensors. To embed strings and images directly, load the folder as a [`SentenceTransformer`]:

    ```python
    >>> from sentence_transformers import SentenceTransformer

    >>> SentenceTransformer(folder, trust_remote_code=True).encode(["um aeroporto", "a forest"])
    ```"""

    def __init__(self, config: RSMCLIPConfig):
        super().__init__(config)
        vision_width, text_width = config.vision_config.hidden_size, config.text_config.hidden_size
        self.vision_model = CLIPVisionModel._from_config(config.vision_config)
        self.text_model = XLMRobertaModel._from_config(
            config.text_config, add_pooling_layer=config.text_pooling == "pooler"
        )

        self.visual_projection = nn.Linear(vision_width, config.projection_dim, bias=False)
        self.text_projection = self._make_text_projection(
            config.text_projection_type, text_width, config.projection_dim
        )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.self_distillation_head = None
        if (head := config.self_distillation) is not None:
            self.self_distillation_head = RSMCLIPSelfDistillationHead(
                vision_width, head["hidden_size"], head["bottleneck_size"], head["num_prototypes"]
            )
        self.post_init()

    @staticmethod
    def _make_text_projection(projection_type: str, in_size: int, out_size: int) -> nn.Module:
        if projection_type == "linear":
            return nn.Linear(in_size, out_size, bias=False)
        if projection_type == "none":
            if in_size != out_size:
                raise ValueError(f"text_projection_type none: hidden_size {in_size} is not projection_dim {out_size}")
            return nn.Identity()
        hidden_size = (in_size + out_size) // 2  # OpenCLIP's width, 640 for XLM-R-base
        return nn.Sequential(
            nn.Linear(in_size, hidden_size, bias=False), nn.GELU(), nn.Linear(hidden_size, out_size, bias=False)
        )

    def save_pretrained(
        self,
        save_directory: str,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        keep_self_distillation_head: bool = True,
        **kwargs,
    ) -> None:
        """
        Save the model. There is one argument more than in [`~PreTrainedModel.save_pretrained`]:

        Args:
            keep_self_distillation_head (`bool`, *optional*, defaults to `True`):
                Save the self-distillation head. Retrieval and classification don't use it, so a release can leave it
                out. Without it the saved config has `self_distillation=None`.
        """
        head, sizes = self.self_distillation_head, self.config.self_distillation
        if not keep_self_distillation_head:
            self.self_distillation_head = self.config.self_distillation = None
            if state_dict is not None:
                state_dict = {key: value for key, value in state_dict.items() if "self_distillation_head." not in key}
        try:
            super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)
        finally:
            self.self_distillation_head, self.config.self_distillation = head, sizes

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Compute image embeddings. They are not normalized.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): Normalized pixels.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `False`):
                Accept any height and width that are multiples of the patch size.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` has shape `(batch, projection_dim)`.
        """
        outputs = self.vision_model(
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs
        )
        outputs.pooler_output = self.visual_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """
        Compute text embeddings: pool the last hidden states of the tokens with attention mask 1, and project. They are
        not normalized.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Token ids. The largest length is `max_position_embeddings - pad_token_id - 1` (512): use
                `truncation=True` in the tokenizer.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding. By default 0 for padding tokens.
            inputs_embeds (`torch.Tensor` of shape `(batch, length, width)`, *optional*):
                Word embeddings instead of token ids, padded on the right. The default attention mask is 1 everywhere.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` has shape `(batch, projection_dim)`.
        """
        if input_ids is None and inputs_embeds is None:
            raise ValueError("give input_ids or inputs_embeds")
        # The mask, and the largest length that the position embeddings allow.
        if attention_mask is None and input_ids is None:
            attention_mask = inputs_embeds.new_ones(inputs_embeds.shape[:2], dtype=torch.long)
        elif attention_mask is None:
            attention_mask = (input_ids != self.config.text_config.pad_token_id).long()
        longest = self.config.text_config.max_position_embeddings - self.config.text_config.pad_token_id - 1
        if attention_mask.shape[1] > longest:
            raise ValueError(
                f"a text has {attention_mask.shape[1]} tokens and the text tower takes at most {longest}: "
                f"give the tokenizer truncation=True, max_length={longest}"
            )

        # The tower, pooling and projection.
        mask = attention_mask
        if self.training and self.text_model.config._attn_implementation == "sdpa":
            # With a 2D mask transformers asks the device whether any token is masked, and the CPU waits for it.
            mask = attention_mask[:, None, None].bool()
        outputs = self.text_model(
            input_ids=input_ids, attention_mask=mask, inputs_embeds=inputs_embeds, return_dict=True, **kwargs
        )
        pooled = outputs.pooler_output  # None without a pooler
        if self.config.text_pooling != "pooler":
            pooled = self._pool_tokens(outputs.last_hidden_state, attention_mask)
        return BaseModelOutputWithPooling(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=self.text_projection(pooled),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _pool_tokens(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # (batch, length, width) and (batch, length) to (batch, width)
        mask = attention_mask.unsqueeze(-1).to(hidden.device)
        if self.config.text_pooling == "cls":
            return hidden[:, 0]
        if self.config.text_pooling == "max":
            return hidden.masked_fill(mask == 0, torch.finfo(hidden.dtype).min).amax(dim=1)
        mask = mask.to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)  # zero, not NaN, without tokens

    def get_prototype_logits(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = True) -> torch.Tensor:
        """
        Compute the cosines of images with the prototypes of the self-distillation head.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`):
                Normalized pixels of global or local views.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `True`):
                Accept views of other sizes than the configured size.

        Returns:
            `torch.Tensor` of shape `(batch, num_prototypes)`.
        """
        if self.self_distillation_head is None:
            raise ValueError("the model has no self-distillation head: config.self_distillation is None")
        outputs = self.vision_model(pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        return self.self_distillation_head(outputs.pooler_output)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> RSMCLIPOutput:
        """
        Embed images, texts, or both, and compare them.

        Args:
            input_ids (`torch.LongTensor` of shape `(texts, length)`, *optional*): Token ids.
            pixel_values (`torch.FloatTensor` of shape `(images, 3, height, width)`, *optional*): Normalized pixels.
            attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*): 1 for tokens, 0 for padding.
            return_loss (`bool`, *optional*):
                Compute the plain InfoNCE of one process. Text `i` must belong to image `i`. Training uses `clip_loss`.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `False`):
                Accept images of other sizes than the configured size.

        Returns:
            [`RSMCLIPOutput`]: Fields of an absent input are `None`.
        """
        if input_ids is None and pixel_values is None:
            raise ValueError("give input_ids, pixel_values or both")
        # Embeddings of unit length.
        image = text = image_embeds = text_embeds = logits_per_image = logits_per_text = loss = None
        if pixel_values is not None:
            image = self.get_image_features(pixel_values, interpolate_pos_encoding, return_dict=True, **kwargs)
            image_embeds = F.normalize(image.pooler_output, dim=-1)
        if input_ids is not None:
            text = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
            text_embeds = F.normalize(text.pooler_output, dim=-1)
        # Cosines times the inverse temperature, and InfoNCE.
        if image_embeds is not None and text_embeds is not None:
            logits_per_text = (
                self.logit_scale.exp().to(text_embeds.device) * text_embeds @ image_embeds.t().to(text_embeds.device)
            )
            logits_per_image = logits_per_text.t()
        if return_loss:
            if logits_per_text is None or len(image_embeds) != len(text_embeds):
                raise ValueError("return_loss=True needs as many texts as images: text i belongs to image i")
            targets = torch.arange(len(text_embeds), device=logits_per_text.device)
            loss = (F.cross_entropy(logits_per_image, targets) + F.cross_entropy(logits_per_text, targets)) / 2
        return RSMCLIPOutput(
            loss=loss,
            logits_per_image=logits_per_image,
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text,
            vision_model_output=image,
        )


__all__ = ["RSMCLIPModel", "RSMCLIPOutput", "RSMCLIPPreTrainedModel"]
