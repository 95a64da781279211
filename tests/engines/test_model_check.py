"""A model file whose slices would be wrong is refused, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.errors import ModelError
from engines.metadata import FORMAT, Axis, Curve, Metadata
from engines.model import Model
from engines.widths import WidthRule
from tests.networks import Network, small_model, small_network, stamp

Change = Callable[[Network, onnx.ModelProto, Metadata], "Metadata | None"]


def refuse(change: Change, words: str) -> None:
    """The small network is a model file, and is none after the change."""
    network, proto, metadata = small_network()
    Model(stamp(proto, metadata), "good.onnx")
    metadata = change(network, proto, metadata) or metadata
    with pytest.raises(ModelError, match=words) as caught:
        Model(stamp(proto, metadata), "bad.onnx")
    assert str(caught.value).startswith("bad.onnx")
    assert "\n" not in str(caught.value)


def node(proto: onnx.ModelProto, kind: str, at: int = 0) -> onnx.NodeProto:
    return [entry for entry in proto.graph.node if entry.op_type == kind][at]


def put(proto: onnx.ModelProto, tensor: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change an initializer."""
    for entry in proto.graph.initializer:
        if entry.name == tensor:
            entry.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(entry).copy())), tensor))


def attribute(entry: onnx.NodeProto, name: str, value: object) -> None:
    kept = [a for a in entry.attribute if a.name != name]
    del entry.attribute[:]
    entry.attribute.extend([*kept, helper.make_attribute(name, value)])


def with_axes(metadata: Metadata, tensor: str, axes: tuple[Axis | None, ...] | None) -> Metadata:
    changed = {key: value for key, value in metadata.axes.items() if key != tensor}
    return msgspec.structs.replace(metadata, axes=changed if axes is None else {**changed, tensor: axes})


def with_fields(metadata: Metadata, **fields: Any) -> Metadata:
    return msgspec.structs.replace(metadata, **fields)


# Bytes


@pytest.mark.parametrize("share", [0.999, 0.5, 0.1])
def test_a_file_that_is_cut_off_is_refused(share: float) -> None:
    data = small_model().data
    with pytest.raises(ModelError, match=r"^x is not an ONNX file, or is cut off \(\d+ bytes\)"):
        Model(data[: int(len(data) * share)], "x")


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x89PNG\r\n\x1a\n", b"import torch\n", bytes(1000)])
def test_what_is_not_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"^x is not "):
        Model(data, "x")


def test_any_onnx_file_is_not_a_model_file() -> None:
    _, proto, _ = small_network()
    with pytest.raises(ModelError, match=r"x is an ONNX file but not a model file: it has no 'awn' metadata.*tools/train\.py"):
        Model(proto.SerializeToString(), "x")


def test_damage_anywhere_is_refused_or_harmless_but_never_a_traceback() -> None:
    """Changed, cut and inserted bytes: what still reads as a model file is one (a changed weight); all else is a ModelError in one line."""
    data, random = small_model(channels=4).data, np.random.default_rng(0)
    messages: list[str] = []
    for kind in ["change", "cut", "insert"] * 400:
        at, damaged = int(random.integers(len(data))), bytearray(data)
        if kind == "change":
            damaged[at] ^= int(random.integers(1, 256))
        elif kind == "cut":
            del damaged[at:]
        else:
            damaged[at:at] = random.bytes(int(random.integers(1, 5)))
        try:
            Model(bytes(damaged), "x")
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) > 800
    assert not any("\n" in message for message in messages)


# Metadata


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    words = f"has format {FORMAT + 1}; this version reads up to {FORMAT}: update this package"
    refuse(lambda n, p, m: with_fields(m, format=FORMAT + 1), words)


def test_a_newer_format_may_have_fields_that_this_version_does_not_know() -> None:
    _, proto, metadata = small_network()
    text = msgspec.json.encode({**msgspec.to_builtins(metadata), "format": FORMAT + 1, "spice": "new"}).decode()
    with pytest.raises(ModelError, match="update this package"):
        Model(stamp(proto, text), "x")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "1"}', '{"format": 1}', '{"name": "x"}'])
def test_damaged_metadata_is_refused(text: str) -> None:
    _, proto, _ = small_network()
    with pytest.raises(ModelError, match="x: its 'awn' metadata is damaged: "):
        Model(stamp(proto, text), "x")


