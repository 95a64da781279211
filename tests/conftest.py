"""What every test shares: directories of its own, the shipped model and images, and bundles built once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from engines.backends import load_backend
from engines.build import build
from engines.bundle import Bundle
from engines.model import Model
from engines.widths import parse_grid
from sdk.profile import Profile, measure_profile
from tests.networks import small_model

ROOT = Path(__file__).resolve().parents[1]
GRID = "0.25:1.0:0.01"

# The same examples in every run: a test that fails only sometimes tells nobody which change broke it.
settings.register_profile("tests", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _own_directories(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reads or writes the user's own directories."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.delenv("AWN_BUNDLE", raising=False)
    monkeypatch.setenv("HOME", str(home))
    for kind in ("DATA", "STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))


@pytest.fixture(scope="session")
def shipped() -> Model:
    """The model file that ships."""
    return Model.read("lenet3c1l-mnist")


@pytest.fixture(scope="session")
def mnist() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The 500 MNIST test images that ship, and their labels."""
    with np.load(ROOT / "examples/data/mnist-test-500.npz") as file:
        return file["images"], file["labels"]


@pytest.fixture(scope="session")
def shipped_bundle(shipped: Model, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The 76 widths of the shipped model, as `tools/build_engines.py` builds them. Not to be changed."""
    out = tmp_path_factory.mktemp("shipped") / "bundle"
    return build(shipped, parse_grid(GRID), load_backend("onnxruntime"), out, grid=GRID)


@pytest.fixture(scope="session")
def small() -> Model:
    """A model file of a few kilobytes with a layer of every kind."""
    return small_model()


@pytest.fixture(scope="session")
def small_bundle(small: Model, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of the small model at sixteen widths. Not to be changed."""
    grid = "0.25:1.0:0.05"
    out = tmp_path_factory.mktemp("small") / "bundle"
    return build(small, parse_grid(grid), load_backend("onnxruntime"), out, grid=grid)


@pytest.fixture
def own_bundle(small_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the small bundle, to be damaged."""
    return Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def small_profile(small_bundle: Bundle) -> Profile:
    """A measured profile of the small bundle."""
    with small_bundle.open() as pool:
        return measure_profile(small_bundle, pool, seconds=0)
