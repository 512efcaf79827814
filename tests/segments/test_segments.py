"""Segments found without annotations: the proposers, what is kept of them, label maps."""

import json
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, textured
from PIL import Image

from generators.segments import build_proposer, proposer_names
from generators.segments.common.regions import (
    MAX_SEGMENTS,
    Found,
    Regions,
    object_like,
    worth_copying,
)
from generators.segments.labels import labels_place
from generators.sources.folder import folder_index
from segswap.files.images import read_image, read_label_map

NETWORKS = ("cam", "ldf", "sccam", "seam")  # see test_networks.py, test_learned.py
FOUND = [name for name in proposer_names() if name not in ("labels", *NETWORKS)]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def segments(
    name: str, image: np.ndarray, path: str, least: float, most: float
) -> list[np.ndarray]:
    """The masks that a proposer finds in an image."""
    found = build_proposer(name).propose([image], [path], (least, most))[0]
    assert isinstance(found, Found)
    return [proposal.mask for proposal in found.proposals]


# --- proposers ---------------------------------------------------------------------------------


def scene(height: int, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A disc and a square on a plain ground, all with some noise, and the shapes' masks."""
    drawn = np.zeros((200, 240), np.uint8)
    cv2.circle(drawn, (70, 100), 40, 1, -1)
    cv2.rectangle(drawn, (150, 60), (210, 140), 2, -1)
    drawn = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_NEAREST)
    colours = np.array([(200, 200, 200), (30, 60, 160), (20, 140, 30)], np.uint8)
    noise = np.random.default_rng(0).integers(0, 8, (height, width, 3), np.uint8)
    return colours[drawn] + noise, [drawn == 1, drawn == 2]


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize(("height", "width"), [(200, 240), (900, 1080), (50, 60)])
def test_proposers_find_what_stands_out(name: str, height: int, width: int) -> None:
    image, shapes = scene(height, width)
    found = segments(name, image, "scene", 0.02, 0.5)
    for shape in shapes:
        assert max(iou(mask, shape) for mask in found) > 0.85
    assert all(mask.shape == (height, width) and mask.dtype == bool for mask in found)


@pytest.mark.parametrize("name", FOUND)
def test_a_plain_image_has_no_segment(name: str) -> None:
    plain = np.full((90, 120, 3), 128, np.uint8)
    assert not segments(name, plain, "plain", 0.02, 0.9)


def test_grouping_finds_wholes_and_their_parts() -> None:
    """A ball of two halves: the halves and the ball."""
    image = np.full((200, 200, 3), 230, np.uint8)
    halves = [np.zeros((200, 200), np.uint8) for _ in range(2)]
    cv2.ellipse(halves[0], (100, 100), (55, 55), 0, -90, 90, 1, -1)
    cv2.ellipse(halves[1], (100, 100), (55, 55), 0, 90, 270, 1, -1)
    for half, colour in zip(halves, [(150, 60, 40), (90, 40, 30)], strict=True):
        image[half > 0] = colour
    image += np.random.default_rng(0).integers(0, 8, image.shape, np.uint8)
    ball = (halves[0] | halves[1]) > 0
    for name, finds in (("grouping", True), ("felzenszwalb", False)):
        found = segments(name, image, "ball", 0.02, 0.6)
        assert max(iou(mask, halves[0] > 0) for mask in found) > 0.85
        assert (max(iou(mask, ball) for mask in found) > 0.85) == finds


@pytest.mark.parametrize("name", FOUND)
def test_real_images_again_give_the_same(name: str, data: Path) -> None:
    path = min((data / "bsds" / "images" / "train").iterdir())
    image = read_image(path)
    before = image.copy()
    found, again = (segments(name, image, "", 0.015, 0.5) for _ in range(2))
    np.testing.assert_array_equal(image, before)
    assert 0 < len(found) <= MAX_SEGMENTS
    np.testing.assert_array_equal(found, again)
    areas = [mask.sum() for mask in found]
    assert areas == sorted(areas, reverse=True)


