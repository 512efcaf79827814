"""Checks of neighbourhood consensus that are stricter than those of its parts."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segswap.matchers.ncnet.scores import mutual_filter
from segswap.matchers.ncnet.sparse import nearest


def unit(count: int, rows: int, columns: int) -> Tensor:
    """Features of length 1."""
    features = torch.randn(count, 6, rows, columns, dtype=torch.float64)
    return F.normalize(features, dim=1)


@pytest.mark.parametrize("value", [0.7, 1e-5, 3.0])
def test_beside_a_single_score_all_others_stay_0(value: float) -> None:
    scores = torch.zeros(2, 1, 3, 4, 5, 2, dtype=torch.float64)
    scores[1, 0, 2, 1, 4, 0] = value
    expected = scores / (1 + 1e-5 / value) ** 2
    assert torch.allclose(mutual_filter(scores), expected, rtol=1e-12, atol=0)


def test_entries_that_both_images_name_count_twice_and_no_others() -> None:
    """Of 3 nearest cells each way: the list is what either names, with its cosine once or twice."""
    torch.manual_seed(0)
    source, target = unit(2, 4, 5), unit(2, 3, 6)
    entries = nearest(source, target, 3)
    cosines = source.flatten(2).mT @ target.flatten(2)
    third = (cosines.topk(3, dim=axis).values.amin(axis, keepdim=True) for axis in (1, 2))
    of_target, of_source = (cosines >= least for least in third)
    times = of_target.double() + of_source.double()
    assert (times == 2).any()
    assert (times == 1).any()
    assert torch.equal(entries.dense().flatten(4).flatten(1, 3), times * cosines)
    assert len(entries.values) == (times > 0).sum()


def test_an_entrys_value_is_1_less_half_the_squared_distance() -> None:
    torch.manual_seed(0)
    source, target = unit(1, 4, 5), unit(1, 4, 5)
    entries = nearest(source, target, 20)
    apart = torch.cdist(source.flatten(2).mT, target.flatten(2).mT).square()
    # Of all cells both images name all.
    found = entries.dense().flatten(4).flatten(1, 3) / 2
    assert torch.allclose(found, 1 - apart / 2, atol=1e-12)
