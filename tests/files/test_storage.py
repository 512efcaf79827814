"""Files by path and by URL: the same calls, the same results, and stores that fail."""

import errno
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
from conftest import Run, textured
from hypothesis import given
from hypothesis import strategies as st
from runs import assert_same, hashes

from generators.sources.index import Index
from pipelines.command import cli
from pipelines.generation import job
from segswap.data.manifest import read_manifest
from segswap.data.shards import Shard, read_pairs
from segswap.files import cache, storage, stores
from segswap.files.cache import forget_copies, local_copy
from segswap.files.folders import image_files
from segswap.files.images import ImageError, read_image, read_size, read_sizes
from segswap.files.stores import StorageError

PLACES = ("path", "file", "memory")


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local copies lie in a folder of the test; the memory store is emptied."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    yield
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet, of each kind."""
    return {
        "path": str(tmp_path / "folder"), "file": f"file://{tmp_path}/folder",
        "memory": "memory://bucket/folder",
    }[request.param]  # fmt: skip


def copied(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "tmp").glob("segswap-*/*/*/*") if path.is_file()]


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", PLACES, indirect=True)
def test_written_listed_read_and_removed(base: str) -> None:
    assert storage.entries(base) == []
    assert storage.size(storage.join(base, "a")) is None
    with pytest.raises(FileNotFoundError, match="folder/a"):
        storage.read_bytes(storage.join(base, "a"))
    storage.make_folder(storage.join(base, "sub"))
    storage.write_atomically(storage.join(base, "a"), b"first")
    storage.write_atomically(storage.join(base, "a"), b"second")
    storage.write_atomically(storage.join(base, "sub/b"), b"")
    with storage.replacing(storage.join(base, "sub", "c")) as file:
        file.write(b"0123456789" * 1000)
        file.seek(9_990)
        assert file.read() == b"0123456789"
    assert storage.entries(base) == ["a", "sub"]
    assert storage.entries(storage.join(base, "sub")) == ["b", "c"]
    assert storage.read_bytes(storage.join(base, "a")) == b"second"
    assert storage.read_bytes(storage.join(base, "a"), 3) == b"sec"
    assert storage.read_bytes(storage.join(base, "sub", "b")) == b""
    assert storage.size(storage.join(base, "sub", "c")) == 10_000
    assert Path(local_copy(storage.join(base, "a"))).read_bytes() == b"second"
    with pytest.raises(NotADirectoryError):
        storage.entries(storage.join(base, "a"))
    storage.remove_folder(storage.join(base, "sub"))
    storage.remove_folder(storage.join(base, "sub"))
    assert storage.entries(base) == ["a"]


@pytest.mark.parametrize("base", PLACES, indirect=True)
def test_a_file_that_fails_half_way_leaves_the_old_one(base: str, tmp_path: Path) -> None:
    storage.make_folder(base)
    storage.write_atomically(storage.join(base, "a"), b"whole")
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="half way"),
        storage.replacing(storage.join(base, "a")) as file,
    ):
        file.write(b"ha")
        raise RuntimeError("half way")
    assert storage.entries(base) == ["a"]
    assert storage.read_bytes(storage.join(base, "a")) == b"whole"
    assert not [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]


_part = st.text("abcXYZ019._-", min_size=1, max_size=8).filter(lambda part: part.strip("."))


@given(st.sets(st.lists(_part, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6))
def test_files_below_gives_what_was_written(names: set[str]) -> None:
    # A name cannot be a file and a folder.
    names = {n for n in names if not any(other.startswith(f"{n}/") for other in names)}
    base = "memory://bucket/listed"
    storage.remove_folder(base)
    for name in names:
        storage.write_atomically(storage.join(base, name), name.encode())
    assert storage.files_below(base) == sorted(names)
    assert storage.files_below(base + "/") == sorted(names)
    assert storage.entries(base) == sorted({name.split("/")[0] for name in names})


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/a", True), ("gs://bucket", True), ("memory://a", True),
        ("pipe:cat a", True), ("simplecache::s3://bucket/a", True),
        ("file:///a", False), ("/a/b", False), ("a", False), ("C:/a", False),
        (Path("s3://bucket/a"), False), ("folder/s3://a", False),
    ],
)  # fmt: skip
def test_what_is_a_url(path: str, url: bool) -> None:
    assert storage.is_url(path) is url


def test_names() -> None:
    assert storage.join("s3://bucket/", "a", "b/c") == "s3://bucket/a/b/c"
    assert storage.join(Path("/x"), "a") == "/x/a"
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"
    assert (
        storage.absolute("a") == storage.absolute(f"file://{os.getcwd()}/a") == f"{os.getcwd()}/a"
    )
    assert storage.base_name("s3://bucket/a/") == "a"
    assert storage.base_name("s3://bucket") == "bucket"


@pytest.mark.parametrize(
    "url",
    [
        "pipe:touch made",
        "simplecache::memory://x",
        "reference://x",
        "github://a:b@c/d",
        "ftp://a/b",
    ],
)
def test_commands_and_chains_are_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generate: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (read_manifest, read_image, read_size, image_files, Shard.open, Index.load):
        with pytest.raises(ValueError, match="is no URL that can be used"):
            call(url)  # type: ignore[operator]
    done = generate(url, "--demo", "--pairs", 1, "--workers=0", status=1)
    assert "is no URL that can be used" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"]


@pytest.mark.parametrize("url", ["s3://bucket/run*", "memory://a/b[1]", "https://host/pairs"])
def test_out_that_cannot_be_written_to(url: str) -> None:
    with pytest.raises(ValueError, match=r"holds one of|cannot be written to"):
        storage.check_writable(url)


# --- stores that fail --------------------------------------------------------------------------


class Failing:
    """A file system that raises the given errors, one a call, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def cat_file(self, *_: object, **__: object) -> bytes:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return b"data"

    def info(self, key: str) -> dict[str, Any]:
        return {"name": key, "size": 4, "type": "file"}


