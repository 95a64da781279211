"""Batch statistics of a US-Net, gathered after training a width at a time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch

from trainer.data import Images
from trainer.layers import set_width
from trainer.networks import AnyWidthNetwork
from trainer.norms import WidthBatchNorm


@torch.no_grad()
def gather_statistics(
    network: AnyWidthNetwork,
    images: Images,
    widths: Sequence[Fraction] | None = None,
    *,
    batch: int = 500,
    batches: int = 20,
) -> None:
    """Give each batch norm of a US-Net its statistics at some widths: means over batches of training images (paper, section 5.1).

    Does nothing to a network whose statistics are tracked while it trains.

    Args:
        network: The network; left at full width and in the mode in which it came.
        images: Training images on the network's device; they are taken as they are, without augmentation.
        widths: The widths, the last of them 1; those that the network has already if not given.
        batch: Images a batch.
        batches: How many batches at most, drawn with a seed of their own.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, WidthBatchNorm) and layer.shared]
    if not norms:
        return
    for norm in norms:
        norm.set_statistics(widths if widths is not None else norm.widths)
    size = min(batch, len(images))
    training = network.training
    network.eval()
    for width in norms[0].widths:
        set_width(network, width)
        generator = torch.Generator().manual_seed(0)
        for count, (x, _) in enumerate(images.batches(size, generator=generator), start=1):
            if count > batches:
                break
            for norm in norms:
                norm.gathered = count
            network(x)
    for norm in norms:
        norm.gathered = None
    set_width(network, Fraction(1))
    network.train(training)
