"""Neural style transfer: the published networks and files, the same bytes for a pair every time."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import Run, textured
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from generators.styles import adain_weights
from generators.styles.adain import (
    VGG19,
    AdaIN,
    adapt,
    build_decoder,
    build_encoder,
    faster,
    mean_std,
    stages,
)
from generators.styles.adain_weights import load_vgg, load_weights
from generators.styles.style import Choice, Styler
from segswap.files.hashes import file_hash

NARROW = (4, 6, 8, 10)


def published_vgg(widths: tuple[int, ...]) -> nn.Sequential:
    """All of the published encoder file's layers: five stages with 2, 2, 4, 4 and 4."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    inputs = 3
    for stage, (depth, width) in enumerate(
        zip((2, 2, 4, 4, 4), (*widths, widths[-1]), strict=True)
    ):
        if stage:
            layers.append(nn.MaxPool2d(2, 2, 0, ceil_mode=True))
        for _ in range(depth):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(inputs, width, 3), nn.ReLU()]
            inputs = width
    return nn.Sequential(*layers)


def published_decoder(widths: tuple[int, ...]) -> nn.Sequential:
    """The published decoder file's layers."""
    a, b, c, d = widths
    layers: list[nn.Module] = []
    for inputs, outputs, doubled in (
        (d, c, True), (c, c, False), (c, c, False), (c, c, False), (c, b, True),
        (b, b, False), (b, a, True), (a, a, False), (a, 3, False),
    ):  # fmt: skip
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3), nn.ReLU()]
        if doubled:
            layers.append(nn.UpsamplingNearest2d(scale_factor=2))
    return nn.Sequential(*layers[:-1])


def excited(net: nn.Sequential, gain: float = 1.8) -> nn.Sequential:
    """Random weights under which features neither fade nor grow from layer to layer."""
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= gain
    return net


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both published files, narrower."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    torch.save(excited(published_vgg(NARROW)).state_dict(), folder / "vgg_normalised.pth")
    torch.save(excited(published_decoder(NARROW)).state_dict(), folder / "decoder.pth")
    return folder


@pytest.fixture(scope="module")
def styles(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("styles")
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), textured(80, 90 + number, 10 + number))
    return str(folder)


def test_networks_have_the_published_layers() -> None:
    encoder, decoder = published_vgg(VGG19).state_dict(), published_decoder(VGG19).state_dict()
    for ours, theirs, count in (
        (build_encoder().state_dict(), encoder, 20),
        (build_decoder().state_dict(), decoder, 18),
    ):
        assert len(ours) == count
        assert all(theirs[key].shape == value.shape for key, value in ours.items())
    assert build_decoder().state_dict().keys() == decoder.keys()


def test_stages_end_after_the_first_layer_of_each_resolution() -> None:
    torch.manual_seed(0)
    net, images = published_vgg(NARROW), torch.rand(2, 3, 64, 48)
    encoder = build_encoder(NARROW)
    encoder.load_state_dict({k: net.state_dict()[k] for k in encoder.state_dict()})
    for found, end in zip(stages(encoder, images), (4, 11, 18, 31), strict=True):
        torch.testing.assert_close(found, net[:end](images))


def test_restyling_is_the_published_procedure(published: Path) -> None:
    """Against a plain computation in float32 from the same files."""
    encoder, decoder = published_vgg(NARROW), published_decoder(NARROW)
    encoder.load_state_dict(torch.load(published / "vgg_normalised.pth"))
    decoder.load_state_dict(torch.load(published / "decoder.pth"))
    images, picture = [textured(512, 512, n) for n in (1, 2)], textured(512, 512, 3)
    network = AdaIN(*load_weights(published), "cpu")
    style = network.statistics(picture)
    for alpha in (0.0, 0.4, 1.0):
        made = network.restyle(images, [style] * 2, [alpha, 1.0])
        with torch.no_grad():
            tensor, styled = (
                torch.from_numpy(a).permute(2, 0, 1)[None] / 255 for a in (images[0], picture)
            )
            content, wanted = encoder[:31](tensor), encoder[:31](styled)
            (mean, std), (style_mean, style_std) = (
                (f.mean((2, 3), keepdim=True), (f.var((2, 3), keepdim=True) + 1e-5).sqrt())
                for f in (content, wanted)
            )
            swapped = (content - mean) / std * style_std + style_mean
            expected = decoder(alpha * swapped + (1 - alpha) * content)[0].permute(1, 2, 0)
        expected = expected.mul(255).clamp(0, 255).numpy()
        assert expected.std() > 1
        # bfloat16 has eight bits.
        assert np.abs(made[0] - expected).mean() < 0.02 * np.abs(expected).max() + 1


