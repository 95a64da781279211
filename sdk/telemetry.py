"""What the device says of itself while it runs."""

from __future__ import annotations

import msgspec


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One telemetry sample. What is missing is None, never 0.

    Attributes:
        power_w: Power drawn by the device.
        temperature_c: Temperature of its hottest part.
    """

    power_w: float | None = None
    temperature_c: float | None = None


NO_READING = Reading()
