"""COCO files of which a part is wrong: it costs that part alone, and never shows another image."""

import json
import os
import socket
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Run, textured
from PIL import Image

from generators.composition.compose import _load
from generators.sources.coco import coco_index
from generators.sources.index import Index, Pool

Content = dict[str, Any]
OUTLINE = [[20, 30, 85, 25, 70, 110, 35, 100]]
ANOTHER = [[120, 40, 180, 60, 165, 120, 125, 110]]
WIDTH, HEIGHT = 200, 150


def content_of(folder: Path, count: int = 3) -> Content:
    """Images of one object of each of two categories."""
    folder.mkdir(exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), textured(HEIGHT, WIDTH, number))
        images.append(
            {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT}
        )
        for place, outline in enumerate((OUTLINE, ANOTHER)):
            annotations.append(
                {"id": 10 * number + place, "image_id": number, "category_id": place,
                 "segmentation": outline, "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": 0, "name": "zero"}, {"id": 1, "name": "one"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def indexed(content: Content, folder: Path, **options: Any) -> tuple[Index, dict[Any, str]]:
    """The index, and the reason of each image and annotation that is skipped."""
    path = folder.parent / "made.json"
    path.write_text(json.dumps(content))
    index, skipped = coco_index(path, folder, 0.01, 0.6, **options)
    json.dumps(skipped).encode()
    return index, {(one.get("image"), one.get("annotation")): one["reason"] for one in skipped}


def names(index: Index) -> list[str]:
    return [index.image_name(i) for i in range(len(index))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "photos"


# --- ids ---------------------------------------------------------------------------------------


def test_no_outline_is_cut_out_of_another_photograph(folder: Path) -> None:
    """Two files put together, so that the ids of the images repeat."""
    content = content_of(folder)
    content["images"][1]["id"] = 0
    for one in content["annotations"]:
        one["image_id"] = min(one["image_id"], 2)
    index, skipped = indexed(content, folder)
    assert names(index) == ["2.png"]
    assert skipped == {
        ("0.png", None): "its id 0 is that of 1.png, too; give every image its own",
        ("1.png", None): "its id 0 is that of 0.png, too; give every image its own",
        (None, 10): "its image is unknown (image_id 1)",
        (None, 11): "its image is unknown (image_id 1)",
    }


def test_an_id_is_not_taken_from_an_image_that_cannot_be_used(folder: Path) -> None:
    content = content_of(folder)
    content["images"][1] |= {"id": 0, "width": None}
    index, skipped = indexed(content, folder)
    assert names(index) == ["2.png"]
    assert (
        skipped["0.png", None] == "its id 0 is that of another entry, too; give every image its own"
    )
    assert skipped["1.png", None] == "images[1] has no valid 'width', a number of pixels"


@pytest.mark.parametrize("twice", ["same id", "another id", "dot", "wrong size"])
def test_entries_of_one_file_are_one_image(twice: str, folder: Path) -> None:
    content = content_of(folder)
    second = {**content["images"][0]}
    if twice != "same id":
        second["id"] = 77
        content["annotations"][1]["image_id"] = 77
    if twice == "dot":
        second["file_name"] = "./0.png"
    if twice == "wrong size":
        second["width"] = 100
    content["images"].append(second)
    index, skipped = indexed(content, folder)
    assert len(index) == 3
    if twice == "wrong size":
        assert skipped == {("0.png", None): "is 200 x 150, annotated as 100 x 150"}
        assert len(index.arrays["segments"]) == 5
        return
    assert skipped == {}
    assert index.header["corrected"] == {"further entries of one image": 1}
    assert index.arrays["segments"].tolist()[:2] == [[0, 0, 0], [0, 1, 1]]
    assert (index.shows(0, 0), index.shows(0, 1)) == (True, True)


IDS: dict[str, tuple[Callable[[Content], None], str]] = {
    "all one": (lambda c: [a.update(id=5) for a in c["annotations"]],
                "annotations whose id is another's, too"),
    "missing": (lambda c: [a.pop("id") for a in c["annotations"]],
                "annotations whose id is missing"),
    "text": (lambda c: [a.update(id=f"a{n}") for n, a in enumerate(c["annotations"])],
             "annotations whose id is text"),
    "broken": (lambda c: [a.update(id=n + 0.5) for n, a in enumerate(c["annotations"])],
               "annotations whose id is no whole number"),
    "large": (lambda c: [a.update(id=n + 2**70) for n, a in enumerate(c["annotations"])],
              "annotations whose id is too large"),
    "most negative": (lambda c: [a.update(id=-(2**63)) for a in c["annotations"]],
                      "annotations whose id is too large"),
    "truth": (lambda c: [a.update(id=True) for a in c["annotations"]],
              "annotations whose id is true or false"),
    "list": (lambda c: [a.update(id=[]) for a in c["annotations"]],
             "annotations whose id is a list"),
}  # fmt: skip


@pytest.mark.parametrize("what", IDS)
def test_objects_whose_ids_tell_nothing_are_kept_apart(what: str, folder: Path) -> None:
    content = content_of(folder)
    wrong, said = IDS[what]
    wrong(content)
    index, skipped = indexed(content, folder)
    assert skipped == {}
    count = 5 if what == "all one" else 6
    assert index.header["corrected"] == {said: count}
    segments = [index.segment(n) for n in range(6)]
    assert [(one.image, one.category) for one in segments] == [
        (image, category) for image in range(3) for category in range(2)
    ]
    assert {one.annotation for one in segments} == ({5} if what == "all one" else {None})
    pool = Pool.whole(index)
    for one, other in zip(segments[::2], segments[1::2], strict=True):
        assert pool.others(one) == [other]  # so pairs of two objects are made, too
    content["annotations"].reverse()
    again, _ = indexed(content, folder)
    assert again.header["fingerprint"] == index.header["fingerprint"]


def test_numbers_with_a_point_are_whole_ones(folder: Path) -> None:
    """As programs write them that hold tables of floats."""
    content = content_of(folder)
    before, _ = indexed(content, folder)
    for one in content["annotations"]:
        one.update({key: float(one[key]) for key in ("id", "image_id", "category_id", "iscrowd")})
    for one in content["images"]:
        one.update({key: float(one[key]) for key in ("id", "width", "height")})
    after, skipped = indexed(content, folder)
    assert skipped == {}
    assert after.header == before.header


# --- categories --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [(55, "55"), ("0", "'0'"), (None, "None"), ([1], "[1]"), ({}, "{}"), (2**70, str(2**70)),
     (True, "True"), (0.5, "0.5")],
)  # fmt: skip
def test_a_category_that_is_none_of_the_listed(value: Any, said: str, folder: Path) -> None:
    content = content_of(folder)
    content["annotations"][0]["category_id"] = value
    index, skipped = indexed(content, folder)
    assert skipped == {("0.png", 0): f"its category_id {said} is none of the categories' ids"}
    assert len(index.arrays["segments"]) == 5


@pytest.mark.parametrize("name", ["zero", "Zero", " zero"])
def test_categories_of_one_name_are_one(name: str, folder: Path) -> None:
    """A background that shows the object's own category would be taken otherwise."""
    content = content_of(folder)
    content["categories"].append({"id": 2, "name": name})
    content["annotations"][2]["category_id"] = 2
    index, skipped = indexed(content, folder)
    assert skipped == {}
    assert index.header["categories"] == ["zero", "one"]
    assert all(index.shows(image, 0) for image in range(3))
    assert index.header["corrected"] == {f"further ids of the category {name}": 1}


def test_an_id_of_two_categories_is_neither(folder: Path) -> None:
    content = content_of(folder)
    content["categories"].append({"id": 0, "name": "two"})
    index, skipped = indexed(content, folder)
    assert len(index.arrays["segments"]) == 3
    assert set(skipped.values()) == {"its category_id 0 is the id of several categories"}
    assert len(skipped) == 3


# --- segmentations and annotations -------------------------------------------------------------


def test_what_is_wrong_with_an_annotation(folder: Path) -> None:
    content = content_of(folder)
    changes: list[tuple[Any, str]] = [
        (5, "it is an integer, not an object"), ({"image_id": None}, "its image is unknown"),
        ({"image_id": "0"}, "its image is unknown"), ({"image_id": {}}, "its image is unknown"),
        ({"image_id": True}, "its image is unknown"),
        ({"iscrowd": "no"}, "its iscrowd is 'no', neither 0 nor 1"),
        ({"segmentation": "x"}, "its segmentation is text"),
        ({"segmentation": [[1, 1, 5, 5]]}, "its polygons have 2 points"),
        ({"segmentation": [[300, 1, 310, 5, 310, 9]]}, "no area inside the image"),
    ]  # fmt: skip
    sound = content["annotations"][0]
    for number, (change, _) in enumerate(changes):
        one = change if change == 5 else {**sound, **change, "id": 100 + number}
        content["annotations"].append(one)
    index, skipped = indexed(content, folder)
    assert len(index.arrays["segments"]) == 6
    found = {key[1]: reason for key, reason in skipped.items()}
    for number, (change, said) in enumerate(changes):
        assert found.pop("annotations[6]" if change == 5 else 100 + number).startswith(said)
    assert found == {}


def test_parts_of_too_few_points_cost_themselves_and_boxes_are_ordinary(folder: Path) -> None:
    content = content_of(folder)
    content["annotations"][0]["segmentation"] = [[], [1, 1], [2, 2, 4, 4], *OUTLINE]
    for number, told in ((2, []), (3, None), (4, [[]])):
        content["annotations"][number]["segmentation"] = told
    del content["annotations"][5]["segmentation"]
    index, skipped = indexed(content, folder)
    assert skipped == {}
    assert index.header["filtered"] == {"no outline": 4}
    assert index.header["corrected"] == {"parts of fewer than three points": 3}
    assert len(index.arrays["segments"]) == 2
    assert index.shows(2, 1)


# --- images ------------------------------------------------------------------------------------


def made_names(folder: Path) -> dict[str, tuple[str, str]]:
    """Names that cannot be opened, and what is said of them."""
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("none.png")
    (folder / "below").mkdir()
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path must be short
        opened.bind("socket.png")
        os.chdir(here)
    return {
        "loop.png": ("loop.png", "is a link that leads back to itself"),
        "nowhere.png": ("nowhere.png", "missing"),
        "0.png/y.png": ("0.png/y.png", "lies below a file, where no file can lie"),
        "below": ("below", "is a folder, not an image"),
        "": ("", "is a folder, not an image"),
        "a" * 300: ("a" * 300, "has a name that is too long for the disk"),
        "nul\0.png": ("'nul\\x00.png'", "has a name that no file can have"),
        "half\ud800.png": ("'half\\ud800.png'", "has a name that no file can have"),
        "pipe.png": ("pipe.png", "is a pipe, not an image"),
        "socket.png": ("socket.png", "is a socket, not an image"),
        "..\\0.png": ("..\\0.png", "outside the folder of the images"),
        "\\etc\\passwd": ("\\etc\\passwd", "outside the folder of the images"),
    }


def test_names_that_cannot_be_opened(folder: Path) -> None:
    content = content_of(folder)
    wrong = made_names(folder)
    for number, name in enumerate(wrong, 50):
        content["images"].append({**content["images"][0], "id": number, "file_name": name})
        content["annotations"].append(
            {**content["annotations"][0], "id": number, "image_id": number}
        )
    index, skipped = indexed(content, folder)
    assert names(index) == ["0.png", "1.png", "2.png"]
    assert skipped == {(said, None): reason for said, reason in wrong.values()}


@pytest.mark.parametrize(
    ("stated", "stored"),
    [("a\\b\\0.png", "a/b/0.png"), ("caf\u00e9.png", "cafe\u0301.png"),
     ("cafe\u0301.png", "caf\u00e9.png"), ("d\\caf\u00e9.png", "d/cafe\u0301.png"),
     ("caf\u00e9.png", "caf\u00e9.png"), ("odd\\name.png", "odd\\name.png")],
)  # fmt: skip
def test_names_written_in_another_way(stated: str, stored: str, folder: Path) -> None:
    content = content_of(folder)
    (folder / stored).parent.mkdir(parents=True, exist_ok=True)
    (folder / "0.png").rename(folder / stored)
    content["images"][0]["file_name"] = stated
    index, skipped = indexed(content, folder)
    assert skipped == {}
    assert set(names(index)) == {stored, "1.png", "2.png"}
    assert all(index.image_path(i).is_file() for i in range(3))


def test_two_files_whose_names_differ_in_their_accents_alone(folder: Path) -> None:
    content = content_of(folder)
    for number, form in enumerate(("NFC", "NFD")):
        name = unicodedata.normalize(form, "caf\u00e9.png")
        (folder / f"{number}.png").rename(folder / name)
        content["images"][number]["file_name"] = name
    index, skipped = indexed(content, folder)
    assert skipped == {}
    assert len(index) == 3
    assert index.header["corrected"] == {}


@pytest.mark.parametrize("key", ["width", "height"])
@pytest.mark.parametrize("value", ["missing", "200", 200.5, None, True, [], -3, 0, 2**40])
def test_sizes_that_are_none(key: str, value: Any, folder: Path) -> None:
    content = content_of(folder)
    content["images"][1][key] = value
    if value == "missing":
        del content["images"][1][key]
    index, skipped = indexed(content, folder)
    assert names(index) == ["0.png", "2.png"]
    assert skipped == {("1.png", None): f"images[1] has no valid '{key}', a number of pixels"}


@pytest.mark.parametrize(
    ("change", "named", "said"),
    [({"file_name": None}, "images[1]", "images[1] has no valid 'file_name', which is text"),
     ({"file_name": 5}, "images[1]", "images[1] has no valid 'file_name', which is text"),
     ({"id": None}, "1.png", "images[1] has no valid 'id', a number or text"),
     ({"id": [1]}, "1.png", "images[1] has no valid 'id', a number or text"),
     (7, "images[1]", "images[1] is an integer, not an object")],
)  # fmt: skip
def test_entries_of_images_that_are_none(change: Any, named: str, said: str, folder: Path) -> None:
    content = content_of(folder)
    content["images"][1] = change if change == 7 else content["images"][1] | change
    index, skipped = indexed(content, folder)
    assert names(index) == ["0.png", "2.png"]
    assert skipped[named, None] == said


def test_licences_may_be_null_or_nothing(folder: Path) -> None:
    content = content_of(folder)
    for told in (None, [], [{"id": 1}], [{"id": 1, "name": None, "url": 3}], [{}]):
        content["licenses"] = told
        content["images"][0]["license"] = 1
        content["images"][1]["license"] = {}
        index, skipped = indexed(content, folder)
        assert skipped == {}
        assert sum(index.images_by_licence().values()) == 3


def test_a_licence_id_of_two_licences_allows_nothing(folder: Path) -> None:
    content = content_of(folder)
    content["licenses"] = [{"id": 1, "name": "CC0-1.0"}, {"id": 2, "name": "CC-BY-4.0"},
                           {"id": 1, "name": "CC-BY-NC-4.0"}]  # fmt: skip
    for one, own in zip(content["images"], (1, 2, 2), strict=True):
        one["license"] = own
    index, _ = indexed(content, folder, licenses="shareable")
    assert names(index) == ["1.png", "2.png"]
    assert index.header["left_out"] == {"licence: not stated (not recognised)": 1}


def test_all_licences_of_a_file_must_allow_it(folder: Path) -> None:
    content = content_of(folder)
    content["licenses"] = [{"id": 1, "name": "CC0-1.0"}, {"id": 2, "name": "Custom"}]
    for one in content["images"]:
        one["license"] = 1
    content["images"].append({**content["images"][0], "id": 9, "license": 2})
    index, _ = indexed(content, folder, licenses="commercial")
    assert names(index) == ["1.png", "2.png"]
    assert index.header["left_out"] == {"licence: Custom (not recognised)": 1}


# --- frames ------------------------------------------------------------------------------------

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # from upright to what is stored
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, 3),
}  # fmt: skip


