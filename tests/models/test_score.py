"""S(s, t): against the definition written plainly, and in its special cases."""

from dataclasses import replace

import pytest
import torch
from made_matches import matches_of
from torch import Tensor

from segswap.matchers.base import Matches, Side
from segswap.matchers.encoding import Encoding
from segswap.matchers.registry import build
from segswap.matchers.sampling import cell_centres, sample
from segswap.models.model import load
from segswap.models.score import cell_scores, pair_score, pooled, self_consistent


def random_matches(seed: int, grid: tuple[int, int], other: tuple[int, int]) -> Matches:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator)

    return matches_of(
        numbers(*grid, 2).sigmoid(), numbers(*other, 2).sigmoid(), numbers(*grid), numbers(*other),
        torch.nn.functional.normalize(numbers(5, *grid), dim=1),
        torch.nn.functional.normalize(numbers(5, *other), dim=1),
    )  # fmt: skip


def plain_score(matches: Matches, weight: Tensor | None, number: int) -> float:
    """The definition, cell by cell."""
    rows, columns = matches.target.mask_logits.shape[1:]
    best: dict[tuple[int, int], float] = {}
    for i in range(matches.source.mask_logits.shape[1]):
        for j in range(matches.source.mask_logits.shape[2]):
            x, y = matches.source.positions[number, i, j].tolist()
            place = torch.tensor([[[[x, y]]]])
            carried = sample(matches.target.mask_logits[number].sigmoid()[None, None], place).item()
            cell = min(int(y * rows), rows - 1), min(int(x * columns), columns - 1)
            there = matches.target.features[number, :, cell[0], cell[1]]
            cosine = float(matches.source.features[number, :, i, j] @ there)
            worth = matches.source.mask_logits[number, i, j].sigmoid().item() * carried * cosine
            if weight is not None:
                worth *= float(weight[number, i, j])
            best[cell] = max(best.get(cell, 0.0), worth)
    return sum(best.values())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_score_is_the_definition(seed: int, weighted: bool) -> None:
    matches = random_matches(seed, (4, 6), (3, 5))
    weight = torch.rand(2, 4, 6) if weighted else None
    found = pair_score(matches, weight)
    for number in range(2):
        assert found[number].item() == pytest.approx(plain_score(matches, weight, number), abs=1e-5)


def test_perfect_match_of_an_image_with_itself_scores_the_number_of_cells() -> None:
    rows, columns = 5, 7
    features = torch.nn.functional.normalize(torch.randn(1, 9, rows, columns), dim=1)
    grid = cell_centres(rows, columns, features)[None]
    sure = torch.full((1, rows, columns), 50.0)
    matches = matches_of(grid, grid, sure, sure, features, features)
    assert pair_score(matches).item() == pytest.approx(rows * columns, abs=1e-4)
    assert torch.allclose(cell_scores(matches), torch.ones(1, rows, columns), atol=1e-5)


def test_of_cells_that_land_together_one_counts_and_of_equal_ones_the_first() -> None:
    matches = random_matches(0, (4, 6), (3, 5))
    together = torch.full_like(matches.source.positions, 0.5)
    same = torch.zeros_like(matches.source.mask_logits)
    feature = torch.ones_like(matches.source.features) / 5**0.5
    there = torch.ones_like(matches.target.features) / 5**0.5
    scores = cell_scores(
        Matches(Side(together, same, feature), replace(matches.target, features=there))
    )
    assert (scores > 0).sum() == 2  # one of each of the two pairs
    assert (scores[:, 0, 0] > 0).all()


def test_a_match_outside_of_the_target_is_none() -> None:
    matches = random_matches(2, (4, 6), (3, 5))
    positions = matches.source.positions.clone()
    positions[:, 0, 0] = torch.tensor([1.01, 0.5])
    positions[:, 1, 1] = torch.tensor([0.5, -0.01])
    features = torch.ones_like(matches.source.features) / 5**0.5
    there = torch.ones_like(matches.target.features) / 5**0.5
    scores = cell_scores(Matches(
        Side(positions, matches.source.mask_logits, features),
        Side(matches.target.positions, matches.target.mask_logits, there),
    ))  # fmt: skip
    assert (scores[:, 0, 0] == 0).all()
    assert (scores[:, 1, 1] == 0).all()
    assert (scores > 0).any()


