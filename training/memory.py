"""What a training step needs of a device's memory, counted before anything is trained.

The step runs on fake tensors, which have a shape, a type and a device but no content: nothing is computed and nothing
is allocated, while every tensor that a real step would hold is seen to come and go.
"""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from rsmclip import RSMCLIPModel
from rsmclip.training.config import TrainingConfig
from rsmclip.training.losses import Centering, clip_loss
from rsmclip.training.teacher import Student, Teacher
from rsmclip.training.views import ViewSpec, draw_views, render_views

SORTS = (
    "weights",
    "moments",
    "teacher",
    "views",
    "gradients",
    "activations",
    "prototype logits",
    "contrastive logits",
)
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class LiveMemory(TorchDispatchMode):
    """
    Counts the bytes of all tensors that are alive by their sort, and keeps the counts of the moment when the sum was
    largest. A storage counts once, however many tensors view it.

    Args:
        logits (`dict[str, tuple[int, ...]]`): Sorts that are known by the last sizes of their shape.
        times (`dict[str, int]`, *optional*): Sorts that count several times.
    """

    def __init__(self, logits: dict[str, tuple[int, ...]], times: dict[str, int] | None = None):
        super().__init__()
        self.logits, self.times, self.sort = logits, times or {}, "activations"
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.sorts = WeakIdKeyDictionary()  # of each storage, in a list since gradients are known as such only later

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor)
        return result

    def add(self, tensor: torch.Tensor) -> None:
        """Counts a tensor unless its storage is known."""
        storage = tensor.untyped_storage()
        if storage in self.sorts:
            return
        sort = [self.sort]
        if self.sort == "activations":
            sort = [name for name, sizes in self.logits.items() if tensor.shape[-len(sizes) :] == sizes][:1] or sort
        size = storage.nbytes() * self.times.get(sort[0], 1)
        self.sorts[storage] = sort
        self.live[sort[0]] += size
        weakref.finalize(storage, self.remove, sort, size)
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def remove(self, sort: list[str], size: int) -> None:
        """Takes a storage off that is freed."""
        self.live[sort[0]] -= size

    def add_gradient(self, parameter: torch.Tensor) -> None:
        """Counts what has become the gradient of a parameter as that."""
        storage = parameter.grad.untyped_storage()
        sort = self.sorts[storage]
        self.live[sort[0]] -= storage.nbytes()
        sort[0] = "gradients"
        self.live["gradients"] += storage.nbytes()

    @contextmanager
    def counting(self, sort: str) -> Iterator[None]:
        """What is made meanwhile is of this sort."""
        before, self.sort = self.sort, sort
        yield
        self.sort = before


class Step(nn.Module):
    """
    A training step up to the gradients.

    Args:
        model ([`RSMCLIPModel`]): The student.
        config ([`TrainingConfig`]): The run.
        half (`torch.dtype`, *optional*): Arithmetic of the towers; by default float32.
    """

    def __init__(self, model: RSMCLIPModel, config: TrainingConfig, half: torch.dtype | None):
        super().__init__()
        self.config, self.half = config, half
        self.student = Student(model, config.student_temperature, config.gradient_accumulation_chunks)
        self.teacher = None
        if config.self_distillation_weight > 0:
            self.teacher = Teacher(model, config.gradient_accumulation_chunks)
            self.centring = Centering(model.config.self_distillation["num_prototypes"], config.centering)

    def forward(
        self, views: dict[str, torch.Tensor], ids: torch.Tensor, text_groups: list[tuple[torch.Tensor, int]]
    ) -> None:
        """Views and captions as `Student` takes them."""
        config, targets = self.config, None
        with torch.autocast(ids.device.type, dtype=self.half, enabled=self.half is not None):
            if self.teacher is not None:
                teacher_logits = self.teacher(views["global"])  # alive until the next step's, as in training
                targets = self.centring(teacher_logits, config.teacher_temperature)
            captions = (ids, torch.ones_like(ids), text_groups)
            output = self.student(views["global"], views.get("local"), *captions, targets)
        same = (ids[..., 0], config.duplicate_captions, config.loss_chunk_size)
        loss = clip_loss(output.image_embeds, output.text_embeds, output.logit_scale, *same)
        if targets is not None:
            loss = loss + output.distillation.mean()
        loss.backward()


