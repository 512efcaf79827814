"""segswap-discover: from a folder of images to masks, groups and a page."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from axe import violations
from browser import Browser
from made_collection import make_photos, results, run, save_small

from pipelines.pages.groups import Shown, groups_page
from pipelines.pages.pictures import outline
from segswap.discovery.discovery import SharedPoints


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos") / "some")


@pytest.fixture(scope="module")
def out(photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in one process."""
    folder = tmp_path_factory.mktemp("discovered") / "out"
    done = run(photos, "--model", model, "--out", folder, "--workers=0")
    assert f"{folder / 'index.html'}: " in done.stdout
    assert "6 images, 15 pairs" in done.stdout
    assert "broken.jpg: not an image" in done.stderr
    assert "empty.png: not an image" in done.stderr
    return folder


def test_groups_json_says_what_is_there(out: Path, photos: Path) -> None:
    record = json.loads((out / "groups.json").read_text())
    images = [Path(image["image"]) for image in record["images"]]
    assert images == sorted(photos.glob("photo-*.png"))
    assert [Path(entry["image"]).name for entry in record["skipped"]] == ["broken.jpg", "empty.png"]
    assert record["settings"]["confidence"] == 0.85
    assert record["groups"]
    for group in record["groups"]:
        strengths = [member["strength"] for member in group["members"]]
        assert strengths[0] == 1
        assert strengths == sorted(strengths, reverse=True)
        numbers = {member["image"] for member in group["members"]}
        assert len(numbers) == len(strengths) >= 3
        for member in group["members"]:
            mask = cv2.imread(str(out / member["mask"]), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (160, 200)
            assert set(np.unique(mask)) <= {0, 255}
            left, top, right, bottom = member["box"]
            assert mask.any() == (right > left)
            assert mask[top:bottom, left:right].sum() == mask.sum()
        for pair in group["shared"]:
            assert set(pair["images"]) <= numbers
            assert np.array(pair["points"]).shape[1:] == (4,)
    named = {member["mask"] for group in record["groups"] for member in group["members"]}
    named |= {image["mask"] for image in record["images"] if image["mask"]}
    there = {path.relative_to(out).as_posix() for path in out.glob("*/**/*.png")}
    assert named == there


def test_the_patch_is_found(out: Path) -> None:
    """In the pictures that show it, at its place in each."""
    record = json.loads((out / "groups.json").read_text())
    (group,) = record["groups"]
    assert sorted(member["image"] for member in group["members"]) == [0, 1, 2, 3]
    for member in group["members"]:
        left, top = 90 - 20 * member["image"], 10 + 12 * member["image"]
        place = np.zeros((160, 200), bool)
        place[top : top + 100, left : left + 100] = True
        mask = cv2.imread(str(out / member["mask"]), cv2.IMREAD_UNCHANGED) > 0
        assert (mask & place).sum() / (mask | place).sum() > 0.7
    for pair in group["shared"]:
        moved = np.diff(pair["images"]) * [-20 / 200, 12 / 160]
        for x, y, u, v in pair["points"]:
            assert [u - x, v - y] == pytest.approx(moved, abs=0.05)


@pytest.mark.slow
def test_workers_give_the_same(out: Path, photos: Path, model: Path, tmp_path: Path) -> None:
    """From the same indexes, whose making has tests of its own."""
    again = tmp_path / "again"
    shutil.copytree(out, again)
    for path in (again / "pairs").iterdir():
        path.unlink()
    run(photos, "--model", model, "--out", again, "--workers", 2)
    assert results(again) == results(out)
    for path in (out / "pairs").iterdir():
        assert (again / "pairs" / path.name).read_bytes() == path.read_bytes()


def test_again_with_other_settings_nothing_is_matched_anew(
    out: Path, photos: Path, model: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(out, again)
    pairs = list((again / "pairs").iterdir())
    before = {path: path.stat().st_mtime_ns for path in pairs}
    run(photos, "--model", model, "--out", again, "--workers=0", "--least-images", 7)
    assert {path: path.stat().st_mtime_ns for path in (again / "pairs").iterdir()} == before
    assert json.loads((again / "groups.json").read_text())["groups"] == []
    assert not list(again.glob("groups/*"))
    assert "Nothing repeats here" in (again / "index.html").read_text()
    run(photos, "--model", model, "--out", again, "--workers=0")
    assert results(again) == results(out)


@pytest.mark.parametrize("change", ["model", "images", "neighbours"])
def test_another_run_s_folder_is_refused_by_what_differs(
    out: Path, photos: Path, model: Path, tmp_path: Path, change: str
) -> None:
    given = {"images": photos, "model": model, "neighbours": None}
    if change == "model":
        given["model"] = save_small(tmp_path / "other", size=96)
    elif change == "images":
        shutil.copytree(photos, tmp_path / "photos")
        given["images"] = tmp_path / "photos"
    else:
        given["neighbours"] = 2
    before = results(out)
    flags = ["--neighbours", 2] if given["neighbours"] else []
    done = run(given["images"], "--model", given["model"], "--out", out, "--workers=0", *flags,
               status=1)  # fmt: skip
    assert f"{change}: was " in done.stderr
    assert "choose another --out" in done.stderr
    others = {"model", "images", "neighbours"} - {change}
    assert not any(f"{other}: was" in done.stderr for other in others)
    assert results(out) == before


def test_a_folder_of_other_things_is_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    done = run(photos, "--out", tmp_path, status=1)
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_one_image_is_refused(photos: Path, model: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(photos / "photo-0.png", one)
    shutil.copy(photos / "broken.jpg", one)
    done = run(one, "--model", model, "--out", tmp_path / "out", "--workers=0", status=1)
    assert "expected at least 2 images that can be read, got 1" in done.stderr
    assert "broken.jpg: not an image" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--neighbours", "0"], "--neighbours is 0"), (["--workers", "-1"], "--workers is -1"),
     (["--confidence", "2"], "confidence is 2"), (["--sigma", "-1"], "sigma is -1")],
)  # fmt: skip
def test_flags_that_mean_nothing(photos: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    done = run(photos, "--out", tmp_path / "out", *flags, status=2)
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


# --- the page ------------------------------------------------------------------------------------


def complaints(browser: Browser) -> list[dict]:
    """Errors of the page's script, of its files, and of anything asked of a network."""
    return [
        event for event in browser.events
        if event.get("method") in ("Runtime.exceptionThrown", "Network.loadingFailed")
        or (event.get("method") == "Log.entryAdded"
            and event["params"]["entry"]["level"] == "error")
        or (event.get("method") == "Network.requestWillBeSent"
            and not event["params"]["request"]["url"].startswith("file:"))
    ]  # fmt: skip


def test_the_page_in_a_browser(browser: Browser, out: Path) -> None:
    record = json.loads((out / "groups.json").read_text())
    browser.open(out / "index.html", 1000, 900)
    assert complaints(browser) == []
    counts = browser.run(
        "[...document.querySelectorAll('.group')].map(g => g.querySelectorAll('.view').length)"
    )
    assert counts == [len(group["members"]) for group in record["groups"]]
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    # The links of the member that is pointed at, and no others.
    first = record["groups"][0]
    for member in first["members"][1], first["members"][0]:
        number = member["image"]
        x, y = browser.run(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector("
            f"'.view[data-image=\"{number}\"]').getBoundingClientRect())"
        )
        browser.point(x, y)
        expected = sum(len(pair["points"]) for pair in first["shared"] if number in pair["images"])
        assert expected > 0
        assert browser.run("document.querySelectorAll('.group line').length") >= expected
        lines = "document.querySelector('.group').querySelectorAll('line').length"
        assert browser.run(lines) == expected
        assert browser.run("document.querySelector('.view.chosen').dataset.image") == str(number)


def test_keys_choose_pictures(browser: Browser, out: Path) -> None:
    """Tab goes from picture to picture, and in words the page says where the points lie."""
    record = json.loads((out / "groups.json").read_text())
    names = [Path(image["image"]).name for image in record["images"]]
    browser.open(out / "index.html", 1000, 900)
    for _ in ("regions", "points"):
        browser.press("Tab")
    for at, group in enumerate(record["groups"]):
        for member in group["members"]:
            browser.press("Tab")
            number = member["image"]
            shared = [pair for pair in group["shared"] if number in pair["images"]]
            lines, pressed, said = browser.run(
                f"(g => [g.querySelectorAll('line').length,"
                f"[...g.querySelectorAll('button')].filter(b => b.ariaPressed === 'true')"
                f".map(b => +b.closest('.view').dataset.image),"
                f"g.querySelector('output').textContent])"
                f"(document.querySelectorAll('.group')[{at}])"
            )
            assert pressed == [number]
            assert lines == sum(len(pair["points"]) for pair in shared)
            others = [pair["images"][pair["images"][0] == number] for pair in shared]
            assert said == f"{names[number]} shares " + ", ".join(
                f"{len(pair['points'])} points with {names[other]}"
                for pair, other in zip(shared, others, strict=True)
            )
    browser.press("Tab")
    browser.press("Enter")
    assert browser.run("document.querySelector('details').open")


def test_the_page_breaks_no_rule(browser: Browser, out: Path) -> None:
    browser.open(out / "index.html", 1000, 900)
    assert violations(browser) == []


def test_lines_end_at_the_points(browser: Browser, tmp_path: Path) -> None:
    """At the same place of each picture, whatever their sizes and where the window puts them."""
    (tmp_path / "pictures").mkdir()
    members = []
    for number, size in enumerate([(360, 200), (150, 360)]):
        mask = np.zeros(size[::-1], np.uint8)
        mask[20:120, 30:100] = 1
        cv2.imwrite(str(tmp_path / f"pictures/{number}.jpg"), mask * 200)
        path = outline(mask.astype(bool), *size)
        members.append(Shown(number, f"{number} <b>&.jpg", f"pictures/{number}.jpg", size, path, 1))
    points = np.array([[[0.25, 0.5], [0.75, 0.1]]], np.float32)
    page = groups_page("a < b", [(members, [SharedPoints((0, 1), points)])], 9, 3, [("<i>", "&")])
    (tmp_path / "page.html").write_text(page)
    for width in (1000, 420):
        browser.open(tmp_path / "page.html", width, 900)
        assert complaints(browser) == []
        ends = browser.run(
            "(() => { const s = document.querySelector('svg.lines').getBoundingClientRect();"
            "const l = document.querySelector('line');"
            "return [[+l.getAttribute('x1') + s.x, +l.getAttribute('y1') + s.y],"
            "        [+l.getAttribute('x2') + s.x, +l.getAttribute('y2') + s.y]]; })()"
        )
        boxes = browser.run(
            "[...document.images].map(i => i.getBoundingClientRect())"
            ".map(b => [b.x, b.y, b.width, b.height])"
        )
        for end, (left, top, wide, high), (x, y) in zip(ends, boxes, points[0], strict=True):
            assert end == pytest.approx([left + x * wide, top + y * high], abs=1.5)
        assert boxes[0][2] / boxes[0][3] == pytest.approx(360 / 200, rel=0.02)
    assert browser.run("document.querySelector('figcaption').textContent").startswith("0 <b>&.jpg")
    assert browser.run("document.querySelector('dt').textContent") == "<i>"


def test_an_empty_page(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(groups_page("none", [], 5, 3, []))
    browser.open(tmp_path / "page.html")
    assert complaints(browser) == []
    assert "at least 3 of the 5 images" in browser.run("document.body.textContent").replace(
        "\n", " "
    )


def test_the_model_may_lie_under_another_name(
    out: Path, photos: Path, model: Path, tmp_path: Path
) -> None:
    os.symlink(model, tmp_path / "link")
    again = tmp_path / "again"
    shutil.copytree(out, again)
    run(photos, "--model", tmp_path / "link", "--out", again, "--workers=0")
