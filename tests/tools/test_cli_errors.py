"""A user's mistake is one line on stderr and exit code 2, from every command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import msgspec
import onnx
import pytest
from onnx import helper

from engines.bundle import FORMAT as BUNDLE_FORMAT
from engines.bundle import MANIFEST, Bundle, default_path
from engines.metadata import FORMAT
from engines.model import Model
from sdk.profile import profile_path
from tests.conftest import ROOT
from tests.engines.test_bundle import change
from tests.networks import small_network, stamp
from tools.cli import run

TOOLS = ("bench", "build_engines", "evaluate", "profile_device", "train")


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a tool in this process as its console command does."""

    def in_process(tool: str, *arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(import_module(f"tools.{tool}").app)
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0 if code is None else 1, *capfd.readouterr())

    return in_process


def refused(done: Done, *words: str) -> None:
    """One line that begins with "error:" and says these things."""
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert done.err.endswith("\n")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


@pytest.fixture
def model(small: Model, tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(small.data)
    return path


# Building


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ("0", "must be in (0, 1], got 0"),
        ("1.01", "must be in (0, 1], got 1.01"),
        ("0.25:1.01:0.01", "must be in (0, 1], got 1.01"),
        ("", "must be a number like 0.25"),
        ("a:b:c", "must be a number like 0.25"),
        ("0.25:1.0", "start:stop:step"),
        ("1:0.25:0.01", "from the narrower to the wider end"),
        ("0.25:1:0", "the step of a grid must be positive"),
        ("0.25:1:-0.1", "the step of a grid must be positive"),
        ("nan", "must be a number"),
        ("0.25:1:1e-999999999", "must be a number"),
        ("0.25:1:0.0000001", "the most is 10000"),
    ],
)
def test_bad_widths(call: Run, model: Path, tmp_path: Path, widths: str, words: str) -> None:
    refused(call("build_engines", f"--widths={widths}", "--model", model, "--out", tmp_path / "bundle"), words)
    assert not (tmp_path / "bundle").exists()


def test_widths_that_the_network_was_not_made_for(call: Run, model: Path, tmp_path: Path) -> None:
    done = call("build_engines", "--widths", "0.1:1:0.1", "--model", model, "--out", tmp_path / "bundle")
    refused(done, "width 0.1 is outside [0.25, 1.0], the widths this network was made for")
    assert not (tmp_path / "bundle").exists()


def test_a_missing_model(call: Run, tmp_path: Path) -> None:
    refused(call("build_engines", "--model", tmp_path / "no.onnx"), "cannot read the model file", "No such file", "one that ships: ")


