"""Where segments come from: COCO files good and bad, folders, the built-in photographs."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Run, textured
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from generators.sources.coco import coco_index
from generators.sources.folder import folder_index
from generators.sources.index import UNKNOWN, Index, Pool, build, held_out
from generators.sources.photos import photos
from segswap.data.segmentations import encode_segmentation

WIDTH, HEIGHT = 100, 80
TRIANGLE = [[10, 10, 60, 10, 10, 60]]


def decoded(counts: bytes) -> np.ndarray:
    return rle.decode({"size": [HEIGHT, WIDTH], "counts": counts}).astype(bool)


def lengths_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths of a mask, column by column, zeros first."""
    runs, value, count = [], 0, 0
    for pixel in mask.T.ravel().astype(int):
        if pixel != value:
            runs.append(count)
            value, count = pixel, 0
        count += 1
    return [*runs, count]


# --- segmentations -----------------------------------------------------------------------------


def test_polygons_of_several_parts() -> None:
    """All parts count; the published code used the first alone."""
    one, area, _ = encode_segmentation(TRIANGLE, WIDTH, HEIGHT)
    both, more, _ = encode_segmentation(
        [*TRIANGLE, [80, 50, 95, 50, 95, 75, 80, 75]], WIDTH, HEIGHT
    )
    assert 1150 < area < 1350
    assert 360 < more - area < 420
    assert not decoded(one)[60, 88]
    assert decoded(both)[60, 88]
    assert decoded(both)[20, 20]


def test_polygons_that_leave_the_image_are_cut_off() -> None:
    counts, area, _ = encode_segmentation([[-40, -40, 50, -40, 50, 40, -40, 40]], WIDTH, HEIGHT)
    assert area == decoded(counts).sum() == pytest.approx(2000, rel=0.05)


@given(st.integers(0, 2**32 - 1))
def test_run_lengths_compressed_or_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = cv2.resize(rng.integers(0, 2, (9, 7), np.uint8), (WIDTH, HEIGHT), interpolation=0) > 0
    mask[3, 4] = True
    compressed = rle.encode(np.asfortranarray(mask, np.uint8))
    for counts in (lengths_of(mask), compressed["counts"].decode()):
        segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
        encoded, area, _ = encode_segmentation(segmentation, WIDTH, HEIGHT)
        assert area == mask.sum()
        np.testing.assert_array_equal(decoded(encoded), mask)


PIXELS = WIDTH * HEIGHT
BAD_SEGMENTATIONS: dict[str, tuple[Any, str]] = {
    "none": (None, "its segmentation is null; expected polygons"),
    "empty": ([], "its polygons have no points"),
    "empty parts": ([[], []], "its polygons have 0 points"),
    "text": ("abc", "its segmentation is text"),
    "a number": (3, "its segmentation is an integer"),
    "one point": ([[1, 1]], "its polygons have 1 points; expected three or more"),
    "two points and one": ([[1, 1, 5, 5], [7, 7]], "its polygons have 1 and 2 points"),
    "odd": ([[1, 1, 5, 5, 9, 1, 7]], "has 7 coordinates, an odd number"),
    "one odd part": ([*TRIANGLE, [1, 1, 5, 5, 9, 1, 7]], "has 7 coordinates, an odd number"),
    "a short odd part": ([*TRIANGLE, [1]], "has 1 coordinates, an odd number"),
    "points in lists": ([[[1, 1], [5, 5], [9, 1]] * 2], "a polygon's points are lists"),
    "numbers alone": ([1, 1, 5, 5, 9, 1], "a polygon is an integer; expected polygons"),
    "null among them": ([None, *TRIANGLE], "a polygon is null"),
    "words": ([["a", 1, 5, 5, 9, 1]], "has text as a coordinate"),
    "null": ([[None, 1, 5, 5, 9, 1]], "has null as a coordinate"),
    "truth": ([[True, 1, 5, 5, 9, 1]], "has true or false as a coordinate"),
    "not a number": ([[float("nan"), 1, 5, 5, 9, 1]], "no place in the image"),
    "infinite": ([[1, 1, float("inf"), 5, 9, 1]], "far outside"),
    "far away": ([[1e9, 1, 5, 5, 9, 1]], "far outside the image of 100 x 80 px"),
    "huge": ([[10**400, 1, 5, 5, 9, 1]], "far outside"),
    "another size": ({"size": [WIDTH, HEIGHT], "counts": [PIXELS]}, r"of the size \[100, 80\]"),
    "no size": ({"counts": [PIXELS]}, "of the size None"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "counts are null"),
    "too short": ({"size": [HEIGHT, WIDTH], "counts": [10, 20]}, "fill 30 of 8000 pixels"),
    "too long": ({"size": [HEIGHT, WIDTH], "counts": [10, PIXELS]}, "fill 8010 of 8000"),
    "negative": ({"size": [HEIGHT, WIDTH], "counts": [PIXELS + 5, -5]}, "hold -5; expected counts"),
    "fractions": ({"size": [HEIGHT, WIDTH], "counts": [0.5, PIXELS - 0.5]}, "hold 0.5"),
    "run lengths in a list": ([{"size": [HEIGHT, WIDTH], "counts": [3]}], "fill 3 of 8000"),
    "compressed too short": ({"size": [HEIGHT, WIDTH], "counts": "5:"}, "fill"),
    "compressed junk": ({"size": [HEIGHT, WIDTH], "counts": "\u00e9\u00e9"}, "malformed"),
    "endless": ({"size": [HEIGHT, WIDTH], "counts": "o" * 10_000}, "malformed"),
    "cut off": ({"size": [HEIGHT, WIDTH], "counts": "5o"}, "cut off"),
}


