"""benchmarks/loss_ablation.py end to end, with tiny numbers."""

import csv
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from training_runs import stop_after

from segswap.training.checkpoints import load_state

# The losses that each row trains with, by the columns of its history.
TRAINED = {
    "all-three": {"mask", "transfer", "corr", "correlation"},
    "without-transfer": {"mask", "corr", "correlation"},
    "without-corr": {"mask", "transfer"},
    "without-mask": {"transfer", "corr", "correlation"},
    "mask-alone": {"mask"},
    "corr-alone": {"corr", "correlation"},
}
Ablation = Callable[..., list[str]]


@pytest.fixture
def ablation(
    dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ablation:
    """Run the script on the same pairs with the same --out; returns the lines of its table."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as it is for the script itself
    main = runpy.run_path(str(ROOT / "benchmarks" / "loss_ablation.py"))["main"]

    def run(*more: str) -> list[str]:
        flags = ["--steps=2", "--batch=2", "--size=64", "--match-size=64", "--limit=2"]
        arguments = [dataset, "--out", str(tmp_path / "out"), *flags, *more]
        monkeypatch.setattr(sys, "argv", ["loss_ablation.py", *arguments])
        main()
        printed = capsys.readouterr().out
        assert "2 steps of 2 pairs of 64 px, seed 0" in printed
        return [line for line in printed.splitlines() if line.startswith("|")]

    return run


@pytest.mark.slow
def test_an_ablation_that_was_stopped_is_finished_and_then_reused(
    ablation: Ablation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(SystemExit, match="130"):
            ablation()
    assert load_state(out / "all-three")["step"] == 1

    table = ablation()
    titles = [line.split("|")[1].strip() for line in table]
    assert titles == ["method", "---", *(t.replace("-", " ") for t in TRAINED), "SIFT+RANSAC"]
    assert all(len(line.split("|")) == 10 for line in table[2:])
    for name, losses in TRAINED.items():
        assert load_state(out / name)["step"] == 2
        with open(out / name / "history.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert {loss for loss in TRAINED["all-three"] if row[loss]} == losses

    weights = [out / name / "model.safetensors" for name in TRAINED]
    before = [path.stat().st_mtime_ns for path in weights]
    assert ablation() == table
    assert [path.stat().st_mtime_ns for path in weights] == before

    with pytest.raises(SystemExit, match="seed was 0, is 1"):  # not another ablation's rows
        ablation("--seed", "1")
