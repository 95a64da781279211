"""The main job through the command lines: train, build, profile, evaluate, run."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sdk

REPO = Path(__file__).parents[2]
RECIPE = """
name = "tiny"
data = "mnist"
network = "lenet3c1l"
epochs = 2
batch = 32
lr = 0.05
seed = 3

[arguments]
channels = 4
widen = 1.0
"""


def tool(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool as the README shows it, from a directory that is not the repository."""
    command = [sys.executable, str(REPO / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=False)


def write_mnist(root: Path) -> None:
    """MNIST's files with images whose class shows in a bright row, 128 to train and 64 to test."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 128), ("t10k", 64)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.random.default_rng(0).integers(0, 40, (count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 2 : 2 * label + 4] = 250
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model trained by tools/train.py."""
    place = tmp_path_factory.mktemp("trained")
    write_mnist(place / "data")
    (place / "tiny.toml").write_text(RECIPE)
    done = tool("train.py", "--recipe", "tiny.toml", "--root", "data", "--out", "run", cwd=place)
    assert done.returncode == 0, done.stderr
    return place


def test_train_build_evaluate_agree_with_torch_image_by_image(trained: Path) -> None:
    built = tool("build_engines.py", "--model", "run/tiny.onnx", "--widths", "0.25:1.0:0.25", "--out", "bundle", cwd=trained)
    assert built.returncode == 0, built.stderr
    assert "4 widths, 4 different networks, in 1 engines (0 kept from before)" in built.stdout
    arguments = ("--bundle", "bundle", "--data", "mnist", "--root", "data", "--weights", "run/weights.safetensors", "--out", "counts.csv")
    done = tool("evaluate.py", *arguments, cwd=trained)
    assert done.returncode == 0, done.stderr
    assert "counts equal to the curve in the model file: 4 of 4 widths" in done.stdout
    assert "counts equal to torch: 4 of 4 widths" in done.stdout
    assert "images on which torch and the engines differ: 0 of 256" in done.stdout
    header, *rows = (trained / "counts.csv").read_text().splitlines()
    assert header.startswith("width,engine right,images")
    assert [row.split(",")[0] for row in rows] == ["0.25", "0.5", "0.75", "1.0"]


def test_resuming_a_finished_run_changes_nothing(trained: Path) -> None:
    before = (trained / "run" / "weights.safetensors").read_bytes()
    done = tool("train.py", "--recipe", "tiny.toml", "--root", "data", "--out", "run", "--resume", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "run" / "weights.safetensors").read_bytes() == before


def test_missing_data_says_which_files_go_where(trained: Path) -> None:
    done = tool("train.py", "--recipe", "tiny.toml", "--root", "nowhere", "--out", "other", cwd=trained)
    assert done.returncode == 2
    assert done.stderr.startswith("error: mnist was not found under nowhere")
    assert "MNIST/raw" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_users_two_lines_work_one_after_the_other(tmp_path: Path) -> None:
    """Build with no place named, then a classifier with no bundle named: both mean the same place."""
    done = tool("build_engines.py", "--widths", "0.25:1.0:0.01", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "76 widths, 35 different networks, in 3 engines" in done.stdout
    with sdk.AdaptiveClassifier(budget_ms=8) as classifier:
        prediction = classifier(np.zeros((28, 28), np.uint8))
    assert len(classifier.widths) == 76
    assert prediction.label in classifier.labels


def test_a_profile_is_written_where_the_classifier_looks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert tool("build_engines.py", "--widths", "0.5,1.0", cwd=tmp_path).returncode == 0
    done = tool("profile_device.py", "--time", "0.2", "--figure", "curve.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 engines (2 networks)" in done.stdout
    assert "width 1.0" in (tmp_path / "curve.svg").read_text()
    with sdk.AdaptiveClassifier():
        assert "no profile" not in caplog.text


def test_the_example_loop_writes_a_line_a_frame(tmp_path: Path) -> None:
    assert tool("build_engines.py", "--widths", "0.25:1.0:0.25", cwd=tmp_path).returncode == 0
    command = [sys.executable, str(REPO / "examples" / "robot_loop.py"), "--seconds", "2", "--hz", "50", "--out", "frames.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    header, *rows = (tmp_path / "frames.csv").read_text().splitlines()
    assert header == "frame,phase,budget_ms,width,latency_ms,met,right"
    assert len(rows) == 100
    assert [row.split(",")[1] for row in rows] == ["plenty"] * 25 + ["enough"] * 25 + ["tight"] * 25 + ["hopeless"] * 25
    assert len({row.split(",")[2] for row in rows}) == 4, "each phase has a budget of its own"
    assert "in budget" in done.stdout
    assert "files written: frames.csv" in done.stdout


def test_a_bench_ends_with_its_figures_as_json(tmp_path: Path) -> None:
    done = tool("bench.py", "padding", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bench"] == "padding"
    assert [set(figure) for figure in result["figures"]] == [{"name", "value", "limit", "holds"}] * 4
    assert all(0.05 < figure["value"] < 20 for figure in result["figures"])


def test_an_unknown_bench_is_one_line(tmp_path: Path) -> None:
    done = tool("bench.py", "speed", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: no bench is named 'speed'; there are: build, curve, memory, overhead, padding, switch, train-step"
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00"])
def test_damaged_images_are_one_line(tmp_path: Path, content: bytes) -> None:
    assert tool("build_engines.py", "--widths", "1.0", cwd=tmp_path).returncode == 0
    (tmp_path / "images.npz").write_bytes(content)
    done = tool("evaluate.py", "--images", "images.npz", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read labelled images from images.npz")
    assert len(done.stderr.splitlines()) == 1
