"""Data sets: what is read, and which files go where when it cannot be."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engines.errors import TrainingError
from trainer import data, folder
from trainer.augment import shift_and_flip


def make_folder(place: Path, *, classes: tuple[str, ...] = ("cat", "dog"), size: int = 16, mode: str = "RGB", suffix: str = "png") -> Path:
    for part, count in (("train", 3), ("test", 2)):
        for shade, label in enumerate(classes):
            (place / part / label).mkdir(parents=True)
            for i in range(count):
                colour = 40 * shade + i if mode == "L" else (40 * shade + i, 5, 200)
                Image.new(mode, (size, size), colour).save(place / part / label / f"{i}.{suffix}")
    return place


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_missing_data_says_which_files_go_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        data.load(name, tmp_path, train=True)
    message = str(caught.value)
    assert message.startswith(f"{name} was not found under {tmp_path}")
    assert str(tmp_path / data.DATA[name].folder) in message
    assert f"{tmp_path / name}/{{train,test}}/<class>/" in message
    assert "--root" in message
    assert "--download" in message


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"'birds'.*birds with train/<class>/.*cifar10, cifar100, digits, fashion-mnist, mnist"):
        data.load("birds", tmp_path, train=True)
    with pytest.raises(TrainingError, match="no data set is named 'birds'"):
        data.info("birds")


def test_mnists_own_files_are_read(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    pixels = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 3, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 3) + bytes([7, 0, 3]))
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(b""))
    found = data.load("mnist", tmp_path, train=False)
    assert torch.equal(found.images[..., 0], torch.from_numpy(pixels))
    assert found.labels.tolist() == [7, 0, 3]
    assert found.source == "mnist"
    assert data.load("mnist", tmp_path, train=True, size=14).images.shape == (3, 14, 14, 1)


def test_an_image_folder_is_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets")
    train, test = (data.load("pets", tmp_path, train=part) for part in (True, False))
    assert train.images.shape == (6, 16, 16, 3)
    assert train.images.dtype == torch.uint8
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert train.images[:, 0, 0].tolist() == [[0, 5, 200], [1, 5, 200], [2, 5, 200], [40, 5, 200], [41, 5, 200], [42, 5, 200]]
    assert train.info == test.info  # the test images are normalised by the training images
    assert train.info is not None
    assert train.info.labels == ("cat", "dog")
    assert train.info.mean == pytest.approx((21 / 255, 5 / 255, 200 / 255))
    assert train.info.std[1] == pytest.approx(1 / 255)  # a channel without variance still divides
    assert train.source == "pets (PNG copies read from an image folder)"
    moved = train.to("cpu")
    assert (moved.info, moved.source) == (train.info, train.source)


def test_a_known_data_set_as_jpeg_copies_says_so(tmp_path: Path) -> None:
    make_folder(tmp_path / "cifar10", classes=data.DATA["cifar10"].labels, size=32, suffix="jpg")
    found = data.load("cifar10", tmp_path, train=False)
    assert found.source == "cifar10 (JPEG copies read from an image folder)"
    assert found.info is data.DATA["cifar10"]
    assert found.labels.tolist() == sorted([*range(10)] * 2)


def test_a_folder_with_a_known_name_and_other_classes_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "cifar10")
    with pytest.raises(TrainingError, match="2 classes that are not those of cifar10: expected airplane, "):
        data.load("cifar10", tmp_path, train=True)


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    make_folder(tmp_path / "grey", mode="L")
    assert data.load("grey", tmp_path, train=True).images.shape == (6, 16, 16, 1)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "grey/train/cat/x.png")
    mixed = data.load("grey", tmp_path, train=True).images
    assert mixed.shape == (7, 16, 16, 3)
    assert mixed[0, 0, 0].tolist() == [0, 0, 0]
    assert mixed[3, 0, 0].tolist() == [1, 2, 3]


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets")
    Image.new("RGB", (40, 20)).save(tmp_path / "pets/train/dog/wide.png")
    with pytest.raises(TrainingError, match=r"2 different sizes \(16x16, 20x40, .*set size in the recipe"):
        data.load("pets", tmp_path, train=True)
    assert data.load("pets", tmp_path, train=True, size=24).images.shape == (7, 24, 24, 3)


def test_the_middle_of_a_scaled_image_is_taken(tmp_path: Path) -> None:
    (tmp_path / "one/a").mkdir(parents=True)
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "one/a/x.png")
    images, _, _ = folder.read(tmp_path / "one", ("a",), 10)
    assert images.shape == (1, 10, 10, 1)
    assert images[0, :, 1:-1].min() == 255


def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="has no directories"):
        data.load("empty", tmp_path, train=True)
    make_folder(tmp_path / "pets")
    (tmp_path / "pets/train/cat/0.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"cannot read the image .*cat/0\.png"):
        data.load("pets", tmp_path, train=True)
    (tmp_path / "pets/test/fish").mkdir()
    with pytest.raises(TrainingError, match="classes that the training images do not have: fish"):
        data.load("pets", tmp_path, train=False)
    make_folder(tmp_path / "half")
    (tmp_path / "half/train/fish").mkdir()
    (tmp_path / "half/train/.hidden").mkdir()  # which is no class
    with pytest.raises(TrainingError, match=r"no images in .*half/train/fish; formats are"):
        data.load("half", tmp_path, train=True)
    (tmp_path / "bare/train/a").mkdir(parents=True)
    with pytest.raises(TrainingError, match="there are no images"):
        data.load("bare", tmp_path, train=True)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_that_breaks_off_is_named(suffix: str, tmp_path: Path) -> None:
    make_folder(tmp_path / "pets", suffix=suffix, size=64)
    path = tmp_path / f"pets/train/cat/0.{suffix}"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TrainingError, match=rf"cannot read the image .*cat/0\.{suffix}"):
        data.load("pets", tmp_path, train=True)


def test_damaged_files_of_torchvision_are_named(tmp_path: Path) -> None:
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"MNIST/raw/{part}-ubyte").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"files of mnist at .* are damaged"):
        data.load("mnist", tmp_path, train=True)


def test_grey_test_images_of_a_coloured_data_set_get_three_channels(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets")
    for path in (tmp_path / "pets/test").glob("*/*.png"):
        Image.new("L", (16, 16), 9).save(path)
    found = data.load("pets", tmp_path, train=False)
    assert found.images.shape == (4, 16, 16, 3)
    assert found.images.unique().tolist() == [9]


def test_scikit_learns_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    train, test = (data.load("digits", tmp_path, train=part) for part in (True, False))
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (28, 28, 1)
    pixels = train.images.double() / 255
    assert float(pixels.mean()) == pytest.approx(data.DATA["digits"].mean[0], abs=1e-3)
    assert float(pixels.std()) == pytest.approx(data.DATA["digits"].std[0], abs=1e-3)
    assert test.labels.bincount().min() > 25


def test_digits_without_scikit_learn_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(TrainingError, match="pip install scikit-learn"):
        data.load("digits", tmp_path, train=True)


def test_batches_go_through_the_images_once() -> None:
    images = data.Images(torch.arange(10).view(10, 1, 1, 1).byte(), torch.arange(10))
    in_order = [y.tolist() for _, y in images.batches(4)]
    assert in_order == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    mixed = [(x.flatten().tolist(), y.tolist()) for x, y in images.batches(4, generator=torch.Generator().manual_seed(0))]
    assert [len(y) for _, y in mixed] == [4, 4]  # the last odd batch is left out
    assert all(x == y for x, y in mixed)
    assert len({label for _, y in mixed for label in y}) == 8


def test_shift_and_flip_move_whole_images() -> None:
    picture = torch.arange(1, 26, dtype=torch.uint8).view(1, 5, 5, 1)
    batch = picture.expand(400, 5, 5, 1)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(shift_and_flip(batch, shift=0, flip=False, generator=generator), batch)
    flipped = shift_and_flip(batch, shift=0, flip=True, generator=generator)
    mirrored = (flipped == picture.flip(2)).flatten(1).all(1)
    assert ((flipped == picture).flatten(1).all(1) ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250
    moved = shift_and_flip(batch, shift=2, flip=False, generator=generator)
    padded = torch.nn.functional.pad(picture[0, :, :, 0], (2, 2, 2, 2))
    places = {tuple(padded[y : y + 5, x : x + 5].flatten().tolist()) for y in range(5) for x in range(5)}
    assert {tuple(image.flatten().tolist()) for image in moved} == places