def test_fields_of_no_known_format_are_refused() -> None:
    _, proto, metadata = small_network()
    text = msgspec.json.encode({**msgspec.to_builtins(metadata), "spice": "new"}).decode()
    with pytest.raises(ModelError, match="spice"):
        Model(stamp(proto, text), "x")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("a_min", "0", r"must be in \(0, 1\], got 0"),
        ("a_min", "1.5", r"must be in \(0, 1\], got 1.5"),
        ("a_min", "narrow", "must be a number"),
        ("divisor", 0, "the divisor must be at least 1, got 0"),
        ("divisor", 5, "has size 12, its rule 12 channels x 1 at divisor 5"),
        ("labels", ("a", "b"), r"the output must be \(N, 2\), one logit a label, got \[0, 5\]"),
        ("labels", (), "one logit a label"),
        ("mean", (0.5, 0.5), "mean and std must have 1 entries"),
        ("std", (), "mean and std must have 1 entries"),
    ],
)
def test_metadata_that_does_not_fit_the_network_is_refused(field: str, value: object, words: str) -> None:
    refuse(lambda n, p, m: with_fields(m, **{field: value}), words)


@pytest.mark.parametrize(
    "curve",
    [
        {"data": "d", "images": 0, "correct": {"1.0": 0}},
        {"data": "d", "images": 10, "correct": {}},
        {"data": "d", "images": 10, "correct": {"1.0": 11}},
        {"data": "d", "images": 10, "correct": {"1.0": -1}},
    ],
)
def test_an_impossible_curve_is_refused(curve: dict[str, object]) -> None:
    _, proto, metadata = small_network()
    text = msgspec.json.encode({**msgspec.to_builtins(metadata), "curve": curve}).decode()
    with pytest.raises(ModelError, match="a curve must have widths, images"):
        Model(stamp(proto, text), "x")


def test_a_curve_at_no_width_is_refused() -> None:
    refuse(lambda n, p, m: with_fields(m, curve=Curve(data="d", images=1, correct={"wide": 1})), "must be a number like 0.25")


# Interface


def test_an_old_opset_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.opset_import[0].version = 13

    refuse(change, "uses ONNX opset 13, expected 17 or later")


def test_a_float_input_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    refuse(change, r"the input must be uint8 \(N, height, width, channels\) with N left open")


def test_a_fixed_batch_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    refuse(change, r"with N left open, got \[1, 8, 8, 1\]")


def test_other_names_of_input_and_output_are_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.graph.output[0].name = p.graph.node[-1].output[0] = "classes"

    refuse(change, "must have one input 'image' and one output 'logits'")


def test_a_second_input_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 1]))

    refuse(change, "must have one input 'image'")


def test_weights_in_other_files_are_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        tensor = p.graph.initializer[-1]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")
        tensor.ClearField("raw_data")

    refuse(change, "keeps weights in other files")


def test_an_initializer_of_the_wrong_size_is_refused_by_name() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        tensor = next(entry for entry in p.graph.initializer if entry.name == "conv4.bias")
        tensor.raw_data = tensor.raw_data[:-4]

    refuse(change, r"tensor name: conv4\.bias\) raw_data size \(44 bytes\) is too small")


def test_an_initializer_of_no_known_type_is_refused_by_name() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        next(entry for entry in p.graph.initializer if entry.name == "conv4.bias").data_type = 75

    refuse(change, "'conv4.bias' is damaged: 75|tensor name: conv4.bias")


# How channels flow


@pytest.mark.parametrize("kind", ["Softmax", "ReduceMean", "LayerNormalization", "Constant"])
def test_operators_that_may_mix_channels_are_refused(kind: str) -> None:
    """Softmax over channels, say: every feature would depend on how many there are."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        relu = node(p, "Relu")
        if kind == "LayerNormalization":
            relu.input.append("scale")
        if kind == "Constant":
            p.graph.node.insert(0, helper.make_node(kind, [], ["constant"], name="odd", value_float=1.0))
        else:
            relu.op_type = kind

    refuse(change, f"operator {kind} of node .* is not one that any width can be cut from: Add, ")


def test_an_operator_of_another_domain_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.opset_import.append(helper.make_opsetid("com.example", 1))
        node(p, "Relu").domain = "com.example"

    refuse(change, "operator Relu of node 'relu5' is not one")


@pytest.mark.parametrize(
    ("tensor", "row", "column"),
    [("conv6.weight", 0, -1), ("conv6.weight", 5, 3), ("conv10.weight", 0, 6), ("linear15.weight", 10, 11)],
)
def test_one_weight_beyond_the_mask_is_refused(tensor: str, row: int, column: int) -> None:
    """The smallest number there is, at one place outside the triangle."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        outputs, inputs = n.weights[tensor].shape[:2]
        assert not WidthRule(n.rule.a_min).mask(inputs, outputs)[row, column]

        def touch(array: np.ndarray) -> np.ndarray:
            array[row, column] = np.finfo(np.float32).smallest_subnormal
            return array

        put(p, tensor, touch)

    refuse(change, f"weights '{tensor}' that are not triangular")


