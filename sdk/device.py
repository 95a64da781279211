"""What this device is, for profiles: a profile of another device is worth nothing."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil


def describe_device(root: Path = Path("/")) -> dict[str, str]:
    """Name of the machine or its processor, architecture and cores.

    Args:
        root: Where /proc lies; tests lay out their own.
    """
    return {
        "processor": _processor(root),
        "architecture": platform.machine(),
        "cores": str(psutil.cpu_count() or 0),
    }


def _processor(root: Path) -> str:
    # Single-board computers name themselves in the device tree; their /proc/cpuinfo names only the core.
    try:
        return (root / "proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        pass
    try:
        for line in (root / "proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
