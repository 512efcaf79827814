"""What samples of kinds tell: of two pictures, of one with itself, of two kinds, of crowds."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from made_kinds import BOX, HEIGHT, WIDTH, write_coco, write_folder, write_picture
from true_grids import colour_difference

from segswap.batches import categories, pictures
from segswap.batches.categories import CategoryStream
from segswap.batches.pictures import read_pictures
from segswap.data.truth import GridTruth
from segswap.matchers.base import Batch, BatchSide

SIZE, STRIDE = 96, 8


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write_folder(tmp_path / "kinds", {"cat": [0, 1, 2], "dog": [3, 4]})


def stream_of(source: str, **changes: Any) -> CategoryStream:
    return CategoryStream(read_pictures(source), **({"size": SIZE, "stride": STRIDE} | changes))


def alone(item: Batch) -> bool:
    return torch.equal(item.source.shown, item.target.shown)


def across(item: Batch) -> bool:
    """Whether no kind is known to be in both."""
    return not ((item.source.labels == 1) & (item.target.labels == 1)).any()


def only(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples are of pictures with themselves, or across kinds, or share nothing, or are of two
    pictures of one kind.
    """
    monkeypatch.setattr(categories, "_ALONE", float(what == "alone"))
    monkeypatch.setattr(categories, "_ACROSS", float(what == "across"))
    monkeypatch.setattr(categories, "_NOTHING", float(what == "nothing"))


def test_some_samples_are_of_one_picture_and_a_quarter_of_two_kinds(folder: str) -> None:
    stream = stream_of(folder)
    items = [stream[number] for number in range(300)]
    assert 0.1 < np.mean([alone(item) for item in items]) < 0.2
    assert 0.19 < np.mean([across(item) for item in items]) < 0.31
    assert not any(alone(item) and across(item) for item in items)
    names = [stream.name(number) for number in range(300)]
    assert [" with itself (" in name for name in names] == [alone(item) for item in items]
    assert [name.count(" and ") == 2 for name in names] == [across(item) for item in items]
    plain = stream_of(folder, augment=False)
    items = [plain[number] for number in range(60)]
    assert not any(alone(item) or across(item) for item in items)


