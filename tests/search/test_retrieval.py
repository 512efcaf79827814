"""Finding a detail: what is found, where, what is left out, and how it is said."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from axe import violations
from browser import Browser
from conftest import textured
from hypothesis import given
from hypothesis import strategies as st
from made_models import save_model
from torchvision.ops import box_iou

import segswap
from pipelines.search.index import build_index, collect
from pipelines.search.retrieve import find
from pipelines.search.retrieve_config import RetrieveConfig, parse_box
from segswap import geometry
from segswap.files.images import read_image
from segswap.models.model import load
from segswap.search.baselines import PooledRetriever, SiftRetriever
from segswap.search.index import Index
from segswap.search.retrieval import ModelRetriever, Query, _shown, box_of, retrieve

BOX = (60.0, 40.0, 180.0, 160.0)
PLACE = (20, 60, 120, 160)  # of the detail in the images that show it


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images: 3 shows the query's detail, 4 its mirrored detail, 1 is the query."""
    folder = tmp_path_factory.mktemp("collection")
    query = textured(240, 320, 100)
    left, top, right, bottom = (int(value) for value in BOX)
    detail = cv2.resize(query[top:bottom, left:right], (100, 100), interpolation=cv2.INTER_AREA)
    for number in range(5):
        image = textured(200, 240, number)
        if number in (3, 4):
            shown = detail if number == 3 else detail[:, ::-1]
            image[PLACE[1] : PLACE[3], PLACE[0] : PLACE[2]] = shown
        if number != 1:
            cv2.imwrite(str(folder / f"{number}.png"), image)
    cv2.imwrite(str(folder / "1.png"), query)
    return folder