@pytest.fixture
def waited() -> list[float]:
    """The seconds that were waited between attempts."""
    return []


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, waited: list[float]) -> Callable[..., Failing]:
    def install(*errors: Exception) -> Failing:
        store = Failing(*errors)
        monkeypatch.setattr(stores, "open_store", lambda url: (store, url))
        monkeypatch.setattr("time.sleep", waited.append)
        return store

    return install


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EREMOTEIO, "internal error"), OSError(errno.EBUSY, "slow down"),
        ConnectionResetError("reset"), TimeoutError("no answer"), RuntimeError("of its own kind"),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again(failing: Callable[..., Failing], error: Exception) -> None:
    store = failing(error, error, error)
    assert storage.read_bytes("s3://bucket/a") == b"data"
    assert store.calls == 4


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (PermissionError("forbidden"), StorageError),
        (FileNotFoundError("gone"), FileNotFoundError),
        (OSError(errno.EINVAL, "bad key"), StorageError),
        (type("NoCredentialsError", (Exception,), {})("none found"), StorageError),
    ],
)
def test_what_will_not_pass_is_not(
    failing: Callable[..., Failing], error: Exception, raised: type[Exception]
) -> None:
    store = failing(error)
    with pytest.raises(raised, match="s3://bucket/a"):
        storage.read_bytes("s3://bucket/a")
    assert store.calls == 1


def test_a_store_that_keeps_failing(failing: Callable[..., Failing]) -> None:
    store = failing(*[OSError(errno.EBUSY, "slow down")] * 99)
    with pytest.raises(StorageError, match=r"s3://bucket/a cannot be read: .*slow down"):
        storage.read_bytes("s3://bucket/a")
    assert store.calls == 5


