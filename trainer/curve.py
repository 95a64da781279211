"""The width-accuracy curve of a network: all widths from one pass over the images, or a pass a width."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from fractions import Fraction
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor

from engines.errors import TrainingError
from engines.files import write_atomically
from engines.metadata import Curve
from engines.widths import format_width
from trainer.data import Images
from trainer.layers import set_width
from trainer.networks import AnyWidthNetwork


@torch.inference_mode()
def measure_curve(network: AnyWidthNetwork, images: Images, widths: Sequence[Fraction], *, data: str, batch: int = 500) -> Curve:
    """Count the right answers of every width, in evaluation mode.

    A network with the prefix property takes one pass at full width over the images; another takes a pass for each of its different
    sub-networks.

    Args:
        network: The network; left at full width and in the mode in which it came.
        images: Labelled images on the network's device.
        widths: The widths; those with the same sub-network cost nothing extra.
        data: What the images are, for the record.
        batch: Images a pass.
    """
    training = network.training
    network.eval()
    count = _count_in_one_pass if network.prefix else _count_width_by_width
    correct = count(network, images, widths, batch)
    set_width(network, Fraction(1))
    network.train(training)
    return Curve(
        data=data,
        images=len(images),
        correct={format_width(width): int(right) for width, right in zip(widths, correct, strict=True)},
    )


def write_curve(path: Path, curve: Curve) -> None:
    """Write a curve as CSV: width, right answers, images, and which images."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["width", "correct", "images", "data"])
    rows.writerows([width, count, curve.images, curve.data] for width, count in curve.correct.items())
    write_atomically(path, text.getvalue().encode())


def read_curve(path: Path) -> Curve:
    """Read what `write_curve` wrote.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    try:
        rows = list(csv.DictReader(StringIO(path.read_text())))
        return Curve(rows[0]["data"], int(rows[0]["images"]), {row["width"]: int(row["correct"]) for row in rows})
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TrainingError(f"cannot read the curve {path}: {error}") from None


def _count_in_one_pass(network: AnyWidthNetwork, images: Images, widths: Sequence[Fraction], batch: int) -> Tensor:
    correct = torch.zeros(len(widths), dtype=torch.int64)
    for x, y in images.batches(batch):
        correct += (network.exits(x, widths).argmax(2) == y).sum(1).cpu()
    return correct


def _count_width_by_width(network: AnyWidthNetwork, images: Images, widths: Sequence[Fraction], batch: int) -> Tensor:
    different = {network.variant(width): width for width in widths}
    correct = dict.fromkeys(different, 0)
    for x, y in images.batches(batch):
        for variant, width in different.items():
            correct[variant] += int((network.logits_at(x, width).argmax(1) == y).sum())
    return torch.tensor([correct[network.variant(width)] for width in widths])