def corner(image: np.ndarray) -> list[list[float]]:
    """The outline of the white patch."""
    rows, columns = np.where(image[..., 0] > 200)
    left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    return [[float(v) for v in (left, top, right, top, right, bottom, left, bottom)]]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(
    ("orientation", "frame"),
    [*((n, "upright") for n in range(1, 9)), *((n, "stored") for n in (5, 6, 7, 8)), (9, "stored")],
)
def test_images_are_taken_in_the_frame_in_which_they_were_annotated(
    orientation: int, frame: str, suffix: str, folder: Path
) -> None:
    """Where both fit, upright: so programs to annotate with show them."""
    content = content_of(folder)
    upright = np.full((150, 200, 3), 30, np.uint8)
    upright[20:70, 20:90] = 255
    stored = np.ascontiguousarray(_TURNS.get(orientation, lambda a: a)(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    name = f"turned.{suffix}"
    Image.fromarray(stored).save(folder / name, exif=exif)
    seen = upright if frame == "upright" else stored
    content["images"].append(
        {"id": 99, "file_name": name, "width": seen.shape[1], "height": seen.shape[0]}
    )
    content["annotations"].append(
        {"id": 99, "image_id": 99, "category_id": 0, "segmentation": corner(seen)}
    )
    index, skipped = indexed(content, folder)
    assert skipped == {}
    pixels, _ = _load(index, 3)
    segment = next(s for s in map(index.segment, range(7)) if s.annotation == 99)
    mask = index.mask(segment)
    assert mask.sum() == 50 * 70
    assert pixels[mask].min() > 200
    assert pixels[~mask].max() < 100


def test_a_size_that_fits_in_no_frame_says_both(folder: Path) -> None:
    content = content_of(folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(textured(HEIGHT, WIDTH, 0)).save(folder / "0.png", exif=exif)
    content["images"][0]["width"] = 90
    _, skipped = indexed(content, folder)
    assert skipped == {
        ("0.png", None): "is 200 x 150 (150 x 200 turned upright, as its EXIF header asks), "
        "annotated as 90 x 150"
    }


# --- the command -------------------------------------------------------------------------------


def test_the_command_goes_on_and_says_what_it_left_out(
    folder: Path, generate: Run, tmp_path: Path
) -> None:
    content = content_of(folder, 8)
    content["licenses"] = [{"id": 1, "name": "CC BY 4.0"}, {"id": 2, "name": "House rules"}]
    for one in content["images"]:
        one["license"] = 1 + (one["id"] == 7)
    for one in content["annotations"]:
        one["id"] = one["category_id"] = one["id"] % 10 if one["image_id"] else 55
        if one["image_id"] % 2:
            one["category_id"] += 2
    content["categories"] += [{"id": 2, "name": "two"}, {"id": 3, "name": "three"}]
    content["annotations"][4]["segmentation"] = [*OUTLINE, [3, 3]]
    os.mkfifo(folder / "pipe.png")
    content["images"][1]["file_name"] = "pipe.png"
    content["images"][3]["file_name"] = "half\ud800.png"
    path = tmp_path / "made.json"
    path.write_text(json.dumps(content))
    done = generate(
        tmp_path / "out", "--annotations", path, "--images", folder, "--pairs", 4, "--size", 64,
        "--objects", 2, "--two.min-share", 0.001, "--two.dilation", 0, "--workers=0", "--licenses",
        "commercial", status=3,
    )  # fmt: skip
    assert "2 of 7 images could not be used; segswap.json lists them" in done.stdout
    assert "2 of 10 annotations could not be used" in done.stdout
    assert "left out 1 images for their licence (1 House rules (not recognised))" in done.stdout
    assert "1 parts of fewer than three points" in done.stdout
    manifest = json.loads((tmp_path / "out" / "segswap.json").read_text())
    assert {one["reason"] for one in manifest["skipped"]} == {
        "is a pipe, not an image", "has a name that no file can have",
        "its category_id 55 is none of the categories' ids",
    }  # fmt: skip
    assert manifest["inputs"][0]["corrected"]["annotations whose id is another's, too"] == 10
    assert "Traceback" not in done.stderr


# --- anything ----------------------------------------------------------------------------------

_ANYTHING: list[Any] = [
    None, True, -1, 2**70, 0.5, float("nan"), float("inf"), 10**400, "", "x", "\0", "\ud800",
    "../a", [], [[]], [None], {}, {"a": 1}, [[[1]]], [{}],
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value in a JSON value, to the first two of each list."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    inner = list(enumerate(value))[:2] if isinstance(value, list) else inner
    for key, one in inner:
        yield from _places(one, (*path, key))


def test_whatever_stands_anywhere_is_no_traceback(folder: Path) -> None:
    sound = content_of(folder)
    sound["licenses"] = [{"id": 1, "name": "CC0-1.0", "url": ""}]
    sound["images"][0]["license"] = 1
    rng = np.random.default_rng(0)
    used, said = 0, []
    for path in list(_places(sound))[1:]:
        for value in rng.permutation(len(_ANYTHING))[:3]:
            content = json.loads(json.dumps(sound))
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = _ANYTHING[value]
            try:
                index, _ = indexed(content, folder, licenses="any")
                used += len(index.arrays["segments"]) > 2
            except ValueError as error:
                said.append(str(error))
    assert used > len(said) > 10
    assert all("made.json" in one.encode().decode() for one in said)
