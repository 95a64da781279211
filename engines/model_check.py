"""What must hold of a model file so that its leading blocks are the network at every width."""

from __future__ import annotations

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.errors import ModelError
from engines.metadata import Axis, Metadata
from engines.widths import WidthRule

OPSET = 17
INPUT, OUTPUT = "image", "logits"

# Operators that act on each channel by itself, or (Conv, Gemm) whose weights the checks below look at. Any other could mix channels in
# a way that changes with the width.
OPERATORS = frozenset(
    [
        "Add",
        "AveragePool",
        "Cast",
        "Clip",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "HardSwish",
        "Identity",
        "MaxPool",
        "Mul",
        "Relu",
        "Transpose",
    ]
)


def parse(data: bytes, name: str) -> onnx.ModelProto:
    """Bytes to a checked ONNX model without external files.

    Raises:
        ModelError: the bytes are not ONNX, break its rules, or point outside the file.
    """
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise ModelError(f"{name} is not an ONNX file, or is cut off ({len(data)} bytes)") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ModelError(f"{name} keeps weights in other files; a model file holds all of them itself")
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{name} is not valid ONNX: {str(error).splitlines()[0]}") from None
    return proto


def read_weights(proto: onnx.ModelProto, name: str) -> dict[str, NDArray[np.generic]]:
    """The initializers as arrays.

    Raises:
        ModelError: one has more or fewer bytes than its shape, or a type that there is not.
    """
    weights: dict[str, NDArray[np.generic]] = {}
    for tensor in proto.graph.initializer:
        try:
            weights[tensor.name] = numpy_helper.to_array(tensor)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{name}: the initializer {tensor.name!r} is damaged: {error}") from None
    return weights


def check(
    proto: onnx.ModelProto,
    metadata: Metadata,
    rule: WidthRule,
    weights: dict[str, NDArray[np.generic]],
    name: str,
) -> tuple[int, int, int]:
    """Check that slices are right: interface, operators, axes, groups, how channels flow, and zeros where the mask is.

    Returns:
        Height, width and channels of the image.

    Raises:
        ModelError: something is not as it must be; the message names it.
    """
    image = _check_interface(proto, metadata, name)
    for node in proto.graph.node:
        if node.op_type not in OPERATORS or node.domain:
            raise ModelError(f"{name}: operator {node.op_type} of node {node.name!r} is not one that any width can be cut from: {_list()}")
    for tensor, axes in metadata.axes.items():
        _check_axes(tensor, axes, weights, rule, name)
    _check_groups(proto, metadata, name)
    _Flow(metadata, rule, weights, name).follow(proto)
    return image


def _check_interface(proto: onnx.ModelProto, metadata: Metadata, name: str) -> tuple[int, int, int]:
    opset = max((entry.version for entry in proto.opset_import if not entry.domain), default=0)
    if opset < OPSET:
        raise ModelError(f"{name} uses ONNX opset {opset}, expected {OPSET} or later")
    graph = proto.graph
    if [value.name for value in graph.input] != [INPUT] or [value.name for value in graph.output] != [OUTPUT]:
        raise ModelError(f"{name} must have one input {INPUT!r} and one output {OUTPUT!r}")
    kind = graph.input[0].type.tensor_type
    shape = [entry.dim_value for entry in kind.shape.dim]
    if kind.elem_type != onnx.TensorProto.UINT8 or len(shape) != 4 or shape[0] != 0 or min(shape[1:], default=0) < 1:
        raise ModelError(f"{name}: the input must be uint8 (N, height, width, channels) with N left open, got {shape}")
    classes = [entry.dim_value for entry in graph.output[0].type.tensor_type.shape.dim]
    if len(classes) != 2 or classes[1] != len(metadata.labels) or not metadata.labels:
        raise ModelError(f"{name}: the output must be (N, {len(metadata.labels)}), one logit a label, got {classes}")
    height, width, channels = shape[1:]
    if len(metadata.mean) != channels or len(metadata.std) != channels:
        raise ModelError(f"{name}: mean and std must have {channels} entries, one an image channel")
    return height, width, channels


def _check_axes(
    tensor: str,
    axes: tuple[object, ...],
    weights: dict[str, NDArray[np.generic]],
    rule: WidthRule,
    name: str,
) -> None:
    if tensor not in weights:
        raise ModelError(f"{name}: there is a rule for {tensor!r}, which is not an initializer")
    shape = weights[tensor].shape
    if len(axes) != len(shape):
        raise ModelError(f"{name}: {tensor!r} has shape {shape}, its rule has {len(axes)} axes")
    for size, axis in zip(shape, axes, strict=True):
        if axis is None:
            continue
        channels, repeat = axis.channels, axis.repeat  # type: ignore[attr-defined]
        if repeat < 1 or channels < 1 or channels % rule.divisor or channels * repeat != size:
            raise ModelError(
                f"{name}: an axis of {tensor!r} has size {size}, its rule {channels} channels x {repeat} at divisor {rule.divisor}"
            )


