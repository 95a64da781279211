"""LeNet-3C1L: three convolutions and one linear layer (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from torch import nn

from engines.errors import TrainingError
from trainer.layers import Classifier
from trainer.networks.anywidth import AnyWidthNetwork
from trainer.networks.kinds import layers


def lenet3c1l(
    *,
    classes: int,
    image: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    channels: int = 32,
    kind: str = "awn",
    widen: float | None = None,
    a_min: str | Fraction = "0.25",
    divisor: int = 1,
    statistics: str | int = 4,
) -> AnyWidthNetwork:
    """LeNet-3C1L: conv 3x3, conv 3x3, pool, conv 5x5, pool, linear; batch norm and ReLU after each convolution.

    Args:
        classes: Number of classes.
        image: Height, width and channels of the input; 28x28 or 32x32.
        mean: Mean of each image channel, for pixels in 0 to 1.
        std: Standard deviation of each image channel.
        channels: Channels of each convolution before widening; 32 in the paper.
        kind: awn, plain-bn, s-net or us-net; see `trainer.networks.kinds`.
        widen: Factor on the channels that makes up for the weights that the mask removes; sqrt(2) for an awn (paper, section 5.1),
            else 1, if not given.
        a_min: The narrowest width.
        divisor: Channels are activated in units of this many.
        statistics: Widths of an s-net or us-net with batch statistics of their own: a grid text, or how many evenly spaced ones.

    Raises:
        TrainingError: the images are too small, or the kind is unknown.
    """
    if min(image[:2]) < 14:
        raise TrainingError(f"lenet3c1l needs images of at least 14x14, got {image[0]}x{image[1]}; set size in the recipe")
    make = layers(kind, a_min=a_min, divisor=divisor, statistics=statistics)
    m = make.channels(channels, widen)
    height, breadth = ((side - 4) // 2 - 4 for side in image[:2])
    features = nn.Sequential(
        make.conv(image[2], m, 3, image=True),
        make.norm(m),
        nn.ReLU(),
        make.conv(m, m, 3),
        make.norm(m),
        nn.ReLU(),
        nn.MaxPool2d(2),
        make.conv(m, m, 5),
        make.norm(m),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    classifier = Classifier(m, classes, repeat=(height // 2) * (breadth // 2))
    return AnyWidthNetwork(features, classifier, rule=make.rule, image=image, mean=mean, std=std)
