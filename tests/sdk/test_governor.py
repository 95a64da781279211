"""The governor keeps a latency by what was profiled and what is measured since."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk.budget import Budget
from sdk.frontier import Frontier
from sdk.governor import Decision, Past, Reason, hold_latency
from sdk.profile import OperatingPoint
from sdk.telemetry import NO_READING, Reading

# Points of 1, 2 and 4 ms.
FRONTIER = Frontier(
    OperatingPoint(width=width, exit=exit, accuracy=accuracy, latency_ms=ms, p95_ms=ms)
    for exit, (width, ms, accuracy) in enumerate([("0.25", 1.0, 0.9), ("0.5", 2.0, 0.95), ("1.0", 4.0, 0.99)])
)


def choose(limit: float | None, past: Past) -> Decision:
    return hold_latency(FRONTIER, Budget(latency_ms=limit), NO_READING, past)


@pytest.mark.parametrize(
    ("limit", "decision"),
    [
        (None, Decision(2, Reason.NO_LIMIT)),
        (1000, Decision(2, Reason.FITS)),
        (4.0, Decision(2, Reason.FITS)),
        (3.999, Decision(1, Reason.FITS)),
        (2.0, Decision(1, Reason.FITS)),
        (1.0, Decision(0, Reason.FITS)),
        (0.999, Decision(0, Reason.NOTHING_FITS)),
        (1e-6, Decision(0, Reason.NOTHING_FITS)),
    ],
)
def test_of_the_points_that_fit_the_most_accurate(limit: float | None, decision: Decision) -> None:
    assert choose(limit, Past()) == decision


def test_a_profile_that_scatters_leaves_room_for_it() -> None:
    """Calls that lie 0.1 ms from their median: 4.19 ms are not enough for a median of 4, 4.2 are."""
    assert choose(4.19, Past(deviation_ms=0.1)).point == 1
    assert choose(4.2001, Past(deviation_ms=0.1)).point == 2


def test_choosing_changes_nothing() -> None:
    """It is a function: the same question has the same answer, however often it is asked."""
    past = Past(deviation_ms=0.2)
    past.observe(2.0, 2.5)
    before = {key: value if key != "recent" else list(value) for key, value in vars(past).items()}
    assert len({choose(4.0, past) for _ in range(100)}) == 1
    assert {key: value if key != "recent" else list(value) for key, value in vars(past).items()} == before


def test_the_reading_may_be_anything_for_a_governor_of_latency() -> None:
    for reading in (NO_READING, Reading(power_w=15, temperature_c=90)):
        assert hold_latency(FRONTIER, Budget(latency_ms=2.5), reading, Past()) == Decision(1, Reason.FITS)


def run(past: Past, limit: float, calls: int, scale: float, offset_ms: float = 0.0) -> list[int]:
    """The points chosen by that many calls on a device on which a point takes scale times its profile and an offset."""
    chosen = []
    for _ in range(calls):
        point = choose(limit, past).point
        chosen.append(point)
        profiled = FRONTIER.points[point].latency_ms
        past.observe(profiled, scale * profiled + offset_ms)
    return chosen


def test_calls_that_take_twice_as_long_lead_to_a_narrower_point_that_fits() -> None:
    """4.5 ms at half the speed: the point of 2 ms."""
    past = Past(deviation_ms=0.01)
    chosen = run(past, 4.5, 60, scale=2)
    assert chosen[0] == 2
    assert 2 not in chosen[5:]
    assert chosen[-20:] == [1] * 20
    assert past.scale * 2.0 + past.offset_ms == pytest.approx(4, rel=0.02)


def test_a_delay_before_every_call_is_not_taken_for_slow_engines() -> None:
    """0.6 ms before each call. Taken as a factor of what the narrowest engine takes, it would rule out the widest: 4 x 1.6 > 5."""
    past = Past(deviation_ms=0.01)
    for _ in range(30):
        past.observe(1.0, 1.6)
        past.observe(2.0, 2.6)
    assert past.scale == pytest.approx(1, abs=0.1)
    assert past.offset_ms == pytest.approx(0.6, abs=0.15)
    assert choose(5.0, past).point == 2


def test_when_the_device_recovers_so_does_the_width() -> None:
    past = Past(deviation_ms=0.01)
    slow = run(past, 4.5, 60, scale=4)
    assert slow[-20:] == [0] * 20
    fast = run(past, 4.5, 200, scale=1)
    assert fast[-20:] == [2] * 20


def test_one_lost_time_slice_does_not_rule_for_long() -> None:
    """A call that took a hundred times as long; a few dozen ordinary ones later it is forgotten."""
    past = Past(deviation_ms=0.01)
    run(past, 4.5, 20, scale=1)
    past.observe(4.0, 400.0)
    after = run(past, 4.5, 60, scale=1)
    assert after[-20:] == [2] * 20
    assert after.count(2) >= 30


def test_the_past_is_bounded() -> None:
    """An application that runs for months keeps the last calls only."""
    past = Past()
    for i in range(1000):
        past.observe(1.0, 1.0 + i)
    assert len(past.recent) == Past.LENGTH == 256
    assert past.recent[-1] == (1.0, 1000.0)
    assert past.recent[0] == (1.0, 745.0)


calls = st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0, 1e5)), max_size=60)


@given(calls, st.floats(0, 10))
def test_no_calls_whatever_break_the_prediction(measured: list[tuple[float, float]], deviation_ms: float) -> None:
    """Calls of no time, of minutes, and of anything between: the estimate stays a number, and time still costs time."""
    past = Past(deviation_ms=deviation_ms)
    for profiled_ms, measured_ms in measured:
        past.observe(profiled_ms, measured_ms)
        assert math.isfinite(past.profiled_within(8.0))
        assert Past.LEAST_SCALE <= past.scale < math.inf
        assert 0 <= past.offset_ms < math.inf
        assert 0 <= past.deviation_ms < math.inf


@given(calls, st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_a_larger_budget_never_leads_to_a_narrower_point(measured: list[tuple[float, float]], a: float, b: float) -> None:
    past = Past()
    for profiled_ms, measured_ms in measured:
        past.observe(profiled_ms, measured_ms)
    narrow, wide = choose(min(a, b), past), choose(max(a, b), past)
    assert narrow.point <= wide.point
    assert (narrow.reason is Reason.NOTHING_FITS) == (past.profiled_within(min(a, b)) < 1.0)


@given(st.floats(0.3, 6), st.floats(0, 0.5))
def test_a_steady_device_is_learnt(scale: float, offset_ms: float) -> None:
    """After sixty calls at three widths the prediction of each is within 3 % of what it takes, plus 0.02 ms."""
    past = Past(deviation_ms=0.01)
    for i in range(180):
        profiled_ms = FRONTIER.points[i % 3].latency_ms
        past.observe(profiled_ms, scale * profiled_ms + offset_ms)
    for point in FRONTIER.points:
        takes = scale * point.latency_ms + offset_ms
        assert past.scale * point.latency_ms + past.offset_ms == pytest.approx(takes, rel=0.03, abs=0.02)


def test_reasons_are_sentences_for_people() -> None:
    assert str(Reason.FITS) == f"{Reason.FITS}" == "the most accurate that fits the budget"
    assert len({str(reason) for reason in Reason}) == len(Reason)


def simulate(
    latencies: list[float], budget_ms: float, calls: int, measured: Callable[[float, random.Random], float], seed: int
) -> list[int]:
    """The points chosen in a simulated run, where a call at a point of a profiled latency takes `measured`."""
    frontier = Frontier(
        OperatingPoint(width=str((i + 1) / len(latencies)), exit=i, accuracy=i / len(latencies), latency_ms=latency, p95_ms=1.1 * latency)
        for i, latency in enumerate(latencies)
    )
    noise = random.Random(seed)
    past = Past(latencies[0], 0.05 * latencies[0])
    chosen = []
    for _ in range(calls):
        point = hold_latency(frontier, Budget(latency_ms=budget_ms), Reading(), past).point
        past.observe(latencies[point], measured(latencies[point], noise))
        chosen.append(point)
    return chosen


@pytest.mark.parametrize("noise", [0.05, 0.12])
@pytest.mark.parametrize(
    "latencies", [[0.08, 0.18, 0.34], [0.05 + 0.013 * i for i in range(35)], [2 + 0.13 * i for i in range(76)]], ids=["3", "35", "76"]
)
def test_noise_alone_never_drives_the_choice_away(latencies: list[float], noise: float) -> None:
    """An estimate whose errors feed each other would end at the narrowest point and stay."""
    for seed in range(10):
        chosen = simulate(latencies, 1.5 * latencies[-1], 600, lambda latency, r: latency * max(0.5, r.gauss(1, noise)), seed)
        assert min(chosen[100:]) > 0.5 * len(latencies) - 1
        assert chosen[-1] >= 0.8 * (len(latencies) - 1)


def test_an_offset_that_all_points_share_is_learnt_at_one_of_them() -> None:
    """Waking up costs every width the same: 7 ms fit into 8 although the fastest point's own 2 ms took 5."""
    chosen = simulate([2, 4, 6, 8, 10, 12], 8, 300, lambda latency, r: (latency + 3) * r.gauss(1, 0.03), 0)
    assert chosen[-200:].count(1) >= 195


def test_a_slowdown_of_ten_is_followed_down_and_up_again() -> None:
    calls = iter(range(1000))
    chosen = simulate([2, 4, 6, 8, 10, 12], 14, 800, lambda latency, r: latency * (10 if next(calls) < 400 else 1) * r.gauss(1, 0.03), 0)
    assert set(chosen[50:400]) == {0}, "nothing fits while it lasts"
    assert 5 in chosen[400:450], "the widest runs again within 50 calls"
