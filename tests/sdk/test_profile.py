"""A profile is what was measured of one bundle on one device, and nothing else is taken for it."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import platformdirs
import pytest

from engines.backends import Interface, Pool
from engines.bundle import Bundle
from engines.errors import ProfileError
from engines.widths import format_width, parse_width
from sdk import profile as module
from sdk.device import describe_device
from sdk.profile import FORMAT, MIN_ROUNDS, RUNS, OperatingPoint, Profile, measure_profile, profile_path, read_profile, write_profile


class RecordingPool(Pool):
    """Notes which exits run; an engine of its own time each."""

    def __init__(self, interface: Interface) -> None:
        self.images = np.zeros((1, *interface.image), np.uint8)
        self.logits = np.zeros((1, interface.classes), np.float32)
        self.ran: list[int] = []

    def run(self, exit: int, batch: int = 1) -> None:
        self.ran.append(exit)

    def close(self) -> None:
        pass


def profile(*latencies: tuple[float, float]) -> Profile:
    points = tuple(
        OperatingPoint(width=format_width(Fraction(i + 1, 10)), exit=i, accuracy=None, latency_ms=latency, p95_ms=p95)
        for i, (latency, p95) in enumerate(latencies)
    )
    return Profile(bundle="b", device={}, backend="fake 1", measured="2026-01-01T00:00:00+00:00", rounds=5, points=points)


# Measuring


def test_every_network_is_a_point_at_the_widest_width_that_it_serves(small_bundle: Bundle, small_profile: Profile) -> None:
    """0.3 and 0.35 are both 4 of 12 channels: the point says 0.35, which is worth more."""
    widest = {small_bundle.exit(width): format_width(width) for width in small_bundle.widths}
    assert [(point.exit, point.width) for point in small_profile.points] == list(widest.items())
    assert [point.width for point in small_profile.points][:3] == ["0.25", "0.35", "0.45"]
    for point in small_profile.points:
        assert point.accuracy == small_bundle.widths[parse_width(point.width)].accuracy
        assert 0 < point.latency_ms <= point.p95_ms < math.inf


def test_a_profile_says_what_was_measured_and_where(small_bundle: Bundle, small_profile: Profile) -> None:
    assert small_profile.format == FORMAT
    assert small_profile.bundle == small_bundle.manifest.sha256
    assert small_profile.device == describe_device()
    assert small_profile.backend == f"onnxruntime {small_bundle.manifest.backend_version}"
    assert small_profile.rounds == MIN_ROUNDS


def test_engines_take_turns_in_random_order(small_bundle: Bundle) -> None:
    """A drift of the clocks must not fall on the wide engines alone. In its turn an engine runs once to warm up, then is timed."""
    pool = RecordingPool(Interface(small_bundle.manifest.image, 5))
    measured = measure_profile(small_bundle, pool, seconds=0)
    turns = [tuple(pool.ran[i : i + RUNS + 1]) for i in range(0, len(pool.ran), RUNS + 1)]
    assert all(len(set(turn)) == 1 for turn in turns)
    engines = [small_bundle.exits[turn[0]].engine for turn in turns]
    rounds = [tuple(engines[i : i + 2]) for i in range(0, len(engines), 2)]
    assert len(rounds) == measured.rounds == MIN_ROUNDS
    assert {tuple(sorted(turn)) for turn in rounds} == {(0, 1)}
    assert len(set(rounds)) == 2


def test_networks_that_share_an_engine_share_its_latency(small_bundle: Bundle, small_profile: Profile) -> None:
    by_engine: dict[int, set[float]] = {}
    for point in small_profile.points:
        by_engine.setdefault(small_bundle.exits[point.exit].engine, set()).add(point.latency_ms)
    assert [len(latencies) for latencies in by_engine.values()] == [1, 1]


def test_progress_rises_to_the_end(small_bundle: Bundle) -> None:
    shares: list[float] = []
    pool = RecordingPool(Interface(small_bundle.manifest.image, 5))
    measured = measure_profile(small_bundle, pool, seconds=0.02, on_round=shares.append)
    assert len(shares) == measured.rounds
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] == 1.0


def test_spread_and_deviation_are_medians_over_the_points() -> None:
    """One point's p95 is mostly noise: that of the last one here does not count."""
    measured = profile((1.0, 1.1), (2.0, 2.4), (4.0, 40.0))
    assert measured.spread == pytest.approx(0.2)
    assert measured.deviation_ms == pytest.approx(0.2)


# Keeping


