"""Whole pairs: the pixels follow the recorded map, and the recipes' rules hold."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from generators.composition import compose, framing
from generators.composition.compose import RejectedDraw, draw_pair, generate_pair
from generators.composition.recipe import ONE_OBJECT, TWO_OBJECTS, Look, Recipe
from generators.sources.coco import coco_index
from generators.sources.folder import folder_index
from generators.sources.index import Index, Pool
from segswap import geometry
from segswap.data.pair import Pair, PairObject, share_nothing, shown_images
from segswap.files import storage
from segswap.files.hashes import file_hash
from segswap.files.images import read_image

PASTE = Look(size=160, blends={"paste": 1.0})
# On 160 px images a margin of 20 px would join everything.
ONE = replace(ONE_OBJECT, dilation=4)
TWO = replace(TWO_OBJECTS, dilation=4)
BOTH = pytest.mark.parametrize("recipe", [ONE, TWO], ids=["one object", "two objects"])


def accepted(pool: Pool, recipe: Recipe, look: Look, count: int, seed: int = 0) -> Iterator[Pair]:
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        yield generate_pair(pool, recipe, rng, look=look, index=index, key=(0, index))


def rejections(pool: Pool, recipe: Recipe, look: Look = PASTE, draws: int = 40) -> Counter[str]:
    """How many of the draws were rejected, by reason."""
    count: Counter[str] = Counter()
    for seed in range(draws):
        try:
            draw_pair(pool, recipe, look, np.random.default_rng(seed))
        except RejectedDraw as rejection:
            count[str(rejection)] += 1
    return count


def along_the_map(pair: Pair, label: int, offset: tuple[float, float] = (0, 0)) -> float:
    """Mean difference between the target's pixels of an object and the source at their places.

    Away from the rim, where one interpolation mixes object and background. `offset`, in target
    pixels, falsifies the map.
    """
    inner = ndimage.binary_erosion(pair.target_mask == label, iterations=3)
    points = geometry.cell_centres(pair.height, pair.width) + np.array(offset) / pair.width
    smooth = cv2.GaussianBlur(pair.source, (0, 0), 0.6)
    sampled = geometry.sample(smooth, pair.to_source(points, label))
    target = cv2.GaussianBlur(pair.target, (0, 0), 0.6)
    return float(np.abs(sampled[inner].astype(float) - target[inner]).mean())


@BOTH
def test_pixels_follow_the_recorded_map(shapes_pool: Pool, recipe: Recipe) -> None:
    """Source and pasted target agree along the map, and only along it."""
    recipe = replace(recipe, ratio=(0.5, 0.9))
    for pair in accepted(shapes_pool, recipe, PASTE, 12):
        for item in pair.objects:
            exact = along_the_map(pair, item.label)
            assert exact < 9
            for x, y in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):
                assert along_the_map(pair, item.label, (x, y)) > 1.1 * exact


def test_the_identity_placement(shapes_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal masks, the identity map, and the source's own pixels."""
    monkeypatch.setattr(compose, "place", lambda *_, **__: np.eye(3))
    for pair in accepted(shapes_pool, ONE, PASTE, 6):
        np.testing.assert_array_equal(pair.source_mask, pair.target_mask)
        np.testing.assert_array_equal(pair.objects[0].target_from_source, np.eye(3))
        centres = geometry.cell_centres(30, 30)
        np.testing.assert_allclose(pair.to_target(centres, 1), centres, atol=1e-12)
        mask = pair.source_mask > 0
        # One resampling each, rounded to bytes by two of OpenCV's functions.
        assert np.abs(pair.source[mask].astype(int) - pair.target[mask]).max() <= 1


def assert_image_of(pair: Pair, label: int) -> None:
    """Each mask is the other's image under the map, to one pixel."""
    for here, there, carry in (
        (pair.source_mask, pair.target_mask, pair.to_target),
        (pair.target_mask, pair.source_mask, pair.to_source),
    ):
        near = ndimage.binary_dilation(there == label, np.ones((3, 3)))
        rows, columns = np.nonzero(here == label)
        places = carry(np.stack([columns + 0.5, rows + 0.5], axis=1) / pair.width, label)
        assert geometry.inside(places).all()
        pixels = np.minimum((places * pair.width).astype(int), pair.width - 1)
        assert near[pixels[:, 1], pixels[:, 0]].all()


@BOTH
def test_masks_agree_in_both_directions(shapes_pool: Pool, recipe: Recipe) -> None:
    for pair in accepted(shapes_pool, recipe, PASTE, 15):
        for item in pair.objects:
            assert_image_of(pair, item.label)


