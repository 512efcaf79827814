"""Every data set's layout, on tiny trees: what is read, what it is worth, what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_benchmarks import (
    BY_COLOUR,
    HEIGHT,
    OBJECT,
    TREES,
    WIDTH,
    ByColour,
    same_place,
    write_davis,
    write_kinds,
    write_mask,
)
from made_known import SHIFT, write_sequence, write_tss
from PIL import Image

from pipelines.benchmark.base import Scores, Task
from pipelines.benchmark.sets import BENCHMARKS, places
from pipelines.benchmark.sets.retrieval import Search
from pipelines.benchmark.sets.tss import by_group
from segswap.models.prediction import Prediction


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a benchmark's tree; returns its folder."""
    return lambda name: TREES[name](tmp_path / name)


def opened(name: str, root: Path, limit: int | None = None) -> Task:
    return BENCHMARKS[name].task(root, limit)


def scores(name: str, root: Path, way: Any, limit: int | None = None) -> Scores:
    """Both passes."""
    task, folder, done = opened(name, root, limit), root.parent / "predictions" / name, []
    folder.mkdir(parents=True, exist_ok=True)
    task.export(way, folder, done.append)
    assert sum(done) == task.count
    return task.score(folder)


# --- positions -------------------------------------------------------------------------------


def test_pf_willow_measures_with_the_box_of_the_source_keypoints_that_are_there(
    tree: Callable[[str], Path],
) -> None:
    found = scores("pf-willow", tree("pf-willow"), same_place)
    # Pair 0 is right. In pair 1 all are 3 px off; the box of the seven keypoints is 26.7 px wide:
    # 1.33, 2.67 and 4 px are allowed; of the image's side on the square, 80 px here, 4, 8 and 12.
    assert found == {
        "PCK@0.05 box": 0.5, "PCK@0.10 box": 0.5, "PCK@0.15 box": 1,
        "PCK@0.05 image": 1, "PCK@0.10 image": 1, "PCK@0.15 image": 1,
    }  # fmt: skip


def test_pf_pascal_measures_with_the_annotated_box(tree: Callable[[str], Path]) -> None:
    found = scores("pf-pascal", tree("pf-pascal"), same_place)
    # 6 px off; the box is 44 px wide: 2.2, 4.4 and 6.6 px are allowed; of the image 4, 8 and 12.
    assert found == {
        "PCK@0.05 box": 0, "PCK@0.10 box": 0, "PCK@0.15 box": 1,
        "PCK@0.05 image": 0, "PCK@0.10 image": 1, "PCK@0.15 image": 1,
    }  # fmt: skip


def test_spair_measures_in_the_target_with_its_box(tree: Callable[[str], Path]) -> None:
    # 4 and 7 px off in a box of 50 px: 2.5, 5 and 7.5 px are allowed.
    found = scores("spair", tree("spair"), same_place)
    assert found == {"PCK@0.05 box": 0, "PCK@0.10 box": 0.5, "PCK@0.15 box": 1}


@pytest.mark.parametrize("flipped", [False, True])
def test_tss_measures_flow_in_both_directions(flipped: bool, tmp_path: Path) -> None:
    root = write_tss(tmp_path / "tss", flipped)
    found = scores("tss", root, same_place)
    # All of the flow is (12, -8), 14.4 px; what stays at its normalised place moves by up to 40 px.
    # Masks cover all of both images, the object 60 x 50 px of 160 x 120 and of 200 x 140.
    assert found["flow"] == found["flow cars"] < 0.5
    share = np.mean([3000 / (160 * 120), 3000 / (200 * 140)])
    assert found["P"] == pytest.approx(share)
    assert found["J"] == pytest.approx(share)
    assert 0 < found["transfer IoU"] < 1
    assert found["LT-ACC"] > 0.7


