"""Every page shows the names that it is given as they are, and is what the templates say."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import textured
from jinja2 import UndefinedError
from made_pairs import pasted_pair, write_dataset

from pipelines.generation import attribution, card
from pipelines.pages.gallery import gallery_page, pair_view
from pipelines.pages.groups import Shown, groups_page
from pipelines.pages.hits import hits_page
from pipelines.pages.pictures import outline
from pipelines.pages.render import render
from pipelines.pages.report import write_report
from segswap.data.pair import Pair, PairObject
from segswap.data.shards import encode_pair
from segswap.discovery.discovery import SharedPoints
from segswap.evaluation.metrics import Scores
from segswap.files.images import encode_png
from segswap.matchers.semantic.semantic import SemanticMatcher
from segswap.search.retrieval import Hit, Query

HOSTILE = {
    "a script": "<script>document.title=1<!--",
    "quotes": """a"b'c`d><img src=x onerror=alert(1)>""",
    "a template": "{{ 7 * 7 }}{% if %}{# gone #}{}%s%(x)d",
    "an entity": "&lt;b&gt;&amp;&quot;",
    "no UTF-8": "caf\udce9.png",
    "other letters": "日本語 \u202e ümläut",
    "a table's bar": "a|b\\|c",
}
SAFE = "HARMLESS"


def as_shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def named_pair(name: str) -> Pair:
    """A pair with all that names something named so."""
    made = pasted_pair(styled=True)
    origin = {"dataset": name, "image": name}
    item = PairObject(1, made.objects[0].target_from_source, name, origin, name)
    style = {"method": name, "image": name, name: name}
    return Pair(
        0, made.source, made.target, made.source_mask, made.target_mask, (item,),
        background=origin, source_styled=made.source_styled, target_styled=made.target_styled,
        styles={"source": style, "target": style},
    )  # fmt: skip


def gallery(name: str, folder: Path) -> str:
    pair = named_pair(name)
    members = {key.partition(".")[2]: data for key, data in encode_pair(pair).items()}
    return gallery_page(name, name, [pair_view(pair, members)])


def hits(name: str, folder: Path) -> str:
    image = folder / name / name
    image.parent.mkdir()
    image.write_bytes(encode_png(textured(60, 80, 0)))
    points = np.float32([[10, 10], [60, 50]])
    mask = np.ones((6, 8), np.float32)
    found = Hit(0, str(image), 1.0, (5.0, 5.0, 70.0, 55.0), mask, points, points)
    gone = Hit(1, f"{name}/{name}", 0.0, None, None, points[:0], points[:0])
    return hits_page(Query(textured(60, 80, 1)), name, [found, gone], 2)


def groups(name: str, folder: Path) -> str:
    shown = [Shown(n, name, f"pictures/{n}.jpg", (80, 60), "M0 0Z", 1.0) for n in (0, 1)]
    shared = [SharedPoints((0, 1), np.zeros((2, 2, 2), np.float32))]
    return groups_page(name, [(shown, shared)], 2, 2, [(name, name)])


class Finds:
    """A model that finds nothing, and a prediction of it."""

    matcher = SemanticMatcher  # pictures of kinds are shown of it, too

    def predict(self, *images: np.ndarray) -> "Finds":
        return self

    def draw(self, *images: np.ndarray, height: int) -> np.ndarray:
        return np.zeros((height, 2 * height, 3), np.uint8)


def report(name: str, folder: Path) -> str:
    dataset = write_dataset(folder / "pairs", [named_pair(name)], [named_pair(name)])
    (folder / "run").mkdir()
    (folder / "run" / "curves.png").write_bytes(b"")
    rows = {name: Scores(**{field.name: 0.5 for field in fields(Scores)})}
    page = write_report(
        folder, Path(dataset), folder / "run", {name: Finds()},  # type: ignore[dict-item]
        {"pairs": rows, "stereo": rows}, [name],
    )  # fmt: skip
    return page.read_bytes().decode()


PAGES: dict[str, Callable[[str, Path], str]] = {
    "gallery": gallery, "hits": hits, "groups": groups, "report": report,
}  # fmt: skip


