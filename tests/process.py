"""What one of several processes computes in tests of what they compute together; imported by name in each."""

import os
import resource
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from rsmclip.training.checkpoints import save_checkpoint
from rsmclip.training.losses import Centring, clip_loss, sinkhorn_knopp


def one_of_several_processes(rank: int, processes: int, folder: Path) -> None:
    """One of several processes: its rows' loss and what that and the others' give as gradients of its embeddings."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    torch.set_num_threads(1)
    images, texts, sentences, logits = torch.load(folder / "inputs.pt")
    rows = slice(rank * 12 // processes, (rank + 1) * 12 // processes)
    image_embeds, text_embeds = images[:, rows].clone().requires_grad_(), texts[:, rows].clone().requires_grad_()
    scale = torch.tensor(7.0, requires_grad=True)
    loss = clip_loss(image_embeds, text_embeds, scale, sentences[:, rows], "positive", 2)
    loss.backward()
    centring = Centring(logits.shape[-1])
    centring(logits[:, rows], 0.1)
    sinkhorn = sinkhorn_knopp(logits[:, rows].flatten(0, 1) / 0.1)
    result = {"loss": loss.detach(), "images": image_embeds.grad, "texts": text_embeds.grad, "scale": scale.grad,
              "center": centring.center, "use": centring.prototype_use(),
              "sinkhorn": sinkhorn.view(2, -1, logits.shape[-1])}  # fmt: skip
    torch.save(result, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def make_run() -> tuple[Accelerator, nn.Module, Optimizer]:
    """A layer after a step, with what its checkpoint holds."""
    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(300, 200)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer, optimizer = accelerator.prepare(layer, optimizer)
    layer(torch.ones(4, 300)).sum().backward()
    optimizer.step()
    return accelerator, layer, optimizer


def one_of_two(rank: int, folder: Path) -> None:
    """A process of two; the second cannot write its random states."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    accelerator = make_run()[0]
    save_checkpoint(accelerator, folder / "checkpoints", 5, keep=2)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        save_checkpoint(accelerator, folder / "checkpoints", 10, keep=2)
    except OSError as error:
        (folder / f"{rank}.txt").write_text(str(error))
