"""segswap-train as a user meets it: its folder, its messages, its interruptions."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import fsspec
import pytest
import torch
import yaml
from made_pairs import pasted_pair, write_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from training_runs import (
    assert_same_run,
    history,
    out_of,
    same,
)

from pipelines.command import cli
from pipelines.training.config import TrainConfig, command_line
from pipelines.training.job import train
from segswap.evaluation.metrics import Scores
from segswap.models.model import load
from segswap.training.checkpoints import load_state
from segswap.training.matching import MatcherTask

# --- interruptions ---------------------------------------------------------------------------


def start(config: TrainConfig, script: Callable[[str], str]) -> subprocess.Popen[str]:
    """segswap-train as a process of its own, in its own group, past its first checkpoint."""
    settings = out_of(config).with_suffix(".yaml")
    kept = {k: v for k, v in cli.as_dict(config).items() if k not in ("data", "out")}
    settings.write_text(yaml.safe_dump(kept))
    process = subprocess.Popen(
        [script("segswap-train"), *config.data, "--out", config.out, "--config", str(settings)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    limit = time.monotonic() + 240
    while not (out_of(config) / "last.pt").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ("number", "whole_group", "workers"),
    [
        pytest.param(signal.SIGTERM, False, 0, marks=pytest.mark.slow),  # kill
        (signal.SIGINT, True, 1),  # Ctrl-C in a terminal reaches the loaders too
        # so does what a cluster's scheduler sends
        pytest.param(signal.SIGTERM, True, 1, marks=pytest.mark.slow),
    ],
)
def test_interrupted_command_leaves_a_checkpoint_to_finish_from(
    number: int, whole_group: bool, workers: int, config: TrainConfig,
    undisturbed: Callable[..., Path], script: Callable[[str], str],
) -> None:  # fmt: skip
    config = replace(config, steps=20, every=5)
    process = start(replace(config, workers=workers), script)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 130, output
    state = load_state(out_of(config))
    assert 5 <= state["step"] < 20
    assert f"stopped at step {state['step']}; --resume" in output
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), undisturbed(config))


def test_killed_command_leaves_a_checkpoint_to_finish_from(
    config: TrainConfig, undisturbed: Callable[..., Path], script: Callable[[str], str]
) -> None:
    config = replace(config, steps=20, every=5)
    process = start(config, script)
    # The kill falls into the writing of the next checkpoint, or right behind it.
    while not list(out_of(config).glob(".last.pt.*.tmp")):
        assert process.poll() is None, process.communicate()[0]
    process.kill()
    process.communicate()
    state = load_state(out_of(config))
    assert 5 <= state["step"] < 20
    load(config.out)
    assert train(replace(config, resume=True)) == 0
    assert_same_run(out_of(config), undisturbed(config))
    assert not list(out_of(config).glob("*.tmp"))


# --- the run's folder ------------------------------------------------------------------------


def test_a_run_leaves_what_is_promised(config: TrainConfig) -> None:
    train(config)
    out = out_of(config)
    rows = history(out)
    columns = ["step", "loss", "mask", "transfer", "corr", "correlation", "lr", "gradient",
               "skipped", "samples_per_second", "waiting"]  # fmt: skip
    scores = [f"val_{name}" for name in Scores.__dataclass_fields__]
    assert list(rows[0]) == [*columns, *scores]
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    for row in rows:
        assert all(row.values())
        assert 0 <= float(row["val_mask_iou"]) <= 1
        assert float(row["samples_per_second"]) > 0
        assert 0 < float(row["waiting"]) < 1
    curves = cv2.imread(str(out / "curves.png"))
    assert curves is not None
    assert curves.std() > 5
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        name.replace("val_", "val/") for name in (*columns[1:], *scores)
    }
    assert [(e.step, pytest.approx(e.value, rel=1e-5)) for e in events.Scalars("loss")] == [
        (int(row["step"]), float(row["loss"])) for row in rows
    ]
    pictures = events.Images("val/match")
    assert [picture.step for picture in pictures] == [2, 4, 6]
    assert (pictures[0].width, pictures[0].height) == (648, 320)
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "model.json", "last.pt", "history.csv", "curves.png", "tensorboard",
        "config.yaml", "run.json", "scores.json",
    }  # fmt: skip
    model = load(out)
    assert model.settings["size"] == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": {"corr": 0.5}, "lr": 1e-5, "negatives": 0, "schedule": "step", "accumulate": 2},
        {"matcher": "correlation", "mixture": (1.0,), "skip_bad": True, "precision": "bf16"},
    ],
)
def test_a_runs_config_file_repeats_it(
    changes: dict[str, Any], config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(config, steps=1, **changes)
    train(config)
    again = cli.parse(
        command_line,
        [*config.data, "--out", str(tmp_path / "again"), "--config", f"{config.out}/config.yaml",
         "--workers", "0", "--device", "cpu"],
    )  # fmt: skip
    assert again.resolved == replace(config, out=str(tmp_path / "again")).resolved


def test_resuming_with_another_configuration_is_refused_by_name(config: TrainConfig) -> None:
    train(config)
    state = load_state(out_of(config))
    for change, message in (
        ({"lr": 0.25}, "lr was None, is 0.25"),
        ({"losses": {"mask": 0.0}, "seed": 4}, "loss_mask was 1.0, is 0.0; seed was 0, is 4"),
        ({"batch": 1}, "batch was 2, is 1"),
        ({"schedule": "step", "accumulate": 3}, "accumulate was 1, is 3; schedule was 'cosine'"),
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


def test_datasets_at_urls_are_trained_on_as_in_folders(
    config: TrainConfig, undisturbed: Callable[..., Path]
) -> None:
    url = "memory://trained/pairs"
    files = fsspec.filesystem("memory")
    files.put(config.data[0], "/trained/pairs", recursive=True)
    try:
        assert train(replace(config, data=(url,))) == 0
    finally:
        files.rm("/trained", recursive=True)
    assert_same_run(out_of(config), undisturbed(config))


def test_every_dataset_with_val_pairs_is_scored_on(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [pasted_pair(20 + n) for n in range(20)]
    other = write_dataset(tmp_path / "other", [pasted_pair(3)], many)
    seen: list[int] = []

    def evaluate(self: MatcherTask, averaged: nn.Module) -> dict[str, float]:
        seen.extend(pair.index for pair in self.val)
        return dict.fromkeys(self.scores, 0.0)

    monkeypatch.setattr(MatcherTask, "evaluate", evaluate)
    train(replace(config, data=(other, *config.data), steps=1))
    assert seen == [*range(20, 36), 9, 10]  # sixteen of the first, both of the second


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
    for name in ("thesis.txt", "thesis.txt/run"):
        with pytest.raises(ValueError, match=r"thesis\.txt is a file; expected a folder"):
            train(replace(config, out=str(notes / name)))
    assert [path.name for path in notes.iterdir()] == ["thesis.txt"]


# --- starting from a model -------------------------------------------------------------------


def test_a_run_starts_from_another_models_weights_and_architecture(
    config: TrainConfig, tmp_path: Path
) -> None:
    first = replace(
        config, matcher="transformer", steps=1, match_size=96,
        options={"model_size": "tiny", "backbone": "resnet18", "freeze_backbone": False},
    )  # fmt: skip
    train(first)
    second = replace(config, out=str(tmp_path / "second"), init=first.out, match_size=None,
                     lr=1e-9, warmup=0, steps=2, every=2)  # fmt: skip
    assert train(second) == 0
    old, new = load(first.out), load(second.out)
    assert new.settings == {
        **old.settings, "options": {**old.settings["options"], "freeze_backbone": True}
    }  # fmt: skip
    with pytest.raises(ValueError, match="--backbone-weights: all weights come from --init"):
        replace(second, options={"backbone_weights": "y"})
    weights = old.matcher.state_dict()
    for name, value in new.matcher.state_dict().items():
        assert torch.allclose(value.float(), weights[name].float(), atol=1e-6), name
    # Resumed, it has no need of the model it started from.
    shutil.rmtree(first.out)
    assert train(replace(second, resume=True)) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"matcher": "transformer"},
            "--matcher is transformer, but .* is correlation",
        ),
        ({"options": {"width": 32}}, "--width is 32, but .* has 64"),
        (
            {"options": {"backbone": "resnet18"}},
            "correlation matcher has no backbone; it has width",
        ),
    ],
)
def test_a_flag_that_contradicts_the_initial_model_is_refused(
    changes: dict[str, Any], message: str, config: TrainConfig,
    undisturbed: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    init = str(undisturbed(config))
    with pytest.raises(ValueError, match=message):
        train(replace(config, init=init, **changes))
    assert not out_of(config).exists()


def test_an_initial_model_that_is_not_there_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        train(replace(config, init="nowhere"))
    assert not out_of(config).exists()
