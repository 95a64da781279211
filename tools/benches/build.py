"""How long it takes to slice, to build, and to import."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engines.backends import choose_backend
from engines.build import build
from engines.model import DEFAULT_MODEL, Model
from engines.widths import parse_grid
from tools.benches.measure import Figure, at_most, shown
from tools.benches.shipped import GRID
from tools.benches.shipped import SUBJECT as SUBJECT

REPETITIONS = 5


def run() -> list[Figure]:
    """Each a few times; the median counts."""
    model = Model.read(DEFAULT_MODEL)
    widths = parse_grid(GRID)
    backend, _ = choose_backend("auto")

    def slices() -> None:
        for width in widths:
            model.slice(width, pad_to=16).SerializeToString()

    def bundle(pad_to: int | None) -> None:
        with tempfile.TemporaryDirectory(prefix="awn-bench-") as place:
            build(model, widths, backend, Path(place), grid=GRID, pad_to=pad_to)

    def imported() -> None:
        subprocess.run([sys.executable, "-c", "import sdk"], check=True)

    def empty() -> None:
        subprocess.run([sys.executable, "-c", ""], check=True)

    start = _median(empty)
    return [
        at_most(f"s to slice and serialise {len(widths)} widths", _median(slices), 5),
        at_most(f"s to build the bundle of {len(widths)} widths", _median(lambda: bundle(None)), 30),
        shown(
            f"s to build it unpadded, an engine for each of {len(set(map(model.channels, widths)))} networks", _median(lambda: bundle(1))
        ),
        at_most("s to import sdk, beyond starting Python", _median(imported) - start, 0.4),
        shown("s to start Python", start),
    ]


def _median(action: Callable[[], None]) -> float:
    action()
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    print(f"{[round(taken, 3) for taken in times]}")
    return float(np.median(times))