@pytest.mark.parametrize("seed", range(60))
def test_masks_with_thin_tips_agree(seed: int) -> None:
    """Every pixel's place lies in a pixel of the other mask, also where masks are ragged."""
    size, rng = 48, np.random.default_rng(seed)
    scale, degrees = rng.uniform(0.3, 1.4), rng.uniform(-25, 25)
    ragged = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 1.1) > 0.05
    move = geometry.translation(-0.5, -0.5)
    matrix = (
        np.linalg.inv(move) @ geometry.rotation(degrees) @ geometry.scaling(scale, scale) @ move
    )
    item = PairObject(1, matrix, None, {}, "paste")
    pasted = geometry.warp_labels(ragged.view(np.uint8), matrix, size, size)
    source, target = compose.visible(ragged.view(np.uint8), pasted, [item])
    assert source.any() == target.any()
    for here, there, carry in ((source, target, matrix), (target, source, np.linalg.inv(matrix))):
        rows, columns = np.nonzero(here)
        places = geometry.transform_points(
            carry, np.stack([columns + 0.5, rows + 0.5], axis=1) / size
        )
        assert geometry.inside(places).all()
        # OpenCV's fixed point takes a place on a pixel's edge for the next pixel's.
        shown = np.zeros(len(places), bool)
        for offset in ((x, y) for x in (-0.04, 0.04) for y in (-0.04, 0.04)):
            pixels = np.clip(places * size + offset, 0, size - 1).astype(int)
            shown |= there[pixels[:, 1], pixels[:, 0]] > 0
        assert shown.all()


@BOTH
def test_forward_then_backward_returns(shapes_pool: Pool, recipe: Recipe) -> None:
    for pair in accepted(shapes_pool, recipe, PASTE, 8):
        points = geometry.cell_centres(40, 40)
        for item in pair.objects:
            back = pair.to_source(pair.to_target(points, item.label), item.label)
            assert np.abs(back - points).max() * pair.width < 1e-6


@pytest.mark.parametrize("shift", [0, 26, 36, 40])
def test_covered_and_outside_pixels_do_not_count(shift: int) -> None:
    """What one image shows of an object and the other does not is no shared region.

    The second object covers the first in the source, and, moved by `shift` pixels, also in the
    target; the first one, moved by 32, leaves the frame in part.
    """
    shifts = {1: 32, 2: shift}
    shape = np.zeros((3, 64, 64), bool)
    shape[1, 16:48, 16:48] = True
    shape[2, 30:40, :24] = True
    source, target = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    for label, moved in shifts.items():
        source[shape[label]] = label
        target[:, moved:][shape[label][:, : 64 - moved]] = label
    objects = [
        compose.PairObject(label, geometry.translation(moved / 64, 0), None, {}, "paste")
        for label, moved in shifts.items()
    ]
    in_source, in_target = compose.visible(source, target, objects)
    expected_source, expected_target = np.zeros_like(source), np.zeros_like(target)
    for label, moved in shifts.items():
        both = (source[:, : 64 - moved] == label) & (target[:, moved:] == label)
        expected_source[:, : 64 - moved][both] = label
        expected_target[:, moved:][both] = label
    np.testing.assert_array_equal(in_source, expected_source)
    np.testing.assert_array_equal(in_target, expected_target)


@BOTH
def test_backgrounds_do_not_show_the_categories(
    shapes_pool: Pool, shapes_index: Index, recipe: Recipe
) -> None:
    names = {shapes_index.image_name(i): i for i in range(len(shapes_index))}
    for pair in accepted(shapes_pool, recipe, PASTE, 15):
        behind = names[pair.background["image"]]
        for item in pair.objects:
            assert item.segment["image"] != pair.background["image"]
            category = shapes_index.header["categories"].index(item.category)
            assert not shapes_index.shows(behind, category)
    assert rejections(shapes_pool, recipe)["background shows the category"] > 0


