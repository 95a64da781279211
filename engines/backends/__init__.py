"""Backends by name; each is imported when it is first asked for, so that nothing loads a runtime that is not used."""

from __future__ import annotations

from importlib import import_module

from engines.backends.base import Backend, Exit, Interface, Pool
from engines.errors import BackendError

# Name to the module that holds `BACKEND`; in the order in which "auto" tries them.
_MODULES = {"onnxruntime": "engines.backends.onnxruntime"}

NAMES = ("auto", *_MODULES)


def load_backend(name: str) -> Backend:
    """The backend of a name; it may still lack its packages, which `Backend.missing` tells.

    Raises:
        BackendError: no backend has the name.
    """
    if name not in _MODULES:
        raise BackendError(f"no backend is named {name!r}; there are: {', '.join(NAMES)}")
    backend: Backend = import_module(_MODULES[name]).BACKEND
    return backend


def choose_backend(name: str) -> tuple[Backend, list[str]]:
    """A backend that can be used here.

    Args:
        name: A name, or "auto" for the first that can be used.

    Returns:
        The backend, and for each that "auto" passed over a line that says why.

    Raises:
        BackendError: the named one, or every one, cannot be used here; the message says why.
    """
    passed: list[str] = []
    for candidate in _MODULES if name == "auto" else (name,):
        backend = load_backend(candidate)
        missing = backend.missing()
        if missing is None:
            return backend, passed
        passed.append(f"{candidate}: {missing}")
    raise BackendError("no backend can be used here: " + "; ".join(passed))


__all__ = ["NAMES", "Backend", "Exit", "Interface", "Pool", "choose_backend", "load_backend"]
