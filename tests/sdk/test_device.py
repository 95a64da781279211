"""A device says what it is, from a /proc that the test lays out."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil
import pytest

from sdk.device import describe_device


def lay_out(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "proc" / name.replace("__", "/").replace("_", "-")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_board_is_known_by_its_device_tree(tmp_path: Path) -> None:
    """Its cpuinfo names no model; the device tree ends with a zero byte."""
    root = lay_out(tmp_path, device_tree__model="NVIDIA Jetson Orin Nano Developer Kit\0", cpuinfo="processor\t: 0\n")
    assert describe_device(root)["processor"] == "NVIDIA Jetson Orin Nano Developer Kit"


def test_a_computer_is_known_by_its_processor(tmp_path: Path) -> None:
    root = lay_out(tmp_path, cpuinfo="processor\t: 0\nmodel name\t: AMD EPYC 7B13: 64-Core \nmodel name\t: other\n")
    assert describe_device(root)["processor"] == "AMD EPYC 7B13: 64-Core"


@pytest.mark.parametrize("cpuinfo", [None, "processor\t: 0\nBogoMIPS\t: 50\n"])
def test_a_device_that_says_nothing_is_not_an_error(tmp_path: Path, cpuinfo: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    root = tmp_path if cpuinfo is None else lay_out(tmp_path, cpuinfo=cpuinfo)
    assert describe_device(root)["processor"] == "unknown"


def test_architecture_and_cores_are_this_machines() -> None:
    here = describe_device()
    assert here["architecture"] == platform.machine()
    assert here["cores"] == str(psutil.cpu_count())
    assert list(here) == ["processor", "architecture", "cores"]