@pytest.mark.parametrize("what", BAD_SEGMENTATIONS)
def test_bad_segmentations_say_why(what: str) -> None:
    """pycocotools ends the process on some of these and invents pixels for others."""
    segmentation, reason = BAD_SEGMENTATIONS[what]
    with pytest.raises(ValueError, match=reason):
        encode_segmentation(segmentation, WIDTH, HEIGHT)


NO_AREA: dict[str, Any] = {
    "zero area": [[5, 5, 5, 5, 5, 5]], "outside": [[200, 10, 260, 10, 260, 60]],
    "all background": {"size": [HEIGHT, WIDTH], "counts": [PIXELS]},
}  # fmt: skip


@pytest.mark.parametrize("what", NO_AREA)
def test_what_has_no_area(what: str) -> None:
    assert encode_segmentation(NO_AREA[what], WIDTH, HEIGHT).area == 0


def test_parts_of_too_few_points_are_passed_over() -> None:
    few: list[Any] = [[], [3, 3], [4, 4, 8, 8]]
    found = encode_segmentation([*few, *TRIANGLE], WIDTH, HEIGHT)
    assert found == (*encode_segmentation(TRIANGLE, WIDTH, HEIGHT)[:2], 3)


def test_run_lengths_in_lists() -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:40, 20:50] = True
    one = {"size": [HEIGHT, WIDTH], "counts": lengths_of(mask)}
    assert decoded(encode_segmentation([one], WIDTH, HEIGHT).counts).sum() == mask.sum()
    other = {"size": [HEIGHT, WIDTH], "counts": lengths_of(np.roll(mask, 40, axis=1))}
    assert encode_segmentation([one, other], WIDTH, HEIGHT).area == 2 * mask.sum()


# --- COCO files --------------------------------------------------------------------------------


