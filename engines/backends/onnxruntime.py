"""ONNX Runtime on a CPU: the embedded default.

An engine is the slice itself. Each session runs on the calling thread: a session with threads of its own would spin beside the others
(ten times slower to switch between, and cores burnt while idle).
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engines.backends.base import Backend, Exit, Interface, Pool
from engines.errors import BackendError

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimePool(Pool):
    """Sessions on the CPU with prebound inputs and output."""

    def __init__(self, engines: Sequence[bytes], exits: Sequence[Exit], interface: Interface, max_batch: int) -> None:
        """Create the sessions and run every exit.

        Raises:
            BackendError: ONNX Runtime refused an engine.
        """
        self.images = np.zeros((max_batch, *interface.image), np.uint8)
        self.logits = np.zeros((max_batch, interface.classes), np.float32)
        self._sessions = [_session(engine) for engine in engines]
        self._exits = [(self._sessions[exit.engine], _active(self._sessions[exit.engine], exit.features)) for exit in exits]
        # The frame path runs one image: its bindings are made once.
        self._single = [self._bind(exit, 1) for exit in range(len(exits))]
        for exit in range(len(exits)):
            self.run(exit)

    def run(self, exit: int, batch: int = 1) -> None:
        """Run an exit on the first `batch` images of the input buffer."""
        if not self._sessions:
            raise BackendError("the pool is closed")
        binding = self._single[exit] if batch == 1 else self._bind(exit, batch)
        try:
            self._exits[exit][0].run_with_iobinding(binding)
        except Exception as error:  # the runtime's exceptions share no base of their own
            raise BackendError(f"onnxruntime failed while running exit {exit}: {error}") from error

    def close(self) -> None:
        """Free the sessions."""
        self._single, self._exits, self._sessions = [], [], []

    def _bind(self, exit: int, batch: int) -> onnxruntime.IOBinding:
        session, active = self._exits[exit]
        binding = session.io_binding()
        images, logits = self.images[:batch], self.logits[:batch]
        binding.bind_input("image", "cpu", 0, np.uint8, images.shape, images.ctypes.data)
        if active is not None:
            binding.bind_input("active", "cpu", 0, np.float32, active.shape, active.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return binding


class OnnxRuntime(Backend):
    """ONNX Runtime's CPU provider."""

    name = "onnxruntime"
    suffix = ".onnx"
    # Its convolution kernels work on blocks of 16 channels with AVX-512, of 8 with AVX2. What it gains is shown by the bench "padding".
    paddings = MappingProxyType({"fp32": 16})
    exits = True

    def missing(self) -> str | None:
        """Why it cannot be used here."""
        return None if find_spec("onnxruntime") else "the package onnxruntime is not installed: pip install onnxruntime"

    def version(self) -> str:
        """Version of the installed package, whichever of its builds it is."""
        for package in ("onnxruntime", "onnxruntime-gpu"):
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        import onnxruntime

        return str(onnxruntime.__version__)

    def fingerprint(self) -> dict[str, str]:
        """The processor's architecture, which the padding was chosen for."""
        return {"architecture": platform.machine()}

    def compile(self, onnx_model: bytes, precision: str) -> bytes:
        """The slice itself, once this runtime has shown that it takes it."""
        _session(onnx_model)
        return onnx_model

    def open(self, engines: Sequence[bytes], exits: Sequence[Exit], interface: Interface, max_batch: int) -> Pool:
        """Load engines and run each exit once."""
        return OnnxRuntimePool(engines, exits, interface, max_batch)


def _session(engine: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(engine, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no base of their own
        raise BackendError(f"onnxruntime refused an engine: {error}") from error


def _active(session: onnxruntime.InferenceSession, features: int) -> NDArray[np.float32] | None:
    """Ones for the features that the classifier reads, then zeros; None if the engine has but one exit."""
    size = next((entry.shape[0] for entry in session.get_inputs() if entry.name == "active"), None)
    return None if size is None else (np.arange(size) < features).astype(np.float32)


BACKEND = OnnxRuntime()
