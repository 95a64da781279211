"""The width-accuracy curve of a network, all widths from one pass over the images."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch

from engines.model import Curve
from engines.widths import format_width
from trainer.data import Images
from trainer.networks import AnyWidthNetwork


@torch.inference_mode()
def measure_curve(network: AnyWidthNetwork, images: Images, widths: Sequence[Fraction], *, data: str, batch: int = 500) -> Curve:
    """Count the right answers of every width, in evaluation mode, with one pass at full width.

    Args:
        network: The network; left in the mode in which it came.
        images: Labelled images on the network's device.
        widths: The widths; those with the same channels cost nothing extra.
        data: What the images are, for the record.
        batch: Images a pass.
    """
    training = network.training
    network.eval()
    correct = torch.zeros(len(widths), dtype=torch.int64)
    for x, y in images.batches(batch):
        correct += (network.exits(x, widths).argmax(2) == y).sum(1).cpu()
    network.train(training)
    return Curve(
        data=data,
        images=len(images),
        correct={format_width(width): int(count) for width, count in zip(widths, correct, strict=True)},
    )
