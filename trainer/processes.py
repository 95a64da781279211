"""Several processes that train one network together, as torchrun starts them.

Each takes its share of every batch. Batch statistics and gradients are those of the whole batch, so that the number of processes changes
the speed and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

from engines.errors import TrainingError
from trainer.device import choose_device


def start(device: str) -> str:
    """Join the other processes, if torchrun started this one; once in a process.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1".

    Returns:
        The device of this process: its own GPU where there are several.

    Raises:
        TrainingError: this machine has no such device, or fewer GPUs than processes.
    """
    device = choose_device(device)
    if "WORLD_SIZE" not in os.environ or not distributed.is_available():
        return device
    if device == "cuda":
        device = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def stop() -> None:
    """Leave the other processes."""
    if count() > 1:
        distributed.destroy_process_group()


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is; the first, 0, writes files and talks."""
    return distributed.get_rank() if count() > 1 else 0


def share(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """This process's part of a batch.

    Raises:
        TrainingError: the batch cannot be divided evenly.
    """
    parts = count()
    if len(labels) % parts:
        raise TrainingError(f"a batch of {len(labels)} images cannot be divided among {parts} processes: choose a multiple of {parts}")
    size = len(labels) // parts
    here = slice(rank() * size, (rank() + 1) * size)
    return images[here], labels[here]


def total(values: Tensor) -> Tensor:
    """The sum over processes, which passes gradients back to each."""
    if count() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(values)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # One message for all: the networks are small, and so is what overlapping would save.
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= count()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