@pytest.mark.parametrize("flipped", [False, True])
def test_the_true_flow_of_tss_is_wholly_accurate(flipped: bool, tmp_path: Path) -> None:

    def true(source: np.ndarray, target: np.ndarray) -> Prediction:
        # By the pixel: mirrored or not, the object is SHIFT further in what is to be matched.
        size, other = np.array(source.shape[1::-1]), np.array(target.shape[1::-1])
        there = _pixels(size, SHIFT) / other
        back = _pixels(other, -np.array(SHIFT)) / size
        masks = [np.ones(each.shape[:2], np.float32) for each in (there, back)]
        return Prediction(there, back, *masks)

    def _pixels(size: np.ndarray, step: Any) -> np.ndarray:
        x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
        return (np.stack([x, y], axis=-1) + step).astype(np.float32)

    found = scores("tss", write_tss(tmp_path / "tss", flipped), true)
    assert found["flow"] == 1
    assert found["transfer IoU"] == 1
    assert found["LT-ACC"] == 1


def test_flow_of_tss_is_the_mean_of_its_groups_not_of_its_pairs() -> None:
    rows = [("A", {"flow": 1.0, "P": 1.0}), ("A", {"flow": 0.0, "P": 1.0}),
            ("B", {"flow": 1.0, "P": 0.4})]  # fmt: skip
    assert by_group(rows) == {
        "flow A": 0.5, "flow B": 1, "flow": 0.75, "P": pytest.approx(0.8)
    }  # fmt: skip


def test_oxford_measures_every_pair_of_a_sequence(tmp_path: Path) -> None:
    root = tmp_path / "planes"
    write_sequence(root / "wall")
    write_sequence(root / "boat")
    assert opened("oxford", root).count == 4
    assert opened("oxford", root, 3).count == 3
    found = scores("oxford", root, same_place)
    assert list(found) == ["PCK@1%", "PCK@3%", "PCK@5%"]
    assert found["PCK@5%"] < 0.5


def test_animals_are_measured_in_both_directions_with_the_box_of_each(
    tree: Callable[[str], Path],
) -> None:
    found = scores("animals", tree("animals"), same_place)
    # Cats: 4 and 7 px off, with boxes of 50 and 84 px: 2.5 and 5, 4.2 and 8.4 px are allowed. A
    # dog, with a box of 25 px, is 2 px off one cat, and 2 and 0 px off the other. The object that
    # the masks show is a quarter of the picture.
    assert found == {
        "PCK@0.05 within": 0.25, "PCK@0.10 within": 0.75, "J within": 0.25,
        "PCK@0.05 across": (0.5 + 0.75) / 2, "PCK@0.10 across": 1,
    }  # fmt: skip


def test_animals_that_are_not_held_out_are_not_scored(tree: Callable[[str], Path]) -> None:
    root = tree("animals")
    assert opened("animals", root).count == 3
    assert opened("animals", root, 2).count == 2
    (root / "heldout.txt").unlink()
    # The third cat has no keypoints.
    with pytest.raises(ValueError, match=r"cat/2\.jpg is missing"):
        opened("animals", root)


def test_wxbs_measures_points_in_both_directions(tree: Callable[[str], Path]) -> None:
    root = tree("wxbs")
    found = scores("wxbs", root, same_place)
    # 3 px off: 1.9% of 160 px in the second image, 3.8% of 80 px in the first one.
    assert found == {"points within 1%": 0.5, "points within 2%": 0.75, "points within 5%": 1}
    root.rename(root.parent / "v1.1")
    assert opened("wxbs", root.parent).count == 1


# --- rankings --------------------------------------------------------------------------------


def test_brueghel_ranks_all_but_the_querys_own_image(tree: Callable[[str], Path]) -> None:
    root = tree("brueghel")
    found = scores("brueghel", root, BY_COLOUR)
    assert found["mAP"] == 1
    # One of the four boxes of category "bird" is elsewhere: 1/2 at the least for its query, or 1/4
    # where the wrong box comes first.
    task: Any = opened("brueghel", root)
    query = task.queries[0]
    assert (query.category, query.own, query.box) == ("bird", 0, tuple(map(float, OBJECT)))
    assert list(query.truth) == [1, 2]
    assert found["detection mAP"] in (pytest.approx((0.75 + 1) / 2), pytest.approx(0.8125))


