"""Discovery from predictions to masks and groups: planted collections, bad input."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import textured
from hypothesis import given
from hypothesis import strategies as st
from made_links import GRID, Planted, collection
from made_models import save_kinds_model, save_model

from segswap import geometry
from segswap.discovery.discovery import discover, find_repeats
from segswap.discovery.links import Links, consistent, link, unmirrored
from segswap.discovery.pairing import chosen_pairs, match_pairs
from segswap.discovery.settings import Settings, same_for
from segswap.models.model import load
from segswap.models.prediction import Prediction

MOTIFS = "abc"


def all_pairs(count: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(count) for b in range(a + 1, count)]


# --- cycle-consistent masks ----------------------------------------------------------------------


def square(source: tuple[int, int], target: tuple[int, int], size: int = 5) -> Prediction:
    """A square of cells goes from a row and column of the source to ones of the target, and back;
    all other cells go astray.
    """
    centres = geometry.cell_centres(GRID, GRID).astype(np.float32)
    # Half an image to the right, and half an image down.
    there, back = (np.roll(centres, GRID // 2, axis=axis) for axis in (1, 0))
    masks = np.full((2, GRID, GRID), 0.95, np.float32)
    a, b = (tuple(slice(x, x + size) for x in corner) for corner in (source, target))
    there[a], back[b] = centres[b], centres[a]
    return Prediction(there, back, masks[0], masks[1])


def test_a_cell_counts_where_the_way_there_and_back_ends_near_it() -> None:
    found = consistent(square((2, 3), (10, 8)))
    expected = np.zeros((2, GRID, GRID), np.float32)
    expected[0, 2:7, 3:8] = expected[1, 10:15, 8:13] = 0.9025
    np.testing.assert_allclose(found.source_mask, expected[0], atol=1e-5)
    np.testing.assert_allclose(found.target_mask, expected[1], atol=1e-5)


def test_the_tolerance_is_in_cells() -> None:
    there = square((2, 3), (10, 8))
    for off, kept in ((0.9, 25), (1.1, 0)):
        back = there.to_source.copy()
        back[10:15, 8:13, 1] += off / GRID
        moved = Prediction(there.to_target, back, there.source_mask, there.target_mask)
        assert (consistent(moved).source_mask > 0).sum() == kept


def test_without_answers_the_masks_are_empty() -> None:
    nowhere = np.full((4, 4, 2), np.nan, np.float32)
    ones = np.ones((4, 4), np.float32)
    found = consistent(Prediction(nowhere, nowhere, ones, ones))
    assert not found.source_mask.any()
    assert not found.target_mask.any()


# --- mirrored pairs ------------------------------------------------------------------------------


def test_a_mirrored_pair_is_told_of_the_target_as_it_is() -> None:
    """Flipped left to right; flipped up-down, the way back would not end where it began."""
    planted = Planted(
        [{"a": placed(0.1, 0.05)}, {"a": placed(0.4, 0.55)}], mirrored={(1, "a")}, noise=0.1
    )
    seen = planted.predict([(0, 1)], True)[0]
    links = link([(0, 1)], planted.predict([(0, 1)], False), [seen])
    assert links.mirrored.tolist() == [True]
    for image, mask in enumerate((links.source_mask[0], links.target_mask[0])):
        inside = planted.inside(image, "a")
        assert (mask > 0.8)[inside].mean() > 0.8
        assert not (mask > 0.8)[~inside].any()
    # The left edge of the motif in the one is the right edge in the other.
    cell = (planted.inside(0, "a")).nonzero()
    start = geometry.cell_centres(GRID, GRID)[cell]
    end = links.to_target[0][cell].astype(float)
    np.testing.assert_allclose(end[:, 0], 0.4 + 0.4 - (start[:, 0] - 0.1), atol=0.08)
    np.testing.assert_allclose(end[:, 1], 0.55 + start[:, 1] - 0.05, atol=0.08)
    wrong = unmirrored(seen)
    upside_down = Prediction(
        wrong.to_target, seen.to_source[::-1], seen.source_mask, seen.target_mask[::-1]
    )
    assert (consistent(upside_down).source_mask > 0.8).mean() < 0.01


def placed(x: float, y: float, side: float = 0.4) -> np.ndarray:
    return geometry.translation(x, y) @ geometry.scaling(side, side)


@given(seed=st.integers(0, 1000))
def test_flipping_twice_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = Prediction(*rng.random((2, 3, 4, 2)), *rng.random((4, 3, 4)))
    twice = unmirrored(unmirrored(one))
    for name, value in one.__dict__.items():
        np.testing.assert_allclose(getattr(twice, name), value, atol=1e-12)


# --- links on disk -------------------------------------------------------------------------------


def test_links_are_the_same_after_saving(tmp_path: Path) -> None:
    planted = collection(6, each=3)
    links = match_pairs(all_pairs(6), planted.predict, Settings())
    links.save(tmp_path / "links.npz")
    read = Links.load(tmp_path / "links.npz")
    for name, value in links.__dict__.items():
        np.testing.assert_array_equal(getattr(read, name), value)
    assert len(Links.joined([read, links])) == 30


def test_damaged_links_are_named(tmp_path: Path) -> None:
    path = tmp_path / "links.npz"
    path.write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ValueError, match=r"links.npz cannot be read as links: .*; delete it"):
        Links.load(path)


def test_predictions_on_different_grids_are_refused() -> None:
    planted = collection(3, each=1)
    small = Prediction(*np.zeros((2, 5, 5, 2), np.float32), *np.zeros((2, 5, 5), np.float32))
    with pytest.raises(ValueError, match="one grid"):
        link([(0, 1), (0, 2)], [planted.predict([(0, 1)], False)[0], small])


# --- which pairs ---------------------------------------------------------------------------------


def test_all_pairs_of_a_small_collection_and_neighbours_of_a_large_one() -> None:
    rng = np.random.default_rng(0)
    some = rng.normal(size=(150, 8)).astype(np.float32)
    some /= np.linalg.norm(some, axis=1, keepdims=True)
    assert chosen_pairs(some[:100], some[:100], None) == all_pairs(100)
    near = chosen_pairs(some, some, None)
    assert 150 * 20 / 2 <= len(near) <= 150 * 20
    similar = some @ some.T
    np.fill_diagonal(similar, -2)
    best = similar.argmax(axis=1)
    assert {(min(a, b), max(a, b)) for a, b in enumerate(best.tolist())} <= set(near)
    assert len(chosen_pairs(some, some, 1)) < 150


def test_a_mirrored_image_is_a_neighbour() -> None:
    plain = np.eye(4, dtype=np.float32)
    mirrored = plain[[2, 3, 0, 1]]
    assert chosen_pairs(plain, mirrored, 1) == [(0, 2), (1, 3)]


# --- planted collections -------------------------------------------------------------------------


@pytest.mark.parametrize("false", [0, 100])
def test_three_motifs_in_sixty_images_are_all_found_and_none_is_mixed(false: int) -> None:
    planted = collection(60, MOTIFS, each=12, false=false)
    links = match_pairs(all_pairs(60), planted.predict, Settings())
    whole, groups = find_repeats(links, Settings())
    members = sorted(sorted(group.maps) for group in groups)
    assert members == sorted(
        [image for image in range(60) if motif in planted.motifs[image]] for motif in MOTIFS
    )
    for group in groups:
        assert_on_its_motif(planted, group.maps)
    # All of them hang together by chance agreements of next to no weight.
    most = max(values.max() for values in whole.values())
    strong = {n: values for n, values in whole.items() if values.max() > 0.1 * most}
    assert len(strong) >= 6
    assert_on_its_motif(planted, strong)


def assert_on_its_motif(planted: Planted, maps: dict[int, np.ndarray]) -> None:
    """The bright cells of every image lie on the one motif that all of them show, and most of the
    motif counts.
    """
    shared = set.intersection(*(set(planted.motifs[image]) for image in maps))
    assert len(shared) == 1
    for image, values in maps.items():
        bright = values > 0.6 * values.max()
        inside = cv2.dilate(planted.inside(image, *shared).view(np.uint8), np.ones((3, 3))) > 0
        assert not (bright & ~inside).any()
        assert (values > 0)[planted.inside(image, *shared)].mean() > 0.6


def test_motifs_that_nearly_all_images_show() -> None:
    """Some images are the partners of most others; the groups are not divided by that."""
    planted = collection(40, "ab", each=28, seed=2)
    groups = find_repeats(match_pairs(all_pairs(40), planted.predict, Settings()), Settings())[1]
    assert sorted(sorted(group.maps) for group in groups) == sorted(
        [image for image in range(40) if motif in planted.motifs[image]] for motif in "ab"
    )


def test_mirrored_members_belong_to_the_group() -> None:
    planted = collection(20, "a", each=8, seed=1)
    showing = [image for image in range(20) if planted.motifs[image]]
    planted.mirrored |= {(image, "a") for image in showing[:3]}
    links = match_pairs(all_pairs(20), planted.predict, Settings())
    (group,) = find_repeats(links, Settings())[1]
    assert sorted(group.maps) == showing
    for (a, b), mirrored in zip(links.pairs.tolist(), links.mirrored, strict=True):
        if {a, b} <= set(showing):
            assert mirrored == ((a in showing[:3]) != (b in showing[:3]))
    assert_on_its_motif(planted, group.maps)


def test_points_of_members_are_the_same_points() -> None:
    planted = collection(20, "a", each=8, seed=3)
    groups = find_repeats(match_pairs(all_pairs(20), planted.predict, Settings()), Settings())[1]
    (group,) = groups
    assert len(group.shared) >= 8
    for pair in group.shared:
        a, b = (planted.motifs[image]["a"] for image in pair.images)
        assert 1 < len(pair.points) <= 6
        expected = geometry.transform_points(b @ np.linalg.inv(a), pair.points[:, 0])
        np.testing.assert_allclose(pair.points[:, 1], expected, atol=2 / GRID)


def test_nothing_repeats() -> None:
    planted = collection(10, "", false=4)
    links = match_pairs(all_pairs(10), planted.predict, Settings())
    whole, groups = find_repeats(links, Settings())
    assert groups == []
    pairs = {image for pair in planted.false for image in pair}
    assert set(whole) <= pairs  # the masks are what two images say, right or wrong


def test_no_correspondence_at_all() -> None:
    planted = collection(5, "")
    whole, groups = find_repeats(match_pairs(all_pairs(5), planted.predict, Settings()), Settings())
    assert (whole, groups) == ({}, [])


# --- images --------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Six textured pictures, a disc pasted into four of them; one of these is mirrored. One that
    is broken is in between.
    """
    disc = textured(60, 60, 1)
    disc[..., 0] //= 2
    names = []
    for number in range(6):
        picture = textured(160, 200, 10 + number) // 2 + 60
        if number < 4:
            part = disc[:, ::-1] if number == 2 else disc
            y, x = 20 + 15 * number, 100 - 20 * number
            picture[y : y + 60, x : x + 60] = part
        names.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(names[-1], picture)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    return [*names[:2], str(broken), *names[2:]]


