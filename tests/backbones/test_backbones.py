"""Backbones are cut where they should be, and take weights from every layout of file."""

import copy
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from segswap.backbones.backbones import build_backbone

NAME = "resnet18"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """State dict of a whole resnet18, classifier and layer4 included, without a zero in it."""
    torch.manual_seed(5)
    tensors = timm.create_model(NAME, num_classes=10).state_dict()
    return {
        key: torch.rand_like(value) + 0.5 if value.is_floating_point() else value + 7
        for key, value in tensors.items()
    }


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def moco(state: dict[str, Tensor]) -> dict[str, Any]:
    """A checkpoint as MoCo v2 leaves it, its key encoder different from its query encoder."""
    key_encoder = {key: torch.zeros_like(value) for key, value in state.items()}
    tensors = {
        "module.queue": torch.zeros(128, 16),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
        **prefixed(key_encoder, "module.encoder_k."),
        **prefixed(state, "module.encoder_q."),
    }
    optimizer = {"state": {}, "param_groups": [{"lr": 0.03, "params": [0]}]}
    return {"epoch": 800, "arch": "resnet50", "state_dict": tensors, "optimizer": optimizer}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "plain": dict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state},
    "module": lambda state: prefixed(state, "module."),
    "state_dict-module": lambda state: {"state_dict": prefixed(state, "module.")},
    "moco": moco,
    "without-counters": lambda state: {
        key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
    },
    "without-layer4": lambda state: {
        key: value for key, value in state.items() if not key.startswith(("layer4", "fc"))
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch_file_fills_every_weight(
    layout: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](state), path)
    check_weights(build_backbone(NAME, [16], weights=str(path)), state)