def test_crowds_and_small_segments_count_as_shown(
    shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    """A background may not show the category in any annotation, usable as a segment or not."""
    content = json.loads(shapes[0].read_text())
    for annotation in content["annotations"]:
        if annotation["image_id"] % 2:
            annotation["iscrowd"] = 1
        elif annotation["image_id"] == 4:
            annotation["segmentation"] = [[1, 1, 4, 1, 4, 4]]
    (tmp_path / "crowds.json").write_text(json.dumps(content))
    index, skipped = coco_index(tmp_path / "crowds.json", shapes[1], 0.01, 0.6)
    assert not skipped
    assert index.header["filtered"] == {"crowd": 8, "area": 2}
    for annotation in content["annotations"]:
        assert index.shows(annotation["image_id"], annotation["category_id"] - 1)


def test_a_folder_of_backgrounds_needs_no_category_rule(
    shapes_index: Index, shapes: tuple[Path, Path]
) -> None:
    behind, _ = folder_index(shapes[1], None, 0, 1)
    pool = Pool.of(shapes_index, np.arange(8), behind, np.arange(8))
    assert "background shows the category" not in rejections(pool, ONE)
    pair = next(accepted(pool, ONE, PASTE, 1))
    assert pair.background["dataset"] == shapes[1].name


def test_two_objects_come_from_one_image_and_differ(shapes_pool: Pool) -> None:
    for pair in accepted(shapes_pool, TWO, PASTE, 15):
        first, second = pair.objects
        assert (first.label, second.label) == (1, 2)
        assert first.segment["image"] == second.segment["image"]
        assert first.category != second.category
        for mask in (pair.source_mask, pair.target_mask):
            assert {0, 1, 2} == set(np.unique(mask))


def test_two_objects_keep_to_disjoint_boxes(shapes_pool: Pool) -> None:
    """In the target a straight line separates them, one stride wide."""
    for pair in accepted(shapes_pool, TWO, PASTE, 15):
        (top, left), (bottom, right) = (
            np.array([np.argwhere(pair.target_mask == label).min(axis=0) for label in (1, 2)]).T,
            np.array([np.argwhere(pair.target_mask == label).max(axis=0) for label in (1, 2)]).T,
        )
        gaps = (top[1] - bottom[0], top[0] - bottom[1], left[1] - right[0], left[0] - right[1])
        assert max(gaps) > compose.STRIDE


def test_overlapping_segments_are_rejected(shapes_pool: Pool) -> None:
    reasons = rejections(shapes_pool, replace(TWO, dilation=40))
    assert reasons["segments overlap"] > 0


def test_min_share(shapes_pool: Pool) -> None:
    """Below 9 of the 900 cells a pair is dropped; the share is the recipe's."""
    small = replace(ONE, ratio=(0.05, 0.5))
    assert rejections(shapes_pool, small)["shared region too small"] > 0
    for pair in accepted(shapes_pool, replace(small, min_share=0.04), PASTE, 10):
        for mask in (pair.source_mask, pair.target_mask):
            means = geometry.cell_means((mask > 0).astype(np.float32), 10, 10)
            assert np.sum(means > 0.5) >= 4


@pytest.mark.parametrize(
    ("box", "side"),
    [((10, 40, 30, 60), "left"), ((60, 40, 95, 60), "right"), ((30, 4, 60, 20), "top"),
     ((30, 60, 60, 78), "bottom")],
)  # fmt: skip
def test_crops_are_tight_on_the_nearest_side(box: tuple[int, ...], side: str) -> None:
    left, top, right, bottom = box
    mask = np.zeros((80, 100), bool)
    mask[top:bottom, left:right] = True
    image = np.arange(8000).reshape(80, 100)
    expected = {
        "left": np.s_[:, left:], "right": np.s_[:, :right],
        "top": np.s_[top:], "bottom": np.s_[:bottom],
    }  # fmt: skip
    cropped = geometry.cut(image, framing.tight([mask]))
    np.testing.assert_array_equal(cropped, image[expected[side]])


def test_the_crop_is_drawn_with_its_probability(shapes_pool: Pool) -> None:
    def at_the_edge(pair: Pair) -> bool:
        rows, columns = np.nonzero(pair.source_mask)
        # A thin tip at the cut may be lost when the mask is resized.
        return min(rows.min(), columns.min(), 159 - rows.max(), 159 - columns.max()) < 4

    always = [at_the_edge(p) for p in accepted(shapes_pool, replace(ONE, crop=1), PASTE, 15)]
    never = [at_the_edge(p) for p in accepted(shapes_pool, replace(ONE, crop=0), PASTE, 15)]
    assert all(always)
    assert not any(never)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@BOTH
def test_fits_that_keep_the_aspect_ratio(shapes_pool: Pool, recipe: Recipe, fit: str) -> None:
    look = replace(PASTE, fit=fit)
    for pair in accepted(shapes_pool, replace(recipe, crop=0.0), look, 6):
        number = int(Path(pair.background["image"]).stem)
        bars = np.s_[:18], np.s_[-18:]  # 200 x 150 becomes 160 x 120
        for rows in bars:
            for image in (pair.source, pair.target):
                assert bool(image[rows].any()) == (fit == "crop")
            assert fit == "crop" or not pair.target_mask[rows].any()
        if fit == "crop":
            whole = shapes_pool.index.image_path(number)
            middle = geometry.resize(read_image(whole)[:, 25:175], 160, 160)
            outside = ndimage.binary_dilation(pair.target_mask > 0, iterations=9)
            np.testing.assert_array_equal(pair.target[~outside], middle[~outside])
        for item in pair.objects:
            # Matrices of equal scales stay so in pixels: neither side is squashed.
            a = item.target_from_source[:2, :2]
            assert 0.6 < np.linalg.norm(a[:, 0]) / np.linalg.norm(a[:, 1]) < 1.7
            if (pair.target_mask == item.label).sum() > 400:
                assert along_the_map(pair, item.label) < 0.5 * along_the_map(
                    pair, item.label, (3.0, 0.0)
                )


@pytest.mark.parametrize("margin", [0, 1, 7, 20])
def test_dilation_is_the_published_one(margin: int) -> None:
    mask = np.zeros((90, 120), bool)
    mask[3:20, 90:118] = True
    mask[60, 40] = True
    # SciPy takes 0 iterations for as many as change something.
    expected = ndimage.binary_dilation(mask, iterations=margin) if margin else mask
    np.testing.assert_array_equal(compose._dilated(mask, margin), expected)


def test_records_say_where_everything_comes_from(shapes_pool: Pool) -> None:
    pair = next(accepted(shapes_pool, ONE, replace(PASTE, blends={"feather": 2, "paste": 1}), 1))
    item = pair.objects[0]
    assert item.segment["dataset"] == "shapes"
    assert item.segment["proposer"] == "coco"
    assert item.segment["annotation"] // 10 == int(Path(item.segment["image"]).stem)
    assert item.blend in ("feather", "paste")
    assert pair.rng == (0, 0)
    assert pair.styles == {"source": None, "target": None}


@pytest.mark.parametrize("place", ["folder", "URL"])
def test_a_photograph_is_the_same_under_another_name(
    shapes: tuple[Path, Path], shapes_index: Index, tmp_path: Path, place: str
) -> None:
    """Another dataset of the same files, in another folder and by other names."""
    content = json.loads(shapes[0].read_text())
    copies = str(tmp_path / "copies") if place == "folder" else "memory://other-names/copies"
    storage.make_folder(copies)
    for image in content["images"]:
        data = (shapes[1] / image["file_name"]).read_bytes()
        image["file_name"] = f"copy of {image['id']}.png"
        storage.write_atomically(storage.join(copies, image["file_name"]), data)
    (tmp_path / "copies.json").write_text(json.dumps(content))
    others = Pool.whole(coco_index(tmp_path / "copies.json", copies, 0.01, 0.6)[0])
    first = next(accepted(Pool.whole(shapes_index), TWO, PASTE, 1))
    again = next(accepted(others, TWO, PASTE, 1))
    assert first.objects[0].segment["image"] != again.objects[0].segment["image"]
    assert first.background["dataset"] != again.background["dataset"]
    assert shown_images(first) == shown_images(again)
    assert len(shown_images(first)[1]) == 2
    assert not share_nothing(first, again)
    names = {shapes_index.image_name(i): shapes_index.image_path(i) for i in range(8)}
    for origin in (first.objects[0].segment, first.objects[1].segment, first.background):
        assert origin["sha256"] == file_hash(names[origin["image"]])
    for pair in accepted(others, ONE, PASTE, 20):
        apart = not shown_images(first)[0] & shown_images(pair)[1]
        assert share_nothing(first, pair) == apart


def test_blends_are_drawn_by_weight(shapes_pool: Pool) -> None:
    look = replace(PASTE, blends={"paste": 3.0, "feather": 1.0})
    drawn = Counter(p.objects[0].blend for p in accepted(shapes_pool, ONE, look, 60))
    assert 30 < drawn["paste"] < 58


def test_one_seed_one_pair(shapes_pool: Pool) -> None:
    first, again = (next(accepted(shapes_pool, ONE, PASTE, 1, seed=5)) for _ in range(2))
    other = next(accepted(shapes_pool, ONE, PASTE, 1, seed=6))
    for name in ("source", "target", "source_mask", "target_mask"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.target, other.target)


def test_an_image_that_breaks_after_indexing_is_named(
    shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    """Cut short, another size, gone: each is a rejection that names the image and the reason."""
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes((shapes[1] / f"{number}.png").read_bytes())
    index, _ = coco_index(shapes[0], tmp_path, 0.01, 0.6)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "0.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").unlink()
    cv2.imwrite(str(tmp_path / "4.png"), np.zeros((100, 100, 3), np.uint8))
    pool = Pool.of(index, np.arange(8), index, np.arange(8))
    named = {}
    for seed in range(150):
        try:
            draw_pair(pool, ONE, PASTE, np.random.default_rng(seed))
        except RejectedDraw as rejection:
            if rejection.image:
                named[rejection.image["image"]] = rejection.image["reason"]
    assert "cannot be decoded" in named.pop("0.png")
    assert named == {"2.png": "missing", "4.png": "changed since it was indexed"}
