"""Two processes train as one does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from engines.errors import TrainingError
from tests.trainer import tiny
from trainer import checkpoint, processes
from trainer.loop import Run
from trainer.norms import normalise
from trainer.recipe import Recipe, Widths

AWN = tiny.recipe(ema=0.9, weight_decay=1e-3, distil=0.3, widths=Widths(choose="random", loss="mean"))
RECIPES = {
    "awn": AWN,
    "s-net": tiny.recipe(kind="s-net", widths=Widths(choose="fixed", step="algorithm-1")),
    "us-net": tiny.recipe(kind="us-net", widths=Widths(choose="random", step="algorithm-1")),
}


def _train(rank: int, count: int, port: int, recipes: dict[str, Recipe], out: Path) -> None:
    import os

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    assert processes.start("cpu") == "cpu"
    assert (processes.rank(), processes.count()) == (rank, count)
    for name, recipe in recipes.items():
        Run(recipe, tiny.images(64), tiny.images(40, seed=1), out / name).train()
    try:
        processes.share(torch.zeros(3), torch.zeros(3))
    except TrainingError as error:
        assert "3 images cannot be divided among 2 processes" in str(error)  # noqa: PT017  (pytest is in another process)
    else:
        raise AssertionError
    processes.stop()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes, under `two`, and of this one, under `one`."""
    out = tmp_path_factory.mktemp("runs")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_train, (2, port, RECIPES, out / "two"), nprocs=2)  # type: ignore[no-untyped-call]
    for name, recipe in RECIPES.items():
        Run(recipe, tiny.images(64), tiny.images(40, seed=1), out / "one" / name).train()
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_give_the_loss_and_weights_of_one(name: str, trained: Path) -> None:
    logs = [(trained / count / name / "log.csv").read_text().splitlines()[1:] for count in ("one", "two")]
    losses = [[float(line.split(",")[1]) for line in log] for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    one, two = (checkpoint.load(trained / count / name / "weights.safetensors")[0] for count in ("one", "two"))
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_statistics_of_a_divided_batch_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic for several processes, with one that pretends to be more: the sum over it is its own."""
    torch.manual_seed(0)
    x = (torch.randn(6, 4, 3, 3, dtype=torch.float64) * 2 + 3).requires_grad_()
    weight, bias = (torch.rand(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    results = []
    for pretend in (False, True):
        mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
        if pretend:
            # Several processes for the branch, one for the sizes.
            monkeypatch.setattr(processes, "count", iter([2, 1]).__next__)
            monkeypatch.setattr(processes, "total", lambda values: values)
        y = normalise(x, mean, var, weight, bias, momentum=0.1, eps=1e-5)
        gradients = torch.autograd.grad((y**3).sum(), [x, weight, bias])
        results.append([y.detach(), mean, var, *gradients])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_alone_there_is_nothing_to_share() -> None:
    assert processes.start("cpu") == "cpu"
    assert (processes.rank(), processes.count()) == (0, 1)
    x, y = torch.zeros(3), torch.ones(3)
    assert [len(part) for part in processes.share(x, y)] == [3, 3]
    assert processes.total(x) is x
    processes.average_gradients([])
    processes.stop()


def test_a_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(processes.distributed, "is_initialized", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.start("auto") == "cuda:1"
    assert taken == ["cuda:1"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match="'cuda:2'"):
        processes.start("cuda")
