"""The model file: the full-width network as ONNX with its width rules, and its slices.

Normalisation is inside the graph and batch norm is folded. `metadata_props["awn"]` holds a `Metadata` as JSON. A slice takes leading
blocks of the initializers and sets group counts; the graph's shape never changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from engines import model_check
from engines.errors import ModelError
from engines.files import write_atomically
from engines.metadata import KEY, Axis, Metadata, decode
from engines.widths import WidthRule, parse_width

ACTIVE = "active"
ZOO = Path(__file__).parent / "zoo"
DEFAULT_MODEL = "lenet3c1l-mnist"


class Model:
    """A checked model file.

    Attributes:
        metadata: What the file says of its network.
        rule: Its width rule.
        data: The whole file.
        sha256: Its hash.
        image: Height, width and channels of the input.
    """

    def __init__(self, data: bytes, name: str) -> None:
        """Read a model file from its bytes; `name` is for error messages.

        Raises:
            ModelError: the bytes are not an ONNX file, not a model file of this project, of a newer format, or break the rules that
                make slices right.
        """
        self._proto = model_check.parse(data, name)
        self.metadata = _metadata(self._proto, name)
        try:
            self.rule = WidthRule(parse_width(self.metadata.a_min), self.metadata.divisor)
            if self.metadata.curve is not None:
                self.metadata.curve.area()
        except ValueError as error:
            raise ModelError(f"{name}: {error}") from None
        self._weights = model_check.read_weights(self._proto, name)
        self.image = model_check.check(self._proto, self.metadata, self.rule, self._weights, name)
        self.data, self.sha256 = data, hashlib.sha256(data).hexdigest()
        try:
            onnx.shape_inference.infer_shapes(self.slice(self.rule.a_min), check_type=True, strict_mode=True)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            raise ModelError(f"{name}: its narrowest slice does not fit together: {str(error).splitlines()[0]}") from None

    @classmethod
    def read(cls, path: str | Path) -> Model:
        """Read a model file by path, or by the name of one that ships (`engines/zoo`).

        Raises:
            ModelError: it is missing, or as for the constructor.
        """
        shipped = {entry.stem: entry for entry in ZOO.glob("*.onnx")}
        file = shipped.get(str(path), Path(path))
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ModelError(
                f"cannot read the model file {str(path)!r}: {error.strerror}; give a path, or one that ships: {', '.join(sorted(shipped))}"
            ) from None
        return cls(data, str(file))

    @cached_property
    def dimensions(self) -> tuple[int, ...]:
        """The different channel counts that dimensions have at full width, ascending."""
        axes = [axis for rules in self.metadata.axes.values() for axis in rules if axis is not None]
        return tuple(sorted({axis.channels for axis in [*axes, *self.metadata.groups.values()]}))

    def channels(self, width: Fraction) -> tuple[int, ...]:
        """Active channels at a width, for each of `dimensions`; widths with equal channels are the same network.

        Raises:
            WidthError: the network does not run at this width.
        """
        self.rule.check(width)
        return tuple(self.rule.active(dimension, width) for dimension in self.dimensions)

    def features(self, width: Fraction) -> int:
        """How many features the classifier reads at a width."""
        return self.rule.active(self._columns.channels, width) * self._columns.repeat

    def slice(self, width: Fraction, *, pad_to: int = 1, exits: bool = False) -> onnx.ModelProto:
        """The network of one width.

        Args:
            width: The width.
            pad_to: Pad each hidden dimension with zero channels up to a multiple of this: the same function, on kernels that want
                whole blocks.
            exits: Give it a second input `active`, float32 (features,), that multiplies what the classifier reads. With ones for the
                features of a narrower width and zeros for the rest, the logits are those of that width.

        Returns:
            An ONNX model with the inputs and outputs of the model file. No array of the model file is shared with it.

        Raises:
            WidthError: the network does not run at this width.
        """
        self.rule.check(width)
        sliced = onnx.ModelProto()
        sliced.CopyFrom(self._skeleton)
        for name, array in self._weights.items():
            block = _block(array, self.metadata.axes.get(name, ()), self.rule, width, pad_to)
            sliced.graph.initializer.append(numpy_helper.from_array(block, name))
        for node in sliced.graph.node:
            if node.name in self.metadata.groups:
                channels = padded(self.rule.active(self.metadata.groups[node.name].channels, width), pad_to)
                for attribute in node.attribute:
                    if attribute.name == "group":
                        attribute.i = channels
        if exits:
            self._add_exits(sliced, padded(self.rule.active(self._columns.channels, width), pad_to) * self._columns.repeat)
        return sliced

    def _add_exits(self, sliced: onnx.ModelProto, features: int) -> None:
        *others, classifier = sliced.graph.node
        gate = onnx.helper.make_node("Mul", [classifier.input[0], ACTIVE], [f"{ACTIVE}:out"], name=ACTIVE)
        classifier.input[0] = gate.output[0]
        del sliced.graph.node[:]
        sliced.graph.node.extend([*others, gate, classifier])
        sliced.graph.input.append(onnx.helper.make_tensor_value_info(ACTIVE, onnx.TensorProto.FLOAT, [features]))

    @cached_property
    def _columns(self) -> Axis:
        """The rule of what the classifier reads; the checks made sure that the last node is the classifier."""
        columns = self.metadata.axes[self._proto.graph.node[-1].input[1]][1]
        assert columns is not None
        return columns

    @cached_property
    def _skeleton(self) -> onnx.ModelProto:
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(self._proto)
        del skeleton.graph.initializer[:], skeleton.graph.value_info[:], skeleton.metadata_props[:]
        return skeleton


def write_model(path: Path, proto: onnx.ModelProto, metadata: Metadata) -> Model:
    """Write a model file after checking it as a reader will.

    Args:
        path: Where.
        proto: The full-width network; its "awn" metadata is set by this.
        metadata: What to say of it.

    Returns:
        The model, as read back from the bytes that were written.

    Raises:
        ModelError: a reader would refuse it; nothing is written.
    """
    stamped = onnx.ModelProto()
    stamped.CopyFrom(proto)
    onnx.helper.set_model_props(stamped, {KEY: msgspec.json.encode(metadata).decode()})
    data = stamped.SerializeToString(deterministic=True)
    model = Model(data, str(path))
    write_atomically(path, data)
    return model


def _metadata(proto: onnx.ModelProto, name: str) -> Metadata:
    text = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    if text is None:
        raise ModelError(
            f"{name} is an ONNX file but not a model file: it has no {KEY!r} metadata with the width rules; "
            f"export one from a trained network (tools/train.py does)"
        )
    return decode(text, name)


def _block(array: NDArray[np.generic], axes: Sequence[Axis | None], rule: WidthRule, width: Fraction, pad_to: int) -> NDArray[np.generic]:
    """The leading block of an initializer at a width, with zeros up to the padded size."""
    if not axes:
        return array
    active = [array.shape[i] if axis is None else rule.active(axis.channels, width) * axis.repeat for i, axis in enumerate(axes)]
    sizes = [
        array.shape[i] if axis is None else padded(rule.active(axis.channels, width), pad_to) * axis.repeat for i, axis in enumerate(axes)
    ]
    leading = tuple(slice(0, size) for size in active)
    if active == sizes:
        return np.ascontiguousarray(array[leading])
    block = np.zeros(sizes, array.dtype)
    block[leading] = array[leading]
    return block


def padded(channels: int, pad_to: int) -> int:
    """The channels, rounded up to a multiple."""
    return -(-channels // pad_to) * pad_to
