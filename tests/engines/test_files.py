"""Files are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engines.files import remove_parts, write_atomically


def test_content_is_written_with_the_directories_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_everyone_may_read_what_was_written(tmp_path: Path) -> None:
    """mkstemp makes files that only their owner reads; a bundle is for other users of the device too."""
    path = tmp_path / "file"
    write_atomically(path, b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_failure_while_writing_leaves_the_old_content_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_find_the_old_or_the_new_content_never_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the rename the old content is there; before it, all of the new content is on disk under another name."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    replace = os.replace
    seen: list[tuple[bytes, bytes]] = []

    def look(source: str, target: Path) -> None:
        seen.append((Path(source).read_bytes(), Path(target).read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_atomically(path, b"new" * 1000)
    assert seen == [(b"new" * 1000, b"old")]
    assert path.read_bytes() == b"new" * 1000


def test_only_parts_are_removed(tmp_path: Path) -> None:
    for name in (".engine.onnx.x7f.part", ".a.part", "kept.part", "kept.onnx", ".lock"):
        (tmp_path / name).write_bytes(b"")
    remove_parts(tmp_path, "engine*")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".a.part", ".lock", "kept.onnx", "kept.part"]


def test_the_longest_file_name_leaves_room_for_the_part(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_atomically(path, b"1")
    assert path.read_bytes() == b"1"


def test_what_is_no_plain_file_is_not_replaced(tmp_path: Path) -> None:
    """As root a rename onto /dev/null would take the device away from everybody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a plain file"):
        write_atomically(pipe, b"1")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