def estimate_memory(
    model: RSMCLIPModel,
    config: TrainingConfig,
    batch_size: int,
    caption_lengths: list[int],
    mixed_precision: str = "no",
    processes: int = 1,
    device: str = "cpu",
) -> dict[str, int]:
    """
    Memory of a process at the peak of a training step, in bytes. Not counted are the libraries themselves (on a GPU
    the context and workspaces, half a gigabyte or more), what an allocator loses to fragments, and what
    `torch.compile`, FSDP or DeepSpeed save.

    Args:
        model ([`RSMCLIPModel`]):
            The model in training, adapted and frozen as the run does it; on the meta device it needs no weights.
        config ([`TrainingConfig`]):
            The run.
        batch_size (`int`):
            Images of a process in a step.
        caption_lengths (`list[int]`):
            Tokens to which captions are padded, of each of equally large groups.
        mixed_precision (`"no"`, `"bf16"` or `"fp16"`, *optional*, defaults to `"no"`):
            Arithmetic of the towers.
        processes (`int`, *optional*, defaults to 1):
            Processes that train together by DistributedDataParallel.
        device (`str`, *optional*, defaults to `"cpu"`):
            Where the step would run; kernels of a GPU keep less for the backward pass. It has to be there.

    Returns:
        `dict[str, int]`: `weights`, `moments` (of the optimiser), `teacher`, `views` (with the images), `gradients`,
        `prototype logits`, `contrastive logits` and `activations` (all else, such as copies of the weights in half
        precision), as they are at the peak, and `total`, their sum.
    """
    head = model.config.self_distillation if config.self_distillation_weight > 0 else None
    rows = min(batch_size, config.loss_chunk_size or batch_size)
    logits = {"contrastive logits": (config.num_global_views, config.captions_per_image, rows, batch_size)}
    if head is not None:
        logits["prototype logits"] = (head["num_prototypes"],)
    memory = LiveMemory(logits, {"contrastive logits": processes})  # of this process's rows with those of all
    training = model.training
    step = Step(model.train(), config, AUTOCAST.get(mixed_precision))
    specs = config.view_specs(model.config.vision_config.image_size)
    with FakeTensorMode(), memory:
        tensors = fake_tensors(step, device, memory)
        with memory.counting("views"):
            views = fake_views(specs, batch_size, config.short_side, device)
        ids = torch.empty(config.captions_per_image, batch_size, max(caption_lengths), dtype=torch.long, device=device)
        rows = torch.arange(ids[..., 0].numel(), device=device).chunk(len(caption_lengths))
        functional_call(step, tensors, (views, ids, list(zip(rows, caption_lengths, strict=True))))
    model.train(training)
    peak = dict.fromkeys(SORTS, 0) | memory.peak
    trained = sum(size(parameter) for parameter in model.parameters() if parameter.requires_grad)
    peak["moments"] = 2 * trained  # of AdamW, made in the first step and kept
    if processes > 1:
        peak["gradients"] += trained  # once more, in the buckets in which processes exchange them
    return peak | {"total": sum(peak.values())}


def fake_tensors(step: Step, device: str, memory: LiveMemory) -> dict[str, torch.Tensor]:
    """Tensors like a step's parameters and buffers, under their names and counted as what they are."""
    tensors = {}
    for name, tensor in [*step.named_parameters(), *step.named_buffers()]:
        with memory.counting("weights" if name.startswith("student.") else "teacher"):
            tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        if tensor.requires_grad:
            tensors[name].requires_grad_().register_post_accumulate_grad_hook(memory.add_gradient)
    return tensors


def fake_views(specs: dict[str, ViewSpec], batch_size: int, side: int, device: str) -> dict[str, torch.Tensor]:
    """The normalised views of a batch of square images, `{name: (views, batch, 3, size, size)}`."""
    pixels = torch.empty(batch_size, 3, side, side, dtype=torch.uint8, device=device)
    views = {}
    for name, spec in specs.items():
        drawn = draw_views(side, side, spec, np.random.default_rng(0))
        numbers = {key: torch.empty(batch_size, *values.shape, device=device) for key, values in drawn.items()}
        views[name] = (render_views(pixels, numbers, spec) - 0.5) / 0.25
    return views


def size(tensor: torch.Tensor) -> int:
    """Bytes of a tensor."""
    return tensor.numel() * tensor.element_size()
