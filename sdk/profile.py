"""The profile: what each engine of a bundle costs on this device, and what it is worth."""

from __future__ import annotations

import hashlib
import random
import shlex
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
import platformdirs

from engines.backends import Pool, load_backend
from engines.bundle import Bundle, WidthEntry
from engines.errors import ProfileError
from engines.files import write_atomically
from engines.formats import decode_format
from sdk.device import describe_device

FORMAT = 1
SECONDS = 4.0
MIN_ROUNDS, MAX_ROUNDS, RUNS = 5, 1000, 3


class OperatingPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One network of the bundle with what was measured of its engine.

    Attributes:
        width: The widest width of the grid that is this network.
        exit: Its index in `Bundle.exits`.
        accuracy: Share of right answers, from the model file; None if that has no curve.
        latency_ms: Median latency of one image.
        p95_ms: 95th percentile.
    """

    width: str
    exit: int
    accuracy: float | None
    latency_ms: float
    p95_ms: float


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The operating points of one bundle on one device.

    Attributes:
        format: Version of this layout.
        bundle: SHA-256 of the bundle's manifest.
        device: What the device is.
        backend: Name and version of the backend.
        measured: When, in UTC.
        rounds: How often each engine's turn came, `RUNS` timed runs each. Networks that share an engine share its latency.
        points: The operating points, narrowest first.
    """

    format: int = FORMAT
    bundle: str
    device: dict[str, str]
    backend: str
    measured: str
    rounds: int
    points: tuple[OperatingPoint, ...]

    @property
    def spread(self) -> float:
        """By what share the p95 lies above the median: the median over the points, since one point's own p95 is mostly noise."""
        return float(np.median([point.p95_ms / point.latency_ms for point in self.points])) - 1

    @property
    def deviation_ms(self) -> float:
        """How far calls lie from their median, the median over the points; half the way to the p95."""
        return float(np.median([point.p95_ms - point.latency_ms for point in self.points])) / 2


def measure_profile(
    bundle: Bundle,
    pool: Pool,
    *,
    seconds: float = SECONDS,
    on_round: Callable[[float], None] = lambda _: None,
) -> Profile:
    """Measure the latency of every engine, interleaved, so that a drift of clocks or load hits all alike.

    In each round every engine has its turn, in random order: one run to bring it into the caches, then timed runs.

    Args:
        bundle: The bundle; accuracies come from it.
        pool: Its loaded engines. The input buffer is overwritten.
        seconds: Stop after so long, but not before `MIN_ROUNDS` rounds.
        on_round: Called after each round with the share of the time that is spent.
    """
    order = random.Random(0)
    pool.images[0] = np.random.default_rng(0).integers(0, 256, pool.images.shape[1:], np.uint8)
    # An engine takes the same time whichever of its exits is read.
    exit_of = {exit.engine: number for number, exit in enumerate(bundle.exits)}
    engines = list(exit_of)
    times: dict[int, list[int]] = {engine: [] for engine in engines}
    clock = time.perf_counter_ns
    start = time.monotonic()
    rounds = 0
    while rounds < MAX_ROUNDS and (rounds < MIN_ROUNDS or time.monotonic() - start < seconds):
        order.shuffle(engines)
        for engine in engines:
            exit = exit_of[engine]
            pool.run(exit)
            for _ in range(RUNS):
                before = clock()
                pool.run(exit)
                times[engine].append(clock() - before)
        rounds += 1
        on_round(min(1.0, max((time.monotonic() - start) / max(seconds, 1e-9), rounds / MAX_ROUNDS)))
    latency = {engine: (float(np.median(taken)) / 1e6, float(np.percentile(taken, 95)) / 1e6) for engine, taken in times.items()}
    return Profile(
        bundle=bundle.manifest.sha256,
        device=describe_device(),
        backend=_backend(bundle),
        measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        rounds=rounds,
        points=tuple(
            OperatingPoint(
                width=entry.width,
                exit=exit,
                accuracy=entry.accuracy,
                latency_ms=latency[entry.engine][0],
                p95_ms=latency[entry.engine][1],
            )
            for exit, entry in _widest(bundle).items()
        ),
    )


def profile_path(bundle: Bundle) -> Path:
    """Where the profile of a bundle on this device is kept: outside the bundle, which may be read-only or shared by devices."""
    device = hashlib.sha256(msgspec.json.encode([sorted(describe_device().items()), _backend(bundle)])).hexdigest()
    return platformdirs.user_state_path("any-width-networks") / "profiles" / f"{bundle.manifest.sha256[:16]}-{device[:8]}.json"


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile, whole or not at all."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(profile), indent=2))


def read_profile(path: Path, bundle: Bundle | None = None) -> Profile:
    """Read a profile.

    Args:
        path: The file.
        bundle: If given, the profile must be of this bundle, on this device.

    Raises:
        ProfileError: it is missing, damaged, of a newer format, of another bundle or of another device; the message says what differs.
    """
    again = "measure again: awn-profile-device"

    try:
        data = path.read_bytes()
        profile = decode_format(data, Profile, newest=FORMAT, name=str(path), error=ProfileError)
    except OSError as error:
        raise ProfileError(f"cannot read the profile {path}: {error.strerror}; {again}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not a profile: {error}; {again}") from None
    if not profile.points or any(not 0 < point.latency_ms <= point.p95_ms < float("inf") for point in profile.points):
        raise ProfileError(f"{path} has a latency that is not above 0; {again}")
    if bundle is not None:
        check_profile(profile, bundle, str(path))
    return profile


def check_profile(profile: Profile, bundle: Bundle, name: str = "the profile") -> None:
    """Refuse a profile that is not of a bundle on this device.

    Raises:
        ProfileError: the message says what differs; `name` is how it calls the profile.
    """
    again = f"measure again: awn-profile-device --bundle {shlex.quote(str(bundle.path))}"
    expected = [(exit, entry.width) for exit, entry in _widest(bundle).items()]
    if profile.bundle != bundle.manifest.sha256 or [(point.exit, point.width) for point in profile.points] != expected:
        raise ProfileError(f"{name} is of another bundle than {bundle.path}; {again}")
    there = {**profile.device, "backend": profile.backend}
    here = {**describe_device(), "backend": _backend(bundle)}
    different = [f"{key} {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key]]
    if different:
        raise ProfileError(f"{name} was measured on another device ({'; '.join(different)}); {again}")


def _widest(bundle: Bundle) -> dict[int, WidthEntry]:
    """For each exit the widest width that it serves; widths ascend, so it is the last one."""
    return {bundle.exit(width): entry for width, entry in bundle.widths.items()}


def _backend(bundle: Bundle) -> str:
    return f"{bundle.manifest.backend} {load_backend(bundle.manifest.backend).version()}"
