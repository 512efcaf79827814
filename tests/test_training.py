"""Training goes on exactly where it stopped, whatever stopped it, and keeps what it promises."""

import csv
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from made_pairs import pasted_pair, write_dataset
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pipelines import cli
from pipelines.train import TrainConfig, main, train
from segswap import checkpoints, losses
from segswap.checkpoints import load_state, save_state
from segswap.metrics import Scores
from segswap.model import load
from segswap.training import COLUMNS, Schedule, Trainer, learning_rate

STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Sums come out the same for the same number of threads, here and in child processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("made") / "pairs"
    train_pairs = [pasted_pair(index) for index in range(5)]
    return write_dataset(folder, train_pairs, [pasted_pair(9), pasted_pair(10)])


@pytest.fixture
def config(dataset: str, tmp_path: Path) -> TrainConfig:
    """A run of a few seconds' hundredths a step."""
    return TrainConfig(
        (dataset,), str(tmp_path / "run"), steps=STEPS, batch=2, size=64, match_size=64, every=2,
        warmup=2, device="cpu", precision="fp32", workers=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a finished run of a config, whose own --out plays no role; made once each."""
    made: dict[str, Path] = {}

    def run(config: TrainConfig) -> Path:
        key = repr(replace(config, out=""))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("undisturbed") / "run"
            assert train(replace(config, out=str(made[key]))) == 0
        return made[key]

    return run


def out_of(config: TrainConfig) -> Path:
    return Path(config.out)


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal bit for bit; how fast they were reached does not count."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        keys = (set(first) | set(second)) - {"pairs_per_second"}
        return all(k in first and k in second and same(first[k], second[k]) for k in keys)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def assert_same_run(first: Path, second: Path) -> None:
    one, two = load_state(first), load_state(second)
    assert one["step"] == two["step"]
    assert same(one["model"], two["model"])
    assert same(one["optimiser"], two["optimiser"])
    assert same(one["history"], two["history"])
    assert same(one, two)
    assert same(load_file(first / "model.safetensors"), load_file(second / "model.safetensors"))


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: int = signal.SIGTERM) -> None:
    """Have this process interrupted by a signal right after so many steps of training."""
    original = Trainer._step

    def step(self: Trainer, batch: Any) -> dict[str, float]:
        values = original(self, batch)
        if self.step + 1 == steps:
            signal.raise_signal(number)
        return values

    monkeypatch.setattr(Trainer, "_step", step)


def history(out: Path) -> list[dict[str, str]]:
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- going on --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("matcher", ["correlation", "transformer"])
def test_half_a_run_and_the_rest_equal_the_whole(
    matcher: str, steps: int, config: TrainConfig, undisturbed: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if matcher == "transformer":  # it has dropout, and batch statistics in its backbone
        config = replace(
            config, matcher="transformer", model_size="tiny", backbone="resnet18",
            freeze_backbone=False,
        )  # fmt: skip
    whole = undisturbed(config)
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        assert train(config) == 130
    assert load_state(out_of(config))["step"] == steps
    assert not same(load_state(out_of(config))["model"], load_state(whole)["model"])
    # Elsewhere numbers are drawn in the meantime.
    torch.manual_seed(99)
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), whole)


def test_number_of_loader_workers_changes_nothing(
    config: TrainConfig, undisturbed: Callable[..., Path]
) -> None:
    assert train(replace(config, workers=2)) == 0
    assert_same_run(out_of(config), undisturbed(config))


def test_seed_changes_everything(config: TrainConfig, undisturbed: Callable[..., Path]) -> None:
    first = load_state(undisturbed(config))["model"]
    other = load_state(undisturbed(replace(config, seed=1, steps=2)))["model"]
    assert not same(first["adapt.0.weight"], other["adapt.0.weight"])


def test_interrupt_where_the_history_has_a_row_without_scores(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows come every 25 steps, scores every 40.
    long = replace(config, steps=40, every=40)
    with monkeypatch.context() as patch:
        stop_after(patch, 25, signal.SIGINT)
        assert train(long) == 130
    state = load_state(out_of(config))
    assert state["step"] == 25
    assert [row["step"] for row in state["history"]] == [25]
    load(config.out)


def test_resuming_a_finished_run_finds_nothing_to_do(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config)
    before = (out_of(config) / "model.safetensors").read_bytes()
    state = load_state(out_of(config))
    assert train(replace(config, resume=True)) == 0
    assert f"{STEPS} steps" in capsys.readouterr().out
    assert (out_of(config) / "model.safetensors").read_bytes() == before
    assert same(load_state(out_of(config)), state)


def start(config: TrainConfig, script: Callable[[str], str]) -> subprocess.Popen[str]:
    """segswap-train as a process of its own, in its own group, past its first checkpoint."""
    flags = cli.as_dict(replace(config, data=(), resume=False))
    arguments = [
        f"--{key.replace('_', '-')}={value}"
        for key, value in flags.items()
        if value is not None and not isinstance(value, bool | list)
    ]
    process = subprocess.Popen(
        [script("segswap-train"), *config.data, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not (out_of(config) / "last.pt").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ("number", "whole_group", "workers"),
    [
        (signal.SIGTERM, False, 0),  # kill
        (signal.SIGINT, True, 1),  # Ctrl-C in a terminal reaches the loaders too
        (signal.SIGTERM, True, 1),  # so does what a cluster's scheduler sends
    ],
)
def test_interrupted_command_leaves_a_checkpoint_to_finish_from(
    number: int, whole_group: bool, workers: int, config: TrainConfig,
    undisturbed: Callable[..., Path], script: Callable[[str], str],
) -> None:  # fmt: skip
    config = replace(config, steps=40, every=5)
    process = start(replace(config, workers=workers), script)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    state = load_state(out_of(config))
    assert 5 <= state["step"] < 40
    assert f"stopped at step {state['step']}; --resume" in output
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), undisturbed(config))


def test_killed_command_leaves_a_checkpoint_to_finish_from(
    config: TrainConfig, undisturbed: Callable[..., Path], script: Callable[[str], str]
) -> None:
    config = replace(config, steps=40, every=5)
    process = start(config, script)
    # The kill falls into the writing of the next checkpoint, or right behind it.
    while not (out_of(config) / ".last.pt.tmp").exists():
        assert process.poll() is None, process.communicate()[0]
    process.kill()
    process.communicate()
    state = load_state(out_of(config))
    assert 5 <= state["step"] < 40
    load(config.out)
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), undisturbed(config))


# --- checkpoints -----------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, {"step": 1})

    def fail(state: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            save_state(tmp_path, {"step": 2})
    assert load_state(tmp_path) == {"step": 1}
    # What is left over is in nobody's way.
    save_state(tmp_path, {"step": 3})
    assert load_state(tmp_path) == {"step": 3}
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt"}


class _Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code_in_it_is_refused(
    zipped: bool, config: TrainConfig, tmp_path: Path
) -> None:
    train(config)
    payload = {"step": 2, "model": _Payload(tmp_path / "harmed")}
    last = out_of(config) / "last.pt"
    if zipped:
        torch.save(payload, last)
    else:
        last.write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=r"last\.pt cannot be read"):
        train(replace(config, resume=True))
    assert not (tmp_path / "harmed").exists()


def test_a_missing_or_damaged_checkpoint_is_named(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="no run to resume"):
        train(replace(config, resume=True))
    train(config)
    last = out_of(config) / "last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"last\.pt cannot be read"):
        train(replace(config, resume=True))
    last.unlink()
    with pytest.raises(ValueError, match=r"holds no last\.pt"):
        train(replace(config, resume=True))


def test_best_weights_are_kept_and_the_last_too(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []

    def evaluate(self: Trainer) -> Scores:
        seen.append({k: v.clone() for k, v in self.matcher.state_dict().items()})
        return Scores((0.1, 0.9, 0.5)[len(seen) - 1], 0, 0, 0.2, 0)

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    train(config)
    assert len(seen) == 3
    best, last = load_file(out_of(config) / "model.safetensors"), load_state(out_of(config))
    assert same(best, seen[1])
    assert same(last["model"], seen[2])
    assert not same(seen[1], seen[2])
    assert last["best"] == pytest.approx(1.1)
    assert same(load(config.out).matcher.state_dict(), seen[1])


def test_without_val_pairs_the_last_weights_are_kept(config: TrainConfig, tmp_path: Path) -> None:
    alone = write_dataset(tmp_path / "train", [pasted_pair(0), pasted_pair(1)])
    train(replace(config, data=(alone,)))
    state = load_state(out_of(config))
    assert same(load_file(out_of(config) / "model.safetensors"), state["model"])
    assert not any(key.startswith("val_") for row in state["history"] for key in row)


# --- losses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "columns"),
    [
        ("loss_mask", {"mask"}), ("loss_transfer", {"transfer"}),
        ("loss_corr", {"corr", "correlation"}),
    ],
)  # fmt: skip
def test_each_loss_can_be_switched_off(flag: str, columns: set[str], config: TrainConfig) -> None:
    assert train(replace(config, steps=2, **{flag: 0.0})) == 0  # type: ignore[arg-type]
    (row,) = history(out_of(config))
    empty = {name for name in ("mask", "transfer", "corr", "correlation") if not row[name]}
    assert empty == columns
    rest = {"mask", "transfer", "corr", "correlation"} - columns
    assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in rest), rel=1e-5)


def test_losses_are_weighted(config: TrainConfig) -> None:
    train(replace(config, steps=2, loss_mask=2.0, loss_transfer=0.5, loss_corr=0.1))
    row = {k: float(v) for k, v in history(out_of(config))[0].items()}
    expected = 2 * row["mask"] + 0.5 * row["transfer"] + 0.1 * (row["corr"] + row["correlation"])
    assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_all_losses_off_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        replace(config, loss_mask=0, loss_transfer=0, loss_corr=0)


def test_loss_falls(config: TrainConfig, tmp_path: Path) -> None:
    two = write_dataset(tmp_path / "two", [pasted_pair(0), pasted_pair(1)])
    train(replace(config, data=(two,), steps=60, every=10, lr=5e-3))
    rows = [{k: float(v) for k, v in row.items() if v} for row in history(out_of(config))]
    for name in ("loss", "mask", "correlation"):
        assert rows[-1][name] < 0.85 * rows[0][name], name


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    kind: str, config: TrainConfig, undisturbed: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    original, calls = losses.mask_loss, 0

    def spoilt(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        value = original(*arguments)
        if calls < 4:
            return value
        # The root's slope at 0 is infinite.
        return value * math.nan if kind == "loss" else value + (value - value).abs().sqrt()

    with monkeypatch.context() as patch:
        patch.setattr(losses, "mask_loss", spoilt)
        with pytest.raises(RuntimeError, match=r"not finite at step 3.*--lr"):
            train(config)
    assert load_state(out_of(config))["step"] == 2
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), undisturbed(config))


def test_bf16_runs_and_learns_about_the_same(
    config: TrainConfig, undisturbed: Callable[..., Path]
) -> None:
    train(replace(config, precision="bf16"))
    exact, rough = (float(history(out)[0]["loss"]) for out in
                    (undisturbed(config), out_of(config)))  # fmt: skip
    assert rough == pytest.approx(exact, rel=0.05)
    assert rough != exact


def test_negatives_are_other_samples_targets(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    original = losses.mask_loss

    def noted(matches: Any, batch: Any, negatives: Any, weight: float) -> Tensor:
        counts.append(0 if negatives is None else len(negatives.source_logits))
        return original(matches, batch, negatives, weight)

    monkeypatch.setattr(losses, "mask_loss", noted)
    for number, (batch, negatives) in enumerate(((3, 2), (2, 5), (2, 0), (1, 1))):
        run = replace(config, out=f"{config.out}{number}", steps=1, batch=batch,
                      negatives=negatives)  # fmt: skip
        train(run)
    # By shifting, a batch of n gives at most n - 1 different ones a pair.
    assert counts == [6, 2, 0, 0]


def test_learning_rate_rises_then_falls_to_a_twentieth() -> None:
    schedule = Schedule(100, 2, 1, 1e-3, 10, {}, 10, 10, 0)
    rates = [learning_rate(schedule, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx(1e-3 * 1.05 / 2)
    assert rates[99] == pytest.approx(5e-5, rel=0.02)
    assert np.diff(rates[:10]).min() > 0
    assert np.diff(rates[10:]).max() < 0


# --- the run's folder ------------------------------------------------------------------------


def test_a_run_leaves_what_is_promised(config: TrainConfig) -> None:
    train(config)
    out = out_of(config)
    rows = history(out)
    assert list(rows[0]) == list(COLUMNS)
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    for row in rows:
        assert all(row.values())
        assert 0 <= float(row["val_mask_iou"]) <= 1
        assert float(row["pairs_per_second"]) > 0
    curves = cv2.imread(str(out / "curves.png"))
    assert curves is not None
    assert curves.std() > 5
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        name.replace("val_", "val/") for name in COLUMNS if name != "step"
    }
    assert [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars("loss")] == [
        (int(row["step"]), float(row["loss"])) for row in rows
    ]
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "model.json", "last.pt", "history.csv", "curves.png", "tensorboard",
        "config.yaml", "run.json",
    }  # fmt: skip
    model = load(out)
    assert model.settings["size"] == 64


def test_a_runs_config_file_repeats_it(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, loss_corr=0.5, lr=1e-5, negatives=0)
    train(config)
    again = cli.parse(
        TrainConfig,
        [*config.data, "--out", str(tmp_path / "again"), "--config", f"{config.out}/config.yaml",
         "--workers", "0", "--device", "cpu"],
    )  # fmt: skip
    assert again == replace(config, out=str(tmp_path / "again"))


def test_resuming_with_another_configuration_is_refused_by_name(config: TrainConfig) -> None:
    train(config)
    state = load_state(out_of(config))
    for change, message in (
        ({"lr": 0.25}, "lr was None, is 0.25"),
        ({"loss_mask": 0.0, "seed": 4}, "loss_mask was 1.0, is 0.0; seed was 0, is 4"),
        ({"batch": 1}, "batch was 2, is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train(replace(config, resume=True, **change))  # type: ignore[arg-type]
    assert same(load_state(out_of(config)), state)
    # How it is run may change.
    assert train(replace(config, resume=True, workers=1, device="auto")) == 0


def test_resuming_on_other_datasets_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", [pasted_pair(3), pasted_pair(4)])
    config = replace(config, data=(*config.data, other), steps=2)
    train(config)
    moved = tmp_path / "moved"
    shutil.copytree(other, moved)
    assert train(replace(config, data=(config.data[0], str(moved)), resume=True)) == 0
    for data in (config.data[:1], config.data[::-1]):
        with pytest.raises(ValueError, match="datasets was"):
            train(replace(config, data=data, resume=True))


def test_an_existing_folder_is_refused_and_nothing_is_lost(
    config: TrainConfig, tmp_path: Path
) -> None:
    train(config)
    files = [path for path in sorted(out_of(config).rglob("*")) if path.is_file()]
    before = [path.read_bytes() for path in files]
    with pytest.raises(ValueError, match="--resume"):
        train(config)
    assert [path for path in sorted(out_of(config).rglob("*")) if path.is_file()] == files
    assert [path.read_bytes() for path in files] == before

    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("chapter 1")
    with pytest.raises(ValueError, match=r"other files"):
        train(replace(config, out=str(notes)))
    with pytest.raises(ValueError, match="is a file"):
        train(replace(config, out=str(notes / "thesis.txt")))
    assert [path.name for path in notes.iterdir()] == ["thesis.txt"]


def test_unusable_settings_are_refused_before_anything_is_written(
    config: TrainConfig, tmp_path: Path
) -> None:
    for change, message in (
        ({"size": 100}, "--size is 100.*stride 8"),
        ({"match_size": 16}, "--match-size is 16"),
        ({"data": (str(tmp_path / "nothing"),)}, "no finished dataset"),
        ({"device": "abacus"}, "--device abacus"),
        ({"matcher": "transformer", "backbone": "resnet18", "freeze_backbone": False,
          "backbone_weights": str(tmp_path / "none.pth")}, "none.pth does not exist"),
        ({"matcher": "transformer", "backbone": "resnett", "freeze_backbone": False}, "resnett"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            train(replace(config, **change))  # type: ignore[arg-type]
        assert not out_of(config).exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps is 0; expected at least 1"),
        (["--lr", "-1"], "--lr is -1.0; expected a positive number"),
        (["--loss-mask", "-1"], "--loss-mask is -1.0"),
        (["--matcher", "transformer"], "--backbone-weights"),
        (["--stepz", "3"], "--steps"),
        (["--matcher", "magic"], "transformer"),
    ],
)
def test_command_says_what_is_wrong(
    flags: list[str], message: str, config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = ["segswap-train", *config.data, "--out", config.out, *flags]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out_of(config).exists()