def flat(value: float) -> Prediction:
    """All cells go to their own place."""
    centres = geometry.cell_centres(GRID, GRID).astype(np.float32)
    mask = np.full((GRID, GRID), value, np.float32)
    return Prediction(centres, centres, mask, mask)


def test_any_method_can_stand_in_the_model_s_place(photos: list[str]) -> None:
    """Its pairs are numbers of the images that can be read, in the list that was given."""
    asked: set[tuple[int, int, bool]] = set()

    def predict(pairs: list[tuple[int, int]], flipped: bool) -> list[Prediction]:
        asked.update((a, b, flipped) for a, b in pairs)
        return [square((2, 3), (2, 3), 8) if {a, b} <= {0, 3, 5} and not flipped else flat(0)
                for a, b in pairs]  # fmt: skip

    found = discover(photos, predict)
    numbers = [0, 1, 3, 4, 5, 6]
    assert asked == {(a, b, m) for a in numbers for b in numbers if a < b for m in (False, True)}
    assert found.images == photos
    assert [image for image, _ in found.skipped] == [photos[2]]
    assert [number for number, mask in enumerate(found.masks) if mask is not None] == [0, 3, 5]
    (group,) = found.groups
    assert sorted(member.image for member in group.members) == [0, 3, 5]
    assert max(member.strength for member in group.members) == 1
    for member in group.members:
        assert member.mask.shape == (160, 200)
        assert member.mask[40:60, 50:90].mean() > 0.9