def test_an_onnx_file_that_is_no_model_file(call: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(small_network()[1].SerializeToString())
    refused(call("build_engines", "--model", path), str(path), "is an ONNX file but not a model file", "tools/train.py")


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x89PNG\r\n\x1a\n" * 100])
def test_a_model_that_is_no_onnx_file(call: Run, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    refused(call("build_engines", "--model", path), str(path), " is not ")


def test_a_model_that_is_cut_off(call: Run, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-100])
    refused(call("build_engines", "--model", model), "is cut off")


def test_a_model_of_a_newer_format(call: Run, tmp_path: Path) -> None:
    _, proto, metadata = small_network()
    path = tmp_path / "newer.onnx"
    path.write_bytes(stamp(proto, msgspec.structs.replace(metadata, format=FORMAT + 1)))
    refused(call("build_engines", "--model", path), f"has format {FORMAT + 1}", "update this package")


def test_a_model_whose_shapes_do_not_fit_is_one_line_too(call: Run, tmp_path: Path) -> None:
    """ONNX lists one line a node."""
    _, proto, metadata = small_network()
    pool = next(node for node in proto.graph.node if node.op_type == "MaxPool")
    del pool.attribute[:]
    pool.attribute.append(helper.make_attribute("kernel_shape", [2]))
    onnx.checker.check_model(proto)
    path = tmp_path / "odd.onnx"
    path.write_bytes(stamp(proto, metadata))
    refused(call("build_engines", "--model", path), "its narrowest slice does not fit together")


def test_an_unknown_backend(call: Run, model: Path) -> None:
    refused(call("build_engines", "--model", model, "--backend", "abacus"), "no backend is named 'abacus'; there are: auto, onnxruntime")


def test_a_backend_that_is_not_installed(call: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.backends.onnxruntime.find_spec", lambda _: None)
    for backend in ("auto", "onnxruntime"):
        refused(call("build_engines", "--model", model, "--backend", backend), "pip install onnxruntime")


@pytest.mark.parametrize(
    ("option", "words"), [(("--precision", "int4"), "builds fp32, not 'int4'"), (("--pad", "0"), "multiple of 1 to 256, got 0")]
)
def test_options_that_the_backend_does_not_have(call: Run, model: Path, tmp_path: Path, option: tuple[str, str], words: str) -> None:
    refused(call("build_engines", "--model", model, "--out", tmp_path / "bundle", *option), words)


def test_a_place_that_cannot_be_written(call: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = call("build_engines", "--model", model, "--out", tmp_path / "file" / "bundle")
    refused(done, "Not a directory", str(tmp_path / "file"))


@pytest.mark.parametrize("arguments", [("--jobs", "0"), ("--pad", "many"), ("--nothing",), ("surplus",)])
def test_usage_errors_are_typers_own_and_end_with_2(call: Run, arguments: tuple[str, ...]) -> None:
    done = call("build_engines", *arguments)
    assert done.code == 2
    assert "Usage: " in done.err
    assert "Traceback" not in done.err


# Bundles


@pytest.fixture(params=["profile_device", "evaluate"])
def reader(request: pytest.FixtureRequest, call: Run) -> Callable[[Path | None], Done]:
    """A tool that opens a bundle."""

    def read(bundle: Path | None) -> Done:
        arguments = [] if bundle is None else ["--bundle", bundle]
        if request.param == "evaluate":
            arguments += ["--images", ROOT / "examples/data/mnist-test-500.npz"]
        return call(request.param, *arguments)

    return read


def test_no_bundle_yet(reader: Callable[[Path | None], Done]) -> None:
    place = default_path()
    refused(reader(None), f"there is no bundle at {place}; build one: awn-build-engines --widths 0.25:1.0:0.01 --out {place}")


def test_an_unfinished_build(reader: Callable[[Path | None], Done], own_bundle: Path) -> None:
    (own_bundle / MANIFEST).unlink()
    refused(reader(own_bundle), "a build there is not finished", f"--out {own_bundle}")


def test_a_changed_byte_in_the_manifest(reader: Callable[[Path | None], Done], own_bundle: Path) -> None:
    file = own_bundle / MANIFEST
    file.write_bytes(file.read_bytes().replace(b'"padding": 16', b'"padding": 15'))
    refused(reader(own_bundle), f"{file} was changed after the build")


def test_a_bundle_of_a_newer_format(reader: Callable[[Path | None], Done], own_bundle: Path) -> None:
    change(own_bundle, format=BUNDLE_FORMAT + 1)
    refused(reader(own_bundle), f"has format {BUNDLE_FORMAT + 1}", "update this package")


def test_a_changed_byte_in_an_engine(call: Run, own_bundle: Path) -> None:
    engine = own_bundle / Bundle(own_bundle).manifest.engines[0].file.path
    data = engine.read_bytes()
    engine.write_bytes(data[:200] + bytes([data[200] ^ 4]) + data[201:])
    refused(call("profile_device", "--bundle", own_bundle), f"{engine} was changed after the build", "rebuild it: ")


def test_a_bundle_of_another_machine(call: Run, own_bundle: Path) -> None:
    change(own_bundle, fingerprint={"architecture": "pdp11"})
    refused(call("profile_device", "--bundle", own_bundle), "was built for another device (architecture pdp11 there", "rebuild it here: ")


def test_the_command_of_the_error_builds_the_bundle(call: Run, own_bundle: Path) -> None:
    """Pasted as it stands."""
    change(own_bundle, fingerprint={"architecture": "pdp11"})
    command = call("profile_device", "--bundle", own_bundle).err.partition("rebuild it here: ")[2].split()
    assert command[0] == "awn-build-engines"
    assert call("build_engines", *command[1:]).code == 0
    Bundle(own_bundle).open().close()


def test_images_of_another_size(call: Run, own_bundle: Path) -> None:
    done = call("evaluate", "--bundle", own_bundle, "--images", ROOT / "examples/data/mnist-test-500.npz")
    refused(done, "has images of (28, 28, 1)", "read (8, 8, 1)")


def test_a_profile_that_cannot_be_written(call: Run, own_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = call("profile_device", "--bundle", own_bundle, "--time", "0.1", "--out", tmp_path / "file" / "p.json")
    refused(done, str(tmp_path / "file"))


# What works says so


def test_a_build_prints_one_line_of_what_it_made_and_the_second_says_what_it_kept(call: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    first = call("build_engines", "--widths", "0.25:1.0:0.25", "--model", model, "--out", out)
    assert first.code == 0
    assert first.out.startswith(f"{out}: 4 widths")
    assert "(0 kept from before)" in first.out
    assert first.out.count("\n") == 1
    second = call("build_engines", "--widths", "0.25:1.0:0.25", "--model", model, "--out", out)
    assert f"({len(Bundle(out).manifest.engines)} kept from before)" in second.out


def test_a_profile_is_written_where_the_classifier_looks(call: Run, own_bundle: Path) -> None:
    done = call("profile_device", "--bundle", own_bundle, "--time", "0.1")
    assert done.code == 0
    assert profile_path(Bundle(own_bundle)).is_file()
    assert str(profile_path(Bundle(own_bundle))) in done.out


@pytest.mark.parametrize("tool", TOOLS)
def test_help_has_an_example(call: Run, tool: str) -> None:
    done = call(tool, "--help")
    assert done.code == 0
    assert f"Example: python tools/{tool}.py " in " ".join(done.out.split())


# As programs of their own


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build_engines.py", "--widths", "1.01"], "must be in (0, 1], got 1.01"),
        (["build_engines.py", "--model", "no.onnx"], "cannot read the model file 'no.onnx'"),
        (["profile_device.py"], "build one: awn-build-engines --widths 0.25:1.0:0.01"),
    ],
)
def test_as_a_program_from_another_directory(tmp_path: Path, arguments: list[str], words: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=60, check=False)
    refused(Done(done.returncode, done.stdout, done.stderr), words)
