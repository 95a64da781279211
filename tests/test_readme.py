"""What the README shows runs as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_readmes_lines_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^python (tools/build_engines\.py --widths \S+)$", README, re.MULTILINE)
    subprocess.run([sys.executable, *shlex.split(command)], check=True, capture_output=True)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert names["prediction"].label == "7", "the first test image of MNIST"
    careful = names["classifier"](names["image"])
    assert (careful.label, careful.budget_met) == ("7", True)


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]), ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_files_that_are_named_are_there() -> None:
    for name in re.findall(r"`((?:tools|examples|engines|trainer|sdk|docs)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name