def test_a_picture_with_itself_tells_where_the_very_same_is(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("alone", monkeypatch)
    monkeypatch.setattr(categories, "photometric", lambda image, *_: image)
    stream = stream_of(folder, mask_stride=4)
    for number in range(20):
        item = stream[number]
        images = [np.ascontiguousarray(side.image.permute(1, 2, 0).numpy()) for side in item]
        for side, own, other in zip(item, images, images[::-1], strict=True):
            truth = GridTruth(side.same.numpy(), side.positions.numpy(), side.valid.numpy())
            exact = colour_difference(own, other, truth, 0)
            assert exact < 8
            assert colour_difference(own, other, truth, STRIDE / SIZE) > 2 * exact
            assert side.valid[side.same == 1].all()
            assert not side.valid[side.same == 0].any()
        # The mask is the kind's, in both views whole.
        for side in item:
            assert 0.9 < float(side.mask.max()) <= 1
            assert float(side.mask.mean()) < float(side.same.mean())
        both = item.source.seen & item.target.seen
        assert both.any()


def test_keypoints_of_a_picture_with_itself_lie_where_the_positions_say(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("alone", monkeypatch)
    stream = stream_of(folder, stride=2)
    told = 0
    for number in range(20):
        item = stream[number]
        for side, other in ((item.source, item.target), (item.target, item.source)):
            for point, there in zip(
                side.keypoints[side.seen & other.seen], other.keypoints[side.seen & other.seen],
                strict=True,
            ):  # fmt: skip
                column, row = (point * SIZE // 2).long().tolist()
                if side.valid[row, column]:
                    told += 1
                    assert (side.positions[row, column] - there).abs().max() < 0.05
    assert told > 60


def test_of_two_kinds_keypoints_alone_are_known(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("across", monkeypatch)
    stream = stream_of(folder)
    cropped = 0
    for number in range(30):
        item = stream[number]
        assert across(item)
        for side in item:
            assert side.mask.isnan().all()
            assert not side.same.any()
            assert not side.valid.any()
            eyes = side.keypoints[:2]
            # They are a third of the picture apart.
            cropped += bool(side.seen[:2].all() and (eyes[0] - eyes[1]).abs().max() > 0.4)
        assert (item.source.seen & item.target.seen).sum() >= 2
    assert cropped > 10
    assert stream.truth == stream[0].truth


def test_without_keypoints_of_two_kinds_all_samples_are_of_one_kind(
    folder: str, tmp_path: Path
) -> None:
    bare = write_folder(tmp_path / "bare", {"cat": [0, 1], "dog": [3, 4]}, keypoints=False)
    stream = stream_of(bare)
    assert not any(across(stream[number]) for number in range(60))
    # COCO's cats alone have keypoints.
    coco = stream_of(write_coco(tmp_path / "coco"))
    assert not any(side.mask.isnan().any() for number in range(60) for side in coco[number])
    path = Path(folder) / "keypoints.json"
    content = json.loads(path.read_text())
    for name, entry in content["images"].items():
        if name.startswith("dog"):
            entry["points"] = [None] * 3
    path.write_text(json.dumps(content))
    stream = stream_of(folder)
    assert not any(across(stream[number]) for number in range(60))


def test_a_quarter_of_the_pairs_share_nothing_where_all_kinds_are_known(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(write_coco(tmp_path / "coco"))
    items = [stream[number] for number in range(300)]
    nothing = [item for item in items if across(item)]
    # A picture of both a cat and a dog shares something with every other one.
    assert 0.1 < len(nothing) / len(items) < 0.27
    for number, item in enumerate(items):
        assert across(item) == ("(nothing)" in stream.name(number))
        assert across(item) == bool(Batch(*map(batched, item)).unrelated().any())
    for side in (side for item in nothing for side in item):
        assert not side.mask.any()
        assert not side.same.any()
        assert not side.seen.any()
    only("nothing", monkeypatch)
    incomplete = stream_of(folder)
    assert not any(across(incomplete[number]) for number in range(30))


def test_of_pairs_that_share_nothing_a_bad_picture_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("nothing", monkeypatch)
    source = write_coco(tmp_path)
    found = read_pictures(source)
    Path(found.pictures[0].path).write_bytes(b"no picture")
    stream = CategoryStream(found, size=SIZE, stride=STRIDE, skip_bad=True)
    shown = {int(side.shown[0]) for number in range(40) for side in stream[number]}
    assert len(shown) == 3
    assert "0.png" in " ".join(stream.skipped.values())


def batched(side: BatchSide) -> BatchSide:
    return side._make(None if value is None else value[None] for value in side)


def test_two_pictures_show_nothing_that_is_the_very_same(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("neither", monkeypatch)
    stream = stream_of(folder)
    for number in range(10):
        for side in stream[number]:
            assert side.same.shape == (SIZE // STRIDE, SIZE // STRIDE)
            assert not side.same.any()
            assert not side.valid.any()
            assert side.mask.max() > 0


def test_a_picture_made_smaller_stands_on_its_mean_colour(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("neither", monkeypatch)
    monkeypatch.setattr(categories, "photometric", lambda image, *_: image)
    monkeypatch.setattr(categories, "_CROPPED", 0.0)
    monkeypatch.setattr(categories, "_SMALLER", 1.0)
    stream = stream_of(folder)
    share = (BOX[2] - BOX[0]) * (BOX[3] - BOX[1]) / (WIDTH * HEIGHT)
    areas = []
    for number in range(20):
        for side in stream[number]:
            assert side.seen.all()
            image = side.image.permute(1, 2, 0).numpy()
            for (x, y), channels in zip(
                (side.keypoints * SIZE).long().tolist(), ((0, 1), (0, 1), (2,)), strict=True
            ):
                assert image[y, x].argmax() in channels
            areas.append(float(side.mask.mean()))
            # Rows or columns of one colour.
            assert min(image.std(axis=(0, 2)).min(), image.std(axis=(1, 2)).min()) < 25
    assert max(areas) < share
    assert min(areas) < 0.5 * share
    assert min(areas) > 0.24 * share


def test_where_a_crowd_is_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only("neither", monkeypatch)
    source = write_coco(tmp_path)
    path = Path(source.split(":")[0])
    content = json.loads(path.read_text())
    x0, y0, _, y1 = BOX
    crowd = [0, y0, x0 + 15, y0, x0 + 15, y1, 0, y1]  # from the left edge into the mask
    content["annotations"].append(
        {"id": 99, "image_id": 0, "category_id": 1, "segmentation": [crowd], "iscrowd": 1}
    )
    path.write_text(json.dumps(content))
    found = read_pictures(source)
    mask = found.pictures[0].mask(0, (HEIGHT, WIDTH))
    unknown = found.pictures[0].unknown(0, mask)
    assert not (mask & unknown).any()
    assert unknown[y0 + 5, 5]
    assert not unknown[y0 + 5, x0 + 20]
    stream = stream_of(source, augment=False)
    sides = [side for number in range(20) for side in stream[number]]
    told = [side.mask for side in sides if side.mask.isnan().any()]
    assert told
    assert len(told) < len(sides)
    rows, columns = SIZE // STRIDE, SIZE // STRIDE
    for grid in told:
        row = int((y0 + y1) / 2 / HEIGHT * rows)
        assert grid[row].isnan().tolist() == [n < x0 / WIDTH * columns for n in range(columns)]
        assert float(grid.nan_to_num().max()) == pytest.approx(1)


def test_a_picture_without_a_mask_is_unknown_where_others_have_one(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("neither", monkeypatch)
    (Path(folder) / "masks" / "dog" / "3.png").unlink()
    stream = stream_of(folder)
    assert "mask" in stream.truth
    unknown = [side.mask.isnan().float().mean().item()
               for number in range(40) for side in stream[number]]  # fmt: skip
    assert set(unknown) == {0.0, 1.0}


def test_held_out_pictures_are_not_trained_on_whatever_their_name_or_kind(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "kinds", {"cat": [0, 1, 2, 5], "sofa": [2, 3, 4]})
    (tmp_path / "kinds" / "heldout.txt").write_text("cat/2.png\ncat/0.png\n\n")
    found = read_pictures(source)
    assert [Path(p.path).name for p in found.held_out] == ["0.png", "2.png"]
    assert [p.labels.tolist() for p in found.held_out] == [[1, -1], [1, 1]]
    trained = {Path(p.path).name for p in found.pictures}
    assert trained == {"1.png", "3.png", "4.png", "5.png"}
    (tmp_path / "kinds" / "heldout.txt").write_text("cat/20.png\n")
    with pytest.raises(ValueError, match=r"heldout\.txt lists cat/20\.png, which is not there"):
        read_pictures(source)
    (tmp_path / "kinds" / "heldout.txt").write_text("cat/1.png\ncat/5.png\nsofa/2.png\nsofa/3.png")
    with pytest.raises(ValueError, match="2 pictures, beside 4 held out, of 2 kinds, and no two"):
        read_pictures(source)


def test_keypoints_that_cannot_be_used_cost_their_picture_alone(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(folder) / "keypoints.json"
    content = json.loads(path.read_text())
    content["images"]["cat/1.png"]["points"] = [[1.0, 2.0]]
    path.write_text(json.dumps(content))
    assert len(read_pictures(folder, skip_bad=True).pictures) == 4
    assert "cat/1.png has 1 keypoints; expected 3" in capsys.readouterr().err
    source = write_coco(tmp_path / "coco")
    path = Path(source.split(":")[0])
    content = json.loads(path.read_text())
    content["annotations"][1]["keypoints"] = [1, 2, 2] * 4
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1\.png has 4 keypoints; expected 3"):
        read_pictures(source)
    assert len(read_pictures(source, skip_bad=True).pictures) == 3
    assert "1.png has 4 keypoints" in capsys.readouterr().err


def test_a_person_without_a_keypoint_in_sight_leaves_the_next_ones(tmp_path: Path) -> None:
    source = write_coco(tmp_path)
    path = Path(source.split(":")[0])
    content = json.loads(path.read_text())
    unseen = {**content["annotations"][0], "id": 98, "keypoints": [0] * 9}
    content["annotations"].insert(0, unseen)
    path.write_text(json.dumps(content))
    assert read_pictures(source).pictures[0].shows_points(0)


def test_content_is_hashed_once_while_it_stays(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    original = pictures.file_hash
    monkeypatch.setattr(pictures, "file_hash", lambda path: hashed.append(path) or original(path))
    pictures._hashed.cache_clear()
    first = read_pictures(folder)
    assert len(hashed) == 5
    assert [p.key for p in read_pictures(folder).pictures] == [p.key for p in first.pictures]
    assert len(hashed) == 5
    write_picture(Path(folder) / "images" / "cat" / "0.png", 9)
    assert read_pictures(folder).pictures[0].key != first.pictures[0].key
    assert len(hashed) == 6


def test_light_changes_strongly_where_asked(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        categories, "photometric", lambda image, _, strong: asked.append(strong) or image
    )
    stream_of(folder)[0]
    stream_of(folder, strong=True)[0]
    assert asked == [False, False, True, True]


@pytest.mark.parametrize("what", ["mask", "image"])
def test_a_bad_picture_costs_itself_alone_across_kinds_too(
    what: str, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only("across", monkeypatch)
    if what == "mask":
        cv2.imwrite(str(Path(folder) / "masks" / "dog" / "3.png"), np.ones((40, 60), np.uint8))
    else:
        (Path(folder) / "images" / "dog" / "3.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"3\.png"):
        list(stream_of(folder).batches(4, 0, 5))
    assert len(list(stream_of(folder, skip_bad=True).batches(4, 0, 5))) == 5
    assert "3.png" in capsys.readouterr().err
    for number in (3, 4):
        path = Path(folder) / "images" / "dog" / f"{number}.png"
        path.write_bytes(f"no picture {number}".encode())
    stream = stream_of(folder, skip_bad=True)
    with pytest.raises(ValueError, match=r"no pictures of dog can be read: .*\.png"):
        stream[0]
