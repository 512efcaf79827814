"""The state of a run on disk: whole, without code in it, and of this run."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import out_of, small_config

from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.training import checkpoints
from segswap.training.checkpoints import load_state, save_state


@pytest.fixture
def config(dataset: str, tmp_path: Path) -> TrainConfig:
    return small_config(dataset, tmp_path, steps=2, every=1)


@pytest.fixture(scope="module")
def run(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    config = small_config(dataset, tmp_path_factory.mktemp("runs"), steps=2, every=1)
    assert train(config) == 0
    return out_of(config)


@pytest.fixture
def finished(config: TrainConfig, run: Path) -> TrainConfig:
    """The config of a finished run, to be resumed."""
    shutil.copytree(run, config.out)
    return replace(config, resume=True)


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
    zipped: bool, finished: TrainConfig, tmp_path: Path
) -> None:
    payload = {"step": 2, "model": _Payload(tmp_path / "harmed")}
    last = out_of(finished) / "last.pt"
    if zipped:
        torch.save(payload, last)
    else:
        last.write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=r"last\.pt cannot be read"):
        train(finished)
    assert not (tmp_path / "harmed").exists()


def test_without_a_run_there_is_nothing_to_resume(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="no run to resume"):
        train(replace(config, resume=True))


def test_a_missing_or_damaged_checkpoint_is_named(finished: TrainConfig) -> None:
    last = out_of(finished) / "last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"last\.pt cannot be read"):
        train(finished)
    last.write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot be read \(.*zip.*--init .* another --out"):
        train(finished)
    last.unlink()
    with pytest.raises(ValueError, match=r"holds no last\.pt"):
        train(finished)


def test_a_checkpoint_with_a_flipped_bit_is_named(finished: TrainConfig) -> None:
    last = out_of(finished) / "last.pt"
    with zipfile.ZipFile(last) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    data = bytearray(last.read_bytes())
    data[largest.header_offset + largest.file_size // 2] ^= 1
    last.write_bytes(data)
    with pytest.raises(ValueError, match=r"last\.pt cannot be read \(the checksum of .* is wrong"):
        train(finished)


def test_a_checkpoint_that_lacks_something_or_is_no_record_is_named(finished: TrainConfig) -> None:
    state = load_state(out_of(finished))
    save_state(out_of(finished), {k: v for k, v in state.items() if k not in ("average", "task")})
    with pytest.raises(
        ValueError, match=r"last\.pt is no .*: its state has no average, .* has no task;"
    ):
        train(finished)
    torch.save([1, 2], out_of(finished) / "last.pt")
    with pytest.raises(
        ValueError, match=r"last\.pt is no checkpoint .*: its state is a list; start"
    ):
        train(finished)


def test_a_checkpoint_of_another_model_is_named_with_what_differs(finished: TrainConfig) -> None:
    state = load_state(out_of(finished))
    weight = state["model"].pop("adapt.0.weight")
    save_state(out_of(finished), state)
    with pytest.raises(ValueError, match=r"last\.pt does not fit this run.*adapt\.0\.weight"):
        train(finished)
    state["model"]["adapt.0.weight"] = weight[:3]
    save_state(out_of(finished), state)
    with pytest.raises(ValueError, match=r"does not fit this run.*adapt\.0\.weight.*shape"):
        train(finished)
    state["model"]["adapt.0.weight"] = weight
    del state["optimiser"]["param_groups"]
    save_state(out_of(finished), state)
    with pytest.raises(ValueError, match=r"does not fit this run.*param_groups"):
        train(finished)


def test_a_damaged_run_record_is_named(finished: TrainConfig) -> None:
    for content in ("{", "[]", '{"config": {}}'):
        (out_of(finished) / "run.json").write_text(content)
        with pytest.raises(ValueError, match=r"run\.json cannot be read"):
            train(finished)
