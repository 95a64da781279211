"""From a model file and a grid to a bundle."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from engines.backends import Backend
from engines.bundle import MANIFEST, Bundle, Engine, File, Manifest, WidthEntry, write_manifest
from engines.errors import BackendError, BundleError, WidthError
from engines.files import remove_parts, write_atomically
from engines.model import Model, padded
from engines.widths import format_width

MAX_PADDING = 256

# The names that `_store_model` and `_Build._name` give.
_OURS = re.compile(r"model-[0-9a-f]{16}\.onnx|engines/[0-9a-f]{16}-[0-9a-f]{64}\.[^/]+")


@dataclass(frozen=True)
class Built:
    """One engine done.

    Attributes:
        width: The widest width of the grid that it serves.
        reused: It was there from an earlier build.
        seconds: Time to build it.
        done: Engines done so far, this one included.
        total: Engines in all.
    """

    width: Fraction
    reused: bool
    seconds: float
    done: int
    total: int


def build(
    model: Model,
    widths: Sequence[Fraction],
    backend: Backend,
    out: Path,
    *,
    grid: str,
    precision: str = "fp32",
    pad_to: int | None = None,
    jobs: int = 1,
    on_engine: Callable[[Built], None] = lambda _: None,
) -> Bundle:
    """Build an engine for each width, or for each set of widths that can share one, and write the manifest.

    Widths with equal channels are one network. Where the backend takes exits, those whose channels are equal once they are padded share an
    engine too: it computes the widest of them in the same time, and the features of the others are the leading ones of its own.

    A build that was stopped, however, goes on where it was: an engine's file is named by what it was built from and by the hash of
    what it holds, so what is whole is reused and what is not is built again. An earlier bundle in the same place stays usable until
    the new manifest replaces its own.

    Args:
        model: The model file.
        widths: The widths, in any order.
        backend: What to build for.
        out: Directory of the bundle.
        grid: The grid as it was asked for, for the record.
        precision: Precision of the engines.
        pad_to: Multiple that hidden channels are padded to; None takes the backend's own.
        jobs: Engines built at a time.
        on_engine: Called after each engine.

    Raises:
        WidthError: there are no widths, or the network does not run at one of them; nothing was built.
        BackendError: the backend has no such precision, or refused slices; what it built is kept for the next try.
        BundleError: another build is at work in the same place.
        OSError: the disk is full or not writable.
    """
    if precision not in backend.paddings:
        raise BackendError(f"{backend.name} builds {', '.join(backend.paddings)}, not {precision!r}")
    if jobs < 1:
        raise BackendError(f"jobs must be at least 1, got {jobs}")
    if pad_to is not None and not 1 <= pad_to <= MAX_PADDING:
        raise BackendError(f"hidden channels can be padded to a multiple of 1 to {MAX_PADDING}, got {pad_to}")
    if not widths:
        raise WidthError("a bundle needs at least one width")
    widths = sorted(set(widths))
    padding = pad_to if pad_to is not None else backend.paddings[precision]
    shared: dict[tuple[int, ...], list[Fraction]] = {}
    for width in widths:
        channels = model.channels(width)
        key = tuple(padded(count, padding) for count in channels) if backend.exits else channels
        shared.setdefault(key, []).append(width)
    groups = list(shared.values())
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            engines = _Build(model, backend, out, precision, padding, on_engine).engines(groups, jobs)
            curve = model.metadata.curve
            manifest = Manifest(
                name=model.metadata.name,
                model=_store_model(model, out),
                image=model.image,
                labels=model.metadata.labels,
                accuracy_data=curve.data if curve else None,
                grid=grid,
                widths=tuple(
                    WidthEntry(format_width(width), engine, model.features(width), curve.accuracy(width) if curve else None)
                    for engine, group in enumerate(groups)
                    for width in group
                ),
                engines=tuple(engines),
                dimensions=model.dimensions,
                backend=backend.name,
                backend_version=backend.version(),
                precision=precision,
                padding=padding,
                fingerprint=backend.fingerprint(),
            )
            write_manifest(out, manifest)
            _remove_others(out, manifest)
    except Timeout:
        raise BundleError(f"another build is at work in {out}; wait for it, or name another --out") from None
    return Bundle(out)


class _Build:
    """The engines of one build."""

    def __init__(
        self,
        model: Model,
        backend: Backend,
        out: Path,
        precision: str,
        padding: int,
        on_engine: Callable[[Built], None],
    ) -> None:
        self.model, self.backend, self.out = model, backend, out
        self.precision, self.padding, self.on_engine = precision, padding, on_engine
        self.directory = out / "engines"
        self.directory.mkdir(exist_ok=True)
        if self.directory.is_symlink():
            raise BundleError(f"{self.directory} is a link; a bundle's files lie inside it: remove the link, or name another --out")
        remove_parts(out, MANIFEST)
        remove_parts(out, "model-*")
        remove_parts(self.directory)

    def engines(self, groups: Sequence[Sequence[Fraction]], jobs: int) -> list[Engine]:
        """Build or reuse an engine a group; a slice that the backend refuses does not stop the others."""
        engines: dict[int, Engine] = {}
        refused: list[str] = []
        with ThreadPoolExecutor(jobs, thread_name_prefix="build") as pool:
            tasks = {pool.submit(self._engine, group): number for number, group in enumerate(groups)}
            try:
                for task in as_completed(tasks):
                    width = groups[tasks[task]][-1]
                    try:
                        engines[tasks[task]], reused, seconds = task.result()
                    except BackendError as error:
                        refused.append(f"width {format_width(width)}: {error}")
                        continue
                    self.on_engine(Built(width, reused, seconds, len(engines), len(groups)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if refused:
            raise BackendError(
                f"{len(refused)} of {len(groups)} engines could not be built, the others are kept: {'; '.join(sorted(refused))}"
            )
        return [engines[number] for number in range(len(groups))]

    def _engine(self, group: Sequence[Fraction]) -> tuple[Engine, bool, float]:
        """The engine of the group's widest width, with exits for the others if they are other networks."""
        start = time.monotonic()
        widest = group[-1]
        channels = self.model.channels(widest)
        exits = self.model.channels(group[0]) != channels
        sliced = self.model.slice(widest, pad_to=self.padding, exits=exits).SerializeToString(deterministic=True)
        key = self._key(sliced)
        for path in self.directory.glob(f"{key}-*{self.backend.suffix}"):
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            if path.name == self._name(key, digest):
                return Engine(_file(path, self.out, digest, len(data)), channels), True, time.monotonic() - start
        data = self.backend.compile(sliced, self.precision)
        digest = hashlib.sha256(data).hexdigest()
        path = self.directory / self._name(key, digest)
        write_atomically(path, data)
        return Engine(_file(path, self.out, digest, len(data)), channels), False, time.monotonic() - start

    def _key(self, sliced: bytes) -> str:
        """What an engine is built from. Never its own hash: two builds of one plan may differ."""
        backend = self.backend
        inputs = [
            hashlib.sha256(sliced).hexdigest(),
            backend.name,
            backend.version(),
            sorted(backend.fingerprint().items()),
            self.precision,
        ]
        return hashlib.sha256(msgspec.json.encode(inputs)).hexdigest()[:16]

    def _name(self, key: str, digest: str) -> str:
        return f"{key}-{digest}{self.backend.suffix}"


def _store_model(model: Model, out: Path) -> File:
    # Named by its hash, so that an earlier bundle of another model keeps its own until the new manifest is there.
    path = out / f"model-{model.sha256[:16]}.onnx"
    if not path.exists() or path.read_bytes() != model.data:
        write_atomically(path, model.data)
    return _file(path, out, model.sha256, len(model.data))


def _file(path: Path, out: Path, digest: str, size: int) -> File:
    return File(path.relative_to(out).as_posix(), digest, size)


def _remove_others(out: Path, manifest: Manifest) -> None:
    """Delete the files of earlier builds, which nothing names any more; only theirs: --out may be a directory with other things in it."""
    named = {file.path for file in [manifest.model, *(engine.file for engine in manifest.engines)]}
    for path in [*out.glob("model-*.onnx"), *(out / "engines").iterdir()]:
        inside = path.relative_to(out).as_posix()
        if inside not in named and _OURS.fullmatch(inside):
            path.unlink(missing_ok=True)
