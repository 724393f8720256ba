"""`torch.compile`, if accelerate's launcher asks for it (`configs/accelerate/compile.yaml`).

The layers of the towers are compiled one by one and in place. The layers of a tower are alike, so one graph serves all
twelve. Accelerate would compile the whole student. Its checkpoints would contain the names `_orig_mod`, so that a run
could not continue without compilation, and the teacher, which accelerate does not prepare, would not be compiled.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate.utils import DynamoBackend, TorchDynamoPlugin
from accelerate.utils.other import is_repeated_blocks
from torch import nn


def compile_layers(*modules: nn.Module | None) -> None:
    """Compile the layers of all towers in student and teacher, if the launcher asks for it. `None` is ignored."""
    plugin = TorchDynamoPlugin()  # reads the environment variables of the launcher
    if plugin.backend == DynamoBackend.NO:
        return
    arguments = plugin.to_kwargs()
    for layer in repeated_layers(*modules):
        layer.compile(**arguments)


def repeated_layers(*modules: nn.Module | None) -> Iterator[nn.Module]:
    for module in filter(None, modules):
        for blocks in module.modules():
            if is_repeated_blocks(blocks):
                yield from blocks


def eager() -> AbstractContextManager:
    """Return a context that runs compiled layers without compilation, for evaluations: they have many shapes."""
    asked = TorchDynamoPlugin().backend != DynamoBackend.NO
    return torch.compiler.set_stance("force_eager") if asked else nullcontext()
