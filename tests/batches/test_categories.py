"""Pairs of pictures of one kind: what is read of folders and of COCO, and what samples hold."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from made_kinds import BOX, HEIGHT, NAMES, WIDTH, write_coco, write_folder, write_picture
from made_matches import same_batch

from segswap.batches import categories
from segswap.batches.categories import CategoryStream
from segswap.batches.picture import Pictures, pictures_hash
from segswap.batches.pictures import read_pictures

SIZE, STRIDE = 96, 8


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write_folder(tmp_path / "kinds", {"cat": [0, 1, 2], "dog": [3, 4]})


@pytest.fixture
def coco(tmp_path: Path) -> str:
    """Four pictures: two of a cat, one of a dog, one of both; a further one is listed and gone."""
    return write_coco(tmp_path)


@pytest.fixture
def one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample is of two pictures of one kind."""
    monkeypatch.setattr(categories, "_ALONE", 0)
    monkeypatch.setattr(categories, "_ACROSS", 0)
    monkeypatch.setattr(categories, "_NOTHING", 0)


def stream_of(pictures: Pictures, **changes: Any) -> CategoryStream:
    return CategoryStream(pictures, **({"size": SIZE, "stride": STRIDE} | changes))


def test_a_folder_a_kind_does_not_say_what_else_its_pictures_show(folder: str) -> None:
    found = read_pictures(folder)
    assert found.kinds == ("cat", "dog")
    assert found.truth == {"pair", "label", "mask", "keypoints"}
    assert [p.labels.tolist() for p in found.pictures] == [[1, -1]] * 3 + [[-1, 1]] * 2


def test_a_picture_in_two_folders_is_one_of_both_kinds(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "kinds", {"cat": [0, 1], "sofa": [1, 2]})
    found = read_pictures(source)
    assert [p.labels.tolist() for p in found.pictures] == [[1, -1], [1, 1], [-1, 1]]
    assert set(found.pictures[1].masks) == {0, 1}


def test_coco_lists_all_kinds_that_a_picture_shows(coco: str) -> None:
    found = read_pictures(coco)
    assert found.kinds == ("cat", "dog", "boat")
    assert found.keypoints == tuple(NAMES)
    assert [p.labels.tolist() for p in found.pictures] == [
        [1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]
    ]  # fmt: skip
    mask = found.pictures[0].mask(0, (HEIGHT, WIDTH))
    assert mask is not None
    assert mask[BOX[1] + 1 : BOX[3] - 1, BOX[0] + 1 : BOX[2] - 1].all()
    assert mask.sum() == pytest.approx((BOX[2] - BOX[0]) * (BOX[3] - BOX[1]), rel=0.05)
    # The centre of pixel x is at x + 0.5.
    assert found.pictures[0].points[0][0] == pytest.approx([40.5 / WIDTH, 30.5 / HEIGHT])


def test_both_pictures_show_the_kind_and_are_two(folder: str, one_kind: None) -> None:
    found = read_pictures(folder)
    stream = stream_of(found)
    seen = set()
    for number in range(40):
        item = stream[number]
        shown = [side.labels.tolist() for side in item]
        assert any(a == b == 1 for a, b in zip(*shown, strict=True))
        assert item.source.shown[0] != item.target.shown[0]
        seen.add(frozenset(side.shown[0].item() for side in item))
    assert len(seen) == 4  # three pairs of cats, one of dogs


