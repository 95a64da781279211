"""ResNet-18 and ResNet-50 (He et al., 2016), in the form for small images and in the standard one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from torch import Tensor, nn

from trainer.layers import Classifier
from trainer.networks.anywidth import AnyWidthNetwork
from trainer.networks.kinds import Layers, layers

SMALL = 64  # images up to this many pixels a side take the form with a 3x3 stem and no pooling after it
BASES = (64, 128, 256, 512)


class Residual(nn.Module):
    """A body plus a shortcut, then ReLU: sums act channel by channel, so a block keeps the prefix property.

    Args:
        body: Convolutions; the last layer is a batch norm.
        shortcut: What brings the input to the shape of the body's result; nothing, or a convolution and a batch norm.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, active(inputs), H, W) to (N, active(outputs), H', W')."""
        return self.relu(self.body(x) + self.shortcut(x))


def _shortcut(make: Layers, inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(make.conv(inputs, outputs, 1, stride=stride), make.norm(outputs))


def _basic(make: Layers, inputs: int, middle: int, outputs: int, stride: int) -> Residual:
    body = nn.Sequential(
        make.conv(inputs, middle, 3, stride=stride, padding=1),
        make.norm(middle),
        nn.ReLU(),
        make.conv(middle, outputs, 3, padding=1),
        make.norm(outputs),
    )
    return Residual(body, _shortcut(make, inputs, outputs, stride))


def _bottleneck(make: Layers, inputs: int, middle: int, outputs: int, stride: int) -> Residual:
    body = nn.Sequential(
        make.conv(inputs, middle, 1),
        make.norm(middle),
        nn.ReLU(),
        make.conv(middle, middle, 3, stride=stride, padding=1),
        make.norm(middle),
        nn.ReLU(),
        make.conv(middle, outputs, 1),
        make.norm(outputs),
    )
    return Residual(body, _shortcut(make, inputs, outputs, stride))


Block = Callable[[Layers, int, int, int, int], Residual]
FORMS: dict[int, tuple[Block, int, tuple[int, ...]]] = {18: (_basic, 1, (2, 2, 2, 2)), 50: (_bottleneck, 4, (3, 4, 6, 3))}


def _resnet(
    depth: int,
    *,
    classes: int,
    image: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    kind: str = "awn",
    width: float = 1.0,
    widen: float | None = None,
    a_min: str | Fraction = "0.25",
    divisor: int = 1,
    statistics: str | int = 4,
) -> AnyWidthNetwork:
    block, factor, blocks = FORMS[depth]
    make = layers(kind, a_min=a_min, divisor=divisor, statistics=statistics)
    m = make.channels(BASES[0] * width, widen)
    parts: list[nn.Module]
    if max(image[:2]) <= SMALL:
        parts = [make.conv(image[2], m, 3, padding=1, image=True), make.norm(m), nn.ReLU()]
    else:
        parts = [make.conv(image[2], m, 7, stride=2, padding=3, image=True), make.norm(m), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage, base in enumerate(BASES):
        middle = make.channels(base * width, widen)
        for index in range(blocks[stage]):
            stride = 2 if stage and index == 0 else 1
            parts.append(block(make, m, middle, middle * factor, stride))
            m = middle * factor
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return AnyWidthNetwork(nn.Sequential(*parts), Classifier(m, classes), rule=make.rule, image=image, mean=mean, std=std)


def resnet18(**arguments: object) -> AnyWidthNetwork:
    """ResNet-18, with triangular projection shortcuts as an awn.

    Args:
        **arguments: classes, image, mean and std of the data; kind ("awn"), width (1.0, a factor on all channels), widen (sqrt 2 for an
            awn), a_min ("0.25"), divisor (1) and statistics (4), as for `trainer.networks.mobilenet.mobilenetv2`.
    """
    return _resnet(18, **arguments)  # type: ignore[arg-type]


def resnet50(**arguments: object) -> AnyWidthNetwork:
    """ResNet-50, with the arguments of `resnet18`."""
    return _resnet(50, **arguments)  # type: ignore[arg-type]