def test_weights_that_are_triangular_the_other_way_round_are_refused() -> None:
    """Without transB the rows of a matrix are its inputs; its triangle would be looked for in the wrong half."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        attribute(node(p, "Gemm"), "transB", 0)

    refuse(change, "node 'linear15' .* must have output channels first")


def test_a_transposed_activation_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        attribute(node(p, "Gemm"), "transA", 1)

    refuse(change, "must have output channels first")


@pytest.mark.parametrize("tensor", ["conv4.weight", "conv6.weight", "depthwise8.weight", "linear15.weight", "classifier.weight"])
def test_weights_without_a_width_rule_are_refused(tensor: str) -> None:
    refuse(lambda n, p, m: with_axes(m, tensor, None), f"has weights '{tensor}' without a width rule")


@pytest.mark.parametrize("tensor", ["conv4.bias", "conv6.bias", "depthwise8.bias", "linear15.bias"])
def test_a_bias_without_a_width_rule_is_refused(tensor: str) -> None:
    """ONNX Runtime would only notice at the first run of a narrow engine."""
    refuse(lambda n, p, m: with_axes(m, tensor, None), f"has a bias '{tensor}' that does not follow its")


def test_a_bias_of_the_classifier_that_follows_the_width_is_refused() -> None:
    refuse(lambda n, p, m: with_axes(m, "classifier.bias", (Axis(5),)), "has a bias 'classifier.bias'")


def test_a_rule_for_no_initializer_is_refused() -> None:
    refuse(lambda n, p, m: with_axes(m, "nothing", (Axis(12),)), "there is a rule for 'nothing', which is not an initializer")


def test_a_rule_with_missing_axes_is_refused() -> None:
    refuse(lambda n, p, m: with_axes(m, "conv6.weight", (Axis(24), Axis(12))), r"has shape \(24, 12, 1, 1\), its rule has 2 axes")


@pytest.mark.parametrize("axis", [Axis(11), Axis(24), Axis(12, 2), Axis(-12, -1), Axis(0), Axis(12, 0)])
def test_a_rule_of_another_size_than_the_axis_is_refused(axis: Axis) -> None:
    words = rf"an axis of 'conv4.bias' has size 12, its rule {axis.channels} channels x {axis.repeat} at divisor 1"
    refuse(lambda n, p, m: with_axes(m, "conv4.bias", (axis,)), words)


def test_a_layer_that_reads_other_channels_than_it_is_given_is_refused() -> None:
    """Left to itself ONNX Runtime reads past the end of the narrow activation and answers something."""
    refuse(lambda n, p, m: with_axes(m, "conv10.weight", (Axis(12), None, None, None)), "another rule for their input channels")


def test_a_hidden_layer_with_all_outputs_at_every_width_is_refused() -> None:
    """Its outputs would read more inputs at larger widths: features would change with the width."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> Metadata:
        return with_axes(with_axes(m, "conv6.bias", None), "conv6.weight", (None, Axis(12), None, None))

    refuse(change, "node 'conv6' .* gives all its output channels at every width, which only the classifier may")


def test_groups_without_a_rule_are_refused() -> None:
    refuse(lambda n, p, m: with_fields(m, groups={}), "node 'depthwise8' .* has 24 groups, which no rule makes follow the width")


def test_groups_that_are_not_depthwise_are_refused() -> None:
    """A grouped convolution mixes the channels of a group, and groups move when the width changes."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        attribute(node(p, "Conv", 2), "group", 12)
        put(p, "depthwise8.weight", lambda w: np.repeat(w, 2, axis=1))

    refuse(change, "there is a rule for the 24 groups of node 'depthwise8'")


def test_a_grouped_convolution_with_a_rule_of_its_own_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> Metadata:
        attribute(node(p, "Conv", 2), "group", 12)
        put(p, "depthwise8.weight", lambda w: np.repeat(w, 2, axis=1))
        return with_fields(m, groups={"depthwise8": Axis(12)})

    refuse(change, "has 12 groups, which no rule makes follow the width")


def test_a_depthwise_layer_that_reads_other_channels_than_it_has_is_refused() -> None:
    words = r"node 'depthwise8' \(Conv\) must be depthwise: 24 channels come in, 24 groups"
    refuse(lambda n, p, m: with_axes(m, "depthwise8.weight", (Axis(24), Axis(1), None, None)), words)


@pytest.mark.parametrize("name", ["nothing", "conv6", "relu5"])
def test_a_rule_for_groups_that_there_are_not_is_refused(name: str) -> None:
    words = f"there is a rule for the 24 groups of node '{name}', which is not one such convolution"
    refuse(lambda n, p, m: with_fields(m, groups={**m.groups, name: Axis(24)}), words)


def test_a_sum_of_tensors_with_different_channels_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        node(p, "Add", 1).input[0] = node(p, "Transpose").output[0]

    refuse(change, r"\(Add\) joins tensors with different channels")


@pytest.mark.parametrize("shape", [(1, 12, 1, 1), (4, 4), (1, 3, 1, 1)])
def test_a_constant_that_does_not_follow_the_channels_beside_it_is_refused(shape: tuple[int, ...]) -> None:
    """(1, 3, 1, 1) fits the narrowest slice, of 3 channels, and no other."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "shifts"))
        at = [entry.op_type for entry in p.graph.node].index("MaxPool")
        pool = p.graph.node[at]
        p.graph.node.insert(at, helper.make_node("Add", [pool.input[0], "shifts"], ["shifted"], name="shift"))
        node(p, "MaxPool").input[0] = "shifted"

    refuse(change, r"node 'shift' \(Add\) reads 'shifts', which does not follow the 12 channels beside it")


