"""From a trained network to a model file: batch norm folded, masks applied, width rules and curve inside."""

from __future__ import annotations

import platform
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812  (torch's own habit)

from engines.errors import TrainingError
from engines.metadata import Axis, Metadata
from engines.model import Model, write_model
from engines.widths import format_width, parse_grid
from trainer.checkpoint import Header
from trainer.curve import measure_curve
from trainer.data import Images
from trainer.layers import DepthwiseConv2d, TriangularConv2d, TriangularLinear, set_width
from trainer.networks import AnyWidthNetwork
from trainer.norms import ActiveBatchNorm

OPSET, IR_VERSION = 17, 8
CURVE_STEP = "0.01"


def export(network: AnyWidthNetwork, header: Header, path: Path, test: Images) -> Model:
    """Write the model file of a trained network, with its curve on the test images at every hundredth.

    Args:
        network: The trained network.
        header: Its recipe, labels and versions.
        path: Where.
        test: Test images on the network's device.

    Returns:
        The model file, read back.

    Raises:
        TrainingError: the network has a part that cannot be exported; the message names it.
    """
    network.require_prefix("a model file, which is cut to every width,")
    a_min = format_width(network.rule.a_min)
    curve = measure_curve(network, test, parse_grid(f"{a_min}:1.0:{CURVE_STEP}"), data=f"{test.source or header.recipe.data} test")
    graph = _Graph(network)
    metadata = Metadata(
        name=header.recipe.name,
        a_min=a_min,
        divisor=network.rule.divisor,
        axes=graph.axes,
        groups=graph.groups,
        labels=header.labels,
        mean=header.mean,
        std=header.std,
        curve=curve,
        provenance={
            "recipe": msgspec.to_builtins(header.recipe),
            "data": header.data or header.recipe.data,
            "epochs": header.epochs_done or header.recipe.epochs,
            "versions": {**header.versions, "python": platform.python_version(), "onnx": version("onnx")},
        },
    )
    return write_model(path, graph.model(), metadata)


def check_export(network: AnyWidthNetwork) -> None:
    """Go through a network as `export` does, and write nothing.

    Raises:
        TrainingError: the network has a part that cannot be exported; the message names it.
    """
    _Graph(network)


class _Leaves(fx.Tracer):
    """Follow the features down to this project's layers and torch's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, TriangularConv2d | TriangularLinear | DepthwiseConv2d | ActiveBatchNorm)
        return ours or super().is_leaf_module(m, module_qualified_name)


class _Graph:
    """An ONNX graph being written, with the width rule of each initializer."""

    def __init__(self, network: AnyWidthNetwork) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.axes: dict[str, tuple[Axis | None, ...]] = {}
        self.groups: dict[str, Axis] = {}
        self.names: dict[fx.Node, str] = {}
        self._write()

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        height, width, channels = self.network.image
        classes = self.network.classifier.out_features
        graph = helper.make_graph(
            self.nodes,
            "any-width-network",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, channels])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _write(self) -> None:
        network = self.network
        set_width(network, Fraction(1))
        x = self._op("Cast", ["image"], to=TensorProto.FLOAT)
        x = self._op("Mul", [x, self._weight("scale", network.scale.cpu().numpy())])
        x = self._op("Add", [x, self._weight("shift", network.shift.cpu().numpy())])
        x = self._op("Transpose", [x], perm=[0, 3, 1, 2])
        try:
            trace = _Leaves().trace(network.features)
        except (fx.proxy.TraceError, TypeError) as error:
            raise TrainingError(f"cannot follow the features to export them, since they depend on what is in the image: {error}") from None
        modules = dict(network.features.named_modules())
        for node in trace.nodes:
            if node.op == "placeholder":
                self.names[node] = x
            elif node.op == "output":
                (result,) = node.args
                features = self.names[result]
            elif node.op == "call_module":
                self.names[node] = self._module(node, modules[str(node.target)])
            else:
                self.names[node] = self._function(node)
        classifier = network.classifier
        columns = Axis(classifier.channels, classifier.repeat)
        inputs = [
            features,
            self._weight("classifier.weight", _array(classifier.weight), (None, columns)),
            self._weight("classifier.bias", _array(classifier.bias)),
        ]
        self.nodes.append(helper.make_node("Gemm", inputs, ["logits"], name="classifier", transB=1))

    def _module(self, node: fx.Node, module: nn.Module) -> str:
        (source,) = (argument for argument in node.args if isinstance(argument, fx.Node))
        x = self.names[source]
        if isinstance(module, TriangularConv2d | TriangularLinear | DepthwiseConv2d):
            return self._layer(node, module, x)
        if isinstance(module, ActiveBatchNorm):
            return x  # folded into the layer before it
        if isinstance(module, nn.MaxPool2d) and module.dilation in (1, (1, 1)) and not module.ceil_mode:
            return self._op(
                "MaxPool",
                [x],
                kernel_shape=_pair(module.kernel_size),
                strides=_pair(module.stride),
                pads=2 * _pair(module.padding),
            )
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            return self._op("GlobalAveragePool", [x])
        simple = {
            nn.ReLU: self._relu,
            nn.ReLU6: self._relu6,
            nn.Flatten: self._flatten,
            nn.Identity: lambda x: x,
        }
        if type(module) in simple:
            return simple[type(module)](x)
        raise TrainingError(f"cannot export {type(module).__name__} ({node.target}); see trainer.layers for what a network may be made of")

    def _function(self, node: fx.Node) -> str:
        import operator

        inputs = [self.names[argument] for argument in node.args if isinstance(argument, fx.Node)]
        table: dict[object, Callable[..., str]] = {
            operator.add: lambda a, b: self._op("Add", [a, b]),
            torch.add: lambda a, b: self._op("Add", [a, b]),
            F.relu: self._relu,
            torch.relu: self._relu,
            F.relu6: self._relu6,
        }
        if node.target not in table:
            raise TrainingError(
                f"cannot export the operation {node.target} ({node.name}); use the modules of torch.nn that trainer.export names"
            )
        return table[node.target](*inputs)

    def _layer(self, node: fx.Node, layer: TriangularConv2d | TriangularLinear | DepthwiseConv2d, x: str) -> str:
        norm = self._norm_after(node)
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        shift = _array(norm.bias) - _array(norm.running_mean) * scale
        weight = _array(layer.weight)
        if not isinstance(layer, DepthwiseConv2d):
            weight = weight * _array(layer.mask)
        name = str(node.target)
        outputs = Axis(weight.shape[0])
        fixed = (None,) * (weight.ndim - 2)
        reads_all = isinstance(layer, DepthwiseConv2d) or (isinstance(layer, TriangularConv2d) and layer.image)
        rule = (outputs, None if reads_all else Axis(weight.shape[1]), *fixed)
        weight = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        inputs = [
            x,
            self._weight(f"{name}.weight", weight, rule),
            self._weight(f"{name}.bias", shift.astype(np.float32), (outputs,)),
        ]
        if isinstance(layer, TriangularLinear):
            return self._op("Gemm", inputs, name=name, transB=1)
        group = layer.groups
        if group != 1:
            self.groups[name] = outputs
        padding = layer.padding
        assert not isinstance(padding, str)
        return self._op(
            "Conv",
            inputs,
            name=name,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=2 * list(padding),
            group=group,
        )

    def _norm_after(self, node: fx.Node) -> ActiveBatchNorm:
        modules = dict(self.network.features.named_modules())
        users = [modules.get(str(user.target)) for user in node.users if user.op == "call_module"]
        if len(node.users) != 1 or not users or not isinstance(users[0], ActiveBatchNorm):
            raise TrainingError(f"cannot export {node.target}: a layer must be followed by one ActiveBatchNorm and nothing else")
        return users[0]

    def _weight(self, name: str, array: NDArray[np.generic], axes: tuple[Axis | None, ...] | None = None) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        if axes is not None:
            self.axes[name] = axes
        return name

    def _op(self, kind: str, inputs: list[str], *, name: str | None = None, **attributes: Any) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}:out"], name=name, **attributes))
        return f"{name}:out"

    def _relu(self, x: str) -> str:
        return self._op("Relu", [x])

    def _relu6(self, x: str) -> str:
        if not any(tensor.name == "zero" for tensor in self.weights):
            self._weight("zero", np.float32(0))
            self._weight("six", np.float32(6))
        return self._op("Clip", [x, "zero", "six"])

    def _flatten(self, x: str) -> str:
        return self._op("Flatten", [x], axis=1)


def _array(tensor: torch.Tensor | None) -> NDArray[np.float64]:
    """Float64, so that folding batch norm rounds once."""
    assert tensor is not None
    return tensor.detach().cpu().double().numpy()


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