class Parsed(HTMLParser):
    """What a browser would see of a page: its tags with their attributes, and its text.

    Attributes:
        parts: in order; but for what the page's scripts read.
        data: of scripts, decoded.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[Any] = []
        self.data: list[Any] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        scripted = ("data-pair", "data-links")
        self.parts.append((tag, [pair for pair in attrs if pair[0] not in scripted]))
        self.data += [json.loads(value or "") for key, value in attrs if key in scripted]

    def handle_endtag(self, tag: str) -> None:
        self.parts.append(tag)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("page", PAGES)
def test_names_are_text_on_every_page(page: str, name: str, tmp_path: Path) -> None:
    """A page with a hostile name has the tags and the text of one with a harmless name."""

    def made(given: str, folder: str) -> Parsed:
        (tmp_path / folder).mkdir()
        text = PAGES[page](given, tmp_path / folder)
        return Parsed(text.replace(str(tmp_path / folder), ""))

    harmless, hostile = made(SAFE, "harmless"), made(name, "hostile")
    replaced = json.dumps(harmless.parts).replace(SAFE, json.dumps(as_shown(name))[1:-1])
    assert SAFE not in replaced
    assert as_shown(name) in "".join(part for part in hostile.parts if isinstance(part, str))
    assert json.dumps(hostile.parts) == replaced
    for given, data in ((SAFE, harmless.data), (name, hostile.data)):
        objects = [item for each in data if "objects" in each for item in each["objects"]]
        assert [item["name"] for item in objects] == [given] * len(objects)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_are_text_on_a_dataset_s_card(name: str, tmp_path: Path) -> None:
    """Front matter and settings are read back; elsewhere no name makes a tag or a table's cell."""
    dataset = Path(write_dataset(tmp_path / name, [named_pair(name)]))
    made = json.loads((dataset / "segswap.json").read_text())
    inputs = [{"name": name, "images": 1, "segments": 1, "left_out": {name: 2}, "licences": {}}]
    config = {"licenses": "any", "grid_stride": 8, "style": "none", "images": name}
    manifest = made | {
        "generator": "segswap", "created": "2024-01-01T00:00:00Z", "seed": 0, "config": config,
        "inputs": inputs, "skipped": [],
    }  # fmt: skip
    card.write(dataset, manifest, [attribution.Row(name, name, name, f"https://{name}", name)])
    _, front, text = (dataset / "README.md").read_bytes().decode().split("---\n", 2)
    assert yaml.safe_load(front)["pretty_name"] == name
    text, settings = text.split("```yaml\n")
    assert yaml.safe_load(settings.removesuffix("```\n")) == config
    assert "<" not in text.replace("(<https", "")
    shown = as_shown(name)
    assert f"# {shown}" in html.unescape(text).splitlines()
    cells = {
        tuple(cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for line in html.unescape(text).splitlines()
        if line.startswith("|")
    }
    assert (shown, "1", "1", "2") in cells
    assert (shown, shown, shown) in cells


def test_a_template_that_names_what_is_not_there_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="note"):
        render("gallery.html", title="a", pairs=[])


def test_only_pages_that_need_scripts_may_run_any(tmp_path: Path) -> None:
    """And none may load anything but the pictures that lie beside it."""
    for page, make in PAGES.items():
        (tmp_path / page).mkdir()
        text = make("a", tmp_path / page)
        (policy,) = re.findall('Content-Security-Policy" content="([^"]+)"', text)
        assert policy.startswith("default-src 'none'; img-src ")
        assert ("'self'" in policy) == (page in ("groups", "report"))
        assert ("script-src" in policy) == (text.count("<script") == 1) == (page != "hits")
        assert "http" not in re.sub("http-equiv|http://www.w3.org/2000/svg", "", text)


def test_an_outline_lies_on_the_mask_s_edge() -> None:
    mask = np.zeros((100, 200), bool)
    mask[20:60, 40:160] = True
    numbers = outline(mask, 100, 50).replace("M", " ").replace("L", " ").replace("Z", " ").split()
    points = np.array(numbers, float).reshape(-1, 2)
    assert points.min(axis=0).tolist() == pytest.approx([20.25, 10.25], abs=0.1)
    assert points.max(axis=0).tolist() == pytest.approx([79.75, 29.75], abs=0.1)
    assert outline(np.zeros((10, 10), bool), 5, 5) == ""
