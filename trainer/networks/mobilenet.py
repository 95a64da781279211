"""MobileNetV2 (Sandler et al., 2018), in the form for small images and in the standard one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor, nn

from trainer.layers import Classifier, DepthwiseConv2d
from trainer.networks.anywidth import AnyWidthNetwork
from trainer.networks.kinds import Layers, layers

SMALL = 64  # images up to this many pixels a side take the form with fewer strides
STEM, LAST = 32, 1280
# Expansion, channels, blocks, stride of the first block for 224x224, and for 32x32.
STAGES = (
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 2),
    (6, 64, 4, 2, 2),
    (6, 96, 3, 1, 1),
    (6, 160, 3, 2, 2),
    (6, 320, 1, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow; plus the input where the shape stays. Both sums and depthwise layers keep the prefix property.

    Args:
        make: The layers.
        inputs: Input channels at full width.
        outputs: Output channels at full width.
        stride: Stride of the depthwise convolution.
        expansion: Hidden channels for each input channel.
    """

    def __init__(self, make: Layers, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [make.conv(inputs, hidden, 1), make.norm(hidden), nn.ReLU6()] if expansion != 1 else []
        self.body = nn.Sequential(
            *widen,
            DepthwiseConv2d(hidden, 3, stride=stride, padding=1),
            make.norm(hidden),
            nn.ReLU6(),
            make.conv(hidden, outputs, 1),
            make.norm(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, active(inputs), H, W) to (N, active(outputs), H', W')."""
        return x + self.body(x) if self.residual else self.body(x)


def mobilenetv2(
    *,
    classes: int,
    image: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    kind: str = "awn",
    width: float = 1.0,
    widen: float | None = None,
    a_min: str | Fraction = "0.35",
    divisor: int = 1,
    statistics: str | int = "0.35,0.5,0.75,1.0",
) -> AnyWidthNetwork:
    """MobileNetV2. Images up to 64x64 take the CIFAR form, whose stem and second stage have stride 1.

    Args:
        classes: Number of classes.
        image: Height, width and channels of the input.
        mean: Mean of each image channel, for pixels in 0 to 1.
        std: Standard deviation of each image channel.
        kind: awn, plain-bn, s-net or us-net; see `trainer.networks.kinds`.
        width: Factor on all channels, to make a smaller network of it.
        widen: Factor on the channels that makes up for the weights that the mask removes; sqrt(2) for an awn (paper, section 5.1),
            else 1, if not given.
        a_min: The narrowest width; 0.35 in the paper.
        divisor: Channels are activated in units of this many; 8 or 16 make blocks that hardware likes.
        statistics: Widths of an s-net or us-net with batch statistics of their own: a grid text, or how many evenly spaced ones.
    """
    make = layers(kind, a_min=a_min, divisor=divisor, statistics=statistics)
    small = max(image[:2]) <= SMALL

    def channels(base: int) -> int:
        return make.channels(base * width, widen)

    m = channels(STEM)
    parts: list[nn.Module] = [make.conv(image[2], m, 3, stride=1 if small else 2, padding=1, image=True), make.norm(m), nn.ReLU6()]
    for expansion, base, blocks, stride, small_stride in STAGES:
        outputs = channels(base)
        for block in range(blocks):
            first = small_stride if small else stride
            parts.append(InvertedResidual(make, m, outputs, stride=first if block == 0 else 1, expansion=expansion))
            m = outputs
    last = channels(LAST)
    parts += [make.conv(m, last, 1), make.norm(last), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return AnyWidthNetwork(nn.Sequential(*parts), Classifier(last, classes), rule=make.rule, image=image, mean=mean, std=std)