def test_what_is_written_reads_back_equal(small_bundle: Bundle, small_profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "profile.json"
    write_profile(path, small_profile)
    assert read_profile(path, small_bundle) == read_profile(path) == small_profile


def test_a_profile_is_kept_outside_the_bundle_by_bundle_and_device(
    small_bundle: Bundle, shipped_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle may be read-only, or on a disk that several devices share."""
    here = profile_path(small_bundle)
    assert here.parent == platformdirs.user_state_path("any-width-networks") / "profiles"
    assert here == profile_path(small_bundle) != profile_path(shipped_bundle)
    monkeypatch.setattr(module, "describe_device", lambda: {**describe_device(), "processor": "another"})
    assert profile_path(small_bundle) != here


# What is refused


def test_a_missing_profile_gives_the_command(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"cannot read the profile .*nothing\.json: No such file.*awn-profile-device"):
        read_profile(tmp_path / "nothing.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "new"}', b'{"format": 1}', b'{"points": []}'])
def test_what_is_no_profile_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.json").write_bytes(data)
    with pytest.raises(ProfileError, match=r"p\.json is not a profile: .*measure again: awn-profile-device"):
        read_profile(tmp_path / "p.json")


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path, small_profile: Profile) -> None:
    text = msgspec.json.encode({**msgspec.to_builtins(small_profile), "format": FORMAT + 1, "spice": "new"})
    (tmp_path / "p.json").write_bytes(text)
    with pytest.raises(ProfileError, match=f"has format {FORMAT + 1}; this version reads up to {FORMAT}: update this package"):
        read_profile(tmp_path / "p.json")


def test_unknown_fields_of_a_known_format_are_refused(tmp_path: Path, small_profile: Profile) -> None:
    (tmp_path / "p.json").write_bytes(msgspec.json.encode({**msgspec.to_builtins(small_profile), "spice": "new"}))
    with pytest.raises(ProfileError, match="spice"):
        read_profile(tmp_path / "p.json")


@pytest.mark.parametrize("latency", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_latencies_that_cannot_be_are_refused(tmp_path: Path, latency: tuple[float, float]) -> None:
    write_profile(tmp_path / "p.json", profile((1.0, 1.1), latency))
    with pytest.raises(ProfileError, match="has a latency that is not above 0"):
        read_profile(tmp_path / "p.json")


def test_a_profile_without_points_is_refused(tmp_path: Path) -> None:
    write_profile(tmp_path / "p.json", profile())
    with pytest.raises(ProfileError, match="not above 0"):
        read_profile(tmp_path / "p.json")


def test_a_profile_of_another_bundle_is_refused_with_the_command(tmp_path: Path, small_profile: Profile, shipped_bundle: Bundle) -> None:
    write_profile(tmp_path / "p.json", small_profile)
    words = rf"is of another bundle than {shipped_bundle.path}; measure again: .* --bundle {shipped_bundle.path}"
    with pytest.raises(ProfileError, match=words):
        read_profile(tmp_path / "p.json", shipped_bundle)


@pytest.mark.parametrize("change", ["fewer", "twice", "unknown exit", "other width"])
def test_a_profile_that_does_not_have_each_network_once_is_refused(
    tmp_path: Path, small_bundle: Bundle, small_profile: Profile, change: str
) -> None:
    """It would fail later, in the call that pins the width that is not there."""
    points = small_profile.points
    changed = {
        "fewer": points[:-1],
        "twice": (*points[:-1], points[0]),
        "unknown exit": (*points[:-1], msgspec.structs.replace(points[-1], exit=99)),
        "other width": (*points[:-1], msgspec.structs.replace(points[-1], width="0.99")),
    }[change]
    write_profile(tmp_path / "p.json", msgspec.structs.replace(small_profile, points=changed))
    with pytest.raises(ProfileError, match="is of another bundle"):
        read_profile(tmp_path / "p.json", small_bundle)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (
            {"device": {"processor": "an abacus", "architecture": "wood", "cores": "10"}},
            "processor an abacus there, .* here; architecture wood there",
        ),
        ({"device": {}}, "processor None there"),
        ({"backend": "onnxruntime 0.1"}, r"backend onnxruntime 0\.1 there, onnxruntime .* here"),
    ],
)
def test_a_profile_of_another_device_names_both(
    tmp_path: Path, small_bundle: Bundle, small_profile: Profile, field: dict[str, object], words: str
) -> None:
    write_profile(tmp_path / "p.json", msgspec.structs.replace(small_profile, **field))
    with pytest.raises(ProfileError, match=rf"was measured on another device \(.*{words}.*measure again: .* --bundle"):
        read_profile(tmp_path / "p.json", small_bundle)