def annotation(number: int, image: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": 7, "iscrowd": 0,
        "segmentation": [[20, 30, 85, 25, 70, 110, 35, 100]], **changes,
    }  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    (folder / "made.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "made.json"


def listed(number: int, name: str, width: int = 200, height: int = 150) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": width, "height": height}


CATEGORIES = [{"id": 7, "name": "seven"}, {"id": 9, "name": "nine"}]


def test_everything_that_cannot_be_used_is_listed(tmp_path: Path) -> None:
    for name in ("good.png", "other.png", "tall.png"):
        cv2.imwrite(str(tmp_path / name), textured(150, 200, 1))
    cv2.imwrite(str(tmp_path / "tiny.png"), np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "text.jpg").write_text("no image")
    content = {
        "images": [
            listed(1, "good.png"), listed(2, "missing.png"), listed(3, "text.jpg"),
            listed(4, "tall.png", 150, 200), listed(5, "tiny.png", 20, 20), listed(6, "other.png"),
            listed(7, "/etc/passwd"), listed(8, "../good.png"), listed(9, "good.png"),
        ],
        "annotations": [
            annotation(1, 1), annotation(2, 2), annotation(3, 99),
            annotation(4, 1, segmentation=[[1, 1, 5, 5, 9]]), annotation(5, 1, iscrowd=1),
            annotation(6, 1, segmentation=[[1, 1, 4, 1, 4, 4]]), annotation(7, 3),
            annotation(8, 6, category_id=9), annotation(9, 6, category_id=55),
            annotation(10, 9, category_id=9), annotation(11, 6, segmentation=[]),
            annotation(12, 6, segmentation=None, category_id=7),
        ],
        "categories": CATEGORIES,
    }  # fmt: skip
    del content["annotations"][3]["iscrowd"]
    index, skipped = coco_index(write(tmp_path, content), tmp_path, 0.01, 0.6)
    found = {(item.get("image"), item.get("annotation")): item["reason"] for item in skipped}
    assert found == {
        ("missing.png", None): "missing",
        ("text.jpg", None): "not an image but text ('no image')",
        ("tall.png", None): "is 200 x 150, annotated as 150 x 200",
        ("tiny.png", None): "a side under 32 px (20 x 20)",
        ("/etc/passwd", None): "outside the folder of the images",
        ("../good.png", None): "outside the folder of the images",
        ("good.png", 4): "a polygon has 5 coordinates, an odd number; expected an x and a y of "
        "each point",
        ("other.png", 9): "its category_id 55 is none of the categories' ids",
        (None, 3): "its image is unknown (image_id 99)",
    }
    assert len(skipped) == len(found)
    assert index.header["filtered"] == {"crowd": 1, "area": 1, "no outline": 2}
    assert index.header["corrected"] == {"further entries of one image": 1}
    assert [index.image_name(i) for i in range(len(index))] == ["good.png", "other.png"]
    segments = [index.segment(i) for i in range(3)]
    assert [segment.annotation for segment in segments] == [1, 10, 8]
    names = [index.category_name(segment.category) for segment in segments]
    assert names == ["seven", "nine", "nine"]
    assert [segment.image for segment in segments] == [0, 0, 1]
    assert index.shows(0, 0)
    assert index.shows(0, 1)  # as the second entry of the same file says
    assert index.shows(1, 0)  # a box tells that, too
    assert not index.shows(1, UNKNOWN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable JSON"),
        ("[]", "it is a list, no object"),
        ({"images": [], "annotations": []}, "it has no list 'categories'"),
        ({"images": {}, "annotations": [], "categories": []}, "'images' is an object, not a list"),
        ({"images": [], "annotations": None, "categories": []}, "'annotations' is null"),
        ("[" * 100_000, "not a readable JSON file"),
        (
            {"images": [], "annotations": [], "categories": [], "licenses": 5},
            "'licenses' is an integer, not a list",
        ),
        (
            {"images": [], "annotations": [], "categories": [], "licenses": [5]},
            r"licenses\[0\] is an integer",
        ),
        ({"images": [], "annotations": [], "categories": []}, "holds no segmentations"),
        (
            {"images": [listed(1, "a")], "categories": CATEGORIES,
             "annotations": [{"id": 1, "image_id": 1, "category_id": 7}]},
            "holds no segmentations; expected a COCO instances JSON",
        ),
        (
            {"images": [3], "annotations": [annotation(1, 1)], "categories": []},
            r"first: .*images\[0\] is an integer",
        ),
        (
            {"images": [{"id": 2}], "annotations": [annotation(1, 1)], "categories": []},
            r"first: .*images\[0\] has no valid 'file_name'",
        ),
        ({"images": [], "annotations": [], "categories": [3]}, r"categories\[0\] has no valid"),
        (
            {"images": [], "annotations": [annotation(1, 1)],
             "categories": [{"id": 1, "name": "a", "keypoints": "nose"}]},
            r"categories\[0\] has no valid 'keypoints'",
        ),
        (
            {"images": [], "annotations": [], "categories": [{"id": 1}]},
            r"categories\[0\] has no valid 'name'",
        ),
        (
            {"images": [listed(1, "none.png")], "annotations": [annotation(1, 1)],
             "categories": CATEGORIES},
            r"no usable segment: 0 images, 1 skipped \(first: .*none\.png.*missing",
        ),
    ],
)  # fmt: skip
def test_files_that_are_no_coco_say_so(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        coco_index(write(tmp_path, content), tmp_path, 0.01, 0.6)
    assert "made.json" in str(caught.value)


def test_missing_inputs(tmp_path: Path, shapes: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="is missing"):
        coco_index(tmp_path / "none.json", tmp_path, 0, 1)
    with pytest.raises(ValueError, match="is not a folder"):
        coco_index(shapes[0], tmp_path / "none", 0, 1)


def test_the_order_of_the_file_changes_nothing(
    shapes: tuple[Path, Path], shapes_index: Index, tmp_path: Path
) -> None:
    content = json.loads(shapes[0].read_text())
    content["images"].reverse()
    content["annotations"].reverse()
    index, _ = coco_index(write(tmp_path, content), shapes[1], 0.01, 0.6)
    assert index.header["fingerprint"] == shapes_index.header["fingerprint"]


def test_real_annotations(data: Path) -> None:
    mini = data / "coco_mini"
    index, skipped = coco_index(
        mini / "annotations" / "instances_train2017.json", mini / "train2017", 0.015, 0.5
    )
    assert skipped == []
    assert len(index) == 80
    assert index.header["filtered"]["crowd"] == 8
    assert len(index.arrays["segments"]) + sum(index.header["filtered"].values()) == 739
    counts = index.images_by_licence()
    assert sum(counts.values()) == 80
    assert counts["Attribution License"] > 0
    assert index.image_credit(0).startswith("http://farm")


def test_the_index_on_disk_is_the_same(shapes_index: Index, tmp_path: Path) -> None:
    shapes_index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert loaded.header == shapes_index.header
    for name, array in shapes_index.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
    np.testing.assert_array_equal(
        loaded.mask(loaded.segment(3)), shapes_index.mask(shapes_index.segment(3))
    )


# --- drawing -----------------------------------------------------------------------------------


def test_categories_are_drawn_first(tmp_path: Path) -> None:
    """A category of one segment is drawn as often as one of nine."""
    cv2.imwrite(str(tmp_path / "a.png"), textured(150, 200, 1))
    rare = annotation(0, 1, category_id=9)
    common = [annotation(number, 1) for number in range(1, 10)]
    content = {
        "images": [listed(1, "a.png")], "annotations": [rare, *common], "categories": CATEGORIES
    }  # fmt: skip
    index, _ = coco_index(write(tmp_path, content), tmp_path, 0.01, 0.6)
    pool = Pool.of(index, np.arange(1), index, np.arange(1))
    rng = np.random.default_rng(0)
    drawn = [pool.draw_segment(rng) for _ in range(1000)]
    assert 440 < sum(segment.annotation == 0 for segment in drawn) < 560
    assert len({segment.annotation for segment in drawn}) == 10


@given(st.integers(4, 60), st.floats(0.05, 0.9))
def test_held_out_images(count: int, share: float) -> None:
    """The wanted share of them, at least two, chosen by name and not by place."""

    def index_of(names: list[str]) -> Index:
        return build(
            dataset="d", root="/", proposer="p", categories=(), segments=(),
            images=[(name, 64, 64) for name in names], present=[()] * len(names), filtered={},
        )  # fmt: skip

    names = [f"{number}.jpg" for number in range(count)]
    chosen = held_out(index_of(names), share)
    assert chosen.sum() == max(2, round(share * count))
    again = held_out(index_of(names[::-1]), share)
    np.testing.assert_array_equal(chosen, again[::-1])


# --- folders -----------------------------------------------------------------------------------


def blobs() -> np.ndarray:
    """A textured disc and a textured square on a plain ground."""
    image = np.full((200, 240, 3), 200, np.uint8)
    cv2.circle(image, (70, 100), 40, (30, 60, 160), -1)
    cv2.rectangle(image, (150, 60), (210, 140), (20, 140, 30), -1)
    noise = np.random.default_rng(0).integers(0, 8, image.shape, np.uint8)
    return image + noise


def test_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "a.png"), blobs())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(blobs()).save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"text")
    index, skipped = folder_index(tmp_path, "felzenszwalb", 0.02, 0.5)
    assert skipped == [{"image": "broken.jpg", "reason": "not an image but text ('text')"}]
    assert [index.image_name(i) for i in range(len(index))] == ["deep/a.png", "turned.png"]
    assert index.image_size(0) == (240, 200)
    assert index.image_size(1) == (200, 240)  # upright, as it is read later
    assert len(index.arrays["segments"]) >= 4
    assert all(index.segment(i).category == UNKNOWN for i in range(4))


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(cv2.imencode(".png", blobs())[1].tobytes())
    except OSError:
        pytest.skip("this file system stores UTF-8 names alone")
    index, skipped = folder_index(tmp_path, None, 0, 1)
    assert not skipped
    assert index.image_path(0).is_file()
    json.dumps(index.image_name(0))


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image"):
        folder_index(tmp_path, "felzenszwalb", 0.02, 0.5)
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((90, 90, 3), 128, np.uint8))
    with pytest.raises(ValueError, match="no usable segment: 1 images"):
        folder_index(tmp_path, "felzenszwalb", 0.02, 0.5)


