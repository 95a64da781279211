"""A budget is a number above 0, or none."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from engines.errors import AwnError, BudgetError
from sdk.budget import Budget, as_budget


@pytest.mark.parametrize("limit", [0.001, 1, 8, 8.5, 1e6, np.float32(8), np.float64(8), np.int64(8), Fraction(1, 2)])
def test_any_number_above_0_is_a_latency(limit: float) -> None:
    assert Budget(latency_ms=limit).latency_ms == limit
    assert as_budget(limit) == Budget(latency_ms=limit)


def test_none_is_no_limit() -> None:
    assert Budget() == Budget(latency_ms=None) == as_budget(None)


def test_a_budget_stays_itself() -> None:
    budget = Budget(latency_ms=3)
    assert as_budget(budget) is budget


@pytest.mark.parametrize(
    "limit",
    [0, 0.0, -1, -0.001, float("nan"), float("inf"), -float("inf"), True, False, "8", b"8", [8], 8j, np.float32("nan"), np.bool_(True)],
)
def test_what_cannot_be_a_limit_is_refused(limit: object) -> None:
    """True is no millisecond, and "8" is text that somebody forgot to read."""
    with pytest.raises(
        BudgetError, match="a latency budget must be a finite number of milliseconds above 0, or None for no limit, got "
    ) as caught:
        as_budget(limit)  # type: ignore[arg-type]
    assert repr(limit) in str(caught.value)


def test_a_budget_error_is_ours_and_a_value_error() -> None:
    assert issubclass(BudgetError, AwnError)
    assert issubclass(BudgetError, ValueError)


def test_a_budget_cannot_be_changed_behind_the_classifiers_back() -> None:
    budget = Budget(latency_ms=3)
    with pytest.raises(AttributeError):
        budget.latency_ms = float("nan")  # type: ignore[misc]


def test_a_number_that_no_float_holds_is_refused() -> None:
    with pytest.raises(BudgetError, match="finite"):
        Budget(latency_ms=10**400)


@pytest.mark.parametrize("limit", [8, np.float32(8), np.int64(8), Fraction(8)])
def test_any_real_number_becomes_a_plain_float(limit: float) -> None:
    """What is compared with it ends in `budget_met`, which must be a plain bool to be written as JSON."""
    assert type(Budget(latency_ms=limit).latency_ms) is float
    assert Budget(latency_ms=limit) == Budget(latency_ms=8.0)
