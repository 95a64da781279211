"""Memory of a process with all widths loaded, against one with a default session a width."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from engines.model import DEFAULT_MODEL, Model
from engines.widths import parse_grid
from tools.benches.measure import Figure, at_most, shown
from tools.benches.shipped import GRID, shipped_bundle
from tools.benches.shipped import SUBJECT as SUBJECT

LIMIT = 1 / 3
REPETITIONS = 3

# Each in a process of its own that prints its memory (USS, MB) before anything is loaded and after every engine ran.
_START = """
import sys, numpy, onnxruntime, psutil
def memory(): return psutil.Process().memory_full_info().uss / 1e6
"""
_OURS = (
    _START
    + """
from engines.bundle import Bundle
before = memory()
bundle = Bundle(sys.argv[1])
pool = bundle.open()
for exit in range(len(bundle.exits)): pool.run(exit)
print(before, memory())
"""
)
_DEFAULT = (
    _START
    + """
from pathlib import Path
before = memory()
sessions = [onnxruntime.InferenceSession(str(path)) for path in sorted(Path(sys.argv[1]).glob("*.onnx"))]
image = {"image": numpy.zeros(sessions[0].get_inputs()[0].shape[1:], numpy.uint8)[None]}
for session in sessions: session.run(None, image)
print(before, memory())
"""
)


def run() -> list[Figure]:
    """Both processes in turn, the slices of both padded alike."""
    ours, default = [], []
    with shipped_bundle() as bundle:
        model = Model.read(DEFAULT_MODEL)
        slices = bundle.path / "slices"
        slices.mkdir()
        for i, width in enumerate(parse_grid(GRID)):
            sliced = model.slice(width, pad_to=bundle.manifest.padding)
            (slices / f"{i:02d}.onnx").write_bytes(sliced.SerializeToString())
        for _ in range(REPETITIONS):
            ours.append(_measure(_OURS, str(bundle.path)))
            default.append(_measure(_DEFAULT, str(slices)))
    (base, all_ours), (_, all_default) = np.median(ours, axis=0), np.median(default, axis=0)
    print(
        f"process with numpy and onnxruntime imported: {base:.1f} MB; with all widths: {all_ours:.1f} MB; 76 sessions: {all_default:.1f} MB"
    )
    return [
        at_most("all widths against 76 default sessions, memory above the imports", (all_ours - base) / (all_default - base), LIMIT),
        shown("all widths against 76 default sessions, memory of the whole process", all_ours / all_default),
        shown("MB added by all widths", all_ours - base),
    ]


def _measure(program: str, argument: str) -> tuple[float, float]:
    output = subprocess.run([sys.executable, "-c", program, argument], check=True, capture_output=True, text=True).stdout
    before, after = map(float, output.split())
    return before, after
