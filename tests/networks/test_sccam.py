"""SC-CAM: sub-categories that are clusters, two heads, and what maps are made to."""

import math

import numpy as np
import pytest
import torch
from made_classes import tiny_trunk

from generators.networks.classes import clusters
from generators.networks.classes.affinity import UNSURE, sure_labels
from generators.networks.classes.clusters import clustered, sub_categories
from generators.networks.classes.network import soft_margin
from generators.networks.classes.predictor import (
    Predictor,
    by_largest,
    by_largest_of_all,
)
from generators.networks.classes.sccam import SCCAM, SCCAMLoss


def labels_of(count: int, classes: int = 3) -> np.ndarray:
    """(count, classes), of each picture one class at least."""
    rng = np.random.default_rng(0)
    labels = rng.random((count, classes)) < 0.4
    labels[np.arange(count), rng.integers(classes, size=count)] = True
    return labels


def features_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


# --- sub-categories ----------------------------------------------------------------------------


def test_a_picture_has_one_sub_category_of_each_of_its_classes() -> None:
    labels = labels_of(12)
    found = sub_categories(features_of(12), labels, 2, 0)
    assert found.shape == (12, 6)
    np.testing.assert_array_equal(found.reshape(12, 3, 2).sum(axis=2), labels)
    assert found.sum() == labels.sum()


def test_k_means_never_grows_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each centre is the mean of its members, after any number of iterations."""
    features = features_of(60, 1)
    costs = []
    for iterations in range(1, 12):
        monkeypatch.setattr(clusters, "_ITERATIONS", iterations)
        codes, centres = clustered(features, 5, 3)
        for number, centre in enumerate(centres):
            members = features[codes == number]
            if len(members):
                np.testing.assert_allclose(centre, members.mean(axis=0), atol=1e-5)
        costs.append(float(((features - centres[codes]) ** 2).sum()))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


def test_one_cluster_is_the_class() -> None:
    """So that both losses are the same function of their logits."""
    labels = labels_of(12)
    found = sub_categories(features_of(12), labels, 1, 0)
    np.testing.assert_array_equal(found, labels)
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    losses = [soft_margin(logits, torch.tensor(each).float()) for each in (labels, found)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("seed", range(4))
def test_separate_blobs_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(4), 15)
    features = (20 * rng.normal(size=(4, 8))[true] + rng.normal(size=(60, 8))).astype(np.float32)
    codes, _ = clustered(features, 4, seed)
    pairs = {(int(a), int(b)) for a, b in zip(true, codes, strict=True)}
    assert len(pairs) == 4
    np.testing.assert_array_equal(codes, clustered(features, 4, seed)[0])


def test_fewer_pictures_than_clusters() -> None:
    codes, centres = clustered(np.repeat(features_of(3), 2, axis=0), 10, 0)
    assert len(set(codes.tolist())) == len(centres) == 3
    found = sub_categories(features_of(4), np.eye(4, 2, dtype=bool) | labels_of(4, 2), 10, 0)
    assert found.shape == (4, 20)


# --- network and losses ------------------------------------------------------------------------


@pytest.fixture
def network() -> SCCAM:
    torch.manual_seed(0)
    return SCCAM(tiny_trunk(), 3, 2)


def test_the_published_heads_have_as_many_weights() -> None:
    trunk = tiny_trunk()
    trunk.channels = (512, 1024, 4096)
    made = SCCAM(trunk, 20, 10)
    assert made.sub is not None
    assert (made.parent.weight.numel(), made.sub.weight.numel()) == (81_920, 819_200)
    assert made.parent.bias is None
    assert SCCAM(trunk, 20).sub is None


@torch.no_grad()
def test_the_mean_of_a_map_is_its_logit(network: SCCAM) -> None:
    network.double().eval()
    images = torch.rand(2, 3, 64, 80, dtype=torch.float64)
    parent, sub = network(images)
    last = network.trunk(images)[2]
    assert network.sub is not None
    assert sub is not None
    for head, logits in ((network.parent, parent), (network.sub, sub)):
        error = (head(last).mean(dim=(2, 3)) - logits).abs().max()
        assert error < 1e-15
    logits, maps = network.seen(images)
    torch.testing.assert_close(logits, parent)
    assert maps.min() >= 0


def test_losses_of_zero_logits(network: SCCAM) -> None:
    for head in (network.parent, network.sub):
        assert head is not None
        torch.nn.init.zeros_(head.weight)
    labels = torch.tensor([[1.0, 0, 1, 0, 1, 0, 0, 1, 0]])
    with torch.no_grad():
        found = SCCAMLoss(network, 5.0)(torch.rand(1, 3, 64, 64), labels)
    assert float(found["parent"]) == pytest.approx(math.log(2))
    assert float(found["sub"]) == pytest.approx(math.log(2))
    assert float(found["loss"]) == pytest.approx(4.159, abs=5e-4)


def test_without_weight_sub_categories_change_nothing() -> None:
    """A step with lambda = 0 is a plain CAM's."""
    images, labels = torch.rand(4, 3, 64, 64), torch.tensor(labels_of(4)).float()
    stepped = []
    for made, weight in ((0, 5.0), (2, 0.0), (2, 5.0)):
        torch.manual_seed(0)
        one = SCCAM(tiny_trunk(), 3, made)
        told = torch.cat([labels, labels.repeat_interleave(2, dim=1)], dim=1) if made else labels
        optimiser = torch.optim.SGD([p for p in one.parameters() if p.requires_grad], 0.1)
        torch.manual_seed(1)
        SCCAMLoss(one, weight)(images, told)["loss"].backward()
        optimiser.step()
        stepped.append(one.state_dict())
    plain, unweighted, whole = stepped
    for key, value in plain.items():
        torch.testing.assert_close(value, unweighted[key], rtol=0, atol=0)
    assert not plain["trunk.net.last.weight"].equal(whole["trunk.net.last.weight"])


