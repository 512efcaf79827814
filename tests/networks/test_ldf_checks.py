"""Checks of LDF's specification: rings of released labels, entropies, E at any size."""

import numpy as np
import pytest
import torch

from generators.networks.ldf.labels import decoupled
from generators.networks.ldf.losses import pass_terms
from generators.networks.ldf.network import Pass
from segswap.evaluation.saliency import e_measure, saliency_scores


def test_released_labels_go_on_in_two_whole_rings() -> None:
    """100 and 70 all around the square, corners too, and nothing in the third."""
    mask = np.zeros((41, 41), bool)
    mask[10:31, 10:31] = True
    body = np.rint(decoupled(mask, "released")[0] * 255).astype(int)
    rows, columns = np.indices(mask.shape)
    away = np.maximum(abs(rows - 20), abs(columns - 20)) - 10
    assert [np.unique(body[away == ring]).tolist() for ring in (1, 2, 3)] == [[100], [70], [0]]


@pytest.mark.parametrize("name", ["body", "detail"])
def test_soft_labels_of_both_branches_leave_their_entropy(name: str) -> None:
    """Of labels that differ, each branch by its own."""
    labels = {
        "body": torch.tensor([0.1, 0.3, 0.8, 0.95]).view(1, 1, 2, 2),
        "detail": torch.tensor([0.6, 0.5, 0.2, 0.05]).view(1, 1, 2, 2),
    }
    mask = torch.ones(1, 1, 2, 2)
    p = labels[name].double()
    entropy = float(-(p * p.log() + (1 - p) * (1 - p).log()).mean())
    logits = {key: value.logit() for key, value in labels.items()}

    def term(shift: float) -> float:
        moved = logits | {name: logits[name] + shift}
        told = Pass(moved["body"], moved["detail"], 0 * mask)
        return float(pass_terms(told, mask, labels["body"], labels["detail"])[name])

    assert term(0) == pytest.approx(entropy)
    assert min(term(-0.5), term(0.5)) > entropy + 0.01


@pytest.mark.parametrize("shape", [(20, 20), (7, 13), (40, 25)])
def test_e_of_nothing_at_any_size(shape: tuple[int, int]) -> None:
    """.25 HW / (HW - 1); so has the contrary of a thing of 12 %, over twice whose mean is none."""
    count = shape[0] * shape[1]
    true = (np.arange(count) < round(0.12 * count)).reshape(shape)
    expected = pytest.approx(0.25 * count / (count - 1))
    assert e_measure(np.zeros_like(true), true) == expected
    contrary = 1 - true.astype(np.float32)
    assert 2 * contrary.mean() > 1
    assert saliency_scores([(contrary, true)]).e == expected