def test_the_faster_decoder_computes_the_same() -> None:
    torch.manual_seed(0)
    decoder, features = excited(build_decoder(NARROW)), torch.rand(2, 10, 7, 9)
    with torch.no_grad():
        torch.testing.assert_close(faster(decoder)(features), decoder(features))


def test_features_take_the_statistics_of_the_style() -> None:
    torch.manual_seed(0)
    features, style = torch.rand(2, 5, 8, 9), mean_std(torch.rand(2, 5, 7, 7) * 3 + 1)
    swapped = mean_std(adapt(features, style, torch.ones(2)))
    torch.testing.assert_close(swapped, style, rtol=1e-3, atol=0)
    mixed = adapt(features, style, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(mixed[0], features[0])
    halfway = (features + adapt(features, style, torch.ones(2))) / 2
    torch.testing.assert_close(mixed[1], halfway[1])


def test_torchvisions_vgg_gives_its_own_features(tmp_path: Path) -> None:
    """Up to the padding, which it fills with zeros: far from the border the features agree."""
    torch.manual_seed(0)
    features = make_layers(cfgs["E"])
    torch.save(
        {f"features.{key}": value for key, value in features.state_dict().items()}
        | {"classifier.0.weight": torch.zeros(2, 2)},
        tmp_path / "vgg19.pth",
    )
    image = torch.rand(1, 3, 160, 160)
    normalised = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    with torch.no_grad():
        found, expected = load_vgg(tmp_path / "vgg19.pth")(image), features[:21](normalised)
    inner = np.s_[:, :, 8:-8, 8:-8]
    assert found.shape == expected.shape
    torch.testing.assert_close(found[inner], expected[inner])


def test_a_pair_has_the_same_pixels_however_it_is_batched(published: Path, styles: str) -> None:
    styler = Styler.from_folder("adain", styles, str(published), "cpu")
    images = [textured(96, 128, n) for n in range(6)]
    rng = np.random.default_rng(0)
    choices = [styler.draw(rng) for _ in images]
    together = styler.restyle(images, choices)
    assert [made.shape for made in together] == [(96, 128, 3)] * 6
    threads = torch.get_num_threads()
    try:
        for torch_threads in (1, 2):
            torch.set_num_threads(torch_threads)
            anew = Styler.from_folder("adain", styles, str(published), "cpu")
            for first in (4, 0, 2):
                part = slice(first, first + 2)
                for alone, before in zip(
                    anew.restyle(images[part], choices[part]), together[part], strict=True
                ):
                    np.testing.assert_array_equal(alone, before)
            assert torch.get_num_threads() == torch_threads
    finally:
        torch.set_num_threads(threads)


def test_a_style_picture_is_encoded_once(published: Path, styles: str, monkeypatch) -> None:
    encoded = []
    original = AdaIN.statistics
    monkeypatch.setattr(AdaIN, "statistics", lambda *args: encoded.append(args) or original(*args))
    styler = Styler.from_folder("adain", styles, str(published), "cpu")
    image = textured(64, 64, 0)
    for alpha in (0.2, 0.9):
        styler.restyle([image, image], [Choice("0.png", alpha), Choice("2.png", alpha)])
    assert len(encoded) == 2


def test_own_weights_are_one_safetensors_file(published: Path, tmp_path: Path) -> None:
    nets = dict(zip(("encoder", "decoder"), load_weights(published), strict=True))
    tensors = {f"{n}.{k}": v for n, net in nets.items() for k, v in net.state_dict().items()}
    save_file(tensors, tmp_path / "adain.safetensors")
    for ours, theirs in zip(load_weights(tmp_path), nets.values(), strict=True):
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value)
    del tensors["decoder.5.bias"]
    save_file(tensors, tmp_path / "adain.safetensors")
    with pytest.raises(ValueError, match=r"adain\.safetensors: decoder\.5\.bias is missing; expec"):
        load_weights(tmp_path)


