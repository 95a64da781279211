"""Images as applications have them become what engines read, without a copy where that can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from engines.errors import InputError
from sdk.image import as_batch
from tests.networks import random_images

GREY, COLOUR = (6, 8, 1), (6, 8, 3)


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("expected", "shape", "batch", "is_batch"),
    [
        (GREY, (6, 8, 1), (1, 6, 8, 1), False),
        (GREY, (6, 8), (1, 6, 8, 1), False),
        (GREY, (3, 6, 8, 1), (3, 6, 8, 1), True),
        (GREY, (1, 6, 8, 1), (1, 6, 8, 1), True),
        (GREY, (3, 6, 8), (3, 6, 8, 1), True),
        (COLOUR, (6, 8, 3), (1, 6, 8, 3), False),
        (COLOUR, (6, 8, 1), (1, 6, 8, 1), False),
        (COLOUR, (6, 8), (1, 6, 8, 1), False),
        (COLOUR, (5, 6, 8, 3), (5, 6, 8, 3), True),
        (COLOUR, (5, 6, 8, 1), (5, 6, 8, 1), True),
    ],
)
def test_every_form_of_an_image_or_a_batch_is_viewed_without_a_copy(
    expected: tuple[int, int, int], shape: tuple[int, ...], batch: tuple[int, ...], is_batch: bool
) -> None:
    image = pixels(*shape)
    found, was_batch = as_batch(image, expected)
    assert (found.shape, was_batch) == (batch, is_batch)
    assert np.shares_memory(found, image)
    np.testing.assert_array_equal(found.ravel(), image.ravel())


def test_a_grey_image_stands_for_all_channels_of_a_colour_network() -> None:
    image = pixels(6, 8)
    buffer = np.zeros((1, *COLOUR), np.uint8)
    buffer[:] = as_batch(image, COLOUR)[0]
    for channel in range(3):
        np.testing.assert_array_equal(buffer[0, :, :, channel], image)


def test_a_view_of_every_second_pixel_of_a_larger_frame_is_an_image() -> None:
    """What an application gets from cropping or striding a camera's buffer."""
    frame = pixels(12, 16, 3)
    view = frame[::2, ::-2]
    assert not view.flags.c_contiguous
    found, _ = as_batch(view, COLOUR)
    assert np.shares_memory(found, frame)
    np.testing.assert_array_equal(found[0], view)


def test_a_read_only_image_is_read() -> None:
    image = pixels(6, 8, 3)
    image.flags.writeable = False
    np.testing.assert_array_equal(as_batch(image, COLOUR)[0][0], image)


@pytest.mark.parametrize(("mode", "expected", "shape"), [("L", GREY, (6, 8)), ("RGB", COLOUR, (6, 8, 3)), ("L", COLOUR, (6, 8))])
def test_a_pil_image_is_an_image(mode: str, expected: tuple[int, int, int], shape: tuple[int, ...]) -> None:
    array = pixels(*shape)
    found, is_batch = as_batch(PIL.Image.fromarray(array, mode), expected)
    assert not is_batch
    np.testing.assert_array_equal(found[0, ..., 0], array.reshape(6, 8, -1)[..., 0])


def test_an_object_with_an_array_interface_is_an_image() -> None:
    class Frame:
        def __init__(self, array: NDArray[np.uint8]) -> None:
            self.array = array
            self.__array_interface__ = array.__array_interface__

    image = pixels(6, 8, 3)
    found, _ = as_batch(Frame(image), COLOUR)
    assert np.shares_memory(found, image)
    np.testing.assert_array_equal(found[0], image)


def test_a_torch_tensor_on_the_cpu_is_an_image_or_a_batch() -> None:
    """Through DLPack, without a copy; sdk imports no torch."""
    tensor = torch.from_numpy(pixels(4, 6, 8, 3))
    found, is_batch = as_batch(tensor, COLOUR)
    assert is_batch
    np.testing.assert_array_equal(found, tensor.numpy())
    assert np.shares_memory(found, tensor.numpy())
    turned = torch.from_numpy(pixels(3, 6, 8)).permute(1, 2, 0)
    np.testing.assert_array_equal(as_batch(turned, COLOUR)[0][0], turned.numpy())


@pytest.mark.parametrize("device", [2, 10, 7])
def test_an_image_on_a_gpu_is_refused_with_what_to_do(device: int) -> None:
    class OnGpu:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (device, 0)

        def __dlpack__(self, **_: object) -> object:
            raise AssertionError("it must not be read")

    with pytest.raises(InputError, match=r"the image \(OnGpu\) lies on a GPU, .* copy it there first"):
        as_batch(OnGpu(), COLOUR)


def test_a_cuda_array_is_refused_with_what_to_do() -> None:
    class Cupy:
        @property
        def __cuda_array_interface__(self) -> dict[str, object]:
            return {"shape": (6, 8, 3)}

    with pytest.raises(InputError, match=r"\(Cupy\) lies on a GPU"):
        as_batch(Cupy(), COLOUR)


