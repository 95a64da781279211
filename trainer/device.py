"""The device to train on."""

from __future__ import annotations

import torch

from engines.errors import TrainingError


def choose_device(name: str) -> str:
    """Check a device by its name before anything is put there.

    Args:
        name: "cpu", "cuda", "cuda:1" and so on; "auto" is a GPU if there is one.

    Raises:
        TrainingError: this machine has no such device.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    known = ["cpu", *(["cuda", *gpus] if gpus else [])]
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name not in known:
        raise TrainingError(f"no device is named {name!r} here; there are: auto, {', '.join(known)}")
    return name
