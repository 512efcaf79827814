"""Sub-categories of classes: clusters of each class's pictures by their features.

Section 3.2 of SC-CAM (Chang et al., CVPR 2020): k-means on features as they are, unnormalised.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

_ITERATIONS = 300  # at most
Codes = NDArray[np.int32]


def clustered(
    features: NDArray[np.float32], count: int, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Lloyd's k-means, begun by k-means++, until nothing changes.

    Args:
        features: (N, D).
        count: clusters, as many as there are different features at most.
        seed: of where it begins.

    Returns:
        The cluster of each, (N,), and the means of the clusters, (clusters, D).
    """
    count = min(count, len(np.unique(features, axis=0)))
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cluster that is left empty keeps its centre
        centres, codes = kmeans2(features, count, iter=1, minit="++", seed=rng)
        for _ in range(_ITERATIONS - 1):
            before = codes
            centres, codes = kmeans2(features, centres, iter=1, minit="matrix")
            if (codes == before).all():
                break
    return codes.astype(np.int32), centres


def sub_categories(
    features: NDArray[np.float32], labels: NDArray[np.bool_], count: int, seed: int
) -> NDArray[np.bool_]:
    """The sub-categories that pictures show: (N, C * count), at c * count + k that of cluster k of
    class c; of each class of a picture exactly one.

    Args:
        features: (N, D) of whole pictures; one of several classes is in the clusters of each.
        labels: (N, C), the classes that they show.
        count: clusters of a class.
    """
    found = np.zeros((*labels.shape, count), bool)
    for kind, shown in enumerate(labels.T):
        (places,) = np.nonzero(shown)
        if len(places):
            codes, _ = clustered(features[places], count, seed)
            found[places, kind, codes] = True
    assert (found.sum(axis=2) == labels).all()
    return found.reshape(len(labels), -1)
