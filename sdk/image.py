"""Images as applications have them, brought into the form that engines read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import InputError

_HOST = (1, 3)  # DLPack's kDLCPU and kDLCUDAHost


def as_batch(image: object, expected: tuple[int, int, int]) -> tuple[NDArray[np.uint8], bool]:
    """View an image, or a batch of them, as (N, H, W, C) or (N, H, W, 1); a grayscale image stands for all channels of the network.

    Args:
        image: uint8 (H, W, C), (H, W) or (N, H, W, C) - also (N, H, W), N > 1, where the network reads grayscale - as a numpy array,
            or anything in host memory that speaks DLPack or `__array_interface__`.
        expected: Height, width and channels that the network reads.

    Returns:
        The view, not a copy where that is possible, and whether it is a batch.

    Raises:
        InputError: the type, the shape or the device is wrong; the message says what was found and what is expected.
    """
    array = image if isinstance(image, np.ndarray) else _as_array(image, expected)
    shape = array.shape
    if array.dtype == np.uint8:
        height, width, channels = expected
        plane = (height, width)
        if shape == expected or shape == (height, width, 1):
            return array[None], False
        if shape == plane:
            return array[None, :, :, None], False
        if len(shape) == 4 and shape[0] and shape[1:3] == plane and shape[3] in (channels, 1):
            return array, True
        # (1, H, W) would be a batch of one, but is more often an image with its channel first.
        if len(shape) == 3 and shape[0] > 1 and shape[1:] == plane and channels == 1:
            return array[..., None], True
    raise InputError(f"an image must be {_form(expected)}, got {array.dtype} {shape}{_hint(array, expected)}")


def _as_array(image: object, expected: tuple[int, int, int]) -> NDArray[Any]:
    kind = type(image).__name__
    device = getattr(image, "__dlpack_device__", None)
    try:
        if (device is not None and device()[0] not in _HOST) or hasattr(image, "__cuda_array_interface__"):
            raise InputError(f"the image ({kind}) lies on a GPU, and this backend reads host memory: copy it there first")
        if hasattr(image, "__array_interface__"):
            mode = getattr(image, "mode", "L")
            if mode not in ("L", "RGB"):
                # A PIL image of palette indices, or of another colour space, would pass for gray or RGB.
                raise InputError(f"the image ({kind}) has mode {mode!r}: call its convert('L') or convert('RGB') first")
            return np.asarray(image)
        if device is not None:
            array: NDArray[Any] = np.from_dlpack(image)  # type: ignore[arg-type]
            return array
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, BufferError, OSError, SyntaxError) as error:
        # OSError and SyntaxError: PIL reads a file when it is asked for pixels.
        raise InputError(f"the image ({kind}) cannot be read: {error}; give {_form(expected)}") from None
    stack = "; make one array of it with numpy.stack" if isinstance(image, list | tuple) else ""
    raise InputError(f"an image must be {_form(expected)}, or speak DLPack or __array_interface__; got {kind}{stack}")


def _form(expected: tuple[int, int, int]) -> str:
    height, width, channels = expected
    batch = f"(n, {height}, {width}, {channels})" + (f" or (n, {height}, {width})" if channels == 1 else "")
    return f"uint8 ({height}, {width}, {channels}), ({height}, {width}) or a batch {batch}"


def _hint(array: NDArray[Any], expected: tuple[int, int, int]) -> str:
    height, width, channels = expected
    shape = array.shape
    if array.dtype != np.uint8:
        return "; pixels are 0 to 255, normalisation happens inside the engine"
    if 0 in shape:
        return "; it is empty"
    if shape in ((channels, height, width), (1, height, width)):
        return "; channels come last"
    if len(shape) not in (2, 3, 4):
        return ""
    size = shape[-3:-1] if len(shape) > 2 else shape
    hints = [] if size == (height, width) else [f"resize it to {height} x {width}"]
    if len(shape) > 2 and shape[-1] not in (channels, 1):
        hints.append("convert it to grayscale" if channels == 1 else f"give it {channels} channels")
    return f"; {' and '.join(hints)} first" if hints else ""