@pytest.fixture(scope="module")
def index(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("index") / "index"
    return build_index(collect([str(collection)]).images, "segswap-tiny", out)


def overlap(box: geometry.Box) -> float:
    """Intersection over union of a box and the place where the detail is."""
    return float(box_iou(torch.tensor([box]), torch.tensor([PLACE])))


def test_the_detail_is_found_in_its_place(index: Index, collection: Path) -> None:
    hits = segswap.retrieve(index, collection / "1.png", BOX)
    best = hits[0]
    assert Path(best.image).name == "3.png"
    assert best.score > 3 * hits[1].score
    assert best.box is not None
    assert overlap(best.box) > 0.6
    # A point of the detail lies where it was put: 120 px there are 100 px here.
    expected = (best.source_points - BOX[:2]) / 1.2 + PLACE[:2]
    errors = np.linalg.norm(best.target_points - expected, axis=1)
    assert len(errors) > 20
    assert np.median(errors) < 4
    assert best.mask is not None
    assert best.mask.min() >= 0
    assert best.mask.max() <= 1
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_the_query_is_left_out_by_content_whatever_its_name(
    index: Index, collection: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "another name.bmp"
    cv2.imwrite(str(copy), cv2.imread(str(collection / "1.png")))
    assert len(index) == 5
    for query in (copy, read_image(copy)):
        hits = retrieve(index, query, BOX, top=50)
        assert sorted(Path(h.image).name for h in hits) == [f"{n}.png" for n in (0, 2, 3, 4)]
    other = read_image(copy)
    other[0, 0] += 1
    assert len(retrieve(index, other, BOX, top=50)) == 5


def test_the_mirrored_detail_is_found_when_asked_for(index: Index, collection: Path) -> None:
    plain = retrieve(index, collection / "1.png", BOX)
    both = retrieve(index, collection / "1.png", BOX, mirrored=True)
    assert {Path(hit.image).name for hit in both[:2]} == {"3.png", "4.png"}
    (hit,) = (hit for hit in both if hit.image.endswith("4.png"))
    assert hit.score > 3 * next(h.score for h in plain if h.image == hit.image)
    assert hit.box is not None
    assert overlap(hit.box) > 0.6
    x = PLACE[2] - (hit.source_points[:, 0] - BOX[0]) / 1.2
    assert np.median(np.abs(hit.target_points[:, 0] - x)) < 4


def test_the_shortlist_has_the_images_with_the_most_similar_cells(
    index: Index, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("segswap-tiny")
    query = Query(read_image(collection / "1.png"), BOX)
    names = {number: Path(image).name for number, image in enumerate(index.images)}
    retriever = ModelRetriever(model, index)
    listed = retriever.shortlist(query, 3)
    assert len(listed) == 3
    assert names[listed[0]] == "3.png"
    assert 1 not in retriever.shortlist(query, 5)
    both = ModelRetriever(model, index, mirrored=True).shortlist(query, 2)
    assert {names[number] for number in both} == {"3.png", "4.png"}
    hits = retrieve(index, query.image, BOX, model=model, shortlist=3)
    assert sorted(hit.number for hit in hits) == sorted(listed)
    whole = {hit.number: hit for hit in retriever.search(query)}
    assert all(hit.score == pytest.approx(whole[hit.number].score, rel=1e-4) for hit in hits)
    # Of a much larger collection those that are similar as wholes come into question.
    monkeypatch.setattr("segswap.search.retrieval._COMPARED", 1)
    assert sorted(retriever.shortlist(query, 3)) == sorted(retriever.similar(query, 3)[0])


def test_pooled_features_rank_by_their_cosine(index: Index, collection: Path) -> None:
    retriever = ModelRetriever(load("segswap-tiny"), index)
    query = Query(read_image(collection / "1.png"), BOX)
    numbers, cosines = retriever.similar(query, 3)
    assert len(numbers) == 3
    assert cosines == sorted(cosines, reverse=True)
    assert 1 not in numbers
    hits = PooledRetriever(retriever).search(query)
    assert [hit.number for hit in hits[:3]] == numbers
    assert all(hit.box is None for hit in hits)
    few = [hit.number for hit in PooledRetriever(retriever).search(query, [4, 2])]
    assert few == [hit.number for hit in hits if hit.number in (4, 2)]


def test_sift_finds_the_detail_too(collection: Path) -> None:
    retriever = SiftRetriever(collect([str(collection)]).images)
    query = Query(read_image(collection / "1.png"), BOX)
    hits = retriever.search(query)
    assert len(hits) == 4
    assert Path(hits[0].image).name == "3.png"
    assert hits[0].score >= 10
    assert hits[0].box is not None
    assert overlap(hits[0].box) > 0.9
    expected = (hits[0].source_points - BOX[:2]) / 1.2 + PLACE[:2]
    assert np.abs(hits[0].target_points - expected).max() < 5
    assert [hit.number for hit in retriever.search(query, [4])] == [4]


def test_nothing_in_common_is_an_answer(tmp_path: Path) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for number in range(2):
        flat = np.full((64, 80, 3), 90 + number, np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), flat)
    images = collect([str(folder)]).images
    index = build_index(images, "segswap-tiny", tmp_path / "index")
    for number in (0, 1):
        query = Query(np.full((50, 50, 3), 200, np.uint8))
        hit = ModelRetriever(load("segswap-tiny"), index).search(query)[number]
        assert hit.box is None
        assert len(hit.source_points) == 0
    assert [hit.box for hit in SiftRetriever(images).search(query)] == [None, None]
    # The only image that there is, is the query.
    one = build_index(images[:1], "segswap-tiny", tmp_path / "one")
    assert retrieve(one, images[0]) == []


@pytest.mark.parametrize(
    "box", [(0, 0, 321, 10), (-1, 0, 5, 5), (10, 10, 10, 20), (20, 10, 10, 20), (0, 200, 5, 241)]
)
def test_a_box_outside_the_query_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"does not lie in the query, which is 320 x 240 px"):
        Query(np.zeros((240, 320, 3), np.uint8), box)  # type: ignore[arg-type]


@given(
    st.integers(40, 200), st.integers(40, 200), st.floats(0, 0.8), st.floats(0, 0.8),
    st.floats(0.05, 1), st.floats(0.05, 1), st.booleans(),
)  # fmt: skip
def test_what_is_shown_keeps_the_shape_and_holds_the_box(
    width: int, height: int, x: float, y: float, w: float, h: float, flip: bool
) -> None:
    left, top = x * width, y * height
    box = (left, top, left + w * (width - left), top + h * (height - top))
    shown = _shown(Query(np.zeros((height, width, 3), np.uint8), box), flip)
    corners = np.array([(box[0], box[1]), (box[2], box[3])]) / (width, height)
    (a, b), (c, d) = geometry.transform_points(shown, corners)
    assert min(a, b, c, d) > -1e-9
    assert max(a, b, c, d) < 1 + 1e-9
    assert (c < a) == flip
    # One scale along both axes: a square is shown.
    assert abs(c - a) / (box[2] - box[0]) == pytest.approx((d - b) / (box[3] - box[1]))


def test_box_of_a_mask_is_around_its_largest_part() -> None:
    mask = np.zeros((10, 20), np.float32)
    mask[1:4, 2:6] = 0.9
    mask[7, 15] = 1
    assert box_of(mask, 200, 50) == (20, 5, 60, 20)
    assert box_of(mask * 0.5, 200, 50) is None


# --- the command ---------------------------------------------------------------------------------


def test_commands_index_search_and_write_page_and_json(
    collection: Path, tmp_path: Path, script: Callable[[str], str]
) -> None:
    model = str(save_model(tmp_path / "model"))
    done = subprocess.run(
        [script("segswap-index"), str(collection), "--model", model, "--workers=0",
         "--out", "an.index"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "an.index: 5 images, 0 skipped" in done.stdout
    assert re.search(r"waited for images \d+\.\d% of the time", done.stderr)
    done = subprocess.run(
        [script("segswap-retrieve"), "an.index", str(collection / "1.png"), "--top", "3",
         "--out", "hits.html", "--json", "hits.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    hits = json.loads((tmp_path / "hits.json").read_text())["hits"]
    assert len(hits) == 3
    assert all(set(hit) == {"image", "score", "box", "mask", "points"} for hit in hits)
    page = (tmp_path / "hits.html").read_text()
    assert page.count('<figure class="card') == 3
    assert "data:image/jpeg;base64," in page
    assert "http" not in re.sub(r"data:[^\"]*|http-equiv", "", page)


@pytest.mark.slow
def test_the_command_without_a_file_to_write_prints_hits_and_leaves_nothing(
    index: Index, collection: Path, tmp_path: Path, script: Callable[[str], str]
) -> None:
    done = subprocess.run(
        [script("segswap-retrieve"), str(index.folder), str(collection / "1.png"), "--box",
         "60,40,180,160", "--top", "3"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert re.fullmatch(r"found in \d of the 3 best of 5 images", said[0])
    assert len(said) == 1 + int(said[0].split()[2])
    assert not list(tmp_path.iterdir())


def test_hits_are_printed_and_nothing_is_written(
    index: Index, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    query = str(collection / "1.png")
    assert find(RetrieveConfig(str(index.folder), query, "60,40,180,160", top=2)) == 0
    first, *hits = capsys.readouterr().out.splitlines()
    assert first == f"found in {len(hits)} of the 2 best of {len(index)} images"
    assert re.fullmatch(r" *\d+\.\d  " + re.escape(str(collection / "3.png")), hits[0])
    assert not list(tmp_path.iterdir())


def test_the_page_opens_in_a_browser_and_shows_the_hits(
    browser: Browser, index: Index, collection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "hits & more.html"
    config = RetrieveConfig(
        str(index.folder), str(collection / "1.png"), "60,40,180,160", top=4, out=str(out)
    )
    assert find(config) == 0
    browser.open(out)
    assert browser.run("document.querySelectorAll('figure.card').length") == 4
    name = browser.run("document.querySelector('figcaption h2').textContent")
    assert name == str(collection / "3.png")
    first = "document.querySelector('figure.card')"
    assert browser.run(f"{first}.querySelectorAll('line').length") >= 4
    shown = f"getComputedStyle({first}.querySelector('.points')).display"
    assert browser.run(shown) != "none"
    for key in ("Tab", "Tab", " "):  # the second of two boxes
        browser.press(key)
    assert browser.run(shown) == "none"
    box = f"{first}.querySelector('rect.box').getBoundingClientRect()"
    assert browser.run(f"{box}.width") > 20
    widest = "document.documentElement.scrollWidth <= window.innerWidth"
    assert browser.run(widest)
    browser.open(out, width=400)
    assert browser.run(widest)
    said = browser.run("[...document.querySelectorAll('svg')].map(s => s.ariaLabel)")
    assert said[0].startswith("1.png, the detail")
    assert re.fullmatch(r"left the detail, right 3\.png: .* outlined, \d+ points joined", said[1])
    assert any(text.endswith(": not found") for text in said)
    assert violations(browser) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": "1,2,3"}, "--box is '1,2,3'; expected left,top,right,bottom"),
        ({"box": "a,b,c,d"}, "--box is 'a,b,c,d'"),
        ({"top": 0}, "--top is 0"),
        ({"shortlist": 0}, "--shortlist is 0"),
    ],
)
def test_unusable_flags_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        RetrieveConfig("index", "query.png", **changes)  # type: ignore[arg-type]


def test_unusable_files_are_refused(index: Index, collection: Path, tmp_path: Path) -> None:
    query, folder = str(collection / "1.png"), str(index.folder)
    with pytest.raises(ValueError, match="is no index"):
        find(RetrieveConfig(str(tmp_path), query, out=str(tmp_path / "page.html")))
    with pytest.raises(ValueError, match="nothing there"):
        find(RetrieveConfig(folder, "nothing there.png", out=str(tmp_path / "page.html")))
    with pytest.raises(ValueError, match=r"--out .* is in no folder"):
        find(RetrieveConfig(folder, query, out=str(tmp_path / "no" / "page.html")))
    other = str(save_model(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"made by the model segswap-tiny .* not by .*other"):
        find(RetrieveConfig(folder, query, model=other, out=str(tmp_path / "page.html")))
    assert parse_box("1,2.5,3,4") == (1, 2.5, 3, 4)