def test_by_a_model(photos: list[str], tmp_path: Path) -> None:
    """One that nobody trained, whose masks mean nothing: from pictures to an answer, twice."""
    model = load(save_model(tmp_path / "model", size=64))
    settings = Settings(confidence=0.1, least_images=2)
    told: list[tuple[int, int]] = []
    found = discover(
        photos, model, settings=settings, advance=lambda count, total: told.append((count, total))
    )
    again = discover(photos, str(tmp_path / "model"), settings=settings)
    assert len(found.links) == 15
    assert sum(count for count, _ in told) == 15
    assert {total for _, total in told} == {15}
    assert [image for image, _ in found.skipped] == [photos[2]]
    assert found.masks[2] is None
    for name, value in found.links.__dict__.items():
        np.testing.assert_array_equal(value, getattr(again.links, name))
    near = discover(photos, model, neighbours=1, settings=settings)
    assert len(near.links) < 15


def test_fewer_than_two_images_are_refused(photos: list[str]) -> None:
    with pytest.raises(ValueError, match=r"at least 2 images .*, got 1; skipped .*broken.png"):
        discover(photos[1:3], lambda pairs, flipped: [flat(1)] * len(pairs))
    with pytest.raises(ValueError, match=r"at least 2 images .*, got 0"):
        discover([], lambda pairs, flipped: [flat(1)] * len(pairs))