def test_a_constant_that_follows_the_channels_is_accepted_and_cut() -> None:
    _, proto, metadata = small_network()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 12, 1, 1), np.float32), "shifts"))
    at = [entry.op_type for entry in proto.graph.node].index("MaxPool")
    proto.graph.node.insert(at, helper.make_node("Add", [proto.graph.node[at].input[0], "shifts"], ["shifted"], name="shift"))
    node(proto, "MaxPool").input[0] = "shifted"
    model = Model(stamp(proto, with_axes(metadata, "shifts", (None, Axis(12), None, None))), "x")
    narrow = next(tensor for tensor in model.slice(model.rule.a_min).graph.initializer if tensor.name == "shifts")
    assert list(narrow.dims) == [1, 3, 1, 1]


def test_channels_that_are_moved_are_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        pool = node(p, "MaxPool")
        at = list(p.graph.node).index(pool)
        p.graph.node.insert(at, helper.make_node("Transpose", [pool.input[0]], ["moved"], name="move", perm=[0, 3, 2, 1]))
        node(p, "MaxPool").input[0] = "moved"

    refuse(change, r"node 'move' \(Transpose\) moves channels")


@pytest.mark.parametrize("axis", [0, 2])
def test_flattening_over_images_is_refused(axis: int) -> None:
    refuse(lambda n, p, m: attribute(node(p, "Flatten"), "axis", axis), r"\(Flatten\) moves channels")


def test_a_second_output_of_a_node_is_refused() -> None:
    """The indices that MaxPool may give count over all channels."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        pool = node(p, "MaxPool")
        pool.output.append("places")
        node(p, "GlobalAveragePool").input[0] = "places"

    refuse(change, "reads something that is neither the image, nor computed from it, nor an initializer")


def test_a_node_that_computes_from_constants_alone_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        node(p, "Add", 1).input[:] = ["scale", "shift"]

    refuse(change, "reads something that is neither the image")


def test_a_graph_that_does_not_end_in_the_classifier_is_refused() -> None:
    """The last node is where exits are cut in."""

    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        p.graph.node.append(helper.make_node("Relu", [n.x], ["nowhere"], name="after"))

    refuse(change, r"node 'after' \(Relu\) must be the classifier")


def test_a_network_whose_classifier_reads_the_same_at_every_width_is_refused() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> Metadata:
        flatten = helper.make_node("Flatten", [n.nodes[3].output[0]], ["pixels"], name="pixels", axis=1)
        put(p, "classifier.weight", lambda w: np.ones((5, 64), np.float32))
        node(p, "Gemm", 1).input[0] = "pixels"
        p.graph.node.insert(len(p.graph.node) - 1, flatten)
        return with_axes(m, "classifier.weight", (None, None))

    refuse(change, r"node 'classifier' \(Gemm\) must be the classifier")


def test_a_hidden_linear_layer_on_flattened_maps_is_refused() -> None:
    """Sixteen features a channel have one rule; the triangle between them is not defined."""
    network = Network(WidthRule(small_model().rule.a_min), (4, 4, 1))
    network.conv(4)
    network.activation("Relu")
    network.head("flatten")
    network.weights["wide"] = np.zeros((4, 64), np.float32)
    network.axes["wide"] = (Axis(4), Axis(4, 16))
    network.x = network._op("Gemm", [network.x, "wide"], name="wide", transB=1)
    network.repeat = 1
    proto, metadata = network.finish()
    with pytest.raises(ModelError, match="weights 'wide' that are not triangular"):
        Model(stamp(proto, metadata), "x")


def test_shapes_that_do_not_fit_together_are_refused_in_one_line() -> None:
    def change(n: Network, p: onnx.ModelProto, m: Metadata) -> None:
        attribute(node(p, "MaxPool"), "kernel_shape", [2])

    refuse(change, "its narrowest slice does not fit together: ")
