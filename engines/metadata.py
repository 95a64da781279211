"""What a model file says of its network: width rules, labels, the width-accuracy curve, provenance."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError
from engines.formats import decode_format
from engines.widths import parse_width

FORMAT = 1
# The entry of an ONNX file's metadata that holds it.
KEY = "awn"


class Axis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An axis of an initializer that runs over channels.

    Attributes:
        channels: Channels of the dimension at full width.
        repeat: Consecutive entries a channel; 16 for a flattened 4x4 map.
    """

    channels: int
    repeat: int = 1


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A width-accuracy curve, as counts of right answers.

    Attributes:
        data: Which images, for example "mnist test".
        images: How many.
        correct: How many of them each width got right; keys as `format_width` writes them.
    """

    data: str
    images: int
    correct: dict[str, int]

    def __post_init__(self) -> None:
        if self.images < 1 or not self.correct or not all(0 <= count <= self.images for count in self.correct.values()):
            raise ValueError("a curve must have widths, images, and of them between none and all right at each width")

    def accuracy(self, width: Fraction) -> float:
        """Share of right answers at a width; linear between measured widths, constant beyond them."""
        widths, shares = self._points()
        return float(np.interp(float(width), widths, shares))

    def area(self) -> float:
        """Mean accuracy over the measured range of widths by the trapezoid rule: the paper's AUC, as a share (section 5)."""
        widths, shares = self._points()
        if len(widths) == 1:
            return float(shares[0])
        heights = (shares[1:] + shares[:-1]) / 2
        return float((heights * np.diff(widths)).sum() / (widths[-1] - widths[0]))

    def _points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        points = sorted((parse_width(text), count / self.images) for text, count in self.correct.items())
        return np.array([float(width) for width, _ in points]), np.array([share for _, share in points])


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model file says of its network.

    Attributes:
        format: Version of this layout.
        name: Name of the model.
        a_min: The narrowest width, as text.
        divisor: Channels are activated in units of this many.
        axes: For each initializer that depends on the width, one entry an axis: None where the axis is fixed.
        groups: For each node with a group count that follows the width (depthwise convolutions), its channels.
        labels: Class names, in the order of the logits.
        mean: Mean of each image channel that the graph subtracts, for pixels in 0 to 1.
        std: Standard deviation of each image channel that the graph divides by.
        curve: Accuracy of each width, if it was measured.
        provenance: Recipe, data, seed and versions, for people.
    """

    format: int = FORMAT
    name: str
    a_min: str
    divisor: int
    axes: dict[str, tuple[Axis | None, ...]]
    groups: dict[str, Axis]
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    curve: Curve | None = None
    provenance: dict[str, object] = {}


def decode(text: str, name: str) -> Metadata:
    """Read the metadata of a model file; `name` is for error messages.

    Raises:
        ModelError: they are damaged or of a newer format.
    """

    try:
        return decode_format(text, Metadata, newest=FORMAT, name=name, error=ModelError)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{name}: its {KEY!r} metadata is damaged: {error}") from None