def test_unusable_weights_are_named(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no vgg_normalised\.pth and no decoder\.pth"):
        load_weights(tmp_path)
    encoder = torch.load(published / "vgg_normalised.pth")
    torch.save(encoder, tmp_path / "vgg_normalised.pth")
    other = published_decoder((4, 6, 8, 12)).state_dict()
    torch.save(other, tmp_path / "decoder.pth")
    expected = r"decoder\.pth: 1\.weight is \(8, 12, 3, 3\); expected \(8, 10, 3, 3\)"
    with pytest.raises(ValueError, match=expected):
        load_weights(tmp_path)
    torch.save(encoder | {"5.bias": torch.full((4,), torch.nan)}, tmp_path / "vgg_normalised.pth")
    with pytest.raises(ValueError, match=r"vgg_normalised\.pth holds weights that are NaN"):
        load_weights(tmp_path)
    torch.save([1, 2], tmp_path / "vgg_normalised.pth")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_weights(tmp_path)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.path, "executed")


def test_code_in_a_weights_file_is_not_run(published: Path, tmp_path: Path) -> None:
    (tmp_path / "decoder.pth").write_bytes((published / "decoder.pth").read_bytes())
    (tmp_path / "vgg_normalised.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "seen"), 2))
    with pytest.raises(ValueError, match="not a readable weights file"):
        load_weights(tmp_path)
    assert not (tmp_path / "seen").exists()


def test_published_weights_are_downloaded_once(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGSWAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(adain_weights, "PUBLISHED_AT", published.as_uri())
    names = ("vgg_normalised.pth", "decoder.pth")
    hashes = {name: file_hash(published / name) for name in names}
    monkeypatch.setattr(adain_weights, "PUBLISHED", hashes | {"decoder.pth": "0" * 64})
    with pytest.raises(RuntimeError, match="SHA-256"):
        load_weights(None)
    monkeypatch.setattr(adain_weights, "PUBLISHED", hashes)
    load_weights(None)
    kept = sorted(path.name for path in (tmp_path / "cache" / "adain").iterdir())
    assert kept == sorted(names)
    monkeypatch.setattr(adain_weights, "PUBLISHED_AT", (tmp_path / "gone").as_uri())
    load_weights(None)


def test_offline_the_command_says_what_to_do(generate: Run, styles: str, tmp_path: Path) -> None:
    done = generate(
        tmp_path / "out", "--demo", "--pairs", 1, "--size", 64, "--workers=0", "--style", "adain",
        "--styles", styles, status=1,
        env={"SEGSWAP_CACHE": str(tmp_path), "https_proxy": "http://127.0.0.1:9"},
    )  # fmt: skip
    for part in ("vgg_normalised.pth and decoder.pth", str(tmp_path / "adain"), "--adain-weights",
                 "segswap-train-style", "https://github.com/naoto0804/pytorch-AdaIN"):  # fmt: skip
        assert part in done.stderr


def shards(folder: Path) -> list[str]:
    manifest = json.loads((folder / "segswap.json").read_text())
    return [shard["sha256"] for shard in manifest["splits"]["train"]["shards"]]


@pytest.mark.slow
def test_datasets_are_the_same_inline_and_on_workers(
    generate: Run, published: Path, styles: str, tmp_path: Path
) -> None:
    flags = [
        "--demo", "--pairs", 6, "--shard-pairs", 2, "--size", 96, "--style", "adain",
        "--styles", styles, "--adain-weights", published,
    ]  # fmt: skip
    generate(tmp_path / "inline", *flags, "--workers=0")
    generate(tmp_path / "workers", *flags, "--workers", 2)
    assert shards(tmp_path / "inline") == shards(tmp_path / "workers")
