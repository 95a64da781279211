"""Random triangular networks as model files, written with numpy and onnx alone: what tests cut slices from."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.metadata import KEY, Axis, Curve, Metadata
from engines.model import Model
from engines.widths import WidthRule, format_width

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


class Network:
    """A random network being written, layer by layer; every layer keeps the channel order.

    Attributes:
        hidden: Name of each activation that a triangular layer or the classifier may read, with its channels at full width.
        features: What the classifier reads.
    """

    def __init__(self, rule: WidthRule, image: tuple[int, int, int], *, classes: int = 5, seed: int = 0) -> None:
        self.rule, self.image, self.classes = rule, image, classes
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[np.float32]] = {}
        self.axes: dict[str, tuple[Axis | None, ...]] = {}
        self.groups: dict[str, Axis] = {}
        self.hidden: dict[str, int] = {}
        self.channels, self.flat, self.side = 0, False, image[0]
        self.weights["scale"] = np.full(image[2], 1 / 128, np.float32)
        self.weights["shift"] = np.full(image[2], -1, np.float32)
        x = self._op("Cast", ["image"], to=FLOAT)
        x = self._op("Mul", [x, "scale"])
        x = self._op("Add", [x, "shift"])
        self.x = self._op("Transpose", [x], perm=[0, 3, 1, 2])
        self.repeat = 1

    def conv(self, channels: int, kernel: int = 3, stride: int = 1) -> None:
        """A convolution that reads the image if it is the first, else a triangular one; same padding."""
        name, inputs = f"conv{len(self.nodes)}", self.channels or self.image[2]
        weight = self.rng.standard_normal((channels, inputs, kernel, kernel)) * np.sqrt(2 / (inputs * kernel**2))
        if self.channels:
            weight *= self.rule.mask(inputs, channels)[:, :, None, None]
        self._weight(f"{name}.weight", weight, (Axis(channels), Axis(inputs) if self.channels else None, None, None))
        self._conv(name, channels, kernel, stride, group=1)

    def depthwise(self, kernel: int = 3, stride: int = 1) -> None:
        """A convolution of each channel by itself."""
        name, channels = f"depthwise{len(self.nodes)}", self.channels
        self._weight(f"{name}.weight", self.rng.standard_normal((channels, 1, kernel, kernel)) / kernel, (Axis(channels), None, None, None))
        self.groups[name] = Axis(channels)
        self._conv(name, channels, kernel, stride, group=channels)

    def activation(self, kind: str) -> None:
        """Relu, HardSwish, or Clip as ReLU6."""
        inputs = [self.x]
        if kind == "Clip":
            self.weights.update(zero=np.array(0, np.float32), six=np.array(6, np.float32))
            inputs += ["zero", "six"]
        self._hidden(self._op(kind, inputs))

    def residual(self, inner: int) -> None:
        """An inverted residual block: 1x1 to `inner` channels, depthwise, 1x1 back, plus what came in."""
        before, channels = self.x, self.channels
        self.conv(inner, kernel=1)
        self.activation("Clip")
        self.depthwise()
        self.activation("Clip")
        self.conv(channels, kernel=1)
        self._hidden(self._op("Add", [before, self.x]))

    def pool(self, kind: str = "MaxPool") -> None:
        """MaxPool or AveragePool, 2x2."""
        self.side //= 2
        self._hidden(self._op(kind, [self.x], kernel_shape=[2, 2], strides=[2, 2]))

    def head(self, kind: str) -> None:
        """To one row an image: "average" over the map, or "flatten" it, channel-major."""
        if kind == "average":
            self.x, self.side = self._op("GlobalAveragePool", [self.x]), 1
        self.repeat, self.flat = self.side**2, True
        self._hidden(self._op("Flatten", [self.x], axis=1))

    def linear(self, channels: int) -> None:
        """A hidden triangular linear layer; only after an "average" head."""
        name, inputs = f"linear{len(self.nodes)}", self.channels
        weight = self.rng.standard_normal((channels, inputs)) * np.sqrt(2 / inputs) * self.rule.mask(inputs, channels)
        self._weight(f"{name}.weight", weight, (Axis(channels), Axis(inputs)))
        self._weight(f"{name}.bias", self.rng.standard_normal(channels) / 4, (Axis(channels),))
        self.x = self._op("Gemm", [self.x, f"{name}.weight", f"{name}.bias"], name=name, transB=1)
        self.channels = channels
        self.activation("Relu")

    def finish(self, *, curve: Curve | None = None, name: str = "random") -> tuple[onnx.ModelProto, Metadata]:
        """Add the classifier; the network as ONNX, and what its model file says."""
        self.features = self.x
        size = self.channels * self.repeat
        weight = self.rng.standard_normal((self.classes, size)) * np.sqrt(1 / size)
        self._weight("classifier.weight", weight, (None, Axis(self.channels, self.repeat)))
        self._weight("classifier.bias", self.rng.standard_normal(self.classes), None)
        self.nodes.append(
            helper.make_node("Gemm", [self.x, "classifier.weight", "classifier.bias"], ["logits"], name="classifier", transB=1)
        )
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("image", UINT8, ["N", *self.image])],
            [helper.make_tensor_value_info("logits", FLOAT, ["N", self.classes])],
            [numpy_helper.from_array(array, key) for key, array in self.weights.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        metadata = Metadata(
            name=name,
            a_min=format_width(self.rule.a_min),
            divisor=self.rule.divisor,
            axes=self.axes,
            groups=self.groups,
            labels=tuple(f"class {i}" for i in range(self.classes)),
            mean=(0.5,) * self.image[2],
            std=(0.25,) * self.image[2],
            curve=curve,
        )
        return proto, metadata

    def _conv(self, name: str, channels: int, kernel: int, stride: int, group: int) -> None:
        self._weight(f"{name}.bias", self.rng.standard_normal(channels) / 4, (Axis(channels),))
        self.x = self._op(
            "Conv",
            [self.x, f"{name}.weight", f"{name}.bias"],
            name=name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=4 * [kernel // 2],
            group=group,
        )
        self.channels, self.side = channels, -(-self.side // stride)

    def _hidden(self, x: str) -> None:
        self.x = x
        self.hidden[x] = self.channels

    def _weight(self, name: str, array: NDArray[Any], axes: tuple[Axis | None, ...] | None) -> None:
        self.weights[name] = np.ascontiguousarray(array, np.float32)
        if axes is not None:
            self.axes[name] = axes

    def _op(self, kind: str, inputs: list[str], *, name: str | None = None, **attributes: Any) -> str:
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}:out"], name=name, **attributes))
        return f"{name}:out"


def stamp(proto: onnx.ModelProto, metadata: Metadata | str) -> bytes:
    """The bytes of a model file, whatever its metadata says and unchecked; the opposite of `engines.model.write_model`."""
    stamped = onnx.ModelProto()
    stamped.CopyFrom(proto)
    helper.set_model_props(stamped, {KEY: metadata if isinstance(metadata, str) else msgspec.json.encode(metadata).decode()})
    return stamped.SerializeToString(deterministic=True)


def small_network(
    *, a_min: str = "0.25", divisor: int = 1, channels: int = 12, image: tuple[int, int, int] = (8, 8, 1), classes: int = 5, seed: int = 0
) -> tuple[Network, onnx.ModelProto, Metadata]:
    """A network with one layer of every kind, and a curve that grows with the width; fast enough to build in every test."""
    rule = WidthRule(Fraction(a_min), divisor)
    network = Network(rule, image, classes=classes, seed=seed)
    network.conv(channels)
    network.activation("Relu")
    network.residual(2 * channels)
    network.pool()
    network.head("average")
    network.linear(channels)
    correct = {format_width(Fraction(i, 20)): 800 + 10 * i for i in range(1, 21) if Fraction(i, 20) >= rule.a_min}
    proto, metadata = network.finish(curve=Curve(data="random test", images=1000, correct=correct), name="small")
    return network, proto, metadata


def small_model(**arguments: Any) -> Model:
    """The model file of `small_network`."""
    _, proto, metadata = small_network(**arguments)
    return Model(stamp(proto, metadata), "small.onnx")


@st.composite
def rules(draw: st.DrawFn) -> WidthRule:
    """Any width rule that a network may have."""
    divisor = draw(st.sampled_from([1, 1, 2, 3, 4, 8, 16]))
    return WidthRule(draw(widths(Fraction(1, 20))), divisor)


def widths(least: Fraction = Fraction(1, 100)) -> st.SearchStrategy[Fraction]:
    """Widths between `least` and 1: whole percents, and the half-way points where rounding decides."""
    halves = st.builds(lambda units, s: Fraction(2 * (s % units) + 1, 2 * units), st.integers(1, 64), st.integers(0, 63))
    percents = st.builds(Fraction, st.integers(1, 100), st.just(100))
    return st.one_of(percents, halves, st.just(least), st.just(Fraction(1))).map(lambda width: max(least, width))


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, Model]:
    """Any network of the layers above with random channel counts."""
    rule = draw(rules())
    units = st.integers(1, 24 if rule.divisor < 8 else 5)
    side = draw(st.integers(6, 12))
    network = Network(rule, (side, side, draw(st.sampled_from([1, 3]))), seed=draw(st.integers(0, 2**32 - 1)))
    kinds = st.sampled_from(["Relu", "Clip", "HardSwish"])
    network.conv(rule.divisor * draw(units), kernel=draw(st.sampled_from([1, 3])), stride=draw(st.integers(1, 2)))
    network.activation(draw(kinds))
    for layer in draw(st.lists(st.sampled_from(["conv", "depthwise", "residual", "MaxPool", "AveragePool"]), max_size=4)):
        if layer == "conv":
            network.conv(rule.divisor * draw(units), kernel=draw(st.sampled_from([1, 3, 5])), stride=draw(st.integers(1, 2)))
            network.activation(draw(kinds))
        elif layer == "depthwise":
            network.depthwise(stride=draw(st.integers(1, 2)))
            network.activation(draw(kinds))
        elif layer == "residual":
            network.residual(rule.divisor * draw(units))
        elif network.side >= 2:
            network.pool(layer)
    network.head(draw(st.sampled_from(["average", "flatten"])))
    if network.repeat == 1 and draw(st.booleans()):
        network.linear(rule.divisor * draw(units))
    proto, metadata = network.finish()
    return network, Model(stamp(proto, metadata), "random.onnx")


def run(proto: onnx.ModelProto | bytes, images: NDArray[np.uint8], *more: str, **inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What engines are compared with: ONNX Runtime's logits on one thread, and the tensors named in `more`, for images and `inputs`."""
    if more:
        assert not isinstance(proto, bytes)
        known = {value.name for value in onnx.shape_inference.infer_shapes(proto).graph.value_info}
        shown = onnx.ModelProto()
        shown.CopyFrom(proto)
        assert known.issuperset(more)
        shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in more)
        proto = shown
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(["logits", *more], {"image": images, **inputs})


def random_images(count: int, image: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Images of noise, uint8 (count, H, W, C)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *image), np.uint8)
