"""Small networks, images and recipes that train in a blink."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from engines.widths import WidthRule
from trainer.data import DataInfo, Images
from trainer.layers import Classifier, DepthwiseConv2d, TriangularConv2d, TriangularLinear
from trainer.networks import AnyWidthNetwork, build_network
from trainer.norms import ActiveBatchNorm
from trainer.recipe import Recipe, Widths

INFO = DataInfo("", "", tuple("abcd"), (0.5,), (0.3,))
SIDE = 16


class Residual(nn.Module):
    """Depthwise and pointwise convolution plus the input."""

    def __init__(self, m: int, rule: WidthRule) -> None:
        super().__init__()
        self.body = nn.Sequential(
            DepthwiseConv2d(m, 3, padding=1),
            ActiveBatchNorm(m),
            nn.ReLU6(),
            TriangularConv2d(m, m, 1, rule=rule),
            ActiveBatchNorm(m),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def mixed(divisor: int = 1, *, m: int = 16, hidden: int = 24) -> AnyWidthNetwork:
    """A network with every layer that LeNet lacks: depthwise, residual sum, global pooling, a hidden linear layer."""
    rule = WidthRule(Fraction(1, 4), divisor)
    features = nn.Sequential(
        TriangularConv2d(1, m, 3, rule=rule, stride=2, image=True),
        ActiveBatchNorm(m),
        nn.ReLU(),
        Residual(m, rule),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        TriangularLinear(m, hidden, rule=rule),
        ActiveBatchNorm(hidden),
        nn.ReLU(),
    )
    return AnyWidthNetwork(features, Classifier(hidden, 4), rule=rule, image=(SIDE, SIDE, 1), mean=(0.5,), std=(0.3,))


def network(name: str, divisor: int = 1, *, kind: str = "awn", seed: int = 0) -> AnyWidthNetwork:
    """A small network by name, in training mode."""
    torch.manual_seed(seed)
    if name == "mixed":
        return mixed(divisor).train()
    size: dict[str, object] = {"channels": 24} if name == "lenet3c1l" else {"width": 0.1}
    data: dict[str, object] = {"classes": 4, "image": (SIDE, SIDE, 1), "mean": (0.5,), "std": (0.3,)}
    return build_network(name, kind=kind, divisor=divisor, a_min="0.25", statistics=4, **size, **data).train()


def images(count: int = 12, *, seed: int = 0) -> Images:
    """Random images, each brighter on the side that its label names, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    pixels = torch.randint(0, 128, (count, SIDE, SIDE, 1), dtype=torch.uint8, generator=generator)
    half = SIDE // 2
    for i, label in enumerate(labels.tolist()):
        pixels[i, half * (label // 2) : half * (label // 2 + 1), half * (label % 2) : half * (label % 2 + 1)] += 127
    return Images(pixels, labels, INFO, "made-up squares")


def recipe(**fields: object) -> Recipe:
    """A recipe for two epochs on a few images."""
    widths = fields.pop("widths", Widths())
    kind = fields.pop("kind", "awn")
    whole: dict[str, object] = {
        "name": "tiny",
        "data": "squares",
        "network": "lenet3c1l",
        "arguments": {"channels": 8, "kind": kind},
        "widths": widths,
        "epochs": 2,
        "batch": 16,
        "lr": 0.05,
        "shift": 1,
        "flip": True,
        "seed": 3,
    }
    return Recipe(**(whole | fields))  # type: ignore[arg-type]


def with_statistics(net: AnyWidthNetwork, *, batches: int = 3) -> AnyWidthNetwork:
    """The network after a few training passes at full width, so that its running statistics and scales are nobody's defaults."""
    with torch.no_grad():
        for i in range(batches):
            net(images(8, seed=10 + i).images)
        for layer in net.modules():
            if isinstance(layer, ActiveBatchNorm):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
    return net