def test_a_box_beyond_the_image_is_cut_to_it(tree: Callable[[str], Path]) -> None:
    root = tree("brueghel")
    labels = json.loads((root / "brueghelTest.json").read_text())
    labels["bird"][0]["query"][1] = [-5, -3, WIDTH + 9, HEIGHT]
    (root / "brueghelTest.json").write_text(json.dumps(labels))
    asked = []

    class Noted(ByColour):
        def search(self, query: Any, among: Any = None) -> Any:
            asked.append(query.box)
            return super().search(query, among)

    scores("brueghel", root, Search(Noted, Noted), 1)
    assert asked == [(0, 0, WIDTH, HEIGHT)]


def test_tokyo_counts_places_not_views(tree: Callable[[str], Path]) -> None:
    root = tree("tokyo247")
    # The shortlists begin with eleven views of the wrong place.
    lists = np.array([[*range(12, 23), 0], [*range(11), 12], [*range(12)]])
    np.save(root / "shortlists.npy", lists)

    class AsListed(ByColour):
        def search(self, query: Any, among: Any = None) -> Any:
            order = {number: rank for rank, number in enumerate(among)}
            return sorted(super().search(query, among), key=lambda hit: order[hit.number])

    # A query of three has no place; the two others' is second.
    found = scores("tokyo247", root, Search(AsListed, None))
    assert found == pytest.approx({"R@1": 0, "R@5": 2 / 3, "R@10": 2 / 3})


def test_shortlists_are_ranked_again(tree: Callable[[str], Path]) -> None:
    root = tree("tokyo247")
    np.save(root / "shortlists.npy", np.array([[23, 5], [5, 23], [0, 1]]))
    assert scores("tokyo247", root, BY_COLOUR)["R@1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", ["numbers", "scores", "text"])
def test_shortlists_of_every_form_say_what_is_ranked(
    kind: str, tree: Callable[[str], Path]
) -> None:
    root = tree("pitts30k")
    if kind == "numbers":
        np.save(root / "shortlists.npy", np.array([[2, 1], [1, 0]]))
    elif kind == "scores":
        values = np.array([[0.0, 0.5, 0.9, 0.1], [0.8, 0.9, 0.1, 0.0]])
        np.save(root / "top100_patchVlad.npy", values)
    else:
        names = [f"{number:03d}/{number:06d}_pitch1_yaw1.jpg" for number in range(3)]
        lines = f"{names[2]} {names[1]}\n{names[1]} {names[0]}\n"
        (root / "shortlists.txt").write_text(lines)
    task: Any = opened("pitts30k", root)
    among = [list(query.among)[:2] for query in task.queries]
    assert among == [[2, 1], [1, 0]]


def test_without_shortlists_the_whole_of_a_small_database_is_ranked(
    tree: Callable[[str], Path],
) -> None:
    assert scores("pitts30k", tree("pitts30k"), BY_COLOUR) == {"R@1": 1, "R@5": 1, "R@10": 1}


