"""The layers of multi-width networks: sliced and triangular convolution and linear, depthwise convolution, the classifier.

A layer runs at the width that `set_width` gave it last; a new layer runs at full width. Every layer works on the leading channels
of its tensors. In a network of triangular layers and plain batch norm, the features at a width are the leading channels of the
features at every larger width: the prefix property. The sliced layers are for the baselines, which lack it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own habit)

from engines.widths import WidthRule


class WidthLayer(nn.Module):
    """What `set_width` reaches.

    Attributes:
        no_prefix: Why a network with this layer lacks the prefix property; empty if the layer keeps it.
    """

    no_prefix: str = ""

    def at(self, width: Fraction) -> None:
        """Run at a width from now on."""
        raise NotImplementedError


class SlicedConv2d(nn.Conv2d, WidthLayer):
    """An ordinary convolution of which the leading channels are used (paper, equations 1 and 2): it reads all that is active.

    Args:
        inputs: Input channels m_in at full width.
        outputs: Output channels m_out at full width.
        kernel: Kernel size.
        rule: The network's width rule.
        stride: Stride.
        padding: Zero padding.
        image: The layer reads the image, whose channels are there at every width.

    Shape:
        (N, active(m_in), H, W) to (N, active(m_out), H', W').
    """

    no_prefix = "an ordinary convolution, whose outputs change when a width adds input channels"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        rule: WidthRule,
        stride: int = 1,
        padding: int = 0,
        image: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding, bias=False)
        self.rule, self.image = rule, image
        self.active = outputs
        if image:
            self.no_prefix = ""
        _initialise(self.weight, self._mask())

    def _mask(self) -> Tensor:
        """Which weights may be other than zero, (m_out, m_in)."""
        return torch.ones(self.out_channels, self.in_channels)

    def at(self, width: Fraction) -> None:
        """Use the channels of a width from now on.

        Raises:
            WidthError: the rule does not allow the width.
        """
        self.rule.check(width)
        self.active = self.rule.active(self.out_channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the active channels."""
        return F.conv2d(x, self.weight[: self.active, : x.shape[1]], None, self.stride, self.padding)


class TriangularConv2d(SlicedConv2d):
    """A convolution whose output channel s reads only input channels that are active at every width at which s is (paper, section 4.1).

    Arguments and shapes are those of `SlicedConv2d`. A layer that reads the image is not masked.
    """

    no_prefix = ""
    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        rule: WidthRule,
        stride: int = 1,
        padding: int = 0,
        image: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, rule=rule, stride=stride, padding=padding, image=image)
        self.register_buffer("mask", self._mask()[:, :, None, None], persistent=False)

    def _mask(self) -> Tensor:
        if self.image:
            return super()._mask()
        return torch.from_numpy(self.rule.mask(self.in_channels, self.out_channels)).float()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the active channels."""
        k_in, k_out = x.shape[1], self.active
        # The product keeps the gradient of masked weights zero, so that they stay zero under momentum and weight decay.
        weight = self.weight[:k_out, :k_in] * self.mask[:k_out, :k_in]
        return F.conv2d(x, weight, None, self.stride, self.padding)


class TriangularLinear(nn.Linear, WidthLayer):
    """A hidden linear layer with the mask of `TriangularConv2d`: (N, active(m_in)) to (N, active(m_out)). No bias: batch norm follows."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, *, rule: WidthRule) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.rule = rule
        self.active = outputs
        mask = torch.from_numpy(rule.mask(inputs, outputs)).float()
        self.register_buffer("mask", mask, persistent=False)
        _initialise(self.weight, mask)

    def at(self, width: Fraction) -> None:
        """Use the channels of a width from now on.

        Raises:
            WidthError: the rule does not allow the width.
        """
        self.rule.check(width)
        self.active = self.rule.active(self.out_features, width)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the active channels."""
        k_in, k_out = x.shape[1], self.active
        return F.linear(x, self.weight[:k_out, :k_in] * self.mask[:k_out, :k_in])


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself; it runs on as many channels as it is given: (N, k, H, W) to (N, k, H', W')."""

    def __init__(self, channels: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the channels that are there."""
        k = x.shape[1]
        return F.conv2d(x, self.weight[:k], None, self.stride, self.padding, groups=k)


class Classifier(nn.Linear):
    """The last layer: reads every active feature, gives all classes.

    Args:
        channels: Channels m of the features at full width.
        classes: Number of classes.
        repeat: Features a channel (16 for a flattened 4x4 map; channel-major order).
    """

    def __init__(self, channels: int, classes: int, *, repeat: int = 1) -> None:
        super().__init__(channels * repeat, classes)
        self.channels, self.repeat = channels, repeat

    def forward(self, x: Tensor) -> Tensor:
        """Logits from the leading features: (N, k * repeat) to (N, classes)."""
        return F.linear(x, self.weight[:, : x.shape[1]], self.bias)

    def exits(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """The logits of several widths from the features of the widest: ``W[:, :k] f[:k] + b`` for each channel count k.

        Args:
            x: Features at full width, (N, channels * repeat).
            counts: Channel counts, ascending, each once.

        Returns:
            Logits, (len(counts), N, classes). One matrix product in all: each step adds what the new channels contribute.
        """
        bounds = [0, *(count * self.repeat for count in counts)]
        steps = [F.linear(x[:, a:b], self.weight[:, a:b]) for a, b in pairwise(bounds)]
        return torch.stack(steps).cumsum(0) + self.bias


def set_width(network: nn.Module, width: Fraction) -> None:
    """Make every layer run at a width until the next call (paper, Algorithm 1, line 12).

    Raises:
        WidthError: the network's width rule does not allow the width.
    """
    for layer in network.modules():
        if isinstance(layer, WidthLayer):
            layer.at(width)


def _initialise(weight: Tensor, mask: Tensor) -> None:
    """He's normal initialisation with each row's own fan-in, which the mask makes different; masked weights are exactly zero.

    Args:
        weight: (outputs, inputs, ...).
        mask: (outputs, inputs).
    """
    beyond = [1] * (weight.ndim - 2)
    with torch.no_grad():
        weight.normal_()
        fan_in = mask.sum(1) * weight[0, 0].numel()
        scale = torch.sqrt(2.0 / fan_in).view(-1, 1, *beyond)
        weight.mul_(mask.view(*mask.shape, *beyond) * scale)
