"""Slices of a model file are one network: narrower ones compute the leading channels of wider ones."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from engines.errors import ModelError, WidthError
from engines.metadata import Curve
from engines.model import ZOO, Model, write_model
from engines.widths import format_width, parse_grid
from tests.networks import Network, networks, random_images, run, small_model, small_network, stamp, widths
from trainer.checkpoint import load_network

LENET_HIDDEN = ("relu_5:out", "relu_7:out", "maxpool_8:out", "relu_10:out", "maxpool_11:out", "flatten_12:out")
SOME = tuple(Fraction(text) for text in ("0.25", "0.37", "0.5", "0.75", "0.99", "1"))


# The prefix property on what ships


@pytest.mark.parametrize("pad_to", [16, 1])
def test_shipped_features_at_a_width_lead_those_of_every_wider_one(
    shipped: Model, mnist: tuple[NDArray[np.uint8], NDArray[np.int64]], pad_to: int
) -> None:
    """All 35 different networks of the shipped model; bit for bit on whole blocks, else within rounding."""
    images = mnist[0][:20]
    tensors = {width: run(shipped.slice(width, pad_to=pad_to), images, *LENET_HIDDEN)[1:] for width in shipped.rule.distinct([45])}
    assert len(tensors) == 35
    widest = tensors[max(tensors)]
    for width, narrow in tensors.items():
        for name, found, full in zip(LENET_HIDDEN, narrow, widest, strict=True):
            k = shipped.rule.active(45, width) * (16 if name.startswith("flatten") else 1)
            tolerance = 0 if pad_to == 16 else 1e-5 * np.abs(full).max()
            np.testing.assert_allclose(found[:, :k], full[:, :k], rtol=0, atol=tolerance, err_msg=f"{name} at {width}")


@pytest.mark.parametrize("pad_to", [16, 1])
def test_shipped_logits_equal_the_one_pass_evaluation(
    shipped: Model, mnist: tuple[NDArray[np.uint8], NDArray[np.int64]], pad_to: int
) -> None:
    """logits(a) = W[:, :k] f[:k] + b with the features of full width."""
    images = mnist[0][:100]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in shipped.slice(Fraction(1)).graph.initializer}
    _, features = run(shipped.slice(Fraction(1)), images, LENET_HIDDEN[-1])
    for width in SOME:
        k = shipped.rule.active(45, width) * 16
        expected = features[:, :k] @ weights["classifier.weight"][:, :k].T + weights["classifier.bias"]
        np.testing.assert_allclose(run(shipped.slice(width, pad_to=pad_to), images)[0], expected, rtol=0, atol=1e-4)


def test_shipped_engines_answer_as_the_trained_network_in_torch(shipped: Model, mnist: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> None:
    """Logits within 1e-4, the same class on every image, and so the same count of right answers at each width."""
    images, labels = mnist
    network, header = load_network(ZOO / "lenet3c1l-mnist.safetensors")
    with torch.inference_mode():
        expected = network.exits(torch.from_numpy(images), SOME).numpy()
    assert header.labels == shipped.metadata.labels
    for width, logits in zip(SOME, expected, strict=True):
        found = run(shipped.slice(width, pad_to=16), images)[0]
        np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(found.argmax(1), logits.argmax(1))
        assert (found.argmax(1) == labels).sum() == (logits.argmax(1) == labels).sum() >= 0.97 * len(labels)


def test_shipped_curve_covers_every_hundredth_and_reaches_the_papers_accuracy(shipped: Model) -> None:
    """Table 1 of the paper: 98.43, 98.82, 98.87 and 98.97 % at 0.25, 0.5, 0.75 and 1."""
    curve = shipped.metadata.curve
    assert curve is not None
    assert (curve.data, curve.images) == ("mnist test", 10_000)
    assert set(curve.correct) == {format_width(width) for width in parse_grid("0.25:1.0:0.01")}
    for width, least in (("0.25", 98.4), ("0.5", 98.8), ("0.75", 98.8), ("1.0", 98.9)):
        assert 100 * curve.accuracy(Fraction(width)) >= least
    assert 100 * curve.area() >= 98.75


def test_shipped_model_is_what_the_paper_describes(shipped: Model) -> None:
    """Three triangular convolutions of 45 channels (32 widened by sqrt 2) on 28x28 grayscale digits."""
    assert shipped.image == (28, 28, 1)
    assert shipped.dimensions == (45,)
    assert shipped.metadata.labels == tuple("0123456789")
    assert shipped.rule.a_min == Fraction(1, 4)
    assert shipped.channels(Fraction(1, 2)) == (23,)


# The prefix property on random networks


@settings(max_examples=40)
@given(networks(), st.data())
def test_features_of_random_networks_lead_those_of_wider_ones(case: tuple[Network, Model], data: st.DataObject) -> None:
    """Every activation of every layer: bit for bit on whole blocks of 16, within 1e-5 otherwise."""
    network, model = case
    a, b = sorted((data.draw(widths(model.rule.a_min)), data.draw(widths(model.rule.a_min))))
    images = random_images(3, model.image)
    for pad_to in (1, 16):
        narrow = run(model.slice(a, pad_to=pad_to), images, *network.hidden)[1:]
        wide = run(model.slice(b, pad_to=pad_to), images, *network.hidden)[1:]
        for (name, channels), found, full in zip(network.hidden.items(), narrow, wide, strict=True):
            repeat = network.repeat if found.ndim == 2 else 1
            k = model.rule.active(channels, a) * repeat
            tolerance = 0 if pad_to == 16 else 1e-5 * max(1, np.abs(full).max())
            np.testing.assert_allclose(found[:, :k], full[:, :k], rtol=0, atol=tolerance, err_msg=f"{name} padded to {pad_to}")


@settings(max_examples=40)
@given(networks(), st.data())
def test_logits_of_random_networks_equal_the_one_pass_evaluation_padded_or_not(case: tuple[Network, Model], data: st.DataObject) -> None:
    network, model = case
    width, pad_to = data.draw(widths(model.rule.a_min)), data.draw(st.sampled_from([2, 3, 4, 8, 16, 32]))
    images = random_images(3, model.image)
    _, features = run(model.slice(Fraction(1)), images, network.features)
    k = model.rule.active(network.channels, width) * network.repeat
    expected = features[:, :k] @ network.weights["classifier.weight"][:, :k].T + network.weights["classifier.bias"]
    plain, padded = run(model.slice(width), images)[0], run(model.slice(width, pad_to=pad_to), images)[0]
    most = max(1, np.abs(expected).max())
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-4 * most)
    np.testing.assert_allclose(padded, plain, rtol=0, atol=1e-5 * most)


@settings(max_examples=40)
@given(networks(), st.data())
def test_one_slice_with_exits_gives_the_logits_of_every_narrower_width(case: tuple[Network, Model], data: st.DataObject) -> None:
    """Ones for the features of the narrower width and zeros for the rest: what lets widths of equal blocks share an engine."""
    _, model = case
    a, b = sorted((data.draw(widths(model.rule.a_min)), data.draw(widths(model.rule.a_min))))
    pad_to = data.draw(st.sampled_from([1, 8, 16]))
    images = random_images(3, model.image)
    wide = model.slice(b, pad_to=pad_to, exits=True)
    onnx.checker.check_model(wide)
    assert [value.name for value in wide.graph.input] == ["image", "active"]
    size = wide.graph.input[1].type.tensor_type.shape.dim[0].dim_value
    assert size >= model.features(b) >= model.features(a)
    active = (np.arange(size) < model.features(a)).astype(np.float32)
    expected = run(model.slice(a), images)[0]
    found = run(wide, images, active=active)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


# Slices


@given(networks(), st.data())
@settings(max_examples=40)
def test_a_slice_holds_leading_blocks_and_padding_is_zero(case: tuple[Network, Model], data: st.DataObject) -> None:
    network, model = case
    width, pad_to = data.draw(widths(model.rule.a_min)), data.draw(st.sampled_from([1, 8, 16]))
    sliced = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.slice(width, pad_to=pad_to).graph.initializer}
    assert list(sliced) == list(network.weights)
    for name, full in network.weights.items():
        axes = network.axes.get(name, (None,) * full.ndim)
        sizes = [
            size if axis is None else model.rule.active(axis.channels, width) * axis.repeat
            for size, axis in zip(full.shape, axes, strict=True)
        ]
        repeats = [1 if axis is None else axis.repeat for axis in axes]
        padded = [
            size if axis is None else -(-size // (pad_to * repeat)) * pad_to * repeat
            for size, axis, repeat in zip(sizes, axes, repeats, strict=True)
        ]
        block = tuple(slice(size) for size in sizes)
        assert sliced[name].shape == tuple(padded)
        np.testing.assert_array_equal(sliced[name][block], full[block])
        assert np.count_nonzero(sliced[name]) == np.count_nonzero(full[block])


def test_a_slice_keeps_the_graph_and_sets_the_group_counts(small: Model) -> None:
    full, narrow = onnx.ModelProto.FromString(small.data), small.slice(Fraction(1, 4), pad_to=4)
    onnx.checker.check_model(narrow)
    assert [node.name for node in narrow.graph.node] == [node.name for node in full.graph.node]
    assert list(narrow.graph.input) == list(full.graph.input)
    assert list(narrow.graph.output) == list(full.graph.output)
    assert not narrow.metadata_props
    # 24 channels inside the residual block, of which 6 are active at a quarter: 8 in blocks of four.
    assert [a.i for node in narrow.graph.node for a in node.attribute if a.name == "group"] == [1, 1, 8, 1]


def test_slices_share_no_memory_with_the_model(small: Model) -> None:
    before = small.slice(Fraction(1)).SerializeToString(deterministic=True)
    for tensor in (sliced := small.slice(Fraction(1))).graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
    sliced.graph.node[0].name = "changed"
    assert small.slice(Fraction(1)).SerializeToString(deterministic=True) == before


def test_equal_channels_give_equal_bytes(shipped: Model) -> None:
    """What lets widths share an engine: 0.37 and 0.38 of 45 are both 17 channels."""
    a, b, c = (Fraction(percent, 100) for percent in (37, 38, 39))
    assert shipped.channels(a) == shipped.channels(b) == (17,)
    assert shipped.channels(c) == (18,)
    data = [shipped.slice(width, pad_to=16).SerializeToString(deterministic=True) for width in (a, b)]
    assert data[0] == data[1]


@pytest.mark.parametrize("width", [Fraction(24, 100), Fraction(101, 100), Fraction(0)])
def test_widths_that_the_network_was_not_made_for_are_refused(small: Model, width: Fraction) -> None:
    with pytest.raises(WidthError, match=r"outside \[0\.25, 1\.0\]"):
        small.slice(width)
    with pytest.raises(WidthError, match=r"outside \[0\.25, 1\.0\]"):
        small.channels(width)


def test_the_classifier_reads_sixteen_features_a_channel_of_the_shipped_model(shipped: Model) -> None:
    assert [shipped.features(width) for width in SOME] == [16 * k for k in (11, 17, 23, 34, 45, 45)]


def test_dimensions_and_channels_of_a_network_with_two_sizes(small: Model) -> None:
    assert small.dimensions == (12, 24)
    assert small.channels(Fraction(1, 2)) == (6, 12)
    assert small.channels(Fraction(2, 5)) == (5, 10)


# Files


def test_a_model_knows_its_bytes_and_their_hash(shipped: Model) -> None:
    data = (ZOO / "lenet3c1l-mnist.onnx").read_bytes()
    assert shipped.data == data
    assert shipped.sha256 == hashlib.sha256(data).hexdigest()


def test_a_missing_model_names_those_that_ship(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the model file '.*nothing\.onnx': No such file.*one that ships:.*lenet3c1l-mnist"):
        Model.read(tmp_path / "nothing.onnx")


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Is a directory"):
        Model.read(tmp_path)


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    _, proto, metadata = small_network()
    path = tmp_path / "deep" / "model.onnx"
    written = write_model(path, proto, metadata)
    assert Model.read(path).metadata == written.metadata == metadata
    assert path.read_bytes() == written.data


def test_metadata_of_an_earlier_stamp_is_replaced(tmp_path: Path) -> None:
    _, proto, metadata = small_network()
    stamped = onnx.ModelProto.FromString(stamp(proto, msgspec.structs.replace(metadata, name="earlier")))
    assert write_model(tmp_path / "model.onnx", stamped, metadata).metadata.name == "small"


def test_nothing_is_written_that_a_reader_would_refuse(tmp_path: Path) -> None:
    _, proto, metadata = small_network()
    path = tmp_path / "model.onnx"
    path.write_bytes(b"what was there")
    with pytest.raises(ModelError, match="one logit a label"):
        write_model(path, proto, msgspec.structs.replace(metadata, labels=("one",)))
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


# Curves


def test_accuracy_is_linear_between_measured_widths_and_constant_beyond() -> None:
    curve = Curve(data="d", images=200, correct={"1.0": 180, "0.5": 100, "0.25": 80})
    for width, accuracy in (("0.1", 0.4), ("0.25", 0.4), ("0.375", 0.45), ("0.5", 0.5), ("0.75", 0.7), ("1", 0.9)):
        assert curve.accuracy(Fraction(width)) == pytest.approx(accuracy, abs=1e-12)


def test_area_is_the_mean_by_the_trapezoid_rule() -> None:
    """(0.25 x 0.45 + 0.5 x 0.7) / 0.75."""
    curve = Curve(data="d", images=200, correct={"0.25": 80, "0.5": 100, "1.0": 180})
    assert curve.area() == pytest.approx(0.6166666666666667, abs=1e-12)


def test_area_of_one_width_is_its_accuracy() -> None:
    assert Curve(data="d", images=8, correct={"1.0": 6}).area() == 0.75


def test_area_of_a_constant_curve_is_that_constant() -> None:
    widths_of_it = {format_width(width): 99 for width in parse_grid("0.25:1:1/7")}
    assert Curve(data="d", images=100, correct=widths_of_it).area() == pytest.approx(0.99, abs=1e-12)


@pytest.mark.parametrize(("images", "correct"), [(0, {"1.0": 0}), (-1, {"1.0": 0}), (10, {}), (10, {"1.0": 11}), (10, {"1.0": -1})])
def test_a_curve_without_sense_is_refused(images: int, correct: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a curve must have widths, images"):
        Curve(data="d", images=images, correct=correct)


def test_two_models_of_one_seed_have_equal_bytes() -> None:
    """The factory is deterministic, and so is writing."""
    assert small_model(seed=3).data == small_model(seed=3).data != small_model(seed=4).data
