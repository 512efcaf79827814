"""Images that changed after they were indexed are no hits for what they were."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from conftest import textured
from made_models import save_model
from runs import in_process

from pipelines.search.index import build_index, collect
from pipelines.search.index_config import main as index_command
from pipelines.search.retrieve_config import main as retrieve_command
from segswap.search.index import Index


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "small"))


@pytest.fixture
def place(tmp_path: Path, model: str) -> Path:
    """`photos/` with four images, their `index/`, and `query.png`."""
    (tmp_path / "photos").mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), textured(60, 80, number))
    cv2.imwrite(str(tmp_path / "query.png"), textured(60, 80, 9))
    build_index(collect([str(tmp_path / "photos")]).images, model, tmp_path / "index")
    return tmp_path


def junk(path: Path) -> None:
    path.write_bytes(b"junk")


def another(path: Path) -> None:
    cv2.imwrite(str(path), textured(60, 80, 77))


def touched(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize(("change", "hit"), [(junk, False), (another, False), (touched, True)])
def test_a_hit_is_what_its_file_shows(
    change: Callable[[Path], None], hit: bool, place: Path
) -> None:
    image = place / "photos" / "2.png"
    change(image)
    flags = ["--out", place / "hits.html", "--json", place / "hits.json", "--top", 4]
    done = in_process(
        retrieve_command, "segswap-retrieve", place / "index", place / "query.png", *flags
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((place / "hits.json").read_text())
    assert (str(image) in [each["image"] for each in told["hits"]]) == hit
    assert told["changed"] == ([] if hit else [str(image)])
    assert ("left out 1 hits whose files have changed" in done.stdout.splitlines()[-1]) != hit
    assert ("since their files have changed" in (place / "hits.html").read_text()) != hit
    assert len(told["hits"]) == 3 + hit


def test_what_became_junk_leaves_the_index(place: Path, model: str) -> None:
    image = place / "photos" / "2.png"
    junk(image)
    photos, out = place / "photos", place / "index"
    words = [photos, "--out", out, "--model", model, "--workers=0"]
    done = in_process(index_command, "segswap-index", *words)
    assert "3 images, 1 skipped (see index.json)" in done.stdout.splitlines()[-1]
    assert f"skipped {image}: not an image" in done.stderr
    names = [Path(name).name for name in Index.open(out).images]
    assert names == ["0.png", "1.png", "3.png"]
    # It stays out, whatever else is indexed, until it is mended.
    (place / "more").mkdir()
    cv2.imwrite(str(place / "more" / "9.png"), textured(60, 80, 9))
    index = build_index(collect([str(place / "more")]).images, model, out)
    assert str(image) not in index.images
    assert str(image) in dict(index.skipped)
    another(image)
    index = build_index(collect([str(photos)]).images, model, out)
    assert str(image) in index.images
    assert index.skipped == []


def test_what_a_folder_holds_beside_images_is_listed(place: Path, model: str) -> None:
    """Of an earlier run what a folder held is forgotten, when it is looked through again."""
    (place / "photos" / "up").symlink_to("..")
    (place / "photos" / "1.heic").touch()
    (place / "photos" / "again.png").symlink_to("1.png")
    images, passed = collect([str(place / "photos"), str(place / "photos" / "2.png")])
    index = build_index(images, model, place / "index", passed=passed)
    assert len(index) == 4
    assert [Path(name).name for name, _ in index.skipped] == ["*.heic", "up"]
    (place / "photos" / "up").unlink()
    (place / "photos" / "1.heic").unlink()
    images, passed = collect([str(place / "photos")])
    assert build_index(images, model, place / "index", passed=passed).skipped == []