def test_a_large_database_is_shortlisted_first(
    tree: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("tokyo247")
    monkeypatch.setattr(places, "_RERANKED", 5)
    seen = []

    class Noted(ByColour):
        def search(self, query: Any, among: Any = None) -> Any:
            seen.append(len(among))
            return super().search(query, among)

    assert scores("tokyo247", root, Search(Noted, ByColour))["R@1"] == pytest.approx(2 / 3)
    assert seen == [5, 5, 5]
    task, folder = opened("tokyo247", root), root.parent / "more"
    with pytest.raises(ValueError, match="a --model that makes them"):
        task.export(Search(ByColour, None), folder, seen.append)


@pytest.mark.parametrize(
    "folders", [("images", "masks"), ("JPEGImages/480p", "Annotations/480p")]
)  # fmt: skip
def test_davis_asks_for_the_first_frames_object_in_all_other_frames(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    root = write_davis(tmp_path / "davis", folders)
    task: Any = opened("davis-retrieval", root)
    assert [path.parent.name for path in task.images] == ["camel"] * 2 + ["goat"] * 2
    assert "00000.jpg" not in {path.name for path in task.images}
    assert [query.box for query in task.queries] == [tuple(map(float, OBJECT))] * 2
    assert scores("davis-retrieval", root, BY_COLOUR) == {"mAP": 1, "detection mAP": 1, "J": 1}


# --- masks -----------------------------------------------------------------------------------


def test_internet_scores_each_class_and_their_mean(tree: Callable[[str], Path]) -> None:
    asked = []

    def halves(images: list[str], sigma: float | None) -> list[np.ndarray | None]:
        """The left half of the first image, nothing in the second."""
        asked.append((Path(images[0]).parent.name, sigma))
        half = np.zeros((HEIGHT, WIDTH), bool)
        half[:, : WIDTH // 2] = True
        return [half, None]

    found = scores("internet", tree("internet"), halves)
    assert asked == [("Airplane100", 0.8), ("Car100", 5.0), ("Horse100", 1.2)]
    # The object is 40 x 30 of 80 x 60 px, half of it on the left: P is 1 - (1800 + 600) / 4800, and
    # J 600 / 3000, of the first image; of the second one 1 - 1200 / 4800 and 0, or, of the empty
    # mask, 1 and none.
    assert found["P Airplane"] == pytest.approx((0.5 + 1) / 2)
    assert found["J Airplane"] == pytest.approx(0.2)
    assert found["P Car"] == found["P Horse"] == pytest.approx((0.5 + 0.75) / 2)
    assert found["J Car"] == found["J Horse"] == pytest.approx(0.1)
    assert found["P"] == pytest.approx((0.75 + 2 * 0.625) / 3)
    assert found["J"] == pytest.approx((0.2 + 2 * 0.1) / 3)


def test_coseg_takes_every_class_there_is(tree: Callable[[str], Path]) -> None:
    found = scores("coseg", tree("coseg"), lambda images, sigma: [None] * len(images), 2)
    assert found == {"P Bus": 0.75, "J Bus": 0, "P": 0.75, "J": 0}


def test_cosegmentation_scores_both_masks_and_what_positions_carry_over(tmp_path: Path) -> None:
    root = write_kinds(tmp_path / "data", Bus=2)
    write_mask(root / "masks" / "Bus" / "1.png", (20, 10, 60, 25))

    def halves(source: np.ndarray, target: np.ndarray) -> Prediction:
        """The left half of both; everything at its own place."""
        found = same_place(source, target)
        half = np.zeros_like(found.source_mask)
        half[:, :8] = 1
        return replace(found, source_mask=half, target_mask=half)

    # The objects are 40 x 30 and 40 x 15 of 80 x 60 px, half of each on the left.
    assert scores("cosegmentation", root, halves) == pytest.approx({
        "P": np.mean([1 - (600 + 1800) / 4800, 1 - (300 + 2100) / 4800]),
        "J": np.mean([600 / 3000, 300 / 2700]), "transfer IoU": 0.5,
    })  # fmt: skip


def test_cosegmentation_finds_area_where_classes_share_nothing(tree: Callable[[str], Path]) -> None:
    root = tree("cosegmentation")
    assert opened("cosegmentation", root).count == 9
    asked = []

    def noted(source: np.ndarray, target: np.ndarray) -> Prediction:
        """All of the source, nothing of the target."""
        asked.append((source, target))
        found = same_place(source, target)
        return replace(found, target_mask=0 * found.target_mask)

    found = scores("cosegmentation", root, noted)
    assert found["false area"] == 0.5
    assert found["J"] == 0.25 / 2
    shutil.rmtree(root / "images" / "Cat")
    assert "false area" not in scores("cosegmentation", root, same_place, 4)


@pytest.mark.parametrize(
    ("name", "mask", "way"),
    [
        ("coseg", "Bus/img_1.png", lambda images, sigma: [None] * len(images)),
        ("cosegmentation", "Bus/1.png", same_place), ("animals", "cat/1.png", same_place),
    ],
)  # fmt: skip
def test_a_mask_of_another_size_than_its_image_is_named(
    name: str, mask: str, way: Any, tree: Callable[[str], Path]
) -> None:
    root = tree(name)
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(root / "masks" / mask)
    with pytest.raises(ValueError, match=rf"{Path(mask).name} is \(50, 50\)"):
        scores(name, root, way)
