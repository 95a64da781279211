"""The frontier holds the points that no other point beats."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.widths import format_width, parse_width
from sdk.frontier import Frontier
from sdk.profile import OperatingPoint


def point(width: str, latency_ms: float, accuracy: float | None = None) -> OperatingPoint:
    return OperatingPoint(width=width, exit=0, accuracy=accuracy, latency_ms=latency_ms, p95_ms=latency_ms)


def kept(*points: OperatingPoint) -> list[str]:
    return [p.width for p in Frontier(points).points]


def test_one_point_is_a_frontier() -> None:
    assert kept(point("0.5", 1.0, 0.9)) == ["0.5"]


def test_no_point_is_none() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        Frontier([])


def test_points_that_are_slower_and_no_better_are_left_out() -> None:
    points = [point("1.0", 4.0, 0.99), point("0.75", 3.0, 0.97), point("0.5", 2.0, 0.98), point("0.25", 1.0, 0.90)]
    assert kept(*points) == ["0.25", "0.5", "1.0"]


def test_of_two_equally_accurate_points_the_faster_stays() -> None:
    assert kept(point("0.5", 2.0, 0.9), point("0.6", 1.5, 0.9)) == ["0.6"]


def test_of_two_equally_fast_points_the_more_accurate_stays() -> None:
    assert kept(point("0.5", 1.0, 0.9), point("0.6", 1.0, 0.8)) == ["0.5"]


def test_of_two_equal_points_the_narrower_stays() -> None:
    assert kept(point("0.6", 1.0, 0.9), point("0.5", 1.0, 0.9), point("0.7", 1.0, 0.9)) == ["0.5"]


def test_without_accuracies_wider_counts_as_better() -> None:
    """A narrow point that is slower than a wider one is of no use."""
    assert kept(point("0.25", 1.5), point("0.5", 1.0), point("1/3", 0.5), point("1.0", 4.0)) == ["1/3", "0.5", "1.0"]


def test_one_unknown_accuracy_makes_all_of_them_count_by_width() -> None:
    assert kept(point("0.25", 1.0, 0.99), point("0.5", 2.0, 0.5), point("1.0", 3.0)) == ["0.25", "0.5", "1.0"]


@pytest.mark.parametrize(("budget", "index"), [(0.99, None), (1.0, 0), (1.99, 0), (2.0, 1), (3.9, 1), (4.0, 2), (1e9, 2)])
def test_within_a_latency_is_the_most_accurate_that_takes_at_most_so_much(budget: float, index: int | None) -> None:
    frontier = Frontier([point("0.25", 1.0, 0.90), point("0.5", 2.0, 0.98), point("1.0", 4.0, 0.99)])
    assert len(frontier) == 3
    assert frontier.within(budget) == index


# Few different values, so that ties are common.
points = st.lists(
    st.builds(
        point,
        st.integers(1, 100).map(lambda percent: format_width(parse_width(f"{percent}/100"))),
        st.integers(1, 8).map(float),
        st.integers(0, 8).map(lambda k: k / 8),
    ),
    min_size=1,
    max_size=30,
)


@given(points)
def test_no_point_of_the_frontier_is_beaten_and_every_other_is(candidates: list[OperatingPoint]) -> None:
    def beats(a: OperatingPoint, b: OperatingPoint) -> bool:
        assert a.accuracy is not None
        assert b.accuracy is not None
        return a.latency_ms <= b.latency_ms and a.accuracy >= b.accuracy and (a.latency_ms, a.accuracy) != (b.latency_ms, b.accuracy)

    frontier = Frontier(candidates).points
    assert not any(beats(a, b) for a in candidates for b in frontier)
    for left_out in candidates:
        assert any(beats(a, left_out) or (a.latency_ms, a.accuracy) == (left_out.latency_ms, left_out.accuracy) for a in frontier)


@given(points)
def test_latency_and_accuracy_rise_along_the_frontier(candidates: list[OperatingPoint]) -> None:
    frontier = Frontier(candidates).points
    for a, b in pairwise(frontier):
        assert a.latency_ms < b.latency_ms
        assert (a.accuracy or 0) < (b.accuracy or 0)


@given(points, st.floats(0.1, 10))
def test_within_agrees_with_a_search_over_all_points(candidates: list[OperatingPoint], limit: float) -> None:
    frontier = Frontier(candidates)
    best = max((p.accuracy or 0 for p in candidates if p.latency_ms <= limit), default=None)
    index = frontier.within(limit)
    assert (None if index is None else frontier.points[index].accuracy) == best
