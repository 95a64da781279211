"""The shipped model as a bundle of 76 widths in a place of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.backends import choose_backend
from engines.build import build
from engines.bundle import Bundle
from engines.model import DEFAULT_MODEL, Model
from engines.widths import parse_grid

GRID = "0.25:1.0:0.01"
_BACKEND, _ = choose_backend("auto")
SUBJECT = f"{DEFAULT_MODEL} {_BACKEND.name} {_BACKEND.version()} fp32"


@contextmanager
def shipped_bundle(*, pad_to: int | None = None) -> Iterator[Bundle]:
    """Build it, and delete it afterwards."""
    with tempfile.TemporaryDirectory(prefix="awn-bench-") as place:
        yield build(Model.read(DEFAULT_MODEL), parse_grid(GRID), _BACKEND, Path(place), grid=GRID, pad_to=pad_to)
