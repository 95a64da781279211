"""What an application imports: classify images at the width that its budget allows.

>>> import sdk
>>> classifier = sdk.AdaptiveClassifier(budget_ms=8)    # the bundle that tools/build_engines.py wrote
>>> prediction = classifier(image)                      # uint8, (H, W, C)
>>> prediction.label, prediction.width, prediction.latency_ms
"""

from engines.errors import (
    AwnError,
    BackendError,
    BudgetError,
    BundleError,
    DeviceMismatch,
    InputError,
    ModelError,
    ProfileError,
    WidthError,
)
from sdk.budget import Budget
from sdk.classifier import AdaptiveClassifier
from sdk.frontier import Frontier
from sdk.governor import Decision, Governor, Past, Reason, hold_latency
from sdk.prediction import Prediction
from sdk.profile import OperatingPoint, Profile, read_profile
from sdk.telemetry import Reading

__all__ = [
    "AdaptiveClassifier",
    "AwnError",
    "BackendError",
    "Budget",
    "BudgetError",
    "BundleError",
    "Decision",
    "DeviceMismatch",
    "Frontier",
    "Governor",
    "InputError",
    "ModelError",
    "OperatingPoint",
    "Past",
    "Prediction",
    "Profile",
    "ProfileError",
    "Reading",
    "Reason",
    "WidthError",
    "hold_latency",
    "read_profile",
]
