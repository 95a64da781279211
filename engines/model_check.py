"""What must hold of a model file so that its leading blocks are the network at every width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from engines.errors import ModelError
from engines.widths import WidthRule

if TYPE_CHECKING:
    from engines.model import Metadata

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
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{name} is not valid ONNX: {str(error).splitlines()[0]}") from None
    return proto


def check(
    proto: onnx.ModelProto,
    metadata: Metadata,
    rule: WidthRule,
    weights: dict[str, NDArray[np.generic]],
    name: str,
) -> tuple[int, int, int]:
    """Check that slices are right: interface, operators, axes, and zeros where the mask is.

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
    _check_nodes(proto, metadata, rule, weights, name)
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


def _check_nodes(
    proto: onnx.ModelProto,
    metadata: Metadata,
    rule: WidthRule,
    weights: dict[str, NDArray[np.generic]],
    name: str,
) -> None:
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        tensor = node.input[1]
        axes = metadata.axes.get(tensor)
        if axes is None:
            raise ModelError(f"{name}: there is no width rule for the weights {tensor!r} of node {node.name!r}")
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        if group != 1:
            rules = metadata.groups.get(node.name)
            if rules is None or axes[0] != rules or group != rules.channels:
                raise ModelError(f"{name}: node {node.name!r} has {group} groups, which no rule makes follow the width")
        outputs, inputs = axes[0], axes[1]
        if outputs is None or inputs is None:
            continue  # reads the image, or is the classifier, or is depthwise
        kernel = weights[tensor]
        beyond = ~rule.mask(inputs.channels, outputs.channels)
        if inputs.repeat != 1 or outputs.repeat != 1 or np.any(kernel[beyond]):
            raise ModelError(
                f"{name}: the weights {tensor!r} are not triangular: some output channel reads an input channel that is not active at "
                f"every width at which it is; slices would not share features"
            )


def _list() -> str:
    return ", ".join(sorted(OPERATORS))
