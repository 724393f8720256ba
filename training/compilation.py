"""`torch.compile`, as accelerate's launcher asks for it (`configs/accelerate/compile.yaml`).

Compiled are the layers of the towers, each in place. Accelerate would wrap what it prepares instead: names in its
checkpoints would say `_orig_mod`, so that a compiled run could not go on uncompiled, and the teacher, which it does
not prepare, would stay as it is. Layers are compiled one by one since they repeat: one graph serves all twelve.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate.utils import DynamoBackend, TorchDynamoPlugin
from accelerate.utils.other import is_repeated_blocks
from torch import nn


def compile_layers(*modules: nn.Module | None) -> None:
    """
    Compiles the layers of modules, if the launcher asked for it.

    Args:
        modules (`nn.Module`): What has towers, such as student and teacher; `None` is passed over.
    """
    plugin = TorchDynamoPlugin()  # reads what the launcher left in the environment
    if plugin.backend == DynamoBackend.NO:
        return
    arguments = plugin.to_kwargs()
    for layer in repeated_layers(*modules):
        layer.compile(**arguments)


def repeated_layers(*modules: nn.Module | None) -> Iterator[nn.Module]:
    """The layers of every tower in the modules."""
    for module in filter(None, modules):
        for blocks in module.modules():
            if is_repeated_blocks(blocks):
                yield from blocks


def eager() -> AbstractContextManager:
    """Runs compiled layers as they are written: an evaluation has many shapes, and each would be compiled."""
    asked = TorchDynamoPlugin().backend != DynamoBackend.NO
    return torch.compiler.set_stance("force_eager") if asked else nullcontext()
