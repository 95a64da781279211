"""Interleaved timing, and what a bench returns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key")


class Figure(NamedTuple):
    """One measured figure.

    Attributes:
        name: What it is, with its unit.
        value: What was measured.
        limit: What was asked for; None if nothing was.
        holds: Whether the value keeps the limit.
    """

    name: str
    value: float
    limit: float | None
    holds: bool


class Bench(Protocol):
    """What a module of benches offers."""

    SUBJECT: str

    def run(self) -> list[Figure]:
        """Measure."""
        ...


def at_most(name: str, value: float, limit: float) -> Figure:
    """A figure that must not exceed a limit."""
    return Figure(name, float(value), limit, bool(value <= limit))


def at_least(name: str, value: float, limit: float) -> Figure:
    """A figure that must reach a limit."""
    return Figure(name, float(value), limit, bool(value >= limit))


def shown(name: str, value: float) -> Figure:
    """A figure without a limit."""
    return Figure(name, float(value), None, True)


def interleave(
    actions: Mapping[Key, Callable[[], object]], *, rounds: int, warm: int = 1, timed: int = 5, seed: int = 0
) -> dict[Key, NDArray[np.float64]]:
    """Time actions so that a drift of the machine hits all alike: in each round each has its turn, in random order.

    Args:
        actions: What to time.
        rounds: How many rounds.
        warm: Runs of a turn that are not timed.
        timed: Runs of a turn that are.
        seed: Of the order.

    Returns:
        For each action the median of each round, in ms: (rounds,).
    """
    order = random.Random(seed)
    names = list(actions)
    medians: dict[Key, list[float]] = {name: [] for name in names}
    clock = time.perf_counter_ns
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            action = actions[name]
            for _ in range(warm):
                action()
            times = []
            for _ in range(timed):
                start = clock()
                action()
                times.append(clock() - start)
            medians[name].append(float(np.median(times)) / 1e6)
    return {name: np.array(values) for name, values in medians.items()}


def ratio(name: str, over: NDArray[np.float64], under: NDArray[np.float64]) -> tuple[float, str]:
    """The median over rounds of the ratio of two actions, and a line with its quartiles to print."""
    ratios = over / under
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float(middle), f"{name}: {middle:.3f} [{low:.3f}, {high:.3f}]   medians {np.median(over):.4f} and {np.median(under):.4f} ms"
