"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from engines.errors import TrainingError
from trainer.device import choose_device


@pytest.mark.parametrize(("gpus", "auto"), [(0, "cpu"), (2, "cuda")])
def test_a_gpu_is_taken_where_there_is_one(gpus: int, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert choose_device("auto") == auto
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["foo", "cuda:2", "meta", "", "cuda:-1"])
def test_a_device_that_is_not_there_lists_those_that_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match=r"here; there are: auto, cpu, cuda, cuda:0, cuda:1"):
        choose_device(name)