def test_a_finer_mask_counts_by_its_means_over_the_cells() -> None:
    matches = random_matches(3, (4, 6), (3, 5))
    fine = Matches(*(
        replace(side, mask_logits=side.mask_logits.repeat_interleave(2, 1).repeat_interleave(2, 2))
        for side, _ in matches.both()
    ))  # fmt: skip
    torch.testing.assert_close(fine.source.cell_mask(), matches.source.cell_mask())
    mixed = Matches(fine.source, matches.target)
    torch.testing.assert_close(pair_score(mixed), pair_score(matches))


def test_another_thing_of_the_kind_counts_a_hundredth_of_the_same_and_more_than_nothing() -> None:
    grid = 4, 6
    positions = cell_centres(*grid, torch.zeros(1)).expand(1, *grid, 2)
    features = torch.nn.functional.normalize(torch.ones(1, 5, *grid), dim=1)

    def score(kind: float, same: float) -> float:
        extra = {"same": torch.full((1, *grid), same)}
        side = Side(positions, torch.full((1, *grid), kind), features, extra)
        return float(pair_score(Matches(side, side)))

    assert score(20, 20) == pytest.approx(24, rel=1e-4)
    assert score(20, -20) == pytest.approx(0.24, rel=1e-4)
    assert score(-20, -20) == pytest.approx(0, abs=1e-6)


def test_weight_of_zero_leaves_nothing() -> None:
    matches = random_matches(1, (4, 6), (3, 5))
    assert pair_score(matches, torch.zeros(1, 4, 6)).abs().max() == 0


@pytest.mark.parametrize(
    ("name", "options"), [("correlation", {}), ("transformer", {"model_size": "tiny"})]
)
def test_compared_features_are_those_of_the_matches(name: str, options: dict[str, str]) -> None:
    torch.manual_seed(0)
    matcher = build(name, **options).eval()
    with torch.inference_mode():
        features = matcher.encode(torch.rand(2, 3, 64, 96))
        matches = matcher.match(features.at([0]), features.at([1]))
        compared = matcher.compared(features)
    assert torch.allclose(compared[:1], matches.source.features, atol=1e-5)
    assert torch.allclose(compared[1:], matches.target.features, atol=1e-5)
    vectors = pooled(matcher, features)
    assert vectors.shape == (2, compared.shape[1])
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-5)


def test_pooled_features_of_a_part_are_of_that_part_alone() -> None:
    matcher = build("correlation").eval()
    with torch.inference_mode():
        features = matcher.encode(torch.rand(1, 3, 64, 64))
        left = torch.zeros(1, 8, 8)
        left[..., :4] = 1
        more = matcher.encode(torch.rand(1, 3, 64, 64))
        other = Encoding({
            name: torch.cat([features[name][..., :4], more[name][..., 4:]], dim=-1)
            for name in features
        })  # fmt: skip
    torch.testing.assert_close(pooled(matcher, features, left), pooled(matcher, other, left))
    assert not torch.allclose(pooled(matcher, features), pooled(matcher, other), atol=1e-3)


def test_of_a_query_the_detail_counts_and_in_it_what_finds_itself() -> None:
    model = load("segswap-tiny")
    texture = torch.rand(1, 3, 160, 160)
    texture[..., 80:] = 0.5
    inside = torch.zeros(1, 20, 20)
    inside[:, 5:15] = 1
    with torch.inference_mode():
        features = model.matcher.encode(texture)
    weight = self_consistent(model.matcher, features, inside)
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert weight[:, :5].max() == weight[:, 15:].max() == 0
    assert weight[:, 6:14, 2:8].mean() > weight[:, 6:14, 12:18].mean() + 0.2
