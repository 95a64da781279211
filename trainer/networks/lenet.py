"""LeNet-3C1L: three convolutions and one linear layer (paper, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import nn

from engines.widths import WidthRule, parse_width
from trainer.layers import ActiveBatchNorm, Classifier, TriangularConv2d
from trainer.networks.anywidth import AnyWidthNetwork


def lenet3c1l(
    *,
    classes: int,
    image: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    channels: int = 32,
    widen: float = math.sqrt(2),
    a_min: str | Fraction = "0.25",
    divisor: int = 1,
) -> AnyWidthNetwork:
    """LeNet-3C1L as an any-width network: conv 3x3, conv 3x3, pool, conv 5x5, pool, linear; batch norm and ReLU after each convolution.

    Args:
        classes: Number of classes.
        image: Height, width and channels of the input; 28x28 or 32x32.
        mean: Mean of each image channel, for pixels in 0 to 1.
        std: Standard deviation of each image channel.
        channels: Channels of each convolution before widening; 32 in the paper.
        widen: Factor on the channels that makes up for the weights that the mask removes; sqrt(2) in the paper (section 5.1).
        a_min: The narrowest width.
        divisor: Channels are activated in units of this many.
    """
    rule = WidthRule(parse_width(a_min), divisor)
    m = divisor * max(1, round(channels * widen / divisor))
    height, breadth = ((side - 4) // 2 - 4 for side in image[:2])
    features = nn.Sequential(
        TriangularConv2d(image[2], m, 3, rule=rule, image=True),
        ActiveBatchNorm(m),
        nn.ReLU(),
        TriangularConv2d(m, m, 3, rule=rule),
        ActiveBatchNorm(m),
        nn.ReLU(),
        nn.MaxPool2d(2),
        TriangularConv2d(m, m, 5, rule=rule),
        ActiveBatchNorm(m),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    classifier = Classifier(m, classes, repeat=(height // 2) * (breadth // 2))
    return AnyWidthNetwork(features, classifier, rule=rule, image=image, mean=mean, std=std)