def test_memory_that_the_host_shares_with_a_gpu_is_not_refused_for_its_place() -> None:
    class Pinned:
        def __init__(self, array: NDArray[np.uint8]) -> None:
            self.array = array

        def __dlpack_device__(self) -> tuple[int, int]:
            return (3, 0)

        def __dlpack__(self, **arguments: object) -> object:
            return self.array.__dlpack__()

    image = pixels(6, 8, 3)
    np.testing.assert_array_equal(as_batch(Pinned(image), COLOUR)[0][0], image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_, np.int8, np.uint16])
def test_other_types_are_refused_with_where_normalisation_happens(dtype: type) -> None:
    image = pixels(6, 8, 3).astype(dtype)
    with pytest.raises(InputError) as caught:
        as_batch(image, COLOUR)
    assert str(caught.value) == (
        f"an image must be uint8 (6, 8, 3), (6, 8) or a batch (n, 6, 8, 3), got {np.dtype(dtype)} (6, 8, 3)"
        "; pixels are 0 to 255, normalisation happens inside the engine"
    )


def test_a_float_tensor_is_refused_too() -> None:
    with pytest.raises(InputError, match=r"got float32 .*normalisation happens inside the engine"):
        as_batch(torch.zeros(6, 8, 3), COLOUR)


@pytest.mark.parametrize("shape", [(3, 6, 8), (1, 6, 8)])
def test_channels_first_are_refused_with_a_hint(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"; channels come last$"):
        as_batch(pixels(*shape), COLOUR)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((7, 8, 3), "resize it to 6 x 8 first"),
        ((6, 9, 3), "resize it to 6 x 8 first"),
        ((12, 16), "resize it to 6 x 8 first"),
        ((8, 6), "resize it to 6 x 8 first"),
        ((6, 8, 4), "give it 3 channels first"),
        ((7, 8, 4), "resize it to 6 x 8 and give it 3 channels first"),
    ],
)
def test_another_size_is_refused_with_what_to_do(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InputError, match=rf"got uint8 \(.*\); {hint}$"):
        as_batch(pixels(*shape), COLOUR)


def test_a_colour_image_for_a_network_that_reads_gray_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"; convert it to grayscale first$"):
        as_batch(pixels(6, 8, 3), (6, 8, 1))


def test_a_list_of_images_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"got list; make one array of it with numpy.stack$"):
        as_batch([pixels(6, 8, 3)], COLOUR)


def test_one_channel_first_is_not_taken_for_a_batch_of_one() -> None:
    with pytest.raises(InputError, match=r"; channels come last$"):
        as_batch(pixels(1, 6, 8), (6, 8, 1))


@pytest.mark.parametrize("shape", [(0, 6, 8, 3), (0, 6, 8), (), (6,), (2, 7, 8, 3), (2, 3, 6, 8), (1, 2, 6, 8, 3)])
def test_an_empty_batch_and_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"must be uint8 \(6, 8, 3\), \(6, 8\) or a batch \(n, 6, 8, 3\), got uint8 \("):
        as_batch(np.zeros(shape, np.uint8), COLOUR)


@pytest.mark.parametrize("image", [None, "image.png", b"bytes", 7, [[1, 2], [3, 4]], object()])
def test_what_is_no_image_is_refused_by_its_type(image: object) -> None:
    with pytest.raises(InputError, match=f"or speak DLPack or __array_interface__; got {type(image).__name__}"):
        as_batch(image, COLOUR)


def test_an_object_that_cannot_be_read_is_refused_with_its_own_words() -> None:
    class Broken:
        @property
        def __array_interface__(self) -> dict[str, object]:
            return {"shape": "?", "typestr": "|u1", "version": 3}

    with pytest.raises(InputError, match=r"the image \(Broken\) cannot be read: .*; give uint8"):
        as_batch(Broken(), COLOUR)


def test_a_picture_that_is_cut_off_is_refused_with_its_own_words(tmp_path: Path) -> None:
    """PIL reads a file when it is first asked for pixels, which is here."""
    path = tmp_path / "photo.png"
    PIL.Image.fromarray(random_images(1, (60, 80, 3))[0]).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cannot be read: .*(truncated|broken)"):
        as_batch(PIL.Image.open(path), (60, 80, 3))


@pytest.mark.parametrize("mode", ["P", "HSV", "1"])
def test_a_picture_of_palette_indices_or_another_colour_space_is_refused(mode: str) -> None:
    """Its bytes have the shape of a gray or RGB image, and would be classified as one."""
    picture = PIL.Image.fromarray(random_images(1, (6, 8, 3))[0]).convert(mode)
    with pytest.raises(InputError, match=rf"has mode '{mode}': call its convert"):
        as_batch(picture, (6, 8, 3))
