"""Cells that agree on a map keep it whatever they attend to; attention is what its formula says."""

import pytest
import torch
from torch import Tensor

from segswap.matchers.correlation.correlation import WINDOWS
from segswap.matchers.correlation.descriptors import CHANNELS
from segswap.matchers.correlation.directions import EVIDENCE, Direction
from segswap.matchers.correlation.stem import Stem
from segswap.matchers.correlation.voting import NearAttention, PairHead, as_maps
from segswap.matchers.sampling import cell_places

ROWS, COLUMNS = 5, 7


def direction(matrix: Tensor, shift: Tensor, seed: int = 0) -> Direction:
    """A direction all of whose cells follow one affine map, with evidence drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.Size((ROWS, COLUMNS))
    places = cell_places(*shape, matrix).flatten(0, 1)
    positions = as_maps((places @ matrix + shift)[None], shape)
    linear = matrix.reshape(1, 4, 1, 1).expand(1, 4, ROWS, COLUMNS)
    weight = torch.rand(1, 1, ROWS, COLUMNS, generator=generator)
    own = torch.rand(1, 3, ROWS, COLUMNS, generator=generator)
    agreed = torch.rand(1, 7, ROWS, COLUMNS, generator=generator)
    return Direction(torch.Size((20, 20)), positions, linear, weight, own, agreed)


def test_a_common_affine_map_survives_any_vote() -> None:
    torch.manual_seed(0)
    head = PairHead(16, layers=2)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    there = direction(torch.tensor([[1.2, 0.3], [-0.2, 0.9]]), torch.tensor([4.0, 5.0]))
    back = direction(torch.eye(2), torch.tensor([2.0, 2.0]), 1)
    evidence = torch.randn(2, 1, EVIDENCE, ROWS, COLUMNS)
    looks = torch.randn(2, 1, CHANNELS, ROWS, COLUMNS)
    to_target, to_source, mask, other_mask = head(
        there, back, (evidence[0], looks[0]), (evidence[1], looks[1])
    )
    assert torch.allclose(to_target, there.normalised(), atol=1e-5)
    assert torch.allclose(to_source, back.normalised(), atol=1e-5)
    assert mask.shape == other_mask.shape == (1, ROWS, COLUMNS)


def test_a_cell_without_support_goes_where_the_others_go() -> None:
    torch.manual_seed(0)
    head = PairHead(16, layers=1)
    there = direction(torch.eye(2), torch.tensor([3.0, 4.0]))
    wrong = there.positions.clone()
    wrong[:, :, 2, 3] += 6.0
    weight = torch.full_like(there.weight, 20.0)
    weight[:, :, 2, 3] = 0.0
    spoilt = Direction(there.other, wrong, there.linear, weight, there.own, there.agreed)
    evidence = torch.zeros(1, EVIDENCE, ROWS, COLUMNS)
    looks = torch.zeros(1, CHANNELS, ROWS, COLUMNS)
    to_target, *_ = head(spoilt, there, (evidence, looks), (evidence, looks))
    off = (to_target - there.normalised())[0, 2, 3].norm()
    assert off < 0.5 * (spoilt.normalised() - there.normalised())[0, 2, 3].norm()


@pytest.mark.parametrize("values", [3, 12])
def test_attention_is_a_softmax_over_likeness_distance_and_trust(values: int) -> None:
    torch.manual_seed(0)
    attention = NearAttention(8, 12, (2.0, 0.1))
    tokens, count = torch.randn(2, ROWS * COLUMNS, 8), ROWS * COLUMNS
    carried = torch.randn(2, 2, count, values)
    weight = torch.rand(2, 1, ROWS, COLUMNS)
    with torch.no_grad():
        attention.trust.copy_(torch.tensor([0.7, 1.3]))
        gathered = attention(tokens, torch.Size((ROWS, COLUMNS)), carried, weight)
        query, key = attention.query_key(tokens).unflatten(-1, (2, 2, 12)).unbind(2)
        at = cell_places(ROWS, COLUMNS, tokens).flatten(0, 1) / 4
        apart = torch.cdist(at, at).square()
        for head, gamma in enumerate((2.0, 0.1)):
            logits = query[:, :, head] @ key[:, :, head].transpose(1, 2) / 12**0.5
            trust = attention.trust[head] * (weight.flatten(1) + 0.05).log()
            share = (logits - gamma * apart + trust[:, None]).softmax(dim=-1)
            assert torch.allclose(gathered[:, head], share @ carried[:, head], atol=1e-4)


def test_the_stem_starts_at_nothing_and_sees_no_brightness() -> None:
    torch.manual_seed(0)
    stem, image = Stem(4), torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        assert stem(image, WINDOWS, 8).abs().max() == 0
        torch.nn.init.normal_(stem.out.weight)
        seen, brighter = stem(image, WINDOWS, 8), stem(image * 0.5 + 0.3, WINDOWS, 8)
    assert seen.shape == (1, len(WINDOWS), CHANNELS, 6, 8)
    # Contrast is divided out, but for what keeps flat images finite.
    assert (seen - brighter).abs().mean() < 0.2 * seen.abs().mean()
    assert seen.std() > 0