def test_people_agree_with_the_proposers(data: Path) -> None:
    """What stands out on real images is found, more of it by grouping than by one label map."""
    scores = {}
    for name in FOUND:
        best = []
        for path in sorted((data / "bsds" / "images" / "test").glob("*.jpg"))[::8]:
            image = read_image(path)
            drawn = segments("labels", image, str(path), 0.03, 0.5)
            found = segments(name, image, str(path), 0.015, 0.5)
            best += [max([iou(one, other) for other in found], default=0.0) for one in drawn]
        scores[name] = np.mean(best)
    assert min(scores.values()) > 0.25
    assert scores["grouping"] > max(scores["felzenszwalb"], 0.4)


# --- what is kept ------------------------------------------------------------------------------


def kept(labels: np.ndarray) -> list[np.ndarray]:
    return list(object_like(labels, 0.02, 0.5))


def test_backdrops_and_specks_are_no_objects() -> None:
    labels = np.ones((100, 100), int)
    labels[30:60, 30:60] = 2  # alone of these worth copying
    labels[0:3, 0:3] = 3
    labels[70:72, 5:95] = 4  # an L
    labels[70:95, 5:7] = 4
    labels[80:90, 20:95] = 5  # a plank
    assert [mask.sum() for mask in kept(labels)] == [900]


@pytest.mark.parametrize(
    ("rows", "columns", "keeps"),
    [
        ((40, 100), (40, 70), True),  # stands on the lower edge
        ((60, 100), (60, 100), False),  # fills a corner
        ((40, 70), (0, 100), False),  # a band from side to side
        ((0, 100), (40, 70), False),
        ((40, 60), (20, 60), True),
    ],
)
def test_what_touches_the_border(
    rows: tuple[int, int], columns: tuple[int, int], keeps: bool
) -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[slice(*rows), slice(*columns)] = 1
    assert len(kept(labels)) == keeps


def test_parts_of_a_region_count_alone() -> None:
    labels = np.zeros((100, 100), np.uint16)
    labels[10:40, 10:40] = labels[50:90, 50:90] = 60_000
    assert sorted(mask.sum() for mask in kept(labels)) == [900, 1600]


