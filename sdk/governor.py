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
    """What was measured at run time, in bounded space, and what it says of the latencies to come.

    A call takes ``scale * profiled + offset``: clocks and heat stretch every engine, while waking up from a pause, cold caches and
    other processes add much the same to all. A Kalman filter follows both as random walks; while only one point runs, it moves along
    what that point shows and keeps what others showed before.

    Attributes:
        recent: The last calls, oldest first: profiled latency of the point that ran and measured latency, in ms an image.
        scale: Factor on profiled latencies.
        offset_ms: What a call takes besides.
        deviation_ms: Running mean of the distance between measured and predicted latency.
    """

    LENGTH = 256
    # Standard deviations, of the scale and of the offset in units of the fastest point's latency: what is not known at first, and is
    # never held to be less known; how far they walk from call to call. And how far one call strays, as a share of its time and in units.
    DOUBT = (0.5, 4.0)
    WALK = (0.02, 0.1)
    STRAY = (0.1, 0.2)
    DEVIATION_GAIN = 1 / 8
    LEAST_SCALE = 1e-3

    def __init__(self, unit_ms: float = 1.0, deviation_ms: float = 0.0) -> None:
        """Start from a profile.

        Args:
            unit_ms: Profiled latency of the fastest point.
            deviation_ms: How far calls lie from their profiled latency.
        """
        self.recent: deque[tuple[float, float]] = deque(maxlen=self.LENGTH)
        self.scale, self.offset_ms = 1.0, 0.0
        self.deviation_ms = deviation_ms
        self._stray_ms = self.STRAY[1] * unit_ms
        self._doubt = self.DOUBT[0], self.DOUBT[1] * unit_ms
        self._walk = self.WALK[0] ** 2, (self.WALK[1] * unit_ms) ** 2
        self._covariance = (self._doubt[0] ** 2, 0.0, self._doubt[1] ** 2)

    def observe(self, profiled_ms: float, measured_ms: float) -> None:
        """Take in one call."""
        self.recent.append((profiled_ms, measured_ms))
        predicted = self.scale * profiled_ms + self.offset_ms
        # A call that lost the processor for a time slice says little of the next one; if it goes on, the deviation opens the gate.
        gate = 0.5 * predicted + 3 * self.deviation_ms
        error = min(max(measured_ms - predicted, -gate), gate)
        ss, so, oo = self._covariance
        along_scale, along_offset = ss * profiled_ms + so, so * profiled_ms + oo
        total = along_scale * profiled_ms + along_offset + (self.STRAY[0] * predicted + self._stray_ms) ** 2
        gain_scale, gain_offset = along_scale / total, along_offset / total
        scale, offset = self.scale + gain_scale * error, self.offset_ms + gain_offset * error
        ss += self._walk[0] - gain_scale * along_scale
        so -= gain_scale * along_offset
        oo += self._walk[1] - gain_offset * along_offset
        # What one of the two may not take, the other takes as far as they are bound to each other; else the sum that was measured is lost.
        if offset < 0:
            scale, offset = scale - so / oo * offset, 0.0
        if scale < self.LEAST_SCALE:
            scale, offset = self.LEAST_SCALE, max(offset + so / ss * (self.LEAST_SCALE - scale), 0.0)
        self.scale, self.offset_ms = scale, offset
        # Scaled from both sides, so that the matrix stays a covariance.
        s, o = min(1.0, self._doubt[0] / ss**0.5), min(1.0, self._doubt[1] / oo**0.5)
        self._covariance = (ss * s * s, so * s * o, oo * o * o)
        self.deviation_ms += self.DEVIATION_GAIN * (abs(error) - self.deviation_ms)

    def profiled_within(self, latency_ms: float) -> float:
        """The profiled latency whose prediction, with two deviations of room, is so much."""
        return (latency_ms - self.offset_ms - 2 * self.deviation_ms) / self.scale


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
    point = frontier.within(past.profiled_within(budget.latency_ms))
    return Decision(0, Reason.NOTHING_FITS) if point is None else Decision(point, Reason.FITS)
