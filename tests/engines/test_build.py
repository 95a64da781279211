"""A build makes what was asked for, reuses what is whole, and survives being killed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from engines.backends import Backend, Exit, Interface, Pool, load_backend
from engines.backends.onnxruntime import OnnxRuntime
from engines.build import Built, build
from engines.bundle import MANIFEST, Bundle
from engines.errors import BackendError, BundleError, WidthError
from engines.model import Model, write_model
from engines.widths import parse_grid
from tests.conftest import ROOT
from tests.networks import random_images, run, small_model, small_network

GRID = "0.25:1.0:0.05"


def make(model: Model, out: Path, grid: str = GRID, backend: Backend | None = None, **options: object) -> tuple[Bundle, list[Built]]:
    built: list[Built] = []
    backend = backend or load_backend("onnxruntime")
    bundle = build(model, parse_grid(grid), backend, out, grid=grid, on_engine=built.append, **options)  # type: ignore[arg-type]
    return bundle, built


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.rglob("*.onnx")}


def answers_rightly(bundle: Bundle, model: Model, images: NDArray[np.uint8], expected: dict[Fraction, NDArray[np.float32]]) -> None:
    """Every width of a bundle gives the logits of its slice."""
    with bundle.open(max_batch=len(images)) as pool:
        for width in bundle.widths:
            pool.images[:] = images
            pool.run(bundle.exit(width), len(images))
            np.testing.assert_allclose(pool.logits, expected[width], rtol=0, atol=1e-4)


class FakeBackend(Backend):
    """Engines are slices with a word before them; refuses slices of some channel counts."""

    name = "fake"
    suffix = ".engine"
    paddings = MappingProxyType({"fp32": 1, "fp16": 8})
    exits = False

    def __init__(self, refuses: Sequence[int] = ()) -> None:
        self.refuses, self.compiled, self.release = refuses, 0, "1"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return self.release

    def fingerprint(self) -> dict[str, str]:
        return {"chip": "fake"}

    def compile(self, onnx_model: bytes, precision: str) -> bytes:
        self.compiled += 1
        weights = next(t for t in onnx.ModelProto.FromString(onnx_model).graph.initializer if t.name == "conv4.weight")
        if weights.dims[0] in self.refuses:
            raise BackendError(f"no kernel for {weights.dims[0]} channels")
        return precision.encode() + onnx_model

    def open(self, engines: Sequence[bytes], exits: Sequence[Exit], interface: Interface, max_batch: int) -> Pool:
        raise NotImplementedError


# Which engines


def test_widths_with_equal_channels_share_an_engine_and_others_do_not(small: Model, tmp_path: Path) -> None:
    bundle, built = make(small, tmp_path, "0.25:1.0:0.01", FakeBackend())
    channels = [small.channels(width) for width in bundle.widths]
    assert len(bundle.widths) == 76
    assert len(bundle.manifest.engines) == len(set(channels)) == len(built) == len(small.rule.distinct([12, 24])) == 28
    assert [bundle.manifest.engines[entry.engine].channels for entry in bundle.manifest.widths] == channels
    assert sorted(step.done for step in built) == list(range(1, 29))
    assert {step.total for step in built} == {28}


def test_the_76_widths_of_the_shipped_model_are_35_networks(shipped: Model, tmp_path: Path) -> None:
    bundle, built = make(shipped, tmp_path, "0.25:1.0:0.01", pad_to=1)
    assert (len(bundle.widths), len(bundle.exits), len(built)) == (76, 35, 35)


def test_padded_to_whole_blocks_they_need_three_engines(shipped_bundle: Bundle) -> None:
    """11 to 16, 17 to 32 and 33 to 45 channels of 45."""
    assert (len(shipped_bundle.widths), len(shipped_bundle.exits)) == (76, 35)
    assert [engine.channels for engine in shipped_bundle.manifest.engines] == [(16,), (32,), (45,)]


def test_every_width_of_the_shipped_bundle_answers_as_its_slice(
    shipped: Model, shipped_bundle: Bundle, mnist: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    images = mnist[0][:40]
    expected = {width: run(shipped.slice(width), images)[0] for width in shipped_bundle.widths}
    answers_rightly(shipped_bundle, shipped, images, expected)


@pytest.mark.parametrize("pad_to", [1, 3, 8, None])
def test_padding_changes_the_engines_and_not_the_answers(small: Model, tmp_path: Path, pad_to: int | None) -> None:
    bundle, _ = make(small, tmp_path, pad_to=pad_to)
    assert bundle.manifest.padding == (pad_to or 16)
    images = random_images(4, small.image)
    answers_rightly(bundle, small, images, {width: run(small.slice(width), images)[0] for width in bundle.widths})


def test_widths_may_come_in_any_order_and_more_than_once(small: Model, tmp_path: Path) -> None:
    widths = [Fraction(1), Fraction(1, 4), Fraction(1, 2), Fraction(1)]
    bundle = build(small, widths, load_backend("onnxruntime"), tmp_path, grid="1,0.25,0.5,1")
    assert list(bundle.widths) == [Fraction(1, 4), Fraction(1, 2), 1]


def test_a_model_without_a_curve_gives_a_bundle_without_accuracies(tmp_path: Path) -> None:
    _, proto, metadata = small_network()
    model = write_model(tmp_path / "model.onnx", proto, msgspec.structs.replace(metadata, curve=None))
    bundle, _ = make(model, tmp_path / "bundle")
    assert bundle.manifest.accuracy_data is None
    assert {entry.accuracy for entry in bundle.manifest.widths} == {None}


# Again, and elsewhere


def test_a_second_build_reuses_everything_and_touches_no_engine(small: Model, tmp_path: Path) -> None:
    _, first = make(small, tmp_path)
    before, written = contents(tmp_path), times(tmp_path)
    bundle, second = make(small, tmp_path)
    assert [step.reused for step in first] == [False] * len(first)
    assert [step.reused for step in second] == [True] * len(first)
    assert contents(tmp_path) == before
    assert times(tmp_path) == written
    bundle.open().close()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_engine_is_built_again_and_only_that_one(small: Model, tmp_path: Path, damage: str) -> None:
    bundle, _ = make(small, tmp_path, backend=FakeBackend())
    before = contents(tmp_path)
    victim = tmp_path / bundle.manifest.engines[3].file.path
    data = victim.read_bytes()
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes({"flip": data[:99] + bytes([data[99] ^ 1]) + data[100:], "cut": data[:-1], "empty": b""}[damage])
    _, again = make(small, tmp_path, backend=FakeBackend())
    assert [step.reused for step in again].count(False) == 1
    assert contents(tmp_path) == before


def test_a_damaged_model_file_is_mended(small: Model, tmp_path: Path) -> None:
    bundle, _ = make(small, tmp_path)
    (tmp_path / bundle.manifest.model.path).write_bytes(b"")
    make(small, tmp_path)[0].open().close()


def test_a_larger_grid_in_the_same_place_reuses_what_it_can(small: Model, tmp_path: Path) -> None:
    backend = FakeBackend()
    make(small, tmp_path, "0.5,1.0", backend)
    bundle, built = make(small, tmp_path, "0.25,0.5,0.75,1.0", backend)
    assert sorted((step.width, step.reused) for step in built) == [
        (Fraction(1, 4), False),
        (Fraction(1, 2), True),
        (Fraction(3, 4), False),
        (Fraction(1), True),
    ]
    assert backend.compiled == 4
    assert (list(bundle.widths), bundle.manifest.grid) == (list(parse_grid("0.25:1:0.25")), "0.25,0.5,0.75,1.0")


def test_a_smaller_grid_removes_the_engines_that_nothing_names(small: Model, tmp_path: Path) -> None:
    make(small, tmp_path, backend=FakeBackend())
    bundle, _ = make(small, tmp_path, "0.5,1.0", FakeBackend())
    m = bundle.manifest
    assert set(contents(tmp_path)) == {MANIFEST, m.model.path, *(engine.file.path for engine in m.engines)}
    assert len(m.engines) == 2


@pytest.mark.parametrize("other", ["padding", "model", "precision", "version"])
def test_nothing_is_reused_that_was_built_otherwise(small: Model, tmp_path: Path, other: str) -> None:
    """Another padding, model, precision or version of the runtime in the same place: all engines are new, and the old ones go."""
    make(small, tmp_path, backend=FakeBackend())
    old = set(contents(tmp_path)) - {MANIFEST}
    backend, model = FakeBackend(), small
    options: dict[str, object] = {}
    if other == "padding":
        options["pad_to"] = 32
    elif other == "model":
        model = small_model(seed=1)
    elif other == "precision":
        options["precision"] = "fp16"
    else:
        backend.release = "2"
    bundle, built = make(model, tmp_path, backend=backend, **options)
    assert not any(step.reused for step in built)
    m = bundle.manifest
    assert set(contents(tmp_path)) == {MANIFEST, m.model.path, *(engine.file.path for engine in m.engines)}
    assert not {engine.file.path for engine in m.engines} & old
    assert (m.model.sha256 == small.sha256) == (other != "model")


def test_leftovers_of_a_killed_build_are_removed(small: Model, tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    for part in (tmp_path / ".manifest.json.a1.part", tmp_path / "engines" / ".0123456789abcdef.b2.part"):
        part.write_bytes(b"half")
    make(small, tmp_path)
    assert not list(tmp_path.rglob("*.part"))


def test_files_of_others_in_the_same_place_are_left_alone(small: Model, tmp_path: Path) -> None:
    """--out may be the user's project, with a directory of sources that is called engines too."""
    theirs = [tmp_path / name for name in ("model-mine.onnx", "engines/__init__.py", "engines/backends/base.py", "notes.txt")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    make(small, tmp_path)
    make(small, tmp_path, "1.0", pad_to=4)
    assert all(path.read_text() == "mine" for path in theirs)


def test_an_earlier_bundle_stays_usable_until_the_new_one_is_whole(small: Model, tmp_path: Path) -> None:
    """A build of another model that fails leaves the old manifest and every file that it names."""
    make(small, tmp_path)
    other = small_model(seed=1)
    with pytest.raises(BackendError, match="no kernel for 6 channels"):
        make(other, tmp_path, backend=FakeBackend(refuses=[6]))
    images = random_images(4, small.image)
    bundle = Bundle(tmp_path)
    assert bundle.manifest.model.sha256 == small.sha256
    answers_rightly(bundle, small, images, {width: run(small.slice(width), images)[0] for width in bundle.widths})


@pytest.mark.parametrize("step", ["_store_model", "write_manifest"])
def test_cut_off_at_its_last_steps_a_build_leaves_the_earlier_bundle_whole(
    small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    make(small, tmp_path)
    before = contents(tmp_path)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"engines.build.{step}", cut_off)
    with pytest.raises(KeyboardInterrupt):
        make(small_model(seed=1), tmp_path, pad_to=1)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 16 + (step == "write_manifest")
    Bundle(tmp_path).open().close()


# How


def test_jobs_change_nothing_but_the_time(small: Model, tmp_path: Path) -> None:
    one, _ = make(small, tmp_path / "one", jobs=1, pad_to=1)
    four, built = make(small, tmp_path / "four", jobs=4, pad_to=1)
    assert contents(one.path) == contents(four.path)
    assert len(built) == 16


def test_two_builds_at_once_are_one_build_and_one_clear_error(small: Model, tmp_path: Path) -> None:
    started, go = threading.Event(), threading.Event()

    class Slow(FakeBackend):
        def compile(self, onnx_model: bytes, precision: str) -> bytes:
            started.set()
            assert go.wait(30)
            return super().compile(onnx_model, precision)

    results: list[Bundle] = []
    first = threading.Thread(target=lambda: results.append(make(small, tmp_path, backend=Slow())[0]))
    first.start()
    assert started.wait(30)
    with pytest.raises(BundleError, match=f"another build is at work in {tmp_path}; wait for it, or name another --out"):
        make(small, tmp_path, backend=FakeBackend())
    go.set()
    first.join(30)
    assert list(results[0].widths) == list(parse_grid(GRID))
    make(small, tmp_path, backend=FakeBackend())


def test_slices_that_the_backend_refuses_do_not_cost_the_others(small: Model, tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught:
        make(small, tmp_path, "0.25:1.0:0.25", FakeBackend(refuses=[6, 9]))
    assert str(caught.value) == (
        "2 of 4 engines could not be built, the others are kept: width 0.5: no kernel for 6 channels; width 0.75: no kernel for 9 channels"
    )
    with pytest.raises(BundleError, match="a build there is not finished"):
        Bundle(tmp_path)
    _, built = make(small, tmp_path, "0.25:1.0:0.25", FakeBackend())
    assert sorted((step.width, step.reused) for step in built) == [
        (Fraction(1, 4), True),
        (Fraction(1, 2), False),
        (Fraction(3, 4), False),
        (Fraction(1), True),
    ]


def test_an_error_of_the_disk_ends_the_build_and_leaves_no_part(small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, done = os.replace, []

    def full(source: str, target: Path) -> None:
        if len(done) == 3:
            raise OSError(28, "No space left on device")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left on device"):
        make(small, tmp_path, pad_to=1)
    monkeypatch.undo()
    assert len(done) == 3
    assert not list(tmp_path.rglob("*.part"))
    _, built = make(small, tmp_path, pad_to=1)
    assert [step.reused for step in built].count(True) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int4"}, "onnxruntime builds fp32, not 'int4'"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"pad_to": 0}, "padded to a multiple of 1 to 256, got 0"),
        ({"pad_to": 10**14}, "padded to a multiple of 1 to 256, got 100000000000000"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_written(
    small: Model, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(BackendError, match=words):
        make(small, tmp_path / "bundle", **options)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("widths", [[], [Fraction(1, 5), Fraction(1)]])
def test_widths_that_the_network_does_not_have_are_refused_before_anything_is_written(
    small: Model, tmp_path: Path, widths: list[Fraction]
) -> None:
    with pytest.raises(WidthError):
        build(small, widths, OnnxRuntime(), tmp_path / "bundle", grid="?")
    assert not (tmp_path / "bundle").exists()


# Killed


def names_and_contents_agree(out: Path) -> int:
    """No file under a final name is a part of one: each carries the hash of what it holds. Gives the number of engines."""
    for model in out.glob("model-*.onnx"):
        assert hashlib.sha256(model.read_bytes()).hexdigest()[:16] == model.stem.removeprefix("model-")
    engines = [path for path in out.glob("engines/*") if not path.name.startswith(".")]
    for engine in engines:
        assert hashlib.sha256(engine.read_bytes()).hexdigest() == engine.stem.split("-")[1]
    return len(engines)


def test_killed_at_20_moments_a_build_is_never_wrong_and_can_be_finished(shipped: Model, tmp_path: Path) -> None:
    """The same command again and again in one place, cut off while it starts, while it writes engines, and while the new manifest takes the
    place of an earlier bundle's and that one's files are cleared away. Whatever loads in between answers rightly.
    """
    out, grid, total, chance = tmp_path / "bundle", "0.25:1.0:0.01", 35, random.Random(20)
    images = random_images(2, shipped.image)
    expected = {width: run(shipped.slice(width), images)[0] for width in parse_grid(grid)}
    command = [sys.executable, str(ROOT / "tools/build_engines.py"), "--widths", grid, "--pad", "1", "--jobs", "2"]
    options = {"env": {**os.environ, "AWN_BUNDLE": str(out)}, "cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    earlier = make(shipped, tmp_path / "earlier", grid)[0]

    def engines() -> int:
        # The three of the earlier bundle do not count.
        named = {Path(engine.file.path).name for engine in earlier.manifest.engines}
        return sum(path.name not in named for path in out.glob("engines/[!.]*"))

    def manifest() -> tuple[int, int] | None:
        return ((found := (out / MANIFEST).stat()).st_ino, found.st_mtime_ns) if (out / MANIFEST).exists() else None

    def finish() -> None:
        done = subprocess.run(command, timeout=60, check=False, **options)
        assert done.returncode == 0, done.stderr.decode()

    starting, writing, finishing, loaded, round_ = 0, 0, 0, 0, 0
    for attempt in range(60):
        if starting + writing + finishing == 20:
            break
        there, old = engines(), manifest()
        process = subprocess.Popen(command, **options)
        if attempt % 4 == 0:
            time.sleep(chance.uniform(0, 1))
            kind = "starting"
        elif there < total:
            goal, kind = min(total, there + chance.randint(1, 18)), "writing"
            while process.poll() is None and engines() < goal:
                time.sleep(0.0002)
        else:
            kind = "finishing"
            while process.poll() is None and manifest() == old:
                pass
        time.sleep(chance.uniform(0, 0.002))
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            starting, writing, finishing = starting + (kind == "starting"), writing + (kind == "writing"), finishing + (kind == "finishing")
        names_and_contents_agree(out)
        try:
            bundle = Bundle(out)
            answers_rightly(bundle, shipped, images, expected)
            loaded += 1
        except BundleError as error:
            assert "there is no bundle" in str(error), error  # noqa: PT017
        if kind == "finishing" or process.returncode == 0:
            finish()
            # The next round builds over an earlier bundle, every other one from nothing.
            shutil.rmtree(out)
            round_ += 1
            if round_ % 2:
                shutil.copytree(earlier.path, out)
    assert starting + writing + finishing == 20
    assert min(starting, writing, finishing) >= 1
    assert loaded >= 1
    finish()
    assert names_and_contents_agree(out) == len(Bundle(out).manifest.engines) == total
    assert not list(out.rglob("*.part"))
    answers_rightly(Bundle(out), shipped, images, expected)
    written = times(out)
    finish()
    assert times(out) == written


def test_a_linked_directory_of_engines_is_refused(small: Model, tmp_path: Path) -> None:
    """Every load would say that the files lead out of the bundle, and a rebuild would not mend it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        make(small, tmp_path / "bundle")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_other_programs_parts_are_left_alone(small: Model, tmp_path: Path) -> None:
    """--out may be a directory in which something else is being written."""
    (tmp_path / ".download.iso.part").write_bytes(b"")
    make(small, tmp_path)
    assert (tmp_path / ".download.iso.part").exists()


def test_what_the_slicer_makes_is_what_decides_on_reuse(small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose slices differ must not keep the engines of the one before."""
    make(small, tmp_path, backend=FakeBackend())
    real = Model.slice

    def other(self: Model, *arguments: Any, **options: Any) -> Any:
        sliced = real(self, *arguments, **options)
        sliced.doc_string = "another slicer"
        return sliced

    monkeypatch.setattr(Model, "slice", other)
    _, built = make(small, tmp_path, backend=FakeBackend())
    assert not any(step.reused for step in built)
