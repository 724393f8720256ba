"""Optimiser groups."""

from rsmclip.training.config import TrainingConfig
from rsmclip.training.optimizer import make_optimizer


def test_only_matrices_are_decayed(tiny_model):
    optimizer = make_optimizer(tiny_model, TrainingConfig(weight_decay=0.3, learning_rate=2e-4))
    names = {id(parameter): name for name, parameter in tiny_model.named_parameters()}
    decayed, others = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert decayed | others == set(names.values()) and not decayed & others
    for name in others:
        kinds = ("bias", "layernorm", "layer_norm", "layrnorm", "layernorm", "logit_scale", "embedding")
        assert any(kind in name.lower() for kind in kinds), name
    assert "logit_scale" in others and "vision_model.embeddings.class_embedding" in others
    assert "vision_model.embeddings.position_embedding.weight" in others
    assert "text_model.embeddings.position_embeddings.weight" in others
    assert "text_model.embeddings.word_embeddings.weight" in decayed
    assert "self_distillation_head.prototypes.weight" in decayed and "visual_projection.weight" in decayed
