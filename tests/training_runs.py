"""What tests of training share: small runs, interruptions, and comparisons of what is left."""

import csv
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_pairs import pasted_pair, write_dataset
from safetensors.torch import load_file
from torch import Tensor

from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.data.pair import Pair
from segswap.training.checkpoints import load_state
from segswap.training.trainer import Trainer

STEPS = 6
# Not part of what a run computes.
_TIMES = {"samples_per_second", "waiting"}


def small_dataset(folder: Path) -> str:
    """Five train pairs and two val pairs, each of images of its own."""
    return write_dataset(
        folder, [origin_pair(n) for n in range(5)], [origin_pair(9), origin_pair(10)]
    )


def origin_pair(index: int, image: int | None = None) -> Pair:
    """A made pair that says which image its source is."""
    pair = pasted_pair(index if image is None else image)
    name = f"{index if image is None else image}.jpg"
    segment = {"dataset": "made", "image": name}
    return replace(pair, index=index, objects=(replace(pair.objects[0], segment=segment),))


def small_config(dataset: str, folder: Path, **changes: Any) -> TrainConfig:
    """A run of a few seconds' hundredths a step, on the CPU."""
    config = TrainConfig(
        (dataset,), str(folder / "run"), steps=STEPS, batch=2, size=64, match_size=64, every=2,
        warmup=2, device="cpu", precision="fp32", workers=0,
    )  # fmt: skip
    return replace(config, **changes)


def out_of(config: TrainConfig) -> Path:
    return Path(config.out)


def undisturbed_runs(folder: Path) -> Callable[[TrainConfig], Path]:
    """Folders of finished runs of configs, whose own --out plays no role; each made once."""
    made: dict[str, Path] = {}

    def run(config: TrainConfig) -> Path:
        key = repr(replace(config, out=""))
        if key not in made:
            made[key] = folder / str(len(made)) / "run"
            assert train(replace(config, out=str(made[key]))) == 0
        return made[key]

    return run


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal bit for bit; how fast they were reached does not count."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        keys = (set(first) | set(second)) - _TIMES
        return all(k in first and k in second and same(first[k], second[k]) for k in keys)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second or (first != first and second != second))


def assert_same_run(first: Path, second: Path) -> None:
    one, two = load_state(first), load_state(second)
    assert one["step"] == two["step"]
    for part in ("model", "average", "optimiser", "rates", "history", "task"):
        assert same(one[part], two[part]), part
    assert same(one, two)
    assert same(load_file(first / "model.safetensors"), load_file(second / "model.safetensors"))


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: int = signal.SIGTERM) -> None:
    """Have this process interrupted by a signal right after so many steps of training."""
    original = Trainer._step

    def step(self: Trainer, batches: Any) -> dict[str, float]:
        values = original(self, batches)
        if self.step + 1 == steps:
            signal.raise_signal(number)
        return values

    monkeypatch.setattr(Trainer, "_step", step)


def history(out: Path) -> list[dict[str, str]]:
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))
