"""Names that are no UTF-8, and terminals and locales that are not: escaped, and all is written."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, textured
from made_models import save_model
from PIL import Image
from runs import hashes

from pipelines.command.messages import escape_what_cannot_be_shown
from pipelines.discovery.config import main as discover
from pipelines.generation.config import main as generate_pairs
from pipelines.match.config import main as match
from pipelines.pages.look_config import main as look
from pipelines.search.index_config import main as index
from pipelines.search.retrieve_config import main as retrieve
from segswap.files import storage

SET = ["--segments", "slic", "--objects", "1", "--size", "96", "--val-pairs", "0", "--pairs", "3",
       "--workers=0"]  # fmt: skip
ASCII, LATIN, UTF8 = "ascii", "latin-1", "utf-8"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images in a folder; names of one bad byte, of an accent, of another writing."""
    folder = tmp_path_factory.mktemp("names") / os.fsdecode(b"caf\xe9s")
    folder.mkdir()
    for number, name in enumerate((b"b\xffild.png", "été.png".encode(), "写真.png".encode())):
        Image.fromarray(textured(96, 100, number)).save(folder / os.fsdecode(name))
    return folder


def run(
    main: Callable[[], None], encoding: str, monkeypatch: pytest.MonkeyPatch, *words: object
) -> str:
    """A command with such a terminal; returns what it printed."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        patch.setattr(sys, "argv", ["segswap", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    for stream in streams:
        stream.flush()
    said, errors = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    assert end.value.code == 0, errors
    return said


@pytest.mark.parametrize("encoding", [ASCII, LATIN, UTF8])
def test_datasets_and_their_pages(
    encoding: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / os.fsdecode(b"o\xff\xc3\xa9ut")
    said = run(generate_pairs, encoding, monkeypatch, out, "--images", photos, *SET)
    assert "o\\udcff" in said
    assert "3 train" in said
    page = tmp_path / os.fsdecode(b"p\xff.html")
    assert "3 pairs" in run(look, encoding, monkeypatch, out, "--out", page, "--split", "train")
    assert b"b\\udcffild.png" in page.read_bytes()
    assert "été.png" in page.read_text("utf-8")


def test_collections_and_their_pages(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "model")
    at = [photos, "--model", model, "--workers=0", "--out"]
    assert "3 images, 0 skipped" in run(index, ASCII, monkeypatch, *at, tmp_path / "index")
    query = photos / os.fsdecode(b"b\xffild.png")
    page, told = tmp_path / "hits.html", tmp_path / "hits.json"
    words = [tmp_path / "index", query, "--out", page, "--json", told]
    run(retrieve, ASCII, monkeypatch, *words)
    assert b"b\\udcffild.png" in page.read_bytes()
    hits = [Path(hit["image"]) for hit in json.loads(told.read_text())["hits"]]
    assert all(hit.exists() for hit in hits)
    run(discover, ASCII, monkeypatch, *at, tmp_path / "found")
    assert (tmp_path / "found" / "index.html").exists()
    said = run(match, ASCII, monkeypatch, query, hits[0], "--json", tmp_path / "m.json",
               "--model", model)  # fmt: skip
    assert "b\\udcffild.png" in said


@pytest.mark.parametrize("name", ["a.png", "é/写真.png", "b\udcff.png", "é\udcff.png"])
@pytest.mark.parametrize("encoding", [ASCII, UTF8])
def test_a_name_written_down_in_one_locale_is_found_in_another(
    name: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = name.encode("utf-8", "surrogateescape")
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode(encoding, "surrogateescape"))
    monkeypatch.setattr(os, "fsdecode", lambda data: data.decode(encoding, "surrogateescape"))
    for written in (ASCII, UTF8):
        text = data.decode(written, "surrogateescape")
        assert storage.name_bytes(text) == data
        assert storage.text_of(text) == name
        assert storage.local_path(text) == data.decode(encoding, "surrogateescape")


def test_names_of_no_bytes_are_left(tmp_path: Path) -> None:
    assert storage.local_path("x\ud800.png") == "x\ud800.png"
    storage.write_text(tmp_path / "x", "x\ud800é")
    assert (tmp_path / "x").read_bytes() == b"x\\ud800\xc3\xa9"


def test_streams_of_notebooks_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    escape_what_cannot_be_shown()
    print("\udcff")
    assert sys.stdout.getvalue() == "\udcff\n"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_datasets_have_the_same_bytes_in_any_locale(
    workers: int, photos: Path, tmp_path: Path, generate_process: Run
) -> None:
    flags = ["--images", photos, *SET[:-1], f"--workers={workers}"]
    for name, more in (("here", {}), ("c", {"LC_ALL": "C", "PYTHONUTF8": "0"})):
        generate_process(tmp_path / name, *flags, env=os.environ | more)
    assert hashes(tmp_path / "here") == hashes(tmp_path / "c")


@pytest.mark.slow
def test_an_index_grows_in_another_locale(
    photos: Path, tmp_path: Path, script: Callable[[str], str]
) -> None:
    words = [script("segswap-index"), str(photos), "--out", str(tmp_path / "index"), "--workers=0",
             "--model=segswap-tiny"]  # fmt: skip
    for more in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {}):
        env = os.environ | more
        done = subprocess.run(words, env=env, capture_output=True, check=True, timeout=120)
        assert b"3 images, 0 skipped" in done.stdout
