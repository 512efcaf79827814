"""Where images show a kind: means of what their pairs share, not where matches agree to a cell."""

import numpy as np
from made_links import GRID, collection

from segswap.discovery.discovery import find_repeats
from segswap.discovery.graph import Nodes
from segswap.discovery.kinds import PARTNERS, group_maps, kind_maps
from segswap.discovery.links import Links
from segswap.discovery.pairing import match_pairs
from segswap.discovery.settings import Settings


def links(pairs: list[tuple[int, int]], masks: np.ndarray) -> Links:
    """Pairs whose positions tell nothing, with masks (P, 2, h, w)."""
    nowhere = np.full((len(pairs), *masks.shape[2:], 2), np.nan, np.float16)
    flips = np.zeros(len(pairs), bool)
    half = masks.astype(np.float16)
    return Links(np.array(pairs, np.int32), flips, nowhere, nowhere, half[:, 0], half[:, 1])


def test_a_map_is_the_root_of_the_mean_less_what_is_likely() -> None:
    masks = np.zeros((2, 2, 4, 4))
    masks[0, 0, 0], masks[1, 0, :2] = 0.81, 0.49  # of image 0, in two pairs
    masks[:, 1, 3] = 0.64
    maps = kind_maps(links([(0, 1), (0, 2)], masks))
    assert sorted(maps) == [0, 1, 2]
    np.testing.assert_allclose(maps[0][:, 0], np.sqrt([0.65, 0.245, 0, 0]) - 0.4, atol=1e-3)
    np.testing.assert_allclose(maps[2][:, 0], [-0.4, -0.4, -0.4, 0.4], atol=1e-3)


def test_only_the_best_partners_count_and_images_without_are_left_out() -> None:
    count = PARTNERS + 4
    pairs = [(0, n) for n in range(1, count)]
    masks = np.zeros((len(pairs), 2, 6, 6))
    masks[:, :, :3] = np.linspace(1, 0.5, len(pairs))[:, None, None, None]
    masks[-1] = 0
    masks[-1, 0, 0, 0] = 0.1  # under a hundredth of the cells
    maps = kind_maps(links(pairs, masks))
    assert sorted(maps) == list(range(count - 1))
    # The others each keep image 0 among their own best.
    expected = np.sqrt(np.linspace(1, 0.5, len(pairs))[:-1].mean()) - 0.4
    np.testing.assert_allclose(maps[0][0], expected, atol=1e-3)


def test_of_a_pair_in_two_groups_each_gets_the_cells_near_its_nodes() -> None:
    masks = np.full((1, 2, 4, 8), 0.81)
    places = np.array([[[1.5, 2], [6.5, 2]], [[6.5, 2], [1.5, 2]]], np.float32)
    nodes = Nodes(
        np.array([[3, 5]] * 2, np.int32), np.zeros(2, np.int32), places, np.ones(2, np.float32)
    )
    left, right = (group_maps(links([(3, 5)], masks), nodes, np.array([n])) for n in (0, 1))
    for maps, columns in ((left, (slice(0, 4), slice(4, 8))), (right, (slice(4, 8), slice(0, 4)))):
        for image, own in zip((3, 5), columns, strict=True):
            expected = np.full((4, 8), -0.4)
            expected[:, own] = 0.5
            np.testing.assert_allclose(maps[image], expected, atol=1e-3)


def test_groups_of_kinds_are_those_of_things_with_masks_of_all_that_is_shared() -> None:
    planted = collection(30, "ab", each=9)
    pairs = [(a, b) for a in range(30) for b in range(a + 1, 30)]
    settings = Settings.of("kind")
    whole, groups = find_repeats(match_pairs(pairs, planted.predict, settings), settings)
    assert sorted(sorted(group.maps) for group in groups) == sorted(
        [image for image in range(30) if motif in planted.motifs[image]] for motif in "ab"
    )
    assert set(whole) == {image for image in range(30) if planted.motifs[image]}
    for group in groups:
        (motif,) = set.intersection(*(set(planted.motifs[image]) for image in group.maps))
        for image, values in group.maps.items():
            inside = planted.inside(image, motif)
            assert ((values > 0) & inside).sum() / ((values > 0) | inside).sum() > 0.6
            assert values.shape == (GRID, GRID)
        assert list(group.strengths) == sorted(group.maps, key=lambda i: (-group.strengths[i], i))
        assert max(group.strengths.values()) == 1
