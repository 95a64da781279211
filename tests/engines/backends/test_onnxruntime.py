"""Backends by name, and the ONNX Runtime pool: one input, one output, no surprises."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from engines import backends
from engines.backends import NAMES, Exit, Interface, Pool, choose_backend, load_backend
from engines.backends import onnxruntime as module
from engines.errors import BackendError
from engines.model import Model
from tests.networks import random_images, run

WIDTHS = (Fraction(1, 4), Fraction(1, 2), Fraction(1))


@pytest.fixture
def pool(small: Model) -> Iterator[Pool]:
    engines = [module.BACKEND.compile(small.slice(width, pad_to=16).SerializeToString(), "fp32") for width in WIDTHS]
    exits = [Exit(engine, small.features(width)) for engine, width in enumerate(WIDTHS)]
    with module.BACKEND.open(engines, exits, Interface(small.image, 5), max_batch=4) as opened:
        yield opened


# The registry


def test_auto_takes_the_first_backend_that_can_be_used() -> None:
    backend, passed = choose_backend("auto")
    assert (backend.name, passed) == ("onnxruntime", [])


def test_a_backend_is_chosen_by_name() -> None:
    assert choose_backend("onnxruntime")[0] is load_backend("onnxruntime")


@pytest.mark.parametrize("name", ["", "onnx", "tensorflow"])
def test_an_unknown_backend_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(BackendError, match=f"no backend is named '{name}'; there are: auto, onnxruntime"):
        choose_backend(name)


def test_auto_is_a_choice_and_not_a_backend() -> None:
    """A manifest may not say "auto"."""
    assert NAMES[0] == "auto"
    with pytest.raises(BackendError, match="no backend is named 'auto'"):
        load_backend("auto")


@pytest.mark.parametrize("name", ["auto", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match="onnxruntime: the package onnxruntime is not installed: pip install onnxruntime"):
        choose_backend(name)


def test_auto_passes_over_what_cannot_be_used_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        BACKEND = type("Absent", (), {"missing": lambda self: "no such chip"})()

    monkeypatch.setattr(backends, "_MODULES", {"absent": "absent", **backends._MODULES})
    monkeypatch.setattr(backends, "import_module", lambda name: Absent if name == "absent" else module)
    assert choose_backend("auto") == (module.BACKEND, ["absent: no such chip"])


def test_the_version_is_that_of_whichever_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    assert module.BACKEND.version() == onnxruntime.__version__

    def only_gpu(package: str) -> str:
        if package != "onnxruntime-gpu":
            raise module.PackageNotFoundError(package)
        return "9.9"

    def none(package: str) -> str:
        raise module.PackageNotFoundError(package)

    monkeypatch.setattr(module, "version", only_gpu)
    assert module.BACKEND.version() == "9.9"
    monkeypatch.setattr(module, "version", none)
    assert module.BACKEND.version() == onnxruntime.__version__


def test_an_engine_depends_on_the_architecture() -> None:
    assert module.BACKEND.fingerprint() == {"architecture": platform.machine()}


# The pool


def test_each_engine_answers_as_its_slice(pool: Pool, small: Model) -> None:
    images = random_images(20, small.image)
    for engine, width in enumerate(WIDTHS):
        expected = run(small.slice(width), images)[0]
        for image, logits in zip(images, expected, strict=True):
            pool.images[0] = image
            pool.run(engine)
            np.testing.assert_allclose(pool.logits[0], logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_exits_of_one_engine_answer_as_the_slices_of_their_widths(small: Model, batch: int) -> None:
    engine = module.BACKEND.compile(small.slice(Fraction(1), pad_to=16, exits=True).SerializeToString(), "fp32")
    widths = [Fraction(i, 12) for i in range(3, 13)]
    images = random_images(batch, small.image)
    with module.BACKEND.open([engine], [Exit(0, small.features(width)) for width in widths], Interface(small.image, 5), 3) as pool:
        pool.images[:batch] = images
        for exit, width in reversed(list(enumerate(widths))):
            pool.run(exit, batch)
            np.testing.assert_allclose(pool.logits[:batch], run(small.slice(width), images)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_a_batch_equals_its_single_images(pool: Pool, small: Model, batch: int) -> None:
    pool.images[:] = random_images(4, small.image)
    images = pool.images.copy()
    for engine in range(3):
        pool.run(engine, batch)
        together = pool.logits[:batch].copy()
        for i in range(batch):
            pool.images[0] = images[i]
            pool.run(engine)
            np.testing.assert_allclose(pool.logits[0], together[i], rtol=0, atol=1e-6)
        pool.images[:] = images


def test_a_run_writes_no_further_than_its_batch(pool: Pool) -> None:
    pool.logits[:] = 77
    pool.run(2, 2)
    assert (pool.logits[2:] == 77).all()
    assert (pool.logits[:2] != 77).all()


def test_input_and_output_stay_where_they_are(pool: Pool, small: Model) -> None:
    """Switching between engines allocates nothing that an application would see."""
    images, logits = pool.images, pool.logits
    for engine in (0, 2, 1, 2, 0):
        pool.run(engine)
    assert pool.images is images
    assert pool.logits is logits
    assert images.shape == (4, *small.image)
    assert images.dtype == np.uint8
    assert logits.shape == (4, 5)
    assert logits.dtype == np.float32


def test_a_closed_pool_refuses_to_run_and_closes_twice(pool: Pool) -> None:
    pool.close()
    pool.close()
    with pytest.raises(BackendError, match="the pool is closed"):
        pool.run(0)


def test_garbage_is_refused_when_it_is_compiled_and_when_it_is_opened() -> None:
    with pytest.raises(BackendError, match="onnxruntime refused an engine: "):
        module.BACKEND.compile(b"not an engine", "fp32")
    with pytest.raises(BackendError, match="onnxruntime refused an engine: "):
        module.BACKEND.open([b"not an engine"], [Exit(0, 12)], Interface((8, 8, 1), 5), 1)


def test_an_engine_of_another_image_is_refused_when_it_is_opened(small: Model) -> None:
    """Every engine has run before the pool is handed out, so the first frame cannot be the one that finds out."""
    engine = small.slice(Fraction(1)).SerializeToString()
    with pytest.raises(BackendError, match="onnxruntime failed while running exit 0: "):
        module.BACKEND.open([engine], [Exit(0, 12)], Interface((9, 9, 1), 5), 1)


def test_an_engine_is_the_slice_itself(small: Model) -> None:
    data = small.slice(Fraction(1, 2), pad_to=16).SerializeToString(deterministic=True)
    assert module.BACKEND.compile(data, "fp32") == data
