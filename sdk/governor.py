"""Choosing the operating point: (frontier, budget, reading, past) to a point and a reason."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple, Protocol

from sdk.budget import Budget
from sdk.frontier import Frontier
from sdk.telemetry import Reading


class Reason(str, Enum):
    """Why a width was chosen."""

    NO_LIMIT = "no limit: the most accurate"
    FITS = "the most accurate that fits the budget"
    NOTHING_FITS = "nothing fits the budget: the fastest"
    PINNED = "pinned"

    def __str__(self) -> str:
        return self.value


class Decision(NamedTuple):
    """A governor's answer.

    Attributes:
        point: Index into `Frontier.points`.
        reason: Why.
    """

    point: int
    reason: Reason


class Past:
    """What was measured at run time, in bounded space.

    Attributes:
        recent: The last calls, oldest first: profiled latency of the point that ran and measured latency, in ms an image.
        slowdown: Running mean of measured over profiled latency.
        deviation: Running mean of the distance from that mean.
    """

    LENGTH = 256
    # The gains of TCP's retransmission timer (Jacobson 1988, RFC 6298): the mean moves by an eighth, the deviation by a quarter.
    MEAN_GAIN, DEVIATION_GAIN = 1 / 8, 1 / 4
    # One lost time slice on a millisecond engine is a slowdown of many times; it must not count as much as it measured.
    MOST = 8.0

    def __init__(self, spread: float = 0.0) -> None:
        """Start from a profile whose p95 lies a share of `spread` above its median."""
        self.recent: deque[tuple[float, float]] = deque(maxlen=self.LENGTH)
        self.slowdown = 1.0
        self.deviation = spread / 2

    def observe(self, profiled_ms: float, measured_ms: float) -> None:
        """Take in one call."""
        self.recent.append((profiled_ms, measured_ms))
        error = min(measured_ms / profiled_ms, self.MOST) - self.slowdown
        self.slowdown += self.MEAN_GAIN * error
        self.deviation += self.DEVIATION_GAIN * (abs(error) - self.deviation)

    @property
    def factor(self) -> float:
        """What a profiled latency must be multiplied by to be met by most calls."""
        return self.slowdown + 2 * self.deviation


class Governor(Protocol):
    """Anything that chooses a point; `hold_latency` is one. It is called on the frame path: microseconds, no waiting."""

    def __call__(self, frontier: Frontier, budget: Budget, reading: Reading, past: Past) -> Decision:
        """Choose.

        Args:
            frontier: The points, fastest first.
            budget: What is left of the budget for an image.
            reading: The last telemetry sample.
            past: What was measured at run time.
        """
        ...


def hold_latency(frontier: Frontier, budget: Budget, reading: Reading, past: Past) -> Decision:
    """Of the points whose predicted latency fits, the most accurate; the fastest if none does."""
    if budget.latency_ms is None:
        return Decision(len(frontier) - 1, Reason.NO_LIMIT)
    point = frontier.within(budget.latency_ms / past.factor)
    return Decision(0, Reason.NOTHING_FITS) if point is None else Decision(point, Reason.FITS)