def test_neighbours_need_descriptors(photos: list[str]) -> None:
    with pytest.raises(ValueError, match="leave them out"):
        discover(photos, lambda pairs, flipped: [flat(1)] * len(pairs), neighbours=2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"confidence": 1.0}, "confidence is 1"), ({"sigma": 0}, "sigma is 0"),
     ({"least_images": 1}, "least_images is 1"), ({"tolerance": -1}, "tolerance is -1"),
     ({"same": "sort"}, "same is 'sort'; expected thing or kind")],
)  # fmt: skip
def test_settings_that_mean_nothing(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**settings)


def test_kinds_are_looked_for_where_the_model_knows_them(tmp_path: Path) -> None:
    things, kinds = (
        load(save_model(tmp_path / "model", size=64)),
        load(save_kinds_model(tmp_path / "kinds")),
    )
    assert same_for(things, None) == "thing" == same_for(kinds, "thing")
    assert same_for(kinds, None) == "kind"
    with pytest.raises(ValueError, match="correlation matcher, which finds the very same thing"):
        same_for(things, "kind")
    assert Settings.of("thing") == Settings()
    assert Settings.of("kind", sigma=2.0).sigma == 2
    assert Settings.of("kind").tolerance > Settings.of("thing").tolerance


def test_of_things_the_masks_of_the_very_same_thing_count() -> None:
    """Where a model finds the kind and not the thing, no thing repeats."""
    planted = Planted([{"a": placed(0.1, 0.05)}, {"a": placed(0.4, 0.55)}], noise=0.1)

    def predict(pairs: list[tuple[int, int]], flipped: bool) -> list[Prediction]:
        found = planted.predict(pairs, flipped)
        return [replace(p, source_same=0 * p.source_mask, target_same=0 * p.target_mask)
                for p in found]  # fmt: skip

    pairs = all_pairs(2)
    assert match_pairs(pairs, predict, Settings()).source_mask.max() == 0
    kinds = match_pairs(pairs, predict, Settings.of("kind"))
    assert kinds.source_mask.max() > 0.5
