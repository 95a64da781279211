"""Widths, grids, and which channels a width activates: the one home of the width rule.

A width is an exact fraction in (0, 1]. Floats are read by their shortest decimal text, so ``0.35`` is 35/100 and not its binary
neighbour: at a half-way point the two would round to different channel counts, and the prefix property would break between layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from engines.errors import WidthError

MAX_GRID = 10_000  # a longer grid is a typing error, not a wish


def parse_width(value: str | float | Fraction) -> Fraction:
    """Read a width: "0.35", "1/3", 0.35, 1 or a Fraction.

    Returns:
        The width as an exact fraction in (0, 1].

    Raises:
        WidthError: it is not a number, or not in (0, 1].
    """
    width = _number(value, "a width")
    if not 0 < width <= 1:
        raise WidthError(f"a width must be in (0, 1], got {value}")
    return width


def format_width(width: Fraction) -> str:
    """Write a width so that `parse_width` reads back the same fraction: "0.35" where a decimal is exact, else "1/3"."""
    rest = width.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return str(width)
    digits = 0
    while (width * 10**digits).denominator != 1:
        digits += 1
    scaled = int(width * 10**digits)
    return f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}d}" if digits else f"{scaled}.0"


def parse_grid(text: str) -> tuple[Fraction, ...]:
    """Read a grid: "0.25:1.0:0.01" (start, stop, step; both ends included) or a list "0.25,0.5,1".

    Returns:
        The widths, ascending, each once. "0.25:1.0:0.01" gives 76.

    Raises:
        WidthError: the text is neither form, a width is not in (0, 1], the step is not positive, the ends are the wrong way round,
            or the grid has more than `MAX_GRID` widths.
    """
    parts = text.split(":")
    if len(parts) == 1:
        return tuple(sorted({parse_width(part.strip()) for part in text.split(",")}))
    if len(parts) != 3:
        raise WidthError(f"a grid is written start:stop:step, like 0.25:1.0:0.01, or as a list, got {text!r}")
    start, stop = parse_width(parts[0]), parse_width(parts[1])
    step = _number(parts[2], "the step of a grid")
    if step <= 0:
        raise WidthError(f"the step of a grid must be positive, got {parts[2]} in {text!r}")
    if start > stop:
        raise WidthError(f"a grid goes from the narrower to the wider end, got {text!r}")
    steps = (stop - start) // step
    if steps >= MAX_GRID:
        raise WidthError(f"the grid {text!r} has {steps + 1} widths; the most is {MAX_GRID}")
    # Both ends are included even where the step does not land on the stop.
    return tuple(sorted({start + i * step for i in range(steps + 1)} | {stop}))


def _number(value: str | float | Fraction, what: str) -> Fraction:
    """An exact fraction, floats by their shortest decimal text."""
    if isinstance(value, Fraction):
        return value
    text = str(value).strip()
    # Fraction("1e-999999999") would take all memory: no number here needs an exponent or many digits.
    if len(text) > 40 or "e" in text.lower():
        raise WidthError(f"{what} must be a number like 0.25 or 1/4, got {text[:40]!r}")
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise WidthError(f"{what} must be a number like 0.25 or 1/4, got {text!r}") from None


@dataclass(frozen=True)
class WidthRule:
    """How a network's widths map to channels.

    Attributes:
        a_min: The narrowest width that is ever run.
        divisor: Channels are activated in units of this many.
    """

    a_min: Fraction
    divisor: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.a_min <= 1:
            raise WidthError(f"the narrowest width must be in (0, 1], got {self.a_min}")
        if self.divisor < 1:
            raise WidthError(f"the divisor must be at least 1, got {self.divisor}")

    def units(self, channels: int) -> int:
        """How many units a dimension of so many channels has.

        Raises:
            WidthError: the divisor does not divide the channels.
        """
        if channels < 1 or channels % self.divisor:
            raise WidthError(f"{channels} channels are not a positive multiple of the divisor {self.divisor}")
        return channels // self.divisor

    def check(self, width: Fraction) -> None:
        """Refuse a width that this network cannot run.

        Raises:
            WidthError: the width is below `a_min` or above 1.
        """
        if not self.a_min <= width <= 1:
            raise WidthError(
                f"width {format_width(width)} is outside [{format_width(self.a_min)}, 1.0], the widths this network was made for"
            )

    def active(self, channels: int, width: Fraction) -> int:
        """How many leading channels of a dimension of `channels` are active at a width (paper, equation 2, rounded half up)."""
        units = self.units(channels)
        return self.divisor * min(units, max(1, math.floor(width * units + Fraction(1, 2))))

    def reads(self, inputs: int, outputs: int) -> NDArray[np.int64]:
        """How many leading input channels each output channel of a triangular layer may read.

        An output unit s is first active at ``max(a_min, (2s + 1) / 2u)`` and reads what is active there, so what it computes is the
        same at every width at which it exists (paper, section 4.1, equation 7). Units active at `a_min` form a dense leading block; the
        first unit, which no width is too narrow for, is always one of them.

        Returns:
            Shape (outputs,), not decreasing.
        """
        units = self.units(outputs)
        first = [self.a_min, *(max(self.a_min, Fraction(2 * unit + 1, 2 * units)) for unit in range(1, units))]
        return np.repeat([self.active(inputs, width) for width in first], self.divisor)

    def mask(self, inputs: int, outputs: int) -> NDArray[np.bool_]:
        """Which weights of a triangular layer may be non-zero: shape (outputs, inputs)."""
        mask: NDArray[np.bool_] = np.arange(inputs)[None, :] < self.reads(inputs, outputs)[:, None]
        return mask

    def distinct(self, channels: Iterable[int]) -> tuple[Fraction, ...]:
        """The narrowest width of each different network between `a_min` and 1, for dimensions of so many channels, ascending."""
        bounds = {self.a_min}
        for dimension in set(channels):
            units = self.units(dimension)
            bounds |= {Fraction(2 * unit + 1, 2 * units) for unit in range(1, units)}
        return tuple(sorted(width for width in bounds if self.a_min <= width <= 1))