def test_near_duplicates_and_the_number_of_segments() -> None:
    """Of regions that are nearly the same the largest stays; of too many, the largest ones."""

    def areas(*maps: np.ndarray) -> list[int]:
        found = worth_copying([Regions(labels) for labels in maps], 100, 100, (0, 1))
        return [int(proposal.mask.sum()) for proposal in found.proposals]

    rings = np.zeros((3, 100, 100), int)
    for label_map, side in zip(rings, (40, 48, 24), strict=True):
        label_map[50 - side // 2 : 50 + side // 2, 50 - side // 2 : 50 + side // 2] = 1
    # 40 x 40 in 48 x 48 is an IoU of 0.69, 24 x 24 in 40 x 40 one of 0.36.
    assert areas(*rings) == [48**2, 40**2, 24**2]
    rings[0][27:73, 27:73] = 1  # 46 x 46 in 48 x 48 is 0.92
    assert areas(*rings) == [48**2, 24**2]
    crowd = np.zeros((100, 100), int)
    for number in range(36):
        top, left = 2 + 16 * (number // 6), 2 + 16 * (number % 6)
        crowd[top : top + 12, left : left + 6 + number % 7] = number + 1
    found = areas(crowd)
    assert len(found) == MAX_SEGMENTS
    assert min(found) == 12 * 9
    assert max(found) == 12 * 12


# --- label maps --------------------------------------------------------------------------------

WIDTH, HEIGHT = 200, 150


def two_regions() -> np.ndarray:
    labels = np.ones((HEIGHT, WIDTH), np.uint16)
    labels[30:110, 20:90] = 2
    labels[40:120, 120:180] = 300
    return labels


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """images/deep/0.jpg ... 2.jpg with label maps of 8 bits, 16 bits and a palette."""
    images, labels = tmp_path / "images" / "deep", tmp_path / "labels" / "deep"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(images / f"{number}.jpg"), textured(HEIGHT, WIDTH, number))
    small = two_regions() % 255  # 300 is 45
    Image.fromarray(small.astype(np.uint8)).save(labels / "0.png")
    Image.fromarray(two_regions()).save(labels / "1.png")
    palette = Image.fromarray(small.astype(np.uint8), mode="P")
    palette.putpalette([7] * 768)  # one colour for all: the indices count
    palette.save(labels / "2.png")
    return tmp_path


def test_label_maps_of_all_kinds(labelled: Path) -> None:
    for folder in ("images", "images/deep"):
        index, skipped = folder_index(labelled / folder, "labels", 0.02, 0.5)
        assert skipped == []
        assert len(index) == 3
        assert index.header["proposer"] == "labels"
        found = [index.segment(i) for i in range(len(index.arrays["segments"]))]
        assert [segment.image for segment in found] == [0, 0, 1, 1, 2, 2]
        for segment, label in zip(found, (2, 300) * 3, strict=True):
            np.testing.assert_array_equal(index.mask(segment), two_regions() == label)


def test_label_maps_that_cannot_be_used_are_listed(labelled: Path) -> None:
    images, labels = labelled / "images", labelled / "labels"
    broken = (labels / "deep" / "1.png").read_bytes()
    bad = {
        "absent": None,
        "broken": broken[: len(broken) // 2],
        "colour": cv2.imencode(".png", textured(HEIGHT, WIDTH, 1))[1].tobytes(),
        "other": cv2.imencode(".png", np.ones((HEIGHT, HEIGHT), np.uint8))[1].tobytes(),
        "text": b"no image",
    }
    for name, content in bad.items():
        shutil.copy(images / "deep" / "0.jpg", images / f"{name}.jpg")
        if content is not None:
            (labels / f"{name}.png").write_bytes(content)
    index, skipped = folder_index(images, "labels", 0.02, 0.5)
    assert len(index) == 3
    reasons = {item["image"]: item["reason"] for item in skipped}
    assert reasons.pop("broken.jpg").startswith("its label map: cannot be decoded")
    assert reasons == {
        "absent.jpg": "its label map: missing",
        "colour.jpg": "its label map: not one label a pixel but RGB",
        "other.jpg": "its label map is 150 x 150, the image 200 x 150",
        "text.jpg": "its label map: not an image but text ('no image')",
    }


@pytest.mark.parametrize(
    ("images", "place"),
    [
        ("/a/images", "/a/labels"),
        ("/a/images/", "/a/labels"),
        ("/a/images/train/x.jpg", "/a/labels/train/x.jpg"),
        ("/images/b/images/c", "/images/b/labels/c"),
        ("/a/images/images.jpg", "/a/labels/images.jpg"),
        ("s3://bucket/images/x.jpg", "s3://bucket/labels/x.jpg"),
    ],
)
def test_the_place_of_label_maps(images: str, place: str) -> None:
    assert labels_place(images) == place


def test_no_label_maps_at_all(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(labelled / "labels")
    with pytest.raises(ValueError, match=f"{labelled}/labels is not a folder"):
        folder_index(labelled / "images", "labels", 0.02, 0.5)
    (labelled / "images").rename(labelled / "photos")
    with pytest.raises(ValueError, match="lies in no folder called images"):
        folder_index(labelled / "photos", "labels", 0.02, 0.5)


def test_label_maps_of_bsds(data: Path) -> None:
    images = data / "bsds" / "images"
    index, skipped = folder_index(images, "labels", 0.02, 0.5)
    assert skipped == []
    assert len(index) == 120
    for number in range(0, len(index.arrays["segments"]), 25):
        segment = index.segment(number)
        mask, path = index.mask(segment), labels_place(str(index.image_path(segment.image)))
        labels = read_label_map(path.removesuffix("jpg") + "png")
        assert len(np.unique(labels[mask])) == 1
        assert 0.02 <= mask.mean() <= 0.5


# --- real-world images -------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOUND)
def test_images_of_all_kinds(name: str, tmp_path: Path) -> None:
    """Greyscale, palette, CMYK, 16 bits, turned and long ones are used, the others listed."""
    picture = Image.fromarray(scene(200, 240)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("P").save(tmp_path / "palette.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.array(picture.convert("L")).astype(np.uint16) * 256).save(
        tmp_path / "deep.png"
    )
    picture.save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(scene(32, 2000)[0]).save(tmp_path / "long.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "tiny.png")
    Image.new("1", (10_100, 10_000)).save(tmp_path / "huge.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "grey.png").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "notes.txt").write_text("no image either")
    index, skipped = folder_index(tmp_path, name, 0.02, 0.5)
    names = [index.image_name(number) for number in range(len(index))]
    assert names == ["cmyk.jpg", "deep.png", "grey.png", "long.png", "palette.png", "turned.jpg"]
    assert sorted(item["image"] for item in skipped) == [
        "broken.png", "gone.jpg", "huge.png", "text.jpg", "tiny.png"
    ]  # fmt: skip
    owners = {names[image] for image in index.arrays["segments"][:, 0]}
    assert owners >= set(names) - {"long.png"}
    turned = names.index("turned.jpg")
    assert index.image_size(turned) == (200, 240)
    masks = [index.mask(index.segment(n)) for n in range(len(index.arrays["segments"]))
             if index.segment(n).image == turned]  # fmt: skip
    upright = np.rot90(scene(200, 240)[1][0], -1)
    assert max(iou(mask, upright) for mask in masks) > 0.8


# --- the command line --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FOUND, "labels"])
def test_pairs_from_found_segments(name: str, data: Path, generate: Run, tmp_path: Path) -> None:
    for path in sorted((data / "bsds" / "images" / "train").glob("*.jpg"))[::6]:
        for kind, file in (("images", path), ("labels", Path(labels_place(str(path))))):
            (tmp_path / kind).mkdir(exist_ok=True)
            file = file if kind == "images" else file.with_suffix(".png")
            shutil.copy(file, tmp_path / kind / file.name)
    (tmp_path / "images" / "broken.jpg").write_text("no image")
    flags = ["--images", "images", "--segments", name, "--pairs", 8, "--size", 96,
             "--one.dilation", 2, "--two.dilation", 2, "--workers=0"]  # fmt: skip
    generate("out", *flags, cwd=tmp_path)
    manifest = json.loads((tmp_path / "out" / "segswap.json").read_text())
    assert manifest["config"]["segments"] == name
    assert [item["images"] for item in manifest["inputs"]] == [10]
    (skipped,) = manifest["skipped"]
    assert skipped == {"image": "broken.jpg", "reason": "not an image but text ('no image')"}
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as shard:
        records = [json.loads(shard.extractfile(member).read())  # type: ignore[union-attr]
                   for member in shard if member.name.endswith(".json")]  # fmt: skip
    assert len(records) == 8
    copied = [entry["segment"] for record in records for entry in record["objects"]]
    assert {segment["proposer"] for segment in copied} == {name}


def test_label_maps_that_changed_are_read_again(
    labelled: Path, generate: Run, tmp_path: Path
) -> None:
    """The index of the same images is kept between jobs, but not over new label maps."""
    flags = ["--images", "images", "--segments", "labels", "--pairs", 2, "--size", 64,
             "--objects", 1, "--one.dilation", 2, "--workers=0"]  # fmt: skip
    generate("out", *flags, cwd=labelled)
    (labelled / "labels" / "deep" / "1.png").unlink()
    generate("again", *flags, status=3, cwd=labelled)
    counts = [
        json.loads((labelled / out / "segswap.json").read_text())["inputs"][0]["segments"]
        for out in ("out", "again")
    ]
    assert counts == [6, 4]


def test_a_folder_without_label_maps(data: Path, generate: Run, tmp_path: Path) -> None:
    images = data / "coco_mini" / "val2017"
    done = generate(tmp_path / "out", "--images", images, "--segments", "labels", "--workers=0",
                    status=None)  # fmt: skip
    assert done.returncode not in (0, 3)
    assert "lies in no folder called images" in done.stderr
    assert "Traceback" not in done.stderr
