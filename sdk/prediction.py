"""What a call of the classifier gives."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from sdk.governor import Reason

SMALL = 128  # logits


class Prediction(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """What a call found, and how.

    Attributes:
        label: Name of the most probable class.
        index: Its index.
        probability: Its probability (softmax).
        logits: All logits, float32 (classes,); the caller's own.
        width: The width that was used; `pin` takes it.
        latency_ms: From entering the call to leaving it; of the whole call where it was a batch.
        budget_met: Whether that was within the budget; True without one.
        reason: Why this width.
    """

    label: str
    index: int
    probability: float
    logits: NDArray[np.float32]
    width: float
    latency_ms: float
    budget_met: bool
    reason: Reason


def most_probable(logits: NDArray[np.float32]) -> tuple[list[int], list[float]]:
    """The best class of each row and its probability, 1 / sum(exp(logit - best logit)); the difference keeps exp from overflowing."""
    if logits.size > SMALL:
        best = logits.argmax(1)
        shares = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
        return best.tolist(), shares.tolist()
    # Right after an engine has run, numpy's code is out of the caches: for a few numbers plain Python takes half the time.
    rows = logits.tolist()
    peaks = [max(row) for row in rows]
    return (
        [row.index(peak) for row, peak in zip(rows, peaks, strict=True)],
        [1 / sum([math.exp(value - peak) for value in row]) for row, peak in zip(rows, peaks, strict=True)],
    )
