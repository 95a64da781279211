"""The classifier that keeps its budget."""

from __future__ import annotations

import logging
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.errors import AwnError, ProfileError
from engines.widths import parse_width
from sdk.budget import Budget, as_budget
from sdk.frontier import Frontier
from sdk.governor import Governor, Past, Reason, hold_latency
from sdk.image import as_batch
from sdk.prediction import Prediction, most_probable
from sdk.profile import (
    SECONDS,
    OperatingPoint,
    Profile,
    check_profile,
    measure_profile,
    profile_path,
    read_profile,
    write_profile,
)
from sdk.telemetry import NO_READING

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("sdk")

_OWN = Budget()  # stands for "the classifier's own budget", told apart by identity


class AdaptiveClassifier:
    """Classifies images, each call at the width that the budget allows.

    Several threads may call it; calls run one after the other, and the time that a call waits counts against its budget.

    Args:
        bundle: Directory of a bundle, or a `Bundle`; None takes $AWN_BUNDLE, else the place where tools/build_engines.py writes.
        budget_ms: Latency budget of a call; None is no limit. `budget` changes it.
        profile: The profile of the bundle on this device, or its path. None takes the one that was kept here, or measures one, which
            takes some seconds, and keeps it.
        governor: What chooses the point.
        max_batch: Most images that one run of an engine takes; larger batches are split.

    Attributes:
        bundle: The bundle.
        profile: The profile.
        frontier: The points that the governor chooses from.

    Raises:
        BundleError: there is no bundle there (the message gives the command), it was changed, or is of another device.
        BackendError: its backend is not installed, or refused an engine.
        ProfileError: the profile that was given is not of this bundle or device.
        BudgetError: the budget is not a number above 0.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path | None = None,
        *,
        budget_ms: float | None = None,
        profile: Profile | str | Path | None = None,
        governor: Governor = hold_latency,
        max_batch: int = 32,
    ) -> None:
        self._budget = as_budget(budget_ms)
        if not isinstance(max_batch, int) or max_batch < 1:
            raise AwnError(f"max_batch must be a whole number of at least 1, got {max_batch!r}")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
        if not callable(governor):
            raise AwnError(f"a governor must be callable, got {governor!r}; see sdk.Governor")
        self._governor = governor
        self._max_batch = max_batch
        self._labels = self.bundle.manifest.labels
        self._image = self.bundle.manifest.image
        self._pinned: tuple[OperatingPoint, float] | None = None
        # What is measured on batches of one size says little of another size; there are at most max_batch of them.
        self._pasts: dict[int, Past] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._pool = self.bundle.open(max_batch=max_batch)
        try:
            self.profile = self._find_profile(profile)
            self.frontier = Frontier(self.profile.points)
            self._by_exit = {point.exit: point for point in self.profile.points}
            self._widths = [float(parse_width(point.width)) for point in self.frontier.points]
            # The first call through any path is slow (milliseconds); it must not be the application's first frame.
            self.pin(self.frontier.points[0].width)
            for _ in range(3):
                self(np.zeros(self._image, np.uint8))
            self.pin(None)
        except BaseException:
            self._pool.close()
            raise
        self._pasts.clear()

    @property
    def budget(self) -> Budget:
        """The budget of calls that name none. A number is a latency in ms, None no limit; it may be set between any two calls."""
        return self._budget

    @budget.setter
    def budget(self, value: Budget | float | None) -> None:
        self._budget = as_budget(value)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self._labels

    @property
    def widths(self) -> tuple[Fraction, ...]:
        """The widths of the bundle's grid, ascending."""
        return tuple(self.bundle.widths)

    def pin(self, width: str | float | Fraction | None) -> None:
        """Run at one width of the grid whatever the budget, until `pin(None)`.

        Raises:
            WidthError: the bundle has no engine for the width.
        """
        if width is None:
            self._pinned = None
            return
        # A width that a prediction gave is a float, which for 1/3 is not the width itself.
        named = [known for known in self.bundle.widths if isinstance(width, float) and float(known) == width]
        exact = named[0] if named else parse_width(width)
        self._pinned = self._by_exit[self.bundle.exit(exact)], float(exact)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a batch is an object too
        self,
        image: np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]],
        *,
        budget: Budget | float | None = _OWN,
    ) -> list[Prediction]: ...

    @overload
    def __call__(self, image: object, *, budget: Budget | float | None = _OWN) -> Prediction: ...

    def __call__(self, image: object, *, budget: Budget | float | None = _OWN) -> Prediction | list[Prediction]:
        """Classify an image, or a batch of them at one width.

        Args:
            image: uint8 (H, W, C), (H, W), or a batch (N, H, W, C), as a numpy array or anything in host memory that speaks DLPack or
                `__array_interface__` (a torch tensor, a PIL image).
            budget: Budget of this call alone: a number of ms, None for no limit; if not given, `self.budget`.

        Returns:
            A prediction, or for a batch a list of them.

        Raises:
            InputError: the image has another shape, type or device than the network reads.
            BudgetError: the budget is not a number above 0.
            AwnError: the classifier is closed, or the backend failed.
        """
        start = time.perf_counter()
        limits = self._budget if budget is _OWN else as_budget(budget)
        images, is_batch = as_batch(image, self._image)
        count = len(images)
        with self._lock:
            if self._closed:
                raise AwnError("the classifier is closed")
            past = self._past(count)
            entered = time.perf_counter()
            limit_ms = limits.latency_ms
            pinned = self._pinned
            if pinned is not None:
                (point, width), reason = pinned, Reason.PINNED
            else:
                left = limits
                if limit_ms is not None:
                    # What an image may still take. Nothing left is a budget too: the fastest point's.
                    left = msgspec.structs.replace(limits, latency_ms=max((limit_ms - (entered - start) * 1e3) / count, 1e-6))
                point, width, reason = self._choose(left, past)
            logits = self._run(images, point.exit)
            best, shares = most_probable(logits)
            past.observe(point.latency_ms, (time.perf_counter() - entered) * 1e3 / count)
        latency_ms = (time.perf_counter() - start) * 1e3
        predictions = [
            Prediction(
                label=self._labels[index],
                index=index,
                probability=probability,
                logits=row,
                width=width,
                latency_ms=latency_ms,
                budget_met=limit_ms is None or latency_ms <= limit_ms,
                reason=reason,
            )
            for index, probability, row in zip(best, shares, logits, strict=True)
        ]
        return predictions if is_batch else predictions[0]

    def close(self) -> None:
        """Free the engines. Calls after it raise; a second close does nothing."""
        with self._lock:
            self._closed = True
            self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _run(self, images: NDArray[np.uint8], exit: int) -> NDArray[np.float32]:
        """Logits of the images, (N, classes), in memory of their own."""
        pool, most, count = self._pool, self._max_batch, len(images)
        if count <= most:
            pool.images[:count] = images
            pool.run(exit, count)
            logits: NDArray[np.float32] = pool.logits[:count].copy()
            return logits
        return np.concatenate([self._run(images[i : i + most], exit) for i in range(0, count, most)])

    def _choose(self, left: Budget, past: Past) -> tuple[OperatingPoint, float, Reason]:
        decision = self._governor(self.frontier, left, NO_READING, past)
        try:
            chosen, reason = decision
            if chosen >= 0:
                return self.frontier.points[chosen], self._widths[chosen], reason
        except (TypeError, ValueError, IndexError):
            pass
        points = f"an index from 0 to {len(self.frontier) - 1} into frontier.points"
        raise AwnError(f"the governor must give a Decision whose point is {points}, got {decision!r}")

    def _past(self, count: int) -> Past:
        size = min(count, self._max_batch)
        past = self._pasts.get(size)
        if past is None:
            past = self._pasts[size] = Past(self.frontier.points[0].latency_ms, self.profile.deviation_ms)
        return past

    def _find_profile(self, profile: Profile | str | Path | None) -> Profile:
        if isinstance(profile, Profile):
            check_profile(profile, self.bundle)
            return profile
        if profile is not None:
            return read_profile(Path(profile), self.bundle)
        kept = profile_path(self.bundle)
        try:
            if kept.exists():
                return read_profile(kept, self.bundle)
        except (ProfileError, OSError) as error:
            log.warning("%s", error)
        log.warning(
            "no profile of %s on this device yet: measuring its %d engines, about %.0f s (awn-profile-device does it beforehand)",
            self.bundle.path,
            len(self.bundle.manifest.engines),
            SECONDS,
        )
        measured = measure_profile(self.bundle, self._pool)
        try:
            write_profile(kept, measured)
        except OSError as error:
            log.warning(
                "the profile could not be kept at %s (%s): it will be measured again next time",
                kept,
                error.strerror,
            )
        return measured