def test_a_store_that_fails_slowly_is_asked_for_20_seconds(
    failing: Callable[..., Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = failing(*[TimeoutError("no answer")] * 99)
    monkeypatch.setattr("time.monotonic", lambda: 9.0 * store.calls)
    with pytest.raises(StorageError, match="no answer"):
        storage.read_bytes("s3://bucket/a")
    assert store.calls == 3


def test_the_waits_double_and_draw_nothing_from_the_global_generator(
    failing: Callable[..., Failing], waited: list[float]
) -> None:
    failing(*[TimeoutError("no answer")] * 4)
    before = random.getstate()
    assert storage.read_bytes("s3://bucket/a") == b"data"
    assert random.getstate() == before
    shares = [seconds / middle for seconds, middle in zip(waited, (0.5, 1, 2, 4), strict=True)]
    assert all(0.5 <= share <= 1.5 for share in shares)
    assert len(set(shares)) == 4


def test_a_failing_store_is_no_broken_image(failing: Callable[..., Failing]) -> None:
    """Else the image would be left out and other pairs be made."""
    for read in (read_image, read_size):
        failing(PermissionError("expired"))
        with pytest.raises(StorageError, match="expired"):
            read("s3://bucket/a.jpg")


def test_an_upload_that_was_cut_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    whole = type(memory).pipe_file
    monkeypatch.setattr(type(memory), "pipe_file", lambda s, path, data: whole(s, path, data[:-1]))
    with pytest.raises(StorageError, match="has 3 bytes after an upload of 4"):
        storage.write_atomically("memory://bucket/a", b"data")


# --- local copies ------------------------------------------------------------------------------


def test_a_copy_is_made_once_and_again_when_the_object_changed(tmp_path: Path) -> None:
    url = "memory://bucket/folder/shard.tar"
    storage.write_atomically(url, b"one")
    first = local_copy(url)
    assert Path(first).name == "shard.tar"
    made = os.stat(first).st_ctime_ns, os.stat(first).st_ino
    assert (os.stat(local_copy(url)).st_ino) == made[1]
    storage.write_atomically(url, b"two")
    assert Path(local_copy(url)).read_bytes() == b"two"
    assert len(copied(tmp_path)) == 2
    forget_copies("memory://bucket/folder")
    assert copied(tmp_path) == []


def test_a_copy_that_was_cut_is_seen_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "get_file", lambda s, path, place: Path(place).write_bytes(b"dat"))
    storage.write_atomically("memory://bucket/a", b"data")
    with pytest.raises(StorageError, match="got 3 of 4 bytes"):
        local_copy("memory://bucket/a")
    assert copied(tmp_path) == []


def test_the_longest_unused_copies_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CACHE_BYTES", 250)
    names = [f"memory://bucket/{number}" for number in range(4)]
    for age, name in enumerate(names):
        storage.write_atomically(name, bytes(100))
        os.utime(local_copy(name), (age, age))
        assert sum(path.stat().st_size for path in copied(tmp_path)) <= 250
    assert sorted(path.name for path in copied(tmp_path)) == ["2", "3"]


def test_processes_that_copy_at_once_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = type(fsspec.filesystem("memory"))
    reads: list[str] = []
    whole = memory.get_file

    def counted(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        reads.append(path)
        time.sleep(0.1)  # the others come meanwhile
        return whole(self, path, *arguments, **options)

    monkeypatch.setattr(memory, "get_file", counted)
    storage.write_atomically("memory://bucket/a", bytes(1000))
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(local_copy("memory://bucket/a")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(reads) == 1


def test_a_folder_of_copies_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_atomically("memory://bucket/a", b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / f"segswap-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="belongs to another user"):
        local_copy("memory://bucket/a")


def test_what_is_made_or_just_asked_for_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's download stays, and the copy it was just told of; a dead one's goes."""
    monkeypatch.setattr(cache, "CACHE_BYTES", 50)
    storage.write_atomically("memory://bucket/a", bytes(100))
    fresh = Path(local_copy("memory://bucket/a"))
    made, dead = (fresh.with_name(f".b.host.{number}.tmp") for number in (1, 2))
    for place, age in ((made, 120), (dead, 7200)):
        place.write_bytes(bytes(100))
        os.utime(place, (time.time() - age,) * 2)
    storage.write_atomically("memory://bucket/c", bytes(100))
    local_copy("memory://bucket/c")
    assert fresh.exists()
    assert made.exists()
    assert not dead.exists()
    os.utime(fresh, (time.time() - 120,) * 2)
    storage.write_atomically("memory://bucket/d", bytes(100))
    local_copy("memory://bucket/d")
    assert not fresh.exists()


# --- web servers -------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL at which a server shows it."""
    folder = tmp_path / "shown"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _said_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)


@pytest.mark.parametrize(
    ("before", "after", "times", "sha256"),
    [
        (b"one", b"three", (1, 1), ("", "")),  # its length tells
        (b"one", b"two", (1, 1_000_000), ("", "")),  # its time tells
        (b"one", b"two", (1, 1), ("a", "b")),  # the manifest alone tells
    ],
)
def test_a_file_remade_at_a_web_server_has_another_copy(
    web: tuple[Path, str], before: bytes, after: bytes, times: tuple[int, int],
    sha256: tuple[str, str],
) -> None:  # fmt: skip
    folder, url = web
    prints = []
    for content, at, digest in zip((before, after), times, sha256, strict=True):
        (folder / "a.tar").write_bytes(content)
        os.utime(folder / "a.tar", (at, at))
        for _ in range(2):
            assert Path(local_copy(f"{url}/a.tar", digest)).read_bytes() == content
        prints.append(storage.fingerprint(f"{url}/a.tar"))
    assert (prints[0] == prints[1]) == bool(sha256[0])


def test_a_dataset_remade_at_a_web_server_is_read(web: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = web
    for seed in (0, 1):
        arguments = ["--demo", "--pairs", 2, "--size", 96, "--seed", seed, "--workers=0"]
        assert run(tmp_path / f"{seed}", *arguments) == 0
        for path in (tmp_path / f"{seed}").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
            os.utime(folder / path.name, (1, 1))
        assert [p.index for p in read_pairs(url, "train")] == [0, 1]


@pytest.mark.parametrize(
    "question",
    [
        storage.read_bytes,
        storage.size,
        storage.entries,
        local_copy,
        storage.fingerprint,
        read_image,
    ],
)
def test_a_web_server_that_says_nothing(
    question: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It accepts, and no more: what is waited for is said, and then given up."""
    monkeypatch.setattr(stores, "_SILENCE", 0.3)
    monkeypatch.setattr(stores, "_SAID_AFTER", 0.1)
    monkeypatch.setattr(stores, "_ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.jpg"
        with pytest.raises(StorageError, match="no answer from its server"):
            question(url)
    assert f"waiting for {url} to be " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("status", "error"), [(404, FileNotFoundError), (403, StorageError), (500, StorageError)]
)
def test_what_a_web_server_answers(
    status: int, error: type[Exception], web: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that fails does not say that a file is missing."""
    monkeypatch.setattr(stores, "_ATTEMPTS", 1)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "send_head", lambda s: s.send_error(status))
    with pytest.raises(error) as raised:
        local_copy(f"{web[1]}/a")
    assert type(raised.value) is error
    assert error is FileNotFoundError or str(status) in str(raised.value)


# --- images ------------------------------------------------------------------------------------


def jpeg(height: int = 60, width: int = 80) -> bytes:
    return cv2.imencode(".jpg", textured(height, width, 1))[1].tobytes()


def test_images_at_urls(tmp_path: Path) -> None:
    files = {
        "a.jpg": jpeg(), "sub/b.PNG": cv2.imencode(".png", textured(50, 40, 2))[1].tobytes(),
        "broken.jpg": jpeg()[:500], "none.gif": b"", "small.png":
        cv2.imencode(".png", textured(20, 40, 2))[1].tobytes(), "notes.txt": b"text",
    }  # fmt: skip
    for name, data in files.items():
        for folder in (str(tmp_path / "images"), "memory://bucket/images"):
            storage.make_folder(storage.join(folder, "sub"))
            storage.write_atomically(storage.join(folder, name), data)
    here, there = tmp_path / "images", "memory://bucket/images"
    names = image_files(here)
    assert image_files(there) == names == sorted(set(files) - {"notes.txt"})
    for name in [*names, "missing.jpg"]:
        local, remote = here / name, storage.join(there, name)
        assert _result(read_image, local) == _result(read_image, remote)
        assert _result(read_size, local) == _result(read_size, remote)
    sizes = list(read_sizes(storage.join(there, name) for name in names))
    assert [s if isinstance(s, tuple) else s.reason for s in sizes] == [
        _result(read_size, here / name) for name in names
    ]
    with pytest.raises(ValueError, match="memory://bucket/other holds no image"):
        image_files("memory://bucket/other")


def _result(read: Callable[[Any], Any], path: Any) -> Any:
    try:
        found = read(path)
    except ImageError as error:
        return error.reason
    return found if isinstance(found, tuple) else found.tolist()


def test_only_the_beginning_of_an_image_is_read_for_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int | None] = []
    whole = storage.read_bytes

    def counted(path: Any, first: int | None = None) -> bytes:
        asked.append(first)
        return whole(path, first)

    monkeypatch.setattr(storage, "read_bytes", counted)
    big = jpeg(900, 1200)
    assert len(big) > 1 << 17
    storage.write_atomically("memory://bucket/a.jpg", big)
    assert read_size("memory://bucket/a.jpg") == (1200, 900)
    assert asked == [1 << 16]
    # A header with 130 kB of comments before the size.
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    storage.write_atomically("memory://bucket/b.jpg", big[:2] + 2 * comment + big[2:])
    assert read_size("memory://bucket/b.jpg") == (1200, 900)
    assert asked == [1 << 16, 1 << 16, None]


# --- whole datasets ----------------------------------------------------------------------------


def run(*arguments: object) -> int:
    words = [*map(str, arguments), "--demo", "--workers=0"]
    return job.generate(cli.parse(job.GenerateConfig, words))


def test_a_dataset_at_a_url_is_the_local_one(tmp_path: Path) -> None:
    flags = ["--pairs", 6, "--val-pairs", 2, "--shard-pairs", 3, "--size", 96]
    assert run(tmp_path / "dataset", *flags) == 0
    url = "memory://bucket/dataset"
    assert run(url, *flags) == 0
    assert run(url, *flags) == 0  # complete already
    assert set(storage.files_below(url)) == {p.name for p in (tmp_path / "dataset").iterdir()}
    (tmp_path / "copy").mkdir()
    for name in storage.files_below(url):
        (tmp_path / "copy" / name).write_bytes(storage.read_bytes(storage.join(url, name)))
    assert_same(tmp_path / "copy", tmp_path / "dataset")
    assert copied(tmp_path) == []
    pairs = zip(read_pairs(url, "train"), read_pairs(tmp_path / "dataset", "train"), strict=True)
    for there, here in pairs:
        np.testing.assert_array_equal(there.source, here.source)
        assert there.objects[0].segment == here.objects[0].segment


def test_an_unfinished_dataset_at_a_url_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards whose size agrees are kept, one cut short is made again."""
    flags = ["--pairs", 10, "--shard-pairs", 2, "--size", 64]
    url = "memory://bucket/dataset"

    def stopped(function: Callable, items: Any) -> Iterator:
        for number, item in enumerate(items):
            if function is job.make_shard and number == 3:
                raise RuntimeError("stopped")
            yield function(item)

    run(tmp_path / "dataset", *flags)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.command.workers.run_inline", stopped)
        with pytest.raises(RuntimeError, match="stopped"):
            run(url, *flags)
    names = [name for name in storage.entries(url) if name.endswith(".tar")]
    assert len(names) == 3
    assert "segswap.json" not in storage.entries(url)
    storage.write_atomically(f"{url}/{names[1]}", b"half")
    memory = fsspec.filesystem("memory")
    before = [memory.ukey(f"{url}/{name}") for name in names]
    with pytest.raises(ValueError, match="pairs was 10, is 11"):
        run(url, *flags, "--pairs", 11)
    assert run(url, *flags) == 0
    after = [memory.ukey(f"{url}/{name}") for name in names]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert {n: s["sha256"] for n, s in _shards(url)} == hashes(tmp_path / "dataset")
    for name, entry in _shards(url):
        data = storage.read_bytes(f"{url}/{name}")
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert ".segswap" not in storage.entries(url)


def _shards(dataset: str) -> list[tuple[str, dict[str, Any]]]:
    splits = read_manifest(dataset)["splits"]
    return [(entry["name"], entry) for split in splits.values() for entry in split["shards"]]


def test_a_shard_whose_copy_was_removed_is_read_again(photos_dataset: Path, tmp_path: Path) -> None:
    url = "memory://bucket/train-000000.tar"
    storage.write_atomically(url, (photos_dataset / "train-000000.tar").read_bytes())
    shard = Shard.open(url)
    forget_copies("memory://bucket")
    local = Shard.open(photos_dataset / "train-000000.tar")
    assert shard.members(1) == local.members(1)


def test_a_file_url_is_a_folder(generate: Run, tmp_path: Path) -> None:
    flags = ["--demo", "--pairs", 3, "--size", 64, "--workers=0"]
    generate(f"file://{tmp_path}/dataset", *flags)
    generate(tmp_path / "other", *flags)
    assert hashes(tmp_path / "dataset") == hashes(tmp_path / "other")


def test_an_index_at_a_url(shapes_index: Index) -> None:
    shapes_index.save("memory://bucket/index")
    loaded = Index.load("memory://bucket/index")
    assert loaded.header == json.loads(json.dumps(shapes_index.header))
    assert set(loaded.arrays) == set(shapes_index.arrays)
    for name, array in shapes_index.arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
        assert isinstance(loaded.arrays[name], np.memmap) or not array.size


def test_a_changed_input_has_another_fingerprint() -> None:
    storage.write_atomically("memory://bucket/images/a.jpg", b"one")
    first = storage.fingerprint("memory://bucket/images")
    assert storage.fingerprint("memory://bucket/images") == first
    storage.write_atomically("memory://bucket/images/a.jpg", b"two")
    second = storage.fingerprint("memory://bucket/images")
    storage.write_atomically("memory://bucket/images/b.jpg", b"two")
    assert len({first, second, storage.fingerprint("memory://bucket/images")}) == 3


def test_local_work_loads_no_fsspec(tmp_path: Path) -> None:
    code = f"""
import sys
from pipelines.command import cli
from pipelines.generation import job
arguments = [{str(tmp_path / "out")!r}, "--demo", "--pairs", "1", "--size", "64", "--workers=0"]
job.generate(cli.parse(job.GenerateConfig, arguments))
assert "fsspec" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
