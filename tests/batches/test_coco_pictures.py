"""Category pairs from COCO files of which a part is wrong, by the rules of generated pairs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_kinds import BOX, HEIGHT, WIDTH, write_coco
from PIL import Image

from segswap.batches.held_out import _view
from segswap.batches.pictures import read_pictures

Content = dict[str, Any]


def changed(folder: Path, change: Callable[[Content], object]) -> str:
    """A source of four pictures, and what is changed in its file."""
    source = write_coco(folder)
    path = Path(source.split(":")[0])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return source


def of_image(number: int, **changes: Any) -> Callable[[Content], object]:
    return lambda content: content["images"][number].update(changes)


def of_annotation(number: int, **changes: Any) -> Callable[[Content], object]:
    return lambda content: content["annotations"][number].update(changes)


WRONG: dict[str, tuple[Callable[[Content], object], str, set[int]]] = {
    "id of another": (of_image(1, id=0), "0.png: its id 0 is that of 1.png, too", {0, 1}),
    "no width": (of_image(1, width=None), r"images\[1\] has no valid 'width'", {1}),
    "a loop": (of_image(1, file_name="loop.png"), "loop.png: is a link that leads back", {1}),
    "a pipe": (of_image(1, file_name="pipe.png"), "pipe.png: is a pipe, not an image", {1}),
    "outside": (of_image(1, file_name="../1.png"), "outside the folder of the images", {1}),
    "half": (of_image(1, file_name="\ud800"), "has a name that no file can have", {1}),
    "category": (of_annotation(1, category_id=9), "1: its category_id 9 is none of the", {1}),
    "crowd": (of_annotation(1, iscrowd="x"), "annotation 1: its iscrowd is 'x'", {1}),
    "keypoints": (of_annotation(1, keypoints=["a"] * 9), "the keypoints of .* cannot be read", {1}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_costs_its_picture_alone(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, said, lost = WRONG[what]
    source = changed(tmp_path, change)
    (tmp_path / "photos" / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "photos" / "pipe.png")
    with pytest.raises(ValueError, match=said):
        read_pictures(source)
    found = read_pictures(source, skip_bad=True)
    assert {Path(one.path).name for one in found.pictures} == {
        f"{number}.png" for number in range(4) if number not in lost
    }
    assert "skipped: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda c: c.update(images=None), "instances.json: 'images' is null, not a list"),
     (lambda c: c.update(licenses=5), "instances.json: 'licenses' is an integer, not a list"),
     (lambda c: c["categories"].append({"id": 4}), r"categories\[3\] has no valid 'name'"),
     (lambda c: c["categories"][0].update(keypoints="nose"), r"categories\[0\] has no valid 'key")],
)  # fmt: skip
def test_files_that_are_none(
    change: Callable[[Content], object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read_pictures(changed(tmp_path, change), skip_bad=True)


def test_what_can_be_used_is_used_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(content: Content) -> None:
        content["images"].append({**content["images"][1], "id": 50, "file_name": "./1.png"})
        content["annotations"].append(
            {"id": 0, "image_id": 50, "category_id": 4, "segmentation": [[0, 0, 9, 0, 9, 9], [3]]}
        )
        content["annotations"].append({**content["annotations"][0], "image_id": 999})
        content["annotations"][-2]["segmentation"][1] = [3, 3]
        content["categories"].append({"id": 4, "name": "Dog"})

    found = read_pictures(changed(tmp_path, change))
    assert found.kinds == ("cat", "dog", "boat")
    labels = {Path(one.path).name: one.labels.tolist() for one in found.pictures}
    assert labels == {
        "0.png": [1, 0, 0],
        "1.png": [1, 1, 0],
        "2.png": [0, 1, 0],
        "3.png": [1, 1, 0],
    }
    mask = next(one for one in found.pictures if one.path.endswith("1.png")).mask(
        1, (HEIGHT, WIDTH)
    )
    assert mask is not None
    assert 30 < mask.sum() < 60
    said = capsys.readouterr().err
    for what in ("1 further entries of one image", "1 further ids of the category Dog",
                 "1 annotations whose id is another's, too", "1 parts of fewer than three points",
                 "1 annotations whose images are not listed"):  # fmt: skip
        assert what in said


@pytest.mark.parametrize("told", [None, [], [[]]])
def test_where_a_thing_without_an_outline_is_nobody_knows(told: Any, tmp_path: Path) -> None:
    def change(content: Content) -> None:
        content["annotations"].append(
            {"id": 70, "image_id": 0, "category_id": 1, "segmentation": told}
        )

    found = read_pictures(changed(tmp_path, change))
    assert found.pictures[0].mask(0, (HEIGHT, WIDTH)) is None
    assert found.pictures[1].mask(0, (HEIGHT, WIDTH)) is not None


@pytest.mark.parametrize(
    ("told", "said"),
    [([[1, 1, 5, 5]], "its polygons have 2 points"), ([[1, 1, 5, 5, 9, None]], "null as a coord"),
     ({"size": [3, 3], "counts": [9]}, r"of the size \[3, 3\]"), ("x", "its segmentation is text")],
)  # fmt: skip
def test_malformed_segmentations_name_the_picture(told: Any, said: str, tmp_path: Path) -> None:
    found = read_pictures(changed(tmp_path, of_annotation(1, segmentation=told)))
    with pytest.raises(ValueError, match=f"an annotation of .*1.png cannot be used: .*{said}"):
        found.pictures[1].mask(0, (HEIGHT, WIDTH))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_pictures_are_read_in_the_frame_of_their_annotations(
    orientation: int, frame: str, tmp_path: Path
) -> None:
    x0, y0, x1, y1 = BOX
    upright = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    upright[y0:y1, x0:x1] = 255
    upright[y0 : y0 + 5, x0:x1] = 130
    stored = np.ascontiguousarray(np.rot90(upright, {1: 0, 3: 2, 6: 1}[orientation]))
    seen = stored if frame == "stored" and orientation == 6 else upright
    rows, columns = np.where(seen[..., 0] > 100)
    left, right = int(columns.min()), int(columns.max()) + 1
    top, bottom = int(rows.min()), int(rows.max()) + 1

    def change(content: Content) -> None:
        content["images"][0].update(width=seen.shape[1], height=seen.shape[0])
        outline = [[left, top, right, top, right, bottom, left, bottom]]
        content["annotations"][0].update(segmentation=outline, keypoints=[])

    source = changed(tmp_path, change)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "photos" / "0.png", exif=exif)
    found = read_pictures(source)
    view = _view(found, found.pictures[0], 0)
    np.testing.assert_array_equal(view.image, seen)
    assert view.mask is not None
    np.testing.assert_array_equal(view.mask, seen[..., 0] > 100)


def test_a_picture_of_another_size_than_annotated_is_not_used(tmp_path: Path) -> None:
    found = read_pictures(changed(tmp_path, of_image(0, width=WIDTH // 2, height=HEIGHT // 2)))
    with pytest.raises(ValueError, match=r"0\.png: is 120 x 80, annotated as 60 x 40"):
        found.pictures[0].read()


def test_a_pipe_in_the_folder_of_a_kind_is_passed_over(tmp_path: Path) -> None:
    source = changed(tmp_path, lambda _: None)
    (tmp_path / "kinds" / "cat").mkdir(parents=True)
    for number in range(2):
        (tmp_path / "photos" / f"{number}.png").rename(tmp_path / f"kinds/cat/{number}.png")
    os.mkfifo(tmp_path / "kinds" / "cat" / "pipe.png")
    assert len(read_pictures(str(tmp_path / "kinds")).pictures) == 2
    assert source
