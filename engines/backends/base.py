"""What a backend is: a compile half for build time and a run half for the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Interface:
    """What every engine of a bundle reads and writes.

    Attributes:
        image: Height, width and channels; the input is uint8 (N, H, W, C).
        classes: The output is float32 logits (N, classes).
    """

    image: tuple[int, int, int]
    classes: int


class Exit(NamedTuple):
    """One network of a bundle: an engine, and how many of its leading features the classifier reads.

    Networks whose channels are padded to the same size share an engine: by the prefix property the features of the widest of them
    begin with those of the others, so all that differs is where the classifier stops.

    Attributes:
        engine: Index of the engine.
        features: How many features the classifier reads.
    """

    engine: int
    features: int


class Pool(ABC):
    """The loaded engines of a bundle, which share one input, one output and their scratch memory.

    Switching is naming another exit: nothing is loaded, allocated or compiled on that path. Every engine has run before the pool is
    handed out. One thread at a time.

    Attributes:
        images: The input buffer, uint8 (max_batch, H, W, C): write the images here before `run`.
        logits: The output buffer, float32 (max_batch, classes): overwritten by the next `run`.
    """

    images: NDArray[np.uint8]
    logits: NDArray[np.float32]

    @abstractmethod
    def run(self, exit: int, batch: int = 1) -> None:
        """Run an exit, by its index, on the first `batch` images of the input buffer.

        Raises:
            BackendError: the runtime failed, or the pool is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the engines. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class Backend(ABC):
    """A runtime that engines are built for.

    Attributes:
        name: As command lines and manifests write it.
        suffix: Ending of an engine's file name.
        paddings: For each precision it can build, the multiple that hidden channels are padded to unless asked otherwise.
        exits: Whether its engines may serve several networks, by a second input `active` (features,) of ones and zeros.
    """

    name: str
    suffix: str
    paddings: Mapping[str, int]
    exits: bool

    @abstractmethod
    def missing(self) -> str | None:
        """Why this backend cannot be used here, with what to install; None if it can."""

    @abstractmethod
    def version(self) -> str:
        """Version of the runtime."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """What an engine depends on: a bundle loads only where all of this is equal."""

    @abstractmethod
    def compile(self, onnx_model: bytes, precision: str) -> bytes:
        """Make an engine of a slice.

        Args:
            onnx_model: The slice, as a serialised ONNX model.
            precision: One of `paddings`.

        Raises:
            BackendError: the runtime refused it; the message holds its own words.
        """

    @abstractmethod
    def open(self, engines: Sequence[bytes], exits: Sequence[Exit], interface: Interface, max_batch: int) -> Pool:
        """Load engines, in the order given, and run each exit once.

        Raises:
            BackendError: the runtime refused one.
        """
