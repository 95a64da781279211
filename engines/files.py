"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, finds the old content or the new, never a part.

    Args:
        path: Where; its directory is made if it is missing.
        data: All of the content.

    Raises:
        OSError: the disk is full or not writable, or `path` is no plain file; what was there before is still there.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    # The rename itself must survive a power cut too.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        # Some network file systems cannot; the file is there all the same.
        with contextlib.suppress(OSError):
            os.fsync(directory)
    finally:
        os.close(directory)


def remove_parts(directory: Path, name: str = "*") -> None:
    """Delete what `write_atomically` left behind of files of a name (a glob) in a directory when its process was killed."""
    for part in directory.glob(f".{name}.*.part"):
        part.unlink(missing_ok=True)
