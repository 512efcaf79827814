"""The one walk of a folder: each file once, nothing opened, and what is passed over named."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import textured
from PIL import Image

from generators.sources.cache import fingerprint
from segswap.batches.pictures import read_pictures
from segswap.files import folders, formats
from segswap.files.folders import find_images, image_files, subfolders
from segswap.files.images import read_image, read_size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below; another beside the folder."""
    for name in ("photos/a.png", "photos/c.jpg", "photos/sub/b.png", "other/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(textured(40, 50, 1)).save(tmp_path / name)
    return tmp_path / "photos"


def linked(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def litter(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")

    return make


def unread(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).touch() for name in names] and None


def bound(folder: Path) -> None:
    before = Path.cwd()
    os.chdir(folder)  # names of sockets are short
    socket.socket(socket.AF_UNIX).bind("s.png")
    os.chdir(before)


WHOLE = ["a.png", "c.jpg", "sub/b.png"]
CASES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "itself": (linked("loop", "."), WHOLE, ""),
    "below": (linked("sub/up", ".."), WHOLE, ""),
    "again": (linked("again", "sub"), WHOLE, ""),
    "above": (linked("up", ".."), WHOLE, "up: a link to a folder, which is not followed"),
    "all": (linked("sub/root", "/"), WHOLE, "sub/root: a link to a folder"),
    "its own target": (linked("x.png", "x.png"), WHOLE, "x.png: a link that leads nowhere"),
    "no ending": (linked("x", "x"), WHOLE, "x: a link that leads nowhere"),
    "nothing": (linked("x.jpg", "gone"), WHOLE, "x.jpg: a link that leads nowhere"),
    "nothing, a text": (linked("x.txt", "gone"), WHOLE, ""),
    "a file twice": (linked("0.png", "a.png"), WHOLE, ""),
    "a file elsewhere": (linked("z.png", "../other/d.png"), [*WHOLE, "z.png"], ""),
    "a device": (linked("z.png", "/dev/zero"), WHOLE, "z.png: a link to a pipe, socket or device"),
    "a pipe": (lambda f: os.mkfifo(f / "p.png"), WHOLE, "p.png: a pipe, socket or device"),
    "a socket": (bound, WHOLE, "s.png: a pipe, socket or device"),
    "a folder called so": (lambda f: (f / "f.png").mkdir(), WHOLE, ""),
    "resource forks": (litter("._a.png"), WHOLE, ""),
    "Finder": (litter(".DS_Store"), WHOLE, ""),
    "Explorer": (litter("Thumbs.db"), WHOLE, ""),
    "notebooks": (litter(".ipynb_checkpoints/a.png"), WHOLE, ""),
    "Synology": (litter("sub/@eaDir/b.png"), WHOLE, ""),
    "deleted": (litter(".Trash-1000/files/z.png"), WHOLE, ""),
    "zipped on a Mac": (litter("__MACOSX/a.png"), WHOLE, ""),
    "phones": (
        unread("1.HEIC", "2.heic", "sub/3.heic"), WHOLE, "*.heic: 3 not read; pip install",
    ),
    "raw": (unread("1.NEF", "2.svg"), WHOLE, "*.svg: 1 not read; export them as JPEG"),
    "texts": (unread("1.txt", "2"), WHOLE, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_file_once_and_the_rest_named(case: str, folder: Path) -> None:
    make, images, said = CASES[case]
    make(folder)
    found = find_images(folder)
    assert found.images == images
    named = [f"{entry.path}: {entry.reason}" for entry in found.passed]
    if said:
        assert any(text.startswith(said) for text in named), named
    else:
        assert named == []


def test_folders_that_cannot_be_read_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root reads all: the refusal is made."""
    scandir = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name in ("sub", "kept"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", refusing)
    assert image_files(folder) == ["a.png", "c.jpg"]
    assert "sub: a folder that cannot be read (Permission denied)" in capsys.readouterr().err
    assert len(fingerprint(folder)) == 64
    (folder / "kept").mkdir()
    with pytest.raises(ValueError, match=r"kept cannot be read \(Permission denied\)"):
        find_images(folder / "kept")


def test_a_fingerprint_sees_changes_and_follows_no_link(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "system").symlink_to("/usr")
    scandir, seen = os.scandir, list[str]()
    monkeypatch.setattr(folders.os, "scandir", lambda path: seen.append(path) or scandir(path))
    before = fingerprint(folder)
    assert len(seen) == 2
    (folder / ".DS_Store").touch()
    assert fingerprint(folder) == before
    (folder / "sub" / "b.png").write_bytes(b"changed")
    assert fingerprint(folder) != before


def test_image_files_are_sorted_and_recursive(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "c/d.webp", "c/e/f.tiff", "notes.txt", "x.jpg.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    assert image_files(tmp_path) == ["a.PNG", "b.jpg", "c/d.webp", "c/e/f.tiff"]


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image; expected files ending in"):
        image_files(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        image_files(tmp_path / "none")
    (tmp_path / "IMG_1.HEIC").touch()
    with pytest.raises(ValueError, match=r"passed over: \*\.heic: 1 not read; pip install pillow-"):
        image_files(tmp_path)


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.jp2", "a.ppm", "a.pgm", "a.avif"])
def test_further_endings_are_read(name: str, tmp_path: Path) -> None:
    if Path(name).suffix not in formats.EXTENSIONS:
        pytest.skip(f"this Pillow does not read {name}")
    picture = textured(40, 50, 1)
    shown = Image.fromarray(picture).convert("L" if name == "a.pgm" else "RGB")
    kind = {"a.jfif": "JPEG", "a.jpe": "JPEG", "a.jp2": "JPEG2000"}.get(name)
    shown.save(tmp_path / name, kind, quality=95)
    assert image_files(tmp_path) == [name]
    assert read_size(tmp_path / name) == (50, 40)
    assert abs(read_image(tmp_path / name).astype(int) - shown.convert("RGB")).mean() < 8


def test_kinds_are_folders_of_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kind without a picture costs itself alone."""
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", ".ipynb_checkpoints/1.png"):
        (folder.parent / "kinds" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(textured(40, 50, len(name))).save(folder.parent / "kinds" / name)
    kinds = folder.parent / "kinds"
    Image.fromarray(textured(40, 50, 5)).save(kinds / "cat" / "2.png")
    (kinds / "empty").mkdir()
    (kinds / "loop").symlink_to(".")
    (kinds / "up").symlink_to("..")
    (kinds / "ox").symlink_to(folder)
    assert subfolders(kinds) == ["cat", "dog", "empty", "ox"]
    assert read_pictures(str(kinds)).kinds == ("cat", "dog", "ox")
    said = capsys.readouterr().err
    assert "passed over loop: a link to a folder that holds it" in said
    assert "empty holds no image" in said


def test_names_at_a_url_are_judged_alike() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("a.png", "._a.png", "__MACOSX/a.png", "b/Thumbs.db", "b/1.heic", "b/c.jfif"):
        store.pipe_file(f"/walk/{name}", b"x")
    found = find_images("memory://walk")
    assert found.images == ["a.png", "b/c.jfif"]
    assert [entry.path for entry in found.passed] == ["*.heic"]