def test_keypoints_stay_on_what_they_name(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirrored, an animal's left eye is where its right one seems to be: the names change places,
    and so do the colours of the discs in this test.
    """
    monkeypatch.setattr(categories, "photometric", lambda image, *_: image)
    stream = stream_of(read_pictures(folder))
    swapped, upright = 0, 0
    for number in range(40):
        for side in stream[number]:
            places = (side.keypoints * SIZE).long().clamp(0, SIZE - 1)
            colours = [side.image[:, y, x].argmax().item() for x, y in places.tolist()]
            told = [colour for colour, seen in zip(colours, side.seen, strict=True) if seen]
            expected = [n for n, seen in enumerate(side.seen) if seen]
            mirrored = [(1, 0, 2)[n] for n in expected]
            assert told in (expected, mirrored)
            swapped += told == mirrored != expected
            upright += told == expected != mirrored
    assert swapped > 15
    assert upright > 15


def test_masks_are_the_kinds_and_finer_where_asked(folder: str) -> None:
    found = read_pictures(folder)
    plain = stream_of(found, augment=False)[0].source
    share = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1]) / (WIDTH * HEIGHT)
    assert plain.mask.shape == (SIZE // STRIDE, SIZE // STRIDE)
    assert float(plain.mask.mean()) == pytest.approx(share, abs=1e-4)
    fine = stream_of(found, augment=False, mask_stride=4)[0].source
    assert fine.mask.shape == (SIZE // 4, SIZE // 4)
    assert float(fine.mask.mean()) == pytest.approx(share, abs=1e-4)


def test_samples_repeat_and_loaders_change_none(folder: str) -> None:
    found = read_pictures(folder)
    alone = list(stream_of(found, seed=1).batches(2, 0, 3))
    shared = list(stream_of(found, seed=1, workers=2).batches(2, 0, 3))
    assert all(same_batch(a, b) for a, b in zip(alone, shared, strict=True))
    assert not same_batch(alone[0], next(stream_of(found, seed=2).batches(2, 0, 1)))
    assert alone[0].truth == {"pair", "label", "mask", "keypoints", "same", "positions"}


def test_complete_labels_alone_tell_that_two_pictures_share_no_kind(
    folder: str, coco: str, one_kind: None
) -> None:
    for source, expected in ((folder, False), (coco, True)):
        batches = stream_of(read_pictures(source)).batches(4, 0, 12)
        unrelated = torch.stack([batch.unrelated() for batch in batches])
        assert bool(unrelated.any()) == expected
        assert not unrelated.diagonal(dim1=1, dim2=2).any()


def test_the_mask_is_of_all_kinds_that_both_pictures_show(tmp_path: Path, one_kind: None) -> None:
    source = write_folder(tmp_path / "kinds", {"cat": [0, 1], "sofa": [0, 1, 2]})
    sofa = np.zeros((HEIGHT, WIDTH), np.uint8)
    sofa[70:, :] = 255
    for number in range(2):
        cv2.imwrite(f"{source}/masks/sofa/{number}.png", sofa)
    stream = stream_of(read_pictures(source), augment=False)
    one = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1]) / (HEIGHT * WIDTH)
    areas: dict[frozenset[int], set[float]] = {}
    for number in range(24):
        batch, name = stream[number], stream.name(number)
        shown = frozenset(n for n in range(3) if f"{n}.png" in name)
        found = {round(float(side.mask.mean()), 4) for side in batch}
        areas.setdefault(shown, set()).update(found)
    assert areas[frozenset({0, 1})] == {round(one + 10 / HEIGHT, 4)}  # a cat and a sofa each
    assert areas[frozenset({0, 2})] == {round(one, 4), round(10 / HEIGHT, 4)}  # sofas alone


def test_without_masks_or_keypoints_there_is_still_the_pair(tmp_path: Path) -> None:
    for number in range(2):
        write_picture(tmp_path / "kinds" / "cat" / f"{number}.png", number)
    found = read_pictures(str(tmp_path / "kinds"))
    assert found.truth == {"pair", "label"}
    stream = stream_of(found)
    assert stream.truth == {"pair", "label", "same", "positions"}
    assert next(stream.batches(2, 0, 1)).truth == stream.truth
    plain = stream_of(found, augment=False)
    assert next(plain.batches(2, 0, 1)).truth == plain.truth == {"pair", "label", "same"}


def test_a_picture_that_cannot_be_read_is_named_or_passed_over(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_pictures(folder)
    (Path(folder) / "images" / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"0\.png"):
        list(stream_of(found, workers=1).batches(4, 0, 20))
    assert len(list(stream_of(found, skip_bad=True).batches(4, 0, 10))) == 10
    assert "0.png" in capsys.readouterr().err


def test_what_was_passed_over_before_changes_no_sample(folder: str, one_kind: None) -> None:
    found = read_pictures(folder)
    (Path(folder) / "images" / "cat" / "0.png").write_bytes(b"no picture")
    used = stream_of(found, skip_bad=True)
    items = [used[number] for number in range(30)]
    for number in (29, 3, 17):
        assert same_batch(stream_of(found, skip_bad=True)[number], items[number])
    assert all(item.source.shown[0] != item.target.shown[0] for item in items)
    (Path(folder) / "images" / "dog" / "3.png").write_bytes(b"no picture")
    # Whichever of the two dogs comes first.
    fresh = stream_of(found, skip_bad=True)
    dogs = [number for number in range(30) if "(dog)" in fresh.name(number)]
    assert {fresh.name(number) for number in dogs} > {fresh.name(dogs[0])}
    for number in dogs:
        with pytest.raises(ValueError, match=r"fewer than two pictures of dog .*3\.png"):
            stream_of(found, skip_bad=True)[number]


def test_a_mask_of_another_size_is_refused(folder: str) -> None:
    found = read_pictures(folder)
    cv2.imwrite(str(Path(folder) / "masks" / "dog" / "3.png"), np.ones((40, 60), np.uint8))
    with pytest.raises(ValueError, match=r"3\.png is 60 x 40 px.*120 x 80"):
        list(stream_of(found).batches(4, 0, 20))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[1.0, 2.0]], "has 1 keypoints; expected 3"), ([[1], [2], [3]], "cannot be read"),
        ("nose", "cannot be read"),
    ],
)  # fmt: skip
def test_keypoints_of_another_count_or_form_are_refused(
    points: Any, message: str, folder: str
) -> None:
    path = Path(folder) / "keypoints.json"
    content = json.loads(path.read_text())
    content["images"]["dog/3.png"]["points"] = points
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"3\.png.*{message}|{message}"):
        read_pictures(folder)


def test_keypoints_outside_of_the_picture_are_not_seen(folder: str) -> None:
    path = Path(folder) / "keypoints.json"
    content = json.loads(path.read_text())
    content["images"]["dog/3.png"]["points"] = [[-5.0, 10.0], None, [60.0, 50.0]]
    path.write_text(json.dumps(content))
    stream = stream_of(read_pictures(folder), augment=False)
    sides = [side for number in range(20) for side in stream[number]]
    assert {int(side.seen.sum()) for side in sides} == {1, 3}
    assert all(side.keypoints.isfinite().all() for side in sides)


@pytest.mark.parametrize("what", ["missing", "empty", "alone", "json"])
def test_what_holds_no_pair_is_refused(what: str, tmp_path: Path) -> None:
    source = tmp_path / "kinds"
    if what == "alone":
        write_picture(source / "cat" / "0.png", 0)
        write_picture(source / "dog" / "1.png", 1)
    elif what != "missing":
        source.mkdir()
    if what == "json":
        (source / "instances.json").write_text("{}")
    name = f"{source / 'instances.json'}:{source}" if what == "json" else str(source)
    with pytest.raises(ValueError, match=r"expected a folder|expected a COCO instances JSON"):
        read_pictures(name)


def test_a_source_is_known_by_its_content(folder: str) -> None:
    before = pictures_hash(read_pictures(folder))
    assert pictures_hash(read_pictures(folder)) == before
    write_picture(Path(folder) / "images" / "cat" / "2.png", 77)
    changed = pictures_hash(read_pictures(folder))
    assert changed != before
    (Path(folder) / "heldout.txt").write_text("cat/2.png\n")
    assert pictures_hash(read_pictures(folder)) not in (before, changed)


def test_real_animals_have_masks_and_keypoints(data: Path) -> None:
    if not (data / "animals").is_dir():
        pytest.skip(f"{data} has no animals")
    found = read_pictures(str(data / "animals"))
    assert len(found.kinds) == 5
    assert found.truth == {"pair", "label", "mask", "keypoints"}
    batch = next(stream_of(found, size=128, augment=False).batches(4, 0, 1))
    assert (batch.source.seen & batch.target.seen).sum(1).min() > 0
    assert float(batch.source.mask.mean()) > 0.05