def test_the_built_in_photographs() -> None:
    index, skipped = coco_index(*photos(), 0.0, 1.0)
    assert skipped == []
    assert index.header["filtered"] == {}
    assert len(index) == 12
    counts = index.images_by_licence()
    assert sum(counts.values()) == 12
    assert "not stated" not in counts
    assert all(index.image_credit(i) for i in range(12))


# --- the command line on bad inputs ------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path, shapes: tuple[Path, Path]) -> tuple[Path, Path]:
    """The made dataset with three of its eight images unusable, one of them only when decoded."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").write_bytes((shapes[1] / f"{number}.png").read_bytes())
    (folder / "0.png").unlink()
    (folder / "1.png").write_text("no image")
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    return shapes[0], folder


def test_too_much_skipped_is_status_3(
    damaged: tuple[Path, Path], generate: Run, tmp_path: Path
) -> None:
    """The dataset is complete all the same; what was lost stands in the manifest."""
    flags = ["--annotations", damaged[0], "--images", damaged[1], "--pairs", 20, "--size", 64,
             "--objects", 1, "--one.dilation", 2, "--workers=0"]  # fmt: skip
    done = generate(tmp_path / "out", *flags, status=3)
    assert "3 of 8 images could not be used" in done.stdout
    manifest = json.loads((tmp_path / "out" / "segswap.json").read_text())
    reasons = {item["image"]: item["reason"] for item in manifest["skipped"]}
    assert reasons.pop("2.png").startswith("cannot be decoded")
    assert reasons == {"0.png": "missing", "1.png": "not an image but text ('no image')"}
    assert manifest["splits"]["train"]["pairs"] == 20
    assert manifest["rejected"]["image cannot be decoded"] > 0
    assert generate(tmp_path / "lenient", *flags, "--max-skipped", 0.5).returncode == 0


def test_too_many_bad_annotations_are_status_3(
    shapes: tuple[Path, Path], generate: Run, tmp_path: Path
) -> None:
    content = json.loads(shapes[0].read_text())
    for item in content["annotations"][:4]:
        item["segmentation"] = [[1, 2, 3]]
    flags = ["--annotations", write(tmp_path, content), "--images", shapes[1], "--pairs", 2,
             "--size", 64, "--objects", 1, "--one.dilation", 2, "--workers=0"]  # fmt: skip
    done = generate(tmp_path / "out", *flags, status=3)
    assert "4 of 16 annotations could not be used" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "{empty}"], "holds no image"),
        (["--images", "{none}"], "is not a folder"),
        (["--demo", "--backgrounds", "{empty}"], "holds no image"),
        (["--annotations", "{none}", "--images", "{empty}"], "is missing"),
        (["--demo", "--style", "histogram", "--styles", "{empty}"], "holds no image"),
        (["--demo", "--style", "histogram", "--styles", "{texts}"], "a.jpg: not an image"),
    ],
)
def test_unusable_inputs_are_one_line(
    generate: Run, tmp_path: Path, flags: list[str], message: str
) -> None:
    places = {"empty": tmp_path / "empty", "none": tmp_path / "none", "texts": tmp_path / "texts"}
    places["empty"].mkdir()
    places["texts"].mkdir()
    (places["texts"] / "a.jpg").write_text("text")
    given_flags = [flag.format(**places) for flag in flags]
    done = generate(tmp_path / "out", "--pairs", 2, "--workers=0", *given_flags, status=1)
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_a_folder_without_annotations_end_to_end(generate: Run, tmp_path: Path, data: Path) -> None:
    """Relative paths, two Ray workers, other backgrounds, styles, and a broken image between."""
    for name in ("images", "behind", "styles"):
        (tmp_path / name).mkdir()
    photographs = sorted((data / "bsds" / "images" / "train").glob("*.jpg"))
    for number, path in enumerate(photographs[:14]):
        folder = "images" if number < 10 else "behind"
        (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "broken.jpg").write_text("text")
    (tmp_path / "styles" / "a.jpg").write_bytes((data / "styles" / "wave.jpg").read_bytes())
    generate(
        "out", "--images", "images", "--backgrounds", "behind", "--styles", "styles",
        "--style", "histogram", "--pairs", 6, "--shard-pairs", 3, "--size", 96, cwd=tmp_path,
    )  # fmt: skip
    manifest = json.loads((tmp_path / "out" / "segswap.json").read_text())
    assert [item["images"] for item in manifest["inputs"]] == [10, 4]
    assert manifest["skipped"] == [
        {"image": "broken.jpg", "reason": "not an image but text ('text')"}
    ]
