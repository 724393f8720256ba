"""Functions that tests start in several processes at a time; each process imports them by name."""

import os
import resource
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset, Image
from torch import nn
from torch.optim import Optimizer

from rsmclip.core.command_line import end_process
from rsmclip.core.errors import UserError
from rsmclip.eval.cache import EmbeddingCache
from rsmclip.eval.models import load_embedder
from rsmclip.training.checkpoints import save_checkpoint
from rsmclip.training.losses import Centering, clip_loss, sinkhorn_knopp
from rsmclip.training.processes import names_lost_peer


def join_processes(rank: int, processes: int, folder: Path) -> None:
    # Accelerate reads these variables of a launcher.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), ACCELERATE_USE_CPU="true")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    torch.set_num_threads(1)


def leave_processes() -> None:
    torch.distributed.barrier()  # a process that leaves early would break the exchange of the others
    end_process(0)


def one_of_several_processes(rank: int, processes: int, folder: Path) -> None:
    join_processes(rank, processes, folder)
    images, texts, sentences, known, logits = torch.load(folder / "inputs.pt", weights_only=True)
    rows = slice(rank * 12 // processes, (rank + 1) * 12 // processes)
    image_embeds, text_embeds = images[:, rows].clone().requires_grad_(), texts[:, rows].clone().requires_grad_()
    scale = torch.tensor(7.0, requires_grad=True)
    loss = clip_loss(image_embeds, text_embeds, scale, sentences[:, rows], "positive", 2, known[:, rows])
    loss.backward()
    centering = Centering(logits.shape[-1])
    centering(logits[:, rows], 0.1)
    sinkhorn = sinkhorn_knopp(logits[:, rows].flatten(0, 1) / 0.1)
    result = {"loss": loss.detach(), "images": image_embeds.grad, "texts": text_embeds.grad, "scale": scale.grad}
    result |= {"center": centering.center, "use": centering.prototype_use(), "won": centering.ever_won}
    result |= {"sinkhorn": sinkhorn.view(2, -1, logits.shape[-1])}
    torch.save(result, folder / f"{rank}.pt")
    leave_processes()


def make_run() -> tuple[Accelerator, nn.Module, Optimizer]:
    accelerator = Accelerator(cpu=True)
    layer = torch.nn.Linear(300, 200)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer, optimizer = accelerator.prepare(layer, optimizer)
    layer(torch.ones(4, 300)).sum().backward()
    optimizer.step()
    return accelerator, layer, optimizer


def one_of_two(rank: int, folder: Path) -> None:
    """Save two checkpoints. Process 1 cannot write its random states into the second one."""
    join_processes(rank, 2, folder)
    accelerator = make_run()[0]
    save_checkpoint(accelerator, folder / "checkpoints", 5, keep=2)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        save_checkpoint(accelerator, folder / "checkpoints", 10, keep=2)
    except UserError as error:
        (folder / f"{rank}.txt").write_text(str(error))
    leave_processes()


def loses_its_peer(rank: int, folder: Path) -> None:
    """Process 1 ends without a word. Process 0 writes the error of its next exchange."""
    join_processes(rank, 2, folder)
    Accelerator(cpu=True)
    torch.distributed.barrier()
    if rank == 1:
        os._exit(0)  # as after SIGKILL; with another status, the test would end process 0
    try:
        with names_lost_peer():
            for _ in range(2):
                torch.distributed.all_reduce(torch.ones(3))
    except UserError as error:
        (folder / "error.txt").write_text(str(error))
    end_process(0)


def embeds_its_share(rank: int, processes: int, folder: Path) -> None:
    join_processes(rank, processes, folder)
    torch.save(embed_twice(folder, shared=True), folder / f"{rank}.pt")
    leave_processes()


def embed_twice(folder: Path, shared: bool) -> dict:
    """Embed the rows in a folder with an empty cache and again with a full one, then rows with broken images."""
    rows, broken = (
        Dataset.from_parquet(str(folder / f"{name}.parquet")).cast_column("image", Image(decode=False))
        for name in ("rows", "broken")
    )
    cache = EmbeddingCache(folder / f"cache-{shared}")
    embedder = load_embedder(str(folder / "model"), batch_size=5, device="cpu", cache=cache, shared=shared)
    calls = []
    embedder.model.vision_model.register_forward_pre_hook(lambda *_: calls.append("images"))
    texts = [text for row in rows["captions"] for text in row["de"]]
    result = {"images": embedder.images(rows), "texts": embedder.texts(texts), "computed": len(calls)}
    result |= {"images again": embedder.images(rows), "computed again": len(calls) - result["computed"]}
    result |= {"one batch": embedder.images(rows.select(range(3)))}
    try:
        embedder.images(broken)
    except ValueError as error:
        result["error"] = str(error)
    return result
