"""The operating points worth running."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from engines.widths import parse_width
from sdk.profile import OperatingPoint


class Frontier:
    """The points that no other point beats: ascending in latency and in accuracy.

    Where the accuracy of a point is not known, wider counts as more accurate.

    Attributes:
        points: The points, fastest first.
    """

    def __init__(self, points: Iterable[OperatingPoint]) -> None:
        """Keep the points that are more accurate than every faster one.

        Raises:
            ValueError: there is no point.
        """
        candidates = list(points)
        if not candidates:
            raise ValueError("a frontier needs at least one point")
        known = all(point.accuracy is not None for point in candidates)

        def worth(point: OperatingPoint) -> tuple[float, float]:
            # Of two equally accurate points the narrower is as good and leaves more room.
            width = float(parse_width(point.width))
            return (point.accuracy, -width) if known and point.accuracy is not None else (width, 0.0)

        kept: list[OperatingPoint] = []
        for point in sorted(candidates, key=lambda point: (point.latency_ms, -worth(point)[0], -worth(point)[1])):
            if not kept or worth(point)[0] > worth(kept[-1])[0]:
                kept.append(point)
        self.points = tuple(kept)
        self._latencies = [point.latency_ms for point in kept]

    def __len__(self) -> int:
        return len(self.points)

    def within(self, latency_ms: float) -> int | None:
        """Index of the most accurate point whose latency is at most so much; None if there is none."""
        position = bisect_right(self._latencies, latency_ms)
        return position - 1 if position else None
