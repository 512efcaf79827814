"""segswap-look: its page, driven in a real browser with real pointer moves, and its sheet."""

import base64
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from axe import violations
from browser import Browser
from conftest import Run
from made_pairs import pasted_pair, write_dataset
from PIL import Image

from pipelines.pages.look import look as look_job
from pipelines.pages.look import read_samples
from pipelines.pages.look_config import LookConfig
from segswap.data.pair import Pair, PairObject
from segswap.data.shards import read_pairs


@pytest.fixture(scope="module")
def look(script: Callable[[str], str]) -> Run:
    def run(
        *arguments: object, status: int = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [script("segswap-look"), *map(str, arguments)], capture_output=True, text=True,
            timeout=120, **options,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def page(look: Run, photos_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of pairs 3 to 8 of the built-in photographs' dataset, which lie in two shards."""
    out = tmp_path_factory.mktemp("look") / "gallery.html"
    done = look(photos_dataset, "--out", out, "--first", 3, "--pairs", 6)
    assert f"{out}: 6 pairs" in done.stdout
    return out


@pytest.fixture(scope="module")
def shown(photos_dataset: Path) -> list[Pair]:
    return list(read_pairs(photos_dataset, "train"))[3:9]


BOX = """(() => {{
  const article = document.querySelectorAll("article.pair")[{number}];
  article.scrollIntoView({{block: "center"}});
  const box = article.querySelector(".view.{side}").getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
}})()"""
RING = """(() => {{
  const article = document.querySelectorAll("article.pair")[{number}];
  const mark = article.querySelector(".view.{side} .mark");
  if (getComputedStyle(mark).visibility === "hidden") return null;
  const ring = mark.querySelector("circle:not(.halo)").getBoundingClientRect();
  return [ring.left + ring.width / 2, ring.top + ring.height / 2];
}})()"""
READOUT = 'document.querySelectorAll("article.pair")[{number}].querySelector(".readout").innerText'


def pointed(browser: Browser, number: int, side: str, place: np.ndarray) -> np.ndarray | None:
    """Where the other image's ring stands, normalised, with the pointer at a place of one image."""
    other = "target" if side == "source" else "source"
    box = np.array(browser.run(BOX.format(number=number, side=side)))
    browser.point(*(box[:2] + place * box[2:]))
    ring = browser.run(RING.format(number=number, side=other))
    box = np.array(browser.run(BOX.format(number=number, side=other)))
    return None if ring is None else (np.array(ring) - box[:2]) / box[2:]


# --- the page in a browser ---------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1300, 700), (360, 1200)])
def test_pointing_shows_the_matching_point_in_the_other_image(
    browser: Browser, page: Path, shown: list[Pair], width: int, height: int
) -> None:
    """Both ways, for every object, beside each other and one above the other: to half a pixel."""
    browser.open(page, width, height)
    rng = np.random.default_rng(0)
    tried = 0
    for number, pair in enumerate(shown):
        for item in pair.objects:
            for side, carry in (("source", pair.to_target), ("target", pair.to_source)):
                places = np.argwhere(getattr(pair, f"{side}_mask") == item.label)[:, ::-1]
                for pixel in rng.choice(places, 3):
                    place = (pixel + 0.5) / (pair.width, pair.height)
                    found = pointed(browser, number, side, place)
                    assert found is not None
                    off = (found - carry(place, item.label)) * (pair.width, pair.height)
                    assert np.abs(off).max() < 0.5, (number, item.label, side, pixel)
                    assert browser.run(READOUT.format(number=number)).startswith(str(item.category))
                    tried += 1
    assert tried >= 36


def test_nothing_is_shown_where_no_object_is(
    browser: Browser, page: Path, shown: list[Pair]
) -> None:
    browser.open(page)
    rng = np.random.default_rng(1)
    for number, pair in enumerate(shown):
        inside = np.argwhere(pair.source_mask > 0)[0][::-1]
        for side in ("source", "target"):
            assert pointed(browser, number, "source", (inside + 0.5) / pair.width) is not None
            places = np.argwhere(getattr(pair, f"{side}_mask") == 0)[:, ::-1]
            for pixel in rng.choice(places, 3):
                assert pointed(browser, number, side, (pixel + 0.5) / pair.width) is None
    assert browser.run(READOUT.format(number=number)) == ""


FOCUS = """(() => {
  const active = document.activeElement, view = active.closest(".view");
  const pairs = [...document.querySelectorAll("article.pair")];
  return view ? [pairs.indexOf(view.closest("article")), view.dataset.side] : active.value;
})()"""


def ringed(browser: Browser, number: int, pair: Pair, side: str) -> np.ndarray | None:
    """Where the ring in one image of a pair stands, in pixels."""
    box = np.array(browser.run(BOX.format(number=number, side=side)))  # scrolled to
    ring = browser.run(RING.format(number=number, side=side))
    size = (pair.width, pair.height)
    return None if ring is None else (np.array(ring) - box[:2]) / box[2:] * size


def label_shown(browser: Browser, number: int, pair: Pair, side: str) -> int:
    """The object at the ring of the image with the focus, 0 for none; the other image's ring is
    checked to stand in the same place of it, or not at all."""
    other, carry = {
        "source": ("target", pair.to_target), "target": ("source", pair.to_source),
    }[side]  # fmt: skip
    size = np.array((pair.width, pair.height))
    here, there = (ringed(browser, number, pair, each) for each in (side, other))
    assert here is not None
    column, row = np.floor(here + 1e-3).astype(int)
    label = int(getattr(pair, f"{side}_mask")[row, column])
    said = browser.run(READOUT.format(number=number))
    if label == 0:
        assert there is None
        assert said.endswith("no object")
    else:
        assert there is not None
        assert np.abs(there - carry(here / size, label) * size).max() < 0.5
        assert f"{side} ({here[0]:.1f}, {here[1]:.1f}) is {other} (" in said
    return label


def steer(browser: Browser, number: int, pair: Pair, side: str) -> None:
    """Go about the image that has the focus: by pixels, through all objects, and away."""
    start = ringed(browser, number, pair, side)
    assert start is not None
    for key, shift, step in (
        ("ArrowRight", False, (1, 0)), ("ArrowDown", True, (0, 10)),
        ("ArrowLeft", False, (-1, 0)), ("ArrowUp", True, (0, -10)),
    ):  # fmt: skip
        browser.press(key, shift)
        label_shown(browser, number, pair, side)
        moved = ringed(browser, number, pair, side)
        assert moved is not None
        expected = np.floor(start + 1e-3) + 0.5 + step
        assert np.abs(moved - expected.clip(0.5, pair.width - 0.5)).max() < 0.05
        start = moved
    labels = set()
    for _ in range(8):
        browser.press("Enter")
        labels.add(label_shown(browser, number, pair, side))
    assert labels == {item.label for item in pair.objects}
    browser.press("Escape")
    assert ringed(browser, number, pair, side) is None
    assert browser.run(READOUT.format(number=number)) == ""


def test_keys_do_what_the_pointer_does(browser: Browser, page: Path, shown: list[Pair]) -> None:
    """Tab reaches every image; keys go to any place of it, and through all its objects."""
    browser.open(page)
    reached, controls = [], []
    for _ in range(browser.run("document.querySelectorAll('button, input, [tabindex]').length")):
        browser.press("Tab")
        focus = browser.run(FOCUS)
        if isinstance(focus, list):
            reached.append(focus)
            number, side = focus
            assert label_shown(browser, number, shown[number], side) > 0
            steer(browser, number, shown[number], side)
        else:
            controls.append(focus)
    assert reached == [[n, side] for n in range(len(shown)) for side in ("source", "target")]
    assert controls == ["plain", "styled", "outlines", "lines"] + ["plain", "styled"] * len(shown)


def test_keys_go_on_where_the_pointer_was(browser: Browser, page: Path, shown: list[Pair]) -> None:
    """And what they show stays when the pointer goes; of a mere click nothing stays."""
    browser.open(page)
    pair = shown[0]
    inside = np.argwhere(pair.source_mask > 0)[40][::-1]
    left, top, width, height = browser.run(BOX.format(number=0, side="source"))
    place = np.array((left, top)) + (inside + 0.5) / pair.width * (width, height)
    browser.point(*place, press=True)
    assert browser.run(FOCUS) == [0, "source"]
    browser.point(2, 2)
    assert ringed(browser, 0, pair, "target") is None
    browser.press("ArrowRight")
    found = ringed(browser, 0, pair, "source")
    assert found is not None
    assert np.abs(found - inside - (1.5, 0.5)).max() < 0.05
    browser.point(*place)
    browser.point(2, 2)
    assert ringed(browser, 0, pair, "source") is not None
    browser.press("Tab")
    assert browser.run(FOCUS) == [0, "target"]
    assert label_shown(browser, 0, pair, "target") > 0


def test_points_are_joined_along_the_map(browser: Browser, page: Path, shown: list[Pair]) -> None:
    browser.open(page)
    for number, pair in enumerate(shown):
        script = f"""(() => {{
          const article = document.querySelectorAll("article.pair")[{number}];
          const stage = article.querySelector(".lines").getBoundingClientRect();
          return [...article.querySelectorAll(".lines line")].map(line =>
            ["x1", "y1", "x2", "y2"].map((name, n) =>
              +line.getAttribute(name) + (n % 2 ? stage.top : stage.left)));
        }})()"""
        boxes = {
            side: np.array(browser.run(BOX.format(number=number, side=side)))
            for side in ("source", "target")
        }
        lines = np.array(browser.run(script))
        assert len(lines) >= 8
        start = (lines[:, :2] - boxes["source"][:2]) / boxes["source"][2:]
        end = (lines[:, 2:] - boxes["target"][:2]) / boxes["target"][2:]
        seen = set()
        for a, b in zip(start, end, strict=True):
            column, row = (a * (pair.width, pair.height)).astype(int)
            label = int(pair.source_mask[row, column])
            assert label
            seen.add(label)
            assert np.abs(b - pair.to_target(a, label)).max() * pair.width < 0.5
        assert seen == {item.label for item in pair.objects}


def test_the_switches_show_the_styled_images(browser: Browser, page: Path) -> None:
    """A pair's switch acts on that pair, the bar's on all; outlines and points can be hidden."""
    browser.open(page)
    visible = """[...document.querySelectorAll("article.pair")].map(article =>
      [...article.querySelectorAll("img")].filter(i => i.checkVisibility())
        .map(i => i.className))"""
    count = browser.run('document.querySelectorAll("article.pair").length')
    plain, styled = ["plain"] * 2, ["styled"] * 2

    def click(selector: str) -> None:
        browser.run("scrollTo(0, 0)")
        box = f"document.querySelector('{selector}').getBoundingClientRect()"
        browser.point(
            browser.run(f"{box}.left + {box}.width / 2"),
            browser.run(f"{box}.top + {box}.height / 2"), press=True,
        )  # fmt: skip

    assert browser.run(visible) == [plain] * count
    click("article.pair .switch button[value=styled]")
    assert browser.run(visible) == [styled] + [plain] * (count - 1)
    click(".bar .switch button[value=styled]")
    assert browser.run(visible) == [styled] * count
    click(".bar .switch button[value=plain]")
    assert browser.run(visible) == [plain] * count
    for what, selector in (("outlines", ".outlines"), ("lines", ".lines")):
        hidden = f"getComputedStyle(document.querySelector('{selector}')).display === 'none'"
        assert not browser.run(hidden)
        click(f".bar input[value={what}]")
        assert browser.run(hidden)


def test_the_page_is_one_file_and_fits_its_window(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """Moved elsewhere it still shows every image; nothing else is asked for, nothing overflows."""
    moved = shutil.copy(page, tmp_path / "moved.html")
    for width in (1600, 800, 320):
        browser.open(moved, width=width)
        asked = [
            event["params"]["request"]["url"]
            for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert [url for url in asked if not url.startswith("data:")] == [moved.as_uri()]
        wrong = [e for e in browser.events if e.get("method") in ("Log.entryAdded",
                 "Runtime.exceptionThrown")]  # fmt: skip
        assert wrong == []
        broken = "[...document.images].filter(i => !(i.complete && i.naturalWidth === 160)).length"
        assert browser.run("document.images.length") == 6 * 4
        assert (
            browser.run(
                f"Promise.all([...document.images].map(i => i.decode())).then(() => {broken})"
            )
            == 0
        )
        assert browser.run("document.documentElement.scrollWidth") <= width


def test_the_page_breaks_no_rule(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert violations(browser) == []


NASTY = (
    """<img src=x onerror="document.title='taken'"></script>"""
    """<script>document.title='taken'</script>'&.jpg"""
)


def test_names_are_shown_as_they_are(browser: Browser, look: Run, tmp_path: Path) -> None:
    """Whatever stands in file names, categories and styles is text, never markup."""
    made = pasted_pair(styled=True)
    item = PairObject(
        1, made.objects[0].target_from_source, NASTY, {"dataset": "d", "image": NASTY}, NASTY
    )
    style = {"method": NASTY, "image": NASTY, "alpha": NASTY}
    pair = Pair(
        0, made.source, made.target, made.source_mask, made.target_mask, (item,),
        background={"dataset": NASTY, "image": NASTY}, source_styled=made.source_styled,
        target_styled=made.target_styled, styles={"source": style, "target": None},
    )  # fmt: skip
    dataset = write_dataset(tmp_path / "<b>pairs & co", [pair])
    look(dataset, "--out", tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert browser.run("document.title") == dataset
    text = browser.run("document.body.innerText")
    assert text.count(NASTY) >= 6
    assert browser.run('document.querySelectorAll("script, b b, img:not([class])").length') == 1
    pixel = np.argwhere(pair.source_mask)[0][::-1]
    assert pointed(browser, 0, "source", (pixel + 0.5) / pair.width) is not None
    assert NASTY in browser.run(READOUT.format(number=0))


# --- what is written ---------------------------------------------------------------------------


def test_the_images_are_the_shards_own(page: Path, photos_dataset: Path) -> None:
    found = re.findall(r'<img class="(\w+)" alt="(\w+) of[^>]*base64,([^"]+)"', page.read_text())
    expected = []
    for members, _ in islice(read_samples(photos_dataset, "train", 3), 6):
        for side in ("source", "target"):
            expected += [("plain", side, members[f"{side}.jpg"])]
            expected += [("styled", side, members[f"{side}_styled.jpg"])]
    assert [(kind, side, base64.b64decode(data)) for kind, side, data in found] == expected


def test_contact_sheet(look: Run, photos_dataset: Path, tmp_path: Path) -> None:
    """Alone it makes no page; every pair is on it, sources' colours in place."""
    sheet = tmp_path / "sheet.png"
    done = look(photos_dataset, "--png", sheet, "--split", "val", "--pairs", 100, cwd=tmp_path)
    assert "4 pairs" in done.stdout
    assert os.listdir(tmp_path) == ["sheet.png"]
    picture = np.array(Image.open(io.BytesIO(sheet.read_bytes())).convert("RGB"))
    pairs = list(read_pairs(photos_dataset, "val"))
    assert picture.shape == (16 + 4 * 256, 16 + 504, 3)
    cells = [(16 + row * 256, 16) for row in range(4)]
    for (top, left), pair in zip(cells, pairs, strict=True):
        for offset, image in ((0, pair.source), (248, pair.target)):
            part = picture[top : top + 240, left + offset : left + offset + 240]
            expected = np.array(Image.fromarray(image).resize((240, 240)))
            # Lines and outlines cover a small part.
            assert np.median(np.abs(part.astype(int) - expected)) < 6


def test_pair_count(look: Run, photos_dataset: Path, tmp_path: Path) -> None:
    look(photos_dataset, "--out", "gallery.html", cwd=tmp_path)
    page = (tmp_path / "gallery.html").read_text()
    assert page.count("<article") == 12  # all that there are
    assert page.startswith("<!doctype html>")


def test_a_dataset_in_a_store(photos_dataset: Path, page: Path, tmp_path: Path) -> None:
    """At a URL the same page is made as of the folder, but for the name."""
    fsspec.filesystem("memory").put(str(photos_dataset), "/pairs", recursive=True)
    out = tmp_path / "page.html"
    assert look_job(LookConfig("memory://pairs", str(out), first=3, pairs=6)) == 0
    named = page.read_text().replace(str(photos_dataset), "memory://pairs")
    assert out.read_text() == named


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--out", "page.html", "--split", "test"], 1, ["'test'", "train"]),
        (["--out", "page.html", "--first", 12], 1, ["--first is 12", "0 to 11"]),
        ([], 2, ["nothing to write", "--out PAGE.html"]),
        (["--out", "page.html", "--pairs", 0], 2, ["--pairs is 0", "at least 1"]),
        (["--out", "page.pdf"], 2, ["page.pdf", ".html"]),
        (["--png", "sheet.html"], 2, ["sheet.html", ".png"]),
        (["--out", "no/such/page.html"], 1, ["no/such", "no folder"]),
    ],
)
def test_unusable_settings_are_named(
    look: Run, photos_dataset: Path, tmp_path: Path, arguments: list[Any], status: int,
    words: list[str],
) -> None:  # fmt: skip
    done = look(photos_dataset, *arguments, status=status, cwd=tmp_path)
    assert all(word in done.stderr for word in words), done.stderr
    assert os.listdir(tmp_path) == []


def test_unusable_datasets_are_named(look: Run, photos_dataset: Path, tmp_path: Path) -> None:
    """None, an unfinished one, a cut shard: a message, and an earlier page is left as it was."""
    page = tmp_path / "page.html"
    page.write_text("earlier")
    done = look(tmp_path / "nothing", "--out", page, status=1)
    assert "nothing is no finished dataset" in done.stderr
    damaged = tmp_path / "damaged"
    shutil.copytree(photos_dataset, damaged)
    shard = damaged / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-60_000])
    done = look(damaged, "--out", page, status=1)
    assert "train-000001.tar" in done.stderr
    (damaged / "segswap.json").unlink()
    done = look(damaged, "--out", page, status=1)
    assert "no finished dataset" in done.stderr
    assert page.read_text() == "earlier"


@pytest.mark.parametrize(("flag", "name"), [("--out", "page.html"), ("--png", "sheet.png")])
def test_a_folder_in_a_file_s_place_is_named_before_the_work(
    look: Run, photos_dataset: Path, tmp_path: Path, flag: str, name: str
) -> None:
    (tmp_path / name).mkdir()
    done = look(photos_dataset, flag, name, status=1, cwd=tmp_path)
    assert f"{flag} {name} is a folder" in done.stderr
    assert "pairs" not in done.stdout + done.stderr.replace(str(photos_dataset), "")
