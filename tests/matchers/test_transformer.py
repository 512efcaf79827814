"""The cross-image transformer attends where it should, and equals the published layout."""

import math

import pytest
import torch
from torch import Tensor, nn

from segswap.matchers.base import Matches
from segswap.matchers.encoding import Encoding
from segswap.matchers.registry import build
from segswap.matchers.transformer import (
    ARCHITECTURES,
    Architecture,
    PairLayer,
    PairTransformer,
    TransformerMatcher,
    position_code,
)

CHANNELS = 12
SOURCE, TARGET = (3, 4), (5, 2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network(layers: str = "ICICI") -> PairTransformer:
    return PairTransformer(CHANNELS, Architecture(32, 4, 48, layers)).eval()


def features(grid: tuple[int, int], batch: int = 2) -> Tensor:
    return nn.functional.normalize(torch.randn(batch, CHANNELS, *grid), dim=1)


def cells(n: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, n, 32)


def some_hidden(batch: int = 2) -> Tensor:
    """Random cells of TARGET hidden, at least one of them and not all, in each sample."""
    visible = torch.rand(batch, *TARGET) < 0.5
    visible[:, 0, 0], visible[:, 1, 1] = True, False
    return visible


@pytest.fixture(scope="module")
def matcher() -> TransformerMatcher:
    torch.manual_seed(0)
    return TransformerMatcher("tiny", backbone="resnet18").eval()


def published_layer(layer: PairLayer) -> nn.TransformerEncoderLayer:
    """PyTorch's own encoder layer with the weights of `layer`."""
    width, heads, hidden = layer.combine.in_features, layer.heads, layer.expand.out_features
    encoder = nn.TransformerEncoderLayer(width, heads, hidden, 0.1, "relu", batch_first=True)
    encoder.self_attn.in_proj_weight = layer.project.weight  # type: ignore[assignment]
    encoder.self_attn.in_proj_bias = layer.project.bias
    encoder.self_attn.out_proj = layer.combine  # type: ignore[assignment]
    encoder.linear1, encoder.linear2 = layer.expand, layer.contract
    encoder.norm1, encoder.norm2 = layer.norm1, layer.norm2
    return encoder.eval()


def published(
    layer: PairLayer, source: Tensor, target: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The layer as published: one attention over both images' cells, under a block mask."""
    n, m = source.shape[1], target.shape[1]
    own = torch.block_diag(torch.ones(n, n), torch.ones(m, m)).bool()
    forbidden = own if layer.cross else ~own
    hidden = torch.zeros(len(source), n + m, dtype=torch.bool)
    if visible is not None:
        hidden[:, n:] = ~visible
    both = torch.cat([source, target], dim=1)
    result = published_layer(layer)(both, src_mask=forbidden, src_key_padding_mask=hidden)
    return result[:, :n], result[:, n:]


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("hide", [False, True])
def test_layer_equals_masked_attention_over_both_images(cross: bool, hide: bool) -> None:
    layer = PairLayer(32, 4, 48, 0.1, cross).eval()
    nn.init.normal_(layer.project.bias)
    nn.init.normal_(layer.combine.bias)
    source, target = cells(12), cells(10)
    visible = some_hidden().flatten(1) if hide else None
    expected = published(layer, source, target, visible)
    for got, want in zip(layer(source, target, visible), expected, strict=True):
        assert (got - want).abs().max() < 1e-5


def test_network_equals_published_network() -> None:
    net, source, target = network(), features(SOURCE), features(TARGET)
    visible = some_hidden()
    s, t = (net.reduce(x).flatten(2).transpose(1, 2) for x in (source, target))
    for letter, layer in zip("ICICI", net.layers, strict=True):
        assert isinstance(layer, PairLayer)
        if letter == "I":
            s = s + 0.1 * slow_position_code(*SOURCE, 32)
            t = t + 0.1 * slow_position_code(*TARGET, 32)
        s, t = published(layer, s, t, visible.flatten(1))
    for got, want, grid in zip(net(source, target, visible), (s, t), (SOURCE, TARGET), strict=True):
        head = want.transpose(1, 2).reshape(2, 32, *grid)
        assert (got - net.head(head)).abs().max() < 1e-5


def slow_position_code(rows: int, columns: int, width: int) -> Tensor:
    code = torch.zeros(rows, columns, width)
    half = width // 2
    for i in range(rows):
        for j in range(columns):
            for k in range(half):
                wave = math.cos if k % 2 else math.sin
                period = 10000 ** (2 * (k // 2) / half)
                code[i, j, k] = wave(2 * math.pi * (i + 1) / rows / period)
                code[i, j, half + k] = wave(2 * math.pi * (j + 1) / columns / period)
    return code.flatten(0, 1)


@pytest.mark.parametrize("width", [32, 128])
def test_position_code(width: int) -> None:
    code = position_code(3, 5, width, like=torch.zeros(1))
    assert torch.allclose(code, slow_position_code(3, 5, width), atol=1e-5)


def test_inner_layers_do_not_see_the_other_image() -> None:
    net, source = network("III"), features(SOURCE)
    first = net(source, features(TARGET))[0]
    torch.testing.assert_close(net(source, torch.randn(2, CHANNELS, *TARGET))[0], first)
    mixed, target = network(), features(TARGET)
    assert not torch.allclose(mixed(source, target)[0], mixed(source, -target)[0], atol=1e-3)


def test_cross_layer_does_not_see_its_own_image() -> None:
    layer = PairLayer(32, 4, 48, 0.1, cross=True).eval()
    source, target = cells(12), cells(10)
    changed = source.clone()
    changed[:, :5], changed[:, 6:] = torch.randn(2, 5, 32), torch.randn(2, 6, 32)
    before, after = layer(source, target), layer(changed, target)
    assert torch.allclose(before[0][:, 5], after[0][:, 5], atol=1e-5)
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_weights_are_shared_between_the_images() -> None:
    net, source, target = network(), features(SOURCE), features(TARGET)
    forth, back = net(source, target), net(target, source)
    assert torch.allclose(forth[0], back[1], atol=1e-5)
    assert torch.allclose(forth[1], back[0], atol=1e-5)


def test_hidden_cells_are_seen_by_none() -> None:
    net, source, target, visible = network(), features(SOURCE), features(TARGET), some_hidden()
    changed = torch.where(visible[:, None], target, features(TARGET))
    before, after = net(source, target, visible), net(source, changed, visible)
    seen = visible[:, None].expand(-1, 3, -1, -1)
    assert torch.allclose(before[0], after[0], atol=1e-5)
    assert torch.allclose(before[1][seen], after[1][seen], atol=1e-5)
    assert not torch.allclose(net(source, target)[0], net(source, changed)[0], atol=1e-3)


def test_wholly_hidden_target_counts_as_visible() -> None:
    net, source, target, visible = network(), features(SOURCE), features(TARGET), some_hidden()
    visible[0] = False
    got, free = net(source, target, visible), net(source, target)
    for masked, unmasked in zip(got, free, strict=True):
        assert torch.allclose(masked[0], unmasked[0], atol=1e-5)
        assert not torch.allclose(masked[1], unmasked[1], atol=1e-4)
        assert masked.isfinite().all()


def test_transposed_visible_is_refused(matcher: TransformerMatcher) -> None:
    image = Encoding({"features": torch.randn(1, 256, 2, 3)})
    with pytest.raises(ValueError, match="visible"):
        matcher.match(image, image, torch.ones(1, 3, 2, dtype=torch.bool))


def test_images_of_any_size(matcher: TransformerMatcher) -> None:
    matches = matcher(torch.rand(2, 3, 64, 96), torch.rand(2, 3, 80, 32))
    assert isinstance(matches, Matches)
    assert matches.source.positions.shape == (2, 4, 6, 2)
    assert matches.target.positions.shape == (2, 5, 2, 2)
    assert matches.source.mask_logits.shape == (2, 4, 6)
    assert matches.target.mask_logits.shape == (2, 5, 2)
    assert matches.source.features.shape == (2, 256, 4, 6)
    assert matches.target.features.shape == (2, 256, 5, 2)
    assert not matches.source.extra
    for maps in (matches.source.features, matches.target.features):
        assert torch.allclose(maps.norm(dim=1), torch.ones(()), atol=1e-5)


def test_images_between_cells_are_refused(matcher: TransformerMatcher) -> None:
    with pytest.raises(ValueError, match="100 x 64 px"):
        matcher.encode(torch.rand(1, 3, 64, 100))


def test_channels_mean_x_y_and_membership(matcher: TransformerMatcher) -> None:
    source, target = matcher.encode(torch.rand(2, 1, 3, 64, 96).flatten(0, 1)).split(1)
    x, y, member = matcher.transformer(source["features"], target["features"])[0][0]
    matches = matcher.match(source, target)
    # Of other stretches of memory: a sigmoid's last bits depend on what is computed at a time.
    torch.testing.assert_close(matches.source.positions[0, ..., 0], x.sigmoid())
    torch.testing.assert_close(matches.source.positions[0, ..., 1], y.sigmoid())
    torch.testing.assert_close(matches.source.mask_logits[0], member)


def test_images_are_normalised_as_on_imagenet(matcher: TransformerMatcher) -> None:
    images = torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    (raw,) = matcher.backbone.net((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    features = matcher.encode(images)["features"]
    assert torch.allclose(features, raw / raw.norm(dim=1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_probabilities_stay_off_zero_and_one(sign: int) -> None:
    net = network()
    nn.init.constant_(net.head.bias, sign * 100.0)  # type: ignore[arg-type]
    for logits in net(features(SOURCE), features(TARGET)):
        rest = (-sign * logits.double()).sigmoid()
        assert torch.allclose(rest, torch.full_like(rest, 1e-7), rtol=1e-5)


def test_logits_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = network()(features(SOURCE), features(TARGET), some_hidden())
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in logits)


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_every_trainable_parameter(frozen: bool) -> None:
    model = TransformerMatcher("tiny", backbone="resnet18", freeze_backbone=frozen).train()
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts residual branches with weight 0
            nn.init.ones_(module.weight)
    matches = model(torch.rand(2, 3, 48, 64), torch.rand(2, 3, 64, 48))
    outputs = [part for side, _ in matches.both() for part in (side.positions, side.mask_logits)]
    torch.stack([(x * torch.randn_like(x)).sum() for x in outputs]).sum().backward()
    for name, parameter in model.named_parameters():
        if frozen and name.startswith("backbone."):
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_dropout_acts_in_training_alone() -> None:
    net, source, target = network(), features(SOURCE), features(TARGET)
    assert torch.equal(net(source, target)[0], net(source, target)[0])
    net.train()
    assert not torch.allclose(net(source, target)[0], net(source, target)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("size", "width", "heads", "hidden", "layers"),
    [
        ("tiny", 128, 2, 256, "ICICI"),
        ("small", 256, 2, 256, "ICICI"),
        ("base", 512, 8, 2048, "ICICI"),
        ("large", 512, 8, 2048, "ICICICICICI"),
    ],
)
def test_sizes(size: str, width: int, heads: int, hidden: int, layers: str) -> None:
    net = build("transformer", model_size=size, backbone="resnet18").transformer
    assert isinstance(net, PairTransformer)
    assert net.reduce.weight.shape == (width, 256, 1, 1)
    assert net.head.weight.shape == (3, width, 1, 1)
    assert net.channel_dropout.p == 0.1
    made = [layer for layer in net.layers if isinstance(layer, PairLayer)]
    assert "".join("C" if layer.cross else "I" for layer in made) == layers
    for layer in made:
        assert layer.heads == heads
        assert layer.dropout.p == 0.1
        assert layer.project.weight.shape == (3 * width, width)
        assert layer.expand.weight.shape == (hidden, width)
        assert layer.contract.weight.shape == (width, hidden)


def test_defaults_are_the_papers() -> None:
    model = TransformerMatcher()
    assert model.backbone.channels == (1024,)
    assert model.backbone.frozen
    assert model.transformer.width == ARCHITECTURES["small"].width


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'huge'.*tiny, small, base, large"):
        TransformerMatcher("huge", backbone="resnet18")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ICX"):
        network("ICX")
