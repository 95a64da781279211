"""The application's limits."""

from __future__ import annotations

import math
from numbers import Real

import msgspec

from engines.errors import BudgetError


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may cost.

    Attributes:
        latency_ms: From entering the call to leaving it; None is no limit.

    Raises:
        BudgetError: a limit is not a number above 0.
    """

    latency_ms: float | None = None

    def __post_init__(self) -> None:
        limit = self.latency_ms
        # A plain float, which is what the frame path makes, is looked at no further.
        if limit is None or (type(limit) is float and 0 < limit < math.inf):
            return
        try:
            plain = float(limit) if isinstance(limit, Real) and not isinstance(limit, bool) else math.nan
        except OverflowError:
            plain = math.inf
        if not 0 < plain < math.inf:
            raise BudgetError(f"a latency budget must be a finite number of milliseconds above 0, or None for no limit, got {limit!r}")
        # numpy's numbers become Python's, so that what is compared with them can be written as JSON.
        msgspec.structs.force_setattr(self, "latency_ms", plain)


def as_budget(value: Budget | float | None) -> Budget:
    """A budget as it is, a number as `latency_ms`, None as no limit.

    Raises:
        BudgetError: the number is not above 0.
    """
    return value if isinstance(value, Budget) else Budget(latency_ms=value)
