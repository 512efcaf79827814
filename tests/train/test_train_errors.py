"""segswap-train refuses what cannot work with a message that says what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler
from training_runs import out_of

from pipelines.command import cli
from pipelines.generation.config import Composition, Inputs, Styling
from pipelines.training.config import TrainConfig, main
from pipelines.training.job import train
from segswap.training.objective import Objective


def test_unusable_settings_are_refused_before_anything_is_written(
    config: TrainConfig, tmp_path: Path
) -> None:
    for change, message in (
        ({"size": 100}, "--size is 100.*stride 8"),
        ({"size": 0}, "--size is 0; expected .* from 32 to 8192"),
        ({"size": 80000}, "--size is 80000"),
        ({"match_size": 16}, "--match-size is 16"),
        ({"match_size": 0}, "--match-size is 0"),
        ({"data": (str(tmp_path / "nothing"),)}, "no finished dataset"),
        ({"device": "abacus"}, "abacus"),
        ({"device": "cuda:7"}, "--device cuda:7 is not there; expected auto or one of cpu"),
        ({"device": "meta"}, "--device meta is not there"),
        ({"matcher": "transformer", "options": {
            "backbone": "resnet18", "freeze_backbone": False,
            "backbone_weights": str(tmp_path / "none.pth")}}, "none.pth does not exist"),
        ({"matcher": "transformer", "options": {
            "backbone": "resnett", "freeze_backbone": False}}, "resnett"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            train(replace(config, **change))  # type: ignore[arg-type]
        assert not out_of(config).exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB\nGPU 0 has 8"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 1 bytes."),
    ],
)  # fmt: skip
def test_out_of_memory_says_which_flags_help(
    error: RuntimeError, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Objective, "forward", full)
    with pytest.raises(
        RuntimeError, match=r"out of memory.*--batch, --negatives or --size.*--acc"
    ) as raised:
        train(config)
    assert "\n" not in str(raised.value)


def test_what_compiling_raises_is_said_in_a_line(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise InvalidCxxCompiler

    monkeypatch.setattr(Objective, "forward", fail)
    with pytest.raises(RuntimeError, match=r"^--compile failed: No working C\+\+.*\(g\+\+\)"):
        train(config)


@pytest.mark.slow
def test_without_a_compiler_compiling_says_what_it_needs(
    config: TrainConfig, script: Callable[[str], str]
) -> None:
    done = subprocess.run(
        [script("segswap-train"), *config.data, "--out", config.out, "--compile", "--device", "cpu",
         "--batch=2", "--size=64", "--steps=1", "--workers=0"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --compile failed: ")
    assert "C++ compiler (g++)" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps is 0; expected at least 1"),
        (["--accumulate", "0"], "--accumulate is 0; expected at least 1"),
        (["--num-gpus", "0"], "--num-gpus is 0; expected at least 1"),
        (["--warmup", "-1"], "--warmup is -1; expected at least 0"),
        (["--lr", "-1"], "--lr is -1.0; expected a positive number"),
        (["--weight-decay", "-1"], "--weight-decay is -1.0; expected 0 or more"),
        (["--ema", "1"], "--ema is 1.0; expected at least 0, and below 1"),
        (["--optimiser", "lion"], "adamw"),
        (["--loss-mask", "-1"], "--loss-mask is -1.0"),
        (
            [
                "--loss-mask=0",
                "--loss-transfer=0",
                "--loss-corr=0",
                "--loss-keypoints=0",
                "--loss-correlation=0",
            ],
            "nothing to learn",
        ),
        (["--matcher", "transformer"], "--backbone-weights"),
        (["--model-size", "tiny"], "--model-size"),
        (["--init", "x"], "no model 'x'"),
        (["--matcher", "transformer", "--init", "segswap-tiny"], "segswap-tiny is correlation"),
        (["--hard-negatives"], "give --init"),
        (
            ["--hard-negatives", "--init", "segswap-tiny", "--loss-mask", "0"],
            "--loss-mask, which is 0",
        ),
        (["--hard-negatives", "--init", "segswap-tiny", "--num-gpus", "2"], "one device"),
        (
            ["--hard-negatives", "--init", "segswap-tiny", "--pool", "1"],
            "--pool is 1; expected at least 2",
        ),
        (["--pool", "9"], "--pool is for --hard-negatives"),
        (["--mixture", "1", "2"], "--mixture has 2 shares for 1 datasets"),
        (["--live"], "--live makes its pairs; leave out"),
        (["--annotations", "a", "--images", "b"], "--annotations, --images: only with --live"),
        (["--objects", "1", "--blend", "paste"], "--objects, --blend: only with --live"),
        (["--num-gpus", "2", "--device", "cuda:1"], "--device cuda:1 is one device"),
        (["--address", "auto"], "--address is for --live and --num-gpus"),
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
    # tyro draws a frame around it
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
    assert not out_of(config).exists()


def test_a_damaged_shard_is_named_and_skipped_only_on_request(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "pairs"
    shutil.copytree(config.data[0], copied)
    shard = copied / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-20000])
    config = replace(config, data=(str(copied),))
    with pytest.raises(ValueError, match=r"train-000000\.tar"):
        train(config)
    # What failed before its first checkpoint is in nobody's way.
    assert train(replace(config, skip_bad=True)) == 0
    assert "train-000000.tar" in capsys.readouterr().err


def test_a_loss_that_bursts_ends_the_command_and_its_batch_is_noted(
    config: TrainConfig, script: Callable[[str], str]
) -> None:
    """On the CPU, going back from positions that are NaN would end the process."""
    done = subprocess.run(
        [script("segswap-train"), *config.data, "--out", config.out, "--device", "cpu", "--batch=2",
         "--size=64", "--steps=30", "--warmup=0", "--workers=0", "--lr=1e9"],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the loss or its gradient is not finite")
    assert "Traceback" not in done.stderr
    assert (out_of(config) / "bad_batch.json").exists()


def test_live_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="--workers is 0; --live needs at least 1"):
        TrainConfig((), "run", live=True, workers=0)


def test_without_anything_to_train_on_the_command_says_so() -> None:
    with pytest.raises(ValueError, match="there are no images to make pairs from: give --images"):
        TrainConfig((), "run", live=True)
    with pytest.raises(
        ValueError, match="give PAIRS, --category-images, --masked-images, or --live"
    ):
        TrainConfig((), "run")


def test_live_settings_are_those_of_generating() -> None:
    config = cli.parse(
        TrainConfig,
        ["--live", "--out", "run", "--annotations", "a.json", "--images", "i", "--objects", "1",
         "--style", "pixel", "--styles", "s", "--categories", "cat", "dog", "--workers", "3"],
    )  # fmt: skip
    assert config.data == ()
    assert config.inputs == Inputs(annotations="a.json", images="i", categories=("cat", "dog"))
    assert config.composition == Composition(objects="1")
    assert config.styling == Styling(style="pixel", styles="s")
