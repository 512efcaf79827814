"""Pictures with masks of the foreground, of folders and of COCO, and what is refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_kinds import BOX, HEIGHT, WIDTH, write_coco, write_folder, write_picture

from segswap.batches.foregrounds import read_foregrounds, without


def write_masked(root: Path, names: list[str]) -> str:
    """Pictures with the box of made_kinds as their mask."""
    for number, name in enumerate(names):
        write_picture(root / "images" / f"{name}.png", number)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    return str(root)


@pytest.mark.parametrize("names", [["one", "two"], ["cat/one", "dog/one"]])
def test_a_folder_of_pictures_or_of_kinds(names: list[str], tmp_path: Path) -> None:
    found = read_foregrounds(write_masked(tmp_path, names))
    assert [p.path for p in found.pictures] == [
        str(tmp_path / "images" / f"{n}.png") for n in names
    ]
    assert found.kinds == ("foreground",)
    mask = found.pictures[0].mask(0, (HEIGHT, WIDTH))
    assert mask is not None
    assert mask.sum() == (BOX[2] - BOX[0]) * (BOX[3] - BOX[1])


def test_of_coco_all_things_of_a_picture_are_the_foreground(tmp_path: Path) -> None:
    source = write_coco(tmp_path)
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][4]["segmentation"] = [[0, 0, 10, 0, 10, 10, 0, 10]]
    content["annotations"][4]["iscrowd"] = 0
    del content["annotations"][2]  # then nothing is known of the third picture
    path.write_text(json.dumps(content))
    found = read_foregrounds(source)
    assert [Path(p.path).stem for p in found.pictures] == ["0", "1", "3"]
    mask = found.pictures[2].mask(0, (HEIGHT, WIDTH))
    assert mask is not None
    assert mask[5, 5]
    assert mask[(BOX[1] + BOX[3]) // 2, (BOX[0] + BOX[2]) // 2]
    assert not mask[5, 20]


def test_what_is_held_out_is_in_no_source(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "kinds", {"cat": [0, 1, 2], "dog": [3]})
    (tmp_path / "kinds" / "heldout.txt").write_text("cat/1.png\n")
    found = read_foregrounds(source)
    assert [Path(p.path).stem for p in found.pictures] == ["0", "2", "3"]
    (held_out,) = found.held_out
    assert Path(held_out.path).stem == "1"
    other = read_foregrounds(write_masked(tmp_path / "more", ["a", "b"]))  # seeds 0 and 1
    (left,) = without([other], {held_out.key})
    assert [Path(p.path).stem for p in left.pictures] == ["a"]
    with pytest.raises(ValueError, match="holds no picture with a mask to train on"):
        without([other], {p.key for p in other.pictures})


def spoiled(root: Path, how: str) -> str:
    source = write_masked(root, ["one", "two", "three"])
    mask = root / "masks" / "one.png"
    if how == "missing":
        mask.unlink()
    elif how == "empty":
        cv2.imwrite(str(mask), np.zeros((HEIGHT, WIDTH), np.uint8))
    elif how == "size":
        cv2.imwrite(str(mask), np.full((HEIGHT, WIDTH + 2), 255, np.uint8))
    elif how == "damaged mask":
        mask.write_bytes(b"no picture")
    else:
        (root / "images" / "one.png").write_bytes(b"no picture")
    return source


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"one\.png has no mask; expected it in .*masks.one\.png"),
        ("empty", r"masks.one\.png is empty; expected a mask of what stands out in .*images.one"),
        (
            "size",
            r"one\.png is 122 x 80 px, .*one\.png 120 x 80; expected masks of their",
        ),
        ("damaged mask", r"masks.one\.png"),
        ("damaged picture", r"images.one\.png"),
    ],
)
def test_a_picture_without_a_mask_that_fits_costs_itself_alone(
    how: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = spoiled(tmp_path, how)
    with pytest.raises(ValueError, match=f"{message}.*--skip-bad"):
        read_foregrounds(source)
    found = read_foregrounds(source, skip_bad=True)
    assert [Path(p.path).stem for p in found.pictures] == ["three", "two"]
    assert "skipped: " in caplog.text


def test_how_many_are_like_the_first_one_is_said(tmp_path: Path) -> None:
    source = write_masked(tmp_path, ["one", "two", "three"])
    for name in ("one", "two"):
        (tmp_path / "masks" / f"{name}.png").unlink()
    with pytest.raises(ValueError, match=r"2 pictures of .* are like this"):
        read_foregrounds(source)


def test_sources_of_another_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no folders images and masks"):
        read_foregrounds(str(tmp_path))
    with pytest.raises(ValueError, match="has no folders images and masks"):
        read_foregrounds(str(tmp_path / "nothing"))
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        read_foregrounds(str(tmp_path))
    with pytest.raises(ValueError, match="is missing; expected a COCO instances JSON"):
        read_foregrounds(f"{tmp_path / 'none.json'}:{tmp_path}")
    write_masked(tmp_path, ["one"])
    (tmp_path / "heldout.txt").write_text("two.png\n")
    with pytest.raises(ValueError, match=r"lists two\.png, which is not there"):
        read_foregrounds(str(tmp_path))
    (tmp_path / "heldout.txt").write_text("one.png\n")
    with pytest.raises(ValueError, match="no picture with a mask to train on beside 1 held out"):
        read_foregrounds(str(tmp_path))
