"""A bundle: a directory of engines with a manifest that knows the hash of every byte in it.

::

    bundle/
      manifest.json     written last and in one piece: a bundle without it is a build that is not finished
      model-*.onnx      the model file, so that a device can rebuild
      engines/          one file an engine, named by what it was built from and what it holds
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import msgspec
import platformdirs

from engines.backends import Backend, Exit, Interface, Pool, load_backend
from engines.errors import BackendError, BundleError, DeviceMismatch, WidthError
from engines.files import write_atomically
from engines.formats import decode_format
from engines.widths import format_width, parse_width

FORMAT = 1
# Nothing real is larger: a file of 64 GiB, an image of 65,536 pixels a side.
MAX_BYTES, MAX_SIDE = 2**36, 2**16
MANIFEST = "manifest.json"
# The checksum stands at a fixed place, over all the other bytes of the file.
_HEAD = b'{\n  "sha256": "'
_BLANK = "0" * 64
_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a bundle: path inside it, hash and size."""

    path: str
    sha256: str
    bytes: int


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine: its file, and the active channels of each dimension of the model at the widest width that it serves."""

    file: File
    channels: tuple[int, ...]


class WidthEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A width of the grid.

    Attributes:
        width: The width, as text.
        engine: Index of the engine that serves it.
        features: How many of the engine's features the classifier reads.
        accuracy: Share of right answers, if the model file has a curve.
    """

    width: str
    engine: int
    features: int
    accuracy: float | None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a bundle holds and where it fits.

    Attributes:
        sha256: Hash of the manifest's own bytes with 64 zeros in this place.
        format: Version of this layout.
        name: Name of the model.
        model: The model file.
        image: Height, width and channels of the input.
        labels: Class names, in the order of the logits.
        accuracy_data: Which images the accuracies were measured on, if they were.
        grid: The grid as it was asked for.
        widths: The grid's widths, ascending.
        engines: The engines; widths whose channels are equal, or equal once they are padded, share one.
        dimensions: Channels at full width of the dimensions that `Engine.channels` speaks of.
        backend: Name of the backend.
        backend_version: Its version at build time.
        precision: Precision of the engines.
        padding: Multiple that hidden channels were padded to.
        fingerprint: What the engines depend on; they load only where all of it is equal.
    """

    sha256: str = _BLANK
    format: int = FORMAT
    name: str
    model: File
    image: tuple[int, int, int]
    labels: tuple[str, ...]
    accuracy_data: str | None
    grid: str
    widths: tuple[WidthEntry, ...]
    engines: tuple[Engine, ...]
    dimensions: tuple[int, ...]
    backend: str
    backend_version: str
    precision: str
    padding: int
    fingerprint: dict[str, str]


def default_path() -> Path:
    """Where `tools/build_engines.py` writes and `sdk.AdaptiveClassifier` looks if they are told nothing: $AWN_BUNDLE, else a directory
    of the user's.
    """
    named = os.environ.get("AWN_BUNDLE")
    return Path(named) if named else platformdirs.user_data_path("any-width-networks") / "bundle"


def build_command(path: Path) -> str:
    """The command line that builds a first bundle at a place."""
    return f"awn-build-engines --widths 0.25:1.0:0.01 --out {shlex.quote(str(path))}"


class Bundle:
    """A bundle on disk, its manifest read and checked.

    Attributes:
        path: Its directory.
        manifest: Its manifest.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Read the manifest of a bundle; None means `default_path`.

        Raises:
            BundleError: there is no bundle there, or its manifest is damaged, altered or of a newer format.
        """
        self.path = Path(path) if path is not None else default_path()
        self.manifest = _read_manifest(self.path)

    @cached_property
    def widths(self) -> Mapping[Fraction, WidthEntry]:
        """The grid's widths, ascending."""
        return {parse_width(entry.width): entry for entry in self.manifest.widths}

    @cached_property
    def exits(self) -> tuple[Exit, ...]:
        """The different networks among the widths, narrowest first, in the order that `Pool.run` counts them."""
        return tuple(dict.fromkeys(Exit(entry.engine, entry.features) for entry in self.manifest.widths))

    def exit(self, width: Fraction) -> int:
        """Index of the exit that serves a width of the grid.

        Raises:
            WidthError: the grid does not have the width.
        """
        entry = self.widths.get(width)
        if entry is None:
            raise WidthError(f"the bundle has no engine for width {format_width(width)}; its grid is {self.manifest.grid}")
        return self.exits.index(Exit(entry.engine, entry.features))

    @property
    def rebuild_command(self) -> str:
        """The command line that builds this bundle anew on this device."""
        return self._command(str(self.path / self.manifest.model.path))

    def _command(self, model: str) -> str:
        m = self.manifest
        options = {"model": model, "widths": m.grid, "backend": m.backend, "precision": m.precision, "pad": m.padding, "out": self.path}
        return " ".join(["awn-build-engines", *(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())])

    def read(self, file: File) -> bytes:
        """The bytes of one of the bundle's files, which are those that were hashed: the file is opened once.

        Raises:
            BundleError: it is missing, lies outside the bundle, or is not what the build wrote.
        """
        if not _SAFE.fullmatch(file.path):
            raise BundleError(f"{self.path / MANIFEST} names {file.path!r}, which is not a plain path inside the bundle")
        # A damaged model file must not be what the bundle is rebuilt from.
        again = self.rebuild_command if file != self.manifest.model else self._command(self.manifest.name)
        path = self.path / file.path
        try:
            if not path.resolve().is_relative_to(self.path.resolve()):
                raise BundleError(f"{path} leads out of the bundle; rebuild it: {again}")
            with path.open("rb") as stream:
                data = stream.read(file.bytes + 1)
        except OSError as error:
            raise BundleError(f"cannot read {path}: {error.strerror}; rebuild it: {again}") from None
        if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise BundleError(f"{path} was changed after the build (its SHA-256 differs); rebuild it: {again}")
        return data

    def open(self, *, max_batch: int = 1) -> Pool:
        """Verify every file and load all engines.

        Raises:
            BundleError: a file is missing or was changed.
            DeviceMismatch: the bundle was built for another device.
            BackendError: the backend is not installed, or refused an engine.
        """
        m = self.manifest
        backend = load_backend(m.backend)
        # The model file first: what `check_device` tells the user to do starts from it.
        self.read(m.model)
        self.check_device(backend)
        engines = [self.read(engine.file) for engine in m.engines]
        return backend.open(engines, self.exits, Interface(m.image, len(m.labels)), max_batch)

    def check_device(self, backend: Backend) -> None:
        """Refuse a bundle that was built for another device.

        Raises:
            BackendError: the backend is not installed here.
            DeviceMismatch: the message says what differs and how to rebuild.
        """
        missing = backend.missing()
        if missing is not None:
            raise BackendError(f"{self.path} was built for {backend.name}: {missing}")
        here, built = backend.fingerprint(), self.manifest.fingerprint
        different = [
            f"{key} {built.get(key, 'unknown')} there, {here.get(key, 'unknown')} here"
            for key in sorted(here.keys() | built.keys())
            if here.get(key) != built.get(key)
        ]
        if different:
            raise DeviceMismatch(
                f"{self.path} was built for another device ({'; '.join(different)}); rebuild it here: {self.rebuild_command}"
            )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest of a bundle, in one piece, with its checksum."""
    blank = msgspec.structs.replace(manifest, sha256=_BLANK)
    data = msgspec.json.format(msgspec.json.encode(blank), indent=2)
    assert data.startswith(_HEAD + _BLANK.encode())
    digest = hashlib.sha256(data).hexdigest()
    write_atomically(path / MANIFEST, data.replace(_BLANK.encode(), digest.encode(), 1))


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        data = file.read_bytes()
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise BundleError(f"cannot read {file}: {error.strerror}") from None
        unfinished = " (a build there is not finished: the same command goes on)" if (path / "engines").is_dir() else ""
        raise BundleError(f"there is no bundle at {path}{unfinished}; build one: {build_command(path)}") from None
    start, end = len(_HEAD), len(_HEAD) + 64
    found = data[start:end].decode("ascii", "replace")
    blank = data[:start] + _BLANK.encode() + data[end:]
    if not data.startswith(_HEAD) or found != hashlib.sha256(blank).hexdigest():
        raise BundleError(f"{file} was changed after the build, or is damaged (its SHA-256 differs); rebuild it: {build_command(path)}")

    try:
        manifest = decode_format(data, Manifest, newest=FORMAT, name=str(file), error=BundleError)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} is not a manifest: {error}") from None
    sizes = [manifest.model.bytes, *(engine.file.bytes for engine in manifest.engines)]
    if not all(0 <= size <= MAX_BYTES for size in sizes) or not all(1 <= size <= MAX_SIDE for size in manifest.image):
        raise BundleError(f"{file} names files or images of impossible size; rebuild it: {build_command(path)}")
    if not manifest.widths or not all(0 <= entry.engine < len(manifest.engines) and entry.features > 0 for entry in manifest.widths):
        raise BundleError(f"{file} names a width without an engine; rebuild it: {build_command(path)}")
    return manifest
