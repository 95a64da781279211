"""The page about one's own network does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from engines.model import Model
from tests.trainer import tiny
from trainer import data
from trainer.networks import NETWORKS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_about_ones_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", lambda name, root, *, train: tiny.images(64, seed=int(train)))
    monkeypatch.setitem(NETWORKS, "small", NETWORKS["lenet3c1l"])  # so that what the page registers goes away again
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "own-network.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    page: dict[str, object] = {}
    for block in blocks:
        exec(block, page)  # the page's own text
    assert page["path"] == Path("runs/small/small.onnx")
    assert isinstance(page["model"], Model)
    network = page["run"].kept  # type: ignore[attr-defined]
    assert network.prefix
    with torch.no_grad():
        assert network.logits_at(tiny.images().images, network.rule.a_min).shape == (12, 4)