def _check_groups(proto: onnx.ModelProto, metadata: Metadata, name: str) -> None:
    for node, axis in metadata.groups.items():
        named = [entry for entry in proto.graph.node if entry.name == node]
        if len(named) != 1 or named[0].op_type != "Conv" or _attribute(named[0], "group", 1) != axis.channels:
            raise ModelError(f"{name}: there is a rule for the {axis.channels} groups of node {node!r}, which is not one such convolution")


class _Flow:
    """Follows channels through the graph, so that what a layer reads is what the layer before it gives, at every width.

    Attributes:
        channels: For each tensor computed so far, its channels at full width; None if they are the same at every width.
    """

    def __init__(self, metadata: Metadata, rule: WidthRule, weights: dict[str, NDArray[np.generic]], name: str) -> None:
        self.metadata, self.rule, self.weights, self.name = metadata, rule, weights, name
        self.channels: dict[str, int | None] = {INPUT: None}

    def follow(self, proto: onnx.ModelProto) -> None:
        """Check all nodes, in the graph's order."""
        for node in proto.graph.node:
            computed = [tensor for tensor in node.input if tensor and tensor not in self.weights]
            if not computed or any(tensor not in self.channels for tensor in computed):
                raise self._error(node, "reads something that is neither the image, nor computed from it, nor an initializer")
            layer = node.op_type in ("Conv", "Gemm")
            self.channels[node.output[0]] = self._layer(node) if layer else self._each_channel(node, computed)
        last = proto.graph.node[-1]
        axes = self.metadata.axes.get(last.input[1], ()) if last.op_type == "Gemm" else ()
        if last.output[0] != OUTPUT or len(axes) != 2 or axes[0] is not None or axes[1] is None:
            raise self._error(last, "must be the classifier: a Gemm that gives the logits from features that follow the width")

    def _layer(self, node: onnx.NodeProto) -> int | None:
        """A convolution or a matrix product: its weights follow what it reads, and are triangular."""
        tensor = node.input[1]
        axes = self.metadata.axes.get(tensor)
        if axes is None:
            raise self._error(node, f"has weights {tensor!r} without a width rule")
        if len(axes) < 2 or (node.op_type == "Gemm" and (not _attribute(node, "transB", 0) or _attribute(node, "transA", 0))):
            raise self._error(node, "must have output channels first in its weights, then input channels")
        outputs, inputs = axes[:2]
        given = self.channels.get(node.input[0])
        if (group := _attribute(node, "group", 1)) != 1 or node.name in self.metadata.groups:
            if outputs is None or outputs != self.metadata.groups.get(node.name):
                raise self._error(node, f"has {group} groups, which no rule makes follow the width")
            if inputs is not None or given != outputs.channels:
                raise self._error(node, f"must be depthwise: {given} channels come in, {group} groups")
        elif given != (inputs.channels if inputs else None):
            raise self._error(node, f"has weights {tensor!r} with another rule for their input channels than what it reads")
        self._check_bias(node, outputs)
        if outputs is None and given is not None and node.output[0] != OUTPUT:
            raise self._error(node, "gives all its output channels at every width, which only the classifier may")
        if outputs is not None and inputs is not None:
            beyond = ~self.rule.mask(inputs.channels, outputs.channels)
            if inputs.repeat != 1 or outputs.repeat != 1 or np.any(self.weights[tensor][beyond]):
                raise self._error(
                    node,
                    f"has weights {tensor!r} that are not triangular: some output channel reads an input channel that is not active at "
                    f"every width at which it is; slices would not share features",
                )
        return outputs.channels if outputs else None

    def _check_bias(self, node: onnx.NodeProto, outputs: Axis | None) -> None:
        if len(node.input) < 3 or not node.input[2]:
            return
        bias, size = node.input[2], self.weights[node.input[1]].shape[0]
        rule = self.metadata.axes.get(bias, (None,))
        if bias not in self.weights or self.weights[bias].shape != (size,) or rule != (outputs,):
            raise self._error(node, f"has a bias {bias!r} that does not follow its {size} output channels")

    def _each_channel(self, node: onnx.NodeProto, computed: list[str]) -> int | None:
        """An operator that keeps channels apart, if what it reads lines up."""
        given = self.channels[computed[0]]
        if any(self.channels[tensor] != given for tensor in computed):
            raise self._error(node, "joins tensors with different channels")
        if given is None:
            return None
        if node.op_type == "Transpose" or (node.op_type == "Flatten" and _attribute(node, "axis", 1) != 1):
            raise self._error(node, "moves channels, which only the image's may be")
        for tensor in node.input:
            if tensor in self.weights and self.weights[tensor].size != 1:
                rules = [axis.channels for axis in self.metadata.axes.get(tensor, ()) if axis]
                if rules != [given]:
                    raise self._error(node, f"reads {tensor!r}, which does not follow the {given} channels beside it")
        return given

    def _error(self, node: onnx.NodeProto, what: str) -> ModelError:
        return ModelError(f"{self.name}: node {node.name!r} ({node.op_type}) {what}")


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def _list() -> str:
    return ", ".join(sorted(OPERATORS))
