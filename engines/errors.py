"""The errors that this project raises for what a user can mend.

::

    AwnError                 everything below; tools print it and exit with 2
    ├── WidthError           a width, a divisor or a grid text that makes no sense   (also a ValueError)
    ├── ModelError           a model file that is missing, damaged or not one of ours
    ├── BundleError          a bundle that is missing, incomplete, damaged or altered
    │   └── DeviceMismatch   a bundle that was made for another device
    ├── BackendError         a backend that is unknown, not installed, or failed
    ├── ProfileError         a profile that is missing, damaged, or of another bundle or device
    ├── InputError           an image of the wrong shape, type or place              (also a ValueError)
    ├── BudgetError          a budget that cannot mean anything                      (also a ValueError)
    └── TrainingError        a recipe, data set or checkpoint that cannot be used

Each message says what was found, what was expected and what to do about it.
"""

from __future__ import annotations


class AwnError(Exception):
    """Base of every error that this project raises on purpose."""


class WidthError(AwnError, ValueError):
    """A width, a divisor or a grid text makes no sense."""


class ModelError(AwnError):
    """A model file is missing, damaged or not one of ours."""


class BundleError(AwnError):
    """A bundle is missing, incomplete, damaged or altered."""


class DeviceMismatch(BundleError):
    """A bundle was made for another device."""


class BackendError(AwnError):
    """A backend is unknown, not installed, or failed."""


class ProfileError(AwnError):
    """A profile is missing, damaged, or of another bundle or device."""


class InputError(AwnError, ValueError):
    """An image has the wrong shape, type or place."""


class BudgetError(AwnError, ValueError):
    """A budget cannot mean anything."""


class TrainingError(AwnError):
    """A recipe, a data set or a checkpoint cannot be used."""