def test_safetensors_file_fills_every_weight(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    check_weights(build_backbone(NAME, [16], weights=str(path)), state)


def check_weights(backbone: torch.nn.Module, state: dict[str, Tensor]) -> None:
    held = {
        key.removeprefix("net."): value
        for key, value in backbone.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert "layer3.1.bn2.running_var" in held
    for key, value in held.items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_files_of_networks_that_timm_rewrites(name: str, tmp_path: Path) -> None:
    """timm's feature wrappers rename parameters; the file holds the whole network's names."""
    whole = timm.create_model(name)
    path = tmp_path / "weights.safetensors"
    save_file(whole.state_dict(), path)
    backbone = build_backbone(name, [16], weights=str(path))
    first = next(value for value in whole.parameters() if value.ndim == 4)
    assert any(torch.equal(value, first) for value in backbone.parameters())
    (features,) = backbone(torch.rand(1, 3, 96, 64))
    assert features.shape == (1, *backbone.channels, 6, 4)


def test_the_layout_of_a_networks_authors(tmp_path: Path) -> None:
    """ConvNeXt's (github.com/facebookresearch/ConvNeXt): other names for the same tensors."""
    whole = timm.create_model("convnext_pico_ols", num_classes=10)
    names = {
        "stem.": "downsample_layers.0.", ".blocks.": ".", ".conv_dw.": ".dwconv.",
        ".mlp.fc1.": ".pwconv1.", ".mlp.fc2.": ".pwconv2.", "head.norm.": "norm.",
        "head.fc.": "head.",
    }  # fmt: skip
    theirs = {}
    for key, value in whole.state_dict().items():
        for ours, other in names.items():
            key = key.replace(ours, other)
        theirs[re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", key)] = value
    torch.save({"model": theirs}, tmp_path / "authors.pth")
    save_file(whole.state_dict(), tmp_path / "timm.safetensors")
    images = torch.rand(1, 3, 64, 64)
    (expected,), (found,) = (
        build_backbone("convnext_pico_ols", [16], weights=str(tmp_path / file))(images)
        for file in ("timm.safetensors", "authors.pth")
    )
    assert torch.equal(found, expected)


def test_position_codes_of_another_image_size_are_resampled(tmp_path: Path) -> None:
    name, path = "vit_tiny_patch16_224", tmp_path / "weights.safetensors"
    save_file(timm.create_model(name, img_size=96).state_dict(), path)
    assert (
        build_backbone(name, [16], weights=str(path))(torch.rand(1, 3, 64, 64))[0].isfinite().all()
    )


@pytest.mark.parametrize("name", [NAME, "vit_tiny_patch16_224"])
def test_weights_of_a_file_are_held_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(name).state_dict(), path)
    backbone = build_backbone(name, [16], weights=str(path))
    assert len(pickle.dumps(backbone)) < 1.2 * path.stat().st_size


def test_resnet50_ends_with_layer3() -> None:
    backbone = build_backbone("resnet50", [16])
    assert (backbone.channels, backbone.strides) == ((1024,), (16,))
    assert not any("layer4" in key or "fc" in key for key in backbone.state_dict())
    assert any("layer3.5" in key for key in backbone.state_dict())
    assert [f.shape for f in backbone(torch.rand(1, 3, 64, 96))] == [(1, 1024, 4, 6)]


CHANNELS = {4: 64, 8: 128, 16: 256, 32: 512}


@pytest.mark.parametrize("strides", [(4,), (32,), (4, 8, 16), (32, 2, 8), (16, 16)])
def test_a_map_for_each_stride_in_the_order_asked_for(strides: tuple[int, ...]) -> None:
    backbone = build_backbone(NAME, strides)
    channels = tuple({2: 64, **CHANNELS}[stride] for stride in strides)
    assert (backbone.channels, backbone.strides) == (channels, strides)
    images = torch.rand(2, 3, 64, 128)
    for features, stride, width in zip(backbone(images), strides, channels, strict=True):
        assert features.shape == (2, width, 64 // stride, 128 // stride)


def test_several_strides_are_of_one_network(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    images = torch.rand(1, 3, 64, 64)
    together = build_backbone(NAME, [16, 4, 8], weights=str(path))
    for stride, features in zip(together.strides, together(images), strict=True):
        (alone,) = build_backbone(NAME, [stride], weights=str(path))(images)
        assert torch.equal(features, alone)
    assert not any("layer4" in key for key in together.state_dict())


@pytest.mark.parametrize("name", ["convnext_atto", "swin_tiny_patch4_window7_224"])
def test_channels_come_first_at_every_stride(name: str) -> None:
    backbone = build_backbone(name, [16, 4])
    maps = backbone(torch.rand(1, 3, 224, 224))
    assert [f.shape[1:] for f in maps] == [
        (backbone.channels[0], 14, 14), (backbone.channels[1], 56, 56)
    ]  # fmt: skip


def test_features_equal_those_of_the_whole_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    whole: Any = timm.create_model(NAME, num_classes=10).eval()
    torch.save(whole.state_dict(), path)
    images = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    x = whole.maxpool(whole.act1(whole.bn1(whole.conv1(normalised))))
    expected = whole.layer3(whole.layer2(whole.layer1(x)))
    (features,) = build_backbone(NAME, [16], weights=str(path))(images)
    assert torch.allclose(features, expected, atol=1e-5)


def test_frozen_stays_in_evaluation_mode_without_gradients() -> None:
    backbone = build_backbone(NAME, [16]).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert not backbone(torch.rand(2, 3, 32, 32, requires_grad=True))[0].requires_grad
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_unfrozen_learns() -> None:
    backbone = build_backbone(NAME, [16], frozen=False)
    assert all(module.training for module in backbone.modules())
    assert not any(module.training for module in backbone.eval().modules())
    backbone(torch.rand(2, 3, 32, 32))[0].square().mean().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


LITE = "tf_efficientnet_lite2"


@pytest.mark.parametrize(
    ("name", "levels", "channels", "strides"),
    [
        (LITE, ["blocks.4.3", "blocks.5.4", "blocks.4.0"], (120, 208, 120), (16, 32, 16)),
        (LITE, ["blocks.5.1", 4, "blocks.4", "blocks.4.3"], (208, 24, 120, 120), (32, 4, 16, 16)),
        ("tf_efficientnet_lite0", ["blocks.3.1"], (80,), (16,)),
        (NAME, ["layer3.0", 4, "layer2.1", 2], (256, 64, 128, 64), (16, 4, 8, 2)),
        ("mobilenetv3_small_050", [4, "blocks.3.0"], (8, 24), (4, 16)),
    ],
)
def test_blocks_by_name_give_what_they_put_out(
    name: str,
    levels: list[int | str],
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.pth"
    whole: Any = timm.create_model(name).eval()
    torch.save(whole.state_dict(), path)
    backbone = build_backbone(name, levels, weights=str(path))
    assert (backbone.channels, backbone.strides) == (channels, strides)
    seen: dict[str, Tensor] = {}
    by_stride = {info["reduction"]: info["module"] for info in whole.feature_info}
    modules = [by_stride[level] if isinstance(level, int) else level for level in levels]
    for module in modules:
        whole.get_submodule(module).register_forward_hook(
            lambda *call, module=module: seen.update({module: call[2].clone()})
        )
    images = torch.rand(2, 3, 64, 96)
    whole((images - backbone.mean) / backbone.std)
    for features, module, width, stride in zip(
        backbone(images), modules, channels, strides, strict=True
    ):
        assert features.shape == (2, width, 64 // stride, 96 // stride)
        torch.testing.assert_close(features, seen[module])


@pytest.mark.parametrize("levels", [["blocks.4.3", "blocks.1.0"], [16], [4, 16]])
def test_nothing_after_the_deepest_level_is_kept(levels: list[int | str]) -> None:
    backbone = build_backbone(LITE, levels)
    whole = timm.create_model(LITE).state_dict()
    kept = {key.removeprefix("net.") for key in backbone.state_dict()}
    assert kept < whole.keys()  # by timm's names
    assert {key.split(".")[1] for key in kept if key.startswith("blocks")} == set("01234")
    assert not any("conv_head" in key for key in kept)
    last = {int(key.split(".")[2]) for key in kept if key.startswith("blocks.4.")}
    assert last == {0, 1, 2, 3}


def test_a_copied_backbone_computes_with_its_own_weights() -> None:
    backbone = build_backbone(NAME, ["layer1.0", "layer2.1"])
    images = torch.rand(1, 3, 64, 64)
    before = backbone(images)
    copied = copy.deepcopy(backbone)
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, backbone(images), strict=True))
    assert not copied(images)[1].any()


@pytest.mark.parametrize(("name", "mean"), [(LITE, 0.5), ("vit_tiny_patch16_224", 0.5)])
def test_images_are_normalised_as_the_network_wants_them(name: str, mean: float) -> None:
    backbone = build_backbone(name, [16])
    images = torch.rand(1, 3, 64, 64)
    (expected,) = backbone.net((images - mean) / mean)
    assert torch.equal(backbone(images)[0], expected)


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        (LITE, "blocks.5.5", r"no stage or block 'blocks.5.5'; it has .*blocks.5.0 to blocks.5.4"),
        (LITE, "blocks.4.3.conv_pw", r"no stage or block 'blocks.4.3.conv_pw'"),
        (NAME, "layer3.2", r"resnet18 has no .*; it has .*layer3.0 to layer3.1"),
        (NAME, "layer5", "resnet18 has no stage or block 'layer5'"),
        (NAME, "", "resnet18 has no stage or block ''"),
        ("vit_tiny_patch16_224", "blocks.5", "none that can be had by name, only strides"),
        ("swin_tiny_patch4_window7_224", "layers_1", "only strides"),
    ],
)
def test_a_level_that_is_not_there_names_those_there_are(
    name: str, level: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name, [level])


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"resnet05.*did you mean.*resnet50"):
        build_backbone("resnet05", [16])


def test_unknown_stride_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no features of stride 12; it has 2, 4, 8, 16, 32"):
        build_backbone(NAME, [16, 12])


def test_missing_keys_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({key: v for key, v in state.items() if not key.startswith("layer2")}, path)
    with pytest.raises(
        ValueError, match=r"weights.pth lacks layer2.0.conv1.weight, .* more; .* resnet18"
    ):
        build_backbone(NAME, [16], weights=str(path))


def test_other_shapes_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(ValueError, match=r"weights.pth does not fit resnet18: ") as caught:
        build_backbone(NAME, [16], weights=str(path))
    for part in ("conv1.weight", "[64, 1, 7, 7]", "[64, 3, 7, 7]"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "name", ["resnet50", "convnext_atto", "vit_tiny_patch16_224", "beit_base_patch16_224"]
)
def test_the_file_of_another_network_is_refused(
    name: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    with pytest.raises(ValueError, match=f"weights.safetensors .*{name}") as caught:
        build_backbone(name, [16], weights=str(path))
    assert len(str(caught.value)) < 2000


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.pth does not exist"):
        build_backbone(NAME, [16], weights=str(tmp_path / "nowhere.pth"))


class Payload:
    """Unpickled, makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_payload_is_refused(zipped: bool, state: dict[str, Tensor], tmp_path: Path) -> None:
    path, folder = tmp_path / "weights.pth", tmp_path / "made"
    content = {"state_dict": state, "extra": Payload(folder)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"weights.pth is not a readable"):
        build_backbone(NAME, [16], weights=str(path))
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists(), "the payload of this test is harmless, so the test shows nothing"


def test_timm_weights_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    create, asked = timm.create_model, []

    def recorded(name: str, pretrained: bool, **settings: Any) -> torch.nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", recorded)
    build_backbone(NAME, [16], weights="timm")
    assert asked[-1] is True
    build_backbone(NAME, [16])
    assert asked[-1] is False


def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool, **settings: Any) -> torch.nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RuntimeError, match=r"resnet18.*no route to host.*local file"):
        build_backbone(NAME, [16], weights="timm")
