"""What may import what, and what importing costs: a robot loads no trainer and no tools."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sdk
from tests.conftest import ROOT

FOLDERS = ("engines", "sdk", "tools", "trainer", "examples")
STANDARD = set(sys.stdlib_module_names) | {"__future__"}
# What each folder may import, besides itself and the standard library.
ALLOWED = {
    "engines": {"numpy", "msgspec", "platformdirs", "filelock", "onnx", "google", "onnxruntime", "typing_extensions"},
    "sdk": {"engines", "numpy", "msgspec", "platformdirs", "psutil", "typing_extensions"},
    "examples": {"sdk", "numpy"},
}
# Modules of `engines` that an application loads; the others need onnx, which is for building.
RUNTIME = {"__init__", "errors", "widths", "files", "bundle", "backends/__init__", "backends/base", "backends/onnxruntime"}


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative path"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    """engines: never sdk, trainer, tools. sdk: never trainer, tools, onnx, torch. examples: sdk and numpy alone."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): names for path in files if (names := imports(path) - STANDARD - ALLOWED[folder] - {folder})}
    assert wrong == {}


def test_the_trainer_imports_neither_sdk_nor_tools() -> None:
    for path in (ROOT / "trainer").rglob("*.py"):
        assert not imports(path) & {"sdk", "tools", "examples"}, path


def test_no_folder_imports_the_tests() -> None:
    for folder in FOLDERS:
        assert not any("tests" in imports(path) for path in (ROOT / folder).rglob("*.py"))


def test_what_an_application_loads_of_engines_needs_no_onnx() -> None:
    for name in RUNTIME:
        assert not imports(ROOT / "engines" / f"{name}.py") & {"onnx", "google", "filelock"}, name


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_sdk_loads_no_torch_no_backend_and_no_tools() -> None:
    heavy = ["torch", "torchvision", "onnxruntime", "onnx", "tensorrt", "typer", "rich", "click", "filelock", "matplotlib", "PIL", "google"]
    ours = ["trainer", "tools", "engines.build", "engines.model", "engines.model_check", "engines.backends.onnxruntime"]
    loaded = run_python(f"import sys, sdk; print(sorted(set({heavy + ours!r}) & set(sys.modules)))")
    assert loaded == "[]"


def test_a_classifier_loads_its_backend_and_neither_onnx_nor_torch(small_bundle: object) -> None:
    """onnx is for building: a device that only runs a bundle need not have it."""
    path = small_bundle.path  # type: ignore[attr-defined]
    code = (
        "import sys, numpy, sdk, sdk.profile\n"
        "sdk.profile.MAX_ROUNDS = 5\n"
        f"classifier = sdk.AdaptiveClassifier({str(path)!r})\n"
        "classifier(numpy.zeros((8, 8), numpy.uint8))\n"
        "print(sorted({'onnx', 'torch', 'filelock', 'typer', 'onnxruntime'} & set(sys.modules)))"
    )
    assert run_python(code) == "['onnxruntime']"


def test_all_is_sorted_and_complete() -> None:
    """Everything public that `sdk` itself imports is in `__all__`, and nothing else is."""
    assert sdk.__all__ == sorted(sdk.__all__)
    assert len(set(sdk.__all__)) == len(sdk.__all__)
    tree = ast.parse((ROOT / "sdk/__init__.py").read_text())
    named = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(sdk.__all__) == named
    assert all(hasattr(sdk, name) for name in sdk.__all__)


def test_every_error_that_a_user_may_meet_is_exported_and_one_of_ours() -> None:
    from engines import errors

    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes - set(sdk.__all__) == {"TrainingError"}
    assert all(issubclass(getattr(errors, name), errors.AwnError) for name in classes)


def test_a_type_checker_finds_the_types() -> None:
    assert (ROOT / "sdk/py.typed").exists()
    assert (ROOT / "engines/py.typed").exists()