# --- maps --------------------------------------------------------------------------------------


def test_maps_are_divided_by_their_largest_value() -> None:
    """No least value is taken off."""
    maps = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0)) * 4 + 1
    found = by_largest(maps)
    top = maps.amax(dim=(1, 2))
    torch.testing.assert_close(found.amax(dim=(1, 2)), top / (top + 1e-5))
    assert found.max() < 1
    assert found.min() > 0.1
    assert not by_largest(torch.zeros(1, 4, 4)).any()


def test_maps_of_sub_categories_are_merged_by_the_largest() -> None:
    maps = torch.rand(3, 4, 8, 9, generator=torch.Generator().manual_seed(0)) * 4
    found = by_largest_of_all(maps)
    assert found.max() < 1
    own = maps / (maps.amax(dim=(1, 2, 3), keepdim=True) + 1e-5)
    assert (found[:, None] >= own).all()
    assert (found == own.amax(dim=1)).all()


@pytest.fixture
def predictor(network: SCCAM) -> Predictor:
    return Predictor(network, "sccam", ["a", "b", "c"], 64)


def image_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 80, 3), np.uint8)


def test_a_mirrored_image_has_mirrored_maps(predictor: Predictor) -> None:
    image = image_of(0)
    one = predictor.seen(image, (80, 64), [0, 2])
    other = predictor.seen(np.ascontiguousarray(image[:, ::-1]), (80, 64), [0, 2])
    np.testing.assert_allclose(one.chances, other.chances, atol=1e-4)
    np.testing.assert_allclose(one.maps, other.maps[..., ::-1], atol=5e-3)


def test_classes_that_are_not_shown_have_no_map(predictor: Predictor) -> None:
    found = predictor.seen(image_of(1), (80, 64), [2])
    assert found.chosen.tolist() == [2]
    assert found.maps.shape == (1, 64, 80)
    everything = predictor.seen(image_of(1), (80, 64), [0, 1, 2])
    np.testing.assert_allclose(everything.maps[2], found.maps[0], atol=1e-6)
    assert predictor.seen(image_of(1), (80, 64), least=1.1).maps.shape == (0, 64, 80)
    subs = predictor.sub_seen(image_of(1), (80, 64), [2, 0])
    assert subs.shape == (2, 64, 80)
    assert 0 <= subs.min() <= subs.max() < 1


# --- the published numbers ---------------------------------------------------------------------


@pytest.mark.parametrize(("powers", "surely", "surely_not"),
                         [((4, 32), 0.2755, 0.0770), ((4, 24), 0.2755, 0.0939)])  # fmt: skip
def test_where_maps_are_sure(powers: tuple[int, int], surely: float, surely_not: float) -> None:
    """v = (1 - v)^alpha is where class and background cross over."""
    ramp = np.linspace(0, 1, 100001, dtype=np.float32)
    labels = sure_labels(np.stack([ramp[None], 0 * ramp[None]]), powers)[0]
    assert ramp[labels == 1].min() == pytest.approx(surely, abs=1e-4)
    assert ramp[labels == 0].max() == pytest.approx(surely_not, abs=1e-4)
    assert set(np.unique(labels)) == {0, 1, UNSURE}
