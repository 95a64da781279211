"""Files that carry the version of their own layout: what is newer than this package is said to be so, before anything else is read."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from engines.errors import AwnError

Kind = TypeVar("Kind")


class _Version(msgspec.Struct):
    format: int


def decode_format(data: bytes | str, kind: type[Kind], *, newest: int, name: str, error: type[AwnError]) -> Kind:
    """Decode JSON whose `format` says its layout.

    Args:
        data: The JSON text.
        kind: What it decodes to.
        newest: The newest format that this package reads.
        name: What the error calls it.
        error: Raised if its format is newer.

    Raises:
        AwnError: of the type `error`, if the format is newer.
        msgspec.DecodeError: it is no JSON, or not of that kind.
        UnicodeDecodeError: it is no UTF-8.
    """
    found = msgspec.json.decode(data, type=_Version).format
    if found > newest:
        raise error(f"{name} has format {found}; this version reads up to {newest}: update this package")
    return msgspec.json.decode(data, type=kind)
