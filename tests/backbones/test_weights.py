"""Weights files become named tensors, and none of them runs code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segswap.backbones.weights import read_weights

STATE = {"conv1.weight": torch.rand(2, 3), "layer1.0.bias": torch.rand(4).half()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "args": "of the run"},
        {"state_dict": {f"module.{key}": value for key, value in STATE.items()}},
        {**STATE, "epoch": 3},
    ],
)
def test_every_layout_gives_the_same_tensors(content: dict, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    save_file(STATE, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        read = read_weights(tmp_path / name)
        assert read.keys() == STATE.keys()
        assert all(torch.equal(read[key], STATE[key]) for key in STATE)
        assert read["layer1.0.bias"].dtype == torch.float16


def test_of_moco_only_the_query_encoder_is_read(tmp_path: Path) -> None:
    content = {
        "module.queue": torch.zeros(128, 16),
        **{f"module.encoder_k.{key}": torch.zeros_like(value) for key, value in STATE.items()},
        **{f"module.encoder_q.{key}": value for key, value in STATE.items()},
    }
    torch.save({"epoch": 800, "state_dict": content}, tmp_path / "weights.pth")
    read = read_weights(tmp_path / "weights.pth")
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[key], STATE[key]) for key in STATE)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.pth does not exist"):
        read_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors", "empty.pth"])
def test_file_that_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else bytes(range(256)) * 8)
    with pytest.raises(ValueError, match=name):
        read_weights(path)


@pytest.mark.parametrize("content", [3, [torch.zeros(2)], {"epoch": 3}, {}, torch.zeros(3)])
def test_torch_file_without_named_tensors(content: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights.pth is not a checkpoint"):
        read_weights(path)
