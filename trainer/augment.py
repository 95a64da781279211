"""Augmentation on whole batches, on the device that they live on."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_and_flip(images: Tensor, *, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Move each image by up to `shift` pixels each way, black coming in at the edges, and mirror half of them if asked.

    Args:
        images: uint8, (N, H, W, C).
        shift: The most pixels; 0 leaves the images in place.
        flip: Mirror left to right with probability one half.
        generator: Source of randomness, on the CPU.
    """
    n, height, width, _ = images.shape
    device = images.device
    if flip:
        mirrored = (torch.rand(n, generator=generator) < 0.5).to(device)
        images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
    if shift:
        padded = torch.nn.functional.pad(images, (0, 0, shift, shift, shift, shift))
        top, left = torch.randint(0, 2 * shift + 1, (2, n), generator=generator).to(device)
        rows = top[:, None] + torch.arange(height, device=device)
        columns = left[:, None] + torch.arange(width, device=device)
        images = padded[torch.arange(n, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return images
