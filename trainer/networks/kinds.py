"""The kinds of multi-width network, as the layers that a network is built out of."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from torch import nn

from engines.errors import TrainingError
from engines.widths import WidthRule, parse_grid, parse_width
from trainer.layers import SlicedConv2d, TriangularConv2d
from trainer.norms import ActiveBatchNorm, WidthBatchNorm

Kind = Literal["awn", "plain-bn", "s-net", "us-net"]


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one kind of network.

    ========  ============  =========================================================================================
    kind      convolution   batch norm
    ========  ============  =========================================================================================
    awn       triangular    one for all widths (the paper's)
    plain-bn  ordinary      one for all widths, which do not agree on its statistics (paper, section 3.2)
    s-net     ordinary      one a trained width (Slimmable Networks: switchable batch norm)
    us-net    ordinary      one scale and shift, statistics a width gathered after training (Universally Slimmable Networks)
    ========  ============  =========================================================================================

    Attributes:
        kind: Which.
        rule: The width rule of the network.
        statistics: Widths with batch statistics of their own, for s-net and us-net.
    """

    kind: Kind
    rule: WidthRule
    statistics: tuple[Fraction, ...]

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        image: bool = False,
    ) -> SlicedConv2d:
        """A convolution; `image` for one that reads the image."""
        make = TriangularConv2d if self.kind == "awn" else SlicedConv2d
        return make(inputs, outputs, kernel, rule=self.rule, stride=stride, padding=padding, image=image)

    def norm(self, channels: int) -> nn.Module:
        """A batch norm."""
        if self.kind in ("awn", "plain-bn"):
            return ActiveBatchNorm(channels)
        return WidthBatchNorm(channels, self.statistics, shared=self.kind == "us-net")

    def channels(self, base: float, widen: float | None) -> int:
        """A channel count near `base` that the divisor divides; an awn is widened by sqrt 2 if nothing else is asked for.

        The mask takes about half of the weights away; the factor makes up for it (paper, section 5.1).
        """
        factor = widen if widen is not None else 2**0.5 if self.kind == "awn" else 1.0
        return self.rule.divisor * max(1, round(base * factor / self.rule.divisor))


def layers(kind: str, *, a_min: str | Fraction, divisor: int, statistics: str | int) -> Layers:
    """The layers of a kind.

    Args:
        kind: awn, plain-bn, s-net or us-net.
        a_min: The narrowest width.
        divisor: Channels are activated in units of this many.
        statistics: Widths with batch statistics of their own: a grid text, or how many evenly spaced ones in [a_min, 1].

    Raises:
        TrainingError: the kind is unknown, or the statistics are not up to width 1.
    """
    if kind not in get_args(Kind):
        raise TrainingError(f"no kind of network is named {kind!r}; there are: {', '.join(get_args(Kind))}")
    rule = WidthRule(parse_width(a_min), divisor)
    widths = evenly_spaced(rule.a_min, statistics) if isinstance(statistics, int) else parse_grid(statistics)
    for width in widths:
        rule.check(width)
    if widths[-1] != 1:
        raise TrainingError(f"the widths with statistics must end with 1, got {statistics!r}: wider ones would have none")
    return Layers(kind, rule, widths)  # type: ignore[arg-type]


def evenly_spaced(a_min: Fraction, count: int) -> tuple[Fraction, ...]:
    """So many widths evenly spaced in [a_min, 1], both ends included (paper, section 5.1); 1 alone if one.

    Raises:
        TrainingError: the count is below 1.
    """
    if count < 1:
        raise TrainingError(f"at least one width is needed, got {count}")
    if count == 1:
        return (Fraction(1),)
    return tuple(a_min + (1 - a_min) * Fraction(i, count - 1) for i in range(count))
