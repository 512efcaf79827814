"""Pages for everyone: axe's rules, names for what is seen, and what a policy keeps out."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from axe import violations
from browser import Browser
from made_pages import HOSTILE, PAGES

from pipelines.pages.groups import groups_page
from pipelines.pages.hits import hits_page
from segswap.search.retrieval import Query


def written(page: str, name: str, folder: Path) -> Path:
    (folder / "page.html").write_text(PAGES[page](name, folder), encoding="utf-8")
    return folder / "page.html"


@pytest.mark.parametrize("width", [1200, 320])
@pytest.mark.parametrize("name", ["dog.jpg", HOSTILE["quotes"], "a" * 200])
@pytest.mark.parametrize("page", PAGES)
def test_no_page_breaks_a_rule(
    browser: Browser, page: str, name: str, width: int, tmp_path: Path
) -> None:
    """Nor is any wider than the window, nor says an image less than what it shows."""
    browser.open(written(page, name, tmp_path), width)
    assert [e for e in browser.events if e.get("method") == "Log.entryAdded"] == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    shown = "[...document.querySelectorAll('img, svg[role=img]')]"
    texts = browser.run(f"{shown}.map(i => i.getAttribute('alt') ?? i.ariaLabel)")
    assert len(texts) >= 2
    assert all(" " in text for text in texts)
    assert violations(browser) == []


def test_pages_of_nothing_break_no_rule(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    query = Query(np.zeros((40, 60, 3), np.uint8))
    for text in (groups_page("none", [], 5, 3, []), hits_page(query, "dog.jpg", [], 0)):
        path.write_text(text)
        browser.open(path)
        assert violations(browser) == []


def test_a_broken_rule_is_found(browser: Browser, tmp_path: Path) -> None:
    """What axe would say, were a text missing or too faint on one of the grounds."""
    browser.open(written("gallery", "dog.jpg", tmp_path))
    browser.run("document.querySelector('img').removeAttribute('alt')")
    assert {text.split(":")[1].strip() for text in violations(browser)} == {"image-alt"}
    browser.run("document.querySelector('img').alt = 'a dog'")
    browser.run("document.querySelector('.bar p').style.setProperty('color', '#555')")
    assert [text.split(":")[:2] for text in violations(browser)] == [["dark", " color-contrast"]]


FOREIGN = """
<script>document.title = "taken"</script>
<svg><script>document.title = "taken"</script></svg>
<img alt="" src="data:," onerror="document.title = 'taken'">
<img alt="" src="http://{host}/1.png"><link rel="stylesheet" href="http://{host}/2.css">
<script src="http://{host}/3.js"></script><iframe src="http://{host}/4.html"></iframe>
<video src="http://{host}/5.webm" autoplay></video><object data="http://{host}/6.swf"></object>
<style>h1 {{ color: rgb(1, 2, 3) !important }}</style>
<h1 style="color: rgb(1, 2, 3) !important">taken</h1>
"""


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server's host and port, and the paths that it was asked for."""
    paths: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", paths
        server.shutdown()


@pytest.mark.parametrize("page", PAGES)
def test_the_policy_keeps_out_what_escaping_would_have_let_in(
    browser: Browser, asked: tuple[str, list[str]], page: str, tmp_path: Path
) -> None:
    """Markup that no page has: it does not run, is not styled, and asks no server for anything;
    without the policy it does all of that."""
    path = written(page, "dog.jpg", tmp_path)
    text = path.read_text()
    title = text[text.index("<title>") + 7 : text.index("</title>")]
    host, paths = asked
    taken = text.replace("<body>", "<body>" + FOREIGN.format(host=host))
    colours = "[...document.querySelectorAll('h1')].map(h => getComputedStyle(h).color)"

    path.write_text(taken)
    browser.open(path)
    browser.run("new Promise(done => setTimeout(done, 300))")
    assert browser.run("document.title") == title
    assert len(browser.run(colours)) == 2
    assert "rgb(1, 2, 3)" not in browser.run(colours)
    assert paths == []

    path.write_text(taken.replace("http-equiv", "data-was"))
    browser.open(path)
    browser.run("new Promise(done => setTimeout(done, 300))")
    assert browser.run("document.title") == "taken"
    assert browser.run(colours) == ["rgb(1, 2, 3)"] * 2
    assert {path[1] for path in paths} >= set("1234")
