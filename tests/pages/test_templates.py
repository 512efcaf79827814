"""Every page shows the names that it is given as they are, and is what the templates say."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jinja2 import UndefinedError
from made_pages import HOSTILE, PAGES, named_pair
from made_pairs import write_dataset

from pipelines.generation import attribution, card
from pipelines.pages.pictures import outline
from pipelines.pages.render import render

SAFE = "HARMLESS"


def as_shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


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


def test_a_page_may_use_its_own_style_script_and_pictures_alone(tmp_path: Path) -> None:
    """Only one with a script may run any, and only one with pictures beside it may load any."""
    for page, make in PAGES.items():
        (tmp_path / page).mkdir()
        text = make("a", tmp_path / page)
        (policy,) = re.findall('Content-Security-Policy" content="([^"]+)"', text)
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        own = {
            tag: [
                "'sha256-" + base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() + "'"
                for part in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            ]
            for tag in ("style", "script")
        }
        assert rules.pop("style-src").split() == own["style"]
        assert rules.pop("script-src", "").split() == own["script"]
        assert (len(own["style"]), len(own["script"])) == (1, page != "hits")
        pictures = {"gallery": "data:", "hits": "data:", "groups": "'self' file:"}
        assert rules == {
            "default-src": "'none'", "base-uri": "'none'", "form-action": "'none'",
            "img-src": pictures.get(page, "'self' file: data:"),
        }  # fmt: skip
        assert "http" not in re.sub("http-equiv|http://www.w3.org/2000/svg", "", text)


def test_an_outline_lies_on_the_mask_s_edge() -> None:
    mask = np.zeros((100, 200), bool)
    mask[20:60, 40:160] = True
    numbers = outline(mask, 100, 50).replace("M", " ").replace("L", " ").replace("Z", " ").split()
    points = np.array(numbers, float).reshape(-1, 2)
    assert points.min(axis=0).tolist() == pytest.approx([20.25, 10.25], abs=0.1)
    assert points.max(axis=0).tolist() == pytest.approx([79.75, 29.75], abs=0.1)
    assert outline(np.zeros((10, 10), bool), 5, 5) == ""
